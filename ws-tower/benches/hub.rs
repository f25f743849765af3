//! What the hub costs: `cargo bench -p ws-tower --bench hub [-- FILTER]`. Linux only.
//!
//! CPU time of the server's only thread, in nanoseconds for each delivery: one message queued for
//! one subscriber, and written. The first part writes to a stream that takes everything and does
//! nothing, so it is the library's own price and tokio's. The second part writes to real sockets
//! on the loopback device, which a process of its own reads: there the kernel's price is in it, the
//! receiving half of TCP too. "In flight" messages are published together, and the next when all
//! subscribers have got them.
//!
//! The last part has no price of a delivery: how long the longest of many publishes takes on the
//! wall, while the backplane is busy with many topics.

use std::{
    env, fs, io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    runtime::Builder,
    task::yield_now,
};
use ws_tower::{
    Config, Message, PreparedMessage, Session, WebSocket,
    hub::{Backplane, Hub, Policy, Seat, SlowConsumer, backplane::InProcess},
    ws_core::{Connection, Role},
};

const SAMPLE: Duration = Duration::from_millis(1500);

/// What is sent, as the peers' benchmarks have it: 128 bytes, and two for the frame's header.
const PAYLOAD: usize = 128;
const FRAME: usize = PAYLOAD + 4 - 2 * ((PAYLOAD < 126) as usize);

/// The argument that makes this program the reader of the other one's sockets.
const READER: &str = "--reader-of";

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if let [READER, address, count, in_flight] =
        *arguments.iter().map(String::as_str).collect::<Vec<_>>()
    {
        return reader(
            address.parse().map_err(io::Error::other)?,
            count.parse().map_err(io::Error::other)?,
            in_flight.parse().map_err(io::Error::other)?,
        );
    }
    let filter = arguments.into_iter().find(|it| !it.starts_with('-'));
    let filter = filter.unwrap_or_default();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    println!("{:<58} {:>12}", "", "ns CPU");
    let print = |name: &str, bench: &dyn Fn() -> io::Result<f64>| -> io::Result<()> {
        if name.contains(&filter) {
            println!("{name:<58} {:>12.1}", bench()?);
        }
        Ok(())
    };
    for (count, in_flight) in [(1000, 1), (1000, 16), (10_000, 1), (10_000, 16)] {
        let name = format!("delivery: {count} subscribers, {in_flight} in flight");
        print(&name, &|| runtime.block_on(fan_out(count, in_flight)))?;
    }
    print("publish: 100000 topics with one subscriber", &|| {
        runtime.block_on(many_topics(100_000))
    })?;
    print("join and leave: alone", &|| runtime.block_on(churn(1, 0)))?;
    print("join and leave: among 10000", &|| {
        runtime.block_on(churn(10_000, 0))
    })?;
    print("join and leave: among 1000, a publish every 100", &|| {
        runtime.block_on(churn(1000, 100))
    })?;
    for in_flight in [1, 16] {
        let name = format!("tcp floor: 1000 sockets, {in_flight} in flight");
        print(&name, &|| runtime.block_on(floor(1000, in_flight)))?;
        let name = format!("tcp delivery: 1000 subscribers, {in_flight} in flight");
        print(&name, &|| runtime.block_on(over_tcp(1000, in_flight)))?;
    }
    let name = "beside a stalled subscriber: 1000 over tcp";
    if name.contains(&filter) {
        runtime.block_on(beside_stalled(1000))?;
    }
    for count in [0, 1000, 100_000, 400_000] {
        let name = format!("longest publish: beside {count} topics of a backplane");
        if name.contains(&filter) {
            runtime.block_on(longest_publish(&name, count))?;
        }
    }
    Ok(())
}

fn message() -> PreparedMessage {
    PreparedMessage::new(Message::binary(vec![7; PAYLOAD]))
}

/// CPU time of this thread, in nanoseconds.
fn cpu() -> io::Result<u64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split(' ').next().unwrap_or_default();
    nanos.parse().map_err(io::Error::other)
}

