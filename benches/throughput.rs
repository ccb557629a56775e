//! `cargo bench --bench throughput [-- all] [-- NAME ...] [-- rounds=N] [-- nodes=N] [-- pods=N] [-- held=N]`: the pods a second
//! that a real kube-scheduler binds: alone, with its bindings judged by `/bind`, and with the warden as its extender; in turn, in
//! the same run, on the same control plane. `echo` is an extender that only echoes its NodeNames; `all` adds other configurations.
//! The
//! `held` cases run while a DaemonSet waits on half of the nodes, or on as many as `held=N` says: `held-plain` without the warden,
//! `held-bind` by `/bind`, `held` and `held-nominate` with the extender, without and with nomination; `-limited` uses the
//! scheduler's default client limits. The figures are `-- rounds=10`, and `-- held-plain held-bind held-nominate held=100
//! pods=5000 rounds=10`.
//!
//! 1,000 nodes, 30 DaemonSets whose pods are all bound (made by `large/population.rs`), and 8,000 ordinary pods of 100m, which
//! exist before their scheduler starts. With only 2,000 the result would depend on the number of the apiserver's garbage
//! collections, of half a second to a second each, in the measured time. The pods are counted by the scheduler's own metric
//! (`scheduler_schedule_attempts_total{result="scheduled"}`), between 10% and 90% of them, so that neither the start nor the last
//! pods count. Only one scheduler and one extender run at a time.
//!
//! Compare only the ratios: machines differ, and the scheduler shares the cores with the apiserver and etcd. The CPU time of each
//! program for a pod is printed, too.

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
mod load {
    pub(crate) mod process;
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use serde_json::json;

use cluster::harness::{BindWebhook, Extender, HttpsServer, SchedulerOptions, Warden, WardenOptions, sum};
use large::population::{Large, NAMESPACE};
use load::process::Stat;

/// The interval at which the scheduler's metrics are read; the response is long.
const POLL: Duration = Duration::from_millis(400);
/// The pause before each measurement.
const SETTLING: Duration = Duration::from_secs(5);
/// The time limit of a measurement.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Echo,
    /// The scheduler calls the echo, and a warden watches the cluster without being called.
    EchoBeside,
    /// The scheduler calls the warden.
    Warden,
    /// The apiserver calls the warden with each binding.
    Bind,
}

/// A configuration of the scheduler and its extender.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    kind: Kind,
    /// If false, the scheduler uses HTTP/1.1 for all its connections, also to the apiserver.
    http2: bool,
    percentage: Option<u32>,
    node_cache_capable: bool,
    /// A DaemonSet is created for the first nodes, and fits on none of them.
    is_held: bool,
    nominate: bool,
    /// The QPS and burst of the scheduler's client; `None` for limits that it does not reach.
    limits: Option<(u32, u32)>,
}

const CASE: Case = Case {
    name: "plain",
    kind: Kind::Plain,
    http2: true,
    percentage: None,
    node_cache_capable: true,
    is_held: false,
    nominate: true,
    limits: None,
};
/// kube-scheduler's defaults.
const DEFAULT_LIMITS: Option<(u32, u32)> = Some((50, 100));
const HELD: Case = Case { name: "held", is_held: true, nominate: false, ..WARDEN };
const HELD_NOMINATE: Case = Case { name: "held-nominate", nominate: true, ..HELD };
const ECHO: Case = Case { name: "echo", kind: Kind::Echo, ..CASE };
const WARDEN: Case = Case { name: "warden", kind: Kind::Warden, ..CASE };
const BIND: Case = Case { name: "bind", kind: Kind::Bind, ..CASE };

