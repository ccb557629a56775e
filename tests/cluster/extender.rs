//! The warden as the extender of a real kube-scheduler: over TLS, in both modes, and with the warden gone.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, HttpsServer, NodeOptions, Scheduler, SchedulerOptions, TestNamespace, Warden,
    WardenOptions, eventually_within, mutating_webhook, node_of,
};

const NODES: usize = 3;
/// All three are placed well within this, unless something blocks.
const SOON: Duration = Duration::from_secs(30);

/// A warden, and a scheduler of the test's own name that asks it.
async fn extended(
    arena: &TestNamespace<&'static ControlPlane>,
    node_cache_capable: bool,
) -> (Warden, Scheduler) {
    let warden = Warden::start(WardenOptions::default()).await;
    let mut extender = warden.extender();
    extender.node_cache_capable = node_cache_capable;
    let options = SchedulerOptions {
        name: arena.namespace.clone(),
        extenders: vec![extender],
        ..SchedulerOptions::default()
    };
    let plane = arena.plane;
    let scheduler = tokio::task::spawn_blocking(move || plane.scheduler(&options)).await.unwrap();
    (warden, scheduler)
}

/// Changes to a template: who schedules its pods.
fn by(scheduler: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "schedulerName": scheduler } } } })
}

async fn asks_the_warden(name: &str, node_cache_capable: bool) {
    let arena = TestNamespace::shared(name).await;
    let nodes = arena.nodes(1, NODES, &NodeOptions::default()).await;
    let (warden, _scheduler) = extended(&arena, node_cache_capable).await;
    arena.create(&arena.daemon_set("agent", by(name))).await;
    arena.create(&arena.deployment("web", 4, "100m", by(name))).await;
    arena.settled("agent", NODES as i32).await;
    arena.bound("web", 4).await;

    // Somebody's webhook widens the affinity of daemon pods to every node, and makes them all prefer the first. Their
    // controller still counts each where `metadata.name` says, and only the extender keeps them from anywhere else.
    let first = nodes[0].clone();
    let foreign = HttpsServer::start(mutating_webhook(move |pod| widen(pod, &first))).await;
    arena.register_foreign(&format!("{name}-foreign"), &format!("{}/mutate", foreign.url), &foreign.ca).await;
    arena.create(&arena.daemon_set("wide", by(name))).await;
    arena.settled("wide", NODES as i32).await;
    let pods = arena.bound("wide", NODES).await;
    let mut on: Vec<_> = pods.iter().filter_map(node_of).collect();
    on.sort_unstable();
    assert_eq!(on, nodes);
    assert_eq!(arena.recorder.created_by("wide"), NODES);
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

/// `ignorable: true`, and the server is killed, frozen, and back.
#[tokio::test]
async fn a_scheduler_goes_on_without_the_warden() {
    let arena = TestNamespace::shared("fail-open").await;
    arena.nodes(1, NODES, &NodeOptions::default()).await;
    let (mut warden, _scheduler) = extended(&arena, true).await;
    arena.create(&arena.deployment("with", 4, "100m", by("fail-open"))).await;
    arena.bound("with", 4).await;

    warden.kill();
    arena.create(&arena.deployment("dead", 4, "100m", by("fail-open"))).await;
    arena.create(&arena.daemon_set("agent", by("fail-open"))).await;
    land(&arena, "dead", 4).await;
    land(&arena, "agent", NODES).await;

    warden.restart();
    let before = warden.filter_calls().await;
    arena.create(&arena.deployment("back", 4, "100m", by("fail-open"))).await;
    land(&arena, "back", 4).await;
    let after = warden.filter_calls().await;
    assert!(after > before, "the scheduler asks again");

    warden.freeze();
    arena.create(&arena.deployment("frozen", 4, "100m", by("fail-open"))).await;
    land(&arena, "frozen", 4).await;
    warden.thaw();
}

async fn land(arena: &TestNamespace<&'static ControlPlane>, app: &str, count: usize) {
    eventually_within(SOON, &format!("{count} pods of {app} are bound"), async || {
        let pods: Vec<Pod> = arena.pods(app).await;
        let bound = pods.iter().filter(|pod| node_of(pod).is_some()).count();
        if bound == count { Ok(()) } else { Err(crate::harness::describe(&pods)) }
    })
    .await;
}

/// SIGTERM with an apiserver and a scheduler connected: both keep their connections open for 90 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_warden_that_is_told_to_stop_leaves_at_once() {
    let arena = TestNamespace::shared("drain").await;
    arena.nodes(1, NODES, &NodeOptions::default()).await;
    let (mut warden, _scheduler) = extended(&arena, true).await;
    arena.register(&warden, "Fail").await;
    arena.create(&arena.daemon_set("agent", by("drain"))).await;
    arena.settled("agent", NODES as i32).await;
    let told = std::time::Instant::now();
    let status = tokio::task::block_in_place(|| warden.terminate());
    assert!(status.success(), "{status}; {}", warden.log());
    assert!(told.elapsed() < Duration::from_secs(20), "{:?}", told.elapsed());
}
