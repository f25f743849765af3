//! A server of another hand, in a process of its own: those of `tests/peers`.
//!
//! They need Python's `websockets` or Node's `ws`, so tests that start them are ignored unless they
//! are asked for. `tests/full.sh` installs both, and says where by two variables: `WS_TESTS_PYTHON`,
//! the interpreter (else `python3`), and `NODE_PATH`, which is Node's own.

use std::{
    env,
    ffi::OsStr,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

/// A server of another hand. Dropping it ends the process.
///
/// The paths that it serves are told in `tests/peers/websockets_server.py`.
#[derive(Debug)]
pub struct Foreign {
    child: Child,
    /// Where it listens: `ws://127.0.0.1:PORT`, `wss://127.0.0.1:PORT` or `ws+unix:PATH`.
    pub address: String,
}

impl Foreign {
    /// `websockets_server.py` with these arguments besides.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn python<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let python = env::var_os("WS_TESTS_PYTHON").filter(|path| !path.is_empty());
        let python = python.unwrap_or_else(|| "python3".into());
        Self::start(Command::new(python), "websockets_server.py", arguments)
    }

    /// `ws_server.cjs` with these arguments besides.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn node<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::start(Command::new("node"), "ws_server.cjs", arguments)
    }

    /// `http2_server.cjs` with these arguments besides. It has paths of its own.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn http2<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::start(Command::new("node"), "http2_server.cjs", arguments)
    }

    fn start<A: AsRef<OsStr>>(
        mut command: Command,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let mut child = command
            .arg(directory.join(program))
            // It ends when this process does, even by a signal.
            .arg("--until-eof")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdout = child.stdout.take().expect("it is piped");
        let mut address = String::new();
        let read = BufReader::new(stdout).read_line(&mut address);
        read.expect("it prints text");
        let address = address.trim_end().to_owned();
        assert!(!address.is_empty(), "{program} ended before it listened");
        Self { child, address }
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
