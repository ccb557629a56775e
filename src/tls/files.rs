//! Certificates and keys in PEM files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::validity::Validity;
use super::{TlsError, x509};

/// The size limit of a file, in bytes. A chain with a bundle of every public CA has 250 KB.
const MAX_SIZE: u64 = 1024 * 1024;

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let io = |source| TlsError::Io { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(MAX_SIZE + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(TlsError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// Returns the certificates in `pem`. Fails if there is none, or one of them is malformed. `path` is for the error.
pub(super) fn chain(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = x509::certificates(pem);
    if chain.is_empty() {
        return Err(TlsError::NotPem { path: path.to_owned(), what: "certificate" });
    }
    Ok(chain)
}

/// Returns the first private key in `pem`: PKCS#8, PKCS#1 or SEC1. Fails if there is none. `path` is for the error.
pub(super) fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    // The parser's own error may quote its input, which here is a secret.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| TlsError::NotPem { path: path.to_owned(), what: "private key" })
}

pub(super) fn validity(path: &Path, certificate: &CertificateDer<'_>) -> Result<Validity, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| TlsError::BadCertificate { path: path.to_owned(), reason: error.to_string() })?;
    Ok(x509::validity(&parsed))
}