/// All cases. The first three run by default.
const CASES: [Case; 20] = [
    CASE,
    BIND,
    WARDEN,
    ECHO,
    Case { name: "echo-beside", kind: Kind::EchoBeside, ..CASE },
    Case { name: "plain-http1", http2: false, ..CASE },
    Case { name: "echo-http1", http2: false, ..ECHO },
    Case { name: "warden-http1", http2: false, ..WARDEN },
    Case { name: "plain-10%", percentage: Some(10), ..CASE },
    Case { name: "echo-10%", percentage: Some(10), ..ECHO },
    Case { name: "warden-10%", percentage: Some(10), ..WARDEN },
    Case { name: "warden-100%", percentage: Some(100), ..WARDEN },
    Case { name: "warden-nodes", node_cache_capable: false, ..WARDEN },
    HELD,
    HELD_NOMINATE,
    Case { name: "held-plain", is_held: true, ..CASE },
    Case { name: "held-bind", is_held: true, ..BIND },
    Case { name: "held-bind-limited", is_held: true, limits: DEFAULT_LIMITS, ..BIND },
    Case { name: "held-limited", limits: DEFAULT_LIMITS, ..HELD },
    Case { name: "held-nominate-limited", limits: DEFAULT_LIMITS, ..HELD_NOMINATE },
];

struct BenchArgs {
    cases: Vec<Case>,
    rounds: usize,
    nodes: usize,
    pods: usize,
    held: Option<usize>,
}

fn bench_args() -> BenchArgs {
    let mut args = BenchArgs { cases: Vec::new(), rounds: 3, nodes: 1000, pods: 8000, held: None };
    for arg in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        match arg.split_once('=') {
            Some(("rounds", number)) => args.rounds = number.parse().expect("a number"),
            Some(("nodes", number)) => args.nodes = number.parse().expect("a number"),
            Some(("pods", number)) => args.pods = number.parse().expect("a number"),
            Some(("held", number)) => args.held = Some(number.parse().expect("a number")),
            None if arg == "all" => args.cases = CASES.into_iter().filter(|case| !case.is_held).collect(),
            _ => args.cases.push(*CASES.iter().find(|case| case.name == arg).expect("the name of a case")),
        }
    }
    if args.cases.is_empty() {
        args.cases = CASES[..3].to_vec();
    }
    args
}

/// The result of a measurement.
struct Measured {
    /// Pods a second.
    rate: f64,
    /// The CPU time of each program for a pod, in microseconds.
    cpu: BTreeMap<&'static str, f64>,
    /// The node names in a filter call; only the echo counts them.
    mean_names: Option<f64>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let args = bench_args();
    let large = Large::start("throughput", args.nodes, 3).await;
    let held = args.held.unwrap_or(args.nodes / 2);
    if args.cases.iter().any(|case| case.is_held) {
        large.fill(held).await;
    }
    let mut rates = vec![Vec::new(); args.cases.len()];
    for round in 0..args.rounds {
        // Each round begins with another case, because a case may leave load to the next one.
        for turn in 0..args.cases.len() {
            let index = (round + turn) % args.cases.len();
            let (case, rates) = (&args.cases[index], &mut rates[index]);
            let measured = measure(&large, *case, round, args.pods, held).await;
            let names =
                measured.mean_names.map(|names| format!("  {names:.0} names a call")).unwrap_or_default();
            let cpu: Vec<_> = measured.cpu.iter().map(|(name, us)| format!("{name} {us:.0}")).collect();
            println!(
                "{:<14} {:>6.0} pods/s{names}; CPU a pod, us: {}",
                case.name,
                measured.rate,
                cpu.join(", ")
            );
            rates.push(measured.rate);
        }
    }
    println!(
        "\n| scheduler | pods/s, mean of {} | least to most | of {} | runs |",
        args.rounds, args.cases[0].name
    );
    println!("|---|---|---|---|---|");
    let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
    let first = mean(&rates[0]);
    for (case, rates) in args.cases.iter().zip(rates) {
        let runs: Vec<_> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        let (mean, runs) = (mean(&rates), runs.join(", "));
        let (least, most) =
            rates.iter().fold((f64::MAX, 0.0_f64), |(least, most), rate| (least.min(*rate), most.max(*rate)));
        println!("| {} | {mean:.0} | {least:.0} to {most:.0} | {:.2} | {runs} |", case.name, mean / first);
    }
}

