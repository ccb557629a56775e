//! The tasks that run for as long as the process: the end of any of them ends the process, and until then no pod is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use daemonset_warden::cli::{Cli, Command};
use daemonset_warden::command::long_tasks::LongTasks;
use daemonset_warden::command::serve;
use daemonset_warden::policy::Policy;
use daemonset_warden::server::http::listener::Ports;
use daemonset_warden::telemetry::metrics::Metrics;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::sources::{is_test_file, root, rust_files};
use super::support::{self, Client, PATIENCE, get_plain};

/// The places of the code that start tasks or threads.
const STARTS: &[&str] =
    &["tokio::spawn(", "task::spawn(", "JoinSet", "thread::spawn(", "thread::Builder", "spawn_local"];

/// The files that may, and the one who waits for their tasks. Every other task belongs to `LongTasks`.
const WAITED_FOR: &[(&str, &str)] = &[
    ("src/command/long_tasks.rs", "serve"),
    ("src/command/serve.rs", "serve: the task of both ports"),
    ("src/server/http/listener.rs", "the loop of its port: a task is one connection, and ends with it"),
    ("src/server/http/workers.rs", "Ports::serve: a thread that panics ends the server"),
    ("src/tls/rotator.rs", "the rotator's loop: it ends when one of its watches does"),
    ("src/telemetry/logs.rs", "nobody: the thread only flushes, at the end of the process"),
    ("src/telemetry/otlp.rs", "flush: the thread only flushes, at the end of the process"),
];

#[test]
fn every_task_is_waited_for() {
    let mut found = BTreeMap::new();
    for file in rust_files(&root().join("src")) {
        let path = file.strip_prefix(root()).unwrap();
        if is_test_file(path) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let code: String = code.lines().map(|line| line.split("//").next().unwrap()).collect();
        let starts: Vec<_> = STARTS.iter().filter(|start| code.contains(*start)).collect();
        if !starts.is_empty() {
            found.insert(path.to_str().unwrap().to_owned(), starts);
        }
    }
    let known: Vec<_> = WAITED_FOR.iter().map(|(file, _)| (*file).to_owned()).collect();
    let unknown: Vec<_> = found.iter().filter(|(file, _)| !known.contains(file)).collect();
    assert!(unknown.is_empty(), "who waits for these? {unknown:?}");
    assert!(known.iter().all(|file| found.contains_key(file)), "a file of WAITED_FOR starts nothing");
}

/// Room is reserved on n1 for a pod that waits; another pod would take it.
#[test]
fn a_task_that_panics_ends_the_refusals_and_the_process() {
    support::crypto();
    let directory = tempfile::tempdir().unwrap();
    let apiserver = FakeApiserver::start();
    let kubeconfig = directory.path().join("kubeconfig");
    fs::write(&kubeconfig, apiserver.kubeconfig()).unwrap();
    let certs = directory.path().join("certs");
    let args = ["daemonset-warden", "serve", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let args = [&args[..], &["--cert-dir", certs.to_str().unwrap()]].concat();
    let Command::Serve(args) = Cli::try_parse_from(args).unwrap().command else { panic!("serve") };
    let (tell, addresses) = std::sync::mpsc::channel();
    let (panic_now, told_to_panic) = oneshot::channel::<()>();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = std::thread::spawn(move || {
        runtime().block_on(async {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let ports = Ports::bind(any, any).unwrap();
            tell.send(ports.addresses().unwrap()).unwrap();
            let mut tasks = LongTasks::default();
            tasks.spawn("a test", async {
                let _ = told_to_panic.await;
                panic!("a test");
            });
            let metrics = Arc::new(Metrics::default());
            serve::serve(&args, Policy::default(), metrics, ports, tasks, std::future::pending).await
        })
    });
    let (secure, metrics) = addresses.recv().unwrap();
    runtime().block_on(async {
        let begin = Instant::now();
        while get_plain(metrics, "/readyz").await.status != 200 {
            assert!(begin.elapsed() < PATIENCE, "not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ca = certs.join("ca.crt");
        let args = json!({"Pod": ordinary_pod(), "NodeNames": ["n1"]}).to_string();
        let mut client = Client::http1(secure, &ca).await.unwrap();
        let answer = client.post("/scheduler/filter", args.clone()).await.json();
        assert!(answer["FailedAndUnresolvableNodes"]["n1"].is_string(), "{answer}");
        // A request without its last byte.
        let config = support::tls_config(&ca, None, &[b"http/1.1"]);
        let mut in_flight = support::connect(secure, config.clone()).await.unwrap();
        let head =
            format!("POST /scheduler/filter HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", args.len());
        in_flight.write_all(head.as_bytes()).await.unwrap();
        in_flight.write_all(&args.as_bytes()[..args.len() - 1]).await.unwrap();
        in_flight.flush().await.unwrap();
        let series = "daemonset_warden_http_requests_in_flight 1";
        while !get_plain(metrics, "/metrics").await.text().contains(series) {
            assert!(begin.elapsed() < PATIENCE, "the request does not come");
        }
        panic_now.send(()).unwrap();
        while support::connect(secure, config.clone()).await.is_ok() {
            assert!(begin.elapsed() < PATIENCE, "the process goes on");
        }
        in_flight.write_all(&args.as_bytes()[args.len() - 1..]).await.unwrap();
        let mut answer = Vec::new();
        in_flight.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains(r#""NodeNames":["n1"]"#), "refused by a cache that nobody feeds: {answer}");
    });
    let error = server.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), r#"the task "a test" has panicked"#);
}

fn ordinary_pod() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "default", "uid": "p"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "900m"}}}]},
    })
}

/// An apiserver with one node, and a DaemonSet whose pod for it waits. It has lists and watches, without events.
struct FakeApiserver(SocketAddr);

impl FakeApiserver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The threads end with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || answer(stream));
            }
        });
        Self(address)
    }

    fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", self.0)}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string()
    }
}

/// Answers one request.
fn answer(mut stream: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let (path, query) = head.split(' ').nth(1).unwrap().split_once('?').unwrap_or_default();
    if query.contains("watch=true") {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        std::thread::sleep(PATIENCE);
        return;
    }
    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items(path)});
    let (status, body) = match head.starts_with("GET /api") && !query.is_empty() {
        true => ("200 OK", list.to_string()),
        false => ("404 Not Found", json!({"kind": "Status", "apiVersion": "v1", "code": 404}).to_string()),
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
}

fn items(path: &str) -> Value {
    let containers = json!([{"name": "c", "resources": {"requests": {"cpu": "300m"}}}]);
    match path.rsplit('/').next().unwrap() {
        "namespaces" => json!([{"metadata": {"name": "default", "uid": "default"}}]),
        "nodes" => json!([{
            "metadata": {"name": "n1", "uid": "n1"},
            "status": {"allocatable": {"cpu": "1", "memory": "4Gi", "pods": "10"}},
        }]),
        "daemonsets" => json!([{
            "metadata": {"name": "d", "namespace": "default", "uid": "d"},
            "spec": {
                "selector": {"matchLabels": {"app": "d"}},
                "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}},
            },
        }]),
        "pods" => json!([{
            "metadata": {
                "name": "d-1", "namespace": "default", "uid": "d-1", "labels": {"app": "d"},
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "d", "controller": true}
                ],
            },
            "spec": {
                "schedulerName": "default-scheduler",
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}
                    ],
                }}},
                "containers": containers,
            },
            "status": {"phase": "Pending"},
        }]),
        _ => json!([]),
    }
}
