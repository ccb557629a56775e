//! The values that pass between the state machine and its caller.

use std::time::Duration;

use crate::cache::replicas::Replica;

/// The answer to a replica that is asked about a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgeTurn {
    /// This replica judges.
    Judges,
    /// Another replica judges, or is about to: the binding must be tried again.
    Denies,
    /// No replica may be waited for any longer: the binding is allowed unjudged.
    Allows,
}

/// The state of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgeState {
    /// Does not hold the Lease, and stands for it.
    Standby,
    /// Holds the Lease, and waits until all earlier bindings are seen.
    TakingOver,
    /// Holds the Lease and judges.
    Judging,
    /// Holds the Lease, and judges no longer because the process ends.
    HandingOver,
    /// Does not hold the Lease, and never stands for it again.
    Released,
}

/// The durations of leader election, by the names of Kubernetes' flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JudgeTimes {
    /// The time after which a Lease that is not renewed may be taken over.
    pub lease_duration: Duration,
    /// The time after the last renewal after which the holder stops judging.
    pub renew_deadline: Duration,
    /// The time between two renewals, or two reads.
    pub retry_period: Duration,
}

impl JudgeTimes {
    /// Returns every fault, in the words of client-go's `NewLeaderElector`; empty if there is none.
    pub fn faults(&self) -> Vec<&'static str> {
        // JitterFactor upstream.
        let longest_retry = self.retry_period.mul_f64(1.2);
        let rules = [
            (self.lease_duration > self.renew_deadline, "leaseDuration must be greater than renewDeadline"),
            (
                self.renew_deadline > longest_retry,
                "renewDeadline must be greater than retryPeriod*JitterFactor (1.2)",
            ),
            (!self.lease_duration.is_zero(), "leaseDuration must be greater than zero"),
            (!self.renew_deadline.is_zero(), "renewDeadline must be greater than zero"),
            (!self.retry_period.is_zero(), "retryPeriod must be greater than zero"),
        ];
        rules.into_iter().filter(|(holds, _)| !holds).map(|(_, fault)| fault).collect()
    }
}

/// The fields of a Lease that count. Two records are equal if the Lease was not renewed between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// The holder's identity; empty if the Lease was given back.
    pub holder: String,
    /// True if its holder has given it back, and judges no longer.
    pub is_given_back: bool,
    /// The duration that the holder wrote.
    pub duration: Duration,
    /// The times and counts of the record, as text: it changes with each renewal.
    pub stamp: String,
}

/// The view of the cluster that decides who may judge.
#[derive(Debug, Clone, Default)]
pub struct JudgeSight {
    /// The Pods of the own release, the own one included.
    pub replicas: Vec<Replica>,
    /// True if this replica could judge: it serves, and its cache is fresh.
    pub may_stand: bool,
    /// True if the cache lacks no event, so that an object in it shows that all earlier ones have come.
    pub is_complete: bool,
    /// The number of bindings that were let through and have not been seen.
    pub unseen_bindings: usize,
}

/// The call to the apiserver that is due next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseStep {
    /// Read the Lease; report by [`super::Judge::read`].
    Read,
    /// Write the Lease as one that this replica acquires; report by [`super::Judge::written`] or [`super::Judge::conflict`].
    Acquire,
    /// Write the Lease as one that this replica renews; report as for [`Self::Acquire`].
    Renew,
    /// Write the label and this token to the own Pod; report by [`super::Judge::marked`].
    Mark(String),
    /// Write the Lease without a holder; report as for [`Self::Acquire`].
    Release,
}

/// A change of a Pod's label that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelFix {
    /// The Pod's name.
    pub pod: String,
    /// The Pod's UID.
    pub uid: String,
    /// True to set the label, false to remove it.
    pub is_active: bool,
}