async fn measure(large: &Large, case: Case, round: usize, count: usize, held: usize) -> Measured {
    // Each scheduler has another name, so that it has no pods of the last one.
    let name = format!("{}-{round}", case.name.replace('%', "-percent"));
    let pods = (0..count).map(|number| large.ordinary_pod(&name, number, json!({ "schedulerName": name })));
    large.create_pods(pods).await;
    let late = format!("late-{name}");
    if case.is_held {
        large.waiting_daemon_set(&late, held, &name).await;
    }

    let names = Arc::new(AtomicU64::new(0));
    let (extender, warden) = match case.kind {
        Kind::Plain => (None, None),
        Kind::Echo => (Some(echo(names.clone()).await), None),
        Kind::EchoBeside => (Some(echo(names.clone()).await), Some(warden(large, case.nominate).await)),
        Kind::Warden => {
            let warden = warden(large, case.nominate).await;
            (Some(Extender { http_timeout: "5s", ..warden.extender() }), Some(warden))
        }
        Kind::Bind => {
            let warden = warden(large, case.nominate).await;
            // The chart's timeout.
            let webhook = BindWebhook {
                beside: vec![NAMESPACE.to_owned()],
                timeout_seconds: 1,
                ..BindWebhook::default()
            };
            large.namespace.register_bind(&warden, &webhook).await;
            (None, Some(warden))
        }
    };
    // Waits until the apiserver has freed the memory of the lists for the start.
    tokio::time::sleep(SETTLING).await;
    let extenders =
        extender.map(|extender| Extender { node_cache_capable: case.node_cache_capable, ..extender });
    let options = SchedulerOptions {
        name: name.clone(),
        extenders: extenders.into_iter().collect(),
        percentage_of_nodes_to_score: case.percentage,
        written: case
            .limits
            .map(|(qps, burst)| json!({ "clientConnection": { "qps": qps, "burst": burst } })),
        environment: if case.http2 { Vec::new() } else { vec![("DISABLE_HTTP2", "1")] },
        flags: &[],
    };
    let scheduler = tokio::task::block_in_place(|| large.namespace.plane.scheduler(&options));

    let begin = Instant::now();
    let mut samples: Vec<Sample> = Vec::new();
    loop {
        let text = scheduler.metrics().await;
        let scheduled = sum(&text, "scheduler_schedule_attempts_total", &[("result", "scheduled")]);
        samples.push(Sample { at: begin.elapsed().as_secs_f64(), scheduled, cpu: cpu_of_programs() });
        if scheduled >= count as f64 {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{name}: {scheduled} of {count} placed");
        tokio::time::sleep(POLL).await;
    }
    drop(scheduler);
    if case.is_held {
        large.delete_daemon_set(&late).await;
    }
    if case.kind == Kind::Bind {
        let unanswered = large.namespace.unanswered_bindings().await;
        println!("{name}: {unanswered} bindings of {count} pods without an answer");
        large.namespace.unregister_bind().await;
    }
    if let (Some(warden), Kind::Warden | Kind::Bind) = (warden, case.kind) {
        let calls = if case.kind == Kind::Bind {
            let refused =
                warden.metric("daemonset_warden_bind_requests_total", &[("outcome", "refused")]).await;
            println!("{name}: {refused} bindings refused");
            warden.metric("daemonset_warden_bind_requests_total", &[]).await
        } else {
            warden.filter_calls().await
        };
        if case.is_held {
            let of = |outcome: &'static str| {
                let labels = [("kind", "nomination"), ("outcome", outcome)];
                let warden = &warden;
                async move { warden.metric("daemonset_warden_cluster_writes_total", &labels).await }
            };
            let (done, outdated, dropped) = (of("done").await, of("outdated").await, of("dropped").await);
            let took = samples.last().expect("samples").at;
            println!(
                "{name}: {took:.1} s; nominations: {done} written, {outdated} outdated, {dropped} dropped"
            );
        }
        assert!(
            calls >= count as f64,
            "the scheduler went on without the warden: {calls} calls for {count} pods"
        );
    }
    large.delete_pods(&name).await;
    let mean_names = (case.kind == Kind::Echo).then(|| names.load(Ordering::Relaxed) as f64 / count as f64);
    let (from, to) = (when(&samples, 0.1 * count as f64), when(&samples, 0.9 * count as f64));
    let cpu = PROGRAMS.iter().enumerate().map(|(index, (_, name))| {
        let taken = to.cpu[index] - from.cpu[index];
        (*name, taken / (to.scheduled - from.scheduled))
    });
    Measured {
        rate: (to.scheduled - from.scheduled) / (to.at - from.at),
        cpu: cpu.filter(|(_, us)| *us > 0.0).collect(),
        mean_names,
    }
}

