//! The command line of the client.

use std::time::Duration;

use ws_examples::{Arguments, Failure};
use ws_hyper::{
    Connector,
    client::{Proxy, Tls},
};
use ws_tower::Config;

const USAGE: &str = "client URL [--header 'K: V']... [--subprotocol P]... [--origin O] \
    [--proxy URL] [--http2] [--insecure] [--timeout SECONDS] [--autobahn]";

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) url: String,
    pub(crate) autobahn: bool,
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
        // Autobahn sends up to 16 MiB.
        let mut config = Config::new().max_message_size(64 << 20);
        if let Some(seconds) = self.timeout {
            let timeout = Duration::try_from_secs_f64(seconds)
                .map_err(|error| Failure::new(format!("--timeout {seconds}: {error}")))?;
            config = config.handshake_timeout(timeout);
        }
        let mut connector = Connector::new().config(config);
        for header in &self.headers {
            let (name, value) = header.split_once(':').ok_or_else(|| {
                Failure::new(format!("--header is `name: value`, not `{header}`"))
            })?;
            connector = connector.header(name.trim(), value.trim());
        }
        for subprotocol in &self.subprotocols {
            connector = connector.subprotocol(subprotocol.as_str());
        }
        if let Some(origin) = &self.origin {
            connector = connector.origin(origin.as_str());
        }
        if let Some(proxy) = &self.proxy {
            connector = connector.proxy(Proxy::new(proxy.as_str())?);
        }
        if self.insecure {
            connector = connector.tls(Tls::dangerously_accept_any_certificate());
        }
        if self.http2 {
            connector = connector.prefer_http2();
        }
        Ok(connector)
    }
}
