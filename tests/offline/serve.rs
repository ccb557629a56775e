//! The real binary: its flags, its ports, its start and its end.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{self, Client, PATIENCE, Server, bound_daemon_pod, get_plain, run};

#[tokio::test]
async fn serves_admission_over_both_http_versions() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let client = Client::http1(server.address, &server.ca()).await.unwrap();
    let client2 = Client::http2(server.address, &server.ca()).await.unwrap();
    for mut client in [client, client2] {
        let answer = client.post("/mutate?timeout=10s", bound_daemon_pod()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["content-length"], answer.body.len().to_string().as_str());
        assert!(!answer.headers.contains_key("retry-after"));
        let answer = answer.json();
        assert_eq!(answer["kind"], "AdmissionReview");
        assert_eq!(answer["response"]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
    }
    let patched =
        r#"daemonset_warden_admission_requests_total{operation="create",outcome="patched",webhook="mutate"}"#;
    assert_eq!(server.metric(patched).await, 2.0);
    let (status, log) = server.stop();
    assert!(status.success());
    // stderr is no terminal here, so each line of the log is a JSON object.
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    let reviewed: Vec<_> = lines.iter().filter(|line| line["message"] == "reviewed").collect();
    assert_eq!(reviewed.len(), 2, "{log}");
    assert_eq!(reviewed[0]["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(reviewed[0]["namespace"], "default");
    assert_eq!(reviewed[0]["verdict"], "patched");
    assert!(reviewed[0]["duration_us"].is_u64());
}

#[tokio::test]
async fn health_is_on_both_ports() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.client().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(client.get(path).await.text(), "ok");
        assert_eq!(get_plain(server.metrics, path).await.text(), "ok");
    }
    assert_eq!(client.get("/metrics").await.status, StatusCode::NOT_FOUND, "only on the metrics port");
    let metrics = get_plain(server.metrics, "/metrics").await;
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(metrics.text().contains("daemonset_warden_build_info{version=\""));
}

#[tokio::test]
async fn wrong_paths_and_methods_are_told_in_json() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.client().await;
    let answer = client.get("/mutate").await;
    assert_eq!(
        (answer.status, &answer.headers["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
    assert!(answer.json()["error"].is_string());
    let answer = client.send(Method::POST, "/nothing", "").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.json()["error"], r#"there is no "/nothing" here"#);
    assert_eq!(server.metric(r#"daemonset_warden_http_errors_total{code="405"}"#).await, 1.0);
}

#[test]
fn bad_flags_are_one_line_and_exit_1() {
    for args in [
        &["serve", "--no-such-flag"][..],
        &["serve", "--secure-port", "x"],
        &["serve", "--tls-cert-file", "only-this.crt"],
        &["serve", "--bind-address", "localhost"],
        &["nonsense"],
    ] {
        let (code, stdout, stderr) = run(args);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
    let (code, stdout, _) = run(&["--version"]);
    assert_eq!((code, stdout), (Some(0), format!("daemonset-warden {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, stdout, _) = run(&["serve", "--help"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("--client-ca-file"), "{stdout}");
}

#[test]
fn what_cannot_be_used_is_one_line_and_exit_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, port) =
        (taken.local_addr().unwrap().to_string(), taken.local_addr().unwrap().port().to_string());
    std::fs::write(path("empty"), "").unwrap();
    let cases: [(&[&str], &str); 6] = [
        (&["--secure-port", &port], "failed to listen on 127.0.0.1"),
        (&["--metrics-bind-address", &address], "Address already in use"),
        (&["--tls-cert-file", &path("no"), "--tls-private-key-file", &path("no")], "No such file"),
        (
            &["--tls-cert-file", &path("empty"), "--tls-private-key-file", &path("empty")],
            "holds no certificate",
        ),
        (&["--client-ca-file", &path("empty")], "holds no certificate"),
        (&["--config", &path("no.yaml")], "failed to read"),
    ];
    for (args, expected) in cases {
        let certs = path("certs");
        let mut all = vec!["serve"];
        if !args.contains(&"--secure-port") {
            all.extend(["--secure-port", "0"]);
        }
        if !args.contains(&"--metrics-bind-address") {
            all.extend(["--metrics-bind-address", "127.0.0.1:0"]);
        }
        all.extend(["-v=0", "--cert-dir", &certs]);
        all.extend(args);
        let (code, stdout, stderr) = run(&all);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.contains(expected), "{args:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

#[test]
fn every_fault_of_the_configuration_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("warden.yaml");
    std::fs::File::create(&file)
        .unwrap()
        .write_all(b"apiVersion: v1\nreservation: {mode: Sometimes, holdTimeout: 10, holdTimeuot: 1m}\n")
        .unwrap();
    let (code, _, stderr) = run(&["serve", "--config", file.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    for expected in [
        "has 5 faults:",
        "  apiVersion: is \"v1\"; it must be config.daemonset-warden.io/v1alpha1",
        "  kind: is missing; it must be DaemonSetWardenConfiguration",
        "  reservation.mode: must be one of Enforce, Audit, Off, not \"Sometimes\"",
        "  reservation.holdTimeout: must be a duration like 90s, 10m or 1h30m, not 10",
        "  reservation.holdTimeuot: is no known field; did you mean holdTimeout?",
    ] {
        assert!(stderr.lines().any(|line| line.ends_with(expected)), "{expected} in {stderr}");
    }
}

#[tokio::test]
async fn sigterm_ends_idle_connections_and_answers_what_is_in_work() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let mut idle = server.client().await;
    idle.get("/livez").await;
    // A request without its last byte.
    let config = support::tls_config(&server.ca(), None, &[b"http/1.1"]);
    let mut in_work = support::connect(server.address, config).await.unwrap();
    let body = bound_daemon_pod();
    let head = format!("POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    in_work.write_all(head.as_bytes()).await.unwrap();
    in_work.write_all(&body.as_bytes()[..body.len() - 1]).await.unwrap();
    in_work.flush().await.unwrap();
    let begin = Instant::now();
    while server.metric("daemonset_warden_http_requests_in_flight").await != 1.0 {
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    server.signal("TERM");
    // The idle connection ends while the other request is still in work.
    let begin = Instant::now();
    while idle.try_send(Method::GET, "/livez", Vec::new()).await.is_ok() {
        assert!(begin.elapsed() < PATIENCE);
    }
    assert!(support::connect(server.address, support::tls_config(&server.ca(), None, &[])).await.is_err());

    in_work.write_all(&body.as_bytes()[body.len() - 1..]).await.unwrap();
    let mut answer = Vec::new();
    in_work.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("JSONPatch"), "{answer}");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("SIGTERM"));
}

#[tokio::test]
async fn starts_quickly_with_certificates_present() {
    let directory = tempfile::tempdir().unwrap();
    Server::start(directory.path(), &[]).stop();
    // Other tests run at the same time, so some starts are slow; the fastest shows the time that the program needs.
    let quick = (0..20).any(|_| {
        let begin = Instant::now();
        let server = Server::start(directory.path(), &[]);
        let took = begin.elapsed();
        server.stop();
        took < Duration::from_millis(100)
    });
    assert!(quick);
}
