//! The rules about the holder of the Lease: does it live, may the Lease be taken from it, and until when may its bindings come?

use std::time::{Duration, Instant};

use super::{Judge, LeaseSight};
use crate::cache::replicas::Replica;

/// The time for which a binding that an earlier judge allowed may be on its way: the chart's `timeoutSeconds`, after which the
/// apiserver does not wait for the answer any more. With a longer one, the answer of a judge that was frozen may come later.
const IN_FLIGHT: Duration = Duration::from_secs(1);

impl Judge {
    /// Returns a sentence about the holder of the Lease, for the log.
    pub fn holder_text(&self, now: Instant) -> String {
        match &self.lease {
            LeaseSight::Unknown => "the Lease has not been read".to_owned(),
            LeaseSight::Missing(_) => "there is no Lease".to_owned(),
            LeaseSight::Seen(record, _) if record.holder.is_empty() => "the Lease was given back".to_owned(),
            LeaseSight::Seen(record, _) if record.holder == self.identity => {
                "this replica holds the Lease".to_owned()
            }
            LeaseSight::Seen(record, at) => {
                let holder = &record.holder;
                if now >= *at + record.duration {
                    format!("{holder} holds the Lease and does not renew it")
                } else if self.is_living(holder) {
                    format!("{holder} holds the Lease")
                } else {
                    format!("{holder} holds the Lease, and is no living Pod of this release")
                }
            }
        }
    }

    /// Returns true if the holder is another replica that lives: a Pod of the own release that is not being deleted. Without a Pod
    /// of its own the process can see no release, and the Lease alone decides.
    pub(super) fn is_living(&self, holder: &str) -> bool {
        if holder.is_empty() || holder == self.identity || self.is_own_pod(holder) {
            return false;
        }
        let is_it = |other: &Replica| other.name == pod_of(holder) && !other.is_terminating;
        self.own_pod.is_none() || self.others().any(is_it)
    }

    /// Returns true if the holder is another replica that is being deleted.
    pub(super) fn is_holder_ending(&self) -> bool {
        let LeaseSight::Seen(record, _) = &self.lease else { return false };
        self.others().any(|other| other.is_terminating && other.name == pod_of(&record.holder))
    }

    /// Returns true if the holder is another replica that lives, and does not have the label.
    pub(super) fn is_holder_unlabelled(&self) -> bool {
        let LeaseSight::Seen(record, _) = &self.lease else { return false };
        let is_unlabelled = |other: &Replica| !other.is_terminating && !other.is_active;
        self.others().any(|other| is_unlabelled(other) && other.name == pod_of(&record.holder))
    }

    /// Returns true if the holder ran in the own Pod: an earlier container, which has ended.
    fn is_own_pod(&self, holder: &str) -> bool {
        self.own_pod.as_deref() == Some(pod_of(holder))
    }

    pub(super) fn may_acquire(&self, now: Instant) -> bool {
        let is_free = match &self.lease {
            LeaseSight::Unknown => false,
            LeaseSight::Missing(_) => true,
            LeaseSight::Seen(record, at) => {
                record.holder.is_empty()
                    || record.holder == self.identity
                    || self.is_own_pod(&record.holder)
                    || now >= *at + record.duration
            }
        };
        is_free && self.sight.may_stand && !self.is_ending
    }

    /// Returns the time from which on no binding of an earlier judge is in flight. Call it before the Lease as it was is forgotten.
    pub(super) fn quiet_from(&self, now: Instant) -> Instant {
        match &self.lease {
            LeaseSight::Seen(record, _) if record.is_given_back => now,
            // Somebody has taken the holder's name out, and the holder does not know yet.
            LeaseSight::Seen(record, at) if record.holder.is_empty() => {
                (*at + self.times.renew_deadline + IN_FLIGHT).max(now)
            }
            LeaseSight::Seen(record, _) if self.is_own_pod(&record.holder) => now + IN_FLIGHT,
            LeaseSight::Seen(record, _) if record.holder == self.identity => now + IN_FLIGHT,
            LeaseSight::Seen(record, at) => (*at + record.duration + IN_FLIGHT).max(now),
            LeaseSight::Missing(Some(end)) => (*end + IN_FLIGHT).max(now),
            // Nobody has ever judged, as after an installation, unless a replica says otherwise.
            LeaseSight::Missing(None) if !self.others().any(|other| other.is_active) => now,
            LeaseSight::Missing(None) | LeaseSight::Unknown => now + self.times.renew_deadline + IN_FLIGHT,
        }
    }
}

/// Returns the name of the Pod of an identity: the text before the first `_`, which no name of a Pod has.
fn pod_of(identity: &str) -> &str {
    identity.split_once('_').map_or(identity, |(pod, _)| pod)
}
