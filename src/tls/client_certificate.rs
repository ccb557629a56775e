//! The certificate of a client, which may end before its connection does: it expires, or its CA is replaced.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::Tls;
use super::client_ca::ClientCa;
use super::validity::local_time;
use super::x509;

/// The certificate of a connection's client.
pub(crate) struct ClientCertificate {
    tls: Arc<Tls>,
    /// The client's own certificate, and the intermediate ones that it sent.
    chain: Vec<CertificateDer<'static>>,
    verified: Mutex<Option<VerifiedClient>>,
}

/// The last time that the chain was found good.
struct VerifiedClient {
    by: Arc<ClientCa>,
    /// The next end of a certificate of the chain, in Unix seconds. Until then and with this CA, the chain stays good.
    until: i64,
}

impl ClientCertificate {
    /// Returns the certificate of a handshake that has ended, if it is good. The handshake has verified it, unless it resumed a
    /// session: then the certificate is that of the first handshake, hours ago.
    pub(crate) fn of(tls: &Arc<Tls>, chain: &[CertificateDer<'_>]) -> Option<Self> {
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let certificate = Self { tls: tls.clone(), chain, verified: Mutex::default() };
        certificate.is_good().then_some(certificate)
    }

    /// Returns true if a client CA that is in use has signed the certificate, and it has not expired. Cheap, unless the CA or the
    /// chain has changed: then it takes a signature or two, some 100 us.
    pub(crate) fn is_good(&self) -> bool {
        let Some(client_ca) = self.tls.client_ca_in_use() else { return false };
        let now = local_time();
        let mut verified = self.verified.lock();
        let is_known =
            verified.as_ref().is_some_and(|known| Arc::ptr_eq(&known.by, &client_ca) && now <= known.until);
        if !is_known {
            *verified = self.verify(client_ca, now);
        }
        verified.is_some()
    }

    fn verify(&self, by: Arc<ClientCa>, now: i64) -> Option<VerifiedClient> {
        let (own, intermediate) = self.chain.split_first()?;
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.max(0).unsigned_abs()));
        if let Err(error) = by.verifier.verify_client_cert(own, intermediate, time) {
            tracing::debug!(%error, "a client's certificate is no longer good");
            return None;
        }
        // An intermediate certificate may expire before, and then another path to the CA may be there or not.
        let ends = self.chain.iter().filter_map(x509::parse).map(|parsed| x509::validity(&parsed).not_after);
        let until = ends.filter(|end| *end >= now).min()?;
        Some(VerifiedClient { by, until })
    }
}
