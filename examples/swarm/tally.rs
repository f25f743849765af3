//! What a swarm has done so far, as lines for a person.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use ws_examples::Histogram;

/// What all sockets together have done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    open: AtomicUsize,
    /// Messages and bytes of payload that were received.
    received: AtomicU64,
    bytes: AtomicU64,
    /// Round trips since the last line, a few of them so that sockets seldom meet.
    latencies: [Mutex<Histogram>; 16],
    /// Why sockets could not be opened or ended too early, and how many of them.
    lost: Mutex<BTreeMap<String, usize>>,
}

impl Tally {
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A message of this socket has come back.
    pub(crate) fn answered(&self, socket: usize, after: Duration) {
        lock(&self.latencies[socket % self.latencies.len()]).record(after);
    }

    pub(crate) fn lost(&self, why: String) {
        let mut lost = lock(&self.lost);
        // A server that invents a reason for each fills no memory.
        let why = if lost.len() < 20 {
            why
        } else {
            "other reasons".to_owned()
        };
        *lost.entry(why).or_default() += 1;
    }

    /// Whether any socket has ever been open, and how many are lost.
    pub(crate) fn losses(&self) -> usize {
        lock(&self.lost).values().sum()
    }

    /// The round trips since the last call.
    fn take_latencies(&self) -> Histogram {
        let mut all = Histogram::new();
        for some in &self.latencies {
            all.merge(&std::mem::take(&mut *lock(some)));
        }
        all
    }
}

/// Writes the progress, and at the end the result.
#[derive(Debug)]
pub(crate) struct Report {
    sockets: usize,
    start: Instant,
    last: Instant,
    received: u64,
    bytes: u64,
    latencies: Histogram,
    most_open: usize,
}

impl Report {
    pub(crate) fn new(sockets: usize) -> Self {
        let now = Instant::now();
        Self {
            sockets,
            start: now,
            last: now,
            received: 0,
            bytes: 0,
            latencies: Histogram::new(),
            most_open: 0,
        }
    }

    /// The figures since the last line: on standard error, in place where that is a terminal.
    pub(crate) fn progress(&mut self, tally: &Tally) {
        let passed = self.last.elapsed();
        let (messages, bytes) = self.take(tally);
        let latencies = tally.take_latencies();
        self.latencies.merge(&latencies);
        let open = tally.open.load(Ordering::Relaxed);
        self.most_open = self.most_open.max(open);
        let mut line = format!(
            "{:>4} s  {open}/{} open",
            self.start.elapsed().as_secs(),
            self.sockets
        );
        let lost = tally.losses();
        if lost > 0 {
            let _ = write!(line, ", {lost} lost");
        }
        let _ = write!(
            line,
            "  {} messages/s  {}/s{}",
            per_second(messages, passed),
            size(per_second(bytes, passed)),
            latency(&latencies)
        );
        let mut stderr = io::stderr().lock();
        let _ = if stderr.is_terminal() {
            // To the begin of the line, and clear it.
            write!(stderr, "\r\x1b[2K{line}").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "{line}")
        };
    }

    /// All of it: on standard output.
    pub(crate) fn finish(mut self, tally: &Tally) {
        self.take(tally);
        self.latencies.merge(&tally.take_latencies());
        if io::stderr().is_terminal() {
            eprintln!();
        }
        let passed = self.start.elapsed();
        println!(
            "{} of {} sockets open, {} messages ({}) in {:.1} s: {} messages/s{}",
            self.most_open,
            self.sockets,
            self.received,
            size(self.bytes),
            passed.as_secs_f64(),
            per_second(self.received, passed),
            latency(&self.latencies)
        );
        for (why, count) in &*lock(&tally.lost) {
            println!("{count} lost: {why}");
        }
    }

    fn take(&mut self, tally: &Tally) -> (u64, u64) {
        let received = tally.received.load(Ordering::Relaxed);
        let bytes = tally.bytes.load(Ordering::Relaxed);
        let new = (received - self.received, bytes - self.bytes);
        (self.received, self.bytes) = (received, bytes);
        self.last = Instant::now();
        new
    }
}

fn per_second(count: u64, time: Duration) -> u64 {
    let thousandths = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1000) / thousandths
}

fn latency(histogram: &Histogram) -> String {
    if histogram.count() == 0 {
        return String::new();
    }
    let [half, most, nearly_all] =
        [0.5, 0.99, 0.999].map(|share| milliseconds(histogram.quantile(share)));
    let longest = milliseconds(histogram.largest());
    format!("  latency {half} ms, 99 % {most}, 99.9 % {nearly_all}, longest {longest}")
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1000.0)
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
