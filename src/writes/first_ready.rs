//! Records on the Node that a daemon pod was Ready there once, so that a `FirstReady` gate stays open after a restart.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::Api;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::wake::annotate;
use crate::reservation::gate::first_ready_annotation;
use crate::telemetry::logs::chain;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::cluster::{WriteKind, WriteOutcome};

/// The pause after each write. A large cluster that starts all at once takes minutes, with open gates meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// The attempts for one write. The gate asks again a minute later, so that a longer outage loses nothing.
const ATTEMPTS: u32 = 3;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Writes the annotations of the queue until the queue is closed. Each entry is a Node's name and the UID of a DaemonSet.
pub(super) async fn run(
    client: Client,
    mut writes: mpsc::Receiver<(Arc<str>, Arc<str>)>,
    metrics: Arc<Metrics>,
) {
    let nodes: Api<Node> = Api::all(client);
    let mut is_failing = false;
    while let Some((node, daemon_set_uid)) = writes.recv().await {
        let key = first_ready_annotation(&daemon_set_uid);
        let patch = json!({"metadata": {"annotations": {key: Timestamp::now().to_string()}}});
        for attempt in 1..=ATTEMPTS {
            let Err(error) = annotate(&nodes, &node, &patch).await else {
                is_failing = false;
                metrics.cluster.record_write(WriteKind::FirstReady, WriteOutcome::Done);
                break;
            };
            if error.is_final() || attempt == ATTEMPTS {
                metrics.cluster.record_write(WriteKind::FirstReady, WriteOutcome::Failed);
                if !std::mem::replace(&mut is_failing, true) {
                    let hint = if error.is_forbidden() { ": grant the verb patch on nodes" } else { "" };
                    tracing::warn!(
                        node = &*node,
                        "failed to record on the Node that a daemon pod was Ready{hint}: {}",
                        chain(&error)
                    );
                }
                break;
            }
            sleep(PAUSE_AFTER_FAILURE).await;
        }
        sleep(PAUSE).await;
    }
}
