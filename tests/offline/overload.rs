//! The real binary under attack: it answers a good request meanwhile, sheds the rest, and stays small.
//!
//! The figures, in full size: `cargo test --release --test offline overload:: -- --nocapture --test-threads=1`. Without
//! `--release` there are fewer attackers, and other tests run beside these, so no time is asserted.

mod attacks;

use std::any::Any;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};

use self::attacks::Target;
use super::support::{Client, Server, bound_daemon_pod};

const FULL_SIZE: bool = !cfg!(debug_assertions);
/// How long an attack is borne.
const DURATION: Duration = Duration::from_secs(if FULL_SIZE { 10 } else { 2 });
/// In all of them.
const MEMORY_MIB: u64 = 150;
const P99: Duration = Duration::from_millis(50);

fn sized(full: usize) -> usize {
    if FULL_SIZE { full } else { full / 10 }
}

/// What a good client saw.
struct Seen {
    times: Vec<Duration>,
    answered: usize,
    shed: usize,
}

impl Seen {
    fn at(&mut self, percent: usize) -> Duration {
        self.times.sort();
        self.times[(self.times.len() - 1) * percent / 100]
    }
}

/// A good client beside an attack; `attack` ends when what it returns is dropped.
async fn under<A: Any>(name: &str, attack: impl AsyncFnOnce(&Target) -> A) -> (Server, Seen) {
    daemonset_warden::server::files::raise();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let target = Target { address: server.address, ca: server.ca() };
    let mut client = server.client().await;
    let attacking = attack(&target).await;
    let mut seen = ask(&mut client).await;
    drop(attacking);
    let peak = server.peak_mib();
    let (p50, p99) = (seen.at(50), seen.at(99));
    let Seen { answered, shed, .. } = seen;
    println!("| {name} | {answered} | {shed} | {p50:.1?} | {p99:.1?} | {peak} |");
    assert!(peak < MEMORY_MIB, "{name}: {peak} MiB");
    assert!(!FULL_SIZE || p99 < P99, "{name}: {p99:?}");
    // And when it is over, everything is as before.
    let mut client = server.client().await;
    let begin = Instant::now();
    while client.post("/mutate", bound_daemon_pod()).await.status != StatusCode::OK {
        assert!(begin.elapsed() < Duration::from_secs(15), "{name}: still shed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.metric("daemonset_warden_panics_total").await, 0.0, "{name}");
    drop(directory);
    (server, seen)
}

/// One request after the other on one connection, as an apiserver's.
async fn ask(client: &mut Client) -> Seen {
    let mut seen = Seen { times: Vec::new(), answered: 0, shed: 0 };
    let begin = Instant::now();
    while begin.elapsed() < DURATION {
        let asked = Instant::now();
        let answer = client.try_send(Method::POST, "/mutate", bound_daemon_pod().into_bytes()).await;
        seen.times.push(asked.elapsed());
        match answer.expect("a connection that is in use is not cut off").status {
            StatusCode::OK => seen.answered += 1,
            StatusCode::SERVICE_UNAVAILABLE => seen.shed += 1,
            other => panic!("{other}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    seen
}

async fn cuts(server: &Server, reason: &str) -> f64 {
    server.metric(&format!("daemonset_warden_connections_cut_total{{reason=\"{reason}\"}}")).await
}

async fn shed(server: &Server, reason: &str) -> f64 {
    server.metric(&format!("daemonset_warden_http_requests_shed_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing() {
    let (_server, seen) = under("nothing", async |_| ()).await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections() {
    let count = sized(2_000);
    let (_server, seen) =
        under(&format!("{count} idle connections"), async |target| attacks::idle(target, count).await).await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients() {
    let (server, seen) = under("50 slow clients", async |target| attacks::slow(target, 50)).await;
    assert_eq!(seen.shed, 0);
    if FULL_SIZE {
        assert!(cuts(&server, "header_time").await >= 25.0, "half of them are slow with the head");
        assert!(
            server.metric("daemonset_warden_http_errors_total{code=\"408\"}").await >= 25.0,
            "the others with the body"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections() {
    let count = sized(1_500);
    let (server, seen) =
        under(&format!("{count} silent connections"), async |target| attacks::silent(target, count)).await;
    assert_eq!(seen.shed, 0);
    assert!(!FULL_SIZE || shed(&server, "handshakes").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshake_flood() {
    let count = sized(50);
    let (_server, seen) = under(&format!("{count} clients that only shake hands"), async |target| {
        attacks::handshakes(target, count)
    })
    .await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_bodies() {
    let (server, seen) =
        under("32 bodies without end", async |target| attacks::huge_bodies(target, 32)).await;
    assert_eq!(seen.shed, 0, "small bodies are not shed for large ones");
    let too_large = server.metric("daemonset_warden_http_errors_total{code=\"413\"}");
    // Or there is no memory left for another one.
    assert!(too_large.await + shed(&server, "memory").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_bodies() {
    let (server, seen) =
        under("100 bodies of 4 MiB held", async |target| attacks::held_bodies(target, 100)).await;
    assert_eq!(seen.shed, 0);
    assert!(shed(&server, "memory").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets() {
    let (_server, seen) =
        under("20 HTTP/2 clients that reset streams", async |target| attacks::rapid_resets(target, 20)).await;
    assert!(!seen.times.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams() {
    // Of 100 streams each: twice as many as are served at once.
    let (server, seen) =
        under("10 HTTP/2 clients that end no stream", async |target| attacks::open_streams(target, 10)).await;
    assert!(seen.shed > 0 && shed(&server, "requests").await > 0.0, "shed, and at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuations() {
    let (_server, seen) =
        under("20 HTTP/2 heads without end", async |target| attacks::continuations(target, 20)).await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_and_settings() {
    let (_server, seen) =
        under("20 HTTP/2 ping and settings floods", async |target| attacks::pings_and_settings(target, 20))
            .await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window() {
    let (_server, seen) =
        under("20 HTTP/2 clients that take no answer", async |target| attacks::no_window(target, 20)).await;
    assert!(!seen.times.is_empty());
}
