//! The warden dates certificates by the apiserver's clock, which may be wrong for a while.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tower::ServiceExt;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::support::{PATIENCE, Server, connect, tls_config};

const SECRET: &str = "/api/v1/namespaces/warden/secrets/tls";
const YEAR: time::Duration = time::Duration::days(365);

/// An apiserver with one Secret, and a clock that a test can set.
#[derive(Clone, Default)]
struct Apiserver(Arc<Mutex<FakeSecret>>);

#[derive(Default)]
struct FakeSecret {
    secret: Option<Value>,
    version: u64,
    off: time::Duration,
}

impl Apiserver {
    async fn start(&self) -> u16 {
        let router = Router::new()
            .route(SECRET, get(Self::read).patch(Self::write))
            .route("/api/v1/namespaces/warden/secrets", post(Self::write))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let router = router.clone();
                let service = service_fn(move |request| router.clone().oneshot(request));
                let connection = TokioIo::new(connection);
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(connection, service),
                );
            }
        });
        port
    }

    async fn read(State(apiserver): State<Self>) -> Response {
        let held = apiserver.0.lock().unwrap();
        held.answer(held.secret.clone())
    }

    /// Handles the creation of the Secret, or a merge patch with a resourceVersion.
    async fn write(State(apiserver): State<Self>, patch: String) -> Response {
        let patch: Value = serde_json::from_str(&patch).unwrap();
        let mut held = apiserver.0.lock().unwrap();
        let mut secret = held.secret.clone().unwrap_or_else(|| json!({}));
        json_patch::merge(&mut secret, &patch);
        held.version += 1;
        secret["metadata"]["resourceVersion"] = json!(held.version.to_string());
        held.secret = Some(secret);
        held.answer(held.secret.clone())
    }

    fn set_clock(&self, off: time::Duration) {
        self.0.lock().unwrap().off = off;
    }

    /// Returns the value of a key of the Secret.
    fn value(&self, key: &str) -> Option<Vec<u8>> {
        let held = self.0.lock().unwrap();
        Some(STANDARD.decode(held.secret.as_ref()?["data"][key].as_str()?).unwrap())
    }

    /// Waits until `tls.crt` has another value, and returns it.
    async fn renewed(&self, before: &[u8]) -> Vec<u8> {
        let begin = Instant::now();
        loop {
            if let Some(now) = self.value("tls.crt").filter(|now| now != before) {
                return now;
            }
            assert!(begin.elapsed() < PATIENCE, "still the same certificate");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl FakeSecret {
    fn answer(&self, object: Option<Value>) -> Response {
        let date = SystemTime::from(OffsetDateTime::now_utc().saturating_add(self.off));
        let mut headers = HeaderMap::new();
        headers.insert(header::DATE, httpdate::fmt_http_date(date).parse().unwrap());
        let status = if object.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
        (status, headers, object.unwrap_or_default().to_string()).into_response()
    }
}

fn good_from_to(certificate: &[u8]) -> (i64, i64) {
    let der = CertificateDer::from_pem_slice(certificate).unwrap();
    let (_, parsed) = X509Certificate::from_der(&der).unwrap();
    (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp())
}

/// Waits until the server sends a certificate that a client with the CA `ca` trusts.
async fn trusted(server: &Server, ca: &Path) {
    let begin = Instant::now();
    while let Err(error) = connect(server.address, tls_config(ca, None, &[])).await {
        assert!(begin.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn an_apiservers_clock_that_jumps_and_comes_back_costs_a_scheduler_nothing_for_good() {
    let directory = tempfile::tempdir().unwrap();
    let apiserver = Apiserver::default();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "clusters": [{ "name": "test", "cluster": { "server": format!("http://127.0.0.1:{}", apiserver.start().await) } }],
        "users": [{ "name": "test", "user": {} }],
    });
    let file = directory.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let args = ["--kubeconfig", file.to_str().unwrap(), "--tls-secret=warden/tls", "--tls-names=localhost"];
    let server = Server::start(directory.path(), &args);
    let first = apiserver.renewed(b"").await;
    let ca = directory.path().join("scheduler-ca.crt");
    std::fs::write(&ca, apiserver.value("ca.crt").unwrap()).unwrap();
    trusted(&server, &ca).await;

    apiserver.set_clock(YEAR * 20);
    let during = apiserver.renewed(&first).await;
    let (from, to) = good_from_to(&during);
    let jumped = OffsetDateTime::now_utc().saturating_add(YEAR * 20).unix_timestamp();
    assert!(from <= jumped && jumped < to, "valid by the wrong clock: {from} {to}");

    apiserver.set_clock(time::Duration::ZERO);
    let after = apiserver.renewed(&during).await;
    let (from, to) = good_from_to(&after);
    let now = OffsetDateTime::now_utc().unix_timestamp();
    assert!(from <= now && now < to, "valid again: {from} {to}");
    trusted(&server, &ca).await;
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    assert!(log.contains("this node's clock differs from the apiserver's"), "{log}");
}
