//! A server in a process of its own, so that what it takes can be measured from outside: the test
//! binary runs itself again.
//!
//! A file of tests has one test that is the server, if the process is there for that, and returns
//! at once if not:
//!
//! ```
//! # use ws_tests::process;
//! # use std::net::TcpListener;
//! // #[test]
//! fn a_server_for_the_other_tests() {
//!     process::serve(|listener: TcpListener| drop(listener));
//! }
//! ```

use std::{
    env, fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Set in the process that is the server.
const SERVER: &str = "WS_TESTS_SERVER";

/// In the process that is the server: serves until the process that measures is gone. Elsewhere
/// it returns at once.
///
/// # Panics
///
/// Without a port.
pub fn serve(server: impl FnOnce(TcpListener)) {
    if env::var_os(SERVER).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("\n{SERVER} {}", listener.local_addr().expect("an address"));
    thread::spawn(|| {
        // The pipe ends with whoever holds its other end.
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    server(listener);
}

/// A server in a process of its own. Dropping it ends the process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts the test of this name, which calls [`serve`].
    ///
    /// # Panics
    ///
    /// If there is no such server.
    pub fn start(test: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("a test binary"))
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(SERVER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test binary runs again");
        let stdout = child.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(stdout).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(SERVER)?.trim().parse().ok())
            .expect("the server says where it listens");
        Self { child, address }
    }

    /// Resident memory, in bytes.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Virtual memory, in bytes.
    pub fn virtual_size(&self) -> u64 {
        self.status("VmSize:")
    }

    /// Resident memory at its highest so far, in bytes.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The time that its threads have run.
    ///
    /// # Panics
    ///
    /// If the process is gone.
    pub fn cpu(&self) -> Duration {
        let stat = self.read("stat");
        // The name in parentheses may hold anything; what follows is numbers.
        let (_, numbers) = stat.rsplit_once(')').expect("a name");
        let ticks = numbers.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.map(|it| it.parse().unwrap_or(0)).sum();
        // Linux tells programs of hundredths of a second, whatever its own clock.
        Duration::from_millis(ticks * 10)
    }

    /// Whether all its threads wait for something: none runs, and none would if it had a core.
    ///
    /// # Panics
    ///
    /// If the process is gone.
    pub fn is_asleep(&self) -> bool {
        let path = format!("/proc/{}/task", self.child.id());
        let mut threads = fs::read_dir(path).expect("a process").flatten();
        threads.all(|thread| {
            let stat = fs::read_to_string(thread.path().join("stat"));
            // One that has ended meanwhile does not run.
            stat.map_or(true, |stat| stat.contains(") S "))
        })
    }

    /// How many descriptors it has open.
    ///
    /// # Panics
    ///
    /// If the process is gone.
    pub fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        fs::read_dir(path).expect("a process").count()
    }

    fn status(&self, field: &str) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let number = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kilobytes: u64 = number
            .and_then(|it| it.trim().parse().ok())
            .expect("a number");
        kilobytes << 10
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("a process")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What this thread has worked since then: not what it has waited for a core that others use.
#[derive(Debug)]
pub struct Stopwatch {
    worked: Option<Duration>,
    start: Instant,
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self {
            worked: worked(),
            start: Instant::now(),
        }
    }

    /// Time on a core, to a few milliseconds; on the wall where the system does not tell.
    pub fn elapsed(&self) -> Duration {
        match (self.worked, worked()) {
            (Some(before), Some(now)) => now.saturating_sub(before),
            _ => self.start.elapsed(),
        }
    }
}

/// The scheduler's account of this thread (Linux).
fn worked() -> Option<Duration> {
    let account = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds = account.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_nanos(nanoseconds))
}
