//! Attacks on a server with the default limits, and what they may cost it: growth of resident
//! memory and time of the processor, measured from outside, on a server in a process of its own.
//!
//! The figures hold for a debug build, too, and the sizes are the same but where it is said.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    future::pending,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::{Router, routing::get};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
    time::{sleep, timeout},
};
use ws_core::frame::OpCode;
use ws_tests::{
    deflate::bomb,
    process::{self, Process},
    raw::{self, Raw, handshake, masked, until, within},
    wire::frame,
};
use ws_tower::{Error, WebSocket, WebSocketLayer};

const MIB: u64 = 1 << 20;

async fn echo(mut socket: WebSocket) -> Result<(), Error> {
    while let Some(message) = socket.recv().await {
        socket.send(message?).await?;
    }
    Ok(())
}

/// What the others attack.
#[test]
fn a_server_for_the_other_tests() {
    process::serve(|listener| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let sockets = WebSocketLayer::new()
                .route("/echo", echo)
                .route("/length", async |mut socket: WebSocket| {
                    while let Some(Ok(message)) = socket.recv().await {
                        let _ = socket.send(message.len().to_string()).await;
                    }
                })
                .route("/deaf", async |socket: WebSocket| {
                    let _socket = socket;
                    pending::<()>().await;
                });
            let tasks = async || Handle::current().metrics().num_alive_tasks().to_string();
            let app = Router::new()
                .route("/", get(async || "index"))
                .route("/tasks", get(tasks))
                .layer(sockets);
            ws_hyper::serve(listener, app).await.unwrap();
        });
    });
}

/// A server, and what it took before the attack.
struct Target {
    process: Process,
    address: SocketAddr,
    resident: u64,
    cpu: Duration,
}

impl Target {
    async fn start() -> Self {
        let process = Process::start("a_server_for_the_other_tests");
        let address = process.address;
        // Whatever is only made once is there.
        Raw::open(address, "/echo").await.echoes().await;
        let mut raw = Raw::open(address, "/length").await;
        raw.write(frame(0x82, Some([0; 4]), &vec![0; 100_000]))
            .await;
        assert_eq!(raw.frame().await.1, b"100000");
        raw.close().await;
        Self {
            address,
            resident: process.resident(),
            cpu: process.cpu(),
            process,
        }
    }

    /// By how much it is larger than it was, at its highest.
    fn growth(&self) -> u64 {
        self.process.peak().saturating_sub(self.resident)
    }

    fn grew_at_most(&self, bytes: u64) {
        let growth = self.growth();
        println!("grew by {} KiB", growth >> 10);
        assert!(growth <= bytes, "grew by {} KiB", growth >> 10);
    }

    fn took_at_most(&self, seconds: u64) {
        let cpu = self.process.cpu().saturating_sub(self.cpu);
        println!("took {cpu:?}");
        assert!(cpu <= Duration::from_secs(seconds), "took {cpu:?}");
    }

    /// It serves others as if nothing were: it has nothing else to work at.
    async fn is_well(&self) {
        let before = self.process.cpu();
        Raw::open(self.address, "/echo").await.echoes().await;
        let cpu = self.process.cpu().saturating_sub(before);
        assert!(cpu < Duration::from_secs(1), "{cpu:?}");
    }

    /// Waits until it has done all that it was given.
    async fn is_done(&self) {
        let mut times = 0;
        until(|| {
            times = if self.process.is_asleep() {
                times + 1
            } else {
                0
            };
            times == 20
        })
        .await;
    }

    /// For how long it works until a client is served, five times, each in the midst of what others
    /// have it do, which `others` counts. A machine that is busy with something else makes that
    /// no longer. Sorted.
    async fn works(&self, others: &AtomicU64, mut client: impl AsyncFnMut()) -> [Duration; 5] {
        let mut times = [Duration::ZERO; 5];
        for time in &mut times {
            let before = others.load(Ordering::Relaxed);
            let served = async {
                while others.load(Ordering::Relaxed) == before {
                    sleep(Duration::from_millis(5)).await;
                }
                let before = self.process.cpu();
                client().await;
                before
            };
            let before = eventually(served).await;
            *time = self.process.cpu().saturating_sub(before);
        }
        times.sort();
        times
    }
}

/// A connection that asks the server how many tasks it has, its own among them.
struct Asker(Raw);

