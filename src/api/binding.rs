//! The part of a `Binding` of v1 that the review of a binding reads.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/api/core/v1/types.go (`Binding`) and pkg/apis/core/validation/validation.go
//! (`ValidatePodBinding`).

use std::borrow::Cow;

use serde::Deserialize;

use super::admission_v1::{AdmissionRequest, text};
use super::meta::{object_or_default, parse_object};

/// The pod and the node of a binding. Nothing of it is known to be true: any client can send a review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The pod's namespace.
    pub namespace: Cow<'a, str>,
    /// The pod's name.
    pub pod: Cow<'a, str>,
    /// The pod's UID; empty if the binding names none.
    pub pod_uid: Cow<'a, str>,
    /// The node's name.
    pub node: Cow<'a, str>,
}

/// The longest name of an object, in bytes (`DNS1123SubdomainMaxLength`). No UID is longer.
const MAX_NAME: usize = 253;

/// The object as it is sent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct BindingObject<'a> {
    #[serde(borrow, deserialize_with = "object_or_default")]
    metadata: BindingMetadata<'a>,
    #[serde(borrow, deserialize_with = "object_or_default")]
    target: BindingTarget<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BindingMetadata<'a> {
    #[serde(borrow, deserialize_with = "text")]
    name: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    namespace: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    uid: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BindingTarget<'a> {
    #[serde(borrow, deserialize_with = "text")]
    kind: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "text")]
    name: Cow<'a, str>,
}

impl<'a> Binding<'a> {
    /// Reads the binding that a request is about. Returns `None` for any other request, and for a binding that the apiserver
    /// refuses itself: to another kind than a Node, without a pod or a node, with a name that none can have, or of another namespace
    /// than the request's.
    pub fn of(request: &AdmissionRequest<'a>) -> Option<Self> {
        let is_binding = request.kind.group.is_empty()
            && request.kind.kind == "Binding"
            && request.operation == "CREATE"
            && matches!(&*request.sub_resource, "" | "binding");
        let object = request.object.filter(|_| is_binding)?;
        let BindingObject { metadata, target } =
            parse_object(serde_json::de::SliceRead::new(object.as_bytes())).ok()?;
        let is_of_namespace = metadata.namespace.is_empty() || metadata.namespace == request.namespace;
        let pod = if metadata.name.is_empty() { request.name.clone() } else { metadata.name };
        let names = [&pod, &target.name, &request.namespace];
        let is_whole = names.iter().all(|name| (1..=MAX_NAME).contains(&name.len()));
        let is_whole = is_whole && metadata.uid.len() <= MAX_NAME;
        (is_whole && is_of_namespace && matches!(&*target.kind, "" | "Node")).then(|| Self {
            namespace: request.namespace.clone(),
            pod,
            pod_uid: metadata.uid,
            node: target.name,
        })
    }

    /// Returns a text that is the same for each binding of one pod.
    pub fn key(&self) -> String {
        if self.pod_uid.is_empty() {
            format!("{}/{}", self.namespace, self.pod)
        } else {
            self.pod_uid.to_string()
        }
    }
}
