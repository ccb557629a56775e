//! The basis of a hold: the reason to believe that the daemon pod will come if room is reserved for it.
//!
//! Room is not reserved on an author's word alone. Strongest first:
//!
//! - the pod exists, so admission let it in, and it waits for room;
//! - the pod exists, and waits perhaps for something else: claims, other pods, a scheduler that nobody serves;
//! - a pod of the DaemonSet was bound to the node until a moment ago;
//! - the template, while the DaemonSet controller is on its way to create the pod: the birth window.
//!
//! All but the first charge the namespace's [`super::wait_budget`]: their holds may end without the pod. The last two are for no
//! more pods than the namespace's quotas would take ([`super::unborn`]).
//!
//! The birth window follows the controller. It creates pods one after the other (20 a second by default), so the window is open
//! while it creates pods of any DaemonSet, and for [`BasisLimits::idle_controller`] longer. It ends soon after the controller has
//! failed to create a pod of this DaemonSet.

use std::time::{Duration, Instant};

use super::Reservation;
use super::hold::{EndReason, Hold};
use super::hold_basis::{HoldBasis, Predecessor};
use crate::cache::daemonset_info::{AdmissionObstacle, DaemonSetInfo};
use crate::cache::node_info::NodeInfo;
use crate::cache::{Cache, DaemonSetId, NodeId};
use crate::daemonset::placement::admits;
use crate::scheduling::obstacle::Obstacle;

/// The times for which a hold stands without a pod.
#[derive(Debug, Clone, Copy)]
pub struct BasisLimits {
    /// The time without a created pod after which the controller is not working on its queue. A new leader needs 15 s to take over.
    pub idle_controller: Duration,
    /// The time after a failure to create a pod of the DaemonSet in which the next attempt may succeed.
    pub failed_creation: Duration,
    /// The time after the predecessor has left. The controller's next attempt may be as late after failures for a quota whose
    /// status lags.
    pub predecessor: Duration,
    /// The time for which a quota counts pods that have left.
    pub quota_lag: Duration,
}

impl Default for BasisLimits {
    fn default() -> Self {
        Self {
            idle_controller: Duration::from_secs(20),
            failed_creation: Duration::from_secs(3),
            predecessor: Duration::from_secs(60),
            quota_lag: Duration::from_secs(5),
        }
    }
}

/// The basis of a hold, or the reason for which it has none; and the time at which it has to be looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BasisCheck {
    pub(super) basis: Result<HoldBasis, EndReason>,
    pub(super) recheck_at: Option<Instant>,
}

impl BasisCheck {
    fn stands(basis: HoldBasis) -> Self {
        Self { basis: Ok(basis), recheck_at: None }
    }

    fn until(basis: HoldBasis, end: Instant) -> Self {
        Self { basis: Ok(basis), recheck_at: Some(end) }
    }

    fn lacks(reason: EndReason) -> Self {
        Self { basis: Err(reason), recheck_at: None }
    }
}

impl Reservation {
    /// Returns the basis of a hold on a node. Call it after `hold.pod` and `hold.predecessor` are up to date. `unborn`: the
    /// DaemonSets before it on the node that have holds for pods that do not exist yet.
    pub(super) fn check_basis(
        &self,
        cache: &Cache,
        id: NodeId,
        hold: &mut Hold,
        unborn: &[DaemonSetId],
        now: Instant,
    ) -> BasisCheck {
        if hold.pod.pending.is_some() || hold.predecessor == Predecessor::Present {
            // The window opens when the pod goes.
            hold.unborn_since = None;
        }
        let check = match hold.pod.pending {
            Some(pod) => match cache.pod_by_id(pod).daemon.as_ref().map(|daemon| daemon.obstacle) {
                Some(Obstacle::Room) => return BasisCheck::stands(HoldBasis::Pod),
                Some(Obstacle::Uncertain) | None => BasisCheck::stands(HoldBasis::UncertainPod),
                Some(Obstacle::Other) => BasisCheck::lacks(EndReason::NotSchedulable),
            },
            None => self.check_without_pod(cache, id, hold, unborn, now),
        };
        let namespace = &self.daemon_sets[hold.pod.daemon_set].reference.namespace;
        if check.basis.is_ok() && self.wait_budgets.is_spent(namespace) {
            return BasisCheck::lacks(EndReason::BudgetSpent);
        }
        check
    }

