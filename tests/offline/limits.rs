//! Clients that send too much, too slowly, or nothing: each gets an error or is disconnected, and other clients are served.

mod connections;

use std::time::Duration;

use daemonset_warden::server::http::limits::Limits;
use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::{Client, Local, PATIENCE, bound_daemon_pod, review};

const SHORT: Duration = Duration::from_millis(200);

fn limits() -> Limits {
    Limits::default()
}

/// Returns the bytes until the server ends the connection.
async fn rest(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut bytes = Vec::new();
    // The server may also reset the connection.
    let _ =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_before_it_is_sent() {
    let server = Local::start(limits()).await;
    let mut stream = server.raw().await;
    let head = "POST /scheduler/filter HTTP/1.1\r\nhost: a\r\ncontent-length: 67108865\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("connection: close") && answer.ends_with("}"), "{answer}");
}

#[tokio::test]
async fn a_review_of_9_mib_is_answered_by_its_start() {
    let server = Local::start(limits()).await;
    let kind = r#"{"group":"apps","version":"v1","kind":"DaemonSet"}"#;
    let padding = format!(r#"{{"metadata":{{"name":"a"}},"spec":"{}"}}"#, "<".repeat(9 << 20));
    let body = review("CREATE", kind, &padding, "null");
    for mut client in [
        Client::http1(server.address, &server.ca()).await.unwrap(),
        Client::http2(server.address, &server.ca()).await.unwrap(),
    ] {
        let answer = client.post("/validate", body.clone()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.json()["response"]["allowed"], false);
    }
}

#[tokio::test]
async fn a_client_that_sends_9_mib_reads_its_413() {
    let server = Local::start(limits()).await;
    for client in [
        Client::http1(server.address, &server.ca()).await.unwrap(),
        Client::http2(server.address, &server.ca()).await.unwrap(),
    ] {
        let mut client = client;
        let answer = client.post("/mutate", vec![b' '; 9 << 20]).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.json()["error"], "the body is larger than 8388608 bytes");
    }
}

#[tokio::test]
async fn a_chunked_body_is_stopped_at_the_limit() {
    let server = Local::start(Limits { admission_body: 1_000, ..limits() }).await;
    let mut stream = server.raw().await;
    stream
        .write_all(b"POST /mutate HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let chunk = format!("64\r\n{}\r\n", "a".repeat(100));
    for _ in 0..11 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 413 "));
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_an_idle_connection_is_not() {
    let server = Local::start(Limits { header_time: SHORT, ..limits() }).await;
    let mut idle = server.client().await;
    idle.get("/livez").await;
    let never_used = server.client().await;
    let mut slow = server.raw().await;
    slow.write_all(b"POST /mutate HTT").await.unwrap();
    assert_eq!(rest(&mut slow).await, "");
    // Also on a connection that was used before.
    let mut slow = server.raw().await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 15];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    tokio::time::sleep(SHORT / 10).await;
    slow.write_all(b"GET /livez").await.unwrap();
    rest(&mut slow).await;
    server.metric_becomes(r#"daemonset_warden_connections_cut_total{reason="header_time"}"#, 2.0).await;
    // Both connections have been idle for longer than the limit of a head.
    assert_eq!(idle.get("/livez").await.status, StatusCode::OK);
    let mut never_used = never_used;
    assert_eq!(never_used.get("/livez").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_slow_body_is_408() {
    let server = Local::start(Limits { body_time: SHORT, ..limits() }).await;
    let mut stream = server.raw().await;
    stream.write_all(b"POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn idle_connections_end() {
    let server = Local::start(Limits { idle_time: SHORT, ..limits() }).await;
    let mut http1 = server.raw().await;
    http1.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(rest(&mut http1).await.starts_with("HTTP/1.1 200 OK"));
    let mut http2 = Client::http2(server.address, &server.ca()).await.unwrap();
    http2.get("/livez").await;
    server.metric_becomes(r#"daemonset_warden_connections_cut_total{reason="idle"}"#, 2.0).await;
}

#[tokio::test]
async fn a_silent_handshake_ends() {
    let server = Local::start(Limits { handshake_time: SHORT, ..limits() }).await;
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    // The connection closes a moment before it is counted.
    server.metric_becomes(r#"daemonset_warden_connections_cut_total{reason="handshake_time"}"#, 1.0).await;
    // Also a connection that sends no handshake.
    let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut alert = Vec::new();
    let _ = stream.read_to_end(&mut alert).await;
    server.metric_becomes(r#"daemonset_warden_connections_cut_total{reason="handshake_failed"}"#, 1.0).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let server = Local::start(Limits { write_time: SHORT, ..limits() }).await;
    let mut stream = server.raw().await;
    // Responses that the client does not read fill every buffer.
    let request = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1_000);
    let write = async { while stream.write_all(&request).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, write).await.expect("the connection ends");
    server.metric_becomes(r#"daemonset_warden_connections_cut_total{reason="write_time"}"#, 1.0).await;
}

#[tokio::test]
async fn where_there_are_too_many_requests_the_slowest_is_shed_at_once() {
    let server = Local::start(Limits { requests: 1, ..limits() }).await;
    let mut slow = server.raw().await;
    slow.write_all(b"POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n").await.unwrap();
    server.metric_becomes("daemonset_warden_http_requests_in_flight", 1.0).await;
    let mut client = server.client().await;
    assert_eq!(client.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(!answer.contains("retry-after"), "the apiserver would repeat the request ten times");
    assert_eq!(server.metric(r#"daemonset_warden_http_requests_shed_total{reason="requests"}"#).await, 1.0);
    server.metric_becomes("daemonset_warden_http_requests_in_flight", 0.0).await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_431() {
    let server = Local::start(limits()).await;
    let mut stream = server.raw().await;
    let head = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(20_000));
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 431 "));
}

#[tokio::test]
async fn draining_gives_up_on_what_never_ends() {
    let server = Local::start(Limits { drain_time: SHORT, ..limits() }).await;
    let mut slow = server.raw().await;
    slow.write_all(b"POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n").await.unwrap();
    server.metric_becomes("daemonset_warden_http_requests_in_flight", 1.0).await;
    server.drain.send_replace(true);
    let answered = tokio::time::timeout(PATIENCE, server.serving).await.unwrap().unwrap();
    assert!(!answered);
}
