//! Core NATS: subjects, without `JetStream`.

use std::{
    collections::HashMap,
    fmt::{self, Write},
    future::{poll_fn, ready},
    sync::Arc,
    task::{Context, Poll},
};

use async_nats::{Client, ConnectOptions, Event, Subscriber};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{AbortHandle, BoxStream, SelectAll, abortable},
};
use percent_encoding::percent_decode_str;
use tokio::sync::mpsc;

use super::broker::{Broker, Commands, Messages};
use crate::BoxError;

/// A NATS server, or a cluster of them.
///
/// It makes one connection. A message counts as sent when it has been written to it: what the
/// server says comes back with the heartbeat only. What the server refuses later, such as a subject
/// that the user may not have, ends the connection.
#[derive(Clone)]
pub struct Nats {
    addresses: Vec<String>,
    login: Option<Login>,
    options: Arc<Options>,
}

type Options = dyn Fn() -> ConnectOptions + Send + Sync;

/// Who a URL says we are.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Login {
    Password(String, String),
    Token(String),
}

impl Nats {
    /// Servers by their URLs, with commas between them: any of a cluster, in any order. They are
    /// `nats://[user:password@]host[:port]` or `nats://token@host[:port]`, or `tls://` for TLS with
    /// the roots of the system. What is said of the user by one URL is for all. It does not
    /// connect yet.
    pub fn new(addresses: &str) -> Self {
        Self::with_options(addresses, ConnectOptions::new)
    }

    /// The same, with options for authentication and TLS. They are made for each connection.
    /// A user in a URL is put in; `max_reconnects` and `event_callback` are the backplane's own,
    /// for it connects again by itself.
    ///
    /// ```
    /// use async_nats::ConnectOptions;
    /// use ws_tower::hub::backplane::Nats;
    ///
    /// // A private CA, and a password that another program renews.
    /// let broker = Nats::with_options("tls://a.internal, tls://b.internal", || {
    ///     let password = std::fs::read_to_string("/run/secrets/nats").unwrap_or_default();
    ///     ConnectOptions::with_user_and_password("ws".into(), password.trim().into())
    ///         .add_root_certificates("/etc/ssl/internal.pem".into())
    /// });
    /// # drop(broker);
    /// ```
    pub fn with_options(
        addresses: &str,
        options: impl Fn() -> ConnectOptions + Send + Sync + 'static,
    ) -> Self {
        let (addresses, logins): (_, Vec<_>) = addresses.split(',').map(without_login).unzip();
        Self {
            addresses,
            login: logins.into_iter().flatten().next(),
            options: Arc::new(options),
        }
    }
}

/// The driver takes no notice of a user in an address, and logs the address.
fn without_login(address: &str) -> (String, Option<Login>) {
    let address = address.trim();
    let (scheme, rest) = match address.split_once("://") {
        Some((scheme, rest)) => (scheme, rest),
        None => ("nats", address),
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let Some((login, host)) = authority.rsplit_once('@') else {
        return (address.to_owned(), None);
    };
    let decoded = |it| percent_decode_str(it).decode_utf8_lossy().into_owned();
    let login = match login.split_once(':') {
        Some((user, password)) => Login::Password(decoded(user), decoded(password)),
        None => Login::Token(decoded(login)),
    };
    (format!("{scheme}://{host}{path}"), Some(login))
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // An address may have a password.
        f.debug_struct("Nats")
            .field("addresses", &self.addresses.len())
            .finish_non_exhaustive()
    }
}

impl Broker for Nats {
    type Commands = NatsCommands;
    type Messages = NatsMessages;

    async fn connect(&self) -> Result<(NatsCommands, NatsMessages), BoxError> {
        let (news, receiver) = mpsc::unbounded_channel();
        let lost = news.clone();
        let options = match self.login.clone() {
            Some(Login::Password(user, password)) => {
                (self.options)().user_and_password(user, password)
            }
            Some(Login::Token(token)) => (self.options)().token(token),
            None => (self.options)(),
        };
        let options = options
            // It tries once more in the background, finds nobody who wants it, and ends.
            .max_reconnects(1)
            .event_callback(move |event| {
                let lost_by = match event {
                    Event::Disconnected | Event::Closed => "the connection has ended".into(),
                    // A subscription that is refused would be silent for ever, and the
                    // connection goes on as if nothing were.
                    Event::ServerError(error) => error.to_string(),
                    _ => return ready(()),
                };
                let _ = lost.send(News::Lost(lost_by));
                ready(())
            });
        if self.addresses.iter().any(|it| it.starts_with("tls://")) {
            provide_crypto();
        }
        let client = options.connect(self.addresses.clone()).await?;
        let commands = NatsCommands {
            client,
            news,
            subscriptions: HashMap::new(),
        };
        let messages = NatsMessages {
            subscribers: SelectAll::new(),
            news: receiver,
        };
        Ok((commands, messages))
    }
}

/// rustls panics when it has to choose between several providers of cryptography, and another
/// crate may have brought a second one.
fn provide_crypto() {
    use async_nats::rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // Another thread may have been faster.
        let _ = ring::default_provider().install_default();
    }
}

