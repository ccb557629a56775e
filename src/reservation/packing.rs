//! The order in which the pods of a node get its room.
//!
//! The daemon pods of a node are packed into it in one order: the higher priority first, then the older DaemonSet. The order does
//! not depend on the pod that came first, so the same daemon pods get the room after every event. A daemon pod that does not fit
//! beside those that go first, were every pod gone that may be kept off for it, gets no hold.

use std::cmp::Reverse;

use crate::cache::daemonset_info::DaemonSetInfo;

/// The place of a pod on a node. A pod stays for those behind it, and may have to leave for those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackingOrder<'c> {
    priority: Reverse<i32>,
    rank: Rank,
    age: (&'c str, &'c str),
}

/// The order among pods of equal priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// No hold keeps such a pod off: it is system-critical or has opted out.
    Exempt,
    Daemon,
    Ordinary,
}

impl<'c> PackingOrder<'c> {
    /// Returns the place of a pod of a DaemonSet.
    pub fn of_daemon(priority: i32, daemon_set: &'c DaemonSetInfo) -> Self {
        Self { priority: Reverse(priority), rank: Rank::Daemon, age: daemon_set.age_key() }
    }

    /// Returns the place of a pod that no hold keeps off.
    pub fn of_exempt(priority: i32) -> Self {
        Self { priority: Reverse(priority), rank: Rank::Exempt, age: ("", "") }
    }

    /// Returns the place of any other pod.
    pub fn of_ordinary(priority: i32) -> Self {
        Self { priority: Reverse(priority), rank: Rank::Ordinary, age: ("", "") }
    }

    /// Returns the place of a daemon pod whose DaemonSet was created at this time.
    #[cfg(test)]
    pub fn at(priority: i32, created: &'c str) -> Self {
        Self { priority: Reverse(priority), rank: Rank::Daemon, age: (created, "") }
    }
}
