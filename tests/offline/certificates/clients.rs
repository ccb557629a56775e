//! The certificates of clients: who needs one, and for how long it is good.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use rustls::{ClientConfig, HandshakeKind};
use time::OffsetDateTime;

use super::{OtherCa, RELOADS, grows};
use crate::support::{self, Client, PATIENCE, Server, bound_daemon_pod};

const FILTER: &[u8] =
    br#"{"Pod":{"metadata":{"name":"a"},"spec":{"containers":[]}},"Nodes":null,"NodeNames":["n1"]}"#;

const CERTIFICATE_CUT: &str = r#"daemonset_warden_connections_cut_total{reason="client_certificate"}"#;

#[tokio::test]
async fn only_the_scheduler_must_show_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let clients = directory.path().join("clients");
    OtherCa::new("clients").write(&clients);
    OtherCa::new("strangers").write(&directory.path().join("strangers"));
    let client_ca = clients.join("ca.crt");
    let server = Server::start(directory.path(), &["--client-ca-file", client_ca.to_str().unwrap()]);
    let ca = server.ca();
    for alpn in [&b"http/1.1"[..], b"h2"] {
        let mut anonymous =
            Client::with(server.address, support::tls_config(&ca, None, &[alpn])).await.unwrap();
        assert_eq!(anonymous.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
        assert_eq!(anonymous.get("/readyz").await.status, StatusCode::OK);
        let answer = anonymous.post("/scheduler/filter", FILTER).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.json()["error"].as_str().unwrap().contains("client certificate"));

        let identity = (clients.join("tls.crt"), clients.join("tls.key"));
        let identity = Some((identity.0.as_path(), identity.1.as_path()));
        let mut known =
            Client::with(server.address, support::tls_config(&ca, identity, &[alpn])).await.unwrap();
        assert_eq!(known.post("/scheduler/filter", FILTER).await.status, StatusCode::OK);
        assert_eq!(known.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
    }
    let strangers = directory.path().join("strangers");
    let identity = (strangers.join("tls.crt"), strangers.join("tls.key"));
    let identity = Some((identity.0.as_path(), identity.1.as_path()));
    let config = support::tls_config(&ca, identity, &[b"http/1.1"]);
    // With TLS 1.3 a client sees the refusal only when it reads.
    let answer = match Client::with(server.address, config).await {
        Ok(mut client) => client.try_send(Method::GET, "/readyz", Vec::new()).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answer, "the server ends the handshake of a client with an untrusted certificate");
}

/// Sends calls of a scheduler until one is not answered 200. Returns its status, or `None` if the connection has ended.
async fn until_refused(client: &mut Client) -> Option<StatusCode> {
    let begin = Instant::now();
    loop {
        let answer = client.try_send(Method::POST, "/scheduler/filter", FILTER.to_vec()).await;
        match answer.map(|answer| answer.status) {
            Ok(StatusCode::OK) => assert!(begin.elapsed() < PATIENCE, "still let in"),
            Ok(status) => return Some(status),
            Err(_) => return None,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Starts a server that trusts `clients`, and returns the configurations of clients, over both versions of HTTP, that show the
/// certificate in that folder.
fn start_with_clients(directory: &Path, clients: &Path) -> (Server, [ClientConfig; 2]) {
    let server = Server::start(directory, &["--client-ca-file", clients.join("ca.crt").to_str().unwrap()]);
    let identity = (clients.join("tls.crt"), clients.join("tls.key"));
    let identity = Some((identity.0.as_path(), identity.1.as_path()));
    let configs = [&b"http/1.1"[..], b"h2"].map(|alpn| support::tls_config(&server.ca(), identity, &[alpn]));
    (server, configs)
}

#[tokio::test]
async fn a_certificate_that_expires_is_good_no_longer_on_its_connection() {
    let directory = tempfile::tempdir().unwrap();
    let clients = directory.path().join("clients");
    let (ca, now) = (OtherCa::new("clients"), OffsetDateTime::now_utc());
    ca.write_pair(&clients, ca.sign_between(now - Duration::from_secs(60), now + Duration::from_secs(6)));
    let (server, configs) = start_with_clients(directory.path(), &clients);
    let mut all = Vec::new();
    for config in &configs {
        let mut client = Client::with(server.address, config.clone()).await.unwrap();
        assert_eq!(client.post("/scheduler/filter", FILTER).await.status, StatusCode::OK);
        let webhooks = Client::with(server.address, config.clone()).await.unwrap();
        all.push((client, webhooks));
    }
    for (client, webhooks) in &mut all {
        assert_eq!(until_refused(client).await, Some(StatusCode::UNAUTHORIZED));
        // Those need no certificate, so they lose no request; the connection ends after it.
        assert_eq!(webhooks.post("/mutate", bound_daemon_pod()).await.status, StatusCode::OK);
        let begin = Instant::now();
        while webhooks.try_send(Method::POST, "/mutate", bound_daemon_pod().into()).await.is_ok() {
            assert!(begin.elapsed() < PATIENCE, "the connection ends");
        }
    }
    assert!(server.metric(CERTIFICATE_CUT).await >= 2.0);
    // A session that is resumed has the certificate of the first handshake, which is not verified again by TLS itself.
    for config in configs {
        let stream = support::connect(server.address, config.clone()).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        let mut client = Client::over(stream).await.unwrap();
        assert_eq!(client.post("/scheduler/filter", FILTER).await.status, StatusCode::UNAUTHORIZED);
    }
}

#[tokio::test]
async fn a_client_ca_that_is_replaced_is_good_no_longer_on_connections() {
    let directory = tempfile::tempdir().unwrap();
    let clients = directory.path().join("clients");
    let (ca, next) = (OtherCa::new("clients"), OtherCa::new("next"));
    ca.write(&clients);
    let (server, configs) = start_with_clients(directory.path(), &clients);
    let mut all = Vec::new();
    for config in configs {
        let mut client = Client::with(server.address, config).await.unwrap();
        assert_eq!(client.post("/scheduler/filter", FILTER).await.status, StatusCode::OK);
        all.push(client);
    }
    let reloads = server.metric(RELOADS).await;
    fs::write(clients.join("ca.crt"), format!("{}{}", next.certificate, ca.certificate)).unwrap();
    grows(&server, RELOADS, reloads).await;
    for client in &mut all {
        assert_eq!(client.post("/scheduler/filter", FILTER).await.status, StatusCode::OK, "one of two");
    }
    fs::write(clients.join("ca.crt"), &next.certificate).unwrap();
    for client in &mut all {
        assert_eq!(until_refused(client).await, Some(StatusCode::UNAUTHORIZED));
    }
    let begin = Instant::now();
    while server.metric(CERTIFICATE_CUT).await < 2.0 {
        assert!(begin.elapsed() < PATIENCE, "the connections end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
