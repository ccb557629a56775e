//! The certificate that is shown to clients. It is read apart from the client CA: a fault of one of the two does not keep the other
//! from use.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;

use super::issue::{PemKeyPair, provisional};
use super::names::CertificateNames;
use super::validity::{Validity, local_time};
use super::{CertificateSource, TlsError, development, files};

/// The certificate that is shown to clients, with its key.
pub(super) struct ServingCertificate {
    /// The bytes that were read. A reload compares them and not the files' times: the kubelet swaps a symbolic link, and a copy may
    /// keep its time.
    pem: PemKeyPair,
    pub(super) key: Arc<CertifiedKey>,
    pub(super) validity: Validity,
}

impl ServingCertificate {
    /// Reads the source. Returns `None` if its bytes are those of `in_use`. Fails if the source cannot be read or used, or if its
    /// files have a certificate that has expired while that of `in_use` has not. Blocks on files.
    pub(super) fn read(source: &CertificateSource, in_use: Option<&Self>) -> Result<Option<Self>, TlsError> {
        let pem = match source {
            CertificateSource::Files { certificate, key } => {
                PemKeyPair { certificate: files::read(certificate)?, key: files::read(key)? }
            }
            CertificateSource::Development { directory, address } => {
                development::ensure(directory, *address, local_time())?
            }
            CertificateSource::Secret(pair) => pair.get(),
        };
        if in_use.is_some_and(|in_use| in_use.pem == pem) {
            return Ok(None);
        }
        let (certificate, key) = paths(source);
        let new = Self::parse(&certificate, &key, pem)?;
        // Of files alone: the Secret is kept by the apiserver's clock, and ours may be wrong. A certificate that is not valid yet is
        // taken for the same reason: our clock may be slow, and the one before would expire meanwhile.
        let is_loss = in_use.is_some_and(|in_use| {
            let now = local_time();
            new.validity.is_over(now) && !in_use.validity.is_over(now)
        });
        if is_loss && matches!(source, CertificateSource::Files { .. }) {
            return Err(TlsError::Expired(certificate));
        }
        Ok(Some(new))
    }

    /// Makes a certificate that no client trusts, for the time until there is another: a closed port would look like a dead
    /// process. Fails if the system gives no random bytes.
    pub(super) fn stand_in() -> Result<Self, TlsError> {
        let pair = provisional(&CertificateNames::default(), local_time()).map_err(TlsError::Make)?;
        Self::parse(Path::new(""), Path::new(""), pair)
    }

    fn parse(certificate: &Path, key: &Path, pem: PemKeyPair) -> Result<Self, TlsError> {
        let chain = files::chain(certificate, &pem.certificate)?;
        let parsed = files::private_key(key, &pem.key)?;
        let validity = files::validity(certificate, &chain[0])?;
        let pair = CertifiedKey::from_der(chain, parsed, &ring::default_provider());
        let pair = pair.map_err(|source| TlsError::BadPair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
        Ok(Self { pem, key: Arc::new(pair), validity })
    }
}

/// Returns the places of the certificate and of the key, for messages. For a Secret, these are no paths.
pub(super) fn paths(source: &CertificateSource) -> (PathBuf, PathBuf) {
    match source {
        CertificateSource::Files { certificate, key } => (certificate.clone(), key.clone()),
        CertificateSource::Development { directory, .. } => {
            (directory.join(development::CERTIFICATE), directory.join(development::KEY))
        }
        CertificateSource::Secret(_) => ("tls.crt of the Secret".into(), "tls.key of the Secret".into()),
    }
}
