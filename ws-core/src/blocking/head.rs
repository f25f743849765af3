//! Heads of HTTP/1.1, read and written within a deadline.

use std::{
    error::Error,
    fmt,
    io::{self, ErrorKind},
    time::{Duration, Instant},
};

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::stream::{TimedStream, append};
use crate::handshake::conceal;

/// The largest head, in bytes; informational responses before the last one count.
const MAX_HEAD: usize = 64 << 10;

/// The most header lines in a head.
const MAX_HEADERS: usize = 128;

/// What is read at once.
const READ: usize = 4 << 10;

/// What went wrong with a head.
#[derive(Debug)]
#[non_exhaustive]
pub enum HeadError {
    /// It did not come in time, or could not be written in time.
    TimedOut,
    /// The stream ended before it was whole.
    Ended,
    /// It is larger than 64 KiB, or has more than 128 lines.
    TooLarge,
    /// It is not HTTP/1; the text says where.
    Malformed(String),
    /// Reading or writing failed.
    Io(io::Error),
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut => f.write_str("it was not there in time"),
            Self::Ended => f.write_str("the stream ended before it was whole"),
            Self::TooLarge => write!(
                f,
                "its head is larger than {MAX_HEAD} bytes or has more than {MAX_HEADERS} lines"
            ),
            Self::Malformed(what) => write!(f, "it is not HTTP/1.1: {what}"),
            Self::Io(_) => f.write_str("the stream failed"),
        }
    }
}

impl Error for HeadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// A stream on which a handshake takes place, what has been read and not used, and the time.
#[derive(Debug)]
pub(super) struct Exchange<'a, S> {
    stream: &'a mut S,
    pub(super) deadline: Instant,
    input: Vec<u8>,
}

impl<'a, S: TimedStream> Exchange<'a, S> {
    pub(super) fn new(stream: &'a mut S, deadline: Instant) -> Self {
        Self {
            stream,
            deadline,
            input: Vec::new(),
        }
    }

    /// What has been read behind the last head.
    pub(super) fn into_rest(self) -> Vec<u8> {
        self.input
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), HeadError> {
        loop {
            self.stream
                .set_write_timeout(Some(self.left()?))
                .map_err(HeadError::Io)?;
            let result = if bytes.is_empty() {
                self.stream.flush().map(|()| 0)
            } else {
                self.stream.write(bytes)
            };
            match result {
                Ok(_) if bytes.is_empty() => return Ok(()),
                Ok(0) => return Err(HeadError::Io(ErrorKind::WriteZero.into())),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) => ignore_wait(error)?,
            }
        }
    }

    /// Reads the head of a response, past informational ones (RFC 9110 §15.2).
    pub(super) fn response(&mut self) -> Result<Response<()>, HeadError> {
        let mut passed = 0;
        loop {
            let (len, response) = self.head(passed, parse_response)?;
            self.input.drain(..len);
            passed += len;
            // A 101 is the last one of its connection's HTTP.
            if !response.status().is_informational() || response.status().as_u16() == 101 {
                return Ok(response);
            }
        }
    }

    /// Reads the head of a request.
    pub(super) fn request(&mut self) -> Result<Request<()>, HeadError> {
        let (len, request) = self.head(0, parse_request)?;
        self.input.drain(..len);
        Ok(request)
    }

    /// Reads the start of a body, as far as it is there in time: nobody insists on it.
    pub(super) fn body(mut self, headers: &HeaderMap, max: usize) -> Vec<u8> {
        let is_chunked = headers.contains_key(TRANSFER_ENCODING);
        let length = headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        // What chunks have around them may be as much again.
        let wanted = match length {
            _ if is_chunked => max.saturating_mul(2),
            Some(length) => max.min(length),
            None => max,
        };
        while self.input.len() < wanted && !(is_chunked && self.input.ends_with(b"\r\n0\r\n\r\n")) {
            if self.read().is_err() {
                break;
            }
        }
        self.input.truncate(wanted);
        if is_chunked {
            self.input = join_chunks(&self.input);
            self.input.truncate(max);
        }
        self.input
    }

    /// Reads until a head is whole: its length, and what was made of it.
    fn head<T>(
        &mut self,
        passed: usize,
        parse: impl Fn(&[u8]) -> Result<Option<(usize, T)>, HeadError>,
    ) -> Result<(usize, T), HeadError> {
        loop {
            // A peer that sends byte by byte has its head parsed as often; that is bounded.
            if let Some(parsed) = parse(&self.input)? {
                return Ok(parsed);
            }
            if passed + self.input.len() >= MAX_HEAD {
                return Err(HeadError::TooLarge);
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<(), HeadError> {
        loop {
            self.stream
                .set_read_timeout(Some(self.left()?))
                .map_err(HeadError::Io)?;
            match append(self.stream, &mut self.input, READ) {
                Ok(0) => return Err(HeadError::Ended),
                Ok(_) => return Ok(()),
                Err(error) => ignore_wait(error)?,
            }
        }
    }

    fn left(&self) -> Result<Duration, HeadError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(HeadError::TimedOut);
        }
        Ok(left.max(Duration::from_millis(1)))
    }
}

