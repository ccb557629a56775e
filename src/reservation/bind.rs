//! The review of a binding: may a pod be bound to the node that a scheduler has chosen?
//!
//! It is the filter's judgement for one node, and the last word. The facts about the pod come from the cache, never from the
//! review: any client that reaches the port can send one. So a forged review can name a pod that exists and is not bound, on a
//! node; the pod then counts there for a few seconds, as if its scheduler had tried to bind it, unless its own spec excludes the
//! node or it is full. No clock of a hold runs for a pod that does not fit beside the pods of the node, nor for one that no scheduler
//! has tried: by its condition, or because its binding is refused again and again.

use std::time::{Duration, Instant};

use super::Reservation;
use super::bind_message::{self, BindLack, BindRefusal};
use super::door::Door;
use super::filter::{FilterCall, FilterProgress};
use super::filter_reason::FilterReason;
use super::incoming_pod::{IncomingPod, PodClass};
use crate::api::binding::Binding;
use crate::cache::pod_info::PodInfo;
use crate::cache::{Cache, NodeId};
use crate::policy::ReservationMode;

/// The time for which the binding of a pod is refused before its clocks run without a condition that its scheduler has failed it.
/// kube-scheduler writes one at once.
const UNCONDITIONED: Duration = Duration::from_secs(15);

/// The verdict on a binding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindVerdict {
    /// The pod leaves the reserved room, or none is reserved. It is assumed on the node.
    Allowed,
    /// No hold counts against the pod, whatever it takes. It is assumed on the node.
    Exempt,
    /// Only Audit mode has kept the pod from being refused. It is assumed on the node.
    WouldRefuse(BindRefusal),
    /// The pod may not be bound to the node now.
    Refused(BindRefusal),
    /// The cache lacks the pod or the node, and nothing is refused for that, or not any more.
    Unknown,
}

impl Reservation {
    /// Judges the binding of a pod to a node. A dry run is judged by the room and the gates alone, and remembered nowhere.
    ///
    /// Call it only while a refusal may be based on the cache.
    pub fn judge_bind(
        &mut self,
        cache: &Cache,
        binding: &Binding<'_>,
        is_dry_run: bool,
        now: Instant,
    ) -> BindVerdict {
        if self.policy.reservation.mode == ReservationMode::Off {
            return BindVerdict::Exempt;
        }
        let node = cache.node_id(&binding.node).filter(|id| cache.node_by_id(*id).node.is_some());
        let pod = find_pod(cache, binding);
        let (Some(pod), Some(id)) = (pod, node) else {
            let lack = if pod.is_none() { BindLack::Pod } else { BindLack::Node };
            return self.judge_unknown(cache, binding, (pod, node, lack), is_dry_run, now);
        };
        self.refresh(cache, id, now);
        let row = cache.node_by_id(id);
        if row.node.as_ref().is_some_and(|node| !pod.may_run_on(id, node)) {
            // A label of the node may have changed a moment ago, or somebody has forged the review.
            let sight = (Some(pod), node, BindLack::Agreement);
            return self.judge_unknown(cache, binding, sight, is_dry_run, now);
        }
        let fits = row.allocatable.has_known_room_beside(&row.requested, &pod.requests);
        let mut incoming = IncomingPod::of_cached(self, cache, pod);
        // No scheduler binds a pod to a node that is full; so no clock runs for it, and it counts nowhere.
        incoming.has_failed = fits && (pod.has_failed || self.is_refused_again(&pod.uid, now));
        let is_exempt = incoming.class == PodClass::Exempt;
        let mut call = self.begin_call(cache, incoming, Door::Bind, FilterProgress::default(), now);
        if is_dry_run {
            return call.judge_dry_run(id, is_exempt);
        }
        let refused = call.refuse(&binding.node);
        let refusal = refused.or(call.progress.would_refuse_for).map(|reason| call.refusal(id, reason));
        let verdict = match refusal {
            Some(refusal) if refused.is_some() => BindVerdict::Refused(refusal),
            Some(refusal) => BindVerdict::WouldRefuse(refusal),
            None if is_exempt => BindVerdict::Exempt,
            None => BindVerdict::Allowed,
        };
        call.finish_bind(id, &verdict, fits);
        verdict
    }

