//! TLS for clients: rustls with ring, TLS 1.2 and 1.3, and certificates that are verified.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    error::{ConnectError, TlsError, TlsErrorKind},
    transport::Transport,
};

/// Whom a client trusts, and the rest of its TLS.
///
/// Without one, a [`Connector`](super::Connector) trusts Mozilla's roots if the feature
/// `webpki-roots` is on, else the operating system if `platform-verifier` is, else nobody. The
/// server's name goes out in clear (SNI), and `http/1.1` by ALPN, with `h2` before it where HTTP/2
/// is asked for.
///
/// ```no_run
/// use ws_hyper::{Connector, client::Tls};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = Tls::roots_from_pem(&std::fs::read("company.pem")?)?
///     .client_certificate_from_pem(std::fs::read("me.pem")?, std::fs::read("me.key")?)?;
/// let (socket, _) = Connector::new().tls(tls).connect("wss://intranet.example/chat").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    /// Whom it trusts, where that is a list.
    roots: Option<Arc<RootCertStore>>,
    http1: Arc<ClientConfig>,
    #[cfg(feature = "http2")]
    http2: Arc<ClientConfig>,
}

impl Tls {
    /// Trusts these roots and nobody else.
    ///
    /// # Errors
    ///
    /// One of them is no certificate, or there is none.
    pub fn roots(
        certificates: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Self, ConnectError> {
        let mut roots = RootCertStore::empty();
        add(&mut roots, certificates)?;
        if roots.is_empty() {
            return Err(no_roots());
        }
        Ok(Self::trusting(roots))
    }

    /// Trusts the roots in a PEM text and nobody else. What is in it besides certificates is
    /// passed over.
    ///
    /// # Errors
    ///
    /// It is no PEM, holds no certificate, or one that is none.
    pub fn roots_from_pem(pem: &[u8]) -> Result<Self, ConnectError> {
        Self::roots(certificates_of(pem, "the root certificates are no pem")?)
    }

    /// Trusts Mozilla's roots, as they were when this program was built.
    #[cfg(feature = "webpki-roots")]
    pub fn webpki_roots() -> Self {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        Self::trusting(roots)
    }

    /// Trusts whom the operating system trusts, its revocations included where it has them.
    ///
    /// # Errors
    ///
    /// The operating system does not tell its roots.
    #[cfg(feature = "platform-verifier")]
    pub fn platform_verifier() -> Result<Self, ConnectError> {
        use rustls_platform_verifier::BuilderVerifierExt;
        let builder = builder().with_platform_verifier().map_err(|error| {
            ConnectError::Setting(format!("the system's roots cannot be used: {error}"))
        })?;
        Ok(Self::new(builder.with_no_client_auth()))
    }

    /// Trusts the roots in a PEM text too, beside those that are trusted already: a company's own
    /// beside the public ones.
    ///
    /// # Errors
    ///
    /// As [`roots_from_pem`](Self::roots_from_pem); or whom this one trusts is no list: it was made
    /// by `platform_verifier`, by [`from_config`](Self::from_config), or trusts everybody.
    ///
    /// ```
    /// # #[cfg(feature = "webpki-roots")]
    /// # fn tls(pem: &[u8]) -> Result<(), ws_hyper::client::ConnectError> {
    /// use ws_hyper::client::Tls;
    ///
    /// let tls = Tls::webpki_roots().also_trust_pem(pem)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn also_trust_pem(mut self, pem: impl AsRef<[u8]>) -> Result<Self, ConnectError> {
        let Some(roots) = &mut self.roots else {
            return Err(ConnectError::Setting(
                "roots can be added to roots only, not to a verifier of another kind".into(),
            ));
        };
        let certificates = certificates_of(pem.as_ref(), "the root certificates are no pem")?;
        if certificates.is_empty() {
            return Err(no_roots());
        }
        add(Arc::make_mut(roots), certificates)?;
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider);
        let verifier = verifier.build().map_err(|error| {
            ConnectError::Setting(format!("a root certificate cannot be used: {error}"))
        })?;
        self.change(|config| {
            let verifier = Arc::clone(&verifier);
            config.dangerous().set_certificate_verifier(verifier);
        });
        Ok(self)
    }

    /// Shows a server that asks for one this certificate, followed by those that vouch for it; both
    /// it and its key as PEM. Default: none.
    ///
    /// # Errors
    ///
    /// There is no certificate or no key, or the two do not belong together.
    pub fn client_certificate_from_pem(
        mut self,
        certificates: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, ConnectError> {
        let wrong = |what: &str, error: &dyn fmt::Display| {
            ConnectError::Setting(format!("the client's {what}: {error}"))
        };
        let text = "the client's certificate is no pem";
        let certificates = certificates_of(certificates.as_ref(), text)?;
        if certificates.is_empty() {
            return Err(wrong("certificate", &"there is none in the pem"));
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_ref())
            .map_err(|error| wrong("key is no pem", &error))?;
        let provider = self.http1.crypto_provider();
        let identity = CertifiedKey::from_der(certificates, key, provider)
            .map_err(|error| wrong("certificate and key cannot be used", &error))?;
        let identity = Arc::new(SingleCertAndKey::from(identity));
        self.change(|config| config.client_auth_cert_resolver = identity.clone());
        Ok(self)
    }

    /// Uses settings of the caller's: for roots of several kinds, a verifier or another
    /// cryptography provider. Its ALPN is replaced.
    pub fn from_config(config: ClientConfig) -> Self {
        Self::new(config)
    }

    /// Takes whatever certificate the server has: **anybody on the way can read and change
    /// everything**. For tests, and for nothing else.
    pub fn dangerously_accept_any_certificate() -> Self {
        let verifier = AnyCertificate(Arc::new(ring::default_provider()));
        let config = builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Self::new(config)
    }

    fn trusting(roots: RootCertStore) -> Self {
        let roots = Arc::new(roots);
        let config = builder().with_root_certificates(Arc::clone(&roots));
        Self {
            roots: Some(roots),
            ..Self::new(config.with_no_client_auth())
        }
    }

    /// Changes the settings for either protocol. What was agreed on before is not resumed.
    fn change(&mut self, change: impl Fn(&mut ClientConfig)) {
        let resumption = Resumption::default();
        let change = |config: &mut Arc<ClientConfig>| {
            let config = Arc::make_mut(config);
            change(config);
            config.resumption = resumption.clone();
        };
        change(&mut self.http1);
        #[cfg(feature = "http2")]
        change(&mut self.http2);
    }

    fn new(mut config: ClientConfig) -> Self {
        #[cfg(feature = "http2")]
        let http2 = {
            let mut config = config.clone();
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Arc::new(config)
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            roots: None,
            #[cfg(feature = "http2")]
            http2,
            http1: Arc::new(config),
        }
    }
}

