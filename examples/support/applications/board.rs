//! The drawing board: sheets that some people draw on together, for five minutes.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{Request, StatusCode};
use serde::Deserialize;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{sleep, timeout},
};
use ws_tower::{
    CloseCode, CloseFrame, Config, Error, Route, WebSocket, WebSocketLayer,
    hub::{Hub, HubBuilder, Member, Seat},
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
///
/// # On several nodes
///
/// A board is one on all nodes. It begins with its first participant on any of them, who says so to
/// the others: each participant has two seats, one under the id of the board, where it tells when
/// the board began, and one where this board is drawn. A node without participants of a board asks
/// who is there before it begins one, and waits for a tenth of a second. Two that begin at the same
/// moment, or while the broker is away, are one as soon as they know of each other: that which
/// began first. Who draws in between is not seen by the others.
///
/// Every node ends the board for all when its own clock says so: with clocks that differ by a
/// second it may live a second less, and who comes in that second comes to the old one and is sent
/// away with it. A new one with an old id is another one everywhere.
///
/// The limit of boards is that of each node. Participants count over all nodes, but two who come to
/// two nodes at the same moment may both get the last place.
///
/// Strokes build on each other. When some are lost between two nodes, the hub closes the sockets that
/// have missed them with 1013, and they come back.
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
    /// How many boards there are at a time on this node. Default: 256.
    pub boards: usize,
    /// How many participate in one board. Default: 32.
    pub participants: usize,
    /// What tells how old a board is, on all nodes alike. Default: the system's clock.
    pub clock: fn() -> SystemTime,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(300),
            boards: 256,
            participants: 32,
            clock: SystemTime::now,
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    boards: HashMap<Arc<str>, Board>,
    /// How many boards there have been. A new one with an old id is another board.
    count: u64,
}

/// A board with participants on this node.
#[derive(Debug)]
struct Board {
    number: u64,
    participants: usize,
    /// When it began, once that is known. It ends with the board.
    began: watch::Receiver<Option<Began>>,
    task: AbortHandle,
}

/// When a board began, in milliseconds since 1970: of all boards with its id, past and future, it
/// names this one.
type Began = u64;

/// A participant's place at a board. Dropping it leaves the board.
struct Place {
    shared: Arc<Shared>,
    id: Arc<str>,
    number: u64,
    began: watch::Receiver<Option<Began>>,
}

/// A participant's seats. Dropping them leaves the board on all nodes.
struct Seats {
    drawing: Seat,
    _presence: Seat,
}

impl Boards {
    /// No boards yet.
    pub fn new(limits: Limits) -> Self {
        Self::new_on(Hub::builder(), limits)
    }

    /// The boards of all nodes over the backplane of this hub.
    ///
    /// # Panics
    ///
    /// With a backplane, outside a tokio runtime.
    pub fn new_on(hub: HubBuilder, limits: Limits) -> Self {
        Self(Arc::new(Shared {
            hub: hub.build(),
            limits,
            table: Mutex::default(),
        }))
    }

    /// The hub that all nodes share.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
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
    let mut place = match Place::take(shared, id) {
        Ok(place) => place,
        Err(full) => return refuse(&socket, &full).await,
    };
    let mut seats: Option<Seats> = None;
    loop {
        let text = tokio::select! {
            biased;
            text = next_text(&mut socket), if seats.is_some() => text?,
            began = place.next_beginning() => {
                let Some(began) = began else {
                    socket.close(the_end()).await;
                    return Ok(());
                };
                let is_new = seats.is_none();
                seats = Some(place.sit(began, &socket).await);
                if is_new && let Err(full) = place.recount() {
                    drop(seats.take());
                    return refuse(&socket, &full).await;
                }
                continue;
            }
        };
        let (Some(text), Some(seats)) = (text, &seats) else {
            return Ok(());
        };
        match check(&text) {
            Ok(()) => {
                seats.drawing.publish_to_others(text);
            }
            Err(wrong) => socket.send(explanation(&wrong)).await?,
        }
    }
}

/// Others have come since the guard looked.
async fn refuse(socket: &WebSocket, full: &str) -> Result<(), Error> {
    let close = CloseFrame::truncated(CloseCode::TRY_AGAIN_LATER, full);
    socket.close(close).await;
    Ok(())
}

fn the_end() -> CloseFrame {
    CloseFrame::truncated(CloseCode::GOING_AWAY, REASON)
}

impl Shared {
    /// Whether there is a place for one more; the answer may be out of date when it is read.
    fn admit(&self, path: &str) -> Result<(), (StatusCode, String)> {
        let id = path.rsplit('/').next().unwrap_or_default();
        if !is_valid_id(id) {
            let wrong = "the id of a board is 1 to 64 letters, digits, `-` and `_`";
            return Err((StatusCode::NOT_FOUND, wrong.to_owned()));
        }
        let full = self.check(&self.lock(), id, 1);
        full.map_err(|full| (StatusCode::SERVICE_UNAVAILABLE, full))
    }

    /// Whether so many more may come to this board.
    fn check(&self, table: &Table, id: &str, more: usize) -> Result<(), String> {
        let Limits {
            boards,
            participants,
            ..
        } = self.limits;
        match table.boards.get(id) {
            Some(board) if board.participants + self.elsewhere(id) + more > participants => Err(
                format!("this board has {participants} participants, and no room for more"),
            ),
            None if table.boards.len() >= boards => Err(format!(
                "there are {boards} boards, and no room for more; try again later"
            )),
            _ => Ok(()),
        }
    }

