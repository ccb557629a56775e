//! The real binary under attack: it answers the requests of a good client, sheds the others, and stays small.
//!
//! For the figures, in full size: `cargo test --release --test offline overload:: -- --nocapture --test-threads=1`. Without
//! `--release` there are fewer attackers, and other tests run at the same time, so the tests assert no times.

mod attacks;
mod heavy;
mod locked;
mod newcomers;
mod reviews;
mod tenant;

use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};

use self::attacks::{Attackers, Target};
use super::support::{Client, Server, bound_daemon_pod, processor_time};

const FULL_SIZE: bool = !cfg!(debug_assertions);
/// The duration of an attack.
const DURATION: Duration = Duration::from_secs(if FULL_SIZE { 10 } else { 2 });
/// The limit of the peak memory in each attack.
const MEMORY_MIB: u64 = 150;
const P99: Duration = Duration::from_millis(50);

fn sized(full: usize) -> usize {
    if FULL_SIZE { full } else { full / 10 }
}

/// The responses that the good client got.
struct LoadResult {
    times: Vec<Duration>,
    answered: usize,
    shed: usize,
}

impl LoadResult {
    fn at(&mut self, percent: usize) -> Duration {
        self.times.sort();
        self.times[(self.times.len() - 1) * percent / 100]
    }
}

