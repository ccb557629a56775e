//! The certificate that clients are shown, read and judged by itself: a bad one must not keep a client CA from use.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;

use super::{CertificateSource, TlsError, development, files};
use crate::tls::issue::{provisional, unix_time};
use crate::tls::names::CertificateNames;
use crate::tls::validity::Validity;

/// What is shown to clients.
pub(super) struct ServingCertificate {
    /// Compared, not the files' times: the kubelet swaps a symbolic link, and a copy may keep its time.
    bytes: (Vec<u8>, Vec<u8>),
    pub(super) key: Arc<CertifiedKey>,
    pub(super) validity: Validity,
}

impl ServingCertificate {
    /// What there is, unless it is what is in use.
    pub(super) fn read(source: &CertificateSource, in_use: Option<&Self>) -> Result<Option<Self>, TlsError> {
        let bytes = match source {
            CertificateSource::Files { certificate, key } => (files::read(certificate)?, files::read(key)?),
            CertificateSource::Development { directory, address } => {
                let pair = development::ensure(directory, *address, SystemTime::now())?;
                (pair.certificate, pair.key)
            }
            CertificateSource::Secret(pair) => pair.get(),
        };
        if in_use.is_some_and(|in_use| in_use.bytes == bytes) {
            return Ok(None);
        }
        let (certificate, key) = paths(source);
        let shown = Self::parse(&certificate, &key, bytes)?;
        // Of files alone: who keeps the Secret goes by the apiserver's clock, and ours may be wrong. One that is not valid yet is
        // taken for the same reason: our clock may be slow, and the one before would expire meanwhile.
        let is_loss = in_use.is_some_and(|in_use| {
            let now = now();
            shown.validity.not_after <= now && now < in_use.validity.not_after
        });
        if is_loss && matches!(source, CertificateSource::Files { .. }) {
            return Err(TlsError::Expired(certificate));
        }
        Ok(Some(shown))
    }

    /// What is shown while there is nothing to show: a closed port would look like a dead process.
    pub(super) fn stand_in() -> Result<Self, TlsError> {
        let pair = provisional(&CertificateNames::default(), now()).map_err(TlsError::Make)?;
        Self::parse(Path::new(""), Path::new(""), pair)
    }

    fn parse(certificate: &Path, key: &Path, bytes: (Vec<u8>, Vec<u8>)) -> Result<Self, TlsError> {
        let chain = files::chain(certificate, &bytes.0)?;
        let parsed = files::private_key(key, &bytes.1)?;
        let validity = files::validity(certificate, &chain[0])?;
        let pair = CertifiedKey::from_der(chain, parsed, &ring::default_provider());
        let pair = pair.map_err(|source| TlsError::BadPair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
        Ok(Self { bytes, key: Arc::new(pair), validity })
    }
}

/// Where the pair is; for messages.
pub(super) fn paths(source: &CertificateSource) -> (PathBuf, PathBuf) {
    match source {
        CertificateSource::Files { certificate, key } => (certificate.clone(), key.clone()),
        CertificateSource::Development { directory, .. } => {
            (directory.join(development::CERTIFICATE), directory.join(development::KEY))
        }
        CertificateSource::Secret(_) => ("tls.crt of the Secret".into(), "tls.key of the Secret".into()),
    }
}

/// In Unix time.
pub(super) fn now() -> i64 {
    unix_time(SystemTime::now())
}