impl Asker {
    async fn tasks(&mut self) -> usize {
        self.0.write("GET /tasks HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = self.0.head().await;
        let length = head.split("content-length: ").nth(1).unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let text = String::from_utf8(self.0.read(length).await).unwrap();
        text.parse().unwrap()
    }

    /// Waits until it is alone.
    async fn is_alone(&mut self) {
        within(async {
            while self.tasks().await > 1 {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// Waits for the end of much work: it is the server's own time that is bounded, and a busy machine
/// may need minutes for it.
async fn eventually<T>(work: impl Future<Output = T>) -> T {
    let done = timeout(10 * raw::PATIENCE, work).await;
    done.expect("this should not have taken so long")
}

/// Opens a WebSocket, however long the machine takes for it.
async fn open_slowly(address: SocketAddr) -> TcpStream {
    let mut io = TcpStream::connect(address).await.unwrap();
    io.write_all(handshake("/echo").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.unwrap());
    }
    io
}

/// Says `Hello`, and hears it back, in the same way.
async fn echoes_slowly(io: &mut TcpStream) {
    io.write_all(&masked(0x81, b"Hello")).await.unwrap();
    let mut echo = [0; 7];
    io.read_exact(&mut echo).await.unwrap();
    assert_eq!(echo, *b"\x81\x05Hello");
}

/// Clients on a thread of their own: a good client is not theirs to starve.
struct Others {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Others {
    /// They run until the flag is set.
    fn start(run: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || run(&stopped));
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// Writes as much as the server takes, until it takes nothing for half a second though it has
/// nothing to do, or has ended the connection. Returns how much it took.
async fn flood(target: &Target, raw: &mut Raw, bytes: &[u8], total: u64) -> u64 {
    let mut taken = 0;
    while taken < total {
        let offset = usize::try_from(taken % bytes.len() as u64).unwrap();
        let rest = usize::try_from(total - taken).unwrap_or(usize::MAX);
        let part = &bytes[offset..];
        let part = &part[..part.len().min(rest)];
        match timeout(Duration::from_millis(500), raw.0.write(part)).await {
            Ok(Ok(count)) => taken += count as u64,
            Err(_) if !target.process.is_asleep() => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    taken
}

/// The Close that ends a socket: what the rest of a stream ends with.
fn close_code(rest: &[u8]) -> u16 {
    let frames = ws_tests::wire::frames(rest);
    let (opcode, payload) = frames.last().expect("a Close");
    assert_eq!(*opcode, OpCode::Close);
    u16::from_be_bytes([payload[0], payload[1]])
}

mod memory {
    use super::*;

    #[tokio::test]
    async fn a_hundred_huge_lengths_announced_and_nothing_sent_cost_nothing() {
        let target = Target::start().await;
        let before = target.process.virtual_size();
        let mut open = Vec::new();
        for _ in 0..100 {
            let mut raw = Raw::open(target.address, "/echo").await;
            // Exactly the limit, as one frame, and one byte of it.
            let mut head = vec![0x82, 0xff];
            head.extend_from_slice(&(MIB).to_be_bytes());
            head.extend_from_slice(&[0; 5]);
            raw.write(head).await;
            open.push(raw);
        }
        target.is_done().await;
        target.grew_at_most(16 * MIB);
        let virtual_growth = target.process.virtual_size().saturating_sub(before);
        assert!(
            virtual_growth <= 512 * MIB,
            "{} MiB virtual",
            virtual_growth / MIB
        );

        // Beyond the limit the header is enough: nothing has to follow it.
        for length in [MIB + 1, u64::MAX >> 1] {
            let mut raw = Raw::open(target.address, "/echo").await;
            let mut head = vec![0x82, 0xff];
            head.extend_from_slice(&length.to_be_bytes());
            head.extend_from_slice(&[0; 4]);
            raw.write(head).await;
            let (_, close) = raw.frame().await;
            assert_eq!(close[..2], 1009_u16.to_be_bytes());
        }
        // The top bit is not a length at all (RFC 6455 §5.2).
        let mut raw = Raw::open(target.address, "/echo").await;
        raw.write([0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .await;
        assert_eq!(raw.frame().await.1[..2], 1002_u16.to_be_bytes());
        target.is_well().await;
    }

    #[tokio::test]
    async fn a_million_empty_messages_to_a_handler_that_does_not_receive_stay_outside() {
        let target = Target::start().await;
        let mut raw = Raw::open(target.address, "/deaf").await;
        let empty = masked(0x82, b"");
        let total = 1_000_000 * empty.len() as u64;
        let taken = flood(&target, &mut raw, &empty.repeat(10_000), total).await;
        // The kernel's buffers take some of it, and that is not ours.
        println!("took {taken} of {total} bytes");
        target.grew_at_most(16 * MIB);
        target.took_at_most(2);
        target.is_well().await;
    }

    #[tokio::test]
    async fn a_message_without_end_is_1009_at_two_and_a_half_times_the_limit() {
        let target = Target::start().await;
        let raw = Raw::open(target.address, "/echo").await;
        let (mut read, mut write) = raw.0.into_split();
        let writing = tokio::spawn(async move {
            let first = frame(0x02, Some([1, 2, 3, 4]), &[0; 4096]);
            let more = frame(0x00, Some([1, 2, 3, 4]), &[0; 4096]);
            write.write_all(&first).await?;
            for _ in 0..1024 {
                write.write_all(&more).await?;
            }
            Ok::<_, io::Error>(write)
        });
        let mut rest = Vec::new();
        eventually(read.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(close_code(&rest), 1009);
        let _ = eventually(writing).await;
        target.grew_at_most(5 * MIB / 2);
        target.is_well().await;
    }

    #[tokio::test]
    async fn a_million_tiny_fragments_are_one_message_in_five_seconds() {
        let target = Target::start().await;
        let mut raw = Raw::open(target.address, "/length").await;
        let fragment = masked(0x00, b"x");
        raw.write(masked(0x02, b"")).await;
        let many = fragment.repeat(10_000);
        for _ in 0..100 {
            raw.write(&many).await;
        }
        // And as many that are empty.
        let many = masked(0x00, b"").repeat(10_000);
        for _ in 0..100 {
            raw.write(&many).await;
        }
        raw.write(masked(0x80, b"")).await;
        assert_eq!(raw.frame().await.1, b"1000000");
        target.grew_at_most(16 * MIB);
        target.took_at_most(5);
    }

    #[tokio::test]
    async fn pings_whose_pongs_are_not_read_cost_nothing() {
        let target = Target::start().await;
        let mut raw = Raw::open(target.address, "/echo").await;
        let ping = masked(0x89, &[b'p'; 125]);
        let taken = flood(&target, &mut raw, &ping.repeat(1000), 64 * MIB).await;
        println!("took {} KiB", taken >> 10);
        target.grew_at_most(16 * MIB);
        target.took_at_most(5);
        target.is_well().await;
    }

    #[tokio::test]
    async fn echoes_that_are_not_read_stop_the_reading() {
        let target = Target::start().await;
        for payload in [125, 4096, 1 << 20] {
            let mut raw = Raw::open(target.address, "/echo").await;
            let message = frame(0x82, Some([0; 4]), &vec![0; payload]);
            let message = message.repeat((64 << 10) / message.len() + 1);
            let taken = flood(&target, &mut raw, &message, 256 * MIB).await;
            println!("took {} KiB in messages of {payload}", taken >> 10);
            assert!(taken < 64 * MIB);
            target.grew_at_most(32 * MIB);
            target.is_well().await;
        }
        target.took_at_most(5);
    }

    #[tokio::test]
    async fn a_head_without_end_is_refused_in_bounded_memory_and_time() {
        let target = Target::start().await;
        for line in [&b"X: y\r\n"[..], &[b'x'; 4096], b"\r\n", b" "] {
            let mut raw = Raw::connect(target.address).await;
            if line != b"\r\n" {
                raw.write(b"GET / HTTP/1.1\r\nHost: a\r\n").await;
            }
            let taken = flood(
                &target,
                &mut raw,
                &line.repeat(65_536 / line.len()),
                64 * MIB,
            )
            .await;
            assert!(taken < 64 * MIB);
        }
        // In small pieces, as long as the server listens.
        let mut raw = Raw::connect(target.address).await;
        raw.write(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").await;
        while raw.0.write_all(&[b'x'; 16]).await.is_ok() {
            tokio::task::yield_now().await;
        }
        target.grew_at_most(8 * MIB);
        target.took_at_most(2);
        target.is_well().await;
    }

    #[tokio::test]
    async fn three_thousand_sockets_that_came_and_went_leave_memory_flat() {
        let target = Target::start().await;
        let wave = async || {
            let mut open = Vec::new();
            for _ in 0..100 {
                open.push(Raw::open(target.address, "/echo").await);
            }
            for raw in &mut open {
                raw.echoes().await;
            }
            for raw in open {
                raw.close().await;
            }
        };
        for _ in 0..5 {
            wave().await;
        }
        let before = target.process.resident();
        for _ in 0..30 {
            wave().await;
        }
        let growth = target.process.resident().saturating_sub(before);
        println!("grew by {} KiB", growth >> 10);
        assert!(growth < MIB, "grew by {} KiB", growth >> 10);
    }

    #[tokio::test]
    async fn two_thousand_connections_that_never_speak_leave_nothing_behind() {
        let target = Target::start().await;
        let mut asker = Asker(Raw::connect(target.address).await);
        asker.is_alone().await;
        let descriptors = target.process.descriptors();
        for state in ["", "GET / HT", &handshake("/echo")] {
            for _ in 0..7 {
                let mut open = Vec::new();
                for _ in 0..100 {
                    let mut raw = Raw::connect(target.address).await;
                    raw.write(state).await;
                    if state.ends_with("\r\n\r\n") {
                        raw.head().await;
                    }
                    open.push(raw);
                }
                for raw in open {
                    // A reset, not an end.
                    raw.0.set_zero_linger().unwrap();
                }
            }
        }
        asker.is_alone().await;
        until(|| target.process.descriptors() == descriptors).await;
        target.grew_at_most(16 * MIB);
        target.is_well().await;
    }
}

/// Attacks on a server that compresses, which it does with all who offer.
mod compression {
    use super::*;

    const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

    async fn open(address: SocketAddr, path: &str) -> Raw {
        let mut raw = Raw::connect(address).await;
        let offer = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        raw.write(handshake(path).replace("\r\n\r\n", offer)).await;
        let head = raw.head().await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(head.contains("permessage-deflate"), "{head}");
        raw
    }

    /// Writes all of it, whether it is taken or not, and returns what comes back.
    async fn throw(raw: Raw, bytes: Vec<u8>) -> Vec<u8> {
        let (mut read, mut write) = raw.0.into_split();
        let writing = tokio::spawn(async move {
            let _ = write.write_all(&bytes).await;
            write
        });
        let mut rest = Vec::new();
        eventually(read.read_to_end(&mut rest)).await.unwrap();
        let _ = eventually(writing).await;
        rest
    }

    async fn start() -> Target {
        let target = Target::start().await;
        // The first decompressor.
        let mut raw = open(target.address, "/length").await;
        raw.write(frame(0xc2, MASK, &[0])).await;
        assert_eq!(raw.frame().await.1, b"0");
        Target {
            resident: target.process.resident(),
            ..target
        }
    }

    #[tokio::test]
    async fn a_bomb_of_a_gibibyte_is_1009_at_two_and_a_half_times_the_limit() {
        let payload = bomb(1024);
        println!("{} KiB", payload.len() >> 10);
        let whole = frame(0xc2, MASK, &payload);
        let mut fragments = frame(0x42, MASK, b"");
        for piece in payload.chunks(500) {
            fragments.extend(frame(0x00, MASK, piece));
        }
        for bytes in [whole, fragments] {
            for path in ["/echo", "/deaf"] {
                let target = start().await;
                let raw = open(target.address, path).await;
                let rest = throw(raw, bytes.clone()).await;
                assert_eq!(close_code(&rest), 1009);
                target.grew_at_most(5 * MIB / 2);
                target.took_at_most(2);
                target.is_well().await;
            }
        }
    }

    #[tokio::test]
    async fn bombs_within_the_limit_are_taken_one_at_a_time() {
        let target = start().await;
        let count = if cfg!(debug_assertions) { 100 } else { 1000 };
        let message = frame(0xc2, MASK, &bomb(1));
        let (mut read, mut write) = open(target.address, "/length").await.0.into_split();
        let writing = tokio::spawn(async move {
            for _ in 0..count {
                write.write_all(&message).await.unwrap();
            }
            write
        });
        let mut answers = vec![0; count * 9];
        read.read_exact(&mut answers).await.unwrap();
        assert_eq!(answers, b"\x81\x071048576".repeat(count));
        drop(writing.await.unwrap());
        target.grew_at_most(5 * MIB);
        target.took_at_most(20);
    }

    #[tokio::test]
    async fn bombs_that_nobody_takes_or_whose_echoes_are_not_read_stop_the_reading() {
        let target = start().await;
        for path in ["/deaf", "/echo"] {
            let mut raw = open(target.address, path).await;
            let message = frame(0xc2, MASK, &bomb(1)).repeat(50);
            let taken = flood(&target, &mut raw, &message, 64 * MIB).await;
            println!("took {} KiB", taken >> 10);
            assert!(taken < 64 * MIB);
            target.grew_at_most(16 * MIB);
            target.is_well().await;
        }
    }

    #[tokio::test]
    async fn a_million_empty_compressed_messages_stay_outside_or_are_answered() {
        let target = start().await;
        let empty = frame(0xc2, MASK, &[0]);
        let mut raw = open(target.address, "/deaf").await;
        let total = 1_000_000 * empty.len() as u64;
        flood(&target, &mut raw, &empty.repeat(10_000), total).await;
        target.grew_at_most(16 * MIB);
        let count = 100_000;
        let (mut read, mut write) = open(target.address, "/length").await.0.into_split();
        let all = empty.repeat(count);
        let writing = tokio::spawn(async move {
            write.write_all(&all).await.unwrap();
            write
        });
        let mut answers = vec![0; count * 3];
        eventually(read.read_exact(&mut answers)).await.unwrap();
        assert_eq!(answers, b"\x81\x010".repeat(count));
        drop(writing.await.unwrap());
        target.grew_at_most(16 * MIB);
        target.took_at_most(10);
    }

    #[tokio::test]
    async fn a_flood_of_final_blocks_is_1002() {
        let target = start().await;
        for first in [0xc2, 0x42] {
            let raw = open(target.address, "/echo").await;
            let flood = frame(first, MASK, &[0x03, 0x00].repeat(500_000));
            assert_eq!(close_code(&throw(raw, flood).await), 1002);
        }
        // As many as are allowed, message after message.
        let message = frame(0xc2, MASK, &[0x03, 0x00].repeat(256));
        let mut raw = open(target.address, "/length").await;
        for _ in 0..100 {
            raw.write(&message).await;
            assert_eq!(raw.frame().await.1, b"0");
        }
        target.grew_at_most(MIB);
        target.took_at_most(5);
        target.is_well().await;
    }

    #[tokio::test]
    async fn a_compressed_message_that_never_ends_costs_no_more_than_its_bytes() {
        let target = start().await;
        let mut raw = open(target.address, "/echo").await;
        raw.write(frame(0x42, MASK, b"")).await;
        let nothing = [0x00, 0x00, 0x00, 0xff, 0xff].repeat(200);
        let total = if cfg!(debug_assertions) { 4 } else { 32 } * MIB;
        let taken = flood(
            &target,
            &mut raw,
            &frame(0x00, MASK, &nothing).repeat(60),
            total,
        )
        .await;
        assert_eq!(taken, total);
        target.grew_at_most(MIB);
        target.took_at_most(5);
        target.is_well().await;
    }

    #[tokio::test]
    async fn a_good_client_is_served_beside_sixteen_that_throw_bombs() {
        let target = start().await;
        let address = target.address;
        let answered = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&answered);
        let bombers = Others::start(move |stop| bombard(address, &count, stop));
        let open = async || echoes_slowly(&mut open_slowly(address).await).await;
        let times = target.works(&answered, open).await;
        bombers.stop();
        println!("{times:?}");
        assert!(times[4] < PATIENCE, "{times:?}");
        target.grew_at_most(64 * MIB);
    }

    /// Fewer in a debug build, which takes about twelve times as long for a byte.
    const BOMBERS: usize = if cfg!(debug_assertions) { 4 } else { 16 };

    /// Of both threads of the server.
    const PATIENCE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 16 } else { 2 });

    #[tokio::main(flavor = "current_thread")]
    async fn bombard(address: SocketAddr, answered: &Arc<AtomicU64>, stop: &AtomicBool) {
        let bytes = frame(0xc2, MASK, &bomb(1)).repeat(50);
        let mut raws = Vec::new();
        for bomber in 0..BOMBERS {
            raws.push(open(address, ["/length", "/echo"][bomber % 2]).await);
        }
        for raw in raws {
            let (mut read, mut write) = raw.0.into_split();
            let bytes = bytes.clone();
            tokio::spawn(async move { while write.write_all(&bytes).await.is_ok() {} });
            let answered = Arc::clone(answered);
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(count @ 1..) = read.read(&mut buffer).await {
                    answered.fetch_add(count as u64, Ordering::Relaxed);
                }
            });
        }
        while !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(20)).await;
        }
    }
}

mod time {
    use super::*;

    #[tokio::test]
    async fn a_message_byte_by_byte_and_one_in_small_pieces_take_linear_time() {
        let target = Target::start().await;
        let mut raw = Raw::open(target.address, "/length").await;
        for byte in frame(0x82, Some([1, 2, 3, 4]), &vec![7; 64 << 10]) {
            raw.write([byte]).await;
        }
        assert_eq!(raw.frame().await.1, b"65536");
        // 8 MiB, as messages of the largest size.
        let message = frame(0x82, Some([1, 2, 3, 4]), &vec![7; 1 << 20]);
        for _ in 0..8 {
            for piece in message.chunks(1024) {
                raw.write(piece).await;
            }
            assert_eq!(raw.frame().await.1, b"1048576");
        }
        target.took_at_most(3);
        target.grew_at_most(8 * MIB);
    }

    #[tokio::test]
    async fn a_large_head_in_small_pieces_takes_linear_time() {
        let target = Target::start().await;
        for _ in 0..8 {
            let mut raw = Raw::connect(target.address).await;
            let line = format!("X: {}\r\n", "x".repeat(1000));
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", line.repeat(60));
            for piece in head.as_bytes().chunks(16) {
                raw.write(piece).await;
            }
            assert!(raw.head().await.starts_with("http/1.1 200 "));
        }
        target.took_at_most(2);
    }

    #[tokio::test]
    async fn a_good_client_is_served_within_a_second_beside_fifty_flooders() {
        let target = Target::start().await;
        let address = target.address;
        let echoed = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&echoed);
        let flooders = Others::start(move |stop| flood_with_many(address, &count, stop));
        let mut old = open_slowly(address).await;
        let open = async || echoes_slowly(&mut open_slowly(address).await).await;
        for times in [
            target
                .works(&echoed, async || echoes_slowly(&mut old).await)
                .await,
            target.works(&echoed, open).await,
        ] {
            println!("{times:?}");
            assert!(times[2] < PATIENCE, "{times:?}");
            // This client may be held up now and then while the server works on.
            assert!(times[4] < 8 * PATIENCE, "{times:?}");
        }
        flooders.stop();
        let echoed = echoed.load(Ordering::Relaxed) >> 10;
        println!("{echoed} KiB were echoed to the flooders");
        target.grew_at_most(64 * MIB);
    }

    /// Fewer in a debug build, so that the test takes seconds there too.
    const FLOODERS: usize = if cfg!(debug_assertions) { 6 } else { 50 };

    /// A second of both threads in a release build. A debug build takes about twelve times as long
    /// for a byte.
    const PATIENCE: Duration = Duration::from_secs(if cfg!(debug_assertions) { 6 } else { 2 });

    /// Clients that write as fast as they can and read all they get, and count it.
    #[tokio::main(flavor = "current_thread")]
    async fn flood_with_many(address: SocketAddr, echoed: &Arc<AtomicU64>, stop: &AtomicBool) {
        // All of them first: they starve whoever is opened later.
        let mut raws = Vec::new();
        for _ in 0..FLOODERS {
            raws.push(Raw::open(address, "/echo").await);
        }
        for (flooder, raw) in raws.into_iter().enumerate() {
            let bytes = match flooder % 3 {
                0 => masked(0x81, b"x").repeat(8192),
                1 => masked(0x89, b"ping").repeat(4096),
                _ => frame(0x82, Some([0; 4]), &vec![0; 60_000]),
            };
            let (mut read, mut write) = raw.0.into_split();
            tokio::spawn(async move {
                while write.write_all(&bytes).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            });
            let echoed = Arc::clone(echoed);
            tokio::spawn(async move {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(count @ 1..) = read.read(&mut buffer).await {
                    echoed.fetch_add(count as u64, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            });
        }
        while !stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn a_server_with_idle_connections_does_nothing() {
        let target = Target::start().await;
        let mut open = Vec::new();
        for _ in 0..50 {
            open.push(Raw::open(target.address, "/echo").await);
            let mut half = Raw::connect(target.address).await;
            half.write("GET / HT").await;
            open.push(half);
            // Closed for writing, and never read from: an end is not more input.
            let mut raw = Raw::open(target.address, "/deaf").await;
            raw.0.shutdown().await.unwrap();
            open.push(raw);
        }
        target.is_done().await;
        let before = target.process.cpu();
        sleep(Duration::from_secs(2)).await;
        let cpu = target.process.cpu().saturating_sub(before);
        assert!(cpu <= Duration::from_millis(50), "{cpu:?}");
    }
}

/// HTTP and the handshake, in this process.
mod handshakes {
    use super::*;

    async fn start() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new()
            .route("/", get(async || "index"))
            .layer(WebSocketLayer::new().route("/echo", echo));
        tokio::spawn(ws_hyper::serve(listener, app).into_future());
        address
    }

    fn with(line: &str) -> String {
        handshake("/echo").replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
    }

    fn without(name: &str) -> String {
        let handshake = handshake("/echo");
        let lines = handshake
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(&format!("{name}:")));
        lines.collect()
    }

    #[tokio::test]
    async fn a_body_is_not_taken_for_frames() {
        let address = start().await;
        let evil = masked(0x81, b"evil");
        for line in [
            format!("Content-Length: {}", evil.len()),
            "Transfer-Encoding: chunked".to_owned(),
        ] {
            let mut raw = Raw::connect(address).await;
            raw.write(with(&line)).await;
            let _ = raw.0.write_all(&evil).await;
            let _ = raw.0.write_all(b"0\r\n\r\n").await;
            let head = raw.head().await;
            assert!(head.starts_with("http/1.1 400 "), "{line}: {head}");
            let rest = raw.rest().await;
            assert!(!rest.windows(4).any(|it| it == b"evil"), "{rest:?}");
        }
        // An announced nothing is nothing.
        let mut raw = Raw::connect(address).await;
        raw.write(with("Content-Length: 0")).await;
        assert!(raw.head().await.starts_with("http/1.1 101 "));
        raw.echoes().await;
    }

    #[tokio::test]
    async fn behind_a_refusal_there_is_http_and_never_a_tunnel() {
        let address = start().await;
        let evil = with("Origin: https://evil.example");
        for (request, status) in [
            (evil, "403"),
            (without("Sec-WebSocket-Key"), "400"),
            (without("Sec-WebSocket-Version"), "426"),
            (handshake("/nowhere"), "404"),
        ] {
            // What follows is a request like any other …
            let mut raw = Raw::connect(address).await;
            raw.write(&request).await;
            let head = raw.head().await;
            assert!(
                head.starts_with(&format!("http/1.1 {status} ")),
                "{status}: {head}"
            );
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|it| it.split("\r\n").next());
            let length = length.map_or(0, |it| it.parse().unwrap());
            raw.read(length).await;
            raw.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert!(raw.head().await.starts_with("http/1.1 200 "));
            assert_eq!(raw.read(5).await, b"index");

            // … and a frame is a bad one.
            let mut raw = Raw::connect(address).await;
            raw.write(&request).await;
            raw.write(masked(0x81, b"Hello")).await;
            let rest = String::from_utf8_lossy(&raw.rest().await).into_owned();
            assert!(rest.starts_with(&format!("HTTP/1.1 {status} ")), "{rest}");
            assert!(!rest.contains("\u{1}\u{5}Hello"), "{rest}");
            assert!(!rest.contains(" 101 "), "{rest}");
        }
    }

    #[tokio::test]
    async fn no_request_behind_an_upgrade_is_answered_as_http() {
        let address = start().await;
        let mut raw = Raw::connect(address).await;
        raw.write(handshake("/echo") + "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        let head = raw.head().await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"));
        // `G` is a reserved bit and an unknown opcode.
        assert_eq!(close_code(&raw.rest().await), 1002);
    }

    #[tokio::test]
    async fn the_host_is_there_once() {
        let address = start().await;
        for request in [
            without("Host"),
            with("Host: other"),
            with("Host: localhost"),
        ] {
            let head = Raw::ask(address, &request).await;
            assert!(head.starts_with("http/1.1 400 "), "{request}: {head}");
        }
    }

    #[tokio::test]
    async fn the_key_and_the_version_are_there_once_and_whole() {
        let address = start().await;
        let key = |key: &str| handshake("/echo").replace("dGhlIHNhbXBsZSBub25jZQ==", key);
        for (request, status) in [
            (without("Sec-WebSocket-Key"), "400"),
            (with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), "400"),
            (key(""), "400"),
            (key("dGhlIHNhbXBsZSBub25jZQ="), "400"),
            (key("dGhlIHNhbXBsZSBub25jZQ"), "400"),
            (key("dGhlIHNhbXBsZSBub25jZSE="), "400"),
            (key("!Ghl IHNhbXBsZSBub25jZQ=="), "400"),
            (without("Sec-WebSocket-Version"), "426"),
            (
                handshake("/echo").replace("Version: 13", "Version: 8"),
                "426",
            ),
            (with("Sec-WebSocket-Version: 13"), "400"),
        ] {
            let head = Raw::ask(address, &request).await;
            let expected = format!("http/1.1 {status} ");
            assert!(head.starts_with(&expected), "{request}: {head}");
        }
    }

    #[tokio::test]
    async fn nothing_that_a_client_says_adds_a_line_to_the_response() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // The application chooses whatever it likes, even what breaks a line.
        let sockets = WebSocketLayer::new()
            .subprotocols(["chat\r\nX-Evil: 1", "chat.v2"])
            .route("/echo", echo);
        tokio::spawn(ws_hyper::serve(listener, sockets.into_service()).into_future());
        for offer in [
            "chat\r\nX-Evil: 1",
            "chat%0d%0aX-Evil: 1",
            "chat\rX-Evil: 1",
            "chat\nX-Evil: 1",
            "\"chat\\r\\nX-Evil: 1\"",
            "a, chat.v2\r\nOrigin: http://localhost\r\nX-Evil: 1",
        ] {
            let mut raw = Raw::connect(address).await;
            raw.write(with(&format!("Sec-WebSocket-Protocol: {offer}")))
                .await;
            let head = raw.head().await;
            assert!(!head.contains("x-evil"), "{offer:?}: {head}");
        }
    }

    #[tokio::test]
    async fn a_frame_that_breaks_a_rule_is_1002_at_once_and_the_close_arrives() {
        let address = start().await;
        let mask = Some([1, 2, 3, 4]);
        for (name, bytes) in [
            ("unmasked", frame(0x81, None, b"Hello")),
            ("unmasked and empty", frame(0x81, None, b"")),
            ("the header of an unmasked frame", vec![0x81, 0x05]),
            ("an unmasked ping", frame(0x89, None, b"")),
            ("an unmasked close", frame(0x88, None, &[3, 0xe8])),
            ("RSV1", frame(0xc1, mask, b"Hello")),
            ("RSV1 on a ping", frame(0xc9, mask, b"")),
            ("RSV1 on a continuation", {
                let mut bytes = frame(0x01, mask, b"Hel");
                bytes.extend(frame(0xc0, mask, b"lo"));
                bytes
            }),
            ("RSV2", frame(0xa1, mask, b"Hello")),
            ("RSV3", frame(0x91, mask, b"Hello")),
            ("opcode 3", frame(0x83, mask, b"")),
            ("opcode 11", frame(0x8b, mask, b"")),
            ("a ping in fragments", frame(0x09, mask, b"")),
            ("a ping of 126 bytes", frame(0x89, mask, &[0; 126])),
            ("a continuation of nothing", frame(0x80, mask, b"Hello")),
            ("a message within a message", {
                let mut bytes = frame(0x01, mask, b"Hel");
                bytes.extend(frame(0x81, mask, b"lo"));
                bytes
            }),
            ("a length in too many bytes", vec![0x81, 0xfe, 0, 5]),
            ("a close of one byte", frame(0x88, mask, &[3])),
            ("close 1005", frame(0x88, mask, &[3, 0xed])),
        ] {
            let mut raw = Raw::open(address, "/echo").await;
            raw.write(masked(0x81, b"before")).await;
            raw.write(&bytes).await;
            // More behind it must not turn the Close into a reset.
            let _ = raw.0.write_all(&masked(0x81, b"after").repeat(5000)).await;
            let rest = raw.rest().await;
            assert!(rest.starts_with(b"\x81\x06before"), "{name}: {rest:?}");
            assert_eq!(close_code(&rest), 1002, "{name}");
            assert_eq!(ws_tests::wire::frames(&rest).len(), 2, "{name}");
        }
        for (code, bytes) in [
            (1007, frame(0x81, mask, b"\xff")),
            (1007, frame(0x88, mask, b"\x03\xe8\xff")),
            // Before the character, the frame, or the message has come to its end.
            (1007, frame(0x01, mask, b"ok\xed\xa0")),
        ] {
            let mut raw = Raw::open(address, "/echo").await;
            raw.write(&bytes).await;
            assert_eq!(close_code(&raw.rest().await), code);
        }
    }

    #[tokio::test]
    async fn smuggled_lengths_never_open_a_socket() {
        let address = start().await;
        for line in [
            "Content-Length: 0\r\nContent-Length: 5",
            "Content-Length: +0",
            "Content-Length: 0, 5",
            "Content-Length: -1",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding : chunked",
        ] {
            let head = Raw::ask(address, with(line)).await;
            assert!(head.starts_with("http/1.1 400 "), "{line}: {head}");
        }
    }
}
