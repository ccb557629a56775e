//! Spans, from the real binary to a collector that reads OTLP. The collector has its own thread, because it must answer while a
//! test waits for the end of the binary.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemonset_warden::tls::{CertificateSource, Tls};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parking_lot::Mutex;
use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::support::{PATIENCE, Server, bound_daemon_pod, crypto, review};

const SAMPLED: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
const UNSAMPLED: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
/// Exports batches at once instead of after five seconds.
const SOON: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "20");

/// Returns the flags that trace every request.
fn all(url: &str) -> [&str; 4] {
    ["--tracing-endpoint", url, "--tracing-sampling-rate-per-million", "1000000"]
}

/// Returns a review of a DaemonSet that is denied, with its name also in the request, as an apiserver writes it.
fn daemon_set(name: &str) -> String {
    let review = review(
        "CREATE",
        r#"{"group":"apps","version":"v1","kind":"DaemonSet"}"#,
        &format!(
            r#"{{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{{"name":"{name}","namespace":"default"}},"spec":{{"selector":{{}},"template":{{"spec":{{"containers":[]}}}}}}}}"#
        ),
        "null",
    );
    review.replacen(r#""operation":"#, &format!(r#""name":"{name}","operation":"#), 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_a_span_of_the_callers_trace() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let variables = [
        SOON,
        ("POD_NAME", "warden-1"),
        ("POD_NAMESPACE", "warden"),
        ("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=prod"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20t"),
    ];
    let server = Server::start_with(&variables, directory.path(), &["--tracing-endpoint", &collector.url]);
    let headers = [SAMPLED, ("tracestate", "vendor=1"), ("user-agent", "kube-apiserver-admission")];
    let answer =
        server.client().await.post_with(&headers, "/validate?timeout=3s", &daemon_set("agent")).await;
    assert_eq!(answer.json()["response"]["allowed"], false);
    collector.has(1).await;

    let span = collector.spans().remove(0);
    assert_eq!(hex(&span.trace_id), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
    assert_ne!(hex(&span.span_id), "b7ad6b7169203331");
    assert_eq!(span.trace_state, "vendor=1");
    assert_eq!((span.name.as_str(), span.kind()), ("POST /validate", SpanKind::Server));
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    assert_eq!(span.status.unwrap_or_default().code, 0, "a refusal is no error");
    let expected = [
        ("daemonset_warden.kind", "DaemonSet"),
        ("daemonset_warden.name", "agent"),
        ("daemonset_warden.namespace", "default"),
        ("daemonset_warden.operation", "create"),
        ("daemonset_warden.uid", "705ab4f5-6393-11e8-b7cc-42010a800002"),
        ("daemonset_warden.verdict", "denied"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.route", "/validate"),
        ("network.protocol.version", "1.1"),
        ("url.path", "/validate"),
        ("url.scheme", "https"),
        ("user_agent.original", "kube-apiserver-admission"),
    ];
    assert_eq!(
        texts(&span.attributes),
        expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    );

    let resource =
        texts(&collector.requests.lock()[0].resource_spans[0].resource.as_ref().unwrap().attributes);
    for (key, value) in [
        ("service.name", "daemonset-warden"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("k8s.pod.name", "warden-1"),
        ("k8s.namespace.name", "warden"),
        ("k8s.cluster.name", "prod"),
    ] {
        assert_eq!(resource.get(key).map(String::as_str), Some(value), "{resource:?}");
    }
    let head = collector.heads.lock()[0].clone();
    assert_eq!(head.uri.path(), "/v1/traces");
    assert_eq!(head.headers["content-type"], "application/x-protobuf");
    assert_eq!(head.headers["authorization"], "Bearer t");
    becomes(&server, EXPORTED, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_has_spans_that_sigterm_sends() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &all(&collector.url));
    let mut client = server.client().await;
    let long = "x".repeat(2_000);
    client.post("/mutate", bound_daemon_pod()).await;
    client.post("/validate", daemon_set(&long)).await;
    let pod = r#"{"metadata":{"name":"web-1","namespace":"shop","uid":"u-1"},"spec":{}}"#;
    client.post("/scheduler/filter", format!(r#"{{"Pod":{pod},"NodeNames":["n1","n2"]}}"#)).await;
    client
        .post(
            "/scheduler/preempt",
            format!(r#"{{"Pod":{pod},"NodeNameToMetaVictims":{{"n1":{{"Pods":[]}}}}}}"#),
        )
        .await;
    assert_eq!(client.post("/mutate", "{").await.status, StatusCode::BAD_REQUEST);
    // These routes are not traced.
    client.get("/livez").await;
    client.post(&format!("/{long}"), "").await;
    // A request of an unsampled trace has no span.
    client.post_with(&[UNSAMPLED], "/mutate", &bound_daemon_pod()).await;
    // SIGTERM comes before the batch would be exported, after 5 s.
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");

    let spans = collector.spans();
    let requests: Vec<_> = spans
        .iter()
        .map(|span| {
            let texts = texts(&span.attributes);
            let text = |key: &str| texts.get(key).cloned().unwrap_or_default();
            assert_eq!(span.parent_span_id, Vec::<u8>::new());
            (span.name.clone(), text("daemonset_warden.verdict"), text("http.response.status_code"))
        })
        .collect();
    let requests: Vec<_> =
        requests.iter().map(|(name, verdict, code)| (&**name, &**verdict, &**code)).collect();
    assert_eq!(
        requests,
        [
            ("POST /mutate", "patched", "200"),
            ("POST /validate", "denied", "200"),
            ("POST /scheduler/filter", "passed", "200"),
            ("POST /scheduler/preempt", "passed", "200"),
            ("POST /mutate", "bad", "400"),
        ]
    );
    assert_eq!(texts(&spans[1].attributes)["daemonset_warden.name"], format!("{}...", "x".repeat(253)));
    let filtered = texts(&spans[2].attributes);
    assert_eq!(
        ["uid", "namespace", "name", "nodes", "refused_nodes"]
            .map(|key| filtered[&format!("daemonset_warden.{key}")].as_str()),
        ["u-1", "shop", "web-1", "2", "0"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_caller_that_samples_is_traced_by_default() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_with(&[SOON], directory.path(), &["--tracing-endpoint", &collector.url]);
    let mut client = server.client().await;
    client.post("/mutate", bound_daemon_pod()).await;
    let long = "0".repeat(4_000);
    for traceparent in [UNSAMPLED.1, "", "00", "00-0-0-01", "zz", long.as_str(), "\u{e4}"] {
        client.post_with(&[("traceparent", traceparent)], "/mutate", &bound_daemon_pod()).await;
    }
    assert_eq!(collector.connections(), 0, "without spans the exporter does not connect");
    client.post_with(&[SAMPLED], "/mutate", &bound_daemon_pod()).await;
    server.stop();
    assert_eq!(collector.spans().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_flag_nobody_connects() {
    let collector = Collector::start().await;
    let directory = tempfile::tempdir().unwrap();
    let url = &collector.url;
    let variables = [
        SOON,
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", url),
        ("OTEL_TRACES_SAMPLER", "always_on"),
    ];
    let server = Server::start_with(&variables, directory.path(), &[]);
    server.client().await.post_with(&[SAMPLED], "/mutate", &bound_daemon_pod()).await;
    let (status, _) = server.stop();
    assert!(status.success());
    assert_eq!(collector.connections(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_refuses_is_told_once_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    // A port on which no process listens.
    let args = all("http://127.0.0.1:1");
    let server = Server::start_with(&[SOON], directory.path(), &args);
    let mut client = server.client().await;
    for batch in 1..=2 {
        assert_eq!(client.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
        becomes(&server, FAILED, f64::from(batch)).await;
    }
    let (status, log) = server.stop();
    assert!(status.success());
    let lines: Vec<_> = log.lines().filter(|line| line.contains("failed to export traces")).collect();
    assert!(lines.len() == 1 && lines[0].contains("Connection refused"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_recovers_gets_the_spans_from_then_on() {
    let collector = Collector::start().await;
    *collector.status.lock() = StatusCode::FORBIDDEN;
    let directory = tempfile::tempdir().unwrap();
    let args = all(&collector.url);
    let server = Server::start_with(&[SOON], directory.path(), &args);
    let mut client = server.client().await;
    client.post("/mutate", bound_daemon_pod()).await;
    becomes(&server, FAILED, 1.0).await;
    *collector.status.lock() = StatusCode::OK;
    client.post("/mutate", bound_daemon_pod()).await;
    becomes(&server, EXPORTED, 1.0).await;
    let (_, log) = server.stop();
    assert!(log.contains("the collector answered 403 Forbidden"), "{log}");
    assert!(log.contains("traces are exported again"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_says_nothing_holds_up_neither_requests_nor_the_end() {
    // The kernel accepts connections, and no response is ever sent.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let args = all(&url);
    let server = Server::start_with(&[SOON], directory.path(), &args);
    let mut client = server.client().await;
    let (begin, mut slowest) = (Instant::now(), Duration::ZERO);
    // More spans than the queue holds.
    while server.metric(DROPPED).await < 1_000.0 {
        for _ in 0..200 {
            let asked = Instant::now();
            assert_eq!(client.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
            slowest = slowest.max(asked.elapsed());
        }
        assert!(begin.elapsed() < PATIENCE);
    }
    assert!(slowest < Duration::from_secs(2), "an attempt is given up after 3 s: {slowest:?}");
    assert_eq!(server.metric(EXPORTED).await, 0.0);
    drop(client);
    let begin = Instant::now();
    let (status, log) = server.stop();
    assert!(status.success(), "{log}");
    // 2 s for a last request, 3 s for the spans, and a busy machine.
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert!(log.contains("ended with spans that were not sent"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_go_over_tls_to_an_https_endpoint() {
    let certificates = tempfile::tempdir().unwrap();
    let collector = Collector::start_tls(certificates.path()).await;
    let authorities = certificates.path().join("ca.crt");
    let directory = tempfile::tempdir().unwrap();
    let args = all(&collector.url);
    let trusted = [SOON, ("SSL_CERT_FILE", authorities.to_str().unwrap())];
    let server = Server::start_with(&trusted, directory.path(), &args);
    server.client().await.post("/mutate", bound_daemon_pod()).await;
    collector.has(1).await;
    server.stop();

    // Without the CA of its certificate, the exporter does not trust the collector and sends nothing.
    let others = directory.path().join("ca.crt");
    let server =
        Server::start_with(&[SOON, ("SSL_CERT_FILE", others.to_str().unwrap())], directory.path(), &args);
    server.client().await.post("/mutate", bound_daemon_pod()).await;
    becomes(&server, FAILED, 1.0).await;
    let (_, log) = server.stop();
    assert!(log.contains("invalid peer certificate"), "{log}");
    assert_eq!(collector.spans().len(), 1);
}

#[test]
fn what_is_no_endpoint_is_one_line() {
    for (args, expected) in [
        (&["--tracing-endpoint", "collector:4317"][..], "expected a URL such as http://HOST:4318"),
        (&["--tracing-sampling-rate-per-million", "1"], "--tracing-endpoint <URL>"),
        (
            &["--tracing-endpoint", "http://a", "--tracing-sampling-rate-per-million", "1000001"],
            "1000001 is not in 0..=1000000",
        ),
    ] {
        let (code, _, stderr) = super::support::run(&[&["serve"], args].concat());
        assert!(code == Some(1) && stderr.contains(expected) && stderr.lines().count() == 1, "{stderr}");
    }
}

const EXPORTED: &str = r#"daemonset_warden_trace_spans_total{outcome="exported"}"#;
const FAILED: &str = r#"daemonset_warden_trace_spans_total{outcome="failed"}"#;
const DROPPED: &str = r#"daemonset_warden_trace_spans_total{outcome="dropped"}"#;

async fn becomes(server: &Server, series: &str, value: f64) {
    let begin = Instant::now();
    while server.metric(series).await < value {
        assert!(begin.elapsed() < PATIENCE, "{series} does not become {value}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.metric(series).await, value);
}

/// An OTLP receiver, over HTTP.
struct Collector {
    url: String,
    connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<hyper::http::request::Parts>>>,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    status: Arc<Mutex<StatusCode>>,
}

impl Collector {
    async fn start() -> Self {
        Self::listen(None).await
    }

    /// Starts a collector with a certificate for 127.0.0.1; the certificate and its CA are in this folder.
    async fn start_tls(directory: &Path) -> Self {
        crypto();
        let source = CertificateSource::Development {
            directory: directory.to_owned(),
            address: [127, 0, 0, 1].into(),
        };
        Tls::load(source, None, Arc::default()).unwrap();
        let chain = CertificateDer::pem_file_iter(directory.join("tls.crt")).unwrap().map(Result::unwrap);
        let key = PrivateKeyDer::from_pem_file(directory.join("tls.key")).unwrap();
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(chain.collect(), key).unwrap();
        Self::listen(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let collector = Self {
            url: format!("{scheme}://{}", listener.local_addr().unwrap()),
            connections: Arc::default(),
            heads: Arc::default(),
            requests: Arc::default(),
            status: Arc::new(Mutex::new(StatusCode::OK)),
        };
        let (connections, heads) = (collector.connections.clone(), collector.heads.clone());
        let (requests, status) = (collector.requests.clone(), collector.status.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (tls, heads, requests, status) =
                    (tls.clone(), heads.clone(), requests.clone(), status.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &heads, &requests, &status).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &heads, &requests, &status).await;
                            }
                        }
                    }
                });
            }
        });
        collector
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    async fn has(&self, spans: usize) {
        let begin = Instant::now();
        while self.spans().len() < spans {
            assert!(begin.elapsed() < PATIENCE, "no {spans} spans arrive");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(self.spans().len(), spans);
    }
}

/// Answers the requests of a connection, and records those that it accepts.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    heads: &Mutex<Vec<hyper::http::request::Parts>>,
    requests: &Mutex<Vec<ExportTraceServiceRequest>>,
    status: &Mutex<StatusCode>,
) {
    let answer = async |request: Request<Incoming>| {
        let (head, body) = request.into_parts();
        assert_eq!(head.method, Method::POST);
        let body = body.collect().await.unwrap().to_bytes();
        let status = *status.lock();
        if status.is_success() {
            requests.lock().push(ExportTraceServiceRequest::decode(body).unwrap());
            heads.lock().push(head);
        }
        let answer = Response::builder().status(status).body(Full::new(Bytes::new())).unwrap();
        Ok::<_, Infallible>(answer)
    };
    // The test sees an error of the connection on the exporter's side.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.clone()) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(&attribute.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
