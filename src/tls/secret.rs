//! The Secret of `--tls-secret`: read with the apiserver's time, written with optimistic locking.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::apiserver::{ApiError, ServerClock, found, is_written};
use super::secret_content::SecretData;
use crate::api::meta::FIELD_MANAGER;
use crate::telemetry::patch_params;

/// The namespace and name of a Secret, written `NAMESPACE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretName {
    /// The namespace, a DNS-1123 subdomain.
    pub namespace: String,
    /// The Secret's name, a DNS-1123 subdomain.
    pub name: String,
}

impl std::str::FromStr for SecretName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |name: &&str| crate::scheduling::names::dns_1123_subdomain_faults(name).is_empty();
        let parts = text.split_once('/').filter(|(namespace, name)| good(namespace) && good(name));
        let (namespace, name) = parts.ok_or("must be NAMESPACE/NAME")?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

impl std::fmt::Display for SecretName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The content of a Secret, with its version and the time at which it was read. Without a Secret, the content is empty.
pub(super) struct SecretRevision {
    /// The Secret's resource version; `None` if there is no Secret.
    version: Option<String>,
    pub(super) data: SecretData,
    /// The apiserver's time, in Unix seconds.
    pub(super) now: i64,
}

pub(super) async fn read(
    client: &Client,
    clock: &ServerClock,
    secret: &SecretName,
) -> Result<SecretRevision, ApiError> {
    let result = Api::<Secret>::namespaced(client.clone(), &secret.namespace).get(&secret.name).await;
    let found = found(format!("read Secret {secret}"), result)?;
    let now = clock.now();
    Ok(match found {
        None => SecretRevision { version: None, data: SecretData::new(), now },
        Some(found) => SecretRevision {
            version: Some(found.resource_version().unwrap_or_default()),
            data: found.data.into_iter().flatten().map(|(key, bytes)| (key, bytes.0)).collect(),
            now,
        },
    })
}

/// Writes `after` over the Secret that was `found`, or creates the Secret if there was none. Returns true if it was written.
/// Returns false if another replica has written or deleted it since: the caller reads it again. Fails if the apiserver cannot be
/// reached or refuses.
pub(super) async fn write(
    client: &Client,
    secret: &SecretName,
    found: &SecretRevision,
    after: &SecretData,
) -> Result<bool, ApiError> {
    let api = Api::<Secret>::namespaced(client.clone(), &secret.namespace);
    let bytes = |(key, bytes): (&String, &Vec<u8>)| (key.clone(), ByteString(bytes.clone()));
    let Some(version) = &found.version else {
        let object = Secret {
            metadata: ObjectMeta {
                name: Some(secret.name.clone()),
                namespace: Some(secret.namespace.clone()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(after.iter().map(bytes).collect()),
            ..Secret::default()
        };
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        return is_written(format!("create Secret {secret}"), api.create(&params, &object).await);
    };
    // A merge patch leaves fields alone that are not ours. Null removes a key.
    let mut data: serde_json::Map<_, _> =
        after.iter().map(bytes).map(|(key, bytes)| (key, json!(bytes))).collect();
    let removed = found.data.keys().filter(|key| !after.contains_key(*key));
    data.extend(removed.map(|key| (key.clone(), Value::Null)));
    let patch = Patch::Merge(json!({ "metadata": { "resourceVersion": version }, "data": data }));
    is_written(format!("write Secret {secret}"), api.patch(&secret.name, &patch_params(), &patch).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_with_its_namespace() {
        let name = |text: &str| text.parse::<SecretName>();
        assert_eq!(name("a/b").unwrap(), SecretName { namespace: "a".into(), name: "b".into() });
        for bad in ["a", "/b", "a/", "a/b/c", "A/b", "../b"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
