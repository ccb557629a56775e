//! Patches `status.nominatedNodeName` of daemon pods for which room is held.
//!
//! Each patch names the pod's UID and resource version, so a pod that was bound, changed or replaced meanwhile is never patched:
//! the apiserver answers 409. Several patches run at once, because none depends on another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PostParams};
use kube::{Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};

use super::{WriteError, in_time};
use crate::reservation::cluster_write::Nomination;
use crate::reservation::nomination::NominationOutcome;
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::cluster::{WriteKind, WriteOutcome};
use crate::telemetry::patch_params;

/// The number of patches that run at once.
const MAX_IN_FLIGHT: usize = 8;
/// The time between two access reviews while the permission is missing.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The function that takes the results of nominations; it must not block.
pub type NominationCallback = Box<dyn Fn(NominationResult) + Send + Sync>;

/// An answer of the apiserver about nominations.
#[derive(Debug)]
pub enum NominationResult {
    /// The apiserver's answer about the permission: true if the service account may patch pods/status.
    Permitted(bool),
    /// The answer to one nomination.
    Done(Nomination, NominationOutcome),
}

/// Writes the nominations of the queue. While the service account may not patch pods/status, each gets the outcome `Unknown`, and
/// the permission is asked for once a minute.
pub(super) async fn run(
    client: Client,
    mut writes: mpsc::Receiver<Nomination>,
    on_result: NominationCallback,
    metrics: Arc<Metrics>,
) {
    let nominator = Nominator { client, on_result, metrics, is_failing: AtomicBool::new(false) };
    let mut is_permitted = nominator.ask_permission(true).await;
    let mut ask_again = interval(ASK_AGAIN);
    ask_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ask_again.tick().await;
    loop {
        if is_permitted {
            nominator.write_until_forbidden(&mut writes).await;
            if writes.is_closed() && writes.is_empty() {
                return;
            }
        } else {
            nominator.drain(&mut writes);
            ask_again.tick().await;
        }
        // An admission policy may have forbidden one pod; then the others may still be nominated.
        is_permitted = nominator.ask_permission(is_permitted).await;
    }
}

struct Nominator {
    client: Client,
    on_result: NominationCallback,
    metrics: Arc<Metrics>,
    /// True if the last failure has been logged and no patch has succeeded since.
    is_failing: AtomicBool,
}

impl Nominator {
    /// Asks the apiserver if the service account may patch pods/status in all namespaces. Passes the answer on and returns it.
    /// Without an answer the previous one holds: the next patch shows if it is right.
    async fn ask_permission(&self, was_permitted: bool) -> bool {
        let attributes = ResourceAttributes {
            verb: Some("patch".to_owned()),
            resource: Some("pods".to_owned()),
            subresource: Some("status".to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = in_time(reviews.create(&PostParams::default(), &review)).await;
        let is_permitted = match answer {
            Ok(review) => review.status.is_none_or(|status| status.allowed),
            Err(_) => was_permitted,
        };
        self.metrics.cluster.nomination_permitted.set(i64::from(is_permitted));
        (self.on_result)(NominationResult::Permitted(is_permitted));
        match (was_permitted, is_permitted) {
            (true, false) => tracing::warn!(
                "daemon pods are not nominated, so autoscalers do not see the room that is reserved for them: grant the verb patch on pods/status, or set reservation.nominate to false"
            ),
            (false, true) => tracing::info!("nominating daemon pods: patching pods/status is granted now"),
            _ => {}
        }
        is_permitted
    }

    /// Writes the nominations of the queue until the apiserver answers 403 or the queue is closed, and then waits for the patches
    /// that run.
    async fn write_until_forbidden(&self, writes: &mut mpsc::Receiver<Nomination>) {
        let is_forbidden = AtomicBool::new(false);
        let next = futures::stream::poll_fn(|context| {
            if is_forbidden.load(Ordering::Relaxed) {
                return std::task::Poll::Ready(None);
            }
            writes.poll_recv(context)
        });
        let write = async |nomination| {
            if self.write(nomination).await {
                is_forbidden.store(true, Ordering::Relaxed);
            }
        };
        next.for_each_concurrent(MAX_IN_FLIGHT, write).await;
    }

    /// Empties the queue without writing, with the outcome `Unknown`.
    fn drain(&self, writes: &mut mpsc::Receiver<Nomination>) {
        while let Ok(nomination) = writes.try_recv() {
            (self.on_result)(NominationResult::Done(nomination, NominationOutcome::Unknown));
        }
    }

    /// Writes one nomination and passes the result on. Returns true if the apiserver answered 403.
    async fn write(&self, nomination: Nomination) -> bool {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &nomination.namespace);
        let patch = Patch::Merge(nomination.patch());
        let written = in_time(pods.patch_status(&nomination.name, &patch_params(), &patch)).await;
        let is_forbidden = written.as_ref().is_err_and(WriteError::is_forbidden);
        let (write_outcome, outcome) = match &written {
            Ok(pod) => {
                let resource_version = pod.resource_version().unwrap_or_default();
                (WriteOutcome::Done, NominationOutcome::Written { resource_version })
            }
            Err(error) if matches!(error.code(), Some(404 | 409)) => {
                (WriteOutcome::Outdated, NominationOutcome::Outdated)
            }
            Err(error) if matches!(error.code(), Some(400 | 403 | 422)) => {
                (WriteOutcome::Failed, NominationOutcome::Refused)
            }
            Err(_) => (WriteOutcome::Failed, NominationOutcome::Unknown),
        };
        match &written {
            Err(error) if write_outcome == WriteOutcome::Failed => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    let hint = if is_forbidden { ": grant the verb patch on pods/status" } else { "" };
                    tracing::warn!(
                        namespace = &*nomination.namespace,
                        pod = &*nomination.name,
                        "failed to nominate a daemon pod{hint}: {}",
                        Sanitized(&chain(error))
                    );
                }
            }
            _ => self.is_failing.store(false, Ordering::Relaxed),
        }
        self.metrics.cluster.record_write(WriteKind::of(&nomination), write_outcome);
        (self.on_result)(NominationResult::Done(nomination, outcome));
        is_forbidden
    }
}

#[cfg(test)]
mod tests;