/// The settings for HTTP/1.1, for clients of other kinds, such as the blocking one of `ws-core`:
/// `Connector::tls` takes a `Tls`.
impl From<Tls> for Arc<ClientConfig> {
    fn from(tls: Tls) -> Self {
        tls.http1
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

/// What is offered by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug)]
pub(super) enum Alpn {
    Http1,
    #[cfg(feature = "http2")]
    Http2,
}

/// TLS over a transport.
pub(super) async fn connect(
    tls: Option<&Tls>,
    host: &str,
    io: Transport,
    alpn: Alpn,
) -> Result<Transport, ConnectError> {
    let stream = handshake(tls, host, io, alpn).await?;
    Ok(Transport::Tls(Box::new(stream)))
}

/// TLS over any stream. The host is the one the certificate must be for.
pub(super) async fn handshake<Io>(
    tls: Option<&Tls>,
    host: &str,
    io: Io,
    alpn: Alpn,
) -> Result<TlsStream<Io>, ConnectError>
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |kind, error: Option<_>| ConnectError::Tls(TlsError::new(kind, error));
    let tls = match tls {
        Some(tls) => tls,
        None => default_tls()?,
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| failed(TlsErrorKind::ServerName, Some(error.into())))?;
    let config = match alpn {
        Alpn::Http1 => &tls.http1,
        #[cfg(feature = "http2")]
        Alpn::Http2 => &tls.http2,
    };
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, io);
    stream.await.map_err(|error| {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        let kind = match cause {
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
                TlsErrorKind::Certificate
            }
            Some(error) if refuses_us(error) => TlsErrorKind::ClientCertificate,
            _ => TlsErrorKind::Handshake,
        };
        failed(kind, Some(error.into()))
    })
}

/// Whether the server refuses this client's certificate, or wants one (RFC 8446, section 6.2).
pub(super) fn refuses_us(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let rustls::Error::AlertReceived(alert) = error else {
        return false;
    };
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
            // Of a name that the server knows, and of another key.
            | Alert::DecryptError
    )
}

/// Made once for the process: the roots are many.
fn default_tls() -> Result<&'static Tls, ConnectError> {
    static DEFAULT: OnceLock<Tls> = OnceLock::new();
    if let Some(tls) = DEFAULT.get() {
        return Ok(tls);
    }
    let tls = default_roots()?;
    Ok(DEFAULT.get_or_init(|| tls))
}

#[cfg(feature = "webpki-roots")]
#[expect(
    clippy::unnecessary_wraps,
    reason = "other features have roots that fail"
)]
fn default_roots() -> Result<Tls, ConnectError> {
    Ok(Tls::webpki_roots())
}

#[cfg(all(feature = "platform-verifier", not(feature = "webpki-roots")))]
fn default_roots() -> Result<Tls, ConnectError> {
    Tls::platform_verifier()
}

#[cfg(not(any(feature = "platform-verifier", feature = "webpki-roots")))]
fn default_roots() -> Result<Tls, ConnectError> {
    Tls::roots([])
}

fn add(
    roots: &mut RootCertStore,
    certificates: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<(), ConnectError> {
    for certificate in certificates {
        roots.add(certificate).map_err(|error| {
            ConnectError::Setting(format!("a root certificate cannot be used: {error}"))
        })?;
    }
    Ok(())
}

fn certificates_of(pem: &[u8], wrong: &str) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
    certificates.map_err(|error| ConnectError::Setting(format!("{wrong}: {error}")))
}

fn no_roots() -> ConnectError {
    ConnectError::Tls(TlsError::new(TlsErrorKind::NoRoots, None))
}

/// Ring, and the versions of TLS that are safe.
fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of both versions")
}

/// Believes any certificate, but only from who has its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
