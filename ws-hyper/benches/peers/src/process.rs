//! A server in a process of its own, and what the kernel knows about it.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{Result, Server, broker::Broker, machine, stream::Endpoint};

/// A running server; it ends when this is dropped. Its standard input is a pipe from this process
/// and it ends with that too, so that it does not survive a signal to this process either.
pub struct Process {
    child: Ended,
    pub endpoint: Endpoint,
}

/// The scheduler's account of a process.
#[derive(Default)]
pub struct Times {
    /// On a core, in user or in system mode.
    pub running: Duration,
    /// Ready to run, while the core ran something else.
    pub waiting: Duration,
}

impl Process {
    /// Starts `server` on the core `core`. This thread must run on `own_core`.
    pub fn start(server: Server, core: usize, own_core: usize) -> Result<Self> {
        Self::start_node(server, None, core, own_core)
    }

    /// The same, as a node with this broker.
    pub fn start_node(
        server: Server,
        broker: Option<&Broker>,
        core: usize,
        own_core: usize,
    ) -> Result<Self> {
        // A process starts on the core of the thread that starts it.
        machine::pin_to(core)?;
        let child = Command::new(env::current_exe()?)
            .args(["serve", server.name()])
            .args(broker.map(Broker::url))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        machine::pin_to(own_core)?;
        let mut child = Ended(child?);
        let output = child.0.stdout.take().ok_or("the server has no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let endpoint = Endpoint::parse(&line)?;
        Ok(Self { child, endpoint })
    }

    /// What all threads had from the scheduler so far.
    pub fn times(&self) -> Result<Times> {
        self.child.times()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> Result<u64> {
        self.child.resident()
    }
}

/// A process that ends when this is dropped.
pub struct Ended(pub Child);

impl Ended {
    /// What all threads had from the scheduler so far.
    pub fn times(&self) -> Result<Times> {
        // The count of a running thread is only brought up to date when it stops running.
        thread::sleep(Duration::from_millis(2));
        let mut times = Times::default();
        for task in fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let mut fields = text.split_whitespace().map(str::parse);
            let mut next = || fields.next().ok_or("schedstat is too short");
            times.running += Duration::from_nanos(next()??);
            times.waiting += Duration::from_nanos(next()??);
        }
        Ok(times)
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0.id()))?;
        let kibibytes = text
            .lines()
            .find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"))
            .ok_or("smaps_rollup without Rss")?;
        Ok(kibibytes.parse::<u64>()? * 1024)
    }

    /// Bytes that it has read and written so far, files and sockets alike.
    pub fn bytes(&self) -> Result<(u64, u64)> {
        let text = fs::read_to_string(format!("/proc/{}/io", self.0.id()))?;
        let field = |name: &str| -> Result<u64> {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(name));
            Ok(value.ok_or("io is too short")?.trim().parse()?)
        };
        Ok((field("rchar:")?, field("wchar:")?))
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
