//! The drawing board: sheets that some people draw on together, for five minutes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{Request, StatusCode};
use serde::Deserialize;
use tokio::{task::AbortHandle, time::sleep};
use ws_tower::{
    CloseCode, CloseFrame, Config, Error, Route, WebSocket, WebSocketLayer,
    hub::{Hub, Seat},
};

use super::{explanation, next_text};

/// The application behind `/ws/board/{id}`.
///
/// A board begins with its first participant. It ends with its last, or after its lifetime: then
/// its participants get 1001 and [`REASON`].
///
/// | a participant sends | what happens |
/// |---|---|
/// | `{"x":…,"y":…,"c":"#rrggbb"}`, with x and y from 0 to 10,000 | the other participants of this board get it, unchanged |
/// | `clear` | the same |
/// | anything else | it alone gets `{"error":"…"}` |
///
/// | bound | default | else |
/// |---|---|---|
/// | [id](is_valid_id) | 1 to 64 letters, digits, `-` and `_` | 404 |
/// | boards | 256 | 503 |
/// | participants of a board | 32 | 503 |
/// | lifetime of a board | 300 s | 1001 |
/// | a message | 256 bytes | 1009 |
#[derive(Clone, Debug)]
pub struct Boards(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hub: Hub,
    limits: Limits,
    table: Mutex<Table>,
}

/// What there may be of [`Boards`].
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// How long a board lives. Default: 300 s.
    pub lifetime: Duration,
    /// How many boards there are at a time. Default: 256.
    pub boards: usize,
    /// How many participate in one board. Default: 32.
    pub participants: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            boards: 256,
            participants: 32,
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    boards: HashMap<Arc<str>, Board>,
    /// How many boards there have been. A new one with an old id is another board.
    count: u64,
}

#[derive(Debug)]
struct Board {
    topic: Arc<str>,
    participants: usize,
    timer: AbortHandle,
}

/// A participant's place at a board. Dropping it leaves the board.
struct Place {
    shared: Arc<Shared>,
    id: Arc<str>,
    topic: Arc<str>,
    seat: Seat,
}

impl Boards {
    /// No boards yet.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            hub: Hub::new(),
            limits,
            table: Mutex::default(),
        }))
    }

    /// Adds the socket `/ws/board/{id}`.
    #[must_use]
    pub fn route(self, sockets: WebSocketLayer) -> WebSocketLayer {
        let Self(shared) = self;
        let doorkeeper = Arc::clone(&shared);
        let route = Route::new(move |socket| draw(Arc::clone(&shared), socket))
            .config(Config::new().max_message_size(256))
            // A browser does not tell a page why it was refused; other clients do.
            .guard(move |request: &mut Request<()>| doorkeeper.admit(request.uri().path()));
        sockets.route_with("/ws/board/{id}", route)
    }
}

async fn draw(shared: Arc<Shared>, mut socket: WebSocket) -> Result<(), Error> {
    let id = socket.param("id").unwrap_or_default().into();
    let place = match Place::take(shared, id, &socket) {
        Ok(place) => place,
        Err(full) => {
            // Others have come since the guard looked.
            let close = CloseFrame::truncated(CloseCode::TRY_AGAIN_LATER, &full);
            socket.close(close).await;
            return Ok(());
        }
    };
    while let Some(text) = next_text(&mut socket).await? {
        match check(&text) {
            Ok(()) => {
                place.seat.publish_to_others(text);
            }
            Err(wrong) => socket.send(explanation(&wrong)).await?,
        }
    }
    Ok(())
}

impl Shared {
    /// Whether there is a place for one more; the answer may be out of date when it is read.
    fn admit(&self, path: &str) -> Result<(), (StatusCode, String)> {
        let id = path.rsplit('/').next().unwrap_or_default();
        if !is_valid_id(id) {
            let wrong = "the id of a board is 1 to 64 letters, digits, `-` and `_`";
            return Err((StatusCode::NOT_FOUND, wrong.to_owned()));
        }
        let full = self.limits.check(&self.lock(), id);
        full.map_err(|full| (StatusCode::SERVICE_UNAVAILABLE, full))
    }

