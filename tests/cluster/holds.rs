//! Every hold ends, and then the warden wakes the pods that it refused. A warden or an apiserver that is down blocks nothing.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, ResourceQuota};
use kube::api::ListParams;
use serde_json::json;

use crate::harness::{
    BindWebhook, ControlPlane, Doors, Extender, NodeOptions, SchedulerOptions, TestExtender, TestNamespace,
    Warden, WardenOptions, consistently, describe, eventually, eventually_within, is_bound, object,
};

/// The time from the end of a hold until the refused pods run. Without waking, the scheduler would try them after 5 minutes.
const WOKEN: Duration = Duration::from_secs(15);

async fn bound(test: &TestExtender, app: &str) -> usize {
    test.namespace.pods(app).await.iter().filter(|pod| is_bound(pod)).count()
}

async fn wait_for(test: &TestExtender, app: &str, count: usize, at_most: Duration) {
    eventually_within(at_most, &format!("{count} pods of {app} are bound"), async || {
        let pods = test.namespace.pods(app).await;
        if pods.iter().filter(|pod| is_bound(pod)).count() == count { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
}

/// Creates four pods, and checks that the fourth runs only after the hold has ended.
async fn refused_until_the_hold_ends(test: &TestExtender, hold: Duration) {
    test.ordinary("web", 4, json!({})).await;
    wait_for(test, "web", 3, Duration::from_secs(30)).await;
    let refused = Instant::now();
    wait_for(test, "web", 4, hold + WOKEN).await;
    assert!(refused.elapsed() > hold / 2, "the hold lasted only {:?}", refused.elapsed());
}

#[tokio::test]
async fn hold_timeout_ends_a_hold_for_a_pod_that_does_not_come() {
    let test = TestExtender::start("hold-timeout", json!({ "reservation": { "holdTimeout": "8s" } })).await;
    test.namespace.node().await;
    test.missing_daemon_set("agent", "1", json!({})).await;
    test.namespace.pods_exist("agent", 1).await;
    refused_until_the_hold_ends(&test, Duration::from_secs(8)).await;
    event_is_there(&test, "HoldingRoom").await;
    event_is_there(&test, "HoldEnded").await;
}

/// Waits for an Event with that reason on a DaemonSet or a Node of the test.
async fn event_is_there(test: &TestExtender, reason: &str) {
    let api = kube::Api::<Event>::all(test.client());
    eventually(&format!("an Event says {reason}"), async || {
        let events =
            api.list(&ListParams::default().fields(&format!("reason={reason}"))).await.unwrap().items;
        let about = |event: &&Event| {
            event.involved_object.namespace.as_deref() == Some(&test.namespace.name)
                || event
                    .involved_object
                    .name
                    .as_deref()
                    .is_some_and(|name| name.starts_with(&test.namespace.name))
        };
        if events.iter().any(|event| about(&event)) {
            Ok(())
        } else {
            Err(format!("{} others", events.len()))
        }
    })
    .await;
}

#[tokio::test]
async fn wait_timeout_ends_a_hold_for_room_that_does_not_come() {
    let config = json!({ "reservation": { "waitTimeout": "8s" } });
    let test = TestExtender::start("wait-timeout", config).await;
    test.namespace.node().await;
    let by_us = json!({ "spec": { "schedulerName": "wait-timeout" } });
    test.namespace.create(&test.namespace.pod("filler", "3500m", by_us.clone())).await;
    test.namespace.bound("filler", 1).await;
    test.daemon_set("agent", "1", json!({})).await;
    test.namespace.pods_exist("agent", 1).await;
    test.namespace.create(&test.namespace.pod("small", "400m", by_us)).await;
    consistently(Duration::from_secs(4), "the small pod waits", async || match bound(&test, "small").await {
        0 => Ok(()),
        _ => Err("it runs".to_owned()),
    })
    .await;
    wait_for(&test, "small", 1, Duration::from_secs(8) + WOKEN).await;
}

/// The quota refuses every daemon pod, so the pod that the template promises does not come.
#[tokio::test]
async fn a_quota_that_keeps_daemon_pods_out_holds_nothing() {
    let test = TestExtender::start("quota", json!({})).await;
    test.namespace.node().await;
    let class = test.namespace.priority_class("agents", 0).await;
    let quota: ResourceQuota = object(json!({
        "metadata": { "name": "none" },
        "spec": { "hard": { "pods": "0" }, "scopeSelector": { "matchExpressions": [
            { "scopeName": "PriorityClass", "operator": "In", "values": [class] },
        ] } },
    }));
    test.namespace.create(&quota).await;
    test.daemon_set("agent", "1", json!({ "priorityClassName": class })).await;
    let api = test.namespace.api::<Event>();
    eventually("the quota refuses the daemon pod", async || {
        let events = api.list(&ListParams::default().fields("reason=FailedCreate")).await.unwrap().items;
        if events.is_empty() { Err("no Event".to_owned()) } else { Ok(()) }
    })
    .await;
    test.ordinary("web", 4, json!({})).await;
    wait_for(&test, "web", 4, WOKEN).await;
    assert!(test.namespace.pods("agent").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warden_that_is_killed_fails_open_and_comes_back_in_force() {
    let mut test = TestExtender::start("killed", json!({})).await;
    test.namespace.node().await;
    test.missing_daemon_set("agent", "1", json!({})).await;
    test.namespace.pods_exist("agent", 1).await;
    test.ordinary("web", 4, json!({})).await;
    wait_for(&test, "web", 3, Duration::from_secs(30)).await;

    tokio::task::block_in_place(|| test.warden.kill());
    // The scheduler tries a refused pod again after an event of the cluster; the end of an extender is none.
    let nodes = test.namespace.nodes(2, 1, &NodeOptions { cpu: "100m", ..NodeOptions::default() }).await;
    wait_for(&test, "web", 4, Duration::from_secs(30)).await;

    tokio::task::block_in_place(|| test.warden.restart());
    let pods = test.namespace.pods("web").await;
    let victim = pods.iter().find(|pod| is_bound(pod)).unwrap();
    test.namespace.delete::<k8s_openapi::api::core::v1::Pod>(victim.metadata.name.as_deref().unwrap()).await;
    wait_for(&test, "web", 3, Duration::from_secs(30)).await;
    consistently(Duration::from_secs(4), "the room is held again", async || {
        match bound(&test, "web").await {
            3 => Ok(()),
            other => Err(format!("{other} bound, nodes besides the first: {nodes:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apiserver_that_restarts_loses_no_daemon_pod() {
    an_apiserver_restarts("restarted", Doors::Extender).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apiserver_that_restarts_loses_no_daemon_pod_by_bind() {
    an_apiserver_restarts("restarted-bind", Doors::Bind).await;
}

async fn an_apiserver_restarts(name: &'static str, doors: Doors) {
    let plane = tokio::task::spawn_blocking(move || ControlPlane::start(name)).await.unwrap();
    let namespace = TestNamespace::on(&plane, name).await;
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let warden = Warden::start(WardenOptions { kubeconfig, ..WardenOptions::default() }).await;
    // With the other tests on two cores a call can take more than 300 ms; then the scheduler goes on without the extender,
    // and the test proves nothing.
    let extender = Extender { http_timeout: "5s", ..warden.extender() };
    let extenders = doors.has_extender().then_some(extender).into_iter().collect();
    if doors.has_bind() {
        namespace.register_bind(&warden, &BindWebhook::default()).await;
    }
    let options = SchedulerOptions { extenders, ..SchedulerOptions::default() };
    let _scheduler = tokio::task::block_in_place(|| plane.scheduler(&options));

    for name in ["cni", "csi", "logs"] {
        namespace.create(&namespace.daemon_set(name, json!({}))).await;
    }
    // A backlog waits each time, and nodes join just before and just after the restart.
    namespace.create(&namespace.deployment("web", 72, "1", json!({}))).await;
    namespace.pods_exist("web", 72).await;
    let mut nodes = 0;
    for away in [Duration::from_millis(200), Duration::from_secs(4)] {
        namespace.add_nodes(nodes + 1, 3, &NodeOptions::default()).await;
        tokio::task::block_in_place(|| plane.restart_apiserver(away));
        namespace.add_nodes(nodes + 4, 3, &NodeOptions::default()).await;
        nodes += 6;
        for name in ["cni", "csi", "logs"] {
            eventually_within(Duration::from_secs(120), &format!("{name} runs everywhere"), async || {
                let pods = namespace.pods(name).await;
                let bound = pods.iter().filter(|pod| is_bound(pod)).count();
                if bound == nodes { Ok(()) } else { Err(describe(&pods)) }
            })
            .await;
        }
    }
}
