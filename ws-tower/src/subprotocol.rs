//! Typed messages: a [`Subprotocol`] says how values become messages, and [`Typed`] is a socket
//! that speaks it.
//!
//! A subprotocol (RFC 6455 §1.9) is what both ends have agreed to put into their messages. Its
//! name is negotiated in the opening handshake
//! ([`WebSocketLayer::subprotocols`](crate::WebSocketLayer::subprotocols)); here are the values.
//!
//! ```
//! use ws_tower::subprotocol::{Subprotocol, Typed};
//! use ws_tower::{Config, Message};
//!
//! /// A thermometer: it is asked for a room, and says how warm it is there.
//! struct Warmth;
//!
//! #[derive(Debug)]
//! struct NotAWarmth;
//!
//! impl Subprotocol for Warmth {
//!     const NAME: &'static str = "warmth.v1";
//!     type In = String;
//!     type Out = f32;
//!     type Error = NotAWarmth;
//!
//!     fn decode(message: Message) -> Result<String, NotAWarmth> {
//!         message.as_text().map(str::to_owned).ok_or(NotAWarmth)
//!     }
//!
//!     fn encode(warmth: &f32) -> Result<Message, NotAWarmth> {
//!         Ok(Message::text(warmth.to_string()))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (client, server) = ws_tower::pair(Config::new());
//! let mut thermometer = Typed::<Warmth>::new(server);
//! client.send("kitchen").await?;
//! let Some(Ok(room)) = thermometer.recv().await else { panic!() };
//! assert_eq!(room, "kitchen");
//! assert!(thermometer.send(&21.5).await.is_ok());
//! # Ok(())
//! # }
//! ```
//!
//! With the feature `json`, [`Json`](crate::json::Json) is the subprotocol of serde's types.

use std::{
    error::Error as StdError,
    fmt,
    future::{Future, poll_fn},
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use futures_sink::Sink;
use ws_core::Message;

use crate::{Error, WebSocket};

/// What both ends have agreed to put into their messages.
pub trait Subprotocol {
    /// Its name in the opening handshake (RFC 6455 §4.1: a token), compared byte by byte.
    const NAME: &'static str;

    /// What is received.
    type In;

    /// What is sent.
    type Out;

    /// Why a message is no value, or a value no message.
    type Error;

    /// Makes a value of a message that was received.
    ///
    /// # Errors
    ///
    /// The message is none of this subprotocol.
    fn decode(message: Message) -> Result<Self::In, Self::Error>;

    /// Makes a message of a value to send; also for [`Hub::publish`](crate::Hub::publish).
    ///
    /// # Errors
    ///
    /// The value has no message.
    fn encode(value: &Self::Out) -> Result<Message, Self::Error>;
}

/// A socket that speaks a subprotocol: a stream and a sink of its values.
///
/// What a handle can do beside that is in [`socket`](Self::socket).
pub struct Typed<P> {
    socket: WebSocket,
    subprotocol: PhantomData<fn() -> P>,
}

impl<P: Subprotocol> Typed<P> {
    /// Speaks it on a socket, whatever was negotiated.
    pub fn new(socket: WebSocket) -> Self {
        Self {
            socket,
            subprotocol: PhantomData,
        }
    }

    /// Speaks it on a socket whose ends have agreed on it.
    ///
    /// # Errors
    ///
    /// They have agreed on another or on none: the socket is given back.
    pub fn negotiated(socket: WebSocket) -> Result<Self, WebSocket> {
        if socket.subprotocol() == Some(P::NAME) {
            Ok(Self::new(socket))
        } else {
            Err(socket)
        }
    }

    /// Receives the next value. `None` when the peer has closed.
    ///
    /// After a message that is none of the subprotocol the socket goes on; close it with
    /// [1007](crate::CloseCode::INVALID_PAYLOAD) or [1008](crate::CloseCode::POLICY_VIOLATION)
    /// if there is no sense in that.
    ///
    /// # Errors
    ///
    /// [`TypedError::Decode`], or once [`TypedError::Socket`]: see [`WebSocket::recv`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a message is taken only when the future is ready.
    pub fn recv(&mut self) -> impl Future<Output = Option<Result<P::In, TypedError<P::Error>>>> {
        poll_fn(|cx| self.poll_recv(cx))
    }

    /// Sends a value: see [`WebSocket::send`].
    ///
    /// # Errors
    ///
    /// [`TypedError::Encode`], or [`TypedError::Socket`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: either the future is ready and the message is queued whole, or it is not
    /// queued at all.
    pub async fn send(&self, value: &P::Out) -> Result<(), TypedError<P::Error>> {
        let message = P::encode(value).map_err(TypedError::Encode)?;
        self.socket.send(message).await.map_err(TypedError::Socket)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Received<P>>> {
        let message = ready!(Pin::new(&mut self.socket).poll_next(cx));
        Poll::Ready(message.map(|message| match message {
            Ok(message) => P::decode(message).map_err(TypedError::Decode),
            Err(error) => Err(TypedError::Socket(error)),
        }))
    }
}

/// What is received, or why not.
type Received<P> = Result<<P as Subprotocol>::In, TypedError<<P as Subprotocol>::Error>>;

impl<P> Typed<P> {
    /// The socket: to close it, or to [join](crate::Hub::join) a topic.
    pub fn socket(&self) -> &WebSocket {
        &self.socket
    }

    /// The socket, without the subprotocol.
    pub fn into_inner(self) -> WebSocket {
        self.socket
    }
}

impl<P: Subprotocol> Stream for Typed<P> {
    type Item = Result<P::In, TypedError<P::Error>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_recv(cx)
    }
}

impl<P: Subprotocol> Sink<P::Out> for Typed<P> {
    type Error = TypedError<P::Error>;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let ready = Pin::new(&mut self.socket).poll_ready(cx);
        ready.map_err(TypedError::Socket)
    }

    fn start_send(mut self: Pin<&mut Self>, value: P::Out) -> Result<(), Self::Error> {
        let message = P::encode(&value).map_err(TypedError::Encode)?;
        let sent = Pin::new(&mut self.socket).start_send(message);
        sent.map_err(TypedError::Socket)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        flushed.map_err(TypedError::Socket)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        let closed = Pin::new(&mut self.socket).poll_close(cx);
        closed.map_err(TypedError::Socket)
    }
}

