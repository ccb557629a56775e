//! DaemonSets whose pods cannot exist, one at a time.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::ResourceQuota;
use serde_json::{Value, json};

use super::caller::Caller;
use super::door::{Answer, Door, forged_pod};
use crate::harness::{NodeOptions, TestNamespace, Warden, WardenOptions, consistently, eventually, object};

/// The fault that was found: a DaemonSet whose pods can never exist stopped ordinary scheduling on every node.
#[tokio::test]
async fn a_daemon_set_whose_pods_cannot_exist_keeps_no_pod_off_for_long() {
    keeps_no_pod_off("cannot-exist", Door::Filter, forged_pod("asked", "3200m")).await;
}

#[tokio::test]
async fn a_daemon_set_whose_pods_cannot_exist_keeps_no_binding_off_for_long() {
    // In a namespace of its own: the quota is the tenant's.
    let others = TestNamespace::shared("cannot-exist-others").await;
    let asked = others.create(&others.unscheduled_pod("asked", "3200m", json!({}))).await;
    keeps_no_pod_off("cannot-exist-bind", Door::Bind, json!(asked)).await;
}

async fn keeps_no_pod_off(name: &str, door: Door, asked: Value) {
    let namespace = TestNamespace::shared(name).await;
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let config = namespace.holding_here(json!({}));
    let warden = Warden::start(WardenOptions { config, kubeconfig }).await;
    let names = namespace.nodes(1, 1, &NodeOptions::default()).await;
    let quota =
        json!({ "metadata": { "name": "small" }, "spec": { "hard": { "pods": "5", "requests.cpu": "1" } } });
    namespace.create::<ResourceQuota>(&object(quota)).await;
    let spec = |change: Value| {
        let mut template = json!({ "containers": [{
            "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "3900m" } },
        }] });
        json_patch::merge(&mut template, &change);
        json!({ "spec": { "template": { "spec": template } } })
    };
    let small = json!([{ "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "900m" } } }]);
    let caller = Caller::of(&warden);
    let is_allowed = async || match door.ask(&caller, &asked, &names).await? {
        Answer::Allowed => Ok(()),
        Answer::Refused => Err("refused".to_owned()),
    };
    // The last can be told only by the controller's failure, so that room is kept at first.
    let cases = [
        ("states-a-priority", spec(json!({ "priority": 1_999_999_999 })), false),
        ("beyond-the-quota", spec(json!({})), false),
        ("no-such-class", spec(json!({ "priorityClassName": "nobody" })), false),
        ("no-such-account", spec(json!({ "serviceAccountName": "nobody", "containers": small })), true),
    ];
    for (name, change, is_kept_at_first) in cases {
        namespace.create(&namespace.daemon_set(name, change)).await;
        let begun = Instant::now();
        if is_kept_at_first {
            eventually(&format!("{name}: room is kept"), async || match is_allowed().await {
                Err(why) if why == "refused" => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
        }
        eventually(&format!("{name}: no room is kept"), async || is_allowed().await).await;
        assert!(begun.elapsed() < Duration::from_secs(15), "{name}: {:?}", begun.elapsed());
        // Another template gives nothing back.
        let changed =
            json!({ "spec": { "template": { "metadata": { "annotations": { "changed": "often" } } } } });
        namespace.change::<DaemonSet>(name, &changed).await;
        consistently(Duration::from_secs(3), &format!("{name}: no room is kept"), async || {
            is_allowed().await
        })
        .await;
        namespace.delete::<DaemonSet>(name).await;
    }
}
