//! The cluster-autoscaler with its KWOK provider: it creates Nodes, and KWOK makes them Ready.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{Autoscaler, AutoscalerTest, table};
use crate::harness::{Component, NodeOptions, Process, folder, object};

/// The label that contains the node group of a node.
const GROUP_LABEL: &str = "kwok-nodegroup";
const GROUP: &str = "workers";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a program by its path, and minutes: see autoscalers.rs"]
async fn cluster_autoscaler_makes_nodes_for_whom_we_refuse() {
    table::a_daemon_comes_to_full_nodes::<ClusterAutoscaler>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a program by its path, and minutes: see autoscalers.rs"]
async fn cluster_autoscaler_drains_no_node_into_held_room() {
    table::a_node_is_drained_into_held_room::<ClusterAutoscaler>().await;
}

struct ClusterAutoscaler {
    component: Component,
    process: Process,
}

impl Autoscaler for ClusterAutoscaler {
    async fn start(test: &AutoscalerTest) -> Self {
        let maps: Api<ConfigMap> = Api::namespaced(test.namespace.client.clone(), "default");
        for map in config_maps(test) {
            maps.create(&PostParams::default(), &map).await.expect("a ConfigMap");
        }
        // The KWOK provider needs one existing node of the group.
        let mut first = template(test, "workers-first");
        first.spec.get_or_insert_default().provider_id = Some("kwok:workers-first".to_owned());
        Api::<Node>::all(test.namespace.client.clone())
            .create(&PostParams::default(), &first)
            .await
            .expect("a node");
        let component = component(test, &["--scale-down-enabled=false"]);
        let process = component.start();
        Self { component, process }
    }

    async fn scale_down(&mut self, test: &AutoscalerTest) {
        self.process.kill();
        let flags = [
            "--scale-down-enabled=true",
            "--scale-down-unneeded-time=8s",
            "--scale-down-delay-after-add=8s",
            "--scale-down-utilization-threshold=0.7",
            "--ignore-daemonsets-utilization=true",
            "--max-graceful-termination-sec=1",
            "--unremovable-node-recheck-timeout=4s",
        ];
        self.component = component(test, &flags);
        self.process = self.component.start();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(self.process.ended().is_none(), "{}", self.process.log());
    }
}

fn component(test: &AutoscalerTest, flags: &[&str]) -> Component {
    let program = std::env::var_os("CLUSTER_AUTOSCALER").map(PathBuf::from);
    let program =
        program.expect("CLUSTER_AUTOSCALER names the program: docs/autoscalers.md says how to build it");
    let kubeconfig = test.namespace.plane.kubeconfig();
    let mut args = vec![format!("--kubeconfig={}", kubeconfig.display())];
    let usual = [
        "--cloud-provider=kwok",
        "--namespace=default",
        "--scan-interval=1s",
        "--leader-elect=false",
        "--kube-client-qps=200",
        "--kube-client-burst=400",
        "--address=127.0.0.1:0",
    ];
    args.extend(usual.iter().chain(flags).map(|&flag| flag.to_owned()));
    Component {
        name: "cluster-autoscaler".to_owned(),
        program,
        args,
        environment: vec![
            ("KWOK_PROVIDER_MODE", "local".to_owned()),
            ("POD_NAMESPACE", "default".to_owned()),
            ("KUBECONFIG", kubeconfig.display().to_string()),
        ],
        folder: folder("cluster-autoscaler"),
        discard: None,
    }
}

/// Returns a node of the group.
fn template(test: &AutoscalerTest, name: &str) -> Node {
    let (pool, value) = test.pool();
    let labels = [(pool, value), (GROUP_LABEL, GROUP)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut node = NodeOptions { labels: labels.into(), ..NodeOptions::default() }.node(name);
    for (key, value) in [("name", GROUP), ("min-count", "0"), ("max-count", "60")] {
        let key = format!("cluster-autoscaler.kwok.nodegroup/{key}");
        node.annotations_mut().insert(key, value.to_owned());
    }
    node
}

fn config_maps(test: &AutoscalerTest) -> [ConfigMap; 2] {
    let mut node = json!(template(test, "template"));
    node["apiVersion"] = json!("v1");
    node["kind"] = json!("Node");
    let templates = json!({ "apiVersion": "v1", "kind": "List", "items": [node] });
    let config = json!({
        "apiVersion": "v1alpha1",
        "readNodesFrom": "configmap",
        "nodegroups": { "fromNodeLabelKey": GROUP_LABEL },
        "nodes": { "skipTaint": true },
        "configmap": { "name": "kwok-provider-templates", "key": "templates" },
        "kwok": { "install": false },
    });
    let map = |name: &str, key: &str, text: Value| {
        // JSON is YAML.
        object(json!({ "metadata": { "name": name }, "data": { key: text.to_string() } }))
    };
    [map("kwok-provider-config", "config", config), map("kwok-provider-templates", "templates", templates)]
}