    /// Returns true for a pod whose binding was first refused a while ago, and that is tried still: its scheduler is one that writes
    /// no condition.
    fn is_refused_again(&self, uid: &str, now: Instant) -> bool {
        self.waits.since_refused(uid, Door::Bind, now).is_some_and(|since| since >= UNCONDITIONED)
    }

    /// Judges a binding that the cache shows in part only: it waits a moment if a hold may count against the pod.
    fn judge_unknown(
        &mut self,
        cache: &Cache,
        binding: &Binding<'_>,
        (pod, node, lack): (Option<&PodInfo>, Option<NodeId>, BindLack),
        is_dry_run: bool,
        now: Instant,
    ) -> BindVerdict {
        let is_exempt = pod.is_some_and(|pod| self.is_exempt_pod(cache, pod));
        if is_dry_run || is_exempt || self.policy.reservation.mode != ReservationMode::Enforce {
            return BindVerdict::Unknown;
        }
        let priority = pod.map_or(i32::MIN, |pod| pod.priority);
        if self.waits_for_events(cache, priority) && self.stale_refusals.refuses(now) {
            return BindVerdict::Refused(BindRefusal::unknown(binding, BindLack::Events));
        }
        let may_take_reserved = match node {
            Some(id) => {
                self.refresh(cache, id, now);
                self.nodes[id].has_hold_or_gate()
            }
            None => self.may_hold_against(cache, priority),
        };
        if may_take_reserved && self.unknown_bindings.refuses(&binding.key(), pod.is_some(), now) {
            return BindVerdict::Refused(BindRefusal::unknown(binding, lack));
        }
        BindVerdict::Unknown
    }
}

/// Returns the pod of a binding, if it is cached as not bound. A UID in the binding must be the pod's.
fn find_pod<'c>(cache: &'c Cache, binding: &Binding<'_>) -> Option<&'c PodInfo> {
    let pod = match &*binding.pod_uid {
        "" => cache.unbound_pod(&binding.namespace, &binding.pod)?,
        uid => cache.pod(uid)?,
    };
    (pod.is_unbound() && *pod.namespace == *binding.namespace && *pod.name == *binding.pod).then_some(pod)
}

impl FilterCall<'_> {
    fn refusal(&self, id: NodeId, reason: FilterReason) -> BindRefusal {
        bind_message::refusal(self, id, reason)
    }

    /// Judges without a change: neither clocks nor the freshness of the node.
    fn judge_dry_run(&self, id: NodeId, is_exempt: bool) -> BindVerdict {
        if is_exempt {
            return BindVerdict::Exempt;
        }
        let row = &self.reservation.nodes[id];
        let is_gated =
            || row.gates.iter().any(|gate| self.waits_for_gate(gate)) && self.pod.daemon_set_on(id).is_none();
        let reason = match self.takes_reserved(id) {
            Some(_) => FilterReason::Reserved,
            None if is_gated() => FilterReason::DaemonPodNotReady,
            None => return BindVerdict::Allowed,
        };
        let refusal = self.refusal(id, reason);
        if self.is_audit() { BindVerdict::WouldRefuse(refusal) } else { BindVerdict::Refused(refusal) }
    }

    /// Ends the call: assumes the pod on the node if it is allowed and `fits` there.
    fn finish_bind(self, id: NodeId, verdict: &BindVerdict, fits: bool) {
        let Self { reservation, now, pod, .. } = self;
        match verdict {
            BindVerdict::Allowed | BindVerdict::Exempt | BindVerdict::WouldRefuse(_) => {
                reservation.waiting.remove(&pod.uid);
                if fits {
                    let is_last_word = reservation.is_elected();
                    reservation.assumed.assume_binding(pod.into_allowed(), id, is_last_word, now);
                } else {
                    reservation.note_allowed(pod.uid, now);
                }
            }
            // The scheduler tries it again after a pause by itself, so that nothing need wake it.
            BindVerdict::Refused(refusal) => {
                reservation.waits.begin(&pod.uid, Door::Bind, refusal.reason, now);
            }
            BindVerdict::Unknown => {}
        }
    }
}
