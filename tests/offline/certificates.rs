//! Certificates: created, reused, renewed and loaded while the server runs; and the clients that need one.

mod clients;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::support::{self, Client, PATIENCE, Server, bound_daemon_pod, run};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Returns the certificate that the server sends to a client that trusts `ca`.
async fn shown(server: &Server, ca: &Path) -> std::io::Result<CertificateDer<'static>> {
    let stream = support::connect(server.address, support::tls_config(ca, None, &[])).await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
}

/// A CA that the warden has not made, and its certificates.
pub(crate) struct OtherCa {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl OtherCa {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn sign(&self) -> (String, String) {
        self.sign_for(1975, 4000)
    }

    /// Returns a certificate that is valid from the first of January of one year to that of another, and its key.
    fn sign_for(&self, from: i32, to: i32) -> (String, String) {
        self.sign_between(rcgen::date_time_ymd(from, 1, 1), rcgen::date_time_ymd(to, 1, 1))
    }

    fn sign_between(&self, from: OffsetDateTime, to: OffsetDateTime) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (from, to);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// Writes `ca.crt`, `tls.crt` and `tls.key`.
    pub(crate) fn write(&self, directory: &Path) {
        self.write_pair(directory, self.sign());
    }

    fn write_pair(&self, directory: &Path, (certificate, key): (String, String)) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("ca.crt"), &self.certificate).unwrap();
        fs::write(directory.join("tls.crt"), certificate).unwrap();
        fs::write(directory.join("tls.key"), key).unwrap();
    }
}

fn files(directory: &Path) -> [String; 4] {
    let path = |name| directory.join(name).to_str().unwrap().to_owned();
    ["--tls-cert-file".to_owned(), path("tls.crt"), "--tls-private-key-file".to_owned(), path("tls.key")]
}

fn start_with_files(directory: &Path) -> Server {
    Server::start(directory, &files(directory).each_ref().map(String::as_str))
}

