//! Attacks of hostile or broken clients, repeated until they are dropped.
//!
//! In reality the clients run on other machines. Here their threads have a low priority, and a client that is refused pauses
//! before it tries again: otherwise the tests would measure how the kernel divides two cores.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::client::TlsStream;

use crate::support::{connect, tls_config};

/// The pause before a client that was refused tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// A runtime for attackers. Ends them when dropped.
pub(super) struct Attackers(Option<Runtime>);

impl Attackers {
    pub(super) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            // On Linux this sets the priority of the thread.
            .on_thread_start(|| {
                rustix::process::nice(19).unwrap();
            })
            .enable_all()
            .build();
        Self(Some(runtime.unwrap()))
    }

    /// Starts an attack.
    pub(super) async fn begin<A: Send + 'static>(
        &self,
        attack: impl Future<Output = A> + Send + 'static,
    ) -> A {
        self.0.as_ref().unwrap().spawn(attack).await.unwrap()
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// The server to attack.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: SocketAddr,
    pub(super) ca: PathBuf,
}

type Stream = TlsStream<TcpStream>;

impl Target {
    pub(super) async fn stream(&self, config: &Arc<ClientConfig>) -> std::io::Result<Stream> {
        connect(self.address, config.as_ref().clone()).await
    }

    pub(super) fn http1(&self) -> Arc<ClientConfig> {
        Arc::new(tls_config(&self.ca, None, &[b"http/1.1"]))
    }

    fn http2(&self) -> Arc<ClientConfig> {
        Arc::new(tls_config(&self.ca, None, &[b"h2"]))
    }
}

/// Connections that send one request and then stay idle.
pub(super) async fn idle(target: Target, count: usize) -> Vec<Stream> {
    let mut streams = Vec::new();
    let config = target.http1();
    for _ in 0..count {
        let mut stream = target.stream(&config).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        assert!(stream.read(&mut [0; 1_024]).await.unwrap() > 0);
        streams.push(stream);
    }
    streams
}

/// Connections that send one request and then stay idle until they are closed; closed ones are opened again.
pub(super) async fn idle_again(target: Target, count: usize) -> JoinSet<()> {
    let config = target.http1();
    each(&target, count, move |_, target: Target| {
        let config = config.clone();
        async move {
            let mut stream = target.stream(&config).await?;
            stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            Ok(())
        }
    })
}

/// The same over HTTP/2.
pub(super) async fn idle_again_http2(target: Target, count: usize) -> JoinSet<()> {
    let config = target.http2();
    each(&target, count, move |_, target: Target| {
        let config = config.clone();
        async move {
            let mut stream = target.stream(&config).await?;
            let settings = frame(4, 0, 0, &[]);
            let request = headers_of("GET", "/livez", 1, 0x5);
            stream
                .write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &request].concat())
                .await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            Ok(())
        }
    })
}

