//! JSON: serde's types as text messages (RFC 8259 in RFC 6455 text frames).
//!
//! [`encode`] and [`decode`] are the two steps, for handlers and for the hub; [`Json`] makes a
//! [`Typed`](crate::subprotocol::Typed) socket of them.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use ws_tower::subprotocol::Typed;
//! use ws_tower::{Config, Hub, json::{self, Json}};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! struct Point {
//!     x: i32,
//!     y: i32,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (client, server) = ws_tower::pair(Config::new());
//! let mut client = Typed::<Json<Point, Point>>::new(client);
//! let hub = Hub::new();
//! let _seat = hub.join("board", &server);
//! assert_eq!(hub.publish("board", json::encode(&Point { x: 1, y: 2 })?), 1);
//! let Some(point) = client.recv().await else { panic!() };
//! assert_eq!(point?, Point { x: 1, y: 2 });
//! # Ok(())
//! # }
//! ```

use std::{error::Error as StdError, fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};
use ws_core::Message;

use crate::subprotocol::Subprotocol;

/// The subprotocol of serde's types: `In` is received, `Out` is sent, each as one text message.
///
/// Its name is `json`, for those who [negotiate](crate::subprotocol::Typed::negotiated) it. An
/// application with a name of its own implements [`Subprotocol`] with [`encode`] and [`decode`].
#[derive(Debug)]
pub struct Json<In, Out>(PhantomData<fn() -> (In, Out)>);

impl<In: DeserializeOwned, Out: Serialize> Subprotocol for Json<In, Out> {
    const NAME: &'static str = "json";
    type In = In;
    type Out = Out;
    type Error = JsonError;

    fn decode(message: Message) -> Result<In, JsonError> {
        decode(&message)
    }

    fn encode(value: &Out) -> Result<Message, JsonError> {
        encode(value)
    }
}

/// Makes a text message of a value.
///
/// # Errors
///
/// The value has no JSON: a map whose keys are no strings, or a type's own refusal.
pub fn encode(value: &(impl Serialize + ?Sized)) -> Result<Message, JsonError> {
    match serde_json::to_string(value) {
        Ok(text) => Ok(Message::text(text)),
        Err(error) => Err(JsonError(Cause::Json(error))),
    }
}

/// Makes a value of a text message.
///
/// # Errors
///
/// The message is binary, no JSON, or JSON of another shape. The error's source tells where, and
/// may quote what it found there: it is for a log, not for the peer.
pub fn decode<T: DeserializeOwned>(message: &Message) -> Result<T, JsonError> {
    let Some(text) = message.as_text() else {
        return Err(JsonError(Cause::Binary));
    };
    serde_json::from_str(text).map_err(|error| JsonError(Cause::Json(error)))
}

/// A message is no JSON of its type, or a value has none.
#[derive(Debug)]
pub struct JsonError(Cause);

#[derive(Debug)]
enum Cause {
    Binary,
    Json(serde_json::Error),
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Cause::Binary => "the message is binary, and JSON is text",
            Cause::Json(_) => "the message is no JSON of the expected shape",
        })
    }
}

impl StdError for JsonError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0 {
            Cause::Binary => None,
            Cause::Json(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::subprotocol::{Typed, TypedError};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Point {
        x: i32,
        y: i32,
    }

    #[test]
    fn a_value_is_one_text_message() {
        let message = encode(&Point { x: 1, y: -2 }).unwrap();
        assert_eq!(message.as_text(), Some(r#"{"x":1,"y":-2}"#));
        assert_eq!(decode::<Point>(&message).unwrap(), Point { x: 1, y: -2 });
        assert_eq!(encode("grün").unwrap().as_text(), Some("\"grün\""));
        assert_eq!(encode(&[1, 2][..]).unwrap().as_text(), Some("[1,2]"));
    }

    #[test]
    fn what_is_no_json_of_the_shape_is_refused() {
        for text in [
            "",
            "{",
            "[]",
            "null",
            r#"{"x":1}"#,
            r#"{"x":1,"y":"2"}"#,
            r#"{"x":1,"y":2,"z":3}"#,
            r#"{"x":1,"y":2} "#.repeat(2).as_str(),
            r#"{"x":1,"y":99999999999}"#,
        ] {
            let error = decode::<Point>(&Message::text(text)).unwrap_err();
            assert!(error.source().is_some(), "{text}");
        }
        let binary = Message::binary(r#"{"x":1,"y":2}"#.as_bytes().to_vec());
        let error = decode::<Point>(&binary).unwrap_err();
        assert_eq!(error.to_string(), "the message is binary, and JSON is text");
        // However deep, there is an error and no overflow.
        let deep = "[".repeat(100_000);
        assert!(decode::<serde_json::Value>(&Message::text(deep)).is_err());
    }

    #[test]
    fn a_value_without_json_is_no_message() {
        let map = HashMap::from([((1, 2), 3)]);
        assert!(encode(&map).unwrap_err().source().is_some());
    }

    #[tokio::test]
    async fn a_socket_goes_on_after_a_message_of_another_shape() {
        let (client, server) = crate::pair(ws_core::Config::new());
        let mut server = Typed::<Json<Point, Vec<i32>>>::new(server);
        client.send("nonsense").await.unwrap();
        client.send(r#"{"x":1,"y":2}"#).await.unwrap();
        let first = server.recv().await.unwrap();
        assert!(matches!(first, Err(TypedError::Decode(_))));
        let second = server.recv().await.unwrap();
        assert_eq!(second.unwrap(), Point { x: 1, y: 2 });
        server.send(&vec![1, 2]).await.unwrap();
        let mut client = Typed::<Json<Vec<i32>, Point>>::new(client);
        assert_eq!(client.recv().await.unwrap().unwrap(), [1, 2]);
        drop(server);
        assert!(client.recv().await.is_none());
        let late = client.send(&Point { x: 0, y: 0 }).await;
        assert!(matches!(late, Err(TypedError::Socket(_))));
    }
}
