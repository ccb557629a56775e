//! An adversary beside the scenarios: a tenant with the ClusterRole `edit` in one namespace, and a stranger who reaches the port
//! and has no credential, several attacks of each at once.
//!
//! Every daemon pod of the others lands, no pod of higher priority is refused for the tenant's sake, pods of equal priority wait
//! for it no more than the budget, no call waits long, the program goes on and stays small. Each kind of attack has to reach what
//! it aims at, and a hold of the tenant has to refuse a pod. The seed of a run is printed; `SEED=...` repeats it.
//!
//! The control plane asks the extender, or `/bind` alone.
//!
//! `NODES=500 cargo test --release --test cluster hostile::full_size -- --ignored --nocapture --test-threads=1` runs it longer and larger.

pub(crate) mod caller;
mod cannot_exist;
mod come_and_go;
mod dice;
mod door;
mod probe;
mod process;
mod stranger;
mod tally;
pub(crate) mod tenant;

use std::time::{Duration, Instant};

use crate::harness::{TestNamespace, say};
use crate::scenarios::scenario_run::{Scenario, ScenarioOptions, ScenarioRun};

use dice::Dice;
use door::Door;
use probe::{Probe, Report};
use stranger::Stranger;
use tally::Tally;
use tenant::Tenant;

/// The seconds of an hour in which pods may wait for holds of one namespace that end without landing.
const BUDGET: Duration = Duration::from_secs(60);
/// The time that a pod may take longer than the hold: the scheduler's back-off, up to 10 s, and the wake-up.
const AFTER_HOLDS: Duration = Duration::from_secs(15);

/// The bounds of a run.
struct Bounds {
    nodes: usize,
    /// The time from the beginning of the attack to its end. More than twice the budget: a hold that stands for all of it breaks
    /// the bound.
    lasts: Duration,
    /// The time for the daemon pods that the controller has not created yet when the attack ends.
    peace: Duration,
    /// The connections that the stranger opens for each attack with handshakes.
    served: usize,
    /// The time of half of the calls.
    median: Duration,
    /// The time of 95 calls of 100.
    most: Duration,
    /// The longest time that a call may take.
    slowest: Duration,
    /// The longest time that the lock may be held, without the time in which the kernel ran something else.
    lock_cpu: Option<Duration>,
}

/// Debug builds take forty times as long, and share two cores with the control plane, the attackers and other tests.
const SMALL: Bounds = Bounds {
    nodes: 6,
    lasts: Duration::from_secs(150),
    peace: Duration::from_secs(120),
    served: if cfg!(debug_assertions) { 100 } else { 1_600 },
    // The scheduler's time limit for a call, by `scheduler-config`.
    median: Duration::from_millis(300),
    most: Duration::from_millis(if cfg!(debug_assertions) { 3_000 } else { 300 }),
    slowest: Duration::from_millis(if cfg!(debug_assertions) { 20_000 } else { 500 }),
    lock_cpu: None,
};

async fn attacked(name: &str, scenario: Scenario, bounds: &Bounds, door: Door) {
    let (mut dice, seed) = Dice::seeded();
    say(&format!("{name}: SEED={seed}"));
    let tenants = format!("{name}-tenant");
    let options =
        ScenarioOptions { beside: Some(tenants.clone()), ..ScenarioOptions::new(bounds.nodes, door.doors()) };
    let run = ScenarioRun::start(name, options).await;
    let warden = run.warden.as_ref().expect("started with the warden");
    let tenant_namespace = TestNamespace::shared(&tenants).await;
    let begun = Instant::now();
    let probe = Probe::start(&run.namespace, warden, door).await;
    let tenant = Tenant::start(&tenant_namespace, &run.namespace, &mut dice).await;
    let mut nodes: Vec<_> = (1..=bounds.nodes).map(|number| format!("{name}-{number}")).collect();
    nodes.push(probe::pool(name));
    let others = (run.namespace.api(), nodes);
    let stranger = Stranger::start(warden, bounds.served, others, &mut dice).await;

    let outcome = run.run(scenario).await;
    tokio::time::sleep(bounds.lasts.saturating_sub(begun.elapsed())).await;
    let report = probe.stop().await;
    let (by_stranger, by_tenant) = (stranger.stop().await, tenant.stop().await);
    // The tenant keeps the two workers of the DaemonSet controller busy, so that pods are created late, some after the attack. Pods
    // that lost their room in it never land.
    tenant_namespace.kubectl.succeed(&["delete", "daemonsets", "--all", "--wait=false"]).await;
    let landed = run.landed(scenario, bounds.peace).await;
    say(&format!(
        "{name}: SEED={seed} {landed:?} landed; {outcome:?}; {report:?}; the stranger:{by_stranger:?}\nthe tenant:{by_tenant:?}"
    ));
    say(&format!("{name}: {}", metrics(&warden.metrics().await)));

    assert_teeth(&report, &by_stranger, &by_tenant);
    let gave_way = warden.metric("daemonset_warden_connections_cut_total", &[("reason", "gave_way")]).await;
    assert!(gave_way > 0.0, "the stranger did not take all places");
    let updated = if matches!(scenario, Scenario::Rollout { .. }) { outcome.wanted } else { 0 };
    assert_eq!(landed, (outcome.wanted, updated), "{outcome:?}");
    assert!(outcome.evicted.is_empty(), "{outcome:?}");
    assert_bounds(&report, bounds);
    assert!(!warden.log().contains("panicked"));
    assert_eq!(warden.metric("daemonset_warden_panics_total", &[]).await, 0.0);
    if let Some(bound) = bounds.lock_cpu {
        let text = warden.metrics().await;
        let within =
            format!("daemonset_warden_cache_lock_cpu_seconds_bucket{{le=\"{}\"}}", bound.as_secs_f64());
        let count =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        let (all, short) = (count("daemonset_warden_cache_lock_cpu_seconds_count"), count(&within));
        assert!(all.is_some(), "no such metric");
        let log = warden.log();
        let long: Vec<_> =
            log.lines().filter(|line| line.contains("the cache was locked for long")).collect();
        assert_eq!(all, short, "the lock was held for more than {bound:?}: {long:?}");
    }
}

