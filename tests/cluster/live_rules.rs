//! The live-data rules: the warnings that kubectl prints, with a real apiserver.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, NodeOptions, TestNamespace, Warden, WardenOptions, describe, eventually, is_bound, object,
};

struct LiveRulesTest {
    namespace: TestNamespace<&'static ControlPlane>,
    _warden: Warden,
}

impl LiveRulesTest {
    async fn start(name: &str) -> Self {
        let namespace = TestNamespace::shared(name).await;
        let kubeconfig = Some(namespace.warden_kubeconfig().await);
        let config = namespace.holding_here(json!({}));
        let warden = Warden::start(WardenOptions { config, kubeconfig }).await;
        namespace.register(&warden, "Fail").await;
        Self { namespace, _warden: warden }
    }

    /// Returns kubectl's warnings for a DaemonSet with this template spec. A dry run: nothing is stored.
    async fn warnings(&self, name: &str, spec: Value) -> String {
        let daemon_set = self.namespace.daemon_set(name, json!({ "spec": { "template": { "spec": spec } } }));
        let manifest = serde_json::to_string(&daemon_set).unwrap();
        let kubectl = &self.namespace.kubectl;
        let outcome = kubectl.run_with_input(&["apply", "--dry-run=server", "-f", "-"], &manifest).await;
        assert!(outcome.success, "a warning refuses nothing: {outcome:?}");
        outcome.stderr
    }

    /// Waits until kubectl prints the warning, or no longer prints it if `expected` is false: the warden's cache needs a moment.
    async fn says(&self, name: &str, spec: Value, text: &str, expected: bool) {
        eventually(&format!("kubectl warns: {text}"), async || {
            let shown = self.warnings(name, spec.clone()).await;
            if shown.contains(text) == expected { Ok(()) } else { Err(shown) }
        })
        .await;
    }
}

fn cpu(amount: &str) -> Value {
    let container = json!({ "name": "main", "image": "i", "resources": { "requests": { "cpu": amount } } });
    json!({ "containers": [container] })
}

#[tokio::test]
async fn people_are_warned_of_nodes_that_a_daemon_set_cannot_serve() {
    let test = LiveRulesTest::start("warned-nodes").await;
    let without = json!({ "nodeSelector": { "zone": "nowhere" } });
    test.says("agent", without.clone(), "none of the cluster's", true).await;
    let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let (zone, kind) = (labels("zone", "somewhere"), labels("type", "virtual-kubelet"));
    test.namespace.nodes(1, 1, &NodeOptions { labels: zone, ..NodeOptions::default() }).await;
    let fits = "will not fit on 1 of 1 node: cpu: asks 8";
    test.says("agent", cpu("8"), fits, true).await;
    test.says("agent", cpu("4"), fits, false).await;

    test.namespace.nodes(2, 1, &NodeOptions { labels: kind, ..NodeOptions::default() }).await;
    let is_virtual = "is for 1 node labelled type=virtual-kubelet";
    test.says("agent", json!({}), is_virtual, true).await;
    let elsewhere = json!({ "nodeSelector": { "zone": "somewhere" } });
    test.says("agent", elsewhere.clone(), is_virtual, false).await;

    let namespaces: Api<Namespace> = Api::all(test.namespace.client.clone());
    let annotation =
        json!({ "metadata": { "annotations": { "openshift.io/node-selector": "zone=another" } } });
    let patch = Patch::Merge(annotation);
    namespaces.patch(&test.namespace.name, &PatchParams::default(), &patch).await.unwrap();
    test.says("agent", elsewhere, "wants zone=another", true).await;
}

#[tokio::test]
async fn people_are_warned_of_what_keeps_daemon_pods_from_being_made() {
    let test = LiveRulesTest::start("warned-names").await;
    let class = |name: &str| json!({ "priorityClassName": name });
    let missing = "no PriorityClass of this name exists";
    test.says("agent", class("warned-names-agents"), missing, true).await;
    test.namespace.priority_class("agents", 7).await;
    test.says("agent", class("warned-names-agents"), missing, false).await;

    let unscoped = "no ResourceQuota in warned-names is scoped to this class";
    test.says("agent", class("system-node-critical"), unscoped, true).await;
    let quota: ResourceQuota = object(json!({
        "metadata": { "name": "critical" },
        "spec": { "hard": { "pods": "10" }, "scopeSelector": { "matchExpressions": [
            { "scopeName": "PriorityClass", "operator": "In", "values": ["system-node-critical"] },
        ] } },
    }));
    test.namespace.create(&quota).await;
    test.says("agent", class("system-node-critical"), unscoped, false).await;

    // The selector of another DaemonSet matches the pods of `agent`.
    let other = json!({ "spec": {
        "selector": { "matchLabels": { "app": null, "tier": "node" } },
        "template": { "metadata": { "labels": { "tier": "node" } } },
    } });
    test.namespace.create(&test.namespace.daemon_set("other", other)).await;
    let twice = json!({ "spec": { "template": { "metadata": { "labels": { "tier": "node" } } } } });
    let manifest = serde_json::to_string(&test.namespace.daemon_set("agent", twice)).unwrap();
    eventually("kubectl warns of the other selector", async || {
        let kubectl = &test.namespace.kubectl;
        let outcome = kubectl.run_with_input(&["apply", "--dry-run=server", "-f", "-"], &manifest).await;
        let warns = outcome.success && outcome.stderr.contains("overlaps with DaemonSet other");
        if warns { Ok(()) } else { Err(format!("{outcome:?}")) }
    })
    .await;
}

#[tokio::test]
async fn people_are_warned_of_a_rollout_that_cannot_begin() {
    let test = LiveRulesTest::start("warned-rollout").await;
    test.namespace.nodes(1, 1, &NodeOptions::default()).await;
    test.namespace.nodes(2, 1, &NodeOptions { cpu: "100m", ..NodeOptions::default() }).await;
    test.namespace.create(&test.namespace.daemon_set("agent", json!({}))).await;
    eventually("it runs on one of two nodes", async || {
        let pods = test.namespace.pods("agent").await;
        let bound = pods.iter().filter(|pod| is_bound(pod)).count();
        if (bound, pods.len()) == (1, 2) { Ok(()) } else { Err(describe(&pods)) }
    })
    .await;
    let wedged = "down on 1 of 2 nodes";
    test.says("agent", cpu("200m"), wedged, true).await;
    let two = json!({ "spec": { "updateStrategy": {
        "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 2 },
    } } });
    test.namespace.change::<DaemonSet>("agent", &two).await;
    let manifest = json!({ "spec": { "template": { "metadata": { "labels": { "version": "2" } } } } });
    let patch = manifest.to_string();
    let kubectl = &test.namespace.kubectl;
    let outcome = kubectl.run(&["patch", "daemonset", "agent", "--dry-run=server", "-p", &patch]).await;
    assert!(outcome.success && !outcome.stderr.contains(wedged), "{outcome:?}");
}