/// What the receiving half is to know.
enum News {
    Subscribed(BoxStream<'static, (String, Bytes)>),
    Lost(String),
}

/// The commands of a connection to [`Nats`].
pub struct NatsCommands {
    client: Client,
    news: mpsc::UnboundedSender<News>,
    subscriptions: HashMap<String, AbortHandle>,
}

impl Commands for NatsCommands {
    fn max_payload(&self) -> usize {
        self.client.server_info().max_payload
    }

    async fn subscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        for channel in channels {
            let subscriber: Subscriber = self.client.subscribe(subject(channel)).await?;
            let name = channel.clone();
            let payloads = subscriber.map(move |message| (name.clone(), message.payload));
            let (payloads, handle) = abortable(payloads);
            self.subscriptions.insert(channel.clone(), handle);
            let _ = self.news.send(News::Subscribed(payloads.boxed()));
        }
        self.client.flush().await?;
        Ok(())
    }

    async fn unsubscribe(&mut self, channels: &[String]) -> Result<(), BoxError> {
        for channel in channels {
            if let Some(handle) = self.subscriptions.remove(channel) {
                // Its stream ends, and is dropped by who polls it: that unsubscribes.
                handle.abort();
            }
        }
        Ok(())
    }

    async fn publish(&mut self, batch: &[(String, Bytes)]) -> Result<(), BoxError> {
        for (channel, payload) in batch {
            let subject = subject(channel);
            self.client.publish(subject, payload.clone()).await?;
        }
        self.client.flush().await?;
        Ok(())
    }
}

impl fmt::Debug for NatsCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsCommands").finish_non_exhaustive()
    }
}

/// What arrives from [`Nats`].
pub struct NatsMessages {
    subscribers: SelectAll<BoxStream<'static, (String, Bytes)>>,
    news: mpsc::UnboundedReceiver<News>,
}

impl NatsMessages {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<(String, Bytes), BoxError>> {
        while let Poll::Ready(news) = self.news.poll_recv(cx) {
            match news {
                Some(News::Subscribed(subscriber)) => self.subscribers.push(subscriber),
                Some(News::Lost(why)) => return Poll::Ready(Err(why.into())),
                None => return Poll::Ready(Err("the connection has ended".into())),
            }
        }
        match self.subscribers.poll_next_unpin(cx) {
            Poll::Ready(Some(received)) => Poll::Ready(Ok(received)),
            // There is nobody to hear yet.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Messages for NatsMessages {
    async fn recv(&mut self) -> Result<(String, Bytes), BoxError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }
}

impl fmt::Debug for NatsMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsMessages").finish_non_exhaustive()
    }
}

/// A subject for a channel. `:` becomes the dot between tokens while that makes no empty one, so
/// that permissions can name `ws.topic.>`; what a token may not have is escaped by `=` and two
/// digits.
fn subject(channel: &str) -> String {
    let mut subject = String::with_capacity(channel.len() + 8);
    // The prefix, what it is, and whose.
    let tokens = channel.splitn(3, ':');
    for token in tokens {
        if !subject.is_empty() {
            subject.push('.');
        }
        if token.is_empty() {
            subject.push('=');
        }
        for byte in token.bytes() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
                subject.push(char::from(byte));
            } else {
                let _ = write!(subject, "={byte:02x}");
            }
        }
    }
    subject
}

#[cfg(test)]
mod tests {
    use super::{Login, subject, without_login};

    #[test]
    fn a_user_in_a_url_is_taken_out_of_it() {
        let password = |user: &str, word: &str| Some(Login::Password(user.into(), word.into()));
        let cases = [
            ("nats://a:4222", "nats://a:4222", None),
            (" a:4222 ", "a:4222", None),
            ("tls://ws:x@a:4222", "tls://a:4222", password("ws", "x")),
            ("nats://w%40s:p%3A@a", "nats://a", password("w@s", "p:")),
            (
                "ws:p@w@[::1]:4222",
                "nats://[::1]:4222",
                password("ws", "p@w"),
            ),
            (
                "nats://s3cr3t@a/",
                "nats://a/",
                Some(Login::Token("s3cr3t".into())),
            ),
            ("nats://a/@b", "nats://a/@b", None),
        ];
        for (url, address, login) in cases {
            assert_eq!(without_login(url), (address.to_owned(), login), "{url}");
        }
    }

    #[test]
    fn a_channel_of_any_text_is_a_subject_of_plain_tokens() {
        assert_eq!(subject("ws:nodes"), "ws.nodes");
        assert_eq!(subject("ws:topic:lobby"), "ws.topic.lobby");
        assert_eq!(subject("ws:topic:a:b.c"), "ws.topic.a=3ab=2ec");
        assert_eq!(subject("ws:topic:"), "ws.topic.=");
        assert_eq!(subject("ws:topic:="), "ws.topic.=3d");
        assert_eq!(subject("ws:topic:> *\r\n"), "ws.topic.=3e=20=2a=0d=0a");
    }
}
