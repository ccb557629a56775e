//! Functions that the tests of the server share: the real binary on free ports, the server in this process with other limits,
//! and a client for HTTP/1.1 and HTTP/2 over TLS.

#![allow(unreachable_pub)] // a test crate has no outside

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use bytes::Bytes;
use daemonset_warden::policy::Policy;
use daemonset_warden::server;
use daemonset_warden::server::AppState;
use daemonset_warden::server::http::limits::Limits;
use daemonset_warden::server::http::listener::Ports;
use daemonset_warden::tls::{CertificateSource, Tls};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::image_environment::image_environment;

/// The longest time to wait for anything, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Installs rustls' provider, as main.rs does.
pub fn crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

/// Returns the command of the real binary, not started yet.
pub fn warden(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_daemonset-warden"));
    command.args(args).envs(image_environment()).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs the real binary to its end. Returns its exit code, stdout and stderr.
pub fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = warden(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The real binary as a running server. Killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    pub directory: PathBuf,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Server {
    /// Starts it on free ports, with its certificates in `directory` unless `args` say otherwise.
    pub fn start(directory: &Path, args: &[&str]) -> Self {
        Self::start_with(&[], directory, args)
    }

    /// Starts it with variables in its environment, otherwise as [`Self::start`].
    pub fn start_with(variables: &[(&str, &str)], directory: &Path, args: &[&str]) -> Self {
        let certs = directory.to_str().unwrap();
        let mut all =
            vec!["serve", "--secure-port", "0", "--metrics-bind-address", "127.0.0.1:0", "--cert-dir", certs];
        all.extend(args);
        let mut command = warden(&all);
        command.envs(variables.iter().copied());
        Self::spawn(directory, command)
    }

    /// Starts it by a shell that first runs `shell`, such as `ulimit -n 64`, otherwise as [`Self::start`].
    pub fn start_after(shell: &str, directory: &Path, args: &[&str]) -> Self {
        let certs = directory.to_str().unwrap();
        let serve =
            ["serve", "--secure-port", "0", "--metrics-bind-address", "127.0.0.1:0", "--cert-dir", certs];
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{shell}; exec \"$0\" \"$@\"")])
            .arg(env!("CARGO_BIN_EXE_daemonset-warden"));
        command.args(serve).args(args).env_remove("RUST_LOG").stdin(Stdio::null());
        Self::spawn(directory, command)
    }

    /// Starts `command`, which has its certificates in `directory`.
    pub fn spawn(directory: &Path, mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut log = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = log.read_to_string(&mut text);
            text
        });
        let Some((secure, metrics)) = addresses(&line) else {
            let _ = child.wait();
            panic!("not listening: {line:?}; {}", stderr.join().unwrap());
        };
        Self { child, address: secure, metrics, directory: directory.to_owned(), stderr: Some(stderr) }
    }

    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    pub async fn client(&self) -> Client {
        Client::http1(self.address, &self.ca()).await.unwrap()
    }

    /// Returns its peak memory so far.
    pub fn peak_mib(&self) -> u64 {
        self.status_kib("VmHWM:") / 1_024
    }

    /// Returns its resident memory.
    pub fn resident_mib(&self) -> f64 {
        self.status_kib("VmRSS:") as f64 / 1_024.0
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Returns its CPU time so far.
    pub fn processor_time(&self) -> Duration {
        processor_time(&self.child.id().to_string())
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end. Returns the exit status and the log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.stderr.take().unwrap().join().unwrap());
            }
            assert!(begin.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it by SIGTERM. Returns the exit status and the log.
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal("TERM");
        self.wait()
    }

    /// Returns the value of a series.
    pub async fn metric(&self, series: &str) -> f64 {
        metric(self.metrics, series).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the CPU time of a process so far.
pub fn processor_time(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Fields 14 and 15, in hundredths of a second. The name before them may contain anything.
    let mut fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11);
    let mut ticks = || fields.next().unwrap().parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks() + ticks()))
}

/// Parses the line on stdout: `listening on https://A (CA F), metrics on http://B`.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let (secure, metrics) =
        line.trim().strip_prefix("listening on https://")?.split_once(", metrics on http://")?;
    Some((secure.split(' ').next()?.parse().ok()?, metrics.parse().ok()?))
}

/// The server in this process, with smaller limits, so that a test need not wait for the real ones.
pub struct Local {
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    pub directory: tempfile::TempDir,
    pub drain: watch::Sender<bool>,
    pub serving: JoinHandle<bool>,
}

impl Local {
    pub async fn start(limits: Limits) -> Self {
        Self::start_with(limits, None).await
    }

    /// Starts it with a client CA, otherwise as [`Self::start`].
    pub async fn start_with(limits: Limits, client_ca: Option<PathBuf>) -> Self {
        crypto();
        let directory = tempfile::tempdir().unwrap();
        let state = AppState::new(Policy::default(), limits, client_ca.is_some());
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let source =
            CertificateSource::Development { directory: directory.path().to_owned(), address: any.ip() };
        let tls = Tls::load(source, client_ca, state.metrics.clone()).unwrap();
        let ports = Ports::bind(any, any).unwrap();
        let (address, metrics) = ports.addresses().unwrap();
        let (drain, draining) = watch::channel(false);
        let serving = server::serve(state.clone(), ports, Arc::new(tls), draining);
        let serving = tokio::spawn(async move { serving.await.unwrap() });
        state.readiness.set(true);
        Self { address, metrics, directory, drain, serving }
    }

    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    pub async fn client(&self) -> Client {
        Client::http1(self.address, &self.ca()).await.unwrap()
    }