/// Requests that are sent slowly, byte by byte: half of the clients send a head so, half a body.
pub(super) async fn slow(target: Target, count: usize) -> JoinSet<()> {
    each(&target, count, |number, target: Target| async move {
        let mut stream = target.stream(&target.http1()).await?;
        let head = "POST /mutate HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n";
        let at_once = if number % 2 == 0 { head.len() } else { 4 };
        stream.write_all(&head.as_bytes()[..at_once]).await?;
        while stream.write_all(b"a").await.is_ok() {
            sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    })
}

/// Requests whose bodies do not come.
pub(super) async fn missing_bodies(target: Target, count: usize) -> JoinSet<()> {
    let config = target.http1();
    each(&target, count, move |number, target: Target| {
        let config = config.clone();
        async move {
            let mut stream = target.stream(&config).await?;
            let path = if number % 2 == 0 { "/mutate" } else { "/scheduler/filter" };
            let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
            Ok(())
        }
    })
}

/// TCP connections on which nothing is sent; closed ones are opened again.
pub(super) async fn silent(target: Target, count: usize) -> JoinSet<()> {
    each(&target, count, |_, target: Target| async move {
        let mut stream = TcpStream::connect(target.address).await?;
        let _ = stream.read(&mut [0; 16]).await;
        Ok(())
    })
}

/// Complete TLS handshakes, without a request.
pub(super) async fn handshakes(target: Target, count: usize) -> JoinSet<()> {
    each(&target, count, |_, target: Target| async move {
        drop(target.stream(&target.http1()).await?);
        Ok(())
    })
}

/// Bodies without end, on either route.
pub(super) async fn huge_bodies(target: Target, count: usize) -> JoinSet<()> {
    each(&target, count, |number, target: Target| async move {
        let mut stream = target.stream(&target.http1()).await?;
        let path = if number % 2 == 0 { "/mutate" } else { "/scheduler/filter" };
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let chunk = [b"10000\r\n".as_slice(), &[b' '; 65_536], b"\r\n"].concat();
        while stream.write_all(&chunk).await.is_ok() {}
        Ok(())
    })
}

/// Bodies of 4 MiB without their last byte: the server keeps them until it gives up.
pub(super) async fn held_bodies(target: Target, count: usize) -> JoinSet<()> {
    each(&target, count, |_, target: Target| async move {
        let mut stream = target.stream(&target.http1()).await?;
        let size = 4 << 20;
        let head = format!("POST /scheduler/filter HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&vec![b' '; size - 1]).await?;
        let _ = stream.read(&mut [0; 1_024]).await;
        Ok(())
    })
}

/// Large requests whose responses, equally large, the client does not read.
pub(super) async fn untaken_answers(target: Target, count: usize) -> JoinSet<()> {
    let names: Vec<String> =
        (0..190_000).map(|number| format!("node-{number:06}.nodes.cluster-1.example")).collect();
    let body =
        serde_json::json!({"Pod": {"metadata": {"name": "p", "uid": "u"}}, "NodeNames": names}).to_string();
    let head =
        format!("POST /scheduler/filter HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
    let request: Arc<str> = (head + &body).into();
    each(&target, count, move |_, target: Target| {
        let request = request.clone();
        async move {
            let mut stream = target.stream(&target.http1()).await?;
            stream.write_all(request.as_bytes()).await?;
            // Longer than the server waits for a client.
            sleep(Duration::from_secs(11)).await;
            Ok(())
        }
    })
}

/// Heads of almost the largest length, without their end.
pub(super) async fn half_heads(target: Target, count: usize) -> JoinSet<()> {
    each(&target, count, |_, target: Target| async move {
        let mut stream = target.stream(&target.http1()).await?;
        let head = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}", "a".repeat(15_000));
        stream.write_all(head.as_bytes()).await?;
        let _ = stream.read(&mut [0; 16]).await;
        Ok(())
    })
}

/// A TLS handshake message of almost the largest length, without its last byte.
pub(super) async fn half_handshakes(target: Target, count: usize) -> JoinSet<()> {
    each(&target, count, |_, target: Target| async move {
        let mut stream = TcpStream::connect(target.address).await?;
        // A ClientHello of 60,000 bytes, in records of 15,000.
        let mut message = vec![1, 0, 0xea, 0x60];
        message.resize(4 + 60_000 - 1, 0);
        for record in message.chunks(15_000) {
            let length = u16::try_from(record.len()).unwrap().to_be_bytes();
            stream.write_all(&[&[22, 3, 1], &length[..], record].concat()).await?;
        }
        let _ = stream.read(&mut [0; 16]).await;
        Ok(())
    })
}

/// HTTP/2 streams opened and reset at once (CVE-2023-44487).
pub(super) async fn rapid_resets(target: Target, count: usize) -> JoinSet<()> {
    streams(&target, count, |id| [headers(id, 0x4), frame(3, 0, id, &8_u32.to_be_bytes())].concat())
}

/// HTTP/2 streams opened and never ended.
pub(super) async fn open_streams(target: Target, count: usize) -> JoinSet<()> {
    // No more streams than the server allows: it disconnects a client that opens more.
    streams(&target, count, |id| if id < 200 { headers(id, 0x4) } else { Vec::new() })
}

/// A head in CONTINUATION frames without end (CVE-2024-27316).
pub(super) async fn continuations(target: Target, count: usize) -> JoinSet<()> {
    streams(&target, count, |id| if id == 1 { headers(1, 0) } else { frame(9, 0, 1, &literal_header()) })
}

/// Frames that the server must answer (CVE-2019-9512, CVE-2019-9515).
pub(super) async fn pings_and_settings(target: Target, count: usize) -> JoinSet<()> {
    streams(&target, count, |_| [frame(6, 0, 0, &[0; 8]), frame(4, 0, 0, &[])].concat())
}

/// Flow-control windows that let the server send the response byte by byte, or not at all (CVE-2019-9511).
pub(super) async fn no_window(target: Target, count: usize) -> JoinSet<()> {
    streams(&target, count, |id| {
        let window = frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]);
        [window, headers_of("GET", "/livez", id, 0x5)].concat()
    })
}

/// Writes the bytes that `next` returns for each odd stream id, without reading, until the connection ends, and starts again.
/// When `next` returns no bytes, it waits for the end of the connection.
fn streams(
    target: &Target,
    count: usize,
    next: impl Fn(u32) -> Vec<u8> + Copy + Send + Sync + 'static,
) -> JoinSet<()> {
    each(target, count, move |_, target: Target| async move {
        let mut stream = target.stream(&target.http2()).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        stream.write_all(&frame(4, 0, 0, &[])).await?;
        let begin = tokio::time::Instant::now();
        for number in 0.. {
            let id = 1 + 2 * number;
            let bytes = next(id);
            if bytes.is_empty() {
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                break;
            }
            // Until the server disconnects, or for 5 s, so that other clients get a connection.
            if stream.write_all(&bytes).await.is_err() || begin.elapsed() > Duration::from_secs(5) {
                break;
            }
            if number % 100 == 99 {
                stream.flush().await?;
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    })
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(stream: u32, flags: u8) -> Vec<u8> {
    headers_of("POST", "/mutate", stream, flags)
}

/// Returns a HEADERS frame with HPACK's static table: method, scheme, path and authority.
fn headers_of(method: &str, path: &str, stream: u32, flags: u8) -> Vec<u8> {
    let method = if method == "GET" { 0x82 } else { 0x83 };
    let length = u8::try_from(path.len()).unwrap();
    let block = [&[method, 0x87, 0x04, length], path.as_bytes(), &[0x01, 1, b'a']].concat();
    frame(1, flags, stream, &block)
}

fn literal_header() -> Vec<u8> {
    [&[0x00, 1, b'x', 100][..], &[b'y'; 100]].concat()
}

/// Starts `count` attackers. Each repeats its attack until the set is dropped.
pub(super) fn each<Attack, Attacking>(target: &Target, count: usize, attack: Attack) -> JoinSet<()>
where
    Attack: Fn(usize, Target) -> Attacking + Clone + Send + 'static,
    Attacking: Future<Output = std::io::Result<()>> + Send,
{
    let mut attackers = JoinSet::new();
    for number in 0..count {
        let (target, attack) = (target.clone(), attack.clone());
        attackers.spawn(async move {
            loop {
                // The server is expected to refuse the attack.
                let _ = attack(number, target.clone()).await;
                sleep(PAUSE).await;
            }
        });
    }
    attackers
}
