//! An echo server on the engine and `std::net` alone: `cargo run --example engine`

use std::{
    error::Error,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bytes::Buf;
use http::Request;
use ws_core::{
    Config, Connection, Event, Role,
    handshake::{extensions::Extensions, server::Offer},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip_while(|argument| argument != "--listen");
    let listener = TcpListener::bind(arguments.nth(1).unwrap_or("127.0.0.1:9001".into()))?;
    println!("ws://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(|| serve(stream).unwrap_or_else(|error| eprintln!("{error}")));
    }
}

fn serve(mut stream: TcpStream) -> Result<(), Box<dyn Error>> {
    let config = Config::new().max_message_size(64 << 20);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(config.handshake_timeout))?;
    stream.set_write_timeout(config.write_timeout)?;
    let (extensions, behind) = accept(&stream, &config)?;
    let mut connection = Connection::new(Role::Server, config).with_extensions(&extensions);
    connection.receive(&behind);
    while !connection.is_done() {
        while connection.is_writable()
            && let Ok(Some(event)) = connection.poll()
        {
            if let Event::Message(message) = event {
                // Refused once a Close has gone either way: then nobody waits for an answer.
                let _ = connection.send(message);
            }
        }
        if connection.wants_write() {
            let mut transmit = connection.transmit();
            let written = unless_late(stream.write(transmit.chunk()))?;
            transmit.advance(written.unwrap_or(0));
        }
        if connection.wants_shutdown() {
            // The peer's bytes are thrown away until its end. Doing this again does no harm.
            let _ = stream.shutdown(Shutdown::Write);
        }
        let now = Instant::now();
        connection.handle_timeout(now);
        let due = connection.poll_timeout(now);
        // With something left to write or to take, the next turn comes before the next read.
        let idle = !connection.wants_write() && connection.inbox_size() == 0;
        if idle && connection.wants_read() && !connection.is_done() {
            stream.set_read_timeout(due.map(|due| (due - now).max(Duration::from_millis(1))))?;
            // A large message is read straight into its own buffer.
            let mut scratch = Vec::new();
            let buffer = connection.read_buf().unwrap_or(&mut scratch);
            let len = buffer.len();
            buffer.resize(len + (64 << 10), 0);
            let read = stream.read(&mut buffer[len..]);
            buffer.truncate(len + read.as_ref().unwrap_or(&0));
            connection.receive(&scratch);
            if unless_late(read)? == Some(0) {
                connection.receive_eof();
            }
        }
    }
    Ok(())
}

/// `None` when a deadline has passed: what that means is the engine's to say.
fn unless_late(result: io::Result<usize>) -> io::Result<Option<usize>> {
    use ErrorKind::{Interrupted, TimedOut, WouldBlock};
    match result {
        Err(error) if matches!(error.kind(), Interrupted | TimedOut | WouldBlock) => Ok(None),
        result => result.map(Some),
    }
}

/// Answers the opening handshake (RFC 6455 §4.2), and returns what was agreed on beside the bytes
/// that came behind it.
fn accept(
    mut stream: &TcpStream,
    config: &Config,
) -> Result<(Extensions, Vec<u8>), Box<dyn Error>> {
    let mut head = BufReader::new(stream.take(16 << 10));
    let mut lines = head.by_ref().lines().map_while(Result::ok);
    let start = lines.next().unwrap_or_default();
    let mut words = start.split(' ');
    let method = words.next().unwrap_or_default();
    let mut request = Request::builder()
        .method(method)
        .uri(words.next().unwrap_or_default());
    while let Some((name, value)) = lines
        .next()
        .as_deref()
        .and_then(|line| line.split_once(':'))
    {
        request = request.header(name, value.trim());
    }
    let (parts, ()) = request.body(())?.into_parts();
    let offer = Offer::from_request(&parts)?.negotiate(config)?;
    let (response, accepted) = offer.accept(None)?;
    write!(stream, "HTTP/1.1 {}\r\n", response.status())?;
    for (name, value) in response.headers() {
        write!(stream, "{name}: {}\r\n", value.to_str()?)?;
    }
    write!(stream, "\r\n")?;
    Ok((accepted.extensions().clone(), head.buffer().to_vec()))
}
