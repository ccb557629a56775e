//! Registers `/bind` by URL for the bindings of some namespaces, and makes bindings as a scheduler does.

use std::ops::Deref;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::test_namespace::{TestNamespace, object};
use super::warden::Warden;
use super::webhooks::failed_open;

/// The options of a registration of `/bind`.
#[derive(Clone)]
pub(crate) struct BindWebhook {
    /// Namespaces whose bindings are sent, beside those of the test's namespace.
    pub(crate) beside: Vec<String>,
    pub(crate) timeout_seconds: u8,
    pub(crate) failure_policy: &'static str,
}

impl Default for BindWebhook {
    fn default() -> Self {
        // The chart's timeout is 1 s. With other tests on two cores a call can take longer; then the apiserver binds without an
        // answer, and the test proves nothing.
        Self { beside: Vec::new(), timeout_seconds: 20, failure_policy: "Ignore" }
    }
}

impl<P: Deref<Target = ControlPlane>> TestNamespace<P> {
    /// Registers `/bind`, and waits until the apiserver calls it.
    pub(crate) async fn register_bind(&self, warden: &Warden, options: &BindWebhook) {
        let name = format!("{}-bind", self.name);
        let mut webhook =
            self.webhook(&name, &format!("{}/bind", warden.url()), &warden.ca, options.failure_policy);
        let namespaces: Vec<&str> =
            options.beside.iter().map(String::as_str).chain([self.name.as_str()]).collect();
        let named = json!({ "key": "kubernetes.io/metadata.name", "operator": "In", "values": namespaces });
        webhook["namespaceSelector"] = json!({ "matchExpressions": [named] });
        webhook["timeoutSeconds"] = json!(options.timeout_seconds);
        webhook["sideEffects"] = json!("NoneOnDryRun");
        webhook["rules"] = json!([{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/binding", "bindings"],
            "operations": ["CREATE"], "scope": "Namespaced",
        }]);
        let configuration: ValidatingWebhookConfiguration =
            object(json!({ "metadata": { "name": name }, "webhooks": [webhook] }));
        let api = Api::all(self.client.clone());
        api.create(&PostParams::default(), &configuration).await.expect("a webhook configuration");

        let probe = self.create(&self.unscheduled_pod("bind-probe", "1m", json!({}))).await;
        let ask = || async {
            let _ = self.bind(&Binding { dry_run: true, ..Binding::new(&probe, "nowhere") }).await;
        };
        self.called(&name, "validating", ask).await;
        let at_once = DeleteParams::default().grace_period(0);
        let _ = self.api::<Pod>().delete("bind-probe", &at_once).await;
    }

    /// Deletes the registration of [`Self::register_bind`].
    pub(crate) async fn unregister_bind(&self) {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let deleted = api.delete(&format!("{}-bind", self.name), &DeleteParams::default()).await;
        deleted.map(drop).expect("it was registered");
    }

    /// Returns the number of bindings for which the warden did not answer in time.
    pub(crate) async fn unanswered_bindings(&self) -> u64 {
        failed_open(&self.client, &format!("{}-bind", self.name)).await
    }

    /// Returns a pod that no scheduler takes; `changes` are merged into it.
    pub(crate) fn unscheduled_pod(&self, name: &str, cpu: &str, changes: Value) -> Pod {
        let mut pod = json!({ "spec": { "schedulerName": "nobody" } });
        json_patch::merge(&mut pod, &changes);
        self.pod(name, cpu, pod)
    }

    /// Sends a Binding. Returns the apiserver's refusal, if any.
    pub(crate) async fn bind(&self, binding: &Binding) -> Result<(), BindRefusal> {
        let path = if binding.is_legacy {
            format!("/api/v1/namespaces/{}/bindings", self.name)
        } else {
            format!("/api/v1/namespaces/{}/pods/{}/binding", self.name, binding.pod)
        };
        let query = if binding.dry_run { "?dryRun=All" } else { "" };
        let request = axum::http::Request::post(format!("{path}{query}"))
            .header("content-type", "application/json")
            .body(binding.object().to_string().into_bytes())
            .expect("a request");
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) => {
                Err(BindRefusal { code: status.code, reason: status.reason, message: status.message })
            }
            Err(other) => panic!("the apiserver did not answer: {other}"),
        }
    }
}

/// A Binding of a pod to a node.
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) pod: String,
    /// Empty for none.
    pub(crate) uid: String,
    pub(crate) target: Value,
    /// Merged into the metadata.
    pub(crate) metadata: Value,
    /// Sent to `bindings` instead of the pod's `binding`.
    pub(crate) is_legacy: bool,
    pub(crate) dry_run: bool,
}

/// The refusal of a Binding as the client sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BindRefusal {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Binding {
    /// Returns the Binding that a scheduler sends.
    pub(crate) fn new(pod: &Pod, node: &str) -> Self {
        Self {
            pod: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            target: json!({ "kind": "Node", "name": node }),
            metadata: json!({}),
            is_legacy: false,
            dry_run: false,
        }
    }

    /// Returns the object.
    pub(crate) fn object(&self) -> Value {
        let mut metadata = json!({ "name": self.pod });
        if !self.uid.is_empty() {
            metadata["uid"] = json!(self.uid);
        }
        json_patch::merge(&mut metadata, &self.metadata);
        json!({ "apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": self.target })
    }
}
