//! The client on blocking I/O: the same lines, without a runtime under the socket.

#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::{
    error::Error,
    io,
    pin::pin,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use http::Response;
use tokio::{
    signal,
    sync::{
        mpsc::{self, error::TryRecvError},
        oneshot,
    },
};
use ws_core::{
    CloseCode, CloseFrame,
    blocking::{ConnectError, TimedStream, WebSocket},
    handshake::client::Refusal,
};
use ws_examples::Failure;
#[cfg(unix)]
use ws_hyper::client::Address;

use crate::{
    options::Options,
    terminal::{self, Terminal},
};

/// How long the socket waits for a message before it looks for a line: nobody types faster.
const STEP: Duration = Duration::from_millis(10);

/// How much is sent before a look at what has come, in bytes: much for one write, and little for
/// the buffers on the way.
const BATCH: usize = 64 << 10;

/// How many messages are printed before a look for a line.
const MESSAGES: usize = 256;

/// The runtime is there for control-C, which the standard library does not know.
pub(crate) async fn run(options: &Options) -> Result<ExitCode, Failure> {
    let connector = options.blocking_connector()?;
    #[cfg(unix)]
    {
        let address: Address = options.url.parse()?;
        if let Some(path) = address.socket_path() {
            let stream = match UnixStream::connect(path) {
                Ok(stream) => stream,
                Err(error) => return Ok(terminal::refused(None, &error)),
            };
            let uri = address.uri().clone();
            return connected(move || connector.connect_over(uri, stream)).await;
        }
    }
    let url = options.url.clone();
    connected(move || connector.connect(url)).await
}

/// Connects, and talks.
async fn connected<S: TimedStream + Send + 'static>(
    connect: impl FnOnce() -> Connected<S> + Send + 'static,
) -> Result<ExitCode, Failure> {
    // Listened for from before there is anything to interrupt, and without a gap.
    let mut interrupt = pin!(signal::ctrl_c());
    let socket = tokio::select! {
        biased;
        _ = &mut interrupt => return Ok(terminal::interrupted()),
        connected = in_a_thread(connect) => match connected? {
            Ok((socket, _)) => socket,
            // What was asked for cannot be done by anybody.
            Err(
                error @ (ConnectError::Request(_) | ConnectError::Setting(_) | ConnectError::Uri(_)),
            ) => return Err(error.into()),
            Err(error) => {
                let status = error.refusal().map(Refusal::status);
                return Ok(terminal::refused(status, &error));
            }
        },
    };
    let is_interrupted = Arc::new(AtomicBool::new(false));
    let interrupted = Arc::clone(&is_interrupted);
    let mut talking = pin!(in_a_thread(move || talk(
        socket,
        Terminal::new(),
        &is_interrupted
    )));
    tokio::select! {
        end = &mut talking => return end,
        _ = interrupt => interrupted.store(true, Ordering::Relaxed),
    }
    talking.await
}

type Connected<S> = Result<(WebSocket<S>, Response<()>), ConnectError>;

/// Runs what waits in a thread of its own, which does not keep the process alive.
async fn in_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (result, done) = oneshot::channel();
    thread::spawn(move || result.send(work()));
    Ok(done.await?)
}

/// Sends lines and prints messages, until the socket ends.
fn talk<S: TimedStream>(
    mut socket: WebSocket<S>,
    terminal: Terminal,
    is_interrupted: &AtomicBool,
) -> ExitCode {
    let mut input = Input::new(terminal);
    let mut goes_on = true;
    while goes_on {
        let is_over = is_interrupted.load(Ordering::Relaxed) || !input.send(&mut socket);
        if is_over && socket.is_open() {
            // It fails where the socket has ended; that is told below.
            let _ = socket.start_close(CloseFrame::from(CloseCode::NORMAL));
        }
        goes_on = input.print(&mut socket, terminal);
    }
    // It waits only if nothing can be printed any more.
    let closed = socket.close(CloseCode::NORMAL);
    let is_lost = terminal::is_lost(input.printed);
    let cause = closed.cause().map(|cause| cause as &dyn Error);
    let exit = terminal::closed(closed.received(), closed.is_clean(), cause);
    if is_lost { ExitCode::FAILURE } else { exit }
}

/// The lines, and whether something may still be answered.
struct Input {
    lines: mpsc::Receiver<String>,
    is_piped: bool,
    is_answer_due: bool,
    /// Whether there was a line at the last look, so that the next is not far.
    is_busy: bool,
    /// When the lines ended, and since when the server is silent then.
    ended: Option<Instant>,
    heard: Instant,
    printed: io::Result<()>,
}

impl Input {
    fn new(terminal: Terminal) -> Self {
        Self {
            lines: terminal.lines(),
            is_piped: terminal.is_piped,
            is_answer_due: false,
            is_busy: false,
            ended: None,
            heard: Instant::now(),
            printed: Ok(()),
        }
    }

    /// Sends the lines that are there, or some of them. False when nothing more is to come.
    fn send<S: TimedStream>(&mut self, socket: &mut WebSocket<S>) -> bool {
        let mut sent = 0;
        while sent < BATCH && self.ended.is_none() {
            match self.lines.try_recv() {
                Ok(line) => {
                    sent += line.len() + 1;
                    self.is_answer_due = self.is_piped;
                    if socket.send(line).is_err() {
                        return false;
                    }
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.heard = Instant::now();
                    self.ended = Some(self.heard);
                }
            }
        }
        self.is_busy = sent > 0;
        self.ended.is_none_or(|ended| {
            let is_silent = self.heard.elapsed() >= terminal::SILENCE;
            self.is_answer_due && !is_silent && ended.elapsed() < terminal::PATIENCE
        })
    }

    /// Prints messages that have come, and waits a little for one if there is nothing else to do.
    /// False at the end.
    fn print<S: TimedStream>(&mut self, socket: &mut WebSocket<S>, terminal: Terminal) -> bool {
        let mut wait = if self.is_busy { Duration::ZERO } else { STEP };
        // Lines do not wait for the end of a storm.
        for _ in 0..MESSAGES {
            match socket.recv_timeout(wait) {
                Some(Ok(message)) => {
                    self.printed = terminal.print(&message);
                    if self.printed.is_err() {
                        return false;
                    }
                    self.heard = Instant::now();
                }
                Some(Err(error)) if error.is_timeout() => return true,
                Some(Err(_)) | None => return false,
            }
            wait = Duration::ZERO;
        }
        true
    }
}