/// Runs rounds until the sample is long enough; returns the price of one part of a round.
async fn measure(parts: usize, mut round: impl AsyncFnMut() -> io::Result<()>) -> io::Result<f64> {
    for _ in 0..3 {
        round().await?;
    }
    let (start, before) = (Instant::now(), cpu()?);
    let mut rounds = 0;
    while start.elapsed() < SAMPLE {
        round().await?;
        rounds += 1;
    }
    Ok(as_float(cpu()? - before) / as_float(rounds) / as_float(parts as u64))
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn as_float(number: u64) -> f64 {
    number as f64
}

/// Takes everything, and brings nothing.
#[derive(Clone, Default)]
struct Nowhere {
    taken: Arc<AtomicUsize>,
}

impl Nowhere {
    /// Waits until so many bytes have been written.
    async fn takes(&self, bytes: usize) {
        while self.taken.load(Ordering::Relaxed) < bytes {
            yield_now().await;
        }
        self.taken.store(0, Ordering::Relaxed);
    }
}

impl AsyncRead for Nowhere {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Nowhere {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.taken.fetch_add(buf.len(), Ordering::Relaxed);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn socket(io: impl AsyncRead + AsyncWrite + Send + 'static) -> WebSocket {
    socket_with(io, Config::new())
}

fn socket_with(io: impl AsyncRead + AsyncWrite + Send + 'static, config: Config) -> WebSocket {
    let config = config.keepalive_interval(None).write_timeout(None);
    let (session, socket) = Session::new(io, Connection::new(Role::Server, config));
    tokio::spawn(session);
    socket
}

async fn fan_out(count: usize, in_flight: usize) -> io::Result<f64> {
    let hub = Hub::new();
    let nowhere = Nowhere::default();
    let sockets: Vec<_> = (0..count).map(|_| socket(nowhere.clone())).collect();
    let seats: Vec<_> = sockets.iter().map(|it| hub.join("topic", it)).collect();
    yield_now().await;
    let message = message();
    let result = measure(count * in_flight, async || {
        for _ in 0..in_flight {
            assert_eq!(hub.publish_prepared("topic", &message), count);
        }
        nowhere.takes(count * in_flight * FRAME).await;
        Ok(())
    })
    .await;
    drop(seats);
    result
}

async fn many_topics(count: usize) -> io::Result<f64> {
    let hub = Hub::new();
    let nowhere = Nowhere::default();
    let sockets: Vec<_> = (0..count).map(|_| socket(nowhere.clone())).collect();
    let names: Vec<_> = (0..count).map(|number| format!("topic/{number}")).collect();
    let topics = sockets.iter().zip(&names);
    let seats: Vec<_> = topics.map(|(it, name)| hub.join(name, it)).collect();
    yield_now().await;
    let message = message();
    let result = measure(count, async || {
        for part in names.chunks(1000) {
            for name in part {
                assert_eq!(hub.publish_prepared(name, &message), 1);
            }
            nowhere.takes(part.len() * FRAME).await;
        }
        Ok(())
    })
    .await;
    drop(seats);
    result
}

/// The price of a join and a leave, publishes included if there are any.
async fn churn(count: usize, publish_every: usize) -> io::Result<f64> {
    const JOINS: usize = 10_000;
    let hub = Hub::new();
    let nowhere = Nowhere::default();
    let sockets: Vec<_> = (0..count).map(|_| socket(nowhere.clone())).collect();
    let mut seats: Vec<_> = sockets.iter().map(|it| hub.join("topic", it)).collect();
    yield_now().await;
    let message = message();
    let mut place = 0;
    let result = measure(JOINS, async || {
        for number in 0..JOINS {
            // In an order that empties no segment.
            place = (place + 7919) % count;
            let (seat, socket) = (seats.get_mut(place), sockets.get(place));
            if let (Some(seat), Some(socket)) = (seat, socket) {
                let joined: Seat = hub.join("topic", socket);
                *seat = joined;
            }
            if publish_every > 0 && number % publish_every == 0 {
                let reached = hub.publish_prepared("topic", &message);
                nowhere.takes(reached * FRAME).await;
            }
        }
        Ok(())
    })
    .await;
    drop(seats);
    result
}

// Over TCP.

/// A process that reads many sockets, and tells when all have got what was in flight.
struct Reader {
    process: Child,
    control: TcpStream,
    sockets: Vec<TcpStream>,
}

impl Reader {
    async fn start(count: usize, in_flight: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let process = Command::new(env::current_exe()?)
            .arg(READER)
            .arg(listener.local_addr()?.to_string())
            .arg(count.to_string())
            .arg(in_flight.to_string())
            .stdin(Stdio::null())
            .spawn()?;
        let (control, _) = listener.accept().await?;
        let mut sockets = Vec::new();
        for _ in 0..count {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            sockets.push(socket);
        }
        Ok(Self {
            process,
            control,
            sockets,
        })
    }

    /// Waits until all have got it.
    async fn done(&mut self) -> io::Result<()> {
        self.control.read_u8().await.map(drop)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The same bytes without sessions, tasks or frames: a write for each socket.
async fn floor(count: usize, in_flight: usize) -> io::Result<f64> {
    let mut reader = Reader::start(count, in_flight).await?;
    let bytes = vec![7; FRAME * in_flight];
    let sockets: Vec<_> = reader.sockets.drain(..).collect();
    measure(count * in_flight, async || {
        for socket in &sockets {
            assert_eq!(socket.try_write(&bytes)?, bytes.len());
        }
        reader.done().await
    })
    .await
}

async fn over_tcp(count: usize, in_flight: usize) -> io::Result<f64> {
    let hub = Hub::new();
    let mut reader = Reader::start(count, in_flight).await?;
    let sockets: Vec<_> = reader.sockets.drain(..).map(socket).collect();
    let seats: Vec<_> = sockets.iter().map(|it| hub.join("topic", it)).collect();
    yield_now().await;
    let result = measure(count * in_flight, async || {
        for _ in 0..in_flight {
            // Encoded anew, as a message that has just come in.
            assert_eq!(
                hub.publish("topic", Message::binary(vec![7; PAYLOAD])),
                count
            );
        }
        reader.done().await
    })
    .await;
    drop(seats);
    result
}

/// Whether a socket that takes nothing makes others wait. The same sockets are in two topics, of
/// which one has a stalled member too; rounds in the two alternate, so that whatever else the
/// machine does befalls both. A round is from publishing until all have got it.
async fn beside_stalled(count: usize) -> io::Result<()> {
    let hub = Hub::builder()
        .slow_consumer(Policy::new(SlowConsumer::DropOldest).backlog(4 << 10))
        .build();
    let mut reader = Reader::start(count, 1).await?;
    let mut sockets: Vec<_> = reader.sockets.drain(..).map(socket).collect();
    let alone: Vec<_> = sockets.iter().map(|it| hub.join("alone", it)).collect();
    let (_never_read, far) = tokio::io::duplex(64);
    // In the middle of the others.
    let stalled = socket_with(far, Config::new().outgoing_high_water(1));
    sockets.insert(count / 2, stalled);
    let beside: Vec<_> = sockets.iter().map(|it| hub.join("beside", it)).collect();
    yield_now().await;
    let mut times = [Vec::new(), Vec::new()];
    let start = Instant::now();
    while start.elapsed() < 6 * SAMPLE {
        for (topic, times) in ["alone", "beside"].into_iter().zip(&mut times) {
            let round = Instant::now();
            hub.publish(topic, Message::binary(vec![7; PAYLOAD]));
            reader.done().await?;
            times.push(round.elapsed());
        }
    }
    drop((alone, beside));
    for (name, times) in ["without one", "beside a stalled one"]
        .iter()
        .zip(&mut times)
    {
        times.sort_unstable();
        let at = |percent| {
            let time: Option<&Duration> = times.get(times.len() * percent / 100);
            time.copied().unwrap_or_default()
        };
        println!(
            "rounds to 1000 over tcp, {name:<33} p50 {:.1?}, p99 {:.1?}",
            at(50),
            at(99)
        );
    }
    println!("{:?}", hub.stats());
    Ok(())
}

/// A thread publishes while the backplane beats and says how far each topic has come. It is the
/// time on the wall, so what the machine gives to others is in it: only a quiet one has a meaning.
async fn longest_publish(name: &str, count: usize) -> io::Result<()> {
    let backplane = Backplane::new(InProcess::new()).heartbeat(Duration::from_millis(250));
    let hub = Hub::builder().backplane(backplane).build();
    let socket = socket(Nowhere::default());
    let names = (0..count).map(|number| format!("topic/{number}"));
    let seats: Vec<_> = names.map(|it| hub.join(&it, &socket)).collect();
    let publisher = tokio::task::spawn_blocking(move || {
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        while start.elapsed() < SAMPLE * 2 {
            let before = Instant::now();
            hub.publish("nobody", "x");
            longest = longest.max(before.elapsed());
        }
        longest
    });
    let longest = publisher.await.map_err(io::Error::other)?;
    println!("{name:<58} {:>12}", longest.as_nanos());
    drop(seats);
    Ok(())
}

/// The other process: reads until its parent has gone.
fn reader(address: SocketAddr, count: usize, in_flight: usize) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut control = TcpStream::connect(address).await?;
        let (told, mut rounds) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..count {
            let mut socket = TcpStream::connect(address).await?;
            let told = told.clone();
            tokio::spawn(async move {
                let mut left = FRAME * in_flight;
                let mut buffer = vec![0; left];
                while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                    left -= read;
                    if left == 0 {
                        left = FRAME * in_flight;
                        let _ = told.send(());
                    }
                }
            });
        }
        let mut done = 0;
        while rounds.recv().await.is_some() {
            done += 1;
            if done == count {
                done = 0;
                control.write_u8(1).await?;
            }
        }
        Ok(())
    })
}
