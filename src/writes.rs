//! EDGE out: the writes to the apiserver: Events, wake-ups and first-ready annotations of Nodes and their removal, nominations
//! of pods, and the Lease of leader election ([`lease`], which has no queue).
//!
//! ```text
//! WriteQueue ──┬─▶ wake (the last Node replaces the others) ──▶ patch of a Node, at most one a second
//!              ├─▶ first_ready (bounded)                   ──▶ patch of a Node, at most ten a second
//!              ├─▶ nominations (bounded)                   ──▶ patch of a pod's status, 25 a second after a burst of 50
//!              └─▶ events (bounded)                        ──▶ Events, five a second after a burst of 50
//! ```
//! The caller never waits: a write that does not fit is dropped and counted. A wake-up is never dropped, only merged with others:
//! waking one refused pod wakes all (kubernetes v1.36.3 pkg/scheduler/framework/types.go, the events of the pseudo plugin
//! "Extender").

pub mod events;
pub mod first_ready;
pub mod lease;
pub mod nomination;
pub mod wake;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use self::events::EventWrite;
use self::first_ready::FirstReadyWrite;
pub use self::nomination::{NominationCallback, NominationResult};
use crate::reservation::cluster_write::{ClusterWrite, Nomination};
use crate::reservation::nomination::NOMINATED_AT_ONCE;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::cluster::{WriteKind, WriteOutcome};

/// The time limit of one write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// The number of writes that may wait in the queue of Events, and as many in that of first-ready annotations; further ones are
/// dropped and counted. At the rate of Events it is three minutes of them.
const QUEUE: usize = 1_024;
/// The capacity of the queue of nominations: those that may be set at once, and as many that are cleared.
const NOMINATION_QUEUE: usize = 2 * NOMINATED_AT_ONCE;

/// The sending half: takes writes, and never waits.
pub struct WriteQueue {
    wake: watch::Sender<Option<Arc<str>>>,
    first_ready: mpsc::Sender<FirstReadyWrite>,
    nominations: mpsc::Sender<Nomination>,
    events: mpsc::Sender<EventWrite>,
    metrics: Arc<Metrics>,
}

/// The receiving half: sends the writes that come through the [`WriteQueue`] to the apiserver.
pub struct ClusterWriter {
    wake: watch::Receiver<Option<Arc<str>>>,
    first_ready: mpsc::Receiver<FirstReadyWrite>,
    nominations: mpsc::Receiver<Nomination>,
    events: mpsc::Receiver<EventWrite>,
    metrics: Arc<Metrics>,
}

/// Makes a queue and its writer. Nothing is written before [`ClusterWriter::tasks`].
pub fn write_queue(metrics: Arc<Metrics>) -> (WriteQueue, ClusterWriter) {
    let (wake, wake_receiver) = watch::channel(None);
    let (first_ready, first_ready_receiver) = mpsc::channel(QUEUE);
    let (nominations, nominations_receiver) = mpsc::channel(NOMINATION_QUEUE);
    let (events, events_receiver) = mpsc::channel(QUEUE);
    let queue = WriteQueue { wake, first_ready, nominations, events, metrics: metrics.clone() };
    let writer = ClusterWriter {
        wake: wake_receiver,
        first_ready: first_ready_receiver,
        nominations: nominations_receiver,
        events: events_receiver,
        metrics,
    };
    (queue, writer)
}

impl WriteQueue {
    /// Takes one write, without waiting. A write that does not fit is dropped and counted; an Event about a hold or gate that
    /// refused no pod is dropped uncounted.
    pub fn enqueue(&self, write: ClusterWrite) {
        let (kind, fits) = match write {
            ClusterWrite::Wake(node) => {
                self.wake.send_replace(Some(node));
                return;
            }
            ClusterWrite::RecordFirstReady { node, daemon_set_uid } => {
                let write = FirstReadyWrite::record(node, &daemon_set_uid);
                (WriteKind::FirstReady, self.first_ready.try_send(write).is_ok())
            }
            ClusterWrite::RemoveFirstReady { node, daemon_set_uids } => {
                let write = FirstReadyWrite::remove(node, &daemon_set_uids);
                (WriteKind::RemoveFirstReady, self.first_ready.try_send(write).is_ok())
            }
            ClusterWrite::Nominate(nomination) => {
                (WriteKind::of(&nomination), self.nominations.try_send(nomination).is_ok())
            }
            write => match EventWrite::of(write) {
                Some(event) => (WriteKind::Event, self.events.try_send(event).is_ok()),
                // A hold or gate that refused no pod gets no Event.
                None => return,
            },
        };
        if !fits {
            self.metrics.cluster.record_write(kind, WriteOutcome::Dropped);
        }
    }
}

