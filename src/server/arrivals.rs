//! Places and memory for bodies that are on their way, and memory for large answers; where they run out, the slowest and the
//! largest give way.
//!
//! A request is microseconds of work once its body is here, so whoever fills the server fills it with bodies that do not come, or
//! with answers that are not taken. To refuse newcomers would refuse good ones for as long as bad ones please. A good body is
//! here in milliseconds, and small: of hundreds it is never the one that has been due for longest, nor the largest.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use slab::Slab;
use tokio::time::Instant;

/// How long a body or an answer may take before its memory goes to another who needs it: many round trips.
const GRACE: Duration = Duration::from_millis(100);
/// And how fast it must come besides: 100 Mbit/s, with which the largest body needs five seconds.
const NANOSECONDS_A_BYTE: u64 = 80;

/// Bodies of one kind that are on their way, and the answers to them.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// For how many more bodies there is a place.
    places: usize,
    /// Bytes that nobody holds.
    memory: usize,
    under_way: Slab<UnderWay>,
    /// Tells one from another that had its key before.
    number: u64,
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    begun: Instant,
    due: Instant,
    held: usize,
    notice: Notice,
}

/// How to tell that it has given way.
enum Notice {
    /// A body: its reader answers with 503.
    Body(Option<Waker>),
    /// The body is here and worked on, which cannot be stopped.
    Answered,
    /// An answer: its connection ends.
    Answer(Box<dyn FnOnce() + Send>),
}

/// A body on its way, or an answer; what it holds is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Charge(Handle);

/// Names a charge without being one.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    all: Arrivals,
    key: usize,
    number: u64,
}

impl Arrivals {
    /// For `places` bodies at once, and `memory` bytes in all.
    pub(crate) fn new(places: usize, memory: usize) -> Self {
        Self(Arc::new(Mutex::new(State { places, memory, under_way: Slab::new(), number: 0 })))
    }

    /// A place for a body, and how many others gave way for it.
    pub(crate) fn begin(&self) -> (Charge, usize) {
        let mut state = self.0.lock();
        let displaced = if state.places == 0 { state.displace_slowest_body() } else { None };
        state.places = state.places.saturating_sub(1);
        state.number += 1;
        let (number, begun) = (state.number, Instant::now());
        let notice = Notice::Body(None);
        let key = state.under_way.insert(UnderWay { number, begun, due: begun + GRACE, held: 0, notice });
        drop(state);
        let displaced = displaced.into_iter().map(Notice::give).count();
        (Charge(Handle { all: self.clone(), key, number }), displaced)
    }
}

impl Charge {
    /// Whether to wait for more of a body of which so much has come; when that changes, `context` is woken.
    pub(crate) fn may_wait(&self, received: usize, context: &Context<'_>) -> bool {
        let mut state = self.0.all.0.lock();
        let Some(own) = state.get(&self.0) else { return false };
        own.due = own.begun + GRACE + time_for(received);
        match &mut own.notice {
            Notice::Body(Some(known)) => known.clone_from(context.waker()),
            notice => *notice = Notice::Body(Some(context.waker().clone())),
        }
        true
    }

    /// Holds `bytes` in all, and how many others gave way for that; `None` if they are not to be had, or if this one gave way.
    pub(crate) fn extend_to(&self, bytes: usize) -> Option<usize> {
        let mut state = self.0.all.0.lock();
        let more = bytes.saturating_sub(state.get(&self.0)?.held);
        let displaced = state.make_room(self.0.key, more, bytes)?;
        state.memory -= more;
        state.get(&self.0)?.held += more;
        drop(state);
        Some(displaced.into_iter().map(Notice::give).count())
    }

    /// Gives back what is held beyond `bytes`.
    pub(crate) fn shrink_to(&self, bytes: usize) {
        let mut state = self.0.all.0.lock();
        let Some(own) = state.get(&self.0) else { return };
        let less = own.held.saturating_sub(bytes);
        own.held -= less;
        state.memory += less;
    }

    /// The body is here, so that its place is free, and it does not give way any more; false if it has already.
    pub(crate) fn arrived(&self) -> bool {
        let mut state = self.0.all.0.lock();
        let Some(own) = state.get(&self.0) else { return false };
        let notice = std::mem::replace(&mut own.notice, Notice::Answered);
        state.places += 1;
        drop(state);
        drop(notice);
        true
    }

    /// Holds an answer of so many bytes, no longer the body; as [`Self::extend_to`]. From now on it is late if it is not taken.
    pub(crate) fn answers(&self, bytes: usize) -> Option<usize> {
        let displaced = self.extend_to(bytes)?;
        self.shrink_to(bytes);
        if let Some(own) = self.0.all.0.lock().get(&self.0) {
            own.due = Instant::now() + GRACE + time_for(bytes);
        }
        Some(displaced)
    }

    /// By which somebody else can be told when this gives way.
    pub(crate) fn handle(&self) -> Handle {
        self.0.clone()
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let mut state = self.0.all.0.lock();
        let ended = state.get(&self.0).is_some().then(|| state.end(self.0.key));
        drop(state);
        drop(ended);
    }
}

impl Handle {
    /// Lets an answer give way by `cut`, which ends its connection.
    pub(crate) fn cut_by(&self, cut: impl FnOnce() + Send + 'static) {
        if let Some(answer) = self.all.0.lock().get(self) {
            answer.notice = Notice::Answer(Box::new(cut));
        }
    }
}

impl Notice {
    fn give(self) {
        match self {
            Self::Body(waker) => waker.into_iter().for_each(Waker::wake),
            Self::Answered => {}
            Self::Answer(cut) => cut(),
        }
    }
}

