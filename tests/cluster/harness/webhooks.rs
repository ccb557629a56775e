//! Registers the warden's webhooks by URL for one namespace, with the match conditions of the chart.

use std::ops::Deref;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::metrics;
use super::test_namespace::{TestNamespace, object};
use super::wait::eventually;
use super::warden::Warden;

/// The API group of the tests' permissive kind: a DaemonSet that the apiserver does not check itself.
pub(crate) const PERMISSIVE: &str = "permissive.daemonset-warden.test";

impl<P: Deref<Target = ControlPlane>> TestNamespace<P> {
    /// Registers both webhooks for the test's namespace, and waits until the apiserver calls them.
    pub(crate) async fn register(&self, warden: &Warden, failure_policy: &str) {
        self.register_mutating(&format!("{}-warden", self.name), warden, failure_policy).await;
        let conditions = match_conditions("validating", None);
        let rules = json!([{
            "apiGroups": ["apps", PERMISSIVE], "apiVersions": ["*"], "resources": ["daemonsets"],
            "operations": ["CREATE", "UPDATE"], "scope": "Namespaced",
        }]);
        let name = format!("{}-warden", self.name);
        let mut webhook =
            self.webhook(&name, &format!("{}/validate", warden.url()), &warden.ca, failure_policy);
        webhook["matchConditions"] = conditions;
        webhook["rules"] = rules;
        let configuration: ValidatingWebhookConfiguration =
            object(json!({ "metadata": { "name": name }, "webhooks": [webhook] }));
        let api = Api::all(self.client.clone());
        api.create(&PostParams::default(), &configuration).await.expect("a webhook configuration");

        let probe: DaemonSet = self.daemon_set("probe", json!({}));
        let ask = || async { self.dry_run(&probe).await };
        self.called(&name, "validating", ask).await;
    }

    /// Registers only the mutating webhook. The apiserver calls webhooks in the order of their names, so the test chooses it.
    pub(crate) async fn register_mutating(&self, name: &str, warden: &Warden, failure_policy: &str) {
        let url = format!("{}/mutate", warden.url());
        let mut webhook = self.webhook(name, &url, &warden.ca, failure_policy);
        webhook["matchConditions"] = match_conditions("mutating", warden.class.as_deref());
        self.register_webhook(name, webhook).await;
    }

    /// Registers a mutating webhook that is not the warden's, with the match conditions of the chart, and with that default class.
    pub(crate) async fn register_foreign_as_ours(
        &self,
        name: &str,
        url: &str,
        ca: &str,
        class: Option<&str>,
    ) {
        let mut webhook = self.webhook(name, url, ca, "Fail");
        webhook["matchConditions"] = match_conditions("mutating", class);
        self.register_webhook(name, webhook).await;
    }

    /// Registers a mutating webhook that is not the warden's, for pods.
    pub(crate) async fn register_foreign(&self, name: &str, url: &str, ca: &str) {
        let webhook = self.webhook(name, url, ca, "Fail");
        self.register_webhook(name, webhook).await;
    }

    async fn register_webhook(&self, name: &str, mut webhook: Value) {
        webhook["rules"] = json!([{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            "operations": ["CREATE"], "scope": "Namespaced",
        }]);
        webhook["reinvocationPolicy"] = json!("IfNeeded");
        let configuration: MutatingWebhookConfiguration =
            object(json!({ "metadata": { "name": name }, "webhooks": [webhook] }));
        let api = Api::all(self.client.clone());
        api.create(&PostParams::default(), &configuration).await.expect("a webhook configuration");
        // A daemon pod that lacks something: the match conditions pass over others.
        let mut probe = owned_by_daemon_set("probe", "00000000");
        probe["spec"] = json!({ "nodeName": "probe" });
        let probe: Pod = self.pod("probe", "1m", probe);
        let ask = || async { self.dry_run(&probe).await };
        self.called(name, "admit", ask).await;
    }

    pub(super) fn webhook(&self, name: &str, url: &str, ca: &str, failure_policy: &str) -> Value {
        json!({
            "name": webhook_name(name),
            "admissionReviewVersions": ["v1"],
            "clientConfig": { "url": url, "caBundle": STANDARD.encode(ca) },
            "sideEffects": "None",
            "failurePolicy": failure_policy,
            "timeoutSeconds": 5,
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": self.name } },
        })
    }

    /// Repeats `ask` until the apiserver has called the webhook: it loads a new configuration a little later.
    pub(super) async fn called<F: Future<Output = ()>>(&self, name: &str, kind: &str, ask: impl Fn() -> F) {
        eventually(&format!("the apiserver calls {name}"), async || {
            ask().await;
            if calls(&self.client, name, kind).await > 0 { Ok(()) } else { Err("it does not".to_owned()) }
        })
        .await;
    }

    /// Creates an object as a dry run, and ignores the result.
    async fn dry_run<K>(&self, object: &K)
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let _ = self.api::<K>().create(&PostParams { dry_run: true, ..PostParams::default() }, object).await;
    }

    /// Returns the number of calls of the mutating webhook of that name.
    pub(crate) async fn mutating_calls(&self, name: &str) -> u64 {
        calls(&self.client, name, "admit").await
    }

    /// Returns the number of calls of the test's validating webhook.
    pub(crate) async fn validating_calls(&self) -> u64 {
        calls(&self.client, &format!("{}-warden", self.name), "validating").await
    }
}

/// Returns the change that gives a pod a DaemonSet as its controller.
pub(crate) fn owned_by_daemon_set(name: &str, uid: &str) -> Value {
    json!({ "metadata": { "ownerReferences": [{
        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": name, "uid": uid, "controller": true,
        "blockOwnerDeletion": true,
    }] } })
}

/// Returns the number of calls as the apiserver counts them, independent of the warden's metrics.
async fn calls(client: &Client, name: &str, kind: &str) -> u64 {
    count(client, "apiserver_admission_webhook_request_total", name, kind).await
}

/// Returns the number of requests that the apiserver admitted without an answer, because the failure policy is Ignore.
pub(super) async fn failed_open(client: &Client, name: &str) -> u64 {
    count(client, "apiserver_admission_webhook_fail_open_count", name, "validating").await
}

async fn count(client: &Client, metric: &str, name: &str, kind: &str) -> u64 {
    let request = axum::http::Request::get("/metrics").body(Vec::new()).expect("a request");
    let text = client.request_text(request).await.expect("the apiserver's metrics");
    let name = webhook_name(name);
    metrics::sum(&text, metric, &[("name", &name), ("type", kind)]) as u64
}

/// Returns the webhook's name, which needs at least three parts.
fn webhook_name(name: &str) -> String {
    format!("{name}.daemonset-warden.test")
}

/// Returns the match conditions of the chart's `validating` or `mutating` webhook, as its templates render them for that class.
fn match_conditions(kind: &str, class: Option<&str>) -> Value {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/daemonset-warden/files/match-conditions.yaml");
    let text = std::fs::read_to_string(&file).expect("the chart's match conditions");
    let mut conditions: Value = serde_saphyr::from_str(&text).expect("YAML");
    if let Some(class) = class.filter(|_| kind == "mutating") {
        let of_class = conditions["mutatingClass"].as_str().expect("an expression").replace("CLASS", class);
        let last = conditions[kind].as_array_mut().and_then(|list| list.last_mut()).expect("conditions");
        last["expression"] =
            json!(format!("({}) || ({of_class})", last["expression"].as_str().expect("an expression")));
    }
    conditions[kind].clone()
}
