//! `cargo bench --bench scale [-- nodes=N] [-- seconds=N]`: the warden with a real apiserver and a large cluster: the time until
//! it is synced, its memory, and the CPU time of a pod event.
//!
//! 5,000 nodes, 30 DaemonSets that each run on two thirds of them, and half as many ordinary pods: 150,000 pods (made by
//! `large/population.rs`). The events are lives of pods: an ADDED pod on a node, a MODIFIED one (its status, as a kubelet writes
//! it) and a DELETED one, as fast as the apiserver accepts them. The cost of an event is the CPU time of the process divided by
//! the events, less the CPU time without events; so it does not depend on the rate of the events.

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
    pub(crate) mod lock;
    pub(crate) mod population;
}
mod load {
    pub(crate) mod process;
    pub(crate) mod servers;
}

use std::fs;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::json;

use cluster::harness::{Certificate, Warden, WardenOptions};
use large::lock::describe_lock;
use large::population::{Large, NAMESPACE};
use load::process::{Stat, median, mib};
use load::servers::{Server, load, p99};

/// The number of pods that exist at once while events are made.
const AT_ONCE: usize = 16;

struct BenchArgs {
    nodes: usize,
    seconds: u64,
}

fn bench_args() -> BenchArgs {
    let mut args = BenchArgs { nodes: 5000, seconds: 30 };
    for arg in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        match arg.split_once('=') {
            Some(("nodes", number)) => args.nodes = number.parse().expect("a number"),
            Some(("seconds", number)) => args.seconds = number.parse().expect("a number"),
            _ => panic!("neither nodes=N nor seconds=N: {arg}"),
        }
    }
    args
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let BenchArgs { nodes, seconds } = bench_args();
    let large = Large::start("scale", nodes, 2).await;
    let begin = Instant::now();
    let on = |number: usize| json!({ "nodeName": large.node(number) });
    let ordinary = (0..nodes * 10).map(|number| large.ordinary_pod("web", number, on(number)));
    large.create_pods(ordinary).await;
    println!("{} ordinary pods made in {:.0} s", nodes * 10, begin.elapsed().as_secs_f64());

    let kubeconfig = Some(large.namespace.warden_kubeconfig().await);
    let begin = Instant::now();
    let warden = Warden::start(WardenOptions { kubeconfig, ..WardenOptions::default() }).await;
    let synced = begin.elapsed();
    // The warden updates these metrics once a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let pods = warden.metric("daemonset_warden_cache_objects", &[("resource", "pods")]).await;
    println!("| what | measured |\n|---|---|");
    println!("| objects | {nodes} nodes, {pods} pods |");
    println!("| synced after | {:.1} s, {:.1} s of CPU |", synced.as_secs_f64(), cpu(warden.id()));
    println!(
        "| resident once synced | {:.0} MiB, {:.0} MiB at most |",
        mib(warden.id(), "VmRSS"),
        mib(warden.id(), "VmHWM")
    );

    let span = Duration::from_secs(seconds);
    let before = cpu(warden.id());
    tokio::time::sleep(span).await;
    let idle = cpu(warden.id()) - before;
    println!("| when nothing happens | {:.2}% of a core |", 100.0 * idle / span.as_secs_f64());

    tokio::task::block_in_place(|| filter(&large, &warden, nodes));
    let waits = json!({ "schedulerName": "nobody" });
    large.create_pods([large.ordinary_pod("waits", 0, waits)]).await;
    // The warden judges only pods that it has seen.
    tokio::time::sleep(Duration::from_secs(2)).await;
    tokio::task::block_in_place(|| bind(&large, &warden, nodes));
    let unjudged = warden.metric("daemonset_warden_bind_requests_total", &[("outcome", "unjudged")]).await;
    println!("| of these, unjudged | {unjudged} |");

    let before = cpu(warden.id());
    let begin = Instant::now();
    let lives = futures::stream::iter(0..)
        .take_while(|_| std::future::ready(begin.elapsed() < span))
        .map(|number| pod_life(&large, number))
        .buffer_unordered(AT_ONCE)
        .count()
        .await;
    let took = begin.elapsed().as_secs_f64();
    let events = (3 * lives) as f64;
    let spent = cpu(warden.id()) - before - idle / span.as_secs_f64() * took;
    println!(
        "| {:.0} pod events a second | {:.1} us of CPU an event: 1,000 a second take {:.1}% of a core |",
        events / took,
        1e6 * spent / events,
        1e5 * spent / events
    );
    println!("| resident afterwards | {:.0} MiB |", mib(warden.id(), "VmRSS"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let there = warden.metric("daemonset_warden_cache_objects", &[("resource", "pods")]).await;
    println!("| pods known afterwards | {there} |");
    println!("| the cache's lock | {} |", describe_lock(&warden.metrics().await));
}

/// The measurements of each side, in turn.
const ROUNDS: usize = 3;
/// Calls in a measurement, so that it lasts a few seconds.
const PEER_CALLS: usize = 400;
const WARDEN_CALLS: usize = 5_000;

/// Sends filter calls for an ordinary pod with the names of all nodes, on one connection: to the warden, which checks each node,
/// and to the peer, which has no cache of nodes.
fn filter(large: &Large, warden: &Warden, nodes: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    Certificate::issue().write(folder.path());
    let peer = Server::peer(folder.path());
    let mut pod = large.ordinary_pod("asked", 0, json!({}));
    pod["metadata"]["namespace"] = json!(NAMESPACE);
    pod["metadata"]["uid"] = json!("9f0e6a1c-6393-11e8-b7cc-42010a800002");
    let names: Vec<_> = (0..nodes).map(|number| large.node(number)).collect();
    let body = folder.path().join("names");
    let args = json!({ "Pod": pod, "Nodes": null, "NodeNames": names });
    fs::write(&body, args.to_string()).expect("a body");

    let url = |server: &str| format!("{server}/scheduler/filter");
    let (theirs, ours) = (url(&peer.url), url(&warden.url()));
    let rounds =
        (0..ROUNDS).map(|_| (load(&theirs, &body, 1, PEER_CALLS), load(&ours, &body, 1, WARDEN_CALLS)));
    let (their_rates, our_rates): (Vec<_>, Vec<_>) = rounds.unzip();
    let (their_rate, our_rate) = (median(their_rates), median(our_rates));
    let (their_p99, our_p99) = (p99(&theirs, &body, 1, PEER_CALLS), p99(&ours, &body, 1, WARDEN_CALLS));
    println!(
        "| filter of {nodes} names, one connection | {our_rate:.0} a second, p99 {our_p99:.2} ms; Go peer {their_rate:.0} a second, p99 {their_p99:.2} ms: {:.1} times |",
        our_rate / their_rate
    );
}

/// Sends reviews of a binding of one pod, on one connection.
fn bind(large: &Large, warden: &Warden, nodes: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let body = folder.path().join("bind");
    let binding = json!({
        "kind": "Binding", "apiVersion": "v1",
        "metadata": { "name": "waits-0", "namespace": NAMESPACE },
        "target": { "kind": "Node", "name": large.node(0) },
    });
    let kind = json!({ "group": "", "version": "v1", "kind": "Binding" });
    let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind, "resource": resource, "subResource": "binding",
            "name": "waits-0", "namespace": NAMESPACE, "operation": "CREATE", "object": binding, "dryRun": false,
        },
    });
    fs::write(&body, review.to_string()).expect("a body");
    let url = format!("{}/bind", warden.url());
    let before = cpu(warden.id());
    let rate = load(&url, &body, 1, WARDEN_CALLS);
    let cpu = 1e6 * (cpu(warden.id()) - before) / WARDEN_CALLS as f64;
    println!(
        "| bind with {nodes} nodes behind, one connection | {rate:.0} a second, p99 {:.2} ms, {cpu:.0} us of CPU a call |",
        p99(&url, &body, 1, WARDEN_CALLS)
    );
}

/// Creates a pod on a node, makes it Ready, and deletes it.
async fn pod_life(large: &Large, number: usize) {
    let pod = large.ordinary_pod("brief", number, json!({ "nodeName": large.node(number) }));
    large.create_pods([pod]).await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/brief-{number}");
    let ready = json!({ "status": {
        "phase": "Running",
        "podIP": "10.1.2.3",
        "conditions": [{ "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" }],
        "containerStatuses": [{
            "name": "main", "ready": true, "restartCount": 0,
            "image": "registry.example/team/image:v1", "imageID": "sha256:0000000000000000",
        }],
    } });
    large.send("PATCH", &format!("{path}/status"), "application/merge-patch+json", ready).await;
    // In the body, because the apiserver ignores the query parameter if there is a body.
    let at_once = json!({ "gracePeriodSeconds": 0 });
    large.send("DELETE", &path, "application/json", at_once).await;
}

/// Returns the CPU time of the process so far, in seconds.
fn cpu(process: u32) -> f64 {
    Stat::of(&process.to_string()).expect("it runs").cpu.as_secs_f64()
}
