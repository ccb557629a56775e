//! Patches `status.nominatedNodeName` of daemon pods for which room is held.
//!
//! Each patch names the pod's UID and resource version, so a pod that was bound, changed or replaced meanwhile is never patched:
//! the apiserver answers 409. Several are under way at once, because the scheduler waits for none of them.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, Error, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{FIELD_MANAGER, WRITE_TIME, WriteError};
use crate::daemonset::reservation::nomination::{Nomination, NominationOutcome};
use crate::logs::chain;
use crate::metrics::Metrics;
use crate::metrics::cluster::{Deed, Fate};

/// Patches under way at once.
const AT_ONCE: usize = 8;
/// The time between two questions whether the right is there, while it is not.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Takes what came of nominations; must not block.
pub type Report = Box<dyn Fn(NominationReport) + Send + Sync>;

/// What came of nominations.
#[derive(Debug)]
pub enum NominationReport {
    /// Whether pods/status may be patched at all.
    Permitted(bool),
    /// What came of the nomination of the pod with this UID.
    Done(Arc<str>, NominationOutcome),
}

/// Writes nominations as they come, and asks for the right to do so first.
pub(super) async fn run(
    client: Client,
    mut asked: mpsc::Receiver<Nomination>,
    report: Report,
    metrics: Arc<Metrics>,
) {
    let nominator = Nominator { client, report, metrics };
    let mut is_permitted = nominator.ask_permission(true).await;
    let mut ask_again = interval(ASK_AGAIN);
    ask_again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ask_again.tick().await;
    loop {
        if is_permitted {
            nominator.write_until_forbidden(&mut asked).await;
            if asked.is_closed() {
                return;
            }
            // A policy may have refused that one pod; then the others may still be nominated.
            is_permitted = nominator.ask_permission(true).await;
        } else {
            ask_again.tick().await;
            is_permitted = nominator.ask_permission(false).await;
        }
    }
}

struct Nominator {
    client: Client,
    report: Report,
    metrics: Arc<Metrics>,
}

impl Nominator {
    /// Asks the apiserver whether pods/status may be patched. No answer counts as yes: a patch will tell.
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
        let answer = timeout(WRITE_TIME, reviews.create(&PostParams::default(), &review)).await;
        let is_permitted = match answer {
            Ok(Ok(review)) => review.status.is_none_or(|status| status.allowed),
            Ok(Err(_)) | Err(_) => was_permitted,
        };
        self.metrics.cluster.nomination_permitted.set(i64::from(is_permitted));
        (self.report)(NominationReport::Permitted(is_permitted));
        match (was_permitted, is_permitted) {
            (true, false) => tracing::warn!(
                "daemon pods are not nominated, so autoscalers do not see the room that is kept for them: grant the verb patch on pods/status, or set reservation.nominate to false"
            ),
            (false, true) => tracing::info!("nominating daemon pods: patching pods/status is granted now"),
            _ => {}
        }
        is_permitted
    }

    /// Writes until the apiserver says that this is forbidden, or nobody asks any more.
    async fn write_until_forbidden(&self, asked: &mut mpsc::Receiver<Nomination>) {
        let nominations = futures::stream::poll_fn(|context| asked.poll_recv(context));
        let mut written = nominations.map(|nomination| self.write(nomination)).buffer_unordered(AT_ONCE);
        while let Some(is_forbidden) = written.next().await {
            if is_forbidden {
                return;
            }
        }
    }

    /// Writes one nomination. Whether it was forbidden.
    async fn write(&self, nomination: Nomination) -> bool {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &nomination.namespace);
        let patch = json!({
            "metadata": { "uid": nomination.uid, "resourceVersion": nomination.resource_version },
            "status": { "nominatedNodeName": nomination.node },
        });
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let written =
            timeout(WRITE_TIME, pods.patch_status(&nomination.name, &params, &Patch::Merge(&patch))).await;
        let written = written.map_err(WriteError::from).and_then(|written| Ok(written?));
        let is_forbidden = written.as_ref().is_err_and(WriteError::is_forbidden);
        let (fate, outcome) = match &written {
            Ok(pod) => {
                let resource_version = pod.resource_version().unwrap_or_default();
                (Fate::Done, NominationOutcome::Written { resource_version })
            }
            Err(WriteError::Api(Error::Api(status))) if matches!(status.code, 404 | 409) => {
                (Fate::Outdated, NominationOutcome::Outdated)
            }
            Err(error) => {
                tracing::debug!(
                    namespace = &*nomination.namespace,
                    pod = &*nomination.name,
                    "failed to nominate a daemon pod: {}",
                    chain(error)
                );
                let is_refused = matches!(error, WriteError::Api(Error::Api(_)));
                let outcome =
                    if is_refused { NominationOutcome::Refused } else { NominationOutcome::Unknown };
                (Fate::Failed, outcome)
            }
        };
        self.metrics.cluster.deed(Deed::Nominate, fate);
        (self.report)(NominationReport::Done(nomination.uid, outcome));
        is_forbidden
    }
}
