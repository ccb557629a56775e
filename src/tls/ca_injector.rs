//! The CA bundle in the webhook configurations: read, watched, and written where it differs from the Secret's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::Client;
use kube::api::{Api, DynamicObject, Patch, WatchParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::apiserver::{ApiError, found, is_written};
use crate::telemetry::metrics::RegisteredWebhook;
use crate::telemetry::patch_params;

/// Seconds until a watch is begun anew: less than the silence after which the client closes a connection.
const WATCH: u32 = 60;

/// One webhook configuration whose CA bundle this replica keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfiguration {
    /// The webhook: `Validate` and `Bind` for a ValidatingWebhookConfiguration, `Mutate` for a MutatingWebhookConfiguration.
    pub webhook: RegisteredWebhook,
    /// The object's name.
    pub name: String,
}

impl WebhookConfiguration {
    fn resource(&self) -> ApiResource {
        match self.webhook {
            RegisteredWebhook::Validate | RegisteredWebhook::Bind => {
                ApiResource::erase::<ValidatingWebhookConfiguration>(&())
            }
            RegisteredWebhook::Mutate => ApiResource::erase::<MutatingWebhookConfiguration>(&()),
        }
    }

    fn api(&self, client: &Client) -> Api<DynamicObject> {
        Api::all_with(client.clone(), &self.resource())
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} {} {}", self.kind(), self.name)
    }

    pub(super) fn kind(&self) -> String {
        self.resource().kind
    }

    /// Reads the configuration from the apiserver; `None` if it does not exist. Fails if the apiserver cannot be reached or
    /// refuses.
    pub(super) async fn read(&self, client: &Client) -> Result<Option<DynamicObject>, ApiError> {
        found(self.doing("read"), self.api(client).get(&self.name).await)
    }

    /// Notifies `changed` of each change of this configuration, and once at the beginning, until the watch ends, after a minute at
    /// most. Needs the right to watch the configuration by name; unlike kube's `watch_object`, not the right to list. Fails if the
    /// watch cannot be begun.
    pub(super) async fn watch(&self, client: &Client, changed: &Notify) -> Result<(), ApiError> {
        let params = WatchParams::default()
            .fields(&format!("metadata.name={}", self.name))
            .timeout(WATCH)
            .disable_bookmarks();
        let events = self.api(client).watch_metadata(&params, "0").await;
        let mut events = std::pin::pin!(events.map_err(|error| ApiError::new(self.doing("watch"), error))?);
        while let Some(Ok(_)) = events.next().await {
            changed.notify_one();
        }
        Ok(())
    }

    /// Writes `bundle` into the webhooks of the configuration that lead to a Service. Returns true if it was written. Returns false
    /// if another client has changed or deleted the configuration since it was `found`: the caller reads it again. Fails if the
    /// apiserver cannot be reached or refuses.
    pub(super) async fn patch(
        &self,
        client: &Client,
        found: &DynamicObject,
        bundle: &[u8],
    ) -> Result<bool, ApiError> {
        // Strategic: webhooks are merged by name, and nothing else in them is touched.
        let patch = Patch::Strategic(patch(found, bundle));
        let result = self.api(client).patch(&self.name, &patch_params(), &patch).await;
        is_written(self.doing("patch"), result)
    }
}

/// Returns true if every webhook of the configuration that leads to a Service has exactly this bundle; also if there is no such
/// webhook.
pub(super) fn has_bundle(configuration: &DynamicObject, bundle: &[u8]) -> bool {
    let expected = STANDARD.encode(bundle);
    service_webhooks(configuration).all(|webhook| webhook["clientConfig"]["caBundle"] == expected.as_str())
}

/// Returns the bundle that apiservers trust for this configuration. Returns an empty bundle if its webhooks differ, or have none.
pub(super) fn trusted_bundle(configuration: &DynamicObject) -> Vec<u8> {
    let first = service_webhooks(configuration).next();
    let first = first.and_then(|webhook| webhook["clientConfig"]["caBundle"].as_str());
    let bundle = first.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    if has_bundle(configuration, &bundle) { bundle } else { Vec::new() }
}

fn patch(configuration: &DynamicObject, bundle: &[u8]) -> Value {
    let bundle = STANDARD.encode(bundle);
    let webhooks: Vec<_> = service_webhooks(configuration)
        .map(|webhook| json!({ "name": webhook["name"], "clientConfig": { "caBundle": bundle } }))
        .collect();
    // With the version, a change by another client between our read and our patch is not undone.
    json!({
        "metadata": { "resourceVersion": configuration.metadata.resource_version },
        "webhooks": webhooks,
    })
}

/// Returns the webhooks that lead to a Service. Webhooks with a URL are the operator's own, with a CA of their own.
fn service_webhooks(configuration: &DynamicObject) -> impl Iterator<Item = &Value> {
    configuration.data["webhooks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|webhook| webhook["clientConfig"].get("service").is_some_and(|service| !service.is_null()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_service_webhooks_by_name_and_nothing_else() {
        let configuration: DynamicObject = serde_json::from_value(json!({
            "metadata": { "name": "x", "resourceVersion": "7" },
            "webhooks": [
                { "name": "a", "clientConfig": { "service": { "name": "s" }, "caBundle": STANDARD.encode("old") } },
                { "name": "b", "clientConfig": { "service": { "name": "s" } } },
                { "name": "c", "clientConfig": { "url": "https://x" } },
            ],
        }))
        .unwrap();
        assert!(!has_bundle(&configuration, b"new") && !has_bundle(&configuration, b"old"));
        assert_eq!(trusted_bundle(&configuration), b"");
        let ca = STANDARD.encode("new");
        assert_eq!(
            patch(&configuration, b"new"),
            json!({
                "metadata": { "resourceVersion": "7" },
                "webhooks": [
                    { "name": "a", "clientConfig": { "caBundle": ca } },
                    { "name": "b", "clientConfig": { "caBundle": ca } },
                ],
            })
        );
    }
}
