//! The clients against servers of other hands: Python's `websockets`, Node's `ws` and Node's `http2`.
//!
//! `tests/full.sh interop:client` installs both and runs these.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod asynchronous;
mod blocking;
mod http2;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use ws_core::{
    CloseCode, CloseFrame, Config, Deflate, Message,
    deflate::{Takeover, WindowBits},
    handshake::client::Refusal,
};
use ws_hyper::client::Tls;
use ws_tests::{foreign::Foreign, random::Random, raw::within};
use ws_tower::WebSocket;

/// One of each.
fn servers() -> [Foreign; 2] {
    let none: [&str; 0] = [];
    [Foreign::python(none), Foreign::node(none)]
}

/// Payloads around every length at which the header changes, and a large one.
const SIZES: [usize; 9] = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 3 << 20];

/// Messages of all sizes, text and binary.
fn messages() -> impl Iterator<Item = Message> {
    SIZES.into_iter().flat_map(|size| {
        let mut text = "κόσμε 🦀 ".repeat(size / 16 + 1);
        while text.len() > size {
            text.pop();
        }
        let bytes: Vec<u8> = (0..=255).cycle().take(size).collect();
        [Message::text(text), Message::binary(bytes)]
    })
}

/// What shrinks, again and again, and what does not.
fn compressible() -> Vec<Message> {
    let mut random = Random::new(7);
    let words = ["websocket", "frame", "mask", "close", "κόσμε", " ", "\n"];
    let mut prose = |count: usize| -> String {
        let words = (0..count).map(|_| words[random.below(words.len())]);
        words.collect()
    };
    let (short, long) = (prose(300), prose(8000));
    let noise = random.bytes(1000);
    [
        Message::text(short.clone()),
        Message::text(short.clone()),
        Message::text(""),
        Message::binary(noise.clone()),
        Message::text(long),
        Message::binary(noise),
        Message::binary(vec![0; 40_000]),
        Message::text(short),
    ]
    .into()
}

/// Our side of a negotiation.
#[derive(Clone, Copy, Debug)]
struct Ours {
    own: WindowBits,
    peer: WindowBits,
    own_takeover: Takeover,
    peer_takeover: Takeover,
}

impl Ours {
    fn all() -> impl Iterator<Item = Self> {
        let bits = [WindowBits::MIN, WindowBits::MAX];
        let takeovers = [Takeover::Allowed, Takeover::Forbidden];
        (0..16).map(move |number| Self {
            own: bits[number & 1],
            peer: bits[number >> 1 & 1],
            own_takeover: takeovers[number >> 2 & 1],
            peer_takeover: takeovers[number >> 3 & 1],
        })
    }

    fn config(self) -> Config {
        let deflate = Deflate::new()
            .required()
            .threshold(0)
            .own_window_bits(self.own)
            .peer_window_bits(self.peer)
            .own_takeover(self.own_takeover)
            .peer_takeover(self.peer_takeover);
        large().deflate(deflate)
    }
}

/// Their side.
#[derive(Clone, Copy, Debug)]
struct Theirs {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<u8>,
}

impl Theirs {
    fn all() -> impl Iterator<Item = Self> {
        let bits = [None, Some(9), Some(12)];
        (0..36).map(move |number| Self {
            server_no_context_takeover: number & 1 == 1,
            client_no_context_takeover: number >> 1 & 1 == 1,
            server_max_window_bits: bits[number / 4 % 3],
            client_max_window_bits: bits[number / 12],
        })
    }

    fn query(self) -> String {
        let mut query = String::new();
        if self.server_no_context_takeover {
            query.push_str("&server_no_context_takeover");
        }
        if self.client_no_context_takeover {
            query.push_str("&client_no_context_takeover");
        }
        for (name, bits) in [
            ("server_max_window_bits", self.server_max_window_bits),
            ("client_max_window_bits", self.client_max_window_bits),
        ] {
            if let Some(bits) = bits {
                let _ = write!(query, "&{name}={bits}");
            }
        }
        query.replacen('&', "?", 1)
    }

    /// Whether Node's `ws` refuses: where it is told a window it takes no smaller one.
    fn is_refused_by_node(self, ours: Ours) -> bool {
        let is_larger = |theirs: Option<u8>, ours: WindowBits| {
            ours < WindowBits::MAX && theirs.is_some_and(|bits| bits > ours.get())
        };
        is_larger(self.server_max_window_bits, ours.peer)
            || is_larger(self.client_max_window_bits, ours.own)
    }

