//! Karpenter with its KWOK provider.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Autoscaler, AutoscalerTest, table};
use crate::harness::{Component, Process, eventually, folder, free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a program by its path, and minutes: see autoscalers.rs"]
async fn karpenter_makes_nodes_for_whom_we_refuse() {
    table::a_daemon_comes_to_full_nodes::<Karpenter>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a program by its path, and minutes: see autoscalers.rs"]
async fn karpenter_drains_no_node_into_held_room() {
    table::a_node_is_drained_into_held_room::<Karpenter>().await;
}

struct Karpenter {
    _process: Process,
}

impl Autoscaler for Karpenter {
    async fn start(test: &AutoscalerTest) -> Self {
        let crds = std::env::var("KARPENTER_CRDS");
        let crds = crds.expect("KARPENTER_CRDS names the folders with its CRDs: see docs/autoscalers.md");
        for folder in crds.split(',') {
            test.namespace.kubectl.succeed(&["apply", "--server-side", "-f", folder]).await;
        }
        let class = json!({
            "apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": { "name": "default" },
        });
        apply(test, &class).await;
        apply(test, &node_pool(test, "Never")).await;
        let folder = folder("karpenter");
        let types = folder.join("instance-types.json");
        std::fs::write(&types, instance_types().to_string()).expect("instance types can be written");
        let program = std::env::var_os("KARPENTER").map(PathBuf::from);
        let component = Component {
            name: "karpenter".to_owned(),
            program: program.expect("KARPENTER names the program: docs/autoscalers.md says how to build it"),
            args: vec![
                format!("--metrics-port={}", free_port()),
                format!("--health-probe-port={}", free_port()),
                format!("--instance-types-file-path={}", types.display()),
                "--disable-leader-election=true".to_owned(),
            ],
            environment: vec![
                ("KUBECONFIG", test.namespace.plane.kubeconfig().display().to_string()),
                ("SYSTEM_NAMESPACE", "default".to_owned()),
            ],
            folder,
            discard: None,
        };
        let mut process = component.start();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(process.ended().is_none(), "{}", process.log());
        Self { _process: process }
    }

    async fn scale_down(&mut self, test: &AutoscalerTest) {
        apply(test, &node_pool(test, "8s")).await;
    }
}

async fn apply(test: &AutoscalerTest, object: &Value) {
    eventually("the kind is served", async || {
        let outcome = test.namespace.kubectl.run_with_input(&["apply", "-f", "-"], &object.to_string()).await;
        if outcome.success { Ok(()) } else { Err(outcome.stderr) }
    })
    .await;
}

fn node_pool(test: &AutoscalerTest, consolidate_after: &str) -> Value {
    let (pool, value) = test.pool();
    json!({
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodePool",
        "metadata": { "name": "default" },
        "spec": {
            "template": {
                "metadata": { "labels": { pool: value } },
                "spec": {
                    "requirements": [{ "key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"] }],
                    "nodeClassRef": { "group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default" },
                    "expireAfter": "Never",
                },
            },
            "disruption": {
                "consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": consolidate_after,
                "budgets": [{ "nodes": "100%" }],
            },
        },
    })
}

/// Returns one instance type, of 4 CPU and the 100m and 10Mi that the provider reserves for the node itself.
fn instance_types() -> Value {
    json!([{
        "name": "four",
        "architecture": "amd64",
        "operatingSystems": ["linux"],
        "resources": { "cpu": "4100m", "memory": "16394Mi", "pods": "110" },
        "offerings": [{
            "Price": 0.1,
            "Available": true,
            "Requirements": [
                { "key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"] },
                { "key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone-a"] },
            ],
        }],
    }])
}
