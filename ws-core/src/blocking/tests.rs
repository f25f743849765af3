//! A socket over a stream that follows a script, in bytes.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    iter, thread,
    time::{Duration, Instant},
};

use super::{error::Error, socket::WebSocket, stream::TimedStream};
use crate::{
    CloseCode, CloseFrame, Config, Connection, ConnectionError, Message, PreparedMessage,
    ProtocolError, Role,
};

/// What a call of a stream does.
#[derive(Clone, Debug)]
enum Step {
    /// A read gets these bytes.
    Bytes(Vec<u8>),
    /// It fails; after waiting for its time, if it is a wait.
    Fail(ErrorKind),
    /// A write takes so many bytes at most.
    Take(usize),
}

use Step::{Bytes, Fail, Take};

/// A stream that follows a script. Reading behind its end is the end of the stream, writing takes
/// all.
#[derive(Debug, Default)]
struct Script {
    reads: VecDeque<Step>,
    writes: VecDeque<Step>,
    flushes: VecDeque<Step>,
    written: Vec<u8>,
    flushed: usize,
    shutdowns: usize,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    settings: usize,
}

impl Script {
    fn reading(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            reads: steps.into_iter().collect(),
            ..Self::default()
        }
    }

    fn writing(mut self, steps: impl IntoIterator<Item = Step>) -> Self {
        self.writes.extend(steps);
        self
    }
}

fn fail(kind: ErrorKind, wait: Option<Duration>) -> io::Error {
    if matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        // Less than it may: a test is in a hurry, and a stream is free to.
        thread::sleep(wait.unwrap_or_default().min(MAX_WAIT));
    }
    kind.into()
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reads.pop_front() {
            None => Ok(0),
            Some(Fail(kind)) => Err(fail(kind, self.read_timeout)),
            Some(Take(_)) => unreachable!("reads take nothing"),
            Some(Bytes(mut bytes)) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                if count < bytes.len() {
                    self.reads.push_front(Bytes(bytes.split_off(count)));
                }
                Ok(count)
            }
        }
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match self.writes.pop_front() {
            None => bytes.len(),
            Some(Take(count)) => count.min(bytes.len()),
            Some(Fail(kind)) => return Err(fail(kind, self.write_timeout)),
            Some(Bytes(_)) => unreachable!("writes give nothing"),
        };
        self.written.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(Fail(kind)) = self.flushes.pop_front() {
            return Err(fail(kind, self.write_timeout));
        }
        self.flushed = self.written.len();
        Ok(())
    }
}

impl TimedStream for Script {
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        assert_ne!(timeout, Some(Duration::ZERO));
        self.read_timeout = timeout;
        self.settings += 1;
        Ok(())
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        assert_ne!(timeout, Some(Duration::ZERO));
        self.write_timeout = timeout;
        self.settings += 1;
        Ok(())
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        self.shutdowns += 1;
        Ok(())
    }
}

/// The longest wait of a stream in a test.
const MAX_WAIT: Duration = Duration::from_millis(2);

const WAIT: Step = Fail(ErrorKind::WouldBlock);
const LATE: Step = Fail(ErrorKind::TimedOut);
const AGAIN: Step = Fail(ErrorKind::Interrupted);

fn bytes(bytes: impl AsRef<[u8]>) -> Step {
    Bytes(bytes.as_ref().to_vec())
}

/// A client whose keys are zero: the payload is readable.
fn client(stream: Script) -> WebSocket<Script> {
    client_with(stream, Config::new())
}

fn client_with(stream: Script, config: Config) -> WebSocket<Script> {
    let connection = Connection::new(Role::Client, config).with_mask_keys(|| [0; 4]);
    WebSocket::new(stream, connection)
}

fn untimed(stream: Script) -> WebSocket<Script> {
    let connection = Connection::new(Role::Client, Config::new()).with_mask_keys(|| [0; 4]);
    WebSocket::without_timeouts(stream, connection)
}

fn server(stream: Script) -> WebSocket<Script> {
    WebSocket::new(stream, Connection::new(Role::Server, Config::new()))
}

fn hello() -> Message {
    Message::text("Hello")
}

