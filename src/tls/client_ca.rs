//! The CA of the clients that may call `/scheduler/*`. It is read apart from the serving certificate: a fault of one of the two
//! does not keep the other from use.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{TlsError, files};

/// The CA of `--client-ca-file`.
pub(super) struct ClientCa {
    bytes: Vec<u8>,
    /// Verifies the client's certificate if the client sends one. The route decides if a client must.
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
}

impl ClientCa {
    /// Reads the file. Returns `None` if its bytes are those of `in_use`. Fails if the file cannot be read, or if any certificate
    /// in it cannot be used as a CA.
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
