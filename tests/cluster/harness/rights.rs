//! The warden's rights in a cluster: those of the chart, so that one that is missing shows in the tests.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use super::arena::{Arena, object};
use super::control_plane::ControlPlane;

impl<P: Deref<Target = ControlPlane>> Arena<P> {
    /// The kubeconfig of the chart's service account, with the rules of the chart's ClusterRole bound to it.
    pub(crate) async fn warden_kubeconfig(&self) -> PathBuf {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/daemonset-warden/files/rbac-rules.yaml");
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let rules: Vec<PolicyRule> = serde_saphyr::from_str(&text).expect("a list of PolicyRules");
        let role: ClusterRole = object(json!({ "metadata": { "name": "daemonset-warden" }, "rules": rules }));
        let binding: ClusterRoleBinding = object(json!({
            "metadata": { "name": "daemonset-warden" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "daemonset-warden" },
            "subjects": [{ "kind": "ServiceAccount", "name": "daemonset-warden", "namespace": "daemonset-warden" }],
        }));
        // On a shared control plane another test may have been first: with the same.
        let _ = Api::all(self.client.clone()).create(&PostParams::default(), &role).await;
        let _ = Api::all(self.client.clone()).create(&PostParams::default(), &binding).await;
        self.plane.kubeconfig_of("warden")
    }
}
