//! The command line of the client.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ws_core::blocking;
use ws_examples::{Arguments, Failure};
use ws_hyper::{
    Connector,
    client::{Proxy, Tls},
};
use ws_tower::Config;

const USAGE: &str = "client URL [--header 'K: V']... [--subprotocol P]... [--origin O] \
    [--proxy URL] [--http2] [--insecure] [--timeout SECONDS] [--blocking] [--autobahn]\n\
    with --blocking there is no --proxy and no --http2";

/// What is asked for.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) autobahn: bool,
    pub(crate) blocking: bool,
    headers: Vec<String>,
    subprotocols: Vec<String>,
    origin: Option<String>,
    proxy: Option<String>,
    http2: bool,
    insecure: bool,
    timeout: Option<f64>,
}

impl Options {
    pub(crate) fn from_env() -> Result<Self, Failure> {
        let mut arguments = Arguments::from_env(USAGE)?;
        let options = Self {
            headers: arguments.values("--header")?,
            subprotocols: arguments.values("--subprotocol")?,
            origin: arguments.value("--origin")?,
            proxy: arguments.value("--proxy")?,
            http2: arguments.flag("--http2"),
            insecure: arguments.flag("--insecure"),
            timeout: arguments.value("--timeout")?,
            autobahn: arguments.flag("--autobahn"),
            blocking: arguments.flag("--blocking"),
            // Last: it may stand before, between or behind the others.
            url: arguments.word().unwrap_or_default(),
        };
        arguments.finish()?;
        if options.url.is_empty() {
            return Err(Failure::new(format!("a URL is missing\nusage: {USAGE}")));
        }
        Ok(options)
    }

    /// What connects as is asked for.
    pub(crate) fn connector(&self) -> Result<Connector, Failure> {
        let mut connector = Connector::new().config(self.config()?);
        for (name, value) in self.headers()? {
            connector = connector.header(name, value);
        }
        for subprotocol in &self.subprotocols {
            connector = connector.subprotocol(subprotocol.as_str());
        }
        if let Some(origin) = &self.origin {
            connector = connector.origin(origin.as_str());
        }
        if let Some(proxy) = &self.proxy {
            let proxy = Proxy::new(proxy.as_str())
                .map_err(|error| Failure::new(format!("--proxy: {error}")))?;
            connector = connector.proxy(proxy);
        }
        if self.insecure {
            connector = connector.tls(Tls::dangerously_accept_any_certificate());
        }
        if self.http2 {
            connector = connector.prefer_http2();
        }
        Ok(connector)
    }

    /// The same without a runtime. It has fewer ways to a server.
    pub(crate) fn blocking_connector(&self) -> Result<blocking::Connector, Failure> {
        let absent = [("--proxy", self.proxy.is_some()), ("--http2", self.http2)];
        if let Some((option, _)) = absent.iter().find(|(_, is_there)| *is_there) {
            let text = format!("the blocking client has no {option}: leave out --blocking");
            return Err(Failure::new(text));
        }
        // One thread sends and receives: what comes while a line waits for room has to fit.
        let config = self.config()?.inbox_high_water(64 << 20);
        let mut connector = blocking::Connector::new().config(config);
        for (name, value) in self.headers()? {
            connector = connector.header(name, value);
        }
        for subprotocol in &self.subprotocols {
            connector = connector.subprotocol(subprotocol.as_str());
        }
        if let Some(origin) = &self.origin {
            connector = connector.origin(origin);
        }
        if self.insecure {
            connector = connector.tls(Tls::dangerously_accept_any_certificate());
        }
        Ok(connector)
    }

    fn config(&self) -> Result<Config, Failure> {
        // Autobahn sends up to 16 MiB.
        let config = Config::new().max_message_size(64 << 20);
        let Some(seconds) = self.timeout else {
            return Ok(config);
        };
        let timeout = Duration::try_from_secs_f64(seconds).map_err(|_| {
            let text = format!("--timeout is a number of seconds, 0 or more, not `{seconds}`");
            Failure::new(text)
        })?;
        Ok(config.handshake_timeout(timeout))
    }

    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, Failure> {
        let parse = |header: &String| {
            let failed = || Failure::new(format!("--header is `name: value`, not `{header}`"));
            let (name, value) = header.split_once(':').ok_or_else(failed)?;
            let name = name.trim().parse().map_err(|_| failed())?;
            let value = value.trim().parse().map_err(|_| failed())?;
            Ok((name, value))
        };
        self.headers.iter().map(parse).collect()
    }
}
