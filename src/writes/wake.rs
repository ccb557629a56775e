//! Wakes refused pods: a change of an annotation of any Node makes the scheduler try all of them again.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{WriteError, in_time};
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::cluster::{WriteKind, WriteOutcome};
use crate::telemetry::patch_params;

/// The Node annotation that is changed; its value is the time.
const WAKE_ANNOTATION: &str = "daemonset-warden.io/wake";
/// The pause after a wake-up: each makes the scheduler try every refused pod again, and refused pods wait for seconds anyway.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause while wake-ups fail; it grows by [`PAUSE`] with each failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Wakes the refused pods as soon as a Node comes through the channel, and then at most once a [`PAUSE`], by the last Node that
/// came.
pub(super) async fn run(
    client: Client,
    mut node_to_patch: watch::Receiver<Option<Arc<str>>>,
    metrics: Arc<Metrics>,
) {
    let nodes: Api<Node> = Api::all(client);
    let mut failures = 0_u32;
    while node_to_patch.changed().await.is_ok() {
        let Some(node) = node_to_patch.borrow_and_update().clone() else { continue };
        match wake(&nodes, &node).await {
            Ok(()) => {
                failures = 0;
                metrics.cluster.record_write(WriteKind::Wake, WriteOutcome::Done);
                tracing::debug!(node = &*node, "woke refused pods");
            }
            Err(error) => {
                metrics.cluster.record_write(WriteKind::Wake, WriteOutcome::Failed);
                if failures == 0 {
                    let hint = if error.is_forbidden() { ": grant the verb patch on nodes" } else { "" };
                    tracing::warn!(
                        node = &*node,
                        "failed to wake refused pods{hint}: {}",
                        Sanitized(&chain(&error))
                    );
                }
                failures = failures.saturating_add(1);
                // The deletion of a Node wakes the pods as well. After other errors: this Node again, or a later one.
                if error.code() != Some(404) {
                    node_to_patch.mark_changed();
                }
            }
        }
        sleep((PAUSE * failures.max(1)).min(LONGEST_PAUSE)).await;
    }
}

async fn wake(nodes: &Api<Node>, node: &str) -> Result<(), WriteError> {
    let patch = json!({"metadata": {"annotations": {WAKE_ANNOTATION: Timestamp::now().to_string()}}});
    annotate(nodes, node, &patch).await
}

/// Merges `patch` into a Node. The apiserver returns only the metadata. Fails as [`in_time`] does.
pub(super) async fn annotate(
    nodes: &Api<Node>,
    node: &str,
    patch: &serde_json::Value,
) -> Result<(), WriteError> {
    in_time(nodes.patch_metadata(node, &patch_params(), &Patch::Merge(patch))).await.map(drop)
}
