//! Brokers in processes of their own: `redis-server` and `nats-server`.
//!
//! Tests that start them are ignored unless they are asked for: `tests/full.sh` installs both.

use std::{
    env, fs,
    hash::{BuildHasher, RandomState},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

/// Which broker.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "these are what the hub speaks to")]
pub enum Kind {
    /// `redis-server`.
    Redis,
    /// `nats-server`.
    Nats,
}

/// A broker in a process of its own, on this machine. Dropping it ends the process.
#[derive(Debug)]
pub struct Broker {
    /// Which one it is.
    pub kind: Kind,
    /// Where it listens.
    pub port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
    directory: Directory,
}

impl Broker {
    /// Starts one, and waits until it listens.
    pub async fn start(kind: Kind) -> Self {
        Self::start_with(kind, |_, _| Vec::new()).await
    }

    /// Starts one with these arguments more, for its directory and port. They are asked for anew if
    /// somebody has taken the port meanwhile.
    pub async fn start_with(kind: Kind, arguments: impl Fn(&Path, u16) -> Vec<String>) -> Self {
        for _ in 0..5 {
            let (port, directory) = (free_port(), Directory::new());
            let mut broker = Self {
                kind,
                port,
                arguments: arguments(&directory.0, port),
                child: None,
                directory,
            };
            if broker.try_restart().await {
                return broker;
            }
        }
        panic!("the broker does not listen");
    }

    /// Starts it again after [`kill`](Self::kill), and waits until it listens.
    pub async fn restart(&mut self) {
        assert!(self.try_restart().await, "the broker does not listen");
    }

    /// Says whether it listens.
    async fn try_restart(&mut self) -> bool {
        let port = self.port.to_string();
        let directory = self.directory.0.to_str().expect("it is text");
        let (program, arguments) = match self.kind {
            Kind::Redis => {
                let own = ["--bind", "127.0.0.1", "--port", &port, "--save", ""];
                ("redis-server", [&own[..], &["--dir", directory]].concat())
            }
            Kind::Nats => ("nats-server", vec!["-a", "127.0.0.1", "-p", &port]),
        };
        let child = Command::new(program)
            .args(arguments)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = self.child.insert(child.expect("the broker is installed"));
        listens(child, SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))).await
    }

    /// Its URL, for nobody in particular.
    pub fn url(&self) -> String {
        self.url_of("")
    }

    /// Its URL for this user, `NAME:PASSWORD@`.
    pub fn url_of(&self, user: &str) -> String {
        let scheme = match self.kind {
            Kind::Redis => "redis",
            Kind::Nats => "nats",
        };
        format!("{scheme}://{user}127.0.0.1:{}", self.port)
    }

    /// Writes a file into its directory. Returns the path.
    pub fn write(&self, name: &str, text: &str) -> String {
        write(&self.directory.0, name, text)
    }

    /// Sends it a signal, `-STOP` for example.
    pub fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args([signal, &id]).status();
        assert!(status.expect("there is `kill`").success());
    }

    /// Ends it by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port for a program that cannot listen on port 0 and say what it got. It is below those that
/// Linux gives to connections (32768 and up): one of these may be taken by a client before the
/// program listens, or while it is down.
///
/// # Panics
///
/// If all are taken.
pub fn free_port() -> u16 {
    // Each process begins somewhere else.
    static NEXT: LazyLock<AtomicUsize> = LazyLock::new(|| {
        let chance = RandomState::new().hash_one(()) % PORTS.len() as u64;
        AtomicUsize::new(usize::try_from(chance).unwrap_or(0))
    });
    let mut ports = PORTS.map(|_| {
        let next = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len();
        PORTS.start + u16::try_from(next).expect("it is one of them")
    });
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    ports.find(is_free).expect("a port")
}

/// Waits until a program that has just been started listens there. `false`: it has ended, or does
/// not come to it.
///
/// # Panics
///
/// If the system does not tell of the program.
pub async fn listens(program: &mut Child, address: SocketAddr) -> bool {
    let is_gone = |it: &mut Child| it.try_wait().expect("it is ours").is_some();
    for _ in 0..6000 {
        // Whoever answers is the program, if that has not failed to take the port.
        if TcpStream::connect(address).is_ok() {
            return !is_gone(program);
        }
        if is_gone(program) {
            return false;
        }
        sleep(Duration::from_millis(10)).await;
    }
    false
}

const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Writes a file into this directory. Returns the path.
pub fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).expect("it can be written");
    path.to_str().expect("it is text").to_owned()
}

/// A directory that is removed when it is dropped.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ws-brokers-{}-{count}", std::process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