/// Runs an attack and a good client at the same time.
async fn under<A, Attack>(name: &str, attack: impl FnOnce(Target) -> Attack) -> (Server, LoadResult)
where
    A: Send + 'static,
    Attack: Future<Output = A> + Send + 'static,
{
    daemonset_warden::server::http::open_files::raise_open_file_limit();
    let directory = tempfile::tempdir().unwrap();
    let server = Server::start(directory.path(), &[]);
    let mut client = server.client().await;
    let attackers = Attackers::new();
    let attacking = attackers.begin(attack(Target { address: server.address, ca: server.ca() })).await;
    let (begin, before) = (Instant::now(), [server.processor_time(), processor_time("self")]);
    let mut seen = ask(&mut client).await;
    let share = |used: Duration| 100.0 * used.as_secs_f64() / begin.elapsed().as_secs_f64();
    let (ours, theirs) = (server.processor_time() - before[0], processor_time("self") - before[1]);
    let (ours, theirs) = (share(ours), share(theirs));
    drop((attacking, attackers));
    let peak = server.peak_mib();
    let (p50, p99) = (seen.at(50), seen.at(99));
    let LoadResult { answered, shed, .. } = seen;
    println!("| {name} | {answered} | {shed} | {p50:.1?} | {p99:.1?} | {peak} | {ours:.0}% | {theirs:.0}% |");
    assert!(peak < MEMORY_MIB, "{name}: {peak} MiB");
    assert!(!FULL_SIZE || p99 < P99, "{name}: {p99:?}");
    // After the attack the server sheds no requests any more.
    let begin = Instant::now();
    let mut client = loop {
        // The server may still see connections of the attack, which take all handshakes.
        match Client::http1(server.address, &server.ca()).await {
            Ok(client) => break client,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(15), "{name}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    while client.post("/mutate", bound_daemon_pod()).await.status != StatusCode::OK {
        assert!(begin.elapsed() < Duration::from_secs(15), "{name}: still shed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.metric("daemonset_warden_panics_total").await, 0.0, "{name}");
    drop(directory);
    (server, seen)
}

/// Sends requests on one connection, one after the other: an apiserver's and a scheduler's in turn.
async fn ask(client: &mut Client) -> LoadResult {
    let mut seen = LoadResult { times: Vec::new(), answered: 0, shed: 0 };
    let names: Vec<String> =
        (0..5_000).map(|number| format!("node-{number:05}.nodes.cluster-1.region-1.example")).collect();
    let args =
        serde_json::json!({"Pod": {"metadata": {"name": "p", "uid": "u"}}, "NodeNames": names}).to_string();
    let requests = [("/mutate", bound_daemon_pod()), ("/scheduler/filter", args)];
    let begin = Instant::now();
    for (path, body) in requests.iter().cycle() {
        if begin.elapsed() > DURATION {
            break;
        }
        let asked = Instant::now();
        let answer = client.try_send(Method::POST, path, body.clone().into_bytes()).await;
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
    let (_server, seen) = under("nothing", async |_: Target| ()).await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections() {
    // With more than there are places for, the client's connection would give way before they are open: see `newcomers`.
    let count = sized(1_500);
    let (_server, seen) =
        under(&format!("{count} idle connections"), |target| attacks::idle(target, count)).await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients() {
    let (server, seen) = under("50 slow clients", |target| attacks::slow(target, 50)).await;
    assert_eq!(seen.shed, 0);
    if FULL_SIZE {
        assert!(cuts(&server, "header_time").await >= 25.0, "half of the attackers are slow with the head");
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
        under(&format!("{count} silent connections"), |target| attacks::silent(target, count)).await;
    assert_eq!(seen.shed, 0);
    assert!(!FULL_SIZE || cuts(&server, "gave_way").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshake_flood() {
    let count = sized(50);
    let (_server, seen) =
        under(&format!("{count} clients that only shake hands"), |target| attacks::handshakes(target, count))
            .await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_bodies() {
    let (server, seen) = under("32 bodies without end", |target| attacks::huge_bodies(target, 32)).await;
    assert_eq!(seen.shed, 0, "the server sheds large bodies before small ones");
    let too_large = server.metric("daemonset_warden_http_errors_total{code=\"413\"}");
    // Refused as too large, or because no memory is left for another body.
    assert!(!FULL_SIZE || too_large.await + shed(&server, "memory").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_bodies() {
    let (server, seen) = under("100 bodies of 4 MiB held", |target| attacks::held_bodies(target, 100)).await;
    assert_eq!(seen.shed, 0);
    assert!(!FULL_SIZE || shed(&server, "memory").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets() {
    let (_server, seen) =
        under("20 HTTP/2 clients that reset streams", |target| attacks::rapid_resets(target, 20)).await;
    assert!(!seen.times.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams() {
    // 100 streams each: four times the limit of requests at once.
    let (server, seen) =
        under("10 HTTP/2 clients that end no stream", |target| attacks::open_streams(target, 10)).await;
    assert_eq!(seen.shed, 0, "the slowest are shed");
    assert!(shed(&server, "requests").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn untaken_answers() {
    let (server, seen) =
        under("100 answers of 6 MB not taken", |target| attacks::untaken_answers(target, 100)).await;
    assert_eq!(seen.shed, 0);
    assert!(!FULL_SIZE || shed(&server, "memory").await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_heads() {
    let count = sized(2_000);
    let (_server, seen) = under(&format!("{count} heads of 15 KB that do not end"), |target| {
        attacks::half_heads(target, count)
    })
    .await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_handshakes() {
    let count = sized(1_000);
    let (_server, seen) = under(&format!("{count} handshakes of 60 KB that do not end"), |target| {
        attacks::half_handshakes(target, count)
    })
    .await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuations() {
    let (_server, seen) =
        under("20 HTTP/2 heads without end", |target| attacks::continuations(target, 20)).await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_and_settings() {
    let (_server, seen) =
        under("20 HTTP/2 ping and settings floods", |target| attacks::pings_and_settings(target, 20)).await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_window() {
    let (_server, seen) =
        under("20 HTTP/2 clients that take no answer", |target| attacks::no_window(target, 20)).await;
    assert!(!seen.times.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_small_items() {
    let bytes = sized(8_000_000);
    let (server, seen) = under("8 clients whose lists become gigabytes", async move |target: Target| {
        heavy::send(&target, 8, heavy::lists(bytes))
    })
    .await;
    assert_eq!(seen.shed, 0);
    let oversized = "daemonset_warden_admission_oversized_total{outcome=\"denied\",webhook=\"validate\"}";
    assert!(!FULL_SIZE || server.metric(oversized).await > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_faults() {
    // 40 KB have 2,000 references, and 3 MB as many faults as fit into an object.
    let bodies = [heavy::faults(40_000), heavy::faults(sized(3_000_000))].concat();
    let (_server, seen) = under("8 clients with thousands of faults", async move |target: Target| {
        heavy::send(&target, 8, bodies)
    })
    .await;
    assert_eq!(seen.shed, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_calls() {
    let bodies = heavy::calls(sized(100_000), "node-00000");
    let (_server, seen) =
        under("4 schedulers with heavy calls", async move |target: Target| heavy::send(&target, 4, bodies))
            .await;
    assert_eq!(seen.shed, 0);
}
