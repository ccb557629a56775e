//! Places for bodies that are being read, and memory for bodies and responses. The oldest gives way to a newer one.
//!
//! A complete body is answered within microseconds, so a client fills the server only with bodies that do not come, or with
//! responses that it does not take. Refusing newcomers would refuse good requests for as long as such a client stays
//! connected. A good body comes within milliseconds, so it is never the oldest of hundreds.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// The function that tells a body's reader, or a response's connection, that it has given way. Called at most once, without the
/// lock.
pub(crate) type OnEvict = Box<dyn FnOnce() + Send>;

/// The places and the memory that all bodies of one kind share. Clones share them too.
#[derive(Clone)]
pub(crate) struct BodyBudget(Arc<Mutex<BudgetState>>);

struct BudgetState {
    places: usize,
    memory: usize,
    next_number: u64,
    /// In the order of age: the oldest has the lowest number.
    in_flight: BTreeMap<u64, InFlightBody>,
}

struct InFlightBody {
    bytes: usize,
    has_place: bool,
    /// `None` while the request is worked on, which cannot be stopped.
    on_evict: Option<OnEvict>,
}

/// A body's place and memory, or a response's memory. Dropping it gives them back.
pub(crate) struct BodyPermit {
    budget: BodyBudget,
    number: u64,
}

impl BodyBudget {
    /// Returns a budget of `places` bodies at once, which is not 0, and of `memory` bytes in all.
    pub(crate) fn new(places: usize, memory: usize) -> Self {
        Self(Arc::new(Mutex::new(BudgetState { places, memory, next_number: 0, in_flight: BTreeMap::new() })))
    }

    /// Takes a place for a body that begins. Returns its permit, and the number of older bodies that gave way (0 or 1).
    pub(crate) fn acquire(&self, on_evict: OnEvict) -> (BodyPermit, usize) {
        let mut state = self.0.lock();
        let evicted = if state.places == 0 { state.evict_oldest_with_place() } else { None };
        state.places = state.places.saturating_sub(1);
        let number = state.insert(InFlightBody { bytes: 0, has_place: true, on_evict: Some(on_evict) });
        drop(state);
        (BodyPermit { budget: self.clone(), number }, notify(evicted))
    }
}

impl BodyPermit {
    /// Raises the memory of this body to `bytes` in all; it never falls. Returns the number of older bodies and responses that gave
    /// way. Returns `None`, and changes nothing, if they would not free enough, or if this body itself has given way.
    pub(crate) fn hold(&self, bytes: usize) -> Option<usize> {
        self.hold_from(bytes, |_| true)
    }

    fn hold_from(&self, bytes: usize, may_evict: impl Fn(&InFlightBody) -> bool) -> Option<usize> {
        let mut state = self.budget.0.lock();
        let more = bytes.saturating_sub(state.in_flight.get(&self.number)?.bytes);
        let evicted = state.take(self.number, more, may_evict)?;
        state.in_flight.get_mut(&self.number)?.bytes += more;
        drop(state);
        Some(notify(evicted))
    }

    /// Holds `bytes` in all as [`Self::hold`] does, for a body that is worked on: only bodies that are still on their way give way, because a
    /// response that gives way ends the connection of a client that waits for it.
    pub(crate) fn hold_in_work(&self, bytes: usize) -> Option<usize> {
        self.hold_from(bytes, |older| older.has_place)
    }

    /// Gives the place back when the whole body is here; from now on it does not give way. Returns false if it already has.
    pub(crate) fn complete(&self) -> bool {
        let mut state = self.budget.0.lock();
        let Some(own) = state.in_flight.get_mut(&self.number) else { return false };
        own.has_place = false;
        let on_evict = own.on_evict.take();
        state.places += 1;
        drop(state);
        // It may run code of its own when it is dropped, so not under the lock.
        drop(on_evict);
        true
    }

    /// Holds the `bytes` of a response instead of the body's; the response counts as new. Returns the number of older bodies and
    /// responses that gave way, or `None` if they would not free enough: then nothing is held.
    pub(crate) fn respond(&mut self, bytes: usize, on_evict: OnEvict) -> Option<usize> {
        let mut state = self.budget.0.lock();
        state.remove(self.number);
        let next = state.next_number;
        let evicted = state.take(next, bytes, |_| true)?;
        self.number = state.insert(InFlightBody { bytes, has_place: false, on_evict: Some(on_evict) });
        drop(state);
        Some(notify(evicted))
    }
}

impl Drop for BodyPermit {
    fn drop(&mut self) {
        let on_evict = self.budget.0.lock().remove(self.number);
        // Nothing has given way; as in `complete`, it is not dropped under the lock.
        drop(on_evict);
    }
}

