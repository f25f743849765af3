//! The handshake over HTTP/1.1: one request, one answer, and the stream back.
//!
//! hyper's client writes the request and reads the answer, but hyper's connection is driven by
//! this very future, and taken apart once the 101 is there. So nothing is spawned: a connect that
//! is dropped has dropped its stream. And the session gets the stream itself, with what came
//! behind the 101 beside it: hyper's `Upgraded` would keep a box, a virtual call for each read and
//! write, and the hull of hyper's connection for as long as the socket lives.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};
use ws_tower::ws_core::handshake::{
    Accepted,
    client::{Handshake, Refusal},
};

use super::error::{ConnectError, TooLarge};

/// The longest answer that is read, in bytes: its head, all interim answers before it, and the
/// start of the body of a refusal. hyper skips interim answers without counting them.
pub(super) const MAX_ANSWER: usize = 64 << 10;

/// How long the body of a refusal may take. What is there by then is what is told.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(2);

/// A handshake that was accepted.
pub(super) struct Opened<Io> {
    pub(super) io: Io,
    /// What came right behind the 101.
    pub(super) early: Bytes,
    pub(super) accepted: Accepted,
    pub(super) response: Response<()>,
}

/// Sends the request and checks the answer. Reading the body of a refusal ends at the deadline;
/// all else is the caller's to cut.
pub(super) async fn exchange<Io>(
    io: Io,
    handshake: &Handshake,
    deadline: Instant,
) -> Result<Opened<Io>, ConnectError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let request = handshake.request().map(|()| String::new());
    let mut driven = Driven::from(connection(io).await?);
    let mut response = driven.ask(request).await?;
    let accepted = match handshake.finish(&response) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            let read = driven.read_body(response.body_mut(), deadline);
            return Err(with_body(refusal, &read.await).into());
        }
    };
    driven.finish().await?;
    let (io, early) = driven.into_stream(&mut response);
    Ok(Opened {
        io,
        early,
        accepted,
        response: response.map(|_| ()),
    })
}

/// Reads the start of a body, as far as a [`Refusal`] keeps it.
pub(super) async fn start_of(body: &mut Incoming, start: &mut Vec<u8>) {
    let mut body = Pin::new(body);
    while start.len() < Refusal::MAX_BODY {
        match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    start.extend_from_slice(&data);
                }
            }
            // A body that breaks off is still one to be read by people.
            Some(Err(_)) | None => return,
        }
    }
}

/// When reading the body of a refusal ends.
pub(super) fn body_deadline(deadline: Instant) -> Instant {
    deadline.min(Instant::now() + BODY_TIMEOUT)
}

pub(super) fn with_body(refusal: Refusal, body: &[u8]) -> Refusal {
    if body.is_empty() {
        refusal
    } else {
        refusal.with_body(body)
    }
}

pub(super) type Http1<Io> = Connection<TokioIo<Bounded<Io>>, String>;

/// hyper's connection over a stream, bounded in what it reads.
pub(super) fn connection<Io>(
    io: Io,
) -> impl Future<Output = Result<(SendRequest<String>, Http1<Io>), hyper::Error>>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let io = TokioIo::new(Bounded {
        io,
        left: MAX_ANSWER,
    });
    let mut builder = http1::Builder::new();
    builder
        .max_buf_size(MAX_ANSWER)
        .max_header_size(MAX_ANSWER)
        .handshake(io)
}

/// hyper's connection, in the hands of whoever waits for what it brings.
pub(super) struct Driven<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    connection: Http1<Io>,
    is_done: bool,
    sender: SendRequest<String>,
}

impl<Io> From<(SendRequest<String>, Http1<Io>)> for Driven<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    fn from((sender, connection): (SendRequest<String>, Http1<Io>)) -> Self {
        Self {
            connection,
            is_done: false,
            sender,
        }
    }
}

impl<Io> Driven<Io>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    /// Sends a request, and waits for the head of its answer.
    ///
    /// Neither this nor what follows takes the connection: it is large, and a future would hold it
    /// twice.
    pub(super) async fn ask(
        &mut self,
        request: Request<String>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        let mut answer = pin!(self.sender.send_request(request));
        poll_fn(|cx| {
            let driven = self.poll(cx);
            // The connection may fail over what follows an answer that is in order.
            match answer.as_mut().poll(cx) {
                Poll::Pending => {
                    driven.map_or_else(|error| Poll::Ready(Err(error)), |()| Poll::Pending)
                }
                answered @ Poll::Ready(_) => answered,
            }
        })
        .await
    }

    /// Waits until the request has left as a whole, behind an answer that makes the stream the
    /// caller's.
    pub(super) async fn finish(&mut self) -> Result<(), hyper::Error> {
        poll_fn(|cx| match self.poll(cx) {
            Ok(()) if !self.is_done => Poll::Pending,
            result => Poll::Ready(result),
        })
        .await
    }

    /// The stream, and what came right behind the answer.
    pub(super) fn into_stream(self, response: &mut Response<Incoming>) -> (Io, Bytes) {
        // It would say that this is no upgrade of hyper's.
        drop(hyper::upgrade::on(response));
        let parts = self.connection.into_parts();
        (parts.io.into_inner().io, parts.read_buf)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Result<(), hyper::Error> {
        if !self.is_done
            && let Poll::Ready(result) = self.connection.poll_without_shutdown(cx)
        {
            self.is_done = true;
            result?;
        }
        Ok(())
    }

    /// The start of the body of an answer, as far as it comes in time.
    pub(super) async fn read_body(&mut self, body: &mut Incoming, deadline: Instant) -> Vec<u8> {
        let mut start = Vec::new();
        {
            let mut reading = pin!(start_of(body, &mut start));
            let read = poll_fn(|cx| {
                // Its error is the body's too.
                let _ = self.poll(cx);
                reading.as_mut().poll(cx)
            });
            let _ = timeout_at(body_deadline(deadline), read).await;
        }
        start
    }
}

/// A stream from which only so much can be read.
pub(super) struct Bounded<Io> {
    io: Io,
    left: usize,
}

impl<Io: AsyncRead + Unpin> AsyncRead for Bounded<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other(TooLarge)));
        }
        let before = buf.filled().len();
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        // One read may go beyond: what follows the answer is not lost.
        let read = buf.filled().len().saturating_sub(before);
        self.left = self.left.saturating_sub(read);
        result
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Bounded<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
