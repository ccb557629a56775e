//! The way of a binding in a cluster: the apiserver, the Service of `/bind`, the EndpointSlices that its controller writes from the
//! Pods and their labels, and two replicas of the chart, each at an address of its own. In the middle of a join the active replica
//! ends in one way after the other.
//!
//! Each test runs in a network namespace of its own. Two ways of routing are tested: an apiserver with
//! `--enable-aggregator-routing`, which chooses an endpoint itself, and one that calls the ClusterIP, which a proxy serves.
//!
//! `NODES=100 cargo test --release --test cluster real_path::many_nodes -- --ignored --nocapture` joins so many nodes each time.

mod joining;
mod transitions;
mod upgrade;

use std::time::Duration;

use crate::harness::{is_inside, say};
use joining::{JoiningCluster, Lost};
use transitions::Transition;

/// The time until another process judges, at most: the chart's lease duration of 5 s, one second for bindings in flight, and the
/// time in which this test sees it, which is long beside other tests.
const REPLACED: Duration = Duration::from_secs(if cfg!(debug_assertions) { 40 } else { 12 });

/// The way from the apiserver to the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Routing {
    /// The apiserver chooses an endpoint.
    Aggregator,
    /// The apiserver calls the ClusterIP, and a proxy chooses an endpoint for each connection.
    ClusterIp,
}

/// Runs transitions one after the other, each in the middle of a join of so many nodes.
async fn run(routing: Routing, failure_policy: &str, nodes: usize, transitions: &[Transition]) {
    let mut cluster = JoiningCluster::start(routing, failure_policy, nodes > 20).await;
    say(
        "| transition | daemon pods lost | bindings unjudged | of them without an answer | another judges after |",
    );
    say("|---|---|---|---|---|");
    let mut failures = Vec::new();
    for &transition in transitions {
        let lost = cluster.join(nodes, transition).await;
        say(&format!("| {routing:?}, {failure_policy}: {transition:?} | {lost} |"));
        if let Err(why) = judge(transition, failure_policy, &lost) {
            failures.push(format!("{transition:?}: {why}"));
        }
        cluster.recover().await;
    }
    if !failures.is_empty() {
        say(&cluster.kubelet.logs().await);
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(cluster.namespace.recorder.preempted().is_empty(), "pods of equal priority evict no pod");
}

/// Compares the result of a transition with what is promised for it.
fn judge(transition: Transition, failure_policy: &str, lost: &Lost) -> Result<(), String> {
    // A rolling restart ends the active replica when it comes to it.
    if lost.replaced_after > REPLACED && transition != Transition::Restarted {
        return Err(format!("another replica judges after {:?}", lost.replaced_after));
    }
    let is_promised = transition.is_handed_over() || failure_policy == "Fail";
    if is_promised && (lost.daemons > 0 || lost.unjudged > 0.0) {
        return Err(format!("{lost:?}"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_active_replica_ends_where_the_apiserver_chooses_endpoints() {
    if is_inside("real_path::the_active_replica_ends_where_the_apiserver_chooses_endpoints") {
        run(Routing::Aggregator, "Ignore", 12, &Transition::ALL).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_active_replica_ends_behind_a_cluster_ip() {
    if is_inside("real_path::the_active_replica_ends_behind_a_cluster_ip") {
        run(Routing::ClusterIp, "Ignore", 12, &Transition::ALL).await;
    }
}

/// With `Fail` no binding is unjudged, however the replica ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_active_replica_ends_with_failure_policy_fail() {
    if is_inside("real_path::the_active_replica_ends_with_failure_policy_fail") {
        let transitions = [Transition::Deleted, Transition::Killed];
        run(Routing::Aggregator, "Fail", 12, &transitions).await;
    }
}

/// Runs with 100 nodes, or as many as the environment variable `NODES` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes, and alone: see the head of this file"]
async fn many_nodes() {
    if is_inside("real_path::many_nodes") {
        let nodes = std::env::var("NODES").map_or(100, |nodes| nodes.parse().expect("NODES is a number"));
        run(Routing::Aggregator, "Ignore", nodes, &Transition::ALL).await;
        run(Routing::ClusterIp, "Ignore", nodes, &Transition::ALL).await;
    }
}