/// What was received, with the error as text.
fn seen(received: Option<Result<Message, Error>>) -> Option<Result<Message, String>> {
    received.map(|result| result.map_err(|error| format!("{error:?}")))
}

fn is_timeout(received: Option<Result<Message, Error>>) -> bool {
    received.is_some_and(|result| result.is_err_and(|error| error.is_timeout()))
}

const HELLO: &[u8] = b"\x81\x05Hello";
/// Close with 1000 by a server, and by a client with a key of zeros.
const CLOSE: &[u8] = b"\x88\x02\x03\xe8";
const MASKED_CLOSE: &[u8] = b"\x88\x82\0\0\0\0\x03\xe8";

#[test]
fn any_cut_of_the_input_yields_the_same_messages_whatever_comes_between() {
    let input = [HELLO, b"\x01\x03Hel\x89\x01!\x80\x02lo", CLOSE].concat();
    for cut in 0..input.len() {
        let (start, rest) = input.split_at(cut);
        let mut steps = vec![AGAIN, bytes(rest)];
        if cut > 0 {
            steps.insert(0, bytes(start));
        }
        for mut socket in [
            client(Script::reading(steps.clone())),
            untimed(Script::reading(steps)),
        ] {
            assert_eq!(seen(socket.recv()), Some(Ok(hello())));
            assert_eq!(seen(socket.recv()), Some(Ok(hello())));
            assert_eq!(seen(socket.recv()), None);
            assert_eq!(seen(socket.recv()), None);
            assert!(socket.closed().unwrap().is_clean(), "{cut}");
            let replies = [b"\x8a\x81\0\0\0\0!", MASKED_CLOSE].concat();
            assert_eq!(socket.stream().written, replies, "{cut}");
        }
    }
}

#[test]
fn a_receive_that_was_too_short_loses_nothing() {
    for wait in [WAIT, LATE] {
        for cut in 1..HELLO.len() {
            let (start, rest) = HELLO.split_at(cut);
            let steps = [
                bytes(start),
                wait.clone(),
                wait.clone(),
                bytes(rest),
                wait.clone(),
            ];
            let mut socket = client(Script::reading(steps));
            let timeout = Duration::from_millis(1);
            let mut late = 0;
            let received = loop {
                let received = socket.recv_timeout(timeout);
                if !is_timeout(received.clone()) {
                    break received;
                }
                late += 1;
                assert!(late < 9, "{cut}");
            };
            assert_eq!(seen(received), Some(Ok(hello())), "{cut}");
            assert!(late > 0, "{cut}");
            assert!(is_timeout(socket.recv_timeout(timeout)));
        }
    }
}

