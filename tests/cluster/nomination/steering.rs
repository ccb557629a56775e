//! Ordinary pods beside nodes that hold room, look the freest, and hold it for long: the nomination makes the scheduler choose
//! others.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{failed, label_namespace, nominated, warden};
use crate::harness::{
    BindWebhook, ControlPlane, Doors, Extender, NodeOptions, SchedulerOptions, TestExtender, TestNamespace,
    describe, eventually_within, is_bound, node_of, say,
};

/// The time in which twenty pods run: longer beside other tests on the same two cores.
const SOON: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 3 });

#[tokio::test]
async fn twenty_pods_beside_twenty_held_nodes_that_look_the_freest_go_elsewhere_at_once() {
    let beside = pods_beside_held_nodes("steered", true, Doors::Without).await;
    assert_eq!(beside, 0, "ordinary pods in held room");
}

#[tokio::test]
async fn they_do_so_by_bind() {
    let beside = pods_beside_held_nodes("steered-bind", true, Doors::Bind).await;
    assert_eq!(beside, 0, "ordinary pods in held room");
}

#[tokio::test]
async fn they_do_so_by_both_doors() {
    let beside = pods_beside_held_nodes("steered-both", true, Doors::Both).await;
    assert_eq!(beside, 0, "ordinary pods in held room");
}

#[tokio::test]
async fn without_nomination_they_take_held_room() {
    let beside = pods_beside_held_nodes("not-steered", false, Doors::Without).await;
    assert_eq!(beside, 20, "the nodes look the freest");
}

/// Creates twenty ordinary pods in a cluster with twenty nodes that hold room and have the most free resources, and twenty other
/// nodes with room. Returns the number of ordinary pods on the nodes that hold room. With [`Doors::Without`] nobody asks the
/// warden: only the nomination keeps the pods off.
async fn pods_beside_held_nodes(name: &'static str, nominate: bool, doors: Doors) -> usize {
    // Its own control plane: each pod that ends in a cluster makes the scheduler try all failed pods, and clear their
    // nominations.
    let plane = tokio::task::spawn_blocking(move || ControlPlane::start(name)).await.unwrap();
    let namespace = TestNamespace::on(&*Box::leak(Box::new(plane)), name).await;
    label_namespace(&namespace, json!("yes")).await;
    let warden = warden(&namespace, json!({ "nominate": nominate })).await;
    if doors.has_bind() {
        namespace.register_bind(&warden, &BindWebhook::default()).await;
    }
    let extender = doors.has_extender().then(|| Extender { preempts: true, ..warden.extender() });
    let options =
        SchedulerOptions { extenders: extender.into_iter().collect(), ..SchedulerOptions::default() };
    let test = TestExtender::with(namespace, warden, options).await;
    let labels = [("agent".to_owned(), "yes".to_owned())].into();
    let held = test.namespace.nodes(1, 20, &NodeOptions { labels, ..NodeOptions::default() }).await;
    test.namespace.nodes(21, 20, &NodeOptions { cpu: "400m", ..NodeOptions::default() }).await;
    // This takes 1 of 4 CPU, so that the agent's 3500m do not fit, and 3 CPU are left.
    for node in &held {
        let filler =
            test.namespace.pod(&format!("filler-{node}"), "1", json!({ "spec": { "nodeName": node } }));
        test.namespace.create(&filler).await;
    }
    let selects_held = json!({ "nodeSelector": { "agent": "yes" } });
    test.daemon_set("agent", "3500m", selects_held).await;
    failed(&test, "agent", 20).await;
    if nominate {
        nominated(&test, "agent", 20).await;
    }

    let begun = Instant::now();
    let web = json!({ "spec": { "template": { "spec": { "schedulerName": test.namespace.name } } } });
    test.namespace.create(&test.namespace.deployment("web", 20, "300m", web)).await;
    eventually_within(SOON, "twenty pods run", async || {
        let pods = test.namespace.pods("web").await;
        match pods.iter().filter(|pod| is_bound(pod)).count() {
            20 => Ok(()),
            _ => Err(describe(&pods)),
        }
    })
    .await;
    let refused = test.warden.metric("daemonset_warden_bind_requests_total", &[("outcome", "refused")]).await;
    say(&format!(
        "20 pods beside 20 held nodes ran after {:?}, nominate: {nominate}, doors: {}, refused: {refused}",
        begun.elapsed(),
        doors.name()
    ));
    let pods = test.namespace.pods("web").await;
    pods.iter().filter(|pod| held.iter().any(|node| node_of(pod) == Some(node))).count()
}
