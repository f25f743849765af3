//! The applications of the examples, by their bytes: what a client that is no page of theirs
//! sends and gets.

#[path = "support/memory.rs"]
mod memory;

use std::time::Duration;

use self::memory::{Dial, clock};
use tokio::{
    io::DuplexStream,
    time::{Instant, sleep, timeout},
};
use ws_examples::{
    Page,
    applications::{
        board::{Boards, Limits, REASON},
        chat::Chat,
        sensors::Sensors,
        tick::Tick,
    },
    site,
};
use ws_tests::{
    raw::{Raw, handshake, masked},
    wire::frame,
};
use ws_tower::WebSocketLayer;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

// --- all ---

#[tokio::test(start_paused = true)]
async fn a_refusal_says_in_its_text_what_is_wrong() {
    let mut limits = Limits::default();
    limits.boards = 0;
    let sockets = Boards::new(limits).route(Chat::start().route(WebSocketLayer::new()));
    let address = serve(sockets);
    for (path, more, status, text) in [
        (
            "/chat",
            "Origin: https://evil.example\r\n",
            403,
            "evil.example",
        ),
        (
            "/chat",
            "Origin: https://evil.example\r\n",
            403,
            "WebSocketLayer::origins",
        ),
        ("/ws/board/bad.id", "", 404, "1 to 64 letters"),
        ("/ws/board/a", "", 503, "no room for more"),
    ] {
        let request = handshake(path).replacen("\r\n", &format!("\r\n{more}"), 1);
        let mut socket = address.dial();
        socket.write(request).await;
        let head = socket.head().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{head}");
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.and_then(|it| it.parse().ok()).expect("a length");
        let body = socket.read(length).await;
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains(text), "{path}: {body}");
    }
}

// --- tick ---

