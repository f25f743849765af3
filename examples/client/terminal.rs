//! Lines in, lines out, and the last words. What a peer says cannot steer the terminal: control
//! characters, and those that turn the direction of a text, are printed as `\n`, `\u{1b}` and the like.

use std::{
    error::Error,
    fmt::Write as _,
    io::{self, BufRead, IsTerminal, Write},
    process::ExitCode,
    thread,
    time::Duration,
};

use http::StatusCode;
use tokio::sync::mpsc;
use ws_tower::{Message, ws_core::Close};

/// How long a server has to be silent before the end of a pipe closes the socket.
pub(crate) const SILENCE: Duration = Duration::from_millis(500);

/// How long the end of a pipe waits for that.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Standard input and output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// Whether somebody sits there.
    is_interactive: bool,
    /// Whether what is sent comes from a program or a file. It ends when all is said, which does
    /// not mean that all is heard: many servers answer a Close at once, and nothing after it.
    pub(crate) is_piped: bool,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let is_piped = !io::stdin().is_terminal();
        Self {
            is_interactive: !is_piped && io::stdout().is_terminal(),
            is_piped,
        }
    }

    /// The lines of standard input, as they come. A thread reads them, which does not keep the
    /// process alive.
    pub(crate) fn lines(self) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel(1024);
        thread::spawn(move || {
            let mut input = io::stdin().lock();
            loop {
                self.prompt();
                let mut line = Vec::new();
                match input.read_until(b'\n', &mut line) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                match str::from_utf8(line) {
                    Ok(line) if sender.blocking_send(line.to_owned()).is_err() => return,
                    Ok(_) => {}
                    Err(_) => eprintln!("a line is not UTF-8, and not sent"),
                }
            }
        });
        receiver
    }

    /// Prints a message as one line, at once.
    pub(crate) fn print(self, message: &Message) -> io::Result<()> {
        let mut line = match message {
            Message::Text(text) => printable(text),
            Message::Binary(bytes) => {
                let mut line = format!("<{} bytes> ", bytes.len());
                for byte in bytes {
                    let _ = write!(line, "{byte:02x}");
                }
                line
            }
        };
        if self.is_interactive {
            line.insert(0, '\r');
        }
        line.push('\n');
        // One write, or a prompt may come in between.
        let mut output = io::stdout().lock();
        output.write_all(line.as_bytes())?;
        output.flush()?;
        drop(output);
        self.prompt();
        Ok(())
    }

    fn prompt(self) {
        if self.is_interactive {
            let mut output = io::stdout().lock();
            let _ = output.write_all(b"> ").and_then(|()| output.flush());
        }
    }
}

/// Tells how the socket ended: the peer's Close, and what ended it if that was something else.
pub(crate) fn closed(
    received: Option<&Close>,
    is_clean: bool,
    cause: Option<&dyn Error>,
) -> ExitCode {
    // RFC 6455 §7.1.5: 1005 for a Close without a code, 1006 for no Close at all.
    let mut line = match received {
        Some(close) => match close.frame() {
            Some(frame) => format!("{} {}", u16::from(frame.code()), printable(frame.reason())),
            None => "1005".to_owned(),
        },
        None => "1006".to_owned(),
    };
    line.truncate(line.trim_end().len());
    line.push_str(if is_clean { " (clean)" } else { " (unclean)" });
    if let Some(cause) = cause {
        let _ = write!(line, ": {}", printable(&chain(cause)));
    }
    eprintln!("closed {line}");
    if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Tells that somebody had enough before there was a socket.
pub(crate) fn interrupted() -> ExitCode {
    eprintln!("closed 1006 (unclean): interrupted before there was a connection");
    ExitCode::FAILURE
}

/// Tells why what was received could not be printed; true where that is a failure. Who stops
/// reading has heard enough.
pub(crate) fn is_lost(printed: io::Result<()>) -> bool {
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("standard output failed, what came is lost: {error}");
            true
        }
        _ => false,
    }
}

/// Tells why there is no socket. Where no server has answered there is no status: that is the
/// 1006 that a browser tells.
pub(crate) fn refused(status: Option<StatusCode>, error: &dyn Error) -> ExitCode {
    let cause = printable(&chain(error));
    match status {
        Some(status) => eprintln!("refused {}: {cause}", status.as_u16()),
        None => eprintln!("closed 1006 (unclean): {cause}"),
    }
    ExitCode::FAILURE
}

/// An error and its causes.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The text in one line, without what steers a terminal or hides in the text.
fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if (character.is_control() && character != '\t') || is_hidden(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Unicode's format characters (category Cf) and separators of lines, but for the two joiners, which
/// words and pictures need: what turns the direction of a text makes it read as another one.
fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{180e}'
            | '\u{200b}'
            | '\u{200e}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e007f}'
    )
}