    /// Ends a board, if it has not ended before.
    fn expire(&self, id: &str, topic: &str) {
        let is_over = {
            let mut table = self.lock();
            let is_same = table.boards.get(id).is_some_and(|it| *it.topic == *topic);
            is_same && table.boards.remove(id).is_some()
        };
        // All who took a place have a seat in the topic by now, and nobody takes one any more.
        if is_over {
            let close = CloseFrame::truncated(CloseCode::GOING_AWAY, REASON);
            self.hub.close(topic, &close);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Limits {
    /// Whether one more may come to this board.
    fn check(&self, table: &Table, id: &str) -> Result<(), String> {
        match table.boards.get(id) {
            Some(board) if board.participants >= self.participants => Err(format!(
                "this board has {} participants, and no room for more",
                board.participants
            )),
            None if table.boards.len() >= self.boards => Err(format!(
                "there are {} boards, and no room for more; try again later",
                table.boards.len()
            )),
            _ => Ok(()),
        }
    }
}

impl Place {
    fn take(shared: Arc<Shared>, id: Arc<str>, socket: &WebSocket) -> Result<Self, String> {
        let mut table = shared.lock();
        shared.limits.check(&table, &id)?;
        let Table { boards, count } = &mut *table;
        let board = boards.entry(Arc::clone(&id)).or_insert_with(|| {
            *count += 1;
            let topic: Arc<str> = format!("{id}/{count}").into();
            Board {
                timer: start_timer(&shared, &id, &topic),
                topic,
                participants: 0,
            }
        });
        board.participants += 1;
        let topic = Arc::clone(&board.topic);
        // Under the lock: a board that ends now finds this seat.
        let seat = shared.hub.join(&topic, socket);
        drop(table);
        Ok(Self {
            shared,
            id,
            topic,
            seat,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.shared.lock();
        let Some(board) = table.boards.get_mut(&self.id) else {
            return;
        };
        if board.topic != self.topic {
            return;
        }
        board.participants -= 1;
        if board.participants == 0 {
            board.timer.abort();
            table.boards.remove(&self.id);
        }
    }
}

/// Ends the board at the end of its lifetime.
fn start_timer(shared: &Arc<Shared>, id: &Arc<str>, topic: &Arc<str>) -> AbortHandle {
    let lifetime = shared.limits.lifetime;
    let (shared, id, topic) = (Arc::clone(shared), Arc::clone(id), Arc::clone(topic));
    let timer = tokio::spawn(async move {
        sleep(lifetime).await;
        shared.expire(&id, &topic);
    });
    timer.abort_handle()
}

/// Whether this can be the id of a board: 1 to 64 ASCII letters, digits, `-` and `_`.
pub fn is_valid_id(id: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=64).contains(&id.len()) && id.bytes().all(is_valid)
}

/// An id that nobody guesses: 32 hexadecimal digits.
pub fn new_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// Whether the text is a point or `clear`.
fn check(text: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Point {
        x: f64,
        y: f64,
        c: String,
    }
    if text == "clear" {
        return Ok(());
    }
    let Point { x, y, c } = serde_json::from_str(text)
        .map_err(|error| format!("neither `clear` nor a point `{SHAPE}`: {error}"))?;
    if ![x, y].iter().all(|it| (0.0..=LARGEST).contains(it)) {
        return Err(format!("x and y are from 0 to {LARGEST}"));
    }
    let digits = c.strip_prefix('#').unwrap_or_default();
    if digits.len() != 6 || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
        return Err("the colour c is `#` and six hexadecimal digits".to_owned());
    }
    Ok(())
}

/// Why a board ends, in its Close.
pub const REASON: &str = "Board can't exist for more than 5mn";
const SHAPE: &str = r##"{"x":0,"y":0,"c":"#000000"}"##;
/// Room for the pixels of any screen.
const LARGEST: f64 = 10_000.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_has_a_place_on_the_sheet_and_a_colour() {
        for right in [
            "clear",
            r##"{"x":0,"y":10000,"c":"#00ffAA"}"##,
            r##"{ "c": "#123456", "y": 0.5, "x": 1e2 }"##,
        ] {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for (wrong, why) in [
            ("", "neither"),
            ("CLEAR", "neither"),
            ("[0,0]", "neither"),
            (r#"{"x":0,"y":0}"#, "missing field"),
            (r##"{"x":"0","y":0,"c":"#000000"}"##, "invalid type"),
            (r##"{"x":0,"y":0,"c":"#000000","z":0}"##, "unknown field"),
            (r##"{"x":0,"x":0,"y":0,"c":"#000000"}"##, "duplicate field"),
            (r##"{"x":-1,"y":0,"c":"#000000"}"##, "from 0"),
            (r##"{"x":0,"y":10000.1,"c":"#000000"}"##, "from 0"),
            (r##"{"x":0,"y":1e999,"c":"#000000"}"##, "out of range"),
            (r##"{"x":0,"y":0,"c":"#00000"}"##, "colour"),
            (r#"{"x":0,"y":0,"c":"red"}"#, "colour"),
            (r##"{"x":0,"y":0,"c":"#00000é"}"##, "colour"),
        ] {
            let explained = check(wrong).unwrap_err();
            assert!(explained.contains(why), "{wrong}: {explained}");
        }
    }

    #[test]
    fn an_id_is_short_and_plain() {
        assert!(is_valid_id(&new_id()));
        assert!(is_valid_id("a-B_9"));
        for wrong in ["", "a b", "a/b", "é", "%41", &"x".repeat(65)] {
            assert!(!is_valid_id(wrong), "{wrong}");
        }
    }
}