#[tokio::test(start_paused = true)]
async fn everyone_gets_the_same_count_from_the_first_frame_on() {
    let address = serve(Tick::start(Duration::from_millis(50)).route(WebSocketLayer::new()));
    let mut one = address.open("/tick").await;
    let first = tick(&mut one).await;
    let mut two = address.open("/tick").await;
    let second = tick(&mut two).await;
    assert!(
        second > first,
        "one counter for all: {second} after {first}"
    );
    for expected in first + 1..second + 3 {
        assert_eq!(tick(&mut one).await, expected);
    }
    for expected in second + 1..second + 3 {
        assert_eq!(tick(&mut two).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_count_begins_with_zero_and_goes_on_without_clients() {
    let tick_socket = Tick::start(Duration::from_millis(200));
    let address = serve(tick_socket.route(WebSocketLayer::new()));
    sleep(Duration::from_millis(500)).await;
    let count = tick(&mut address.open("/tick").await).await;
    assert!((2..10).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_comes_back_to_everyone_uncut() {
    let address = serve(slow_tick());
    let mut one = address.open("/tick").await;
    let mut two = address.open("/tick").await;
    let large = "ü:".repeat(100_000);
    for said in [
        "a:b::c",
        "",
        ":",
        "tick:7",
        "line\nline",
        "x\r\n\r\ny",
        &large,
    ] {
        one.write(frame(TEXT, Some([1, 2, 3, 4]), said.as_bytes()))
            .await;
        let expected = format!("msg:{said}").into_bytes();
        for socket in [&mut one, &mut two] {
            assert!(without_ticks(socket).await == expected, "{}", said.len());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_reads_stops_nobody() {
    let address = serve(slow_tick());
    let stalled = address.open("/tick").await;
    let mut one = address.open("/tick").await;
    let mut two = address.open("/tick").await;
    let said = vec![b'x'; 60_000];
    for _ in 0..200 {
        one.write(frame(TEXT, Some([0; 4]), &said)).await;
        assert_eq!(without_ticks(&mut one).await.len(), said.len() + 4);
        assert_eq!(without_ticks(&mut two).await.len(), said.len() + 4);
    }
    drop(stalled);
}

#[tokio::test(start_paused = true)]
async fn a_binary_message_is_refused_with_1003_and_a_reason() {
    let sockets = Chat::start().route(WebSocketLayer::new());
    let sockets = Boards::new(Limits::default()).route(sockets);
    let sockets = Sensors::new(Duration::ZERO).route(sockets);
    let address = serve(sockets);
    for path in ["/chat", "/ws/board/b", "/sensors"] {
        let mut socket = address.open(path).await;
        socket.write(masked(0x82, b"1")).await;
        let (first, payload) = socket.frame().await;
        assert_eq!((first, close_code(&payload)), (CLOSE, 1003), "{path}");
        assert!(payload.ends_with(b"texts only"), "{path}");
    }
}

// --- chat ---

#[tokio::test(start_paused = true)]
async fn a_line_comes_back_to_everyone_as_it_is() {
    let address = serve(chat());
    let mut one = address.open("/chat").await;
    let mut two = address.open("/chat").await;
    for line in ["Hello", "", " ", "a {", r#"["members"]"#, r#""{""#, "[1]"] {
        one.write(masked(TEXT, line.as_bytes())).await;
        for socket in [&mut one, &mut two] {
            assert_eq!(text(socket).await, line);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_reason_of_a_close_is_the_others_last_line() {
    let address = serve(chat());
    let mut stays = address.open("/chat").await;
    for (close, line) in [
        (&b"\x03\xe8Ann left the room"[..], Some("Ann left the room")),
        (b"\x0f\xa0custom \xe2\x9c\x93", Some("custom ✓")),
        (b"\x03\xe8", None),
        (b"", None),
        (br#"..{"members":["Eve"]}"#, None),
        (br#"..{"members":[],"members":["Eve"]}"#, None),
        (br#".. {"\ud800":1,"error":"x"}"#, None),
    ] {
        let mut close = close.to_vec();
        if close.starts_with(b"..") {
            close[..2].copy_from_slice(&1000_u16.to_be_bytes());
        }
        let mut goes = address.open("/chat").await;
        goes.write(masked(TEXT, b"here")).await;
        assert_eq!(text(&mut goes).await, "here");
        assert_eq!(text(&mut stays).await, "here");
        goes.write(masked(CLOSE, &close)).await;
        // Its own goodbye does not come back to it: the Close is all.
        close.truncate(2);
        assert_eq!(goes.frame().await, (CLOSE, close));
        if let Some(line) = line {
            assert_eq!(text(&mut stays).await, line);
        }
    }
    // The server's own reason, said back as browsers do.
    let mut sent_away = address.open("/chat").await;
    sent_away.write(masked(0x82, b"1")).await;
    let (first, payload) = sent_away.frame().await;
    assert_eq!((first, close_code(&payload)), (CLOSE, 1003));
    sent_away.write(masked(CLOSE, &payload)).await;
    assert_eq!(sent_away.rest().await, b"");
    // A connection that breaks off says nothing.
    drop(address.open("/chat").await);
    stays.write(masked(TEXT, b"last")).await;
    assert_eq!(text(&mut stays).await, "last");
}

#[tokio::test(start_paused = true)]
async fn only_who_gives_a_name_is_told_who_is_there() {
    let address = serve(chat());
    let mut plain = address.open("/chat").await;
    let mut ann = address.open("/chat").await;
    ann.write(masked(TEXT, br#"{"name":" Ann "}"#)).await;
    assert_eq!(text(&mut ann).await, r#"{"members":["Ann"]}"#);
    let mut bob = address.open("/chat").await;
    bob.write(masked(TEXT, br#"{"name":"B\"\u00f6b"}"#)).await;
    members(&mut bob, r#"{"members":["Ann","B\"öb"]}"#).await;
    members(&mut ann, r#"{"members":["Ann","B\"öb"]}"#).await;

    ann.write(masked(TEXT, br#"{"name":"Zoe"}"#)).await;
    members(&mut ann, r#"{"members":["B\"öb","Zoe"]}"#).await;
    members(&mut bob, r#"{"members":["B\"öb","Zoe"]}"#).await;

    bob.write(masked(CLOSE, b"\x03\xe8bye")).await;
    assert_eq!(bob.rest().await, b"\x88\x02\x03\xe8");
    assert_eq!(text(&mut plain).await, "bye");
    let (line, list) = (text(&mut ann).await, text(&mut ann).await);
    let expected = ["bye", r#"{"members":["Zoe"]}"#];
    assert!([&*line, &*list] == expected || [&*list, &*line] == expected);

    drop(ann);
    plain.write(masked(TEXT, b"alone")).await;
    assert_eq!(text(&mut plain).await, "alone");
}

#[tokio::test(start_paused = true)]
async fn the_servers_words_cannot_be_put_into_its_mouth() {
    let address = serve(chat());
    let mut eve = address.open("/chat").await;
    let mut ann = address.open("/chat").await;
    for wrong in [
        r#"{"members":["Eve"]}"#,
        r#"{"error":"pay me"}"#,
        // What this parser refuses and a browser's takes.
        r#"{"members":[],"members":["Eve"]}"#,
        r#"{"\ud800":1,"members":["Eve"]}"#,
        r#"{"error":"x","error":"x"}"#,
        r#"{"members":1,"members":5}"#,
        "\r\n\t {\"members\":[],\"members\":[\"Eve\"]}",
        "\u{feff}{\"members\":[\"Eve\"]}",
        "{",
        r#"{"text":"Hi"}"#,
        r#"{"name":7}"#,
        r#"{"name":""}"#,
        r#"{"name":"a name that is a good deal too long"}"#,
        "{\"name\":\"two\\nlines\"}",
    ] {
        eve.write(masked(TEXT, wrong.as_bytes())).await;
        let answer = text(&mut eve).await;
        assert!(answer.starts_with(r#"{"error":""#), "{answer}");
    }
    eve.write(masked(TEXT, b"done")).await;
    assert_eq!(text(&mut ann).await, "done");
}

// --- board ---

#[tokio::test(start_paused = true)]
async fn points_and_clear_go_to_the_others_of_the_same_board() {
    let address = serve(boards(Limits::default()));
    let mut one = address.open("/ws/board/a").await;
    let mut two = address.open("/ws/board/a").await;
    let mut three = address.open("/ws/board/a").await;
    let mut elsewhere = address.open("/ws/board/b").await;
    let mut also_elsewhere = address.open("/ws/board/b").await;
    let point = r##"{"x":12,"y":34.5,"c":"#d9822b"}"##;
    one.write(masked(TEXT, point.as_bytes())).await;
    for socket in [&mut two, &mut three] {
        assert_eq!(text(socket).await, point);
    }
    two.write(masked(TEXT, b"clear")).await;
    // The first that comes: its own point did not.
    assert_eq!(text(&mut one).await, "clear");
    assert_eq!(text(&mut three).await, "clear");
    elsewhere.write(masked(TEXT, b"clear")).await;
    assert_eq!(text(&mut also_elsewhere).await, "clear");
    also_elsewhere.write(masked(TEXT, point.as_bytes())).await;
    assert_eq!(text(&mut elsewhere).await, point);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_point_is_explained_and_goes_nowhere() {
    let address = serve(boards(Limits::default()));
    let mut one = address.open("/ws/board/a").await;
    let mut two = address.open("/ws/board/a").await;
    for wrong in [
        "",
        "clear ",
        "<script>",
        r#"{"x":1,"y":2}"#,
        r##"[1,2,"#123456"]"##,
        r##"{"x":1,"y":2,"c":"#12345g"}"##,
        r##"{"x":1,"y":-2,"c":"#123456"}"##,
        r##"{"x":1e9,"y":2,"c":"#123456"}"##,
        r##"{"x":1,"y":2,"c":"#123456","z":3}"##,
    ] {
        one.write(masked(TEXT, wrong.as_bytes())).await;
        let answer = text(&mut one).await;
        assert!(answer.starts_with(r#"{"error":""#), "{answer}");
    }
    one.write(masked(TEXT, b"clear")).await;
    assert_eq!(text(&mut two).await, "clear");
    // And what is too long for a point is not even read.
    one.write(frame(TEXT, Some([0; 4]), &[b' '; 300])).await;
    let (first, payload) = one.frame().await;
    assert_eq!((first, close_code(&payload)), (CLOSE, 1009));
}

#[tokio::test(start_paused = true)]
async fn a_board_ends_for_all_at_the_end_of_its_life() {
    let mut limits = Limits::default();
    (limits.lifetime, limits.clock) = (Duration::from_secs(10), clock);
    let address = serve(boards(limits));
    let start = Instant::now();
    let mut one = address.open("/ws/board/a").await;
    sleep(limits.lifetime / 2).await;
    let mut late = address.open("/ws/board/a").await;
    let mut other = address.open("/ws/board/b").await;
    for socket in [&mut one, &mut late] {
        let (first, payload) = socket.frame().await;
        assert_eq!((first, close_code(&payload)), (CLOSE, 1001));
        assert_eq!(&payload[2..], REASON.as_bytes());
    }
    assert_eq!(REASON, "Board can't exist for more than 5mn");
    let life = start.elapsed();
    let in_time = limits.lifetime..limits.lifetime + Duration::from_millis(100);
    assert!(in_time.contains(&life), "{life:?}");
    // The next one with this id is another board, with a life of its own; the other goes on.
    let mut again = address.open("/ws/board/a").await;
    let nothing = timeout(Duration::from_millis(100), again.frame()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    other.write(masked(TEXT, b"CLEAR")).await;
    assert!(text(&mut other).await.starts_with(r#"{"error":"#));
}

#[tokio::test(start_paused = true)]
async fn boards_and_participants_are_counted_and_given_back() {
    let mut limits = Limits::default();
    (limits.boards, limits.participants) = (2, 2);
    let address = serve(boards(limits));
    let one = address.open("/ws/board/a").await;
    let two = address.open("/ws/board/a").await;
    let other = address.open("/ws/board/b").await;
    // As long as the handlers have not begun, nothing is taken.
    ws_tests::raw::within(async {
        while status(&address, "/ws/board/a").await != 503
            || status(&address, "/ws/board/c").await != 503
        {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    one.close().await;
    drop(other); // no goodbye: the connection is gone
    ws_tests::raw::within(async {
        while status(&address, "/ws/board/a").await != 101 {
            sleep(Duration::from_millis(5)).await;
        }
        while status(&address, "/ws/board/c").await != 101 {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(two);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_is_none_is_not_found() {
    let address = serve(boards(Limits::default()));
    let long = format!("/ws/board/{}", "x".repeat(65));
    for path in [
        "/ws/board/",
        "/ws/board/a/b",
        "/ws/board/%2e%2e",
        "/ws/board/a.b",
        &long,
    ] {
        assert_eq!(status(&address, path).await, 404, "{path}");
    }
    let get =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for (path, expected) in [
        ("/board/a.b", "http/1.1 404 "),
        ("/board/a-b", "http/1.1 200 "),
        ("/board", "http/1.1 303 "),
        ("/", "http/1.1 200 "),
    ] {
        let head = address.ask(get(path)).await;
        assert!(head.starts_with(expected), "{path}: {head}");
    }
}

// --- sensors ---

#[tokio::test(start_paused = true)]
async fn who_comes_later_gets_the_latest_value_at_once() {
    let address = serve(sensors(Duration::ZERO));
    let mut early = address.open("/sensors").await;
    let mut producer = address.open("/sensors").await;
    for value in ["1 2 3 4 5 6", "359.5 -90 1e1 0 -0.5 9.81"] {
        producer.write(masked(TEXT, value.as_bytes())).await;
        assert_eq!(text(&mut producer).await, value);
        assert_eq!(text(&mut early).await, value);
    }
    drop(producer);
    let mut late = address.open("/sensors").await;
    assert_eq!(text(&mut late).await, "359.5 -90 1e1 0 -0.5 9.81");
}

#[tokio::test(start_paused = true)]
async fn a_producer_that_is_too_fast_overtakes_itself() {
    const PAUSE: Duration = Duration::from_millis(150);
    let address = serve(sensors(PAUSE));
    let mut viewer = address.open("/sensors").await;
    let mut producer = address.open("/sensors").await;
    let start = Instant::now();
    for value in 0..60 {
        let text = format!("{value} 0 0 0 0 0");
        producer.write(masked(TEXT, text.as_bytes())).await;
        sleep(Duration::from_millis(10)).await;
    }
    let mut seen = Vec::new();
    while seen.last().is_none_or(|value| value != "59 0 0 0 0 0") {
        seen.push(text(&mut viewer).await);
    }
    // One for each pause, and the first and the last.
    let pauses = start.elapsed().as_millis() / PAUSE.as_millis();
    let most = usize::try_from(pauses).expect("a small number") + 2;
    assert!((3..=most).contains(&seen.len()), "{seen:?}, not {most}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_value_is_explained_and_goes_nowhere() {
    let address = serve(sensors(Duration::ZERO));
    let mut viewer = address.open("/sensors").await;
    let mut producer = address.open("/sensors").await;
    for wrong in [
        "",
        "1 2 3 4 5",
        "1 2 3 4 5 6 7",
        "1 2 3 4 5 NaN",
        "1 2 3 4 5 1e99",
    ] {
        producer.write(masked(TEXT, wrong.as_bytes())).await;
        let answer = text(&mut producer).await;
        assert!(answer.starts_with(r#"{"error":""#), "{answer}");
    }
    producer.write(masked(TEXT, b"0 0 0 0 0 0")).await;
    assert_eq!(text(&mut viewer).await, "0 0 0 0 0 0");
}

// --- the pieces ---

fn serve(sockets: WebSocketLayer) -> Dial {
    let (dial, memory) = Dial::new();
    let app = site(&Page::ALL).layer(sockets);
    tokio::spawn(ws_hyper::serve(memory, app).into_future());
    dial
}

fn slow_tick() -> WebSocketLayer {
    Tick::start(Duration::from_secs(3600)).route(WebSocketLayer::new())
}

fn chat() -> WebSocketLayer {
    Chat::start().route(WebSocketLayer::new())
}

fn boards(limits: Limits) -> WebSocketLayer {
    Boards::new(limits).route(WebSocketLayer::new())
}

fn sensors(pause: Duration) -> WebSocketLayer {
    Sensors::new(pause).route(WebSocketLayer::new())
}

/// The next frame, which is a text.
async fn text(socket: &mut Raw<DuplexStream>) -> String {
    let (first, payload) = socket.frame().await;
    assert_eq!(first, TEXT, "{}", String::from_utf8_lossy(&payload));
    String::from_utf8(payload).expect("a text is UTF-8")
}

/// The next list of members that is this one: one before may be of another moment.
async fn members(socket: &mut Raw<DuplexStream>, expected: &str) {
    loop {
        let list = text(socket).await;
        assert!(list.starts_with(r#"{"members":["#), "{list}");
        if list == expected {
            return;
        }
    }
}

async fn tick(socket: &mut Raw<DuplexStream>) -> u64 {
    let tick = text(socket).await;
    let count = tick.strip_prefix("tick:").and_then(|it| it.parse().ok());
    count.unwrap_or_else(|| panic!("{tick}"))
}

async fn without_ticks(socket: &mut Raw<DuplexStream>) -> Vec<u8> {
    loop {
        let text = text(socket).await;
        if !text.starts_with("tick:") {
            return text.into_bytes();
        }
    }
}

fn close_code(payload: &[u8]) -> u16 {
    payload[..2]
        .try_into()
        .map(u16::from_be_bytes)
        .expect("a code")
}

/// The status of the answer to a handshake; what it opens is dropped.
async fn status(address: &Dial, path: &str) -> u16 {
    let head = address.ask(handshake(path)).await;
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    status.expect("a status")
}