#[test]
fn a_timeout_is_kept_while_other_frames_come() {
    // A ping each millisecond, and never a message.
    let steps = (0..2000).flat_map(|_| [bytes(b"\x89\0"), WAIT]);
    let mut socket = client(Script::reading(steps));
    let start = Instant::now();
    assert!(is_timeout(socket.recv_timeout(Duration::from_millis(30))));
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn without_timeouts_a_stream_that_does_not_wait_is_a_timeout() {
    let steps = [bytes(b"\x81\x05Hel"), WAIT, LATE, AGAIN, bytes(b"lo"), WAIT];
    let mut socket = untimed(Script::reading(steps));
    assert!(is_timeout(socket.recv()));
    assert!(is_timeout(socket.recv()));
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
    assert!(is_timeout(socket.recv()));
    assert!(matches!(
        socket.recv(),
        Some(Err(Error::Connection(ConnectionError::UnexpectedEof)))
    ));
    assert_eq!(seen(socket.recv()), None);
}

#[test]
fn without_timeouts_what_cannot_be_written_goes_out_with_the_next_call() {
    let stream = Script::reading([WAIT, WAIT, bytes(HELLO)]).writing([Take(3), WAIT, WAIT, AGAIN]);
    let mut socket = untimed(stream);
    socket.send("Hello").unwrap();
    assert_eq!(socket.stream().written, b"\x81\x85\0");
    while is_timeout(socket.recv()) {}
    assert_eq!(socket.stream().written, b"\x81\x85\0\0\0\0Hello");
}

#[test]
fn without_timeouts_a_full_queue_refuses_and_queues_nothing() {
    let never = iter::repeat_n(WAIT, 1000);
    let mut socket = untimed(Script::reading(never.clone()).writing(never));
    let message = Message::binary(vec![0; 60 << 10]);
    socket.send(message.clone()).unwrap();
    socket.send(message.clone()).unwrap();
    let queued = socket.connection().outgoing_size();
    assert!(socket.send(message).is_err_and(|error| error.is_timeout()));
    assert_eq!(socket.connection().outgoing_size(), queued);
}

#[test]
fn short_and_interrupted_writes_send_every_byte_once() {
    for take in [1, 2, 7] {
        let steps = (0..1000).flat_map(|_| [AGAIN, Take(take), WAIT]);
        let mut socket = client(Script::reading(vec![WAIT; 3000]).writing(steps));
        let large = Message::binary(vec![7; 300]);
        socket.send("Hello").unwrap();
        socket.send(large.clone()).unwrap();
        socket
            .send_prepared(&PreparedMessage::new("Hello"))
            .unwrap();
        let mut expected = b"\x81\x85\0\0\0\0Hello\x82\xfe\x01\x2c\0\0\0\0".to_vec();
        expected.extend_from_slice(&large.payload()[..]);
        expected.extend_from_slice(b"\x81\x85\0\0\0\0Hello");
        let stream = socket.stream();
        assert_eq!(stream.written, expected);
        assert_eq!(stream.flushed, stream.written.len());
    }
}

#[test]
fn a_large_message_goes_out_whole_and_comes_in_whole() {
    let payload: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let mut frame = b"\x82\x7f\0\0\0\0\0\x10\0\0".to_vec();
    frame.extend_from_slice(&payload);
    frame.extend_from_slice(HELLO);
    let pieces = frame
        .chunks(9_999)
        .flat_map(|piece| [bytes(piece), AGAIN, WAIT]);
    let mut socket = client(Script::reading(pieces));
    let message = Message::binary(payload.clone());
    socket.send(message.clone()).unwrap();
    assert_eq!(socket.stream().written.len(), 14 + payload.len());
    assert_eq!(&socket.stream().written[14..], payload);
    assert_eq!(seen(socket.recv()), Some(Ok(message)));
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
}

#[test]
fn a_buffer_in_the_stream_that_is_not_flushed_is_flushed_later() {
    let mut stream = Script::reading([WAIT, WAIT, WAIT, bytes(HELLO)]);
    stream.flushes.extend([WAIT, AGAIN, WAIT]);
    let mut socket = client(stream);
    socket.send("Hello").unwrap();
    assert_eq!(socket.stream().flushed, 11);
    assert!(!socket.connection().wants_write());
}

#[test]
fn a_stalled_write_reads_meanwhile_for_the_peer_may_do_the_same() {
    let stream =
        Script::reading([bytes(HELLO), WAIT, WAIT, WAIT]).writing([WAIT, WAIT, Take(4), WAIT]);
    let mut socket = client(stream);
    socket.send("Hello").unwrap();
    assert_eq!(socket.stream().written, b"\x81\x85\0\0\0\0Hello");
    assert!(
        !socket
            .stream()
            .reads
            .front()
            .is_some_and(|step| matches!(step, Bytes(_)))
    );
    assert_eq!(seen(socket.recv_timeout(Duration::ZERO)), Some(Ok(hello())));
}

#[test]
fn a_peer_that_takes_no_bytes_is_given_up() {
    let never = iter::repeat_n(WAIT, 1000);
    let config = Config::new().write_timeout(Duration::from_millis(30));
    let mut socket = client_with(Script::reading(never.clone()).writing(never), config);
    let error = socket.send("Hello").unwrap_err();
    let expected = ConnectionError::WriteTimeout;
    assert!(
        matches!(error, Error::Connection(error) if error == expected),
        "{error:?}"
    );
    let received = seen(socket.recv());
    assert_eq!(received, Some(Err("Connection(WriteTimeout)".to_owned())));
    assert_eq!(seen(socket.recv()), None);
    assert!(!socket.closed().unwrap().is_clean());
}

#[test]
fn a_failed_read_is_told_once_after_the_messages_before_it() {
    let steps = [
        bytes([HELLO, HELLO].concat()),
        Fail(ErrorKind::ConnectionReset),
    ];
    let mut socket = client(Script::reading(steps));
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
    let Some(Err(Error::Io(error))) = socket.recv() else {
        panic!("the reset is told");
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(seen(socket.recv()), None);
    assert!(matches!(socket.send("late"), Err(Error::Io(_))));
    let closed = socket.closed().unwrap();
    assert!(!closed.is_clean());
    let text = "closed without a close frame (unclean): reading from or writing to";
    assert!(closed.to_string().starts_with(text), "{closed}");
}

#[test]
fn after_a_failed_write_the_peers_last_words_are_heard() {
    let close = b"\x88\x08\x03\xf0policy";
    let stream =
        Script::reading([bytes([HELLO, close].concat())]).writing([Fail(ErrorKind::BrokenPipe)]);
    let mut socket = client(stream);
    assert!(matches!(socket.send("x"), Err(Error::Io(_))));
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
    assert!(matches!(socket.recv(), Some(Err(Error::Io(_)))));
    let closed = socket.closed().unwrap();
    let received = closed.received().unwrap().frame().unwrap();
    assert_eq!(received.code(), CloseCode::POLICY_VIOLATION);
    assert_eq!(received.reason(), "policy");
    assert!(!closed.is_clean());
}

#[test]
fn a_stream_that_takes_nothing_has_failed() {
    let mut socket = client(Script::reading([WAIT]).writing([Take(0)]));
    let Err(Error::Io(error)) = socket.send("x") else {
        panic!("it fails");
    };
    assert_eq!(error.kind(), ErrorKind::WriteZero);
}

#[test]
fn an_end_in_mid_message_is_unclean() {
    let mut socket = client(Script::reading([bytes(&HELLO[..4])]));
    let received = seen(socket.recv());
    assert_eq!(received, Some(Err("Connection(UnexpectedEof)".to_owned())));
    assert_eq!(seen(socket.recv()), None);
}

#[test]
fn a_broken_protocol_is_told_to_the_peer_and_its_rest_is_read_away() {
    let steps = [
        bytes(HELLO),
        bytes(b"\xf1\0"),
        WAIT,
        bytes("garbage"),
        Fail(ErrorKind::ConnectionReset),
    ];
    let mut socket = client(Script::reading(steps));
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
    let Some(Err(Error::Connection(error))) = socket.recv() else {
        panic!("it is told");
    };
    assert_eq!(error, ProtocolError::ReservedBits.into());
    let stream = socket.stream();
    assert_eq!(stream.written[0], 0x88);
    assert_eq!(stream.written[6..8], *b"\x03\xea"); // 1002
    assert_eq!(stream.shutdowns, 1);
    assert!(stream.reads.is_empty());
    assert_eq!(seen(socket.recv()), None);
}

#[test]
fn closing_waits_for_the_answer_and_the_end() {
    // The peer had something to say before it answered.
    let steps = [WAIT, bytes(HELLO), bytes(CLOSE), WAIT];
    let mut socket = client(Script::reading(steps));
    let closed = socket.close(CloseFrame::from(CloseCode::NORMAL));
    assert!(closed.is_clean(), "{closed}");
    assert_eq!(closed.to_string(), "closed 1000 (clean)");
    assert_eq!(socket.stream().written, MASKED_CLOSE);
    assert!(socket.stream().reads.is_empty());
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
    assert_eq!(seen(socket.recv()), None);
    assert!(matches!(socket.send("late"), Err(Error::Closed)));
    assert!(matches!(socket.ping(), Err(Error::Closed)));
    assert_eq!(socket.close(None).to_string(), "closed 1000 (clean)");
}

#[test]
fn a_close_that_is_not_waited_for_leaves_what_the_peer_still_says() {
    let steps = [WAIT, bytes(HELLO), WAIT, bytes(HELLO), bytes(CLOSE)];
    let mut socket = client(Script::reading(steps));
    let normal = CloseFrame::from(CloseCode::NORMAL);
    socket.start_close(normal.clone()).unwrap();
    assert_eq!(socket.stream().written, MASKED_CLOSE);
    assert_eq!(socket.stream().reads.len(), 5, "nothing was waited for");
    assert!(!socket.is_open());
    assert!(matches!(socket.send("late"), Err(Error::Closed)));
    assert!(matches!(socket.start_close(normal), Err(Error::Closed)));
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
    assert!(socket.closed().is_none());
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
    assert_eq!(seen(socket.recv()), None);
    assert!(socket.closed().unwrap().is_clean());
    assert_eq!(socket.stream().written, MASKED_CLOSE);
}

#[test]
fn a_close_that_is_not_waited_for_is_given_up_in_time_while_receiving() {
    let config = Config::new().close_timeout(Duration::from_millis(30));
    let mut socket = client_with(Script::reading(vec![WAIT; 10_000]), config);
    let start = Instant::now();
    socket.start_close(None).unwrap();
    assert!(socket.recv().unwrap().is_err());
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(seen(socket.recv()), None);
    assert!(!socket.closed().unwrap().is_clean());
}

#[test]
fn a_close_without_an_answer_is_given_up_in_time() {
    let never = || Script::reading(vec![WAIT; 10_000]);
    let config = Config::new().close_timeout(Duration::from_millis(30));
    let start = Instant::now();
    let closed = client_with(never(), config.clone()).close(None);
    let expected = "closed no status (unclean): the websocket ended without a closing handshake: \
                    the peer did not answer the close frame in time";
    assert_eq!(closed.to_string(), expected);
    assert!(start.elapsed() >= Duration::from_millis(30));
    // Without timeouts the time is looked at between the tries.
    let connection = Connection::new(Role::Client, config);
    let closed = WebSocket::without_timeouts(never(), connection).close(None);
    assert_eq!(closed.to_string(), expected);
}

#[test]
fn a_server_does_not_wait_for_the_end_of_the_stream_and_a_client_does() {
    let mut socket = server(Script::reading([bytes(MASKED_CLOSE_OF_CLIENT), LATE]));
    assert_eq!(seen(socket.recv()), None);
    assert_eq!(socket.stream().written, CLOSE);
    assert_eq!(socket.stream().shutdowns, 1);
    assert_eq!(socket.stream().reads.len(), 1);

    let config = Config::new().close_timeout(Duration::from_millis(20));
    let steps = iter::once(bytes(CLOSE)).chain(iter::repeat_n(LATE, 1000));
    let mut socket = client_with(Script::reading(steps), config);
    let start = Instant::now();
    assert_eq!(seen(socket.recv()), None);
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert!(socket.closed().unwrap().is_clean());
}

const MASKED_CLOSE_OF_CLIENT: &[u8] = b"\x88\x82\x01\x02\x03\x04\x02\xea";

#[test]
fn a_reset_after_both_closes_is_a_clean_end() {
    let steps = [bytes(CLOSE), Fail(ErrorKind::ConnectionReset)];
    let mut socket = client(Script::reading(steps));
    assert_eq!(seen(socket.recv()), None);
    assert!(socket.closed().unwrap().is_clean());
}

#[test]
fn a_server_closes_with_1011_where_1010_is_for_clients() {
    let stream = Script::reading([bytes(MASKED_CLOSE_OF_CLIENT)]);
    let closed = server(stream).close(CloseCode::MANDATORY_EXTENSION);
    let sent = closed.sent().and_then(crate::Close::code);
    assert_eq!(sent, Some(CloseCode::INTERNAL_ERROR));
}

#[test]
fn a_silent_peer_is_pinged_and_then_given_up() {
    let config = Config::new()
        .keepalive_interval(Duration::from_millis(40))
        .keepalive_timeout(Duration::from_millis(30));
    let mut socket = client_with(Script::reading(vec![WAIT; 1000]), config);
    let start = Instant::now();
    let received = seen(socket.recv());
    assert_eq!(
        received,
        Some(Err("Connection(KeepaliveTimeout)".to_owned()))
    );
    assert!(start.elapsed() >= Duration::from_millis(70));
    let stream = socket.stream();
    assert_eq!(stream.written[..2], *b"\x89\x84");
    // The Close says why, although hardly anybody is there.
    assert_eq!(stream.written[10], 0x88);
    assert_eq!(stream.shutdowns, 1);
}

#[test]
fn a_program_that_was_busy_elsewhere_does_not_blame_its_peer() {
    let config = Config::new()
        .keepalive_interval(Duration::from_millis(8))
        .keepalive_timeout(Duration::from_millis(500));
    // Silence until a ping has gone out. Then its answer comes, and nobody looks.
    let mut socket = client_with(Script::reading(vec![WAIT; 1000]), config);
    while socket.stream().written.is_empty() {
        assert!(is_timeout(socket.recv_timeout(Duration::from_millis(1))));
    }
    let number = socket.stream().written[6..10].to_vec();
    socket
        .stream_mut()
        .reads
        .push_front(bytes([b"\x8a\x04", &*number].concat()));
    thread::sleep(Duration::from_millis(600));
    assert!(is_timeout(socket.recv_timeout(Duration::from_millis(1))));
    assert!(socket.is_open());
    assert!(socket.latency().is_some());
}

#[test]
fn a_ping_takes_as_long_as_its_answer_and_keeps_the_messages_that_come_before() {
    let pong = b"\x8a\x04\0\0\0\x01";
    let steps = [WAIT, bytes(HELLO), bytes(pong)];
    let mut socket = client(Script::reading(steps));
    let took = socket.ping().unwrap();
    assert!(took >= MAX_WAIT, "{took:?}");
    // From its leaving, which comes later than the call, to its answer.
    let latency = socket.latency().unwrap();
    assert!((MAX_WAIT..=took).contains(&latency), "{latency:?} {took:?}");
    assert_eq!(socket.stream().written, b"\x89\x84\0\0\0\0\0\0\0\x01");
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
}

#[test]
fn a_ping_that_nobody_answers_is_a_timeout() {
    let config = Config::new()
        .keepalive_interval(None)
        .keepalive_timeout(Duration::from_millis(20));
    let mut socket = client_with(Script::reading(vec![WAIT; 1000]), config);
    assert!(socket.ping().is_err_and(|error| error.is_timeout()));
    assert!(socket.is_open());
}

#[test]
fn a_ping_behind_a_full_inbox_is_a_timeout_at_once() {
    let config = Config::new().inbox_high_water(1);
    let steps = [
        bytes([HELLO, HELLO].concat()),
        bytes(b"\x8a\x04\0\0\0\x01"),
        WAIT,
    ];
    let mut socket = client_with(Script::reading(steps), config);
    let start = Instant::now();
    assert!(socket.ping().is_err_and(|error| error.is_timeout()));
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
    assert_eq!(seen(socket.recv()), Some(Ok(hello())));
}

#[test]
fn sending_answers_a_ping_once_a_second() {
    let stream = Script::reading([bytes(b"\x89\x01!"), WAIT, WAIT]);
    let mut socket = client(stream);
    socket.send("1").unwrap();
    assert_eq!(socket.stream().reads.len(), 3);
    thread::sleep(Duration::from_millis(1010));
    socket.send("2").unwrap();
    let expected = b"\x81\x81\0\0\0\x001\x8a\x81\0\0\0\0!\x81\x81\0\0\0\x002";
    assert_eq!(socket.stream().written, expected);
}

#[test]
fn incoming_messages_can_be_thrown_away() {
    let steps = [bytes(HELLO), bytes(b"\x89\x01!"), bytes(CLOSE)];
    let mut socket = client(Script::reading(steps));
    socket.discard_incoming();
    assert_eq!(seen(socket.recv()), None);
    let replies = [b"\x8a\x81\0\0\0\0!", MASKED_CLOSE].concat();
    assert_eq!(socket.stream().written, replies);
}

#[test]
fn messages_are_an_iterator_that_ends_with_the_close() {
    let mut socket = client(Script::reading([bytes([HELLO, HELLO, CLOSE].concat())]));
    let messages: Result<Vec<_>, _> = socket.messages().collect();
    assert_eq!(
        messages.unwrap(),
        [Message::text("Hello"), Message::text("Hello")]
    );
}

#[test]
fn a_busy_stream_has_its_wait_set_seldom() {
    let steps = (0..1000).map(|_| bytes(HELLO));
    let mut socket = client(Script::reading(steps));
    assert_eq!(socket.messages().take(1000).flatten().count(), 1000);
    let settings = socket.stream().settings;
    assert!(settings < 10, "{settings}");
}
