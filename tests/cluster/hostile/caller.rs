//! A client of daemonset-warden's port.

use kube::{Client, Config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::harness::Warden;

/// A client with connections of its own.
#[derive(Clone)]
pub(crate) struct Caller {
    client: Client,
}

impl Caller {
    /// Returns the configuration of a client, for a thread with a runtime of its own.
    pub(crate) fn config(warden: &Warden) -> Config {
        let mut config = Config::new(warden.url().parse().expect("a URL"));
        let certificates = CertificateDer::pem_slice_iter(warden.ca.as_bytes());
        config.root_cert = Some(certificates.map(|der| der.expect("a certificate").to_vec()).collect());
        config.default_retry = false;
        config
    }

    pub(crate) fn of(warden: &Warden) -> Self {
        Self::with(Self::config(warden))
    }

    /// Returns a client that has no connection yet.
    pub(crate) fn with(config: Config) -> Self {
        Self { client: Client::try_from(config).expect("a client") }
    }

    /// Sends a body and returns the status and the text of the answer.
    pub(crate) async fn post(&self, path: &str, body: String) -> Result<(u16, String), String> {
        let request = axum::http::Request::post(path).header("content-type", "application/json");
        let request = request.body(body.into_bytes().into()).expect("a request");
        let response = self.client.send(request).await.map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        let text = response.into_body().collect_bytes().await.map_err(|e| e.to_string())?;
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }
}
