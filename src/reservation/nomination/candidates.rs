//! The daemon pods of a node that may be nominated: room is reserved, an attempt has failed, and no pod of equal priority is kept
//! out.

use std::time::Instant;

use crate::cache::{Cache, NodeId, PodId};
use crate::policy::opt_out::is_opted_out;
use crate::reservation::Reservation;
use crate::reservation::hold::{Hold, HoldState};
use crate::scheduling::host_ports::any_conflict;
use crate::scheduling::resources::Resources;

/// A daemon pod that may be nominated.
pub(super) struct NominationCandidate {
    pub(super) pod: PodId,
    pub(super) held_since: Instant,
    /// True if the pod's hold refuses other pods or would, and the pod is not nominated.
    pub(super) needs_nomination: bool,
}

/// The daemon pods of a node that are nominated at once. The others follow as these land.
const MAX_CANDIDATES: usize = 16;

impl Reservation {
    /// Returns the daemon pods of a node, in the order of its holds, that may be nominated together. Room is reserved for them, and
    /// the scheduler has tried and failed them. None of them makes the scheduler refuse another missing daemon pod that would land
    /// without it. There are at most [`MAX_CANDIDATES`]. The node must not be dirty.
    pub(super) fn nomination_candidates(&self, cache: &Cache, id: NodeId) -> Vec<NominationCandidate> {
        let Some(node) = cache.node_if_known(id) else { return Vec::new() };
        let holds = &self.nodes[id].holds;
        let may_be = |hold: &Hold| {
            let pod = hold.pod.pending.filter(|_| hold.state == HoldState::Held)?;
            may_be_nominated(cache, pod, hold).then_some(pod)
        };
        if !holds.iter().any(|hold| may_be(hold).is_some()) {
            return Vec::new();
        }
        let mut free = node.allocatable.clone();
        free.subtract(&node.requested);
        let mut candidates = Vec::new();
        let mut above = free.clone();
        // The holds of missing pods are in the order of their priority, the highest first.
        for equals in holds.chunk_by(|a, b| a.pod.priority() == b.pod.priority()) {
            let mut nominated: Vec<&Hold> = Vec::new();
            for (at, hold) in equals.iter().enumerate() {
                if candidates.len() == MAX_CANDIDATES {
                    return candidates;
                }
                let (Some(pod), Some(held_since)) = (may_be(hold), hold.held_since) else { continue };
                nominated.push(hold);
                // Those behind it in the order do not land before it: the warden refuses them.
                if equals[..at].iter().any(|other| keeps_out(&above, &nominated, other)) {
                    nominated.pop();
                    continue;
                }
                let needs_nomination =
                    cache.pod_by_id(pod).nominated.is_none() && refuses_others(holds, hold, &free);
                candidates.push(NominationCandidate { pod, held_since, needs_nomination });
            }
            nominated.iter().for_each(|hold| above.subtract(hold.pod.need()));
        }
        candidates
    }

    /// Returns the number of pods that may be nominated to a node, which must not be dirty.
    #[cfg(test)]
    pub(crate) fn may_be_nominated_on(&self, cache: &Cache, id: NodeId) -> usize {
        self.nomination_candidates(cache, id).len()
    }
}

fn may_be_nominated(cache: &Cache, pod: PodId, hold: &Hold) -> bool {
    let pod = cache.pod_by_id(pod);
    let is_opted_out = pod.daemon.as_ref().is_some_and(|daemon| is_opted_out(&daemon.labels));
    // The room of its terminating predecessor would count twice in the scheduler's sum.
    let predecessor_has_left = hold.pod.reserved() == hold.pod.need();
    pod.failed_version().is_some() && !is_opted_out && predecessor_has_left
}

/// Returns true if the nominated pods would keep out a missing daemon pod that goes before them and has room without them. `above`
/// is the room beside nominated pods of higher priority. The scheduler counts a nominated pod against all pods of equal priority.
fn keeps_out(above: &Resources, nominated: &[&Hold], other: &Hold) -> bool {
    let may_land = match other.state {
        HoldState::Held | HoldState::CannotFit => true,
        // No room is reserved for it, and only a pod that exists can land.
        HoldState::Expired => other.pod.pending.is_some(),
        HoldState::NotMissing | HoldState::NoBasis => false,
    };
    if !may_land || above.lacks(other.pod.reserved()).is_some() {
        return false;
    }
    let mut rest = above.clone();
    let mut takes_ports = false;
    for hold in nominated.iter().filter(|hold| hold.pod.daemon_set != other.pod.daemon_set) {
        rest.subtract(hold.pod.need());
        takes_ports |= any_conflict(hold.pod.host_ports(), other.pod.host_ports());
    }
    takes_ports || rest.lacks(other.pod.reserved()).is_some()
}

/// Returns true if there may be pods that fit on the node for the scheduler and that the hold refuses. If nothing is free, the
/// scheduler itself keeps them off, and a nomination would only make it slower.
fn refuses_others(holds: &[Hold], hold: &Hold, free: &Resources) -> bool {
    if free.pods <= 0 {
        return false;
    }
    let held = holds.iter().filter(|hold| hold.state == HoldState::Held);
    let takes_last_slots = free.pods <= held.map(|hold| hold.pod.reserved().pods).sum();
    let wants_ports = !hold.pod.host_ports().is_empty();
    // Most pods request CPU and memory. A pod that requests one of them only counts once the hold has refused one.
    let usual = [(hold.pod.reserved().milli_cpu, free.milli_cpu), (hold.pod.reserved().memory, free.memory)];
    let mut asked = usual.iter().filter(|(reserved, _)| *reserved > 0).peekable();
    let some_is_free = if asked.peek().is_some() && !hold.has_refused {
        asked.all(|(_, free)| *free > 0)
    } else {
        free.has_some_of(hold.pod.reserved())
    };
    takes_last_slots || wants_ports || some_is_free
}
