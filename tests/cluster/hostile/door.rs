//! The door of daemonset-warden at which a control plane asks for a pod. Another verb is another variant, and nothing else of the
//! adversary changes.

use k8s_openapi::api::core::v1::Event;
use serde_json::{Value, json};

use super::caller::Caller;
use crate::harness::Doors;

/// A route that may refuse a pod: the probe and the stranger use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// All nodes in one call.
    Filter,
    /// One node in each call, and only pods that exist are judged.
    Bind,
}

/// An answer to [`Door::ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// The pod may go to one of the nodes at least.
    Allowed,
    Refused,
}

impl Door {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Filter => "/scheduler/filter",
            Self::Bind => "/bind",
        }
    }

    /// Returns the doors of a control plane that asks here.
    pub(super) fn doors(self) -> Doors {
        match self {
            Self::Filter => Doors::Extender,
            Self::Bind => Doors::Bind,
        }
    }

    /// Returns the bodies of the calls that ask for a pod on these nodes.
    pub(super) fn bodies(self, pod: &Value, nodes: &[String]) -> Vec<String> {
        match self {
            Self::Filter => vec![json!({ "Pod": pod, "NodeNames": nodes }).to_string()],
            Self::Bind => nodes.iter().map(|node| binding_review(pod, node).to_string()).collect(),
        }
    }

    /// Asks for a pod.
    pub(super) async fn ask(self, caller: &Caller, pod: &Value, nodes: &[String]) -> Result<Answer, String> {
        let mut answer = Answer::Refused;
        for body in self.bodies(pod, nodes) {
            let (status, text) = caller.post(self.path(), body).await?;
            if status != 200 {
                return Err(format!("{status}: {text}"));
            }
            let text: Value = serde_json::from_str(&text).map_err(|e| e.to_string())?;
            if self.allows(&text) {
                answer = Answer::Allowed;
            }
        }
        Ok(answer)
    }

    fn allows(self, answer: &Value) -> bool {
        match self {
            Self::Filter => answer["NodeNames"].as_array().is_some_and(|names| !names.is_empty()),
            Self::Bind => answer["response"]["allowed"] == true,
        }
    }

    /// Returns true if the scheduler reports in this Event that the pod was refused for reserved room.
    pub(super) fn is_refusal(self, event: &Event) -> bool {
        let says = match self {
            Self::Filter => "kept room for missing daemon",
            Self::Bind => "reserves room for daemon pods",
        };
        event.reason.as_deref() == Some("FailedScheduling")
            && event.message.as_ref().is_some_and(|text| text.contains(says))
    }
}

/// Returns a pod that does not exist, as a scheduler sends it.
pub(super) fn forged_pod(uid: &str, cpu: &str) -> Value {
    json!({
        "metadata": { "name": uid, "namespace": "default", "uid": uid },
        "spec": { "containers": [{ "name": "main", "resources": { "requests": { "cpu": cpu } } }] },
    })
}

/// Returns the review of a binding of that pod, as an apiserver sends it.
pub(super) fn binding_review(pod: &Value, node: &str) -> Value {
    let metadata = &pod["metadata"];
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "kind": { "group": "", "version": "v1", "kind": "Binding" },
            "resource": { "group": "", "version": "v1", "resource": "pods" },
            "subResource": "binding", "operation": "CREATE",
            "name": metadata["name"], "namespace": metadata["namespace"],
            "object": {
                "apiVersion": "v1", "kind": "Binding",
                "metadata": {
                    "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
                },
                "target": { "kind": "Node", "name": node },
            },
        },
    })
}
