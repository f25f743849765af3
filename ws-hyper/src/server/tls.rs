//! TLS by rustls: certificates, clients' certificates, the handshake and its bounds.

mod error;
mod stream;

use std::{
    fmt, fs, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
    server::TlsStream,
};

pub use self::error::TlsError;
pub(super) use self::stream::OnFlush;
use super::MAX_TIMEOUT;

/// How a server speaks TLS, for [`Serve::tls`](crate::Serve::tls). Clones are one handle.
///
/// TLS 1.2 and 1.3, by rustls with ring. The protocols `h2` (with the feature `http2`) and
/// `http/1.1` are offered by ALPN (RFC 7301).
///
/// | option | default |
/// |---|---|
/// | [`handshake_timeout`](Self::handshake_timeout) | 10 s |
/// | [`max_handshakes`](Self::max_handshakes) | none |
/// | [`require_client_certificates`](Self::require_client_certificates), [`request_client_certificates`](Self::request_client_certificates) | none asked for |
///
/// A handshake that fails ends its connection, and is told in the log at the level `debug`. A
/// stream that ends without TLS's own end (`close_notify`) may have been cut by anyone: a WebSocket
/// then ends unclean, with [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), unless its closing
/// handshake was done.
///
/// ```no_run
/// # async fn run(listener: tokio::net::TcpListener) -> Result<(), Box<dyn std::error::Error>> {
/// use ws_hyper::server::Tls;
/// # let sockets = ws_tower::WebSocketLayer::new();
/// # let app = sockets.into_service();
///
/// let tls = Tls::from_pem_files("certificate.pem", "key.pem")?;
/// let renewed = tls.clone();
/// let server = ws_hyper::serve(listener, app).tls(tls);
/// // … whenever the files have changed; sockets that are open go on:
/// renewed.reload()?;
/// # server.await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    shared: Arc<Shared>,
    handshakes: Arc<Semaphore>,
    handshake_timeout: Duration,
}

struct Shared {
    source: Source,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    current: Mutex<Current>,
}

/// Where the certificate comes from.
enum Source {
    Files { certificates: PathBuf, key: PathBuf },
    Pem(Identity),
    Config,
}

/// A certificate with those that vouch for it, and its key.
struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What handshakes that begin now use.
#[derive(Clone)]
struct Current {
    with_http2: Arc<ServerConfig>,
    http1_only: Arc<ServerConfig>,
}

impl Tls {
    /// Reads a certificate, followed by those that vouch for it, and its key, from files of PEM.
    ///
    /// The files are read at once, on this thread, and again by [`reload`](Self::reload).
    ///
    /// # Errors
    ///
    /// A file cannot be read or has no certificate or key, or the two do not belong together.
    pub fn from_pem_files(
        certificates: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        Self::new(
            Source::Files {
                certificates: certificates.into(),
                key: key.into(),
            },
            None,
        )
    }

    /// Takes a certificate, followed by those that vouch for it, and its key, as PEM.
    ///
    /// # Errors
    ///
    /// There is no certificate or no key, or the two do not belong together.
    pub fn from_pem(
        certificates: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, TlsError> {
        let identity = Identity::from_pem(certificates.as_ref(), key.as_ref())?;
        Self::new(Source::Pem(identity), None)
    }

    /// Uses a configuration of the caller's, for what this type has no setting for: several names,
    /// other cryptography, resumption. Where its list of protocols is empty, that of this type is
    /// taken.
    pub fn from_config(config: impl Into<Arc<ServerConfig>>) -> Self {
        let config = config.into();
        let current = if config.alpn_protocols.is_empty() {
            Current::of(&config)
        } else {
            Current {
                with_http2: Arc::clone(&config),
                http1_only: config,
            }
        };
        Self::with(Shared {
            source: Source::Config,
            clients: None,
            current: Mutex::new(current),
        })
    }

    /// Asks every client for a certificate, and refuses those without one that `roots` vouch for:
    /// certificates as PEM. The handlers find it as [`PeerCertificates`]. Default: none is asked for.
    ///
    /// Set it before the handle is cloned: a clone made before does not have it.
    ///
    /// # Errors
    ///
    /// There is no certificate in `roots`, or the handle was made [from a
    /// configuration](Self::from_config), which says itself what it asks for.
    pub fn require_client_certificates(self, roots: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let verifier = verifier(roots.as_ref())?.build();
        self.clients(verifier.map_err(TlsError::Roots)?)
    }

    /// Like [`require_client_certificates`](Self::require_client_certificates), but a client may
    /// have none. One that is not vouched for is refused all the same.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn request_client_certificates(self, roots: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let verifier = verifier(roots.as_ref())?.allow_unauthenticated().build();
        self.clients(verifier.map_err(TlsError::Roots)?)
    }

    /// Sets how long a handshake may take, from the accepted connection on; at most a year. Default:
    /// 10 s.
    #[must_use]
    pub fn handshake_timeout(mut self, deadline: Duration) -> Self {
        self.handshake_timeout = deadline.min(MAX_TIMEOUT);
        self
    }