impl<P> fmt::Debug for Typed<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Typed").field(&self.socket).finish()
    }
}

/// Why a value was not received or sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TypedError<E> {
    /// The peer sent a message that is none of the subprotocol.
    Decode(E),
    /// The value has no message.
    Encode(E),
    /// The socket has ended.
    Socket(Error),
}

impl<E> fmt::Display for TypedError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decode(_) => "the peer sent a message that is none of its subprotocol",
            Self::Encode(_) => "the value has no message in its subprotocol",
            Self::Socket(_) => "the websocket has ended",
        })
    }
}

impl<E: StdError + 'static> StdError for TypedError<E> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Decode(error) | Self::Encode(error) => Some(error),
            Self::Socket(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt, StreamExt};
    use tower::ServiceExt;
    use ws_core::{Config, handshake::client::Handshake};

    use super::*;
    use crate::{WebSocketLayer, upgrade::test_request_with};

    /// Numbers below 256, as binary messages of one byte.
    struct Bytes;

    impl Subprotocol for Bytes {
        const NAME: &'static str = "bytes.v1";
        type In = u8;
        type Out = u16;
        type Error = &'static str;

        fn decode(message: Message) -> Result<u8, &'static str> {
            match message.as_bytes() {
                [byte] if message.is_binary() => Ok(*byte),
                _ => Err("not one byte"),
            }
        }

        fn encode(value: &u16) -> Result<Message, &'static str> {
            let byte = u8::try_from(*value).map_err(|_| "too large")?;
            Ok(Message::binary(vec![byte]))
        }
    }

    #[tokio::test]
    async fn values_go_through_a_stream_and_a_sink() {
        let (client, server) = crate::pair(Config::new());
        let mut client = Typed::<Bytes>::new(client);
        let mut server = Typed::<Bytes>::new(server);
        SinkExt::send(&mut client, 7).await.unwrap();
        assert_eq!(server.next().await.unwrap().unwrap(), 7);
        let error = SinkExt::send(&mut client, 256).await.unwrap_err();
        assert!(matches!(error, TypedError::Encode("too large")));
        let error = client.send(&300).await.unwrap_err();
        assert!(matches!(error, TypedError::Encode("too large")));
        client.socket().send("text").await.unwrap();
        let error = server.next().await.unwrap().unwrap_err();
        assert!(matches!(error, TypedError::Decode("not one byte")));
        SinkExt::close(&mut client).await.unwrap();
        assert!(server.next().await.is_none());
        assert!(server.into_inner().try_closed().is_some());
    }

    #[tokio::test]
    async fn a_socket_that_speaks_another_subprotocol_is_given_back() {
        for (offered, is_spoken) in [("bytes.v1", true), ("bytes.v2", false)] {
            let service = WebSocketLayer::new()
                .subprotocols(["bytes.v1", "bytes.v2"])
                .route(
                    "/",
                    async move |socket: WebSocket| match Typed::<Bytes>::negotiated(socket) {
                        Ok(typed) => typed.send(&1).await.unwrap(),
                        Err(socket) => socket.send("another").await.unwrap(),
                    },
                )
                .into_service();
            let uri = "ws://localhost/".parse().unwrap();
            let handshake = Handshake::new(&uri).unwrap().subprotocol(offered).unwrap();
            let (request, client) = test_request_with::<String>(handshake);
            let response = service.oneshot(request).await.unwrap();
            let mut socket = client.finish(&response).unwrap();
            let message = socket.recv().await.unwrap().unwrap();
            assert_eq!(message.is_binary(), is_spoken);
        }
    }
}
