//! More clients than places: connections without a request in flight give way to newcomers.

use daemonset_warden::server::http::limits::Limits;
use hyper::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{limits, rest};
use crate::certificates::OtherCa;
use crate::support::{Client, Local, PATIENCE, bound_daemon_pod, get_plain, tls_config};

const GAVE_WAY: &str = r#"daemonset_warden_connections_cut_total{reason="gave_way"}"#;
const SECURE: &str = r#"daemonset_warden_connections{port="secure"}"#;
const TOO_MANY: &str = r#"daemonset_warden_http_requests_shed_total{reason="connections"}"#;

/// Returns a client that has been answered once.
async fn answered(client: std::io::Result<Client>) -> Client {
    let mut client = client.unwrap();
    assert_eq!(client.get("/livez").await.status, StatusCode::OK);
    client
}

async fn is_open(client: &mut Client) -> bool {
    client.try_send(Method::GET, "/livez", Vec::new()).await.is_ok()
}

#[tokio::test]
async fn the_longest_idle_connection_gives_way() {
    let server = Local::start(Limits { connections: 3, ..limits() }).await;
    let mut used = answered(Client::http1(server.address, &server.ca()).await).await;
    let mut http2 = answered(Client::http2(server.address, &server.ca()).await).await;
    let mut http1 = answered(Client::http1(server.address, &server.ca()).await).await;
    assert!(is_open(&mut used).await);
    let mut newcomers = Vec::new();
    for _ in 0..2 {
        newcomers.push(answered(Client::http1(server.address, &server.ca()).await).await);
    }
    server.metric_becomes(GAVE_WAY, 2.0).await;
    assert!(!is_open(&mut http2).await && !is_open(&mut http1).await);
    assert!(is_open(&mut used).await);
    assert_eq!(server.metric(TOO_MANY).await, 0.0, "no request is lost");
}

#[tokio::test]
async fn a_head_that_does_not_end_gives_way() {
    let server = Local::start(Limits { connections: 1, ..limits() }).await;
    let mut slow = server.raw().await;
    slow.write_all(b"POST /mutate HTT").await.unwrap();
    answered(Client::http1(server.address, &server.ca()).await).await;
    assert_eq!(rest(&mut slow).await, "");
    server.metric_becomes(GAVE_WAY, 1.0).await;
}

#[tokio::test]
async fn a_request_in_flight_does_not_give_way() {
    let server = Local::start(Limits { connections: 1, surplus_connections: 1, ..limits() }).await;
    let mut in_flight = server.raw().await;
    let body = bound_daemon_pod();
    let head = format!("POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    in_flight.write_all(head.as_bytes()).await.unwrap();
    server.metric_becomes("daemonset_warden_http_requests_in_flight", 1.0).await;
    // A second one is told, and gives way as others do. Probes are answered on it.
    let mut surplus = answered(Client::http1(server.address, &server.ca()).await).await;
    let mut other = answered(Client::http1(server.address, &server.ca()).await).await;
    server.metric_becomes(GAVE_WAY, 1.0).await;
    assert!(!is_open(&mut surplus).await);
    assert_eq!(other.post("/mutate", bound_daemon_pod()).await.status, StatusCode::SERVICE_UNAVAILABLE);
    in_flight.write_all(body.as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    in_flight.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    // Now it is idle.
    let mut newcomer = server.client().await;
    assert_eq!(newcomer.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
    server.metric_becomes(GAVE_WAY, 2.0).await;
}

#[tokio::test]
async fn the_oldest_handshake_gives_way() {
    let server = Local::start(Limits { handshakes: 2, handshake_time: PATIENCE, ..limits() }).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(&[22, 3, 1, 0, 100, 1, 0, 0, 96]).await.unwrap();
    server.metric_becomes(SECURE, 2.0).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(answered(Client::http1(server.address, &server.ca()).await).await);
    }
    assert_eq!(rest(&mut silent).await, "");
    server.metric_becomes(GAVE_WAY, 1.0).await;
    assert_eq!(server.metric(TOO_MANY).await, 0.0, "no request is lost");
    // Good ones hold no place of a handshake any more, so the other is still waited for.
    half.write_all(&[0; 8]).await.unwrap();
    server.metric_becomes(SECURE, 4.0).await;
}

#[tokio::test]
async fn the_metrics_port_has_the_same_rule() {
    let server = Local::start(Limits { connections: 2, ..limits() }).await;
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(TcpStream::connect(server.metrics).await.unwrap());
        assert_eq!(get_plain(server.metrics, "/livez").await.status, StatusCode::OK);
    }
    assert_eq!(rest(&mut silent[0]).await, "");
    assert!(server.metric(GAVE_WAY).await >= 2.0);
}

#[tokio::test]
async fn an_address_gives_way_before_smaller_ones_and_not_within_its_share() {
    let server = Local::start(Limits { connections: 4, address_connections: 2, ..limits() }).await;
    let ca = server.ca();
    let from = async |last| answered(Client::from([127, 0, 0, last], server.address, &ca).await).await;
    let mut small = from(2).await;
    let (mut first, mut second, mut third) = (from(3).await, from(3).await, from(3).await);
    let _newcomer = from(4).await;
    server.metric_becomes(GAVE_WAY, 1.0).await;
    assert!(!is_open(&mut first).await, "the largest gives way, although another is older");
    let _newcomer = from(5).await;
    server.metric_becomes(GAVE_WAY, 2.0).await;
    assert!(!is_open(&mut small).await, "within its share each counts by its age");
    assert!(is_open(&mut second).await && is_open(&mut third).await);
}

#[tokio::test]
async fn clients_with_a_certificate_have_places_of_their_own() {
    let clients = tempfile::tempdir().unwrap();
    OtherCa::new("clients").write(clients.path());
    let limits = Limits { connections: 2, certified_connections: 1, ..limits() };
    let server = Local::start_with(limits, Some(clients.path().join("ca.crt"))).await;
    let known = async || {
        let identity = (clients.path().join("tls.crt"), clients.path().join("tls.key"));
        let identity = Some((identity.0.as_path(), identity.1.as_path()));
        answered(Client::with(server.address, tls_config(&server.ca(), identity, &[b"http/1.1"])).await).await
    };
    let mut first = known().await;
    let mut strangers = Vec::new();
    for _ in 0..4 {
        strangers.push(answered(Client::http1(server.address, &server.ca()).await).await);
    }
    assert!(is_open(&mut first).await, "the oldest, and one of those that are kept");
    server.metric_becomes(GAVE_WAY, 3.0).await;
    let mut second = known().await;
    server.metric_becomes(GAVE_WAY, 4.0).await;
    assert!(!is_open(&mut first).await && is_open(&mut second).await);
    assert!(is_open(strangers.last_mut().unwrap()).await, "nor do they take the places of others");
}