    /// Sets how many handshakes are under way at a time; at least 1. Connections beyond wait for
    /// their turn, within their own deadlines. Default: no limit.
    ///
    /// It bounds memory, and has a price: as many peers that say nothing hold up everyone else, for
    /// the time of a handshake and again. [`max_connections`](crate::Serve::max_connections) counts
    /// connections in their handshakes too.
    ///
    /// Set it before the handle is cloned: a clone made before does not have it.
    #[must_use]
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        // tokio panics above.
        let handshakes = handshakes.clamp(1, Semaphore::MAX_PERMITS);
        self.handshakes = Arc::new(Semaphore::new(handshakes));
        self
    }

    /// Reads the files again. Handshakes that begin from now on use what is there; connections that
    /// are open go on.
    ///
    /// The files are read at once, on this thread. Write new ones beside the old and rename them:
    /// half a file is no certificate.
    ///
    /// # Errors
    ///
    /// As [`from_pem_files`](Self::from_pem_files), or the handle was not made by that. What was
    /// there stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Source::Files { .. } = &self.shared.source else {
            return Err(TlsError::NotFromFiles);
        };
        self.shared.renew(&self.shared.source.identity()?)
    }

    /// Like [`reload`](Self::reload), with a certificate and a key that are not in files.
    ///
    /// # Errors
    ///
    /// As [`from_pem`](Self::from_pem), or the handle was made [from a
    /// configuration](Self::from_config). What was there stays in use.
    pub fn reload_pem(
        &self,
        certificates: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<(), TlsError> {
        if let Source::Config = &self.shared.source {
            return Err(TlsError::FromConfig);
        }
        let identity = Identity::from_pem(certificates.as_ref(), key.as_ref())?;
        self.shared.renew(&identity)
    }

    fn new(source: Source, clients: Option<Arc<dyn ClientCertVerifier>>) -> Result<Self, TlsError> {
        let current = source.identity()?.configure(clients.clone())?;
        Ok(Self::with(Shared {
            source,
            clients,
            current: Mutex::new(current),
        }))
    }

    fn with(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
            handshakes: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            handshake_timeout: Duration::from_secs(10),
        }
    }

    fn clients(self, verifier: Arc<dyn ClientCertVerifier>) -> Result<Self, TlsError> {
        let source = match &self.shared.source {
            Source::Files { certificates, key } => Source::Files {
                certificates: certificates.clone(),
                key: key.clone(),
            },
            Source::Pem(identity) => Source::Pem(identity.clone()),
            Source::Config => return Err(TlsError::FromConfig),
        };
        let Self { shared, .. } = Self::new(source, Some(verifier))?;
        Ok(Self { shared, ..self })
    }

    /// Makes a connection a TLS one, in time.
    pub(super) async fn handshake<Io>(self, io: Io, offers_http2: bool) -> io::Result<TlsStream<Io>>
    where
        Io: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = async {
            // Never closed.
            let _turn = self.handshakes.acquire().await;
            let current = self.shared.lock().clone();
            let config = if offers_http2 {
                current.with_http2
            } else {
                current.http1_only
            };
            TlsAcceptor::from(config).accept(io).await
        };
        match timeout(self.handshake_timeout, handshake).await {
            Ok(result) => result,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn renew(&self, identity: &Identity) -> Result<(), TlsError> {
        let current = identity.clone().configure(self.clients.clone())?;
        *self.lock() = current;
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        // Nothing that can panic runs under the lock.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    fn identity(&self) -> Result<Identity, TlsError> {
        match self {
            Self::Files { certificates, key } => {
                let read = |path: &PathBuf| {
                    fs::read(path).map_err(|error| TlsError::File(path.clone(), error))
                };
                Identity::from_pem(&read(certificates)?, &read(key)?)
            }
            Self::Pem(identity) => Ok(identity.clone()),
            Self::Config => Err(TlsError::FromConfig),
        }
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificates: self.certificates.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Identity {
    fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self {
            certificates: certificates_of(certificates)?,
            key: PrivateKeyDer::from_pem_slice(key).map_err(TlsError::Key)?,
        })
    }

    fn configure(self, clients: Option<Arc<dyn ClientCertVerifier>>) -> Result<Current, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Config)?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let config = builder
            .with_single_cert(self.certificates, self.key)
            .map_err(TlsError::Config)?;
        Ok(Current::of(&config))
    }
}

impl Current {
    /// With the protocols that the server speaks. They have one session cache.
    fn of(config: &ServerConfig) -> Self {
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        let http1_only = offering(&[b"http/1.1"]);
        Self {
            with_http2: if cfg!(feature = "http2") {
                offering(&[b"h2", b"http/1.1"])
            } else {
                Arc::clone(&http1_only)
            },
            http1_only,
        }
    }
}

fn certificates_of(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(pem);
    let certificates = certificates.collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(TlsError::Certificate)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    Ok(certificates)
}

fn verifier(roots: &[u8]) -> Result<rustls::server::ClientCertVerifierBuilder, TlsError> {
    let mut store = RootCertStore::empty();
    for root in certificates_of(roots)? {
        store.add(root).map_err(TlsError::Config)?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(
        Arc::new(store),
        provider(),
    ))
}

/// Named, for a process may have others.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificate of the client, followed by those that it sent along, in a request's extensions:
/// there if the client has one, and verified. For guards, handlers and the application.
///
/// ```
/// use http::Request;
/// use ws_hyper::server::PeerCertificates;
///
/// fn is_known(request: &Request<()>) -> bool {
///     request.extensions().get::<PeerCertificates>().is_some()
/// }
/// # assert!(!is_known(&Request::new(())));
/// ```
#[derive(Clone, Debug)]
pub struct PeerCertificates(Arc<[CertificateDer<'static>]>);

impl PeerCertificates {
    pub(super) fn new(certificates: &[CertificateDer<'_>]) -> Self {
        let certificates = certificates.iter().cloned();
        Self(certificates.map(CertificateDer::into_owned).collect())
    }

    /// The certificates, the client's own first; at least one.
    pub fn as_slice(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}
