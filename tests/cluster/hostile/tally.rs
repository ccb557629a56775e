//! The attacks of a run: how often each kind was tried, and how often it did what it should.

use std::collections::BTreeMap;
use std::fmt::{Debug, Formatter, Result as FormatResult};

/// The attacks of an adversary.
#[derive(Default)]
pub(super) struct Tally(BTreeMap<&'static str, Count>);

#[derive(Default)]
struct Count {
    tried: u64,
    succeeded: u64,
    /// The last result that was no success.
    otherwise: String,
}

impl Tally {
    /// Counts an attack. `Ok` means that it reached what it aims at, not that it did harm.
    pub(super) fn count(&mut self, attack: &'static str, result: Result<(), String>) {
        let count = self.0.entry(attack).or_default();
        count.tried += 1;
        match result {
            Ok(()) => count.succeeded += 1,
            Err(otherwise) => count.otherwise = otherwise.chars().take(200).collect(),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (attack, more) in other.0 {
            let count = self.0.entry(attack).or_default();
            count.tried += more.tried;
            count.succeeded += more.succeeded;
            if !more.otherwise.is_empty() {
                count.otherwise = more.otherwise;
            }
        }
    }

    /// Asserts that each of these kinds of attack has succeeded, and no kind is missing in the list.
    pub(super) fn assert_each(&self, kinds: impl IntoIterator<Item = &'static str>) {
        let kinds: Vec<_> = kinds.into_iter().collect();
        let idle = kinds.iter().filter(|kind| self.0.get(*kind).is_none_or(|count| count.succeeded == 0));
        let idle: Vec<_> = idle.collect();
        assert!(idle.is_empty(), "these attacks never reached what they aim at: {idle:?}; {self:?}");
        let unknown: Vec<_> = self.0.keys().filter(|kind| !kinds.contains(kind)).collect();
        assert!(unknown.is_empty(), "not in the list of kinds: {unknown:?}");
    }
}

impl Debug for Tally {
    fn fmt(&self, f: &mut Formatter<'_>) -> FormatResult {
        for (attack, Count { tried, succeeded, otherwise }) in &self.0 {
            write!(f, "\n  {attack}: {succeeded} of {tried}")?;
            if !otherwise.is_empty() {
                write!(f, " (otherwise {otherwise})")?;
            }
        }
        Ok(())
    }
}
