//! The warden as the extender of a real kube-scheduler: over TLS, with node names and with whole Nodes, and without the warden.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, HttpsServer, NodeOptions, Scheduler, SchedulerOptions, TestNamespace, Warden,
    WardenOptions, eventually_within, mutating_webhook, node_of,
};

const NODES: usize = 3;
/// The scheduler places the pods well within this time, unless the extender blocks it.
const SOON: Duration = Duration::from_secs(30);

/// Starts a warden, and a scheduler named like the namespace that calls it.
async fn extended(
    namespace: &TestNamespace<&'static ControlPlane>,
    node_cache_capable: bool,
) -> (Warden, Scheduler) {
    let warden = Warden::start(WardenOptions::default()).await;
    let mut extender = warden.extender();
    extender.node_cache_capable = node_cache_capable;
    let options = SchedulerOptions {
        name: namespace.name.clone(),
        extenders: vec![extender],
        ..SchedulerOptions::default()
    };
    let plane = namespace.plane;
    let scheduler = tokio::task::spawn_blocking(move || plane.scheduler(&options)).await.unwrap();
    (warden, scheduler)
}

/// Returns the change that sets the scheduler of a template.
fn by(scheduler: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "schedulerName": scheduler } } } })
}

async fn asks_the_warden(name: &str, node_cache_capable: bool) {
    let namespace = TestNamespace::shared(name).await;
    let nodes = namespace.nodes(1, NODES, &NodeOptions::default()).await;
    let (warden, _scheduler) = extended(&namespace, node_cache_capable).await;
    namespace.create(&namespace.daemon_set("agent", by(name))).await;
    namespace.create(&namespace.deployment("web", 4, "100m", by(name))).await;
    namespace.settled("agent", NODES as i32).await;
    namespace.bound("web", 4).await;

    // Another webhook widens the affinity of daemon pods to every node, and makes them prefer the first node. The controller
    // still counts each pod for the node in `metadata.name`, and only the extender keeps the pods off other nodes.
    let first = nodes[0].clone();
    let foreign = HttpsServer::start(mutating_webhook(move |pod| widen(pod, &first))).await;
    namespace
        .register_foreign(&format!("{name}-foreign"), &format!("{}/mutate", foreign.url), &foreign.ca)
        .await;
    namespace.create(&namespace.daemon_set("wide", by(name))).await;
    namespace.settled("wide", NODES as i32).await;
    let pods = namespace.bound("wide", NODES).await;
    let mut on: Vec<_> = pods.iter().filter_map(node_of).collect();
    on.sort_unstable();
    assert_eq!(on, nodes);
    assert_eq!(namespace.recorder.created_by("wide"), NODES);
    let asked = warden.filter_calls().await;
    assert!(asked >= (2 * NODES + 4) as f64, "asked {asked} times");
}

fn widen(pod: &Value, preferred: &str) -> Vec<Value> {
    let node_affinity = "/spec/affinity/nodeAffinity";
    if pod.pointer(node_affinity).is_none() {
        return Vec::new();
    }
    let anywhere = json!({ "matchExpressions": [{ "key": "kubernetes.io/os", "operator": "Exists" }] });
    let preference = json!([{ "weight": 100, "preference": { "matchExpressions": [
        { "key": "kubernetes.io/hostname", "operator": "In", "values": [preferred] },
    ] } }]);
    let terms = "requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let preferences = "preferredDuringSchedulingIgnoredDuringExecution";
    vec![
        json!({ "op": "add", "path": format!("{node_affinity}/{terms}/0"), "value": anywhere }),
        json!({ "op": "add", "path": format!("{node_affinity}/{preferences}"), "value": preference }),
    ]
}

#[tokio::test]
async fn a_scheduler_asks_by_node_names() {
    asks_the_warden("by-names", true).await;
}

#[tokio::test]
async fn a_scheduler_asks_with_whole_nodes() {
    asks_the_warden("by-nodes", false).await;
}

/// With `ignorable: true`, while the warden is killed, restarted and frozen.
#[tokio::test]
async fn a_scheduler_goes_on_without_the_warden() {
    let namespace = TestNamespace::shared("fail-open").await;
    namespace.nodes(1, NODES, &NodeOptions::default()).await;
    let (mut warden, _scheduler) = extended(&namespace, true).await;
    namespace.create(&namespace.deployment("with", 4, "100m", by("fail-open"))).await;
    namespace.bound("with", 4).await;

    warden.kill();
    namespace.create(&namespace.deployment("dead", 4, "100m", by("fail-open"))).await;
    namespace.create(&namespace.daemon_set("agent", by("fail-open"))).await;
    land(&namespace, "dead", 4).await;
    land(&namespace, "agent", NODES).await;

    warden.restart();
    let before = warden.filter_calls().await;
    namespace.create(&namespace.deployment("back", 4, "100m", by("fail-open"))).await;
    land(&namespace, "back", 4).await;
    let after = warden.filter_calls().await;
    assert!(after > before, "the scheduler asks again");

    warden.freeze();
    namespace.create(&namespace.deployment("frozen", 4, "100m", by("fail-open"))).await;
    land(&namespace, "frozen", 4).await;
    warden.thaw();
}

async fn land(namespace: &TestNamespace<&'static ControlPlane>, app: &str, count: usize) {
    eventually_within(SOON, &format!("{count} pods of {app} are bound"), async || {
        let pods: Vec<Pod> = namespace.pods(app).await;
        let bound = pods.iter().filter(|pod| node_of(pod).is_some()).count();
        if bound == count { Ok(()) } else { Err(crate::harness::describe(&pods)) }
    })
    .await;
}

/// SIGTERM while an apiserver and a scheduler are connected, which keep idle connections open for 90 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_warden_that_is_told_to_stop_leaves_at_once() {
    let namespace = TestNamespace::shared("drain").await;
    namespace.nodes(1, NODES, &NodeOptions::default()).await;
    let (mut warden, _scheduler) = extended(&namespace, true).await;
    namespace.register(&warden, "Fail").await;
    namespace.create(&namespace.daemon_set("agent", by("drain"))).await;
    namespace.settled("agent", NODES as i32).await;
    let sent = std::time::Instant::now();
    let status = tokio::task::block_in_place(|| warden.terminate());
    assert!(status.success(), "{status}; {}", warden.log());
    assert!(sent.elapsed() < Duration::from_secs(20), "{:?}", sent.elapsed());
}