impl BudgetState {
    fn insert(&mut self, one: InFlightBody) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.in_flight.insert(number, one);
        number
    }

    /// Gives back the place and the memory of the entry `number`. Returns its `OnEvict`, if it has one, for the caller to call or
    /// drop without the lock; `None` also if there is no such entry.
    fn remove(&mut self, number: u64) -> Option<OnEvict> {
        let ended = self.in_flight.remove(&number)?;
        self.memory += ended.bytes;
        self.places += usize::from(ended.has_place);
        ended.on_evict
    }

    fn evict_oldest_with_place(&mut self) -> Option<OnEvict> {
        let (oldest, _) = self.in_flight.iter().find(|(_, one)| one.has_place)?;
        let oldest = *oldest;
        self.remove(oldest)
    }

    /// Takes `bytes` for `asking`: those that are older, and for which `may_evict` is true, give way, the oldest first, and none if all of
    /// them are not enough.
    fn take(
        &mut self,
        asking: u64,
        bytes: usize,
        may_evict: impl Fn(&InFlightBody) -> bool,
    ) -> Option<Vec<OnEvict>> {
        let mut free = self.memory;
        let mut evicted = Vec::new();
        for (number, older) in self.in_flight.range(..asking) {
            if free >= bytes {
                break;
            }
            if older.on_evict.is_some() && older.bytes > 0 && may_evict(older) {
                free += older.bytes;
                evicted.push(*number);
            }
        }
        if free < bytes {
            return None;
        }
        let evicted = evicted.into_iter().filter_map(|number| self.remove(number)).collect();
        self.memory -= bytes;
        Some(evicted)
    }
}

fn notify(evicted: impl IntoIterator<Item = OnEvict>) -> usize {
    evicted.into_iter().map(|on_evict| on_evict()).count()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Returns an `OnEvict`, and a flag that it sets.
    fn told() -> (OnEvict, Arc<AtomicBool>) {
        let told = Arc::new(AtomicBool::new(false));
        let telling = told.clone();
        (Box::new(move || telling.store(true, Ordering::Relaxed)), told)
    }

    fn began(budget: &BodyBudget) -> (BodyPermit, Arc<AtomicBool>, usize) {
        let (on_evict, told) = told();
        let (permit, evicted) = budget.acquire(on_evict);
        (permit, told, evicted)
    }

    fn all(told: &[&Arc<AtomicBool>]) -> Vec<bool> {
        told.iter().map(|told| told.load(Ordering::Relaxed)).collect()
    }

    #[test]
    fn the_oldest_body_gives_its_place_to_a_newcomer() {
        let budget = BodyBudget::new(2, 0);
        let (first, first_told, _) = began(&budget);
        let (second, second_told, evicted) = began(&budget);
        assert_eq!((evicted, all(&[&first_told])), (0, vec![false]));
        let (third, third_told, evicted) = began(&budget);
        assert_eq!((evicted, all(&[&first_told, &second_told, &third_told])), (1, vec![true, false, false]));
        assert!(!first.complete() && second.complete());
        // A complete body needs no place.
        let (fourth, fourth_told, evicted) = began(&budget);
        assert_eq!((evicted, all(&[&second_told, &third_told, &fourth_told])), (0, vec![false; 3]));
        drop((first, second, third, fourth));
        let state = budget.0.lock();
        assert_eq!((state.places, state.in_flight.len()), (2, 0), "everything is given back");
    }

    #[test]
    fn memory_is_taken_from_older_ones_only_and_only_if_it_is_enough() {
        let budget = BodyBudget::new(9, 1_000);
        let (oldest, oldest_told, _) = began(&budget);
        let (older, older_told, _) = began(&budget);
        let (asking, asking_told, _) = began(&budget);
        let (newer, newer_told, _) = began(&budget);
        assert_eq!((oldest.hold(100), older.hold(300), newer.hold(600)), (Some(0), Some(0), Some(0)));
        assert_eq!(asking.hold(401), None, "older ones hold no more than 400");
        assert_eq!(all(&[&oldest_told, &older_told, &newer_told]), [false; 3], "so none gives way in vain");
        assert_eq!(asking.hold(90), Some(1));
        assert_eq!(all(&[&oldest_told, &older_told, &newer_told]), [true, false, false]);
        assert_eq!((oldest.hold(1), oldest.complete()), (None, false));
        assert_eq!(
            (asking.hold(90), asking.hold(100)),
            (Some(0), Some(0)),
            "what it holds is not taken twice"
        );
        // A complete body is worked on and keeps its memory.
        assert!(older.complete());
        assert_eq!((asking.hold(101), newer.hold(700)), (None, Some(1)));
        assert_eq!(all(&[&older_told, &asking_told, &newer_told]), [false, true, false]);
        drop((oldest, older, asking, newer));
        let state = budget.0.lock();
        assert_eq!(
            (state.places, state.memory, state.in_flight.len()),
            (9, 1_000, 0),
            "everything is given back"
        );
    }

    #[test]
    fn a_response_that_is_not_taken_gives_way_by_its_connection() {
        let budget = BodyBudget::new(9, 1_000);
        let (mut slow, body_told, _) = began(&budget);
        let (good, _, _) = began(&budget);
        assert!(slow.hold(1_000).is_some() && slow.complete());
        assert_eq!(good.hold(600), None, "the other is being answered");
        let (on_evict, slow_told) = told();
        assert_eq!(slow.respond(900, on_evict), Some(0));
        assert_eq!(good.hold(600), None, "the response is newer");
        let (newest, _, _) = began(&budget);
        assert_eq!(newest.hold(600), Some(1));
        assert_eq!(all(&[&body_told, &slow_told]), [false, true]);
        drop((slow, good, newest));
        let state = budget.0.lock();
        assert_eq!(
            (state.places, state.memory, state.in_flight.len()),
            (9, 1_000, 0),
            "everything is given back"
        );
    }
}
