//! A certificate that vouches for itself, made on the spot: for a look at TLS, and for tests.

use rcgen::{CertifiedKey, generate_simple_self_signed};
use ws_hyper::server::Tls;

use crate::Failure;

/// TLS for `localhost` and `127.0.0.1`, with a certificate that nobody trusts: a browser warns, and
/// other clients have to be told.
///
/// # Errors
///
/// The certificate could not be made.
pub fn self_signed() -> Result<Tls, Failure> {
    let names = ["localhost", "127.0.0.1"].map(String::from);
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)?;
    Ok(Tls::from_pem(cert.pem(), signing_key.serialize_pem())?)
}