    /// Opens a TLS connection without a request.
    pub async fn raw(&self) -> TlsStream<TcpStream> {
        connect(self.address, tls_config(&self.ca(), None, &[b"http/1.1"])).await.unwrap()
    }

    pub async fn metric(&self, series: &str) -> f64 {
        metric(self.metrics, series).await
    }

    /// Waits until a series has a value.
    pub async fn metric_becomes(&self, series: &str, value: f64) {
        let begin = Instant::now();
        while self.metric(series).await != value {
            assert!(begin.elapsed() < PATIENCE, "{series} does not become {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn metric(address: SocketAddr, series: &str) -> f64 {
    let text = get_plain(address, "/metrics").await.text();
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {series} in {text}")).rsplit(' ').next().unwrap().parse().unwrap()
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: hyper::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// One connection to a server.
pub enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub async fn http1(address: SocketAddr, ca: &Path) -> std::io::Result<Self> {
        Self::with(address, tls_config(ca, None, &[b"http/1.1"])).await
    }

    pub async fn http2(address: SocketAddr, ca: &Path) -> std::io::Result<Self> {
        Self::with(address, tls_config(ca, None, &[b"h2"])).await
    }

    pub async fn with(address: SocketAddr, config: ClientConfig) -> std::io::Result<Self> {
        Self::over(connect(address, config).await?).await
    }

    /// Returns a client that comes from the address `from`, which is a loopback one.
    pub async fn from(from: [u8; 4], address: SocketAddr, ca: &Path) -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from((from, 0)))?;
        let config = tls_config(ca, None, &[b"http/1.1"]);
        Self::over(shake_hands("localhost", socket.connect(address).await?, config).await?).await
    }

    /// Returns a client that speaks the version on which the handshake has agreed.
    pub async fn over(stream: TlsStream<TcpStream>) -> std::io::Result<Self> {
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            let executor = TokioExecutor::new();
            let (sender, connection) =
                http2::handshake(executor, TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            return Ok(Self::Http2(sender));
        }
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self::Http1(sender))
    }

    pub async fn try_send(&mut self, method: Method, path: &str, body: Vec<u8>) -> hyper::Result<Answer> {
        self.try_send_with(&[], method, path, body).await
    }

    async fn try_send_with(
        &mut self,
        headers: &[(&str, &str)],
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> hyper::Result<Answer> {
        let builder = Request::builder()
            .method(method)
            .uri(match self {
                Self::Http1(_) => path.to_owned(),
                Self::Http2(_) => format!("https://localhost{path}"),
            })
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json");
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        let request = builder.body(Full::new(Bytes::from(body))).unwrap();
        let exchange = async {
            let response = match self {
                Self::Http1(sender) => {
                    // The connection may not have read the end of the last response yet.
                    sender.ready().await?;
                    sender.send_request(request).await?
                }
                Self::Http2(sender) => sender.send_request(request).await?,
            };
            let (head, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: head.status, headers: head.headers, body })
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("an answer")
    }

    pub async fn send(&mut self, method: Method, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.try_send(method, path, body.into()).await.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// Sends a POST request with these headers.
    pub async fn post_with(&mut self, headers: &[(&str, &str)], path: &str, body: &str) -> Answer {
        self.try_send_with(headers, Method::POST, path, body.into()).await.unwrap()
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    pub async fn post(&mut self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.send(Method::POST, path, body).await
    }
}

/// Sends a GET request without TLS.
pub async fn get_plain(address: SocketAddr, path: &str) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    Client::Http1(sender).get(path).await
}

/// Returns a client's configuration, with the CA that it trusts and its certificate and key.
pub fn tls_config(ca: &Path, identity: Option<(&Path, &Path)>, alpn: &[&[u8]]) -> ClientConfig {
    crypto();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match identity {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

pub async fn connect(address: SocketAddr, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as("localhost", address, config).await
}

/// Connects as a client that knows the server by `host`, a name or an address.
pub async fn connect_as(
    host: &'static str,
    address: SocketAddr,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    shake_hands(host, TcpStream::connect(address).await?, config).await
}

async fn shake_hands(
    host: &'static str,
    stream: TcpStream,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    // Go's clients do the same.
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(host).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Returns a review of a daemon pod whose controller has set the node name `n1`.
pub fn bound_daemon_pod() -> String {
    review(
        "CREATE",
        r#"{"group":"","version":"v1","kind":"Pod"}"#,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"agent-","namespace":"default","ownerReferences":[{"apiVersion":"apps/v1","kind":"DaemonSet","name":"agent","uid":"1","controller":true}]},"spec":{"nodeName":"n1","containers":[{"name":"agent","image":"agent:1"}]}}"#,
        "null",
    )
}

/// Returns a review as an apiserver writes it.
pub fn review(operation: &str, kind: &str, object: &str, old_object: &str) -> String {
    format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","kind":{kind},"namespace":"default","operation":"{operation}","userInfo":{{"username":"system:serviceaccount:kube-system:daemon-set-controller"}},"object":{object},"oldObject":{old_object},"dryRun":false,"options":null}}}}"#
    )
}

/// Compares a text with a file of the repository; `UPDATE_GOLDEN=1` writes the file instead.
pub fn golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{file} is not what the code says; UPDATE_GOLDEN=1 cargo test writes it:\n{text}");
}
