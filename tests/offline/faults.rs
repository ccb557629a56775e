//! Faults around the real binary: files, the disk, the apiserver, the process itself. The server logs the fault, goes on serving
//! and recovers.

mod clock;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde_json::json;

use super::support::{Client, PATIENCE, Server, bound_daemon_pod, get_plain, run, warden};

/// Makes writes to files fail in this shell and its children, as on a full disk. Pipes are not limited.
const DISK_FULL: &str = "trap '' XFSZ; ulimit -f 0";

async fn serves(server: &Server) {
    let mut client = server.client().await;
    assert_eq!(client.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !is_so().await {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_in_one_line() {
    // Also root cannot write here.
    let file = tempfile::NamedTempFile::new().unwrap();
    for folder in ["/proc/daemonset-warden", file.path().join("certs").to_str().unwrap()] {
        let ports = ["--secure-port", "0", "--metrics-bind-address", "127.0.0.1:0"];
        let (code, stdout, stderr) = run(&[&["serve", "--cert-dir", folder], &ports[..]].concat());
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        let last = stderr.lines().last().unwrap();
        assert!(last.starts_with("error: ") && last.contains(folder), "{stderr}");
    }
}

#[tokio::test]
async fn a_full_disk_leaves_no_half_certificate() {
    full_disk(DISK_FULL).await;
    // Room for a key, and too little for a certificate.
    full_disk("trap '' XFSZ; ulimit -f 1").await;
}

async fn full_disk(shell: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    let serve = format!(
        "{shell}; exec {} serve --secure-port 0 --metrics-bind-address 127.0.0.1:0 --cert-dir {path}",
        env!("CARGO_BIN_EXE_daemonset-warden")
    );
    let output = std::process::Command::new("sh").args(["-c", &serve]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.lines().last().unwrap().contains("File too large"), "{stderr}");
    // Then the disk has room again.
    serves(&Server::start(directory.path(), &[])).await;
    assert_only_whole_files(directory.path());
}

fn assert_only_whole_files(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let is_known = ["ca.crt", "ca.key", "tls.crt", "tls.key"].contains(&name.as_str());
        // A lock file is empty.
        assert!(is_known && entry.metadata().unwrap().len() > 0 || name.contains("lock"), "{name}");
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_does_not_take_the_certificate_in_use() {
    let directory = tempfile::tempdir().unwrap();
    Server::start(directory.path(), &[]).stop();
    let server = Server::start_after(DISK_FULL, directory.path(), &[]);
    serves(&server).await;
    fs::remove_file(directory.path().join("tls.crt")).unwrap();
    until("the failure is counted", async || {
        server.metric("daemonset_warden_certificate_reload_failures_total").await > 0.0
    })
    .await;
    serves(&server).await;
    let (status, log) = server.stop();
    assert!(status.success() && log.contains("kept the certificate in use"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_comes_back_with_the_same_ca() {
    let directory = tempfile::tempdir().unwrap();
    Server::start(directory.path(), &[]).stop();
    let ca = fs::read(directory.path().join("ca.crt")).unwrap();
    for _ in 0..3 {
        let server = Server::start(directory.path(), &[]);
        let clients = under_load(&server).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.signal("KILL");
        let mut answered = 0;
        for client in clients {
            answered += client.await.unwrap();
        }
        assert!(answered > 0, "it was under load");
        server.wait();
    }
    let server = Server::start(directory.path(), &[]);
    serves(&server).await;
    assert_eq!(fs::read(directory.path().join("ca.crt")).unwrap(), ca);
    assert_only_whole_files(directory.path());
}

/// Starts clients that send requests until the server ends. Each returns the number of right answers, and panics at a wrong one.
async fn under_load(server: &Server) -> Vec<tokio::task::JoinHandle<usize>> {
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = server.client().await;
        client.get("/livez").await;
        clients.push(tokio::spawn(load(client)));
    }
    clients
}

async fn load(mut client: Client) -> usize {
    let mut answered = 0;
    while let Ok(answer) = client.try_send(Method::POST, "/mutate", bound_daemon_pod().into_bytes()).await {
        assert_eq!(answer.json()["response"]["patchType"], "JSONPatch");
        answered += 1;
    }
    answered
}

#[tokio::test]
async fn sigterm_under_load_answers_every_request_that_was_taken() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let clients = under_load(&server).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.signal("TERM");
    let mut answered = 0;
    for client in clients {
        answered += client.await.unwrap();
    }
    assert!(answered > 0, "it was under load");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[tokio::test]
async fn with_few_files_silent_connections_give_way_to_newcomers() {
    let directory = tempfile::tempdir().unwrap();
    // Makes the CA first, because the start with a new CA may need more than 48 files.
    Server::start(directory.path(), &[]).stop();
    let server = Server::start_after("ulimit -n 96", directory.path(), &[]);
    let mut first = server.client().await;
    assert_eq!(first.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
    // More connections than the process may open, on the TLS port.
    let silent: Vec<_> = (0..120).filter_map(|_| TcpStream::connect(server.address).ok()).collect();
    assert!(silent.len() > 96);
    assert_eq!(
        first.post("/mutate", bound_daemon_pod()).await.status,
        StatusCode::OK,
        "an open connection is served"
    );
    // The metrics port has its own share of the open files.
    assert_eq!(get_plain(server.metrics, "/livez").await.status, StatusCode::OK);
    for _ in 0..3 {
        serves(&server).await;
    }
    assert_eq!(server.metric("daemonset_warden_accept_errors_total").await, 0.0);
    drop(silent);
    serves(&server).await;
    let (status, log) = server.stop();
    assert!(status.success() && log.contains("too few open files are allowed"), "{log}");
}

#[test]
fn the_soft_limit_of_files_is_raised() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start_after("ulimit -S -n 256", directory.path(), &[]);
    let hard = std::process::Command::new("sh").args(["-c", "ulimit -H -n"]).output().unwrap().stdout;
    let (_, log) = server.stop();
    // The soft limit cannot be raised above a hard limit that is as low.
    if String::from_utf8(hard).unwrap().trim().parse().unwrap_or(u64::MAX) >= 8_192 {
        assert!(!log.contains("too few open files"), "{log}");
    }
}

/// Wrong responses of an apiserver.
const RUBBISH: [(&str, &[u8]); 8] = [
    ("no HTTP", b"\x00\xff\x16\x03rubbish\r\n\r\n"),
    ("a page", b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\nconnection: close\r\n\r\n<html></html>"),
    ("half an object", b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\nconnection: close\r\n\r\n{\"kind\":\"NodeL"),
    ("no list", b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\nconnection: close\r\n\r\n{\"items\":[1,2,{}]}"),
    ("an error", b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
    ("too many requests", b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
    ("elsewhere", b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
    ("nothing", b""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apiserver_that_answers_rubbish_is_no_reason_to_fall() {
    let mut all = Vec::new();
    for (name, answer) in RUBBISH {
        all.push(tokio::task::spawn_blocking(move || {
            let apiserver = Apiserver::start(move |mut stream| {
                let _ = stream.read(&mut [0; 4_096]);
                let _ = stream.write_all(answer);
            });
            (name, apiserver)
        }));
    }
    for started in all {
        let (name, apiserver) = started.await.unwrap();
        survives(name, &apiserver).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_apiserver_that_drips_or_never_ends_is_no_reason_to_grow() {
    let slow = Apiserver::start(|mut stream| {
        let _ = stream.read(&mut [0; 4_096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"items\":[");
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    survives("drips", &slow).await;
}

/// Starts the binary with `apiserver` as its cluster. It must be live, not ready, answer requests, log little and stay small.
async fn survives(name: &str, apiserver: &Apiserver) {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    fs::write(&kubeconfig, apiserver.kubeconfig()).unwrap();
    let server = Server::start(directory.path(), &["--kubeconfig", kubeconfig.to_str().unwrap()]);
    until("it has asked", async || apiserver.asked() >= 3).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(get_plain(server.metrics, "/livez").await.status, StatusCode::OK, "{name}");
    assert_eq!(get_plain(server.metrics, "/readyz").await.status, StatusCode::SERVICE_UNAVAILABLE, "{name}");
    let mut client = server.client().await;
    assert_eq!(client.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK, "{name}");
    let args = json!({"Pod": {"metadata": {"name": "p", "uid": "u"}}, "NodeNames": ["n1"]});
    let filtered = client.post("/scheduler/filter", args.to_string()).await.json();
    assert_eq!(filtered["NodeNames"], json!(["n1"]), "{name}");
    assert!(server.peak_mib() < 100, "{name}: {} MiB", server.peak_mib());
    let (status, log) = server.stop();
    assert!(status.success(), "{name}: {log}");
    assert!(log.lines().count() < 100, "{name}: {} lines of log", log.lines().count());
    assert!(!log.contains("panicked"), "{name}: {log}");
}

/// A listener at the address of the kubeconfig.
struct Apiserver {
    address: SocketAddr,
    asked: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Apiserver {
    fn start(answer: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        // The thread ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let answer = answer.clone();
                std::thread::spawn(move || answer(stream));
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string()
    }
}

#[test]
fn explain_gives_up_on_an_apiserver_that_answers_rubbish() {
    for (name, answer) in RUBBISH.iter().filter(|(name, _)| !name.contains("too many")) {
        let apiserver = Apiserver::start(move |mut stream| {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(answer);
        });
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        fs::write(kubeconfig.path(), apiserver.kubeconfig()).unwrap();
        let output =
            warden(&["explain", "--kubeconfig", kubeconfig.path().to_str().unwrap()]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {stderr}");
        assert!(stderr.starts_with("error: "), "{name}: {stderr}");
    }
}