/// Asserts that the adversary did what it should, without which the run proves nothing.
fn assert_teeth(report: &Report, by_stranger: &Tally, by_tenant: &Tally) {
    by_stranger.assert_each(stranger::kinds());
    by_tenant.assert_each(tenant::kinds());
    assert!(report.equal_refused > 0, "no hold of the tenant has refused a pod");
    assert!(report.turns > 1 && report.calls.count > 100, "{report:?}");
}

fn assert_bounds(report: &Report, bounds: &Bounds) {
    assert!(report.lasted > 2 * (BUDGET + AFTER_HOLDS) - Duration::from_secs(10), "{:?}", report.lasted);
    assert_eq!(report.important_refused, 0, "pods of higher priority were refused");
    assert!(report.waited <= BUDGET + AFTER_HOLDS, "pods of equal priority waited for {:?}", report.waited);
    assert!(report.calls.failed.is_empty(), "{:?}", report.calls.failed);
    assert!(report.calls.median <= bounds.median, "half of the calls took {:?}", report.calls.median);
    assert!(report.calls.most <= bounds.most, "95% of the calls took {:?}", report.calls.most);
    assert!(report.calls.slowest <= bounds.slowest, "a call took {:?}", report.calls.slowest);
    assert_eq!(Some(report.process.0), report.process.1, "it has ended or was restarted");
    assert!(report.peak_mib > 0 && report.peak_mib < 256, "{} MiB", report.peak_mib);
}

/// Returns the lines of the metrics that tell about the attack.
fn metrics(text: &str) -> String {
    let names = [
        "holds_refusing_total",
        "holds_ended_total",
        "requests_shed_total",
        "connections_cut_total",
        "extender_fail_open",
        "bind_requests_total",
        "bind_unjudged",
    ];
    let tells = |line: &&str| names.iter().any(|name| line.contains(name)) && !line.ends_with(" 0");
    text.lines().filter(|line| !line.starts_with('#')).filter(tells).collect::<Vec<_>>().join("; ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_finishes_beside_a_hostile_tenant_and_a_stranger() {
    attacked("hostile-a", Scenario::Rollout { gone_after: "0s" }, &SMALL, Door::Filter).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_join_get_their_daemon_pods_beside_a_hostile_tenant_and_a_stranger() {
    attacked("hostile-b", Scenario::Join { ready_after: None }, &SMALL, Door::Filter).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_finishes_by_bind_beside_a_hostile_tenant_and_a_stranger() {
    attacked("hostile-a-bind", Scenario::Rollout { gone_after: "0s" }, &SMALL, Door::Bind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes, and alone: see the head of this file"]
async fn full_size() {
    attacked_at_full_size(Door::Filter, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes, and alone: see the head of this file"]
async fn full_size_by_bind() {
    attacked_at_full_size(Door::Bind, "-bind").await;
}

/// Runs with 50 nodes, or as many as the environment variable `NODES` says.
async fn attacked_at_full_size(door: Door, ending: &str) {
    let nodes = std::env::var("NODES").map_or(50, |nodes| nodes.parse().expect("NODES is a number"));
    let bounds = Bounds {
        nodes,
        lasts: Duration::from_secs(300),
        // With 500 nodes the control plane takes both cores: a batch of a rollout is a minute, and a call may wait for a core.
        peace: Duration::from_secs(120) * u32::try_from(nodes.div_ceil(50)).unwrap_or(1).min(10),
        served: 1_600,
        median: Duration::from_millis(20),
        most: Duration::from_millis(50),
        slowest: Duration::from_millis(if nodes > 50 { 200 } else { 100 }),
        lock_cpu: Some(Duration::from_millis(5)),
    };
    attacked(&format!("hostile-full-a{ending}"), Scenario::Rollout { gone_after: "0s" }, &bounds, door).await;
    attacked(&format!("hostile-full-b{ending}"), Scenario::Join { ready_after: None }, &bounds, door).await;
}
