//! Floods that would fill the log: reviews that are denied, and handshakes with text of the client's choice.

use std::io::Write;
use std::net::TcpStream;
use std::time::Instant;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::support::{Server, bound_daemon_pod, review};

/// The reviews of the flood: 1 MB of log, were each a line.
const REVIEWS: usize = 3_000;

fn denied_review() -> String {
    let object = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "d", "namespace": "default"},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "c:1"}]}}},
    });
    review("CREATE", r#"{"group":"apps","version":"v1","kind":"DaemonSet"}"#, &object.to_string(), "null")
}

#[tokio::test]
async fn denied_reviews_do_not_fill_the_log_and_hide_no_other_line() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.client().await;
    let (begin, body) = (Instant::now(), denied_review());
    for _ in 0..REVIEWS {
        let answer = client.post("/validate", body.clone()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json()["response"]["allowed"], false);
    }
    assert_eq!(client.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
    let left_out = server.metric(r#"daemonset_warden_log_lines_left_out_total{source="server"}"#).await;
    let most = 201 + 20 * (begin.elapsed().as_secs() as usize + 1);
    let (status, log) = server.stop();
    assert!(status.success());
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |verdict: &str| lines.iter().filter(|line| line["verdict"] == verdict).count();
    println!("{} bytes of log for {REVIEWS} denied reviews, {} lines of them", log.len(), of("denied"));
    assert!(of("denied") <= most, "{} of {REVIEWS}", of("denied"));
    assert_eq!(of("denied") + left_out as usize, REVIEWS);
    assert_eq!(of("patched"), 1, "another kind has its own limit");
    let reports = lines.iter().filter(|line| line["of"] == "validate denied" && line["like"] == "reviewed");
    assert_eq!(reports.map(|line| line["lines"].as_u64().unwrap()).sum::<u64>(), left_out as u64);
}

/// Each byte of such a name is seven in a line of JSON.
#[tokio::test]
async fn a_line_is_no_longer_for_names_that_are_escaped() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.client().await;
    let name = "\u{7f}".repeat(10_000);
    let body = denied_review()
        .replace("705ab4f5-6393-11e8-b7cc-42010a800002", &name)
        .replace("\"default\"", &format!("\"{name}\""))
        .replace(r#""name":"d""#, &format!(r#""name":"{name}""#));
    for _ in 0..50 {
        assert_eq!(client.post("/validate", body.clone()).await.json()["response"]["allowed"], false);
    }
    let (_, log) = server.stop();
    let longest = log.lines().filter(|line| line.contains("denied")).map(str::len).max().unwrap();
    println!("{longest} bytes for a line");
    assert!(longest < 1_400, "{longest}");
}

#[tokio::test]
async fn handshakes_with_a_bad_server_name_write_no_log() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let hello = client_hello(&[b'!'; 12_000]);
    let mut streams: Vec<_> = (0..100).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(&hello).unwrap();
    }
    let failed = r#"daemonset_warden_connections_cut_total{reason="handshake_failed"}"#;
    let begin = Instant::now();
    while server.metric(failed).await < 50.0 {
        assert!(begin.elapsed() < super::support::PATIENCE, "the handshakes do not fail");
    }
    let (status, log) = server.stop();
    assert!(status.success());
    assert!(log.len() < 10_000 && !log.contains("!!!"), "{} bytes of log", log.len());
}

/// Returns the first message of a client that names `host`.
fn client_hello(host: &[u8]) -> Vec<u8> {
    let with_length = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let names = with_length(&[&[0], with_length(host).as_slice()].concat());
    let extensions = with_length(&[&[0, 0], with_length(&names).as_slice()].concat());
    let ciphers = with_length(&[0x13, 0x01]);
    let message = [&[3, 3], [7; 32].as_slice(), &[0], &ciphers, &[1, 0], &extensions].concat();
    // Its kind, and a length of three bytes.
    let handshake = [&[1, 0], with_length(&message).as_slice()].concat();
    [&[0x16, 3, 1], with_length(&handshake).as_slice()].concat()
}
