//! The certificate of the servers with TLS, and the settings that all of them have.

use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivatePkcs8KeyDer};

use crate::{
    Result,
    stream::{HOST, hex},
};

/// A certificate that signs itself, made anew for each process: ECDSA with P-256.
pub struct Certificate(CertifiedKey<KeyPair>);

impl Certificate {
    pub fn new() -> Result<Self> {
        Ok(Self(generate_simple_self_signed([HOST.into()])?))
    }

    /// For the client, which trusts it.
    pub fn hex(&self) -> String {
        hex(self.0.cert.der())
    }

    /// The defaults of rustls, with ring, and HTTP/1.1 by ALPN.
    pub fn tls(self) -> Result<Arc<ServerConfig>> {
        let key = PrivatePkcs8KeyDer::from(self.0.signing_key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.0.cert.into()], key.into())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}
