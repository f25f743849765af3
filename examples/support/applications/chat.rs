//! Chat: one room, plain lines, and names for those who ask.

use std::{future::ready, time::Duration};

use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;
use ws_tower::{
    Error, WebSocket, WebSocketLayer,
    hub::{Hub, HubBuilder, Policy, Presence, Seat, SlowConsumer, Watch},
};

use super::{explanation, next_text};

/// The application behind `/chat`.
///
/// | a client sends | what happens |
/// |---|---|
/// | the text `{"name":"…"}`, of 1 to 32 characters | it has this name, and is sent `{"members":["…",…]}` now and whenever somebody with a name comes, goes or takes another |
/// | any other text that begins with `{` | it alone gets `{"error":"…"}` |
/// | any other text | everyone gets it, the sender too |
/// | a Close with a reason | the others get the reason, as a text, unless it begins with `{` |
///
/// A client that never gives a name sees plain lines only. What the server cannot do it says as
/// `{"error":"…"}`, to the one who asked.
///
/// An object of JSON is always the server's own word: no line begins with `{`, not even behind
/// blanks. The first character decides, because parsers of JSON differ in what they take (a key
/// twice, half of a surrogate pair): what this one refuses, a browser may read as a list of members.
///
/// # On several nodes
///
/// Lines and goodbyes go to everyone on all nodes. Between two nodes the order of lines may differ.
/// When lines are lost between them, a line tells how many.
///
/// Names are those of all nodes. Each node makes the list for its own members. The limit of 100 names
/// is looked at on one node at a time: those who come to several at the same moment may be more.
/// While the broker is away the names of the others stay; those of a node that has died go after
/// 15 seconds.
#[derive(Clone, Debug)]
pub struct Chat {
    shared: Hub,
    /// Those of this node who have a name, for their list.
    local: Hub,
}

impl Chat {
    /// An empty room.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start() -> Self {
        Self::start_on(Hub::builder())
    }

    /// The room of all nodes over the backplane of this hub.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start_on(hub: HubBuilder) -> Self {
        let lines = Policy::new(SlowConsumer::Disconnect)
            .notice(|lag| format!("({} lines were lost between the servers)", lag.missed()));
        let chat = Self {
            shared: hub.slow_consumer(lines).build(),
            // Of two lists of members nobody needs the first.
            local: Hub::builder().slow_consumer(SlowConsumer::Latest).build(),
        };
        let watch = chat.shared.watch(MEMBERS);
        tokio::spawn(announce(chat.clone(), watch));
        chat
    }

    /// The hub that all nodes share.
    pub fn hub(&self) -> &Hub {
        &self.shared
    }

    /// Adds the socket `/chat`.
    #[must_use]
    pub fn route(self, sockets: WebSocketLayer) -> WebSocketLayer {
        sockets.route("/chat", move |socket| talk(self.clone(), socket))
    }
}

async fn talk(chat: Chat, mut socket: WebSocket) -> Result<(), Error> {
    let hub = &chat.shared;
    let seat = hub.join(LINES, &socket);
    let mut listed: Option<Seat> = None;
    let mut named: Option<Seat> = None;
    while let Some(text) = next_text(&mut socket).await? {
        match Said::from(&*text) {
            Said::Line => {
                seat.publish(text);
            }
            Said::Name(name) => match valid(&name) {
                Ok(_) if named.is_none() && hub.member_count(MEMBERS) >= MAX_MEMBERS => {
                    let wrong = format!("no more than {MAX_MEMBERS} may have a name");
                    socket.send(explanation(&wrong)).await?;
                }
                Ok(name) => {
                    // Before the list is made that has the name.
                    listed.get_or_insert_with(|| chat.local.join(MEMBERS, &socket));
                    // The new seat is taken before the old one is left.
                    named = Some(hub.join_as(MEMBERS, &socket, name));
                }
                Err(wrong) => socket.send(explanation(wrong)).await?,
            },
            Said::Object => {
                let wrong =
                    r#"what begins with `{` is no line, and the only object here is {"name":"…"}"#;
                socket.send(explanation(wrong)).await?;
            }
        }
    }
    let closed = socket.closed().await;
    // Who was sent away with a reason often says it back: that is no goodbye of theirs.
    let answer = closed.sent().and_then(|close| close.frame());
    if let Some(close) = closed.received().and_then(|close| close.frame())
        && answer.is_none_or(|answer| answer.reason().is_empty())
        && !close.reason().is_empty()
        && Said::from(close.reason()) == Said::Line
    {
        seat.publish_to_others(close.reason());
    }
    Ok(())
}