    fn check_without_pod(
        &self,
        cache: &Cache,
        id: NodeId,
        hold: &mut Hold,
        unborn: &[DaemonSetId],
        now: Instant,
    ) -> BasisCheck {
        let limits = &self.basis_limits;
        let daemon_set = hold.pod.daemon_set;
        let (Some(info), Some(node)) = (cache.daemon_set_if_known(daemon_set), cache.node_if_known(id))
        else {
            return BasisCheck::lacks(EndReason::NotWanted);
        };
        if info.obstacle == Obstacle::Other {
            return BasisCheck::lacks(EndReason::NotSchedulable);
        }
        if self.is_beyond_quota(cache, id, daemon_set, unborn) {
            return BasisCheck::lacks(EndReason::NotAdmitted);
        }
        match hold.predecessor {
            Predecessor::Present => return BasisCheck::stands(HoldBasis::Predecessor),
            Predecessor::Left(at) if now < at + limits.predecessor => {
                return BasisCheck::until(HoldBasis::Predecessor, at + limits.predecessor);
            }
            Predecessor::Left(_) | Predecessor::None => {}
        }
        let lag_ends = self.quota_lag_ends(cache, info, now);
        match (info.refused_by, lag_ends) {
            (None, _) => {}
            (Some(AdmissionObstacle::Quota), Some(end)) => {
                return BasisCheck::until(HoldBasis::Template, end);
            }
            (Some(_), _) => return BasisCheck::lacks(EndReason::NotAdmitted),
        }
        let template = &info.daemon_set.spec.template.spec;
        let is_open =
            node.node.as_ref().is_some_and(|node| admits(template, &info.tolerations, node, |_| false));
        if !is_open {
            // The controller does not create the pod before the transient taints have gone.
            hold.unborn_since = None;
            return BasisCheck::stands(HoldBasis::Template);
        }
        let since = *hold.unborn_since.get_or_insert_with(|| self.unborn_since(cache, info, node, now));
        let row = &self.daemon_sets[daemon_set];
        let worked_at =
            [self.last_created_at, row.observed_at].into_iter().flatten().fold(since, Instant::max);
        let mut end = worked_at + limits.idle_controller;
        if info.creation_has_failed() {
            let failed_at = row.failed_at.map_or(since, |at| at.max(since));
            let grace_ends = failed_at + limits.failed_creation;
            end = end.min(lag_ends.map_or(grace_ends, |lag| lag.max(grace_ends)));
        }
        if now < end {
            BasisCheck::until(HoldBasis::Template, end)
        } else {
            BasisCheck::lacks(EndReason::NotCreated)
        }
    }

    /// Returns the time since which the controller could have created a pod that is missing now. After a start that is the creation
    /// of the DaemonSet or the Node, so that a restart opens no birth window again; later it is the present.
    fn unborn_since(&self, cache: &Cache, info: &DaemonSetInfo, node: &NodeInfo, now: Instant) -> Instant {
        if !self.is_starting {
            return now;
        }
        let node_created = node.node.as_ref().map_or("", |node| &node.metadata.creation_timestamp);
        let created = info.daemon_set.metadata.creation_timestamp.as_str().max(node_created);
        now.checked_sub(cache.age_by_objects(created)).unwrap_or(now)
    }

    /// Handles the first complete cache: the objects tell for how long daemon pods have been missing. Refresh all nodes after it,
    /// then call [`Self::finish_start`].
    pub fn begin_start(&mut self, cache: &Cache, now: Instant) {
        let newest = cache.daemon_sets().map(|(_, info)| &*info.last_created).max().unwrap_or_default();
        self.last_created_at = now.checked_sub(cache.age_by_objects(newest)).filter(|_| !newest.is_empty());
        self.is_starting = true;
        self.adopt_nominations(cache, now);
    }

    /// Ends the start: what is missing from now on has been missing since now.
    pub fn finish_start(&mut self) {
        self.is_starting = false;
    }

    /// Returns the time until which quotas of the DaemonSet's namespace may count pods that have left: its pods are terminating, or
    /// were a moment ago. `None` if they do not.
    fn quota_lag_ends(&self, cache: &Cache, info: &DaemonSetInfo, now: Instant) -> Option<Instant> {
        let namespace = info.daemon_set.metadata.namespace.as_str();
        let lag = self.basis_limits.quota_lag;
        if cache.has_terminating_pods(namespace) {
            return Some(now + lag);
        }
        let left_at = self.last_termination.get(namespace)?;
        Some(*left_at + lag).filter(|end| now < *end)
    }

    /// Marks the nodes on which holds of a DaemonSet may have a basis again.
    pub(super) fn recheck_lapsed(&mut self, daemon_set: DaemonSetId) {
        if self.lapsed.remove(&daemon_set) {
            self.mark_desired_on(daemon_set);
        }
    }

    /// Looks again at a few DaemonSets whose birth window has ended because the controller was idle: it has just created a pod of
    /// another. Does nothing if it did so within the last second, for each may cost a visit of every node.
    pub(super) fn recheck_some_lapsed(&mut self, cache: &Cache, now: Instant) {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < RECHECK_INTERVAL;
        if self.lapsed.is_empty() || self.lapsed_rechecked_at.is_some_and(is_recent) {
            return;
        }
        self.lapsed_rechecked_at = Some(now);
        let is_failing = |id: &DaemonSetId| {
            cache
                .daemon_set_if_known(*id)
                .is_some_and(|info| info.creation_has_failed() || info.refused_by.is_some())
        };
        let some = self.lapsed.iter().filter(|id| !is_failing(id)).take(LAPSED_AT_ONCE);
        some.copied().collect::<Vec<_>>().into_iter().for_each(|id| self.recheck_lapsed(id));
    }
}

/// The DaemonSets that are looked at again at once.
const LAPSED_AT_ONCE: usize = 16;
const RECHECK_INTERVAL: Duration = Duration::from_secs(1);
