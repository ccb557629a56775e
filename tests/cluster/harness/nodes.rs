//! KWOK nodes: Node objects whose Leases, status and pods KWOK manages.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::json;

use super::stages::READY_AFTER;

/// The nodes that a test creates. By default 4 CPU, 16Gi and 110 pods, Ready at once.
#[derive(Clone)]
pub(crate) struct NodeOptions {
    pub(crate) cpu: &'static str,
    pub(crate) pods: &'static str,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) taints: Vec<Taint>,
    /// A Go duration.
    pub(crate) ready_after: Option<&'static str>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { cpu: "4", pods: "110", labels: BTreeMap::new(), taints: Vec::new(), ready_after: None }
    }
}

impl NodeOptions {
    pub(crate) fn node(&self, name: &str) -> Node {
        let mut labels = self.labels.clone();
        labels.insert("kubernetes.io/hostname".to_owned(), name.to_owned());
        labels.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
        let mut annotations = BTreeMap::from([("kwok.x-k8s.io/node", "fake")]);
        annotations.extend(self.ready_after.map(|after| (READY_AFTER, after)));
        let resources = json!({ "cpu": self.cpu, "memory": "16Gi", "pods": self.pods });
        serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels, "annotations": annotations },
            "spec": { "taints": self.taints },
            "status": {
                "allocatable": resources,
                "capacity": resources,
                // As a kubelet registers. Without the condition, the node lifecycle controller removes the not-ready
                // taint at once, before KWOK has made the node Ready.
                "conditions": [{ "type": "Ready", "status": "False", "reason": "KubeletNotReady" }],
            },
        }))
        .expect("a Node")
    }
}