async fn warden(large: &Large, nominate: bool) -> Warden {
    let kubeconfig = Some(large.namespace.warden_kubeconfig().await);
    let config = json!({ "reservation": { "nominate": nominate } });
    Warden::start(WardenOptions { config, kubeconfig }).await
}

/// The values at one time.
#[derive(Clone, Copy)]
struct Sample {
    /// Seconds since the start.
    at: f64,
    scheduled: f64,
    /// The CPU time of each of the [`PROGRAMS`] so far.
    cpu: [f64; PROGRAMS.len()],
}

/// Returns the sample at which `count` pods were placed, interpolated between two samples.
fn when(samples: &[Sample], count: f64) -> Sample {
    let after = samples.iter().position(|sample| sample.scheduled >= count).expect("all were placed");
    let (later, earlier) = (samples[after], samples[after.saturating_sub(1)]);
    if later.scheduled <= earlier.scheduled {
        return later;
    }
    let share = (count - earlier.scheduled) / (later.scheduled - earlier.scheduled);
    let between = |earlier: f64, later: f64| earlier + (later - earlier) * share;
    Sample {
        at: between(earlier.at, later.at),
        scheduled: count,
        cpu: std::array::from_fn(|index| between(earlier.cpu[index], later.cpu[index])),
    }
}

/// The programs that share the cores: the start of the name in the kernel (at most 15 bytes), and the printed name.
const PROGRAMS: [(&str, &str); 5] = [
    ("kube-scheduler", "scheduler"),
    ("kube-apiserver", "apiserver"),
    ("server", "etcd"),
    ("daemonset-warde", "warden"),
    // This program: the echo, which also creates and counts pods.
    ("throughput-", "bench"),
];

/// Returns the CPU time of each program so far, in microseconds.
fn cpu_of_programs() -> [f64; PROGRAMS.len()] {
    let mut cpu = [0.0; PROGRAMS.len()];
    for entry in std::fs::read_dir("/proc").expect("Linux").flatten() {
        let process = entry.file_name().to_string_lossy().into_owned();
        // Skips `self`, which is this process a second time.
        if process.parse::<u32>().is_err() {
            continue;
        }
        // The process may have ended meanwhile.
        let Some(stat) = Stat::of(&process) else { continue };
        if let Some(index) = PROGRAMS.iter().position(|(program, _)| stat.name.starts_with(program)) {
            cpu[index] += stat.cpu.as_secs_f64() * 1e6;
        }
    }
    cpu
}

/// Starts an extender that does the least possible: it cuts the names out of the request, without decoding, and returns them.
async fn echo(names: Arc<AtomicU64>) -> Extender {
    let answer = move |body: Bytes| {
        // The last list of the request: Go writes fields in the order of the struct, and names contain no brackets.
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
