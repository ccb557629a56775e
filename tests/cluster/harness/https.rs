//! An HTTPS server that is not the warden: a second webhook, or an extender to compare with.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::certificates::Certificate;

/// Serves until the test's runtime ends.
pub(crate) struct HttpsServer {
    /// `https://127.0.0.1:PORT`, without a path.
    pub(crate) url: String,
    /// The CA of its certificate, in PEM.
    pub(crate) ca: String,
}

impl HttpsServer {
    pub(crate) async fn start(router: Router) -> Self {
        let Certificate { ca, certificate, key, .. } = Certificate::issue();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate and its key");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    // A client may end the connection at any time.
                    let Ok(connection) = acceptor.accept(connection).await else { return };
                    let service = service_fn(move |request| router.clone().oneshot(request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        Self { url, ca }
    }
}

/// Returns a mutating webhook at `/mutate`. `patch` returns the JSON Patch operations for an object; none means no patch.
pub(crate) fn mutating_webhook(
    patch: impl Fn(&Value) -> Vec<Value> + Clone + Send + Sync + 'static,
) -> Router {
    let answer = move |body: String| {
        let review: Value = serde_json::from_str(&body).expect("an apiserver sends reviews");
        let request = &review["request"];
        let mut response = json!({ "uid": request["uid"], "allowed": true });
        let operations = patch(&request["object"]);
        if !operations.is_empty() {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(Value::Array(operations).to_string()));
        }
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
        });
        std::future::ready(review.to_string())
    };
    Router::new().route("/mutate", post(answer))
}
