//! An HTTPS server with a host name, and a DNS server that resolves the name.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::json;

/// An apiserver that refuses every request, with a message that only it uses. Serves until the process ends.
pub(crate) struct Apiserver {
    name: String,
    port: u16,
    /// The CA of its certificate, in PEM.
    pub(crate) ca: String,
    /// The address of the DNS server; its port is 53, which every resolver uses.
    pub(crate) dns: Ipv4Addr,
}

impl Apiserver {
    pub(crate) fn start(name: &str) -> Self {
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = authority.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(authority, key);
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
                .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let config = config.clone();
                std::thread::spawn(move || refuse(connection, config));
            }
        });
        Self { name: name.to_owned(), port, ca, dns: serve_dns() }
    }

    /// Returns a kubeconfig with the CA, or without it, so that the program uses the CAs of the system.
    pub(crate) fn kubeconfig(&self, with_ca: bool) -> String {
        use base64::Engine;
        let mut cluster = json!({ "server": format!("https://{}:{}", self.name, self.port) });
        if with_ca {
            let ca = base64::engine::general_purpose::STANDARD.encode(&self.ca);
            cluster["certificate-authority-data"] = json!(ca);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "test", "user": { "token": "test" } }],
        })
        .to_string()
    }
}

fn refuse(mut connection: TcpStream, config: Arc<rustls::ServerConfig>) {
    let mut server = rustls::ServerConnection::new(config).unwrap();
    let mut stream = rustls::Stream::new(&mut server, &mut connection);
    // A client that does not trust the certificate ends the connection, as one test expects.
    if stream.read(&mut [0; 4096]).is_err() {
        return;
    }
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden",
        "message": "said by the apiserver",
    })
    .to_string();
    let head = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close\r\n";
    let _ = write!(stream, "{head}content-length: {}\r\n\r\n{status}", status.len());
    stream.conn.send_close_notify();
    let _ = stream.flush();
}

/// Starts a DNS server that resolves every name to 127.0.0.1. It has its own loopback address, because port 53 may be in use on
/// others.
fn serve_dns() -> Ipv4Addr {
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let address = Ipv4Addr::new(127, 53, high, low.clamp(1, 254));
    let socket = UdpSocket::bind((address, 53)).expect("port 53, for which one has to be root");
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let _ = socket.send_to(&dns_answer(&query[..length]), from);
        }
    });
    address
}

/// Returns the response to a query (RFC 1035): its header with other flags and counts, its question, and for type A an address.
fn dns_answer(query: &[u8]) -> Vec<u8> {
    // The question: labels up to the empty one, then type and class.
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let is_a = query[end - 4..end - 2] == [0, 1];
    let mut answer = query[..2].to_vec();
    answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    answer.extend(&query[12..end]);
    if is_a {
        // The answer: the name of the question, A, IN, one minute, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}
