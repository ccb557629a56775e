//! The warden's RBAC rules in a cluster: the rules of the chart, so that the tests fail when the chart grants too little.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::test_namespace::{TestNamespace, object};

/// The rules of the chart's ClusterRole, the further rules for nomination, and those of its Role for leader election.
const RULES: &str = "rbac-rules.yaml";
const LEADER_ELECTION_RULES: &str = "rbac-leader-election.yaml";
const NOMINATION_RULES: &str = "rbac-nomination.yaml";

impl<P: Deref<Target = ControlPlane>> TestNamespace<P> {
    /// Grants the rules of the chart's ClusterRole to the chart's service account, and returns its kubeconfig.
    pub(crate) async fn warden_kubeconfig(&self) -> PathBuf {
        let account = json!({
            "kind": "ServiceAccount", "name": "daemonset-warden", "namespace": "daemonset-warden",
        });
        self.grant("daemonset-warden", &[RULES, NOMINATION_RULES], account).await;
        self.plane.kubeconfig_of("warden")
    }

    /// Grants the rules that the chart grants with `reservation.nominate: false` to a user, and returns its kubeconfig.
    pub(crate) async fn kubeconfig_without_nomination(&self) -> PathBuf {
        let user = json!({ "kind": "User", "name": "developer", "apiGroup": "rbac.authorization.k8s.io" });
        self.grant("daemonset-warden-without-nomination", &[RULES], user).await;
        self.plane.kubeconfig_of("developer")
    }

    /// Grants what [`Self::warden_kubeconfig`] does, and in this namespace the rules for leader election. Returns the kubeconfig.
    pub(crate) async fn elected_kubeconfig(&self) -> PathBuf {
        let role: Role = object(json!({
            "metadata": { "name": "leader-election" }, "rules": rules(LEADER_ELECTION_RULES),
        }));
        let binding: RoleBinding = object(json!({
            "metadata": { "name": "leader-election" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leader-election" },
            "subjects": [{
                "kind": "ServiceAccount", "name": "daemonset-warden", "namespace": "daemonset-warden",
            }],
        }));
        self.create(&role).await;
        self.create(&binding).await;
        self.warden_kubeconfig().await
    }

    async fn grant(&self, name: &str, files: &[&str], subject: Value) {
        let rules: Vec<PolicyRule> = files.iter().flat_map(|file| rules(file)).collect();
        let role: ClusterRole = object(json!({ "metadata": { "name": name }, "rules": rules }));
        let binding: ClusterRoleBinding = object(json!({
            "metadata": { "name": name },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
            "subjects": [subject],
        }));
        // On the shared control plane another test may have created the same objects before.
        let _ = Api::all(self.client.clone()).create(&PostParams::default(), &role).await;
        let _ = Api::all(self.client.clone()).create(&PostParams::default(), &binding).await;
    }
}

fn rules(file: &str) -> Vec<PolicyRule> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/daemonset-warden/files").join(file);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    serde_saphyr::from_str(&text).expect("a list of PolicyRules")
}
