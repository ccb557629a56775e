//! Newcomers under attack: each opens a connection of its own while clients hold more of them than the server has places for, and
//! open those anew that they lose.
//!
//! Without `--release` the server is the one in this process, with a tenth of the places.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use daemonset_warden::server::http::limits::Limits;
use hyper::StatusCode;
use rustls::client::Resumption;
use tokio::task::JoinSet;

use super::attacks::{self, Attackers, Target};
use super::{DURATION, FULL_SIZE, LoadResult, MEMORY_MIB, P99, sized};
use crate::support::{Client, Local, Server, bound_daemon_pod, get_plain, tls_config};

/// The server, at either size.
enum AnySize {
    Full(Server, #[allow(dead_code, reason = "the server needs it")] tempfile::TempDir),
    Small(Local),
}

impl AnySize {
    async fn start() -> Self {
        daemonset_warden::server::http::open_files::raise_open_file_limit();
        if FULL_SIZE {
            let directory = tempfile::tempdir().unwrap();
            return Self::Full(Server::start(directory.path(), &[]), directory);
        }
        let limits = Limits::default();
        let limits = Limits {
            connections: sized(limits.connections),
            handshakes: sized(limits.handshakes),
            surplus_connections: sized(limits.surplus_connections),
            address_connections: sized(limits.address_connections),
            requests: sized(limits.requests),
            ..limits
        };
        Self::Small(Local::start(limits).await)
    }

    fn addresses(&self) -> (SocketAddr, SocketAddr, PathBuf) {
        match self {
            Self::Full(server, _) => (server.address, server.metrics, server.ca()),
            Self::Small(server) => (server.address, server.metrics, server.ca()),
        }
    }

    /// Returns the number of connections and of bodies that gave way.
    async fn gave_way(&self) -> [f64; 2] {
        let connections = r#"daemonset_warden_connections_cut_total{reason="gave_way"}"#;
        let bodies = r#"daemonset_warden_http_requests_shed_total{reason="requests"}"#;
        match self {
            Self::Full(server, _) => [server.metric(connections).await, server.metric(bodies).await],
            Self::Small(server) => [server.metric(connections).await, server.metric(bodies).await],
        }
    }
}

/// A port with its newcomers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Newcomers {
    /// Apiservers, each with a whole handshake.
    Secure,
    /// Kubelets and Prometheus.
    Metrics,
}

async fn newcomers<Attack>(name: &str, port: Newcomers, attack: impl FnOnce(Target) -> Attack)
where
    Attack: Future<Output = JoinSet<()>> + Send + 'static,
{
    let server = AnySize::start().await;
    let (secure, metrics, ca) = server.addresses();
    let mut config = tls_config(&ca, None, &[b"http/1.1"]);
    config.resumption = Resumption::disabled();
    let attackers = Attackers::new();
    let address = if port == Newcomers::Secure { secure } else { metrics };
    let attacking = attackers.begin(attack(Target { address, ca })).await;
    // Until the attackers have all places.
    let begin = Instant::now();
    while server.gave_way().await.iter().all(|count| *count < 10.0) {
        assert!(begin.elapsed() < Duration::from_secs(60), "{name}: there are places left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut seen = LoadResult { times: Vec::new(), answered: 0, shed: 0 };
    let begin = Instant::now();
    while begin.elapsed() < DURATION {
        let asked = Instant::now();
        let status = match port {
            Newcomers::Metrics => get_plain(metrics, "/metrics").await.status,
            Newcomers::Secure => {
                let client = Client::with(secure, config.clone()).await;
                let mut client = client.unwrap_or_else(|error| panic!("{name}: {error}"));
                client.post("/mutate", bound_daemon_pod()).await.status
            }
        };
        seen.times.push(asked.elapsed());
        assert_eq!(status, StatusCode::OK, "{name}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [connections, bodies] = server.gave_way().await;
    drop((attacking, attackers));
    let (count, p50, p99, longest) = (seen.times.len(), seen.at(50), seen.at(99), seen.at(100));
    let peak = if let AnySize::Full(server, _) = &server { server.peak_mib() } else { 0 };
    println!(
        "| {name} | {count} | {p50:.1?} | {p99:.1?} | {longest:.1?} | {peak} | {connections} | {bodies} |"
    );
    assert!(peak < MEMORY_MIB, "{name}: {peak} MiB");
    assert!(!FULL_SIZE || p99 < P99, "{name}: {p99:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_idle_connections() {
    let count = sized(2_000);
    newcomers(&format!("{count} idle connections"), Newcomers::Secure, |target| {
        attacks::idle_again(target, count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_idle_http2_connections() {
    let count = sized(2_000);
    newcomers(&format!("{count} idle HTTP/2 connections"), Newcomers::Secure, |target| {
        attacks::idle_again_http2(target, count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_silent_connections() {
    let count = sized(1_500);
    newcomers(&format!("{count} silent connections"), Newcomers::Secure, |target| {
        attacks::silent(target, count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_half_handshakes() {
    let count = sized(1_500);
    newcomers(&format!("{count} handshakes of 60 KB that do not end"), Newcomers::Secure, |target| {
        attacks::half_handshakes(target, count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_half_heads() {
    let count = sized(2_000);
    newcomers(&format!("{count} heads of 15 KB that do not end"), Newcomers::Secure, |target| {
        attacks::half_heads(target, count)
    })
    .await;
}

/// Only some of them are in flight: the oldest bodies give way to newer ones, and their connections end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_missing_bodies() {
    let count = sized(2_000);
    newcomers(&format!("{count} bodies that do not come"), Newcomers::Secure, |target| {
        attacks::missing_bodies(target, count)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_metrics_port() {
    let count = sized(2_000);
    newcomers(&format!("{count} silent connections to the metrics port"), Newcomers::Metrics, |target| {
        attacks::silent(target, count)
    })
    .await;
}