/// Waits until the server sends another certificate to a client that trusts `ca`.
async fn shows_another(server: &Server, ca: &Path, before: &CertificateDer<'_>) {
    let begin = Instant::now();
    while shown(server, ca).await.is_ok_and(|now| now == *before) {
        assert!(begin.elapsed() < PATIENCE, "still the old certificate");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shown(server, ca).await.unwrap();
}

#[tokio::test]
async fn a_development_ca_is_made_kept_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path().join("new/certs");
    let server = Server::start(&certs, &[]);
    let first = shown(&server, &certs.join("ca.crt")).await.unwrap();
    for (name, expected) in [("ca.crt", 0o644), ("tls.crt", 0o644), ("ca.key", 0o600), ("tls.key", 0o600)] {
        assert_eq!(mode(&certs.join(name)), expected, "{name}");
    }
    let (_, certificate) = X509Certificate::from_der(&first).unwrap();
    let names = format!("{:?}", certificate.subject_alternative_name().unwrap().unwrap().value.general_names);
    for name in ["localhost", "[127, 0, 0, 1]", "daemonset-warden.kube-system.svc"] {
        assert!(names.contains(name), "{names}");
    }
    let expires = r#"daemonset_warden_certificate_expiration_timestamp_seconds{certificate="serving"}"#;
    assert_eq!(server.metric(expires).await, certificate.validity().not_after.timestamp() as f64);
    server.stop();

    let server = Server::start(&certs, &[]);
    assert_eq!(shown(&server, &certs.join("ca.crt")).await.unwrap(), first, "reused");
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_is_replaced_and_the_ca_stays() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    Server::start(certs, &[]).stop();
    let ca = fs::read(certs.join("ca.crt")).unwrap();
    let leaf = fs::read(certs.join("tls.crt")).unwrap();
    // The key of another pair, as after a crash between two renames.
    fs::write(certs.join("tls.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let server = Server::start(certs, &[]);
    shown(&server, &certs.join("ca.crt")).await.unwrap();
    assert_eq!(fs::read(certs.join("ca.crt")).unwrap(), ca);
    assert_ne!(fs::read(certs.join("tls.crt")).unwrap(), leaf);
    // Also while the server runs.
    let before = shown(&server, &certs.join("ca.crt")).await.unwrap();
    fs::remove_file(certs.join("tls.crt")).unwrap();
    shows_another(&server, &certs.join("ca.crt"), &before).await;
}

#[tokio::test]
async fn two_servers_share_a_folder() {
    let directory = tempfile::tempdir().unwrap();
    let servers: Vec<Server> = std::thread::scope(|scope| {
        let start = || scope.spawn(|| Server::start(directory.path(), &[]));
        let started: Vec<_> = (0..4).map(|_| start()).collect();
        started.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for server in &servers {
        shown(server, &directory.path().join("ca.crt")).await.unwrap();
    }
}

#[test]
fn files_of_others_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    OtherCa::new("kubernetes").write(directory.path());
    let before = fs::read(directory.path().join("ca.crt")).unwrap();
    let path = directory.path().to_str().unwrap();
    let (code, _, stderr) =
        run(&["serve", "--secure-port", "0", "--metrics-bind-address", "127.0.0.1:0", "--cert-dir", path]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("was not made by daemonset-warden and is left alone"), "{stderr}");
    assert_eq!(fs::read(directory.path().join("ca.crt")).unwrap(), before);
    assert!(!directory.path().join("ca.key").exists());
}

#[tokio::test]
async fn a_swapped_secret_is_taken_into_use_and_a_bad_one_is_not() {
    // As the kubelet mounts a Secret: the files are links into `..data`, a link to a folder, which it replaces in one step.
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path();
    let swap = |version: &str| {
        symlink(version, mount.join("..data_tmp")).unwrap();
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    };
    let ca = OtherCa::new("other");
    for version in ["..1", "..2", "..3"] {
        ca.write(&mount.join(version));
    }
    fs::write(mount.join("..2/tls.crt"), "-----BEGIN CERTIFICATE-----\nAAAA").unwrap();
    swap("..1");
    for name in ["ca.crt", "tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(name), mount.join(name)).unwrap();
    }
    let server = start_with_files(mount);
    let ca_file: PathBuf = mount.join("ca.crt");
    let first = shown(&server, &ca_file).await.unwrap();

    swap("..2");
    let begin = Instant::now();
    while server.metric("daemonset_warden_certificate_reload_failures_total").await == 0.0 {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(shown(&server, &ca_file).await.unwrap(), first, "the good pair stays in use");

    swap("..3");
    shows_another(&server, &ca_file, &first).await;
    assert_eq!(server.metric("daemonset_warden_certificate_reloads_total").await, 1.0);
    let (_, log) = server.stop();
    let lines = log.lines().filter(|line| line.contains("kept the certificate in use")).count();
    assert_eq!(lines, 1, "once, not at each look: {log}");
}

#[test]
fn a_certificate_and_a_key_of_different_pairs_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ca = OtherCa::new("other");
    ca.write(directory.path());
    fs::write(directory.path().join("tls.key"), ca.sign().1).unwrap();
    let [a, b, c, d] = files(directory.path());
    let (code, _, stderr) =
        run(&["serve", "--secure-port", "0", "--metrics-bind-address", "127.0.0.1:0", &a, &b, &c, &d]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("cannot be used together"), "{stderr}");
}

/// Returns the flags of a server in a cluster whose apiserver does not answer.
fn cluster(directory: &Path) -> [String; 2] {
    let kubeconfig = serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "none",
        "contexts": [{ "name": "none", "context": { "cluster": "none", "user": "none" } }],
        "clusters": [{ "name": "none", "cluster": { "server": "http://127.0.0.1:1" } }],
        "users": [{ "name": "none", "user": {} }],
    });
    let path = directory.join("kubeconfig");
    fs::write(&path, kubeconfig.to_string()).unwrap();
    ["--kubeconfig".to_owned(), path.to_str().unwrap().to_owned()]
}

const FAILURES: &str = "daemonset_warden_certificate_reload_failures_total";
const RELOADS: &str = "daemonset_warden_certificate_reloads_total";

/// Waits until a metric has grown.
async fn grows(server: &Server, series: &str, from: f64) {
    let begin = Instant::now();
    while server.metric(series).await <= from {
        assert!(begin.elapsed() < PATIENCE, "{series} stays {from}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn in_a_cluster_a_bad_pair_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let ca = OtherCa::new("other");
    ca.write(directory.path());
    fs::write(directory.path().join("tls.key"), ca.sign().1).unwrap();
    let args = [&files(directory.path())[..], &cluster(directory.path())].concat();
    let server = Server::start(directory.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(shown(&server, &server.ca()).await.is_err(), "no client trusts the certificate");
    assert!(server.metric(FAILURES).await >= 1.0);
    assert_eq!(server.metric("daemonset_warden_ready").await, 0.0);
    let expires = r#"daemonset_warden_certificate_expiration_timestamp_seconds{certificate="serving"}"#;
    assert_eq!(server.metric(expires).await, 0.0, "there is no certificate");

    ca.write(directory.path());
    grows(&server, RELOADS, 0.0).await;
    shown(&server, &server.ca()).await.unwrap();
    let (_, log) = server.stop();
    let lines = log.lines().filter(|line| line.contains("no good certificate to serve with")).count();
    assert_eq!(lines, 1, "once, not at each look: {log}");
}

#[tokio::test]
async fn in_a_cluster_a_bad_client_ca_keeps_the_scheduler_out_and_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let (ca, clients) = (OtherCa::new("other"), directory.path().join("clients"));
    ca.write(directory.path());
    let known = OtherCa::new("clients");
    known.write(&clients);
    let client_ca = directory.path().join("client-ca.crt");
    fs::write(&client_ca, "garbage").unwrap();
    let flag = ["--client-ca-file".to_owned(), client_ca.to_str().unwrap().to_owned()];
    let args = [&files(directory.path())[..], &cluster(directory.path()), &flag].concat();
    let server = Server::start(directory.path(), &args.iter().map(String::as_str).collect::<Vec<_>>());
    let ask = async || {
        let identity = (clients.join("tls.crt"), clients.join("tls.key"));
        let identity = Some((identity.0.as_path(), identity.1.as_path()));
        let config = support::tls_config(&server.ca(), identity, &[b"http/1.1"]);
        let mut client = Client::with(server.address, config).await.unwrap();
        assert_eq!(client.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
        let args = br#"{"Pod":{"metadata":{"name":"a"},"spec":{"containers":[]}},"NodeNames":["n1"]}"#;
        client.post("/scheduler/filter", *args).await.status
    };
    assert_eq!(ask().await, StatusCode::UNAUTHORIZED);
    assert!(server.metric(FAILURES).await >= 1.0);

    // The server loads a new pair all the same.
    let before = shown(&server, &server.ca()).await.unwrap();
    ca.write(directory.path());
    shows_another(&server, &server.ca(), &before).await;
    let reloads = server.metric(RELOADS).await;
    fs::write(&client_ca, &known.certificate).unwrap();
    grows(&server, RELOADS, reloads).await;
    assert_eq!(ask().await, StatusCode::OK);
    let (_, log) = server.stop();
    assert!(log.contains("no client may call /scheduler/*, because there is no good client CA"), "{log}");
}

#[tokio::test]
async fn an_expired_pair_does_not_take_the_place_of_a_good_one_and_an_early_one_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let ca = OtherCa::new("other");
    ca.write(directory.path());
    let server = start_with_files(directory.path());
    let first = shown(&server, &server.ca()).await.unwrap();
    ca.write_pair(directory.path(), ca.sign_for(2000, 2001));
    grows(&server, FAILURES, 0.0).await;
    assert_eq!(shown(&server, &server.ca()).await.unwrap(), first);

    // Either clock may be wrong, and a renewed certificate must not wait for the clock of this machine.
    ca.write_pair(directory.path(), ca.sign_for(3000, 3001));
    grows(&server, RELOADS, 0.0).await;
    let from = r#"daemonset_warden_certificate_not_before_timestamp_seconds{certificate="serving"}"#;
    assert_eq!(server.metric(from).await, rcgen::date_time_ymd(3000, 1, 1).unix_timestamp() as f64);
    let (_, log) = server.stop();
    assert!(log.contains("has expired already") && log.contains("is not valid yet"), "{log}");
}

/// With HTTP/1.1 a scheduler finds another replica sooner when this one is lost with its node.
#[tokio::test]
async fn who_speaks_both_is_spoken_to_in_http1() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let (http1, http2): (&[u8], &[u8]) = (b"http/1.1", b"h2");
    let cases = [
        ("127.0.0.1", vec![http2, http1], Some(http1)),
        ("127.0.0.1", vec![http2], Some(http2)),
        ("127.0.0.1", vec![], None),
        ("localhost", vec![http2, http1], Some(http1)),
    ];
    for (host, offered, expected) in cases {
        let config = support::tls_config(&server.ca(), None, &offered);
        let stream = support::connect_as(host, server.address, config).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), expected, "{host}, {offered:?}");
    }
}
