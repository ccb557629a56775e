//! Common DaemonSets: the warden accepts them without a change, and their pods run on the right nodes.

use std::path::Path;

use k8s_openapi::api::core::v1::Taint;
use serde_json::json;

use crate::harness::{ControlPlane, NodeOptions, TestNamespace, Warden, WardenOptions};

/// Returns a manifest of tests/data, with the node selector of the test.
fn manifest(name: &str, pool: &str) -> String {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/manifests").join(format!("{name}.yaml"));
    std::fs::read_to_string(file).unwrap().replace("POOL", pool)
}

/// Starts a test with three nodes: one of the control plane, one with an SSD, one without labels.
async fn cluster(name: &str) -> (TestNamespace<&'static ControlPlane>, Warden) {
    let namespace = TestNamespace::shared(name).await;
    let control_plane = Taint {
        key: "node-role.kubernetes.io/control-plane".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    namespace.nodes(1, 1, &NodeOptions { taints: vec![control_plane], ..NodeOptions::default() }).await;
    let labels = [("disk".to_owned(), "ssd".to_owned())].into();
    namespace.nodes(2, 1, &NodeOptions { labels, ..NodeOptions::default() }).await;
    namespace.nodes(3, 1, &NodeOptions::default()).await;
    let warden = Warden::start(WardenOptions::default()).await;
    namespace.register(&warden, "Fail").await;
    (namespace, warden)
}

async fn apply(namespace: &TestNamespace<&'static ControlPlane>, name: &str) {
    let outcome = namespace.kubectl.apply(&manifest(name, &namespace.name)).await;
    assert!(outcome.success, "{outcome:?}");
    assert_eq!(outcome.stdout.trim_end(), format!("daemonset.apps/{name} created"));
}

#[tokio::test]
async fn accepts_the_agents_that_people_run() {
    let (namespace, _warden) = cluster("agents").await;
    for name in ["fluentd-elasticsearch", "node-problem-detector", "node-exporter"] {
        apply(&namespace, name).await;
    }
    for name in ["fluentd-elasticsearch", "node-problem-detector", "node-exporter"] {
        namespace.settled(name, 3).await;
        assert_eq!(namespace.recorder.created_by(name), 3);
    }
    assert!(namespace.recorder.preempted().is_empty());
}

#[tokio::test]
async fn the_pods_of_an_ssd_monitor_come_and_go_with_the_label() {
    let (namespace, _warden) = cluster("ssd").await;
    apply(&namespace, "ssd-monitor").await;
    namespace.settled("ssd-monitor", 1).await;
    namespace.change_node("ssd-3", &json!({ "metadata": { "labels": { "disk": "ssd" } } })).await;
    namespace.settled("ssd-monitor", 2).await;
    namespace.change_node("ssd-2", &json!({ "metadata": { "labels": { "disk": "hdd" } } })).await;
    namespace.settled("ssd-monitor", 1).await;
    namespace.bound("ssd-monitor", 1).await;
    assert_eq!(namespace.recorder.created_by("ssd-monitor"), 2);
}

#[tokio::test]
async fn a_namespace_with_an_empty_openshift_selector_changes_nothing() {
    let (namespace, _warden) = cluster("openshift").await;
    let outcome = namespace.kubectl.apply(&manifest("openshift-namespace", "openshift")).await;
    assert!(outcome.success, "{outcome:?}");
    apply(&namespace, "fluentd-elasticsearch").await;
    namespace.settled("fluentd-elasticsearch", 3).await;
}
