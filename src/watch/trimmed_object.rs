//! An object of a watch, decoded straight into the types of [`crate::api`].
//!
//! kube's watcher needs an `ObjectMeta` and reads only the resource version of it, so only that is set. The rest of the metadata is
//! decoded once, into [`Metadata`]; `managedFields` and all other fields that nothing reads are skipped.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicResourceScope;
use kube::discovery::ApiResource;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::kinds::WatchedKind;
use crate::api::meta::Metadata;

/// An object of a list or a watch event, decoded and trimmed.
#[derive(Debug, Clone)]
pub struct TrimmedObject<T> {
    /// The decoded object, or the reason for which it could not be decoded.
    pub object: Result<T, UnreadableObject>,
    meta: ObjectMeta,
}

/// An object that could not be decoded. It is left out of the cache, so that the other objects are listed all the same.
#[derive(Debug, Clone)]
pub struct UnreadableObject {
    /// The object's namespace and name, as `namespace/name`.
    pub name: String,
    /// The message of the decoder.
    pub error: String,
}

impl<'de, T: WatchedKind> Deserialize<'de> for TrimmedObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As text first: an error inside of an object would end the whole list.
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let (object, resource_version) = match serde_json::from_str::<T>(text.get()) {
            Ok(mut object) => {
                let resource_version = if object.keeps_version() {
                    object.metadata().resource_version.clone()
                } else {
                    // It changes with every write: without it, objects with the same content are equal.
                    std::mem::take(&mut object.metadata().resource_version)
                };
                object.trim();
                (Ok(object), resource_version)
            }
            Err(error) => {
                // JSON without metadata is no object: the watch itself is broken.
                let OnlyMetadata { metadata } = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
                let name = format!("{}/{}", metadata.namespace, metadata.name);
                (Err(UnreadableObject { name, error: error.to_string() }), metadata.resource_version)
            }
        };
        let meta = ObjectMeta { resource_version: Some(resource_version), ..ObjectMeta::default() };
        Ok(Self { object, meta })
    }
}

#[derive(Deserialize)]
struct OnlyMetadata {
    metadata: Metadata,
}

impl<T: WatchedKind> Resource for TrimmedObject<T> {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn api_version(kind: &ApiResource) -> Cow<'_, str> {
        kind.api_version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use kube::api::{ObjectList, WatchEvent};

    use super::*;
    use crate::api::node::Node;
    use crate::api::pod::Pod;

    const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"n","uid":"u","resourceVersion":"7",
        "annotations":{"a":"b"},"labels":null,"ownerReferences":null,
        "managedFields":[{"manager":"kubelet","fieldsV1":{"f:spec":{"f:containers":{}}}}]},
        "spec":{"nodeName":"n1","containers":[{"name":"c","env":[{"name":"x","value":"y"}],"resources":{"requests":{"cpu":"100m"}}}],
        "tolerations":null,"volumes":[{"name":"v","emptyDir":{}}]},"status":null}"#;

    #[test]
    fn unread_fields_are_skipped() {
        let event: WatchEvent<TrimmedObject<Pod>> =
            serde_json::from_str(&format!(r#"{{"type":"MODIFIED","object":{POD}}}"#)).unwrap();
        let WatchEvent::Modified(trimmed) = event else { panic!("{event:?}") };
        assert_eq!(trimmed.resource_version().as_deref(), Some("7"));
        let pod = trimmed.object.unwrap();
        assert_eq!((pod.metadata.uid.as_str(), pod.spec.node_name.as_str()), ("u", "n1"));
        assert!(pod.metadata.resource_version.is_empty() && pod.metadata.annotations.is_empty());
    }

    #[test]
    fn one_bad_object_does_not_hide_the_others() {
        let list = r#"{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"9"},"items":[
            {"metadata":{"name":"good","resourceVersion":"1"},"status":{"allocatable":{"cpu":"1"}}},
            {"metadata":{"name":"bad","resourceVersion":"2"},"status":{"allocatable":{"cpu":"many"}}}]}"#;
        let list: ObjectList<TrimmedObject<Node>> = serde_json::from_str(list).unwrap();
        let good: Vec<_> = list.items.iter().map(|trimmed| trimmed.object.is_ok()).collect();
        assert_eq!(good, [true, false]);
        let bad = list.items[1].object.as_ref().unwrap_err();
        assert_eq!((bad.name.as_str(), list.items[1].resource_version().as_deref()), ("/bad", Some("2")));
    }
}
