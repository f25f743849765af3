//! Why there is no TLS.

use std::{error::Error, fmt, io, path::PathBuf};

use rustls::{self, pki_types::pem, server::VerifierBuilderError};

/// What is wrong with the certificates, keys or roots given to [`Tls`](crate::server::Tls).
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// This file cannot be read.
    File(PathBuf, io::Error),
    /// What should be certificates is not PEM.
    Certificate(pem::Error),
    /// There is no certificate where one should be.
    NoCertificate,
    /// What should be a private key is none: PKCS #1, PKCS #8 or SEC 1, as PEM.
    Key(pem::Error),
    /// The certificate and the key do not belong together, or rustls cannot use one of them.
    Config(rustls::Error),
    /// The roots that should vouch for clients cannot be used.
    Roots(VerifierBuilderError),
    /// There are no files to read again.
    NotFromFiles,
    /// The caller's own configuration says this itself.
    FromConfig,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, _) => write!(f, "cannot read {}", path.display()),
            Self::Certificate(_) => f.write_str("the certificates are not PEM"),
            Self::NoCertificate => f.write_str("there is no certificate in the PEM"),
            Self::Key(_) => f.write_str("there is no private key in the PEM"),
            Self::Config(_) => f.write_str("rustls cannot use the certificate and its key"),
            Self::Roots(_) => f.write_str("the roots for clients' certificates cannot be used"),
            Self::NotFromFiles => {
                f.write_str("the certificate was not read from files, so there are none to reload")
            }
            Self::FromConfig => {
                f.write_str("the configuration is the caller's own: certificates are changed there")
            }
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Certificate(error) | Self::Key(error) => Some(error),
            Self::Config(error) => Some(error),
            Self::Roots(error) => Some(error),
            Self::NoCertificate | Self::NotFromFiles | Self::FromConfig => None,
        }
    }
}
