//! The reservation's part in leader election.

use std::time::Instant;

use super::Reservation;
use crate::cache::Cache;

impl Reservation {
    /// Records that this replica judges bindings from now on, or does so no longer.
    pub fn set_judging(&mut self, _cache: &Cache, is_judging: bool, _now: Instant) {
        self.is_judging = is_judging;
    }

    /// Returns true if this replica judges bindings.
    pub fn is_judging(&self) -> bool {
        self.is_judging
    }

    /// Returns a note of what has been spent, for the next judge.
    pub fn spent_note(&self, _now: Instant) -> String {
        String::new()
    }

    /// Takes over what the last judge has spent, from its note.
    pub fn restore_spent(&mut self, _note: &str, _now: Instant) {}

    /// Returns the number of pods that `/bind` let through and that were not seen bound.
    pub fn bind_assumed_len(&self) -> usize {
        self.assumed_len()
    }
}