    /// Whether an answer says what either side insists on.
    fn check(self, ours: Ours, answer: &str) {
        let has = |name: &str| answer.split(';').any(|part| part.trim() == name);
        let bits = |name: &str| -> Option<u8> {
            let mut parts = answer.split(';').map(str::trim);
            let value = parts.find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.trim_matches('"').parse().unwrap())
        };
        assert!(has("permessage-deflate"));
        if self.server_no_context_takeover || ours.peer_takeover == Takeover::Forbidden {
            assert!(has("server_no_context_takeover"));
        }
        if self.client_no_context_takeover {
            assert!(has("client_no_context_takeover"));
        }
        let limit = ours
            .peer
            .get()
            .min(self.server_max_window_bits.unwrap_or(15));
        assert!(bits("server_max_window_bits").unwrap_or(15) <= limit);
        if let Some(limit) = self.client_max_window_bits {
            assert!(bits("client_max_window_bits").unwrap_or(15) <= limit);
        }
    }
}

/// What either end may say: with and without a reason, from each range.
const CLOSES: [(u16, &str); 8] = [
    (1000, ""),
    (1000, "bye"),
    (1001, "auf Wiedersehen, κόσμε"),
    (1003, "no such data"),
    (1008, "policy"),
    (1011, "broken"),
    (3000, ""),
    (4999, "of the application's own"),
];

fn close_frame((code, reason): (u16, &str)) -> CloseFrame {
    CloseFrame::new(CloseCode::try_from(code).unwrap(), reason.to_owned()).unwrap()
}

/// A query's value.
fn quoted(text: &str) -> String {
    let mut quoted = String::new();
    for byte in text.bytes() {
        let _ = write!(quoted, "%{byte:02X}");
    }
    quoted
}

fn large() -> Config {
    Config::new().max_message_size(32 << 20)
}

/// The lines of a request as its JSON has them, `["name","value"]`, in either server's spacing.
fn has_line(json: &str, name: &str, value: &str) -> bool {
    let json = json.replace("\", \"", "\",\"");
    json.contains(&format!("[\"{name}\",\"{value}\"]"))
}

fn has_name(json: &str, name: &str) -> bool {
    json.contains(&format!("[\"{name}\""))
}

fn check_refusal(refusal: &Refusal, status: u16, body: &str) {
    assert_eq!(refusal.status().as_u16(), status);
    assert_eq!(refusal.headers()["x-refusal"], status.to_string().as_str());
    assert_eq!(refusal.body(), body);
}

/// A folder that is gone in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ws-interop-{}-{number}", process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A certificate for `127.0.0.1` in files, and its key.
struct Identity {
    pem: String,
    certificate: PathBuf,
    key: PathBuf,
    _folder: Folder,
}

impl Identity {
    fn new() -> Self {
        let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (folder, pem) = (Folder::new(), identity.cert.pem());
        Self {
            certificate: folder.file("certificate.pem", &pem),
            key: folder.file("key.pem", &identity.signing_key.serialize_pem()),
            pem,
            _folder: folder,
        }
    }

    fn paths(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }

    /// Who trusts it.
    fn tls(&self) -> Tls {
        Tls::roots_from_pem(self.pem.as_bytes()).unwrap()
    }
}

/// One of each over TLS, with a certificate for `127.0.0.1`, and who trusts it.
fn tls_servers() -> ([Foreign; 2], Tls) {
    let identity = Identity::new();
    let [certificate, key] = identity.paths();
    let python = [Path::new("--tls"), certificate, key];
    let node = [Path::new("--cert"), certificate, Path::new("--key"), key];
    // They have read both when they listen.
    let servers = [Foreign::python(python), Foreign::node(node)];
    (servers, identity.tls())
}

/// One of each on a Unix socket, and the paths.
#[cfg(unix)]
fn unix_servers(folder: &Folder) -> [(Foreign, PathBuf); 2] {
    let [python, node] = ["python.sock", "node.sock"].map(|name| folder.0.join(name));
    let arguments = |path: &Path| [Path::new("--unix").to_owned(), path.to_owned()];
    [
        (Foreign::python(arguments(&python)), python),
        (Foreign::node(arguments(&node)), node),
    ]
}

// What the asynchronous client does in either version of HTTP.

async fn text(socket: &mut WebSocket) -> String {
    let message = within(socket.recv()).await.unwrap().unwrap();
    message.as_text().unwrap().to_owned()
}

async fn echoes(socket: &mut WebSocket, message: Message) {
    within(socket.send(message.clone())).await.unwrap();
    let back = within(socket.recv()).await.unwrap().unwrap();
    assert!(back == message, "{} bytes differ", message.len());
}

async fn closes(socket: WebSocket) {
    let closed = within(socket.close(close_frame((1000, "")))).await;
    assert!(closed.is_clean(), "{closed}");
}