/// The bytes of a request's head.
pub(super) fn encode_request(request: &Request<()>) -> Vec<u8> {
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method(), request.uri()).into_bytes();
    encode_headers(&mut head, request.headers());
    head
}

/// The bytes of a response's head.
pub(super) fn encode_response<B>(response: &Response<B>) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    encode_headers(&mut head, response.headers());
    head
}

fn encode_headers(head: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
}

/// A wait is no error here: the deadline is looked at before the next try.
fn ignore_wait(error: io::Error) -> Result<(), HeadError> {
    match error.kind() {
        ErrorKind::Interrupted | ErrorKind::TimedOut | ErrorKind::WouldBlock => Ok(()),
        _ => Err(HeadError::Io(error)),
    }
}

fn parse_response(input: &[u8]) -> Result<Option<(usize, Response<()>)>, HeadError> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Response::new(&mut lines);
    let Some(len) = whole(head.parse(input))? else {
        return Ok(None);
    };
    let mut response = Response::new(());
    *response.version_mut() = version(head.version);
    *response.status_mut() = head
        .code
        .unwrap_or_default()
        .try_into()
        .map_err(malformed)?;
    *response.headers_mut() = header_map(head.headers)?;
    Ok(Some((len, response)))
}

fn parse_request(input: &[u8]) -> Result<Option<(usize, Request<()>)>, HeadError> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut lines);
    let Some(len) = whole(head.parse(input))? else {
        return Ok(None);
    };
    let mut request = Request::new(());
    *request.version_mut() = version(head.version);
    *request.method_mut() = head.method.unwrap_or_default().parse().map_err(malformed)?;
    *request.uri_mut() = head.path.unwrap_or_default().parse().map_err(malformed)?;
    *request.headers_mut() = header_map(head.headers)?;
    Ok(Some((len, request)))
}

fn whole(result: httparse::Result<usize>) -> Result<Option<usize>, HeadError> {
    match result {
        Ok(httparse::Status::Complete(len)) => Ok(Some(len)),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(error) => Err(malformed(error)),
    }
}

fn version(minor: Option<u8>) -> Version {
    match minor {
        Some(0) => Version::HTTP_10,
        _ => Version::HTTP_11,
    }
}

fn header_map(lines: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(malformed)?;
        let mut value = HeaderValue::from_bytes(line.value).map_err(malformed)?;
        conceal(&name, &mut value);
        headers.append(name, value);
    }
    Ok(headers)
}

fn malformed(error: impl fmt::Display) -> HeadError {
    HeadError::Malformed(error.to_string())
}

/// What is in the chunks of a body, as far as they go (RFC 9112 §7.1).
fn join_chunks(mut input: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(input) {
        let chunk = input.get(start..).unwrap_or_default();
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        body.extend_from_slice(chunk.get(..size).unwrap_or(chunk));
        let behind = size.checked_add(2).and_then(|behind| chunk.get(behind..));
        match behind {
            Some(behind) if size > 0 => input = behind,
            _ => break,
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_as_far_as_they_go() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"),
            (b"3\r\nabc\r\n5\r\nde", b"abcde"),
            (b"3\r\nab", b"ab"),
            (b"ffffffffffffffff\r\nab", b"ab"),
            (b"x\r\nab", b""),
            (b"", b""),
        ];
        for (input, body) in cases {
            assert_eq!(join_chunks(input), *body, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn a_head_is_parsed_when_it_is_whole_and_not_before() {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
        for end in 0..head.len() {
            assert!(parse_response(&head[..end]).unwrap().is_none(), "{end}");
        }
        let (len, response) = parse_response(&[head, &b"\x81\0"[..]].concat())
            .unwrap()
            .unwrap();
        assert_eq!((len, response.status().as_u16()), (head.len(), 101));
        assert_eq!(response.headers()["upgrade"], "websocket");
        for bad in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 99\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
        ] {
            assert!(parse_response(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn secrets_of_either_end_are_not_shown() {
        let lines = "Cookie: a=s3cret\r\nAuthorization: s3cret\r\nSet-Cookie: a=s3cret\r\n\r\n";
        let request = format!("GET / HTTP/1.1\r\n{lines}");
        let response = format!("HTTP/1.1 403 no\r\n{lines}");
        let request = parse_request(request.as_bytes()).unwrap();
        let response = parse_response(response.as_bytes()).unwrap();
        let shown = format!("{request:?} {response:?}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn what_is_encoded_is_parsed_again() {
        let mut request = Request::get("/a?b=c").body(()).unwrap();
        let value = HeaderValue::from_bytes(b"\xff text").unwrap();
        request.headers_mut().append("x-a", value.clone());
        request
            .headers_mut()
            .append("x-a", HeaderValue::from_static(""));
        let (_, parsed) = parse_request(&encode_request(&request)).unwrap().unwrap();
        assert_eq!(parsed.uri(), request.uri());
        assert_eq!(parsed.headers(), request.headers());
    }
}
