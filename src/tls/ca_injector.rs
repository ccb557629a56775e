//! The CA in the webhook configurations: looked at, and put right where it is not what clients should trust.

use axum::http::Request;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::secret::{self, ApiError};
use crate::telemetry::metrics::Webhook;

/// Seconds until a watch is begun anew: less than the silence after which our client gives a connection up.
const WATCH: u32 = 60;

/// One webhook configuration of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookConfiguration {
    /// Which kind: a ValidatingWebhookConfiguration has `/validate`.
    pub webhook: Webhook,
    /// Its name.
    pub name: String,
}

impl WebhookConfiguration {
    fn path(&self) -> String {
        let kind = match self.webhook {
            Webhook::Validate => "validatingwebhookconfigurations",
            Webhook::Mutate => "mutatingwebhookconfigurations",
        };
        format!("/apis/admissionregistration.k8s.io/v1/{kind}/{}", self.name)
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.webhook {
            Webhook::Validate => "ValidatingWebhookConfiguration",
            Webhook::Mutate => "MutatingWebhookConfiguration",
        }
    }

    /// The configuration as it is now; `None` if it is not there.
    pub(crate) async fn read(&self, client: &Client) -> Result<Option<Value>, ApiError> {
        let doing = format!("read {} {}", self.kind(), self.name);
        Ok(secret::call(client, doing, Request::get(self.path()), None).await?.object)
    }

    /// Tells of each change of this one configuration, until the connection ends; also once at the beginning. What has
    /// changed is for a look to find out. Needs the right to watch it, by name.
    pub(crate) async fn watch(&self, client: &Client, changed: &Notify) -> Result<(), ApiError> {
        let (collection, name) = self.path().rsplit_once('/').map_or_else(
            || (self.path(), self.name.clone()),
            |(collection, name)| (collection.to_owned(), name.to_owned()),
        );
        let query = format!("watch=true&timeoutSeconds={WATCH}&fieldSelector=metadata.name%3D{name}");
        let doing = format!("watch {} {}", self.kind(), self.name);
        let mut body = secret::stream(client, doing, Request::get(format!("{collection}?{query}"))).await?;
        // Whatever comes is a change, or part of one.
        while let Some(Ok(_)) = body.frame().await {
            changed.notify_one();
        }
        Ok(())
    }

    /// Puts `bundle` into the configuration. `false` if somebody else has written to it since: look again.
    pub(crate) async fn patch(
        &self,
        client: &Client,
        found: &Value,
        bundle: &[u8],
    ) -> Result<bool, ApiError> {
        let doing = format!("patch {} {}", self.kind(), self.name);
        let request = Request::patch(format!("{}?fieldManager={}", self.path(), secret::MANAGER));
        // Strategic: webhooks are merged by name, and nothing else in them is touched.
        let body = ("application/strategic-merge-patch+json", patch(found, bundle));
        Ok(secret::call(client, doing, request, Some(body)).await?.object.is_some())
    }
}

/// Whether every webhook of the configuration that leads to a Service has exactly this bundle.
pub(crate) fn has(configuration: &Value, bundle: &[u8]) -> bool {
    let expected = STANDARD.encode(bundle);
    ours(configuration).all(|webhook| webhook["clientConfig"]["caBundle"] == expected.as_str())
}

/// What apiservers trust for this configuration now; the least of all its webhooks.
pub(crate) fn trusted(configuration: &Value) -> Vec<u8> {
    let first = ours(configuration).next().and_then(|webhook| webhook["clientConfig"]["caBundle"].as_str());
    let bundle = first.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
    if has(configuration, &bundle) { bundle } else { Vec::new() }
}

fn patch(configuration: &Value, bundle: &[u8]) -> Value {
    let bundle = STANDARD.encode(bundle);
    let webhooks: Vec<_> = ours(configuration)
        .map(|webhook| json!({ "name": webhook["name"], "clientConfig": { "caBundle": bundle } }))
        .collect();
    // The version makes sure that nobody's change between our look and our patch is undone.
    json!({
        "metadata": { "resourceVersion": configuration["metadata"]["resourceVersion"] },
        "webhooks": webhooks,
    })
}

/// Webhooks by URL are somebody's own doing, with a CA of their own.
fn ours(configuration: &Value) -> impl Iterator<Item = &Value> {
    configuration["webhooks"]
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
        let configuration = json!({
            "metadata": { "name": "x", "resourceVersion": "7" },
            "webhooks": [
                { "name": "a", "clientConfig": { "service": { "name": "s" }, "caBundle": STANDARD.encode("old") } },
                { "name": "b", "clientConfig": { "service": { "name": "s" } } },
                { "name": "c", "clientConfig": { "url": "https://x" } },
            ],
        });
        assert!(!has(&configuration, b"new") && !has(&configuration, b"old"));
        assert_eq!(trusted(&configuration), b"");
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
