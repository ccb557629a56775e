//! The CA of the clients that may call `/scheduler/*`, read and judged by itself: a bad one must not keep a certificate from use.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{TlsError, files};

/// Which clients we know.
pub(super) struct ClientCa {
    bytes: Vec<u8>,
    /// Verifies a certificate if one is shown; whether one must be shown depends on the route.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCa {
    /// What there is, unless it is what is in use.
    pub(super) fn read(path: &Path, in_use: Option<&Self>) -> Result<Option<Self>, TlsError> {
        let bytes = files::read(path)?;
        if in_use.is_some_and(|in_use| in_use.bytes == bytes) {
            return Ok(None);
        }
        let bad = |reason: String| TlsError::BadClientCa { path: path.to_owned(), reason };
        let mut roots = rustls::RootCertStore::empty();
        for certificate in files::chain(path, &bytes)? {
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| bad(error.to_string()))?;
        Ok(Some(Self { bytes, verifier }))
    }
}
