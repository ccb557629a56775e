//! Records on the Node that a daemon pod was Ready there once, so that a `FirstReady` gate stays open after a restart; and removes the
//! records of deleted DaemonSets.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::Api;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::wake::annotate;
use crate::reservation::gate::first_ready_annotation;
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::cluster::{WriteKind, WriteOutcome};

/// The pause after each write. A large cluster that starts all at once takes minutes, with open gates meanwhile.
const PAUSE: Duration = Duration::from_millis(100);
/// The attempts for one write; the gate or the sweep asks again later, so that a longer outage loses nothing.
const ATTEMPTS: u32 = 3;
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A patch of the first-ready annotations of one Node.
#[derive(Debug, PartialEq)]
pub(super) struct FirstReadyWrite {
    node: Arc<str>,
    kind: WriteKind,
    annotations: Map<String, Value>,
}

impl FirstReadyWrite {
    /// Records that a pod of the DaemonSet was Ready. The value of the annotation is the time, for people.
    pub(super) fn record(node: Arc<str>, daemon_set_uid: &str) -> Self {
        let annotation = (first_ready_annotation(daemon_set_uid), json!(Timestamp::now().to_string()));
        Self { node, kind: WriteKind::FirstReady, annotations: Map::from_iter([annotation]) }
    }

    /// Removes the records of these DaemonSets.
    pub(super) fn remove(node: Arc<str>, daemon_set_uids: &[Arc<str>]) -> Self {
        let removed = |uid: &Arc<str>| (first_ready_annotation(uid), Value::Null);
        let annotations = daemon_set_uids.iter().map(removed).collect();
        Self { node, kind: WriteKind::RemoveFirstReady, annotations }
    }
}

/// Writes the patches of the queue.
pub(super) async fn run(client: Client, mut writes: mpsc::Receiver<FirstReadyWrite>, metrics: Arc<Metrics>) {
    let nodes: Api<Node> = Api::all(client);
    let mut is_failing = false;
    while let Some(FirstReadyWrite { node, kind, annotations }) = writes.recv().await {
        let patch = json!({"metadata": {"annotations": annotations}});
        for attempt in 1..=ATTEMPTS {
            let Err(error) = annotate(&nodes, &node, &patch).await else {
                is_failing = false;
                metrics.cluster.record_write(kind, WriteOutcome::Done);
                break;
            };
            if error.is_final() || attempt == ATTEMPTS {
                metrics.cluster.record_write(kind, WriteOutcome::Failed);
                if !std::mem::replace(&mut is_failing, true) {
                    let hint = if error.is_forbidden() { ": grant the verb patch on nodes" } else { "" };
                    tracing::warn!(
                        node = &*node,
                        kind = kind.as_str(),
                        "failed to write the first-ready annotations of the Node{hint}: {}",
                        Sanitized(&chain(&error))
                    );
                }
                break;
            }
            sleep(PAUSE_AFTER_FAILURE).await;
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_is_one_merge_patch_with_nulls() {
        let write = FirstReadyWrite::remove("n1".into(), &["a".into(), "b".into()]);
        let expected =
            json!({"first-ready.daemonset-warden.io/a": null, "first-ready.daemonset-warden.io/b": null});
        assert_eq!(Value::Object(write.annotations), expected);
    }
}
