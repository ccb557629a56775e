//! Connections that take a place and bring nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// More than there are places for handshakes (1,024 on a port).
const SILENT: usize = 1_100;
/// The bytes of a head without an end: below the 16 KiB at which the server refuses it.
const HEAD: usize = 15 * 1024;
/// The time for which the connections are held.
const HELD: Duration = Duration::from_secs(3);
/// The address of the stranger. It is not the scheduler's.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The port under attack.
pub(super) struct Target {
    address: SocketAddr,
    connector: TlsConnector,
}

impl Target {
    pub(super) fn new(address: SocketAddr, ca: &str) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
            roots.add(certificate.expect("a certificate")).expect("a CA");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots).with_no_client_auth();
        Self { address, connector: TlsConnector::from(Arc::new(config)) }
    }

    async fn connect(&self) -> Result<TcpStream, String> {
        let socket = TcpSocket::new_v4().map_err(|e| e.to_string())?;
        socket.bind((SOURCE, 0).into()).map_err(|e| e.to_string())?;
        socket.connect(self.address).await.map_err(|e| e.to_string())
    }

    async fn handshake(&self) -> Result<impl AsyncRead + AsyncWrite + Unpin + use<>, String> {
        let connection = self.connect().await?;
        let name = ServerName::IpAddress(self.address.ip().into());
        self.connector.connect(name, connection).await.map_err(|e| e.to_string())
    }
}

/// The kinds of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// TCP alone.
    Silent,
    /// The first bytes of a handshake.
    HalfHandshake,
    /// A handshake and nothing else.
    Idle,
    /// A request whose head does not end.
    HalfHead,
    /// A request whose body does not come.
    NoBody,
}

impl Connection {
    pub(super) const ALL: [Self; 5] =
        [Self::Silent, Self::HalfHandshake, Self::Idle, Self::HalfHead, Self::NoBody];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent connections",
            Self::HalfHandshake => "half handshakes",
            Self::Idle => "idle connections",
            Self::HalfHead => "half heads",
            Self::NoBody => "bodies that do not come",
        }
    }

    /// Opens connections and holds them for a while. `Ok` if nearly all were opened.
    pub(super) async fn hold(self, target: &Target, served: usize) -> Result<(), String> {
        let mut otherwise = String::new();
        let mut held: Vec<Box<dyn AsyncWrite + Send + Unpin>> = Vec::new();
        let count = if matches!(self, Self::Silent | Self::HalfHandshake) { SILENT } else { served };
        for _ in 0..count {
            match self.open(target).await {
                Ok(connection) => held.push(connection),
                Err(why) => otherwise = why,
            }
        }
        tokio::time::sleep(HELD).await;
        if held.len() * 10 >= count * 9 {
            return Ok(());
        }
        Err(format!("{} of {count} were opened: {otherwise}", held.len()))
    }

    async fn open(self, target: &Target) -> Result<Box<dyn AsyncWrite + Send + Unpin>, String> {
        let said = match self {
            Self::Silent => return Ok(Box::new(target.connect().await?)),
            Self::HalfHandshake => {
                let mut connection = target.connect().await?;
                // A record of 512 bytes that begins a ClientHello.
                connection.write_all(&[22, 3, 1, 2, 0, 1]).await.map_err(|e| e.to_string())?;
                return Ok(Box::new(connection));
            }
            Self::Idle => String::new(),
            Self::HalfHead => {
                format!("POST /validate HTTP/1.1\r\nhost: warden\r\nx-long: {}", "a".repeat(HEAD))
            }
            Self::NoBody => "POST /validate HTTP/1.1\r\nhost: warden\r\ncontent-type: application/json\r\n\
                             content-length: 1000000\r\n\r\n{"
                .to_owned(),
        };
        let mut connection = target.handshake().await?;
        connection.write_all(said.as_bytes()).await.map_err(|e| e.to_string())?;
        connection.flush().await.map_err(|e| e.to_string())?;
        Ok(Box::new(connection))
    }
}
