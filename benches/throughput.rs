//! `cargo bench --bench throughput [-- all] [-- NAME ...] [-- rounds=N] [-- nodes=N] [-- pods=N]`: how many pods a second
//! a real kube-scheduler places: by itself, with an extender that only echoes its NodeNames, and with the warden; in turn,
//! in the same run, on the same control plane. `all` adds what a configuration can change.
//!
//! 1,000 nodes, 30 DaemonSets that have all landed (how: `large/population.rs`), and 2,000 ordinary pods of 100m, which
//! exist before their scheduler starts. It counts as the scheduler itself counts
//! (`scheduler_schedule_attempts_total{result="scheduled"}`), between the tenth and the ninetieth percent, so that neither
//! its start nor its last pods count. Only one scheduler, and only one extender, run at a time.
//!
//! Only ratios mean something: machines differ, and the scheduler shares the cores with the apiserver and etcd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark ends where it fails"
)]
#![allow(dead_code, unused_imports, reason = "the tests' harness can do more than a benchmark needs")]

#[path = "../tests/cluster"]
mod cluster {
    pub(crate) mod harness;
}
mod large {
    pub(crate) mod population;
}

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use serde_json::json;

use cluster::harness::{Extender, HttpsServer, SchedulerOptions, Warden, WardenOptions, sum};
use large::population::Large;

/// How often the scheduler is asked how many it has placed: its page of metrics is long.
const POLL: Duration = Duration::from_millis(400);
/// For one measurement.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Echo,
    Warden,
}

/// One way to run the scheduler.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    kind: Kind,
    /// Whether the scheduler may speak HTTP/2, to the apiserver too.
    http2: bool,
    percentage: Option<u32>,
    node_cache_capable: bool,
}

const CASE: Case =
    Case { name: "plain", kind: Kind::Plain, http2: true, percentage: None, node_cache_capable: true };
const ECHO: Case = Case { name: "echo", kind: Kind::Echo, ..CASE };
const WARDEN: Case = Case { name: "warden", kind: Kind::Warden, ..CASE };

/// The first three are what is compared; the others are measured on demand.
const CASES: [Case; 11] = [
    CASE,
    ECHO,
    WARDEN,
    Case { name: "plain-http1", http2: false, ..CASE },
    Case { name: "echo-http1", http2: false, ..ECHO },
    Case { name: "warden-http1", http2: false, ..WARDEN },
    Case { name: "plain-10%", percentage: Some(10), ..CASE },
    Case { name: "echo-10%", percentage: Some(10), ..ECHO },
    Case { name: "warden-10%", percentage: Some(10), ..WARDEN },
    Case { name: "warden-100%", percentage: Some(100), ..WARDEN },
    Case { name: "warden-nodes", node_cache_capable: false, ..WARDEN },
];

struct Asked {
    cases: Vec<Case>,
    rounds: usize,
    nodes: usize,
    pods: usize,
}

fn asked() -> Asked {
    let mut asked = Asked { cases: Vec::new(), rounds: 3, nodes: 1000, pods: 2000 };
    for arg in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        match arg.split_once('=') {
            Some(("rounds", number)) => asked.rounds = number.parse().expect("a number"),
            Some(("nodes", number)) => asked.nodes = number.parse().expect("a number"),
            Some(("pods", number)) => asked.pods = number.parse().expect("a number"),
            None if arg == "all" => asked.cases = CASES.to_vec(),
            _ => asked.cases.push(*CASES.iter().find(|case| case.name == arg).expect("the name of a case")),
        }
    }
    if asked.cases.is_empty() {
        asked.cases = CASES[..3].to_vec();
    }
    asked
}