    /// How many participants a board has on other nodes.
    fn elsewhere(&self, id: &str) -> usize {
        let here = self.hub.node();
        let members = self.participants(id);
        members
            .filter(|(member, _)| self.hub.node_of(member.id()) != here)
            .count()
    }

    /// Who has a seat under this id, and when their board began; without those whose board is over.
    fn participants(&self, id: &str) -> impl Iterator<Item = (Member, Began)> {
        let now = self.now();
        let members = self.hub.members(id).into_iter();
        members.filter_map(move |member| {
            let began = member.metadata()?.parse().ok()?;
            (!self.left(began, now).is_zero()).then_some((member, began))
        })
    }

    /// How long a board has to live.
    fn left(&self, began: Began, now: Began) -> Duration {
        let age = Duration::from_millis(now.saturating_sub(began));
        self.limits.lifetime.saturating_sub(age)
    }

    fn now(&self) -> Began {
        let since = (self.limits.clock)().duration_since(UNIX_EPOCH);
        since.map_or(0, |it| {
            Began::try_from(it.as_millis()).unwrap_or(Began::MAX)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The life of a board on this node: finds out when it began, moves to another that began before it,
/// and ends it.
async fn live(
    shared: Arc<Shared>,
    id: Arc<str>,
    number: u64,
    beginning: watch::Sender<Option<Began>>,
) {
    let hub = &shared.hub;
    let mut began = shared.now();
    let mut watch = hub.watch(&id);
    if hub.node().is_some() {
        let _ = timeout(PATIENCE, hub.subscribed(&id)).await;
        // Now the others are asked.
        let answered =
            async { while hub.member_count(&id) == 0 && watch.recv().await.is_some() {} };
        let _ = timeout(ANSWER, answered).await;
    }
    loop {
        let others = shared.participants(&id).map(|(_, began)| began);
        began = others.fold(began, Began::min);
        if *beginning.borrow() != Some(began) {
            beginning.send_replace(Some(began));
        }
        tokio::select! {
            () = sleep(shared.left(began, shared.now())) => break,
            Some(_) = watch.recv() => {}
        }
    }
    {
        let mut table = shared.lock();
        if table.boards.get(&id).is_some_and(|it| it.number == number) {
            table.boards.remove(&id);
        }
    }
    // Whoever takes a seat after the next line sees it; all others have one by then.
    drop(beginning);
    hub.close(&drawing(&id, began), &the_end());
}

/// The topic where a board is drawn; an id alone has no `/`.
fn drawing(id: &str, began: Began) -> String {
    format!("{id}/{began}")
}

impl Place {
    fn take(shared: Arc<Shared>, id: Arc<str>) -> Result<Self, String> {
        let mut table = shared.lock();
        shared.check(&table, &id, 1)?;
        let Table { boards, count } = &mut *table;
        let board = boards.entry(Arc::clone(&id)).or_insert_with(|| {
            *count += 1;
            let (sender, began) = watch::channel(None);
            let life = live(Arc::clone(&shared), Arc::clone(&id), *count, sender);
            Board {
                number: *count,
                participants: 0,
                began,
                task: tokio::spawn(life).abort_handle(),
            }
        });
        board.participants += 1;
        let (number, began) = (board.number, board.began.clone());
        drop(table);
        Ok(Self {
            shared,
            id,
            number,
            began,
        })
    }

    /// When the board began, once that is known, and again when it is found to be another one; `None`
    /// at its end.
    async fn next_beginning(&mut self) -> Option<Began> {
        self.began.changed().await.ok()?;
        *self.began.borrow_and_update()
    }

    /// Takes the seats, and waits a moment for the other nodes.
    async fn sit(&self, began: Began, socket: &WebSocket) -> Seats {
        let hub = &self.shared.hub;
        let seats = Seats {
            drawing: hub.join(&drawing(&self.id, began), socket),
            _presence: hub.join_as(&self.id, socket, began.to_string()),
        };
        let _ = timeout(PATIENCE, hub.subscribed(seats.drawing.topic())).await;
        seats
    }

    /// Whether this one is not one too many, by what is known now of other nodes.
    fn recount(&self) -> Result<(), String> {
        self.shared.check(&self.shared.lock(), &self.id, 0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.shared.lock();
        let Some(board) = table.boards.get_mut(&self.id) else {
            return;
        };
        if board.number != self.number {
            return;
        }
        board.participants -= 1;
        if board.participants == 0 {
            board.task.abort();
            table.boards.remove(&self.id);
        }
    }
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
    let refused =
        |error: &dyn fmt::Display| format!("neither `clear` nor a point `{SHAPE}`: {error}");
    // To serde the fields of a struct may also be the values of an array.
    if !text.trim_start().starts_with('{') {
        return Err(refused(&"it is no object"));
    }
    let Point { x, y, c } = serde_json::from_str(text).map_err(|error| refused(&error))?;
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
/// How long a participant waits for the broker. Without one a board goes on alone.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the first on a node waits for those on others, who answer at once.
const ANSWER: Duration = Duration::from_millis(100);
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
            (r##"[0,0,"#000000"]"##, "neither"),
            (r#"{"x":0,"y":0}"#, "missing field"),
            (r##"{"x":"0","y":0,"c":"#000000"}"##, "invalid type"),
            (r##"{"x":0,"y":0,"c":"#000000","z":0}"##, "unknown field"),
            (r##"{"x":0,"x":0,"y":0,"c":"#000000"}"##, "duplicate field"),
            (
                r##"{"x":0,"y":0,"c":"#000000","\ud800":1,"error":"x"}"##,
                "neither",
            ),
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