impl fmt::Debug for Notice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Body(_) => "Body",
            Self::Answered => "Answered",
            Self::Answer(_) => "Answer",
        })
    }
}

impl State {
    /// What a handle names, unless it has ended or given way.
    fn get(&mut self, handle: &Handle) -> Option<&mut UnderWay> {
        self.under_way.get_mut(handle.key).filter(|found| found.number == handle.number)
    }

    /// Ends one; what to tell it must wait until the lock is let go of.
    fn end(&mut self, key: usize) -> Notice {
        let ended = self.under_way.remove(key);
        self.memory += ended.held;
        if matches!(ended.notice, Notice::Body(_)) {
            self.places += 1;
        }
        ended.notice
    }

    fn displace_slowest_body(&mut self) -> Option<Notice> {
        let bodies = self.under_way.iter().filter(|(_, one)| matches!(one.notice, Notice::Body(_)));
        let (slowest, _) = bodies.min_by_key(|(_, one)| one.due)?;
        Some(self.end(slowest))
    }

    /// Makes room for `asking` to hold `bytes` more than it does, `total` in all, if that can be: who is late gives way, then who
    /// holds more than it, most first. So bodies of usual size get through whoever else holds large ones.
    fn make_room(&mut self, asking: usize, bytes: usize, total: usize) -> Option<Vec<Notice>> {
        let mut displaced = Vec::new();
        if self.memory >= bytes {
            return Some(displaced);
        }
        let now = Instant::now();
        let others = self.under_way.iter().filter(|(key, one)| *key != asking && one.gives_way());
        let rank = |one: &UnderWay| if one.due < now { Some(one.due) } else { None };
        let mut others: Vec<_> = others
            .map(|(key, one)| (rank(one), one.held, key))
            .filter(|(late, held, _)| late.is_some() && *held > 0 || *held > total)
            .collect();
        if self.memory + others.iter().map(|(_, held, _)| held).sum::<usize>() < bytes {
            return None;
        }
        others.sort_unstable_by_key(|(late, held, _)| (late.is_none(), *late, Reverse(*held)));
        for (_, _, key) in others {
            if self.memory < bytes {
                displaced.push(self.end(key));
            }
        }
        Some(displaced)
    }
}

impl UnderWay {
    fn gives_way(&self) -> bool {
        !matches!(self.notice, Notice::Answered)
    }
}

fn time_for(bytes: usize) -> Duration {
    Duration::from_nanos(bytes as u64 * NANOSECONDS_A_BYTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(charge: &Charge, received: usize) -> bool {
        charge.may_wait(received, &Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_slowest_body_gives_its_place_to_a_newcomer() {
        let arrivals = Arrivals::new(2, 0);
        let (first, _) = arrivals.begin();
        std::thread::sleep(Duration::from_millis(1));
        let (second, displaced) = arrivals.begin();
        assert_eq!(displaced, 0);
        std::thread::sleep(Duration::from_millis(1));
        let (third, displaced) = arrivals.begin();
        assert_eq!((displaced, wait(&first, 0), wait(&second, 0), wait(&third, 0)), (1, false, true, true));
        assert!(!first.arrived() && second.arrived());
        // Whose body is here needs no place.
        let (fourth, displaced) = arrivals.begin();
        assert_eq!((displaced, wait(&third, 0), wait(&fourth, 0)), (0, true, true));
        drop((first, second, third, fourth));
        assert_eq!(arrivals.0.lock().places, 2, "everything is given back");
    }

    #[test]
    fn memory_is_taken_from_who_is_late_and_from_who_holds_more() {
        let arrivals = Arrivals::new(9, 1_000);
        let ((held, _), (fast, _), (good, _)) = (arrivals.begin(), arrivals.begin(), arrivals.begin());
        assert_eq!((held.extend_to(500), fast.extend_to(500)), (Some(0), Some(0)));
        assert_eq!(good.extend_to(501), None, "nobody is late yet, or holds more");
        assert_eq!(good.extend_to(500), None, "nor does anybody hold more than that");
        std::thread::sleep(GRACE * 2);
        assert!(wait(&held, 500) && wait(&fast, 64 << 20));
        assert_eq!(good.extend_to(501), None, "that is more than the late one has, which therefore keeps it");
        assert!(wait(&held, 500));
        assert_eq!(good.extend_to(500), Some(1));
        assert!(!wait(&held, 500) && wait(&fast, 64 << 20) && wait(&good, 64 << 20));
        assert_eq!(held.extend_to(1), None);
        let (small, _) = arrivals.begin();
        assert_eq!((small.extend_to(499), small.extend_to(499)), (Some(1), Some(0)));
        assert!(wait(&small, 499));
        drop((held, fast, good, small));
        assert_eq!(arrivals.0.lock().memory, 1_000, "everything is given back");
    }

    #[test]
    fn an_answer_that_is_not_taken_gives_way_by_its_connection() {
        let arrivals = Arrivals::new(9, 1_000);
        let ((slow, _), (good, _)) = (arrivals.begin(), arrivals.begin());
        assert!(slow.extend_to(1_000).is_some() && slow.arrived());
        std::thread::sleep(GRACE * 2);
        assert_eq!(good.extend_to(600), None, "it is being answered");
        assert_eq!(slow.answers(900), Some(0));
        let (told, is_told) = std::sync::mpsc::channel();
        slow.handle().cut_by(move || told.send(()).unwrap());
        assert_eq!(good.extend_to(950), None, "its time begins anew");
        std::thread::sleep(GRACE * 2);
        assert_eq!(good.extend_to(600), Some(1));
        is_told.try_recv().unwrap();
        drop((slow, good));
        assert_eq!(arrivals.0.lock().memory, 1_000, "everything is given back");
    }
}