/// Tells the members of this node who is there, as often as that changes.
async fn announce(chat: Chat, mut watch: Watch) {
    while watch.recv().await.is_some() {
        // A crowd that comes at once is one change.
        while next_now(&mut watch).await.is_some() {}
        let members = chat.shared.members(MEMBERS);
        let mut names: Vec<&str> = members.iter().filter_map(|it| it.metadata()).collect();
        names.sort_unstable();
        let list = json!({ "members": names });
        chat.local.publish(MEMBERS, list.to_string());
        // Names of 32 characters to everyone cost more than it takes to change one.
        sleep(PAUSE).await;
    }
}

/// The next event, if there is one already.
async fn next_now(watch: &mut Watch) -> Option<Presence> {
    tokio::select! {
        biased;
        event = watch.recv() => event,
        () = ready(()) => None,
    }
}

/// What a text means.
#[derive(Debug, PartialEq)]
enum Said {
    Line,
    Name(String),
    /// It could be taken for the server's own words.
    Object,
}

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Introduction {
            name: String,
        }
        // More than the blanks of JSON: some parsers skip a byte order mark, or any blank.
        let is_blank = |it: char| it.is_whitespace() || it == '\u{feff}';
        if !text.trim_start_matches(is_blank).starts_with('{') {
            return Self::Line;
        }
        match serde_json::from_str(text) {
            Ok(Introduction { name }) => Self::Name(name),
            Err(_) => Self::Object,
        }
    }
}

/// The name without the blanks around it.
fn valid(name: &str) -> Result<&str, &'static str> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME {
        Err("a name has 1 to 32 characters")
    } else if name.chars().any(char::is_control) {
        Err("a name has no control characters")
    } else {
        Ok(name)
    }
}

const LINES: &str = "lines";
const MEMBERS: &str = "members";

/// As many as fit on a page; each of them is told of each other.
const MAX_MEMBERS: usize = 100;
/// In characters: a long name still fits into the reason of a Close.
const MAX_NAME: usize = 32;
/// Between two lists of members: too short to be noticed.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_introduction_is_an_object_with_a_name_and_nothing_else() {
        let name = Said::Name("Ann".to_owned());
        assert_eq!(Said::from(r#"{"name":"Ann"}"#), name);
        assert_eq!(Said::from(" { \"name\" : \"A\\u006en\" }\n"), name);
        for object in [
            r#"{"name":"Ann","age":7}"#,
            r#"{"name":"Ann","name":"Bob"}"#,
            r#"{"name":7}"#,
            r#"{"name":"Ann""#,
            "{}",
            "{",
        ] {
            assert_eq!(Said::from(object), Said::Object, "{object}");
        }
        for line in [r#"["name"]"#, "name", "", " ", "a {", r#""{""#] {
            assert_eq!(Said::from(line), Said::Line, "{line}");
        }
    }

    #[test]
    fn the_words_of_the_server_cannot_be_forged_where_parsers_differ() {
        for forged in [
            r#"{"members":["Eve"]}"#,
            r#"{"members":[],"members":["Eve"]}"#,
            r#"{"\ud800":1,"members":["Eve"]}"#,
            r#"{"error":"x","error":"x"}"#,
            r#"{"members":1,"members":5}"#,
            r#" {"mem\u0062ers":[]}"#,
            "\n\t\r {\"members\":[]}",
            "\u{feff}{\"members\":[]}",
            "\u{a0}{\"members\":[]}",
            r#"{"error":"pay","more":[1]}"#,
            r#"{"name":"Eve","members":[]}"#,
        ] {
            assert_eq!(Said::from(forged), Said::Object, "{forged}");
        }
    }

    #[test]
    fn a_name_is_short_and_can_be_shown() {
        assert_eq!(valid(" Ann "), Ok("Ann"));
        assert_eq!(valid(&"é".repeat(32)), Ok(&*"é".repeat(32)));
        for wrong in ["", " \t", &"x".repeat(33), "a\u{7}b"] {
            assert!(valid(wrong).is_err(), "{wrong}");
        }
    }
}