impl ClusterWriter {
    /// Returns the tasks that write, with their names; none ends before the [`WriteQueue`] is dropped. `instance` is the reporting
    /// instance of Events, the pod's name. `on_result` takes the answer to each nomination; without it no pod is nominated.
    pub fn tasks(
        self,
        client: Client,
        instance: Option<String>,
        on_result: Option<NominationCallback>,
    ) -> Vec<(String, BoxFuture<'static, ()>)> {
        let (metrics, nominations) = (self.metrics, self.nominations);
        let nominate = on_result.map(|on_result| {
            let run = nomination::run(client.clone(), nominations, on_result, metrics.clone());
            ("writes of nominations".to_owned(), run.boxed())
        });
        let wake = wake::run(client.clone(), self.wake, metrics.clone());
        let first_ready = first_ready::run(client.clone(), self.first_ready, metrics.clone());
        let events = events::run(client, instance, self.events, metrics);
        let others = [
            ("writes of wake-ups".to_owned(), wake.boxed()),
            ("writes of first-ready annotations".to_owned(), first_ready.boxed()),
            ("writes of Events".to_owned(), events.boxed()),
        ];
        nominate.into_iter().chain(others).collect()
    }
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The apiserver refused it or could not be reached.
    #[error("failed to write to the apiserver")]
    Api(#[from] kube::Error),
    /// The apiserver did not answer within the time limit.
    #[error("failed to write to the apiserver: no answer")]
    Timeout(#[from] tokio::time::error::Elapsed),
}

impl WriteError {
    /// Returns the HTTP status that the apiserver answered; `None` if it did not answer one.
    fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            Self::Api(_) | Self::Timeout(_) => None,
        }
    }

    /// Returns true if another attempt cannot succeed: the object is gone, or the permission is missing.
    fn is_final(&self) -> bool {
        matches!(self.code(), Some(403 | 404 | 422))
    }

    /// Returns true if the permission is missing: the apiserver answered 403.
    fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }
}

/// Waits for a call to the apiserver. Fails as the call does, or after [`WRITE_TIMEOUT`].
async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, WriteError> {
    Ok(timeout(WRITE_TIMEOUT, call).await??)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reservation::cluster_write::{DaemonSetReference, HoldSubject};
    use crate::reservation::hold::EndReason;

    pub(super) fn hold(has_refused: bool) -> HoldSubject {
        HoldSubject {
            node: "n1".into(),
            node_uid: "node-uid".into(),
            daemon_set: Arc::new(DaemonSetReference {
                namespace: "kube-system".into(),
                name: "cni".into(),
                api_version: "apps/v1".into(),
                kind: "DaemonSet".into(),
                uid: "uid".into(),
            }),
            has_refused,
        }
    }

    #[test]
    fn a_full_queue_drops_events_and_merges_wake_ups() {
        let metrics = Arc::new(Metrics::default());
        let (queue, mut writer) = write_queue(metrics.clone());
        for _ in 0..QUEUE + 7 {
            queue.enqueue(ClusterWrite::HoldingRoom(hold(true)));
            queue.enqueue(ClusterWrite::HoldEnded(hold(false), EndReason::Landed));
            queue.enqueue(ClusterWrite::Wake("n1".into()));
            queue.enqueue(ClusterWrite::Wake("n2".into()));
        }
        assert_eq!(writer.events.len(), QUEUE);
        assert_eq!(writer.wake.borrow_and_update().as_deref(), Some("n2"));
        let text = String::from_utf8(metrics.text()).unwrap();
        let dropped = r#"daemonset_warden_cluster_writes_total{kind="event",outcome="dropped"} 7"#;
        assert!(text.contains(dropped), "{text}");
    }
}