/// What one measurement saw.
#[derive(Clone, Copy)]
struct Measured {
    /// Pods a second.
    rate: f64,
    /// Of the call that the scheduler makes for a pod; only the echo looks at them.
    mean_names: Option<f64>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let asked = asked();
    let large = Large::start("throughput", asked.nodes, 3).await;
    let mut rates = vec![Vec::new(); asked.cases.len()];
    for round in 0..asked.rounds {
        for (case, rates) in asked.cases.iter().zip(&mut rates) {
            let measured = measure(&large, *case, round, asked.pods).await;
            let names =
                measured.mean_names.map(|names| format!("  {names:.0} names a call")).unwrap_or_default();
            println!("{:<14} {:>6.0} pods/s{names}", case.name, measured.rate);
            rates.push(measured.rate);
        }
    }
    println!("\n| scheduler | pods/s, median of {} | runs |", asked.rounds);
    println!("|---|---|---|");
    for (case, rates) in asked.cases.iter().zip(rates) {
        let runs: Vec<_> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        println!("| {} | {:.0} | {} |", case.name, median(rates), runs.join(", "));
    }
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

async fn measure(large: &Large, case: Case, round: usize, count: usize) -> Measured {
    // A scheduler of its own name each time: nothing is left over from the last.
    let name = format!("{}-{round}", case.name.replace('%', "-percent"));
    let pods = (0..count).map(|number| large.ordinary_pod(&name, number, json!({ "schedulerName": name })));
    large.create_pods(pods).await;

    let names = Arc::new(AtomicU64::new(0));
    let (extender, warden) = match case.kind {
        Kind::Plain => (None, None),
        Kind::Echo => (Some(echo(names.clone()).await), None),
        Kind::Warden => {
            let kubeconfig = Some(large.arena.warden_kubeconfig().await);
            let warden = Warden::start(WardenOptions { kubeconfig, ..WardenOptions::default() }).await;
            (Some(Extender { http_timeout: "5s", ..warden.extender() }), Some(warden))
        }
    };
    let extenders =
        extender.map(|extender| Extender { node_cache_capable: case.node_cache_capable, ..extender });
    let options = SchedulerOptions {
        name: name.clone(),
        extenders: extenders.into_iter().collect(),
        percentage_of_nodes_to_score: case.percentage,
        environment: if case.http2 { Vec::new() } else { vec![("DISABLE_HTTP2", "1")] },
        ..SchedulerOptions::default()
    };
    let scheduler = tokio::task::block_in_place(|| large.arena.plane.scheduler(&options));

    let begin = Instant::now();
    let mut samples: Vec<(f64, f64)> = Vec::new();
    loop {
        let text = scheduler.metrics().await;
        let scheduled = sum(&text, "scheduler_schedule_attempts_total", &[("result", "scheduled")]);
        samples.push((begin.elapsed().as_secs_f64(), scheduled));
        if scheduled >= count as f64 {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{name}: {scheduled} of {count} placed");
        tokio::time::sleep(POLL).await;
    }
    drop(scheduler);
    if let Some(warden) = warden {
        let calls = warden.filter_calls().await;
        assert!(
            calls >= count as f64,
            "the scheduler went on without the warden: {calls} calls for {count} pods"
        );
    }
    large.delete_pods(&name).await;
    let mean_names = (case.kind == Kind::Echo).then(|| names.load(Ordering::Relaxed) as f64 / count as f64);
    let (from, to) = (0.1 * count as f64, 0.9 * count as f64);
    Measured { rate: (to - from) / (when(&samples, to) - when(&samples, from)), mean_names }
}

/// When that many were placed: between two samples, as if the rate had been even.
fn when(samples: &[(f64, f64)], count: f64) -> f64 {
    let after = samples.iter().position(|(_, placed)| *placed >= count).expect("all were placed");
    let (later, more) = samples[after];
    let (earlier, fewer) = samples[after.saturating_sub(1)];
    if more > fewer { earlier + (later - earlier) * (count - fewer) / (more - fewer) } else { later }
}

/// The least that an extender can do: it cuts the names out of the question, undecoded, and answers with them.
async fn echo(names: Arc<AtomicU64>) -> Extender {
    let answer = move |body: Bytes| {
        // The last list of the question: Go writes fields in the order of the struct, and names have no brackets.
        let start = body.iter().rposition(|byte| *byte == b'[').expect("a list");
        let end = body.iter().rposition(|byte| *byte == b']').expect("its end");
        let list = &body[start..=end];
        names.fetch_add(list.iter().filter(|byte| **byte == b',').count() as u64 + 1, Ordering::Relaxed);
        let answer = [&b"{\"NodeNames\":"[..], list, b"}"].concat();
        std::future::ready(([("content-type", "application/json")], answer))
    };
    let router = Router::new().route("/scheduler/filter", post(answer)).layer(DefaultBodyLimit::disable());
    let server = HttpsServer::start(router).await;
    Extender {
        url_prefix: format!("{}/scheduler", server.url),
        ca: server.ca,
        node_cache_capable: true,
        ignorable: false,
        http_timeout: "5s",
        preempts: false,
    }
}
