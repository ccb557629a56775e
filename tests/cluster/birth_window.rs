//! Many daemon pods at once, from a DaemonSet controller with a limited rate: the template holds room until the last of them
//! exists.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::api::ListParams;
use serde_json::json;

use crate::harness::{
    ControlPlane, NodeOptions, SchedulerOptions, TestNamespace, Warden, WardenOptions, eventually,
    eventually_within, is_bound, say,
};
use crate::hostile::tenant;

/// Joins nodes that ordinary pods wait for, and asserts that every daemon pod lands. With `forged`, a tenant reports failures to
/// create them.
async fn join(name: &'static str, daemon_sets: usize, nodes: usize, rate: (u32, u32), forged: bool) {
    let plane =
        tokio::task::spawn_blocking(move || ControlPlane::start_with_controller_rate(name, rate)).await;
    let namespace = TestNamespace::on(Arc::new(plane.expect("a control plane")), name).await;
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let config = namespace.holding_here(json!({}));
    let warden = Warden::start(WardenOptions { config, kubeconfig }).await;
    let mut extender = warden.extender();
    extender.http_timeout = "5s";
    let options = SchedulerOptions { extenders: vec![extender], ..SchedulerOptions::default() };
    let plane = namespace.plane.clone();
    let _scheduler =
        tokio::task::spawn_blocking(move || plane.scheduler(&options)).await.expect("a scheduler");
    // Together all of a node.
    let cpu = format!("{}m", 3960 / daemon_sets);
    let template = json!({ "spec": { "containers": [{
        "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": cpu } },
    }] } });
    let names: Vec<String> = (0..daemon_sets).map(|number| format!("agent-{number}")).collect();
    for name in &names {
        namespace.create(&namespace.daemon_set(name, json!({ "spec": { "template": template } }))).await;
    }
    namespace.create(&namespace.deployment("web", 4 * nodes, "500m", json!({}))).await;
    eventually_within(Duration::from_secs(120), "ordinary pods wait", async || {
        let there = namespace.pods("web").await.len();
        if there == 4 * nodes { Ok(()) } else { Err(format!("{there} exist")) }
    })
    .await;
    if forged {
        forge_failures(&namespace, &warden).await;
    }
    let begun = Instant::now();
    namespace.add_nodes(1, nodes, &NodeOptions::default()).await;
    eventually_within(Duration::from_secs(240), "every daemon pod lands", async || {
        let mut landed = 0;
        for name in &names {
            landed += namespace.pods(name).await.iter().filter(|pod| is_bound(pod)).count();
        }
        if landed == daemon_sets * nodes {
            Ok(())
        } else {
            Err(format!("{landed} of {}", daemon_sets * nodes))
        }
    })
    .await;
    say(&format!("{name}: {} daemon pods after {:.1} s", daemon_sets * nodes, begun.elapsed().as_secs_f32()));
}

/// Has a tenant create Events that report failures of all DaemonSets, in a namespace of its own. Waits until the warden has them.
async fn forge_failures(others: &TestNamespace<Arc<ControlPlane>>, warden: &Warden) {
    let own = TestNamespace::on(others.plane.clone(), &format!("{}-tenant", others.name)).await;
    let client = tenant::client(&own).await;
    let daemon_sets = others.api::<DaemonSet>().list(&ListParams::default()).await.expect("a list").items;
    for daemon_set in &daemon_sets {
        tenant::forgery::failed_create(&client, &own.name, daemon_set).await.expect("an Event");
    }
    // One more after the present time, which the watch brings after the others.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs_f64();
    tenant::forgery::failed_create(&client, &own.name, &daemon_sets[0]).await.expect("an Event");
    eventually("the warden has seen the Events", async || {
        let name = "daemonset_warden_watch_last_event_timestamp_seconds";
        let seen = warden.metric(name, &[("resource", "events")]).await;
        if seen > now { Ok(()) } else { Err(format!("{seen}, before {now}")) }
    })
    .await;
}

#[tokio::test]
async fn daemon_pods_that_are_created_slowly_find_their_room() {
    join("slow-births", 4, 15, (3, 3), false).await;
}

#[tokio::test]
async fn forged_failures_take_no_room_from_daemon_pods_that_are_created_slowly() {
    join("forged-failures", 4, 15, (3, 3), true).await;
}

#[tokio::test]
#[ignore = "a minute, and alone: twelve DaemonSets on sixty nodes, with the controller's default rate"]
async fn full_size() {
    join("default-rate", 12, 60, (20, 30), false).await;
}
