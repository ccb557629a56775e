//! The freshness of the cache: may a refusal be based on it, and does it lack events?
//!
//! ```text
//!                      every watch is listed or absent
//!          Unsynced ─────────────────────────────────────▶ Fresh ◀────────────▶ Degraded
//!                                                         │  │ ▲      an optional watch fails
//!          a required watch fails                         │  │ │      for STALE_AFTER
//!        ┌────────────────────────────────────────────────┘  │ │
//!        │                         a required watch relists  │ │ all required watches are
//!        ▼         a required watch recovers                 ▼ │ healthy for CATCH_UP_TIME
//!      Stale ◀─────────────────────────────────────────▶ CatchingUp
//!               none recovers any more, one still fails
//! ```
//! The state follows from what the watches report and the time alone, not from the state before: a late evaluation skips
//! states and ends in the right one. `Unsynced` never comes back: a watch that was listed stays so.
//!
//! | state | may a refusal be based on the cache? | does it lack events, so that ordinary pods wait? |
//! |---|---|---|
//! | Unsynced | no | no |
//! | Fresh | yes | no |
//! | Degraded | no | no |
//! | CatchingUp | yes | yes |
//! | Stale | for STALE_AFTER from the first failure | yes |
//!
//! After an outage of the apiserver the scheduler may reconnect first: it sees that daemon pods are gone and that new nodes have
//! come, and a backlog takes their room within milliseconds. So ordinary pods wait while events are missing, for the bounded
//! time of `reservation/stale_refusals.rs`; in `CatchingUp` too after a long outage, when most is lost.

use std::time::{Duration, Instant};

/// The time a watch may fail before no refusal is based on the cache.
pub const STALE_AFTER: Duration = Duration::from_secs(30);
/// The time all required watches must have been healthy before the cache is fresh: missed events come after the connection.
const CATCH_UP_TIME: Duration = Duration::from_secs(1);
/// The time after one watch has recovered in which the others may still fail: each is tried again within two seconds.
const RETURN_WINDOW: Duration = Duration::from_secs(3);

/// The freshness of the cache at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheFreshness {
    /// Some kind has neither been listed nor found absent.
    #[default]
    Unsynced,
    /// No event of a required watch is missing.
    Fresh,
    /// No event of a required watch is missing, but an optional watch has failed for [`STALE_AFTER`].
    Degraded,
    /// The apiserver answers a required watch again; missed events are about to come.
    CatchingUp,
    /// A required watch fails, and none recovers.
    Stale {
        /// The earliest failure of a watch that has not worked since, optional watches included.
        since: Instant,
    },
}

/// The state of one watch, as its events and its connection tell it.
#[derive(Debug, Clone, Copy)]
pub struct WatchHealth {
    /// True if the warden decides nothing without the kind. Without an optional kind, defaults apply or fewer pods are desired.
    pub is_required: bool,
    is_listed: bool,
    is_absent: bool,
    failing_since: Option<Instant>,
    /// True while the missed events are too old to be sent one by one, so that every object has to come anew.
    relists: bool,
    /// The time since which the watch is healthy again; `None` if it has never recovered.
    healthy_since: Option<Instant>,
}

impl CacheFreshness {
    /// Returns the freshness that follows from the health of all watches.
    pub fn of(watches: &[WatchHealth], now: Instant) -> Self {
        if !watches.iter().all(WatchHealth::is_settled) {
            return Self::Unsynced;
        }
        let required = || watches.iter().filter(|watch| watch.is_required);
        let is_recovering = required().any(|watch| watch.is_recovering(RETURN_WINDOW, now));
        if required().all(|watch| watch.is_healthy_for(CATCH_UP_TIME, now)) {
            let is_degraded = watches.iter().any(|watch| watch.is_stale(now)) && !is_recovering;
            return if is_degraded { Self::Degraded } else { Self::Fresh };
        }
        match watches.iter().filter_map(|watch| watch.failing_since).min() {
            Some(since) if !is_recovering => Self::Stale { since },
            _ => Self::CatchingUp,
        }
    }

    /// Returns true if a pod may be refused because of the cache.
    pub fn may_refuse(self, now: Instant) -> bool {
        match self {
            Self::Unsynced | Self::Degraded => false,
            Self::Fresh | Self::CatchingUp => true,
            Self::Stale { since } => !is_over(since, STALE_AFTER, now),
        }
    }

    /// Returns true while events of a required watch may be missing: in `CatchingUp` and `Stale`.
    pub fn lacks_events(self) -> bool {
        matches!(self, Self::CatchingUp | Self::Stale { .. })
    }
}

impl WatchHealth {
    /// Returns the health of a watch that has reported nothing yet.
    pub fn new(is_required: bool) -> Self {
        Self {
            is_required,
            is_listed: false,
            is_absent: false,
            failing_since: None,
            relists: false,
            healthy_since: None,
        }
    }

    /// Records that every object of the kind has come.
    pub fn mark_listed(&mut self, now: Instant) {
        self.is_listed = true;
        self.is_absent = false;
        self.recover(now, |watch| watch.relists = false);
    }

    /// Records that a list begins anew: until it ends, the cache may have objects of the kind that are changed or gone.
    pub fn mark_relisting(&mut self) {
        self.relists = true;
    }

    /// Records that the apiserver does not have the kind, or does not let the warden read it: the sync does not wait for it. It may
    /// still come.
    pub fn mark_absent(&mut self, now: Instant) {
        self.is_absent = true;
        self.record_activity(now);
    }

    /// Records that the apiserver has answered the watch with success, or has sent data on it: the watch does not fail any more.
    /// Does not end a list that is under way; for an error call [`Self::record_failure`].
    pub fn record_activity(&mut self, now: Instant) {
        self.recover(now, |watch| watch.failing_since = None);
    }

    /// Records that the apiserver could not be asked, or answered with an error. Only the first failure after an answer counts.
    pub fn record_failure(&mut self, now: Instant) {
        self.failing_since.get_or_insert(now);
    }

    /// Returns true once every object of the kind has come, and from then on.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Returns true if the watch has failed for at least [`STALE_AFTER`], without an answer in between.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.failing_since.is_some_and(|since| is_over(since, STALE_AFTER, now))
    }

    fn is_settled(&self) -> bool {
        self.is_listed || self.is_absent
    }

    fn is_healthy(&self) -> bool {
        self.failing_since.is_none() && !self.relists
    }

    /// Returns true if the watch neither fails nor relists, and has not done so for at least `time`.
    fn is_healthy_for(&self, time: Duration, now: Instant) -> bool {
        self.is_healthy() && self.healthy_since.is_none_or(|since| is_over(since, time, now))
    }

    /// Returns true if the apiserver answers the watch, but the watch still relists or recovered less than `time` ago.
    fn is_recovering(&self, time: Duration, now: Instant) -> bool {
        self.failing_since.is_none() && !self.is_healthy_for(time, now)
    }

    /// Ends one kind of trouble by `end_trouble`. If none is left, records the time.
    fn recover(&mut self, now: Instant, end_trouble: impl FnOnce(&mut Self)) {
        let was_healthy = self.is_healthy();
        end_trouble(self);
        if !was_healthy && self.is_healthy() {
            self.healthy_since = Some(now);
        }
    }
}

fn is_over(since: Instant, time: Duration, now: Instant) -> bool {
    now.saturating_duration_since(since) >= time
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_does_not_end_a_relist() {
        let (now, at_once) = (Instant::now(), Duration::ZERO);
        let mut watch = WatchHealth::new(true);
        assert!(watch.is_healthy_for(STALE_AFTER, now), "nothing was ever wrong");
        watch.record_failure(now);
        assert!(!watch.is_healthy_for(at_once, now));
        assert!(!watch.is_recovering(STALE_AFTER, now));
        watch.mark_relisting();
        watch.record_activity(now);
        assert!(watch.is_recovering(STALE_AFTER, now));
        assert!(!watch.is_healthy_for(at_once, now), "the server answers that it has forgotten");
        watch.mark_listed(now);
        assert!(watch.is_healthy_for(at_once, now) && watch.is_recovering(STALE_AFTER, now));
        assert!(!watch.is_healthy_for(STALE_AFTER, now));
        assert!(watch.is_healthy_for(STALE_AFTER, now + STALE_AFTER));
    }

    /// The events of a watch, as short as the table below needs them.
    #[derive(Clone, Copy)]
    enum Input {
        Lists,
        Fails,
        Answers,
        Relists,
        IsAbsent,
        Nothing,
    }

    /// The expected state; the number is the second that a stale cache is stale since.
    #[derive(Debug, PartialEq)]
    enum State {
        Unsynced,
        Fresh,
        Degraded,
        CatchingUp,
        Stale(u64),
    }

    const NODES: usize = 0;
    const PODS: usize = 1;
    const LIMIT_RANGES: usize = 2;

    /// One row: the time in milliseconds, the watch and its input; the state, whether it may refuse, whether it lacks events.
    type Row = (u64, usize, Input, State, bool, bool);

    /// Gives the watches the input of each row and compares the freshness; `is_synced`: every kind was listed before.
    fn check(what: &str, is_synced: bool, rows: &[Row]) {
        let begin = Instant::now();
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let mut watches = [true, true, false].map(WatchHealth::new);
        if is_synced {
            watches.iter_mut().for_each(|watch| watch.mark_listed(begin));
        }
        for (millis, watch, input, state, may_refuse, lacks_events) in rows {
            let (now, watch) = (at(*millis), &mut watches[*watch]);
            match input {
                Input::Lists => watch.mark_listed(now),
                Input::Fails => watch.record_failure(now),
                Input::Answers => watch.record_activity(now),
                Input::Relists => watch.mark_relisting(),
                Input::IsAbsent => watch.mark_absent(now),
                Input::Nothing => {}
            }
            let freshness = CacheFreshness::of(&watches, now);
            let found = match freshness {
                CacheFreshness::Unsynced => State::Unsynced,
                CacheFreshness::Fresh => State::Fresh,
                CacheFreshness::Degraded => State::Degraded,
                CacheFreshness::CatchingUp => State::CatchingUp,
                CacheFreshness::Stale { since } => State::Stale((since - begin).as_secs()),
            };
            assert_eq!(&found, state, "{what}, {millis} ms");
            assert_eq!(freshness.may_refuse(now), *may_refuse, "{what}, {millis} ms: may it refuse?");
            assert_eq!(freshness.lacks_events(), *lacks_events, "{what}, {millis} ms: does it lack events?");
        }
    }

    #[test]
    fn each_transition() {
        use Input::{Answers, Fails, IsAbsent, Lists, Nothing, Relists};
        use State::{CatchingUp, Degraded, Fresh, Stale, Unsynced};
        check(
            "Unsynced to Fresh",
            false,
            &[
                (0, NODES, Nothing, Unsynced, false, false),
                (1, NODES, Lists, Unsynced, false, false),
                (2, PODS, Lists, Unsynced, false, false),
                (3, LIMIT_RANGES, IsAbsent, Fresh, true, false),
                (4, LIMIT_RANGES, Lists, Fresh, true, false),
            ],
        );
        check(
            "Unsynced to CatchingUp, after a failed attempt",
            false,
            &[
                (0, PODS, Fails, Unsynced, false, false),
                (40_000, NODES, Lists, Unsynced, false, false),
                (40_000, LIMIT_RANGES, Lists, Unsynced, false, false),
                (40_000, PODS, Answers, Unsynced, false, false),
                (40_000, PODS, Lists, CatchingUp, true, true),
                (40_999, PODS, Nothing, CatchingUp, true, true),
                (41_000, PODS, Nothing, Fresh, true, false),
            ],
        );
        check(
            "Unsynced to Stale: the last kind is listed while another fails",
            false,
            &[
                (0, PODS, Lists, Unsynced, false, false),
                (1_000, PODS, Fails, Unsynced, false, false),
                (2_000, NODES, Lists, Unsynced, false, false),
                (3_000, LIMIT_RANGES, Lists, Stale(1), true, true),
            ],
        );
        check(
            "Fresh to Stale, CatchingUp and Fresh",
            true,
            &[
                (1_000, PODS, Fails, Stale(1), true, true),
                (2_000, NODES, Fails, Stale(1), true, true),
                (3_000, PODS, Fails, Stale(1), true, true),
                (4_000, PODS, Answers, CatchingUp, true, true),
                (5_000, NODES, Answers, CatchingUp, true, true),
                (5_999, NODES, Nothing, CatchingUp, true, true),
                (6_000, NODES, Nothing, Fresh, true, false),
            ],
        );
        check(
            "Stale for long",
            true,
            &[
                (1_000, PODS, Fails, Stale(1), true, true),
                (30_999, PODS, Nothing, Stale(1), true, true),
                (31_000, PODS, Nothing, Stale(1), false, true),
                (90_000, PODS, Relists, Stale(1), false, true),
                (90_000, PODS, Answers, CatchingUp, true, true),
                (200_000, PODS, Nothing, CatchingUp, true, true),
                (200_000, PODS, Lists, CatchingUp, true, true),
                (201_000, PODS, Nothing, Fresh, true, false),
            ],
        );
        check(
            "Stale, CatchingUp while one watch is back, and Stale again",
            true,
            &[
                (1_000, PODS, Fails, Stale(1), true, true),
                (2_000, NODES, Fails, Stale(1), true, true),
                (40_000, PODS, Nothing, Stale(1), false, true),
                (50_000, PODS, Answers, CatchingUp, true, true),
                (52_999, PODS, Nothing, CatchingUp, true, true),
                (53_000, PODS, Nothing, Stale(2), false, true),
                (60_000, PODS, Fails, Stale(2), false, true),
                (61_000, NODES, Answers, CatchingUp, true, true),
                (64_000, NODES, Nothing, Stale(60), true, true),
            ],
        );
        check(
            "Fresh to CatchingUp: too old to resume",
            true,
            &[
                (1_000, PODS, Relists, CatchingUp, true, true),
                (2_000, PODS, Answers, CatchingUp, true, true),
                (3_000, PODS, Lists, CatchingUp, true, true),
                (4_000, PODS, Nothing, Fresh, true, false),
            ],
        );
        check(
            "CatchingUp to Stale: the list fails",
            true,
            &[
                (1_000, PODS, Relists, CatchingUp, true, true),
                (2_000, PODS, Fails, Stale(2), true, true),
                (3_000, PODS, Answers, CatchingUp, true, true),
                (4_000, PODS, Lists, CatchingUp, true, true),
                (5_000, PODS, Nothing, Fresh, true, false),
            ],
        );
        check(
            "Fresh to Degraded and back",
            true,
            &[
                (1_000, LIMIT_RANGES, Fails, Fresh, true, false),
                (2_000, LIMIT_RANGES, Relists, Fresh, true, false),
                (30_999, LIMIT_RANGES, Nothing, Fresh, true, false),
                (31_000, LIMIT_RANGES, Nothing, Degraded, false, false),
                (40_000, PODS, Fails, Stale(1), false, true),
                (41_000, PODS, Answers, CatchingUp, true, true),
                (42_000, PODS, Nothing, Fresh, true, false),
                (43_999, PODS, Nothing, Fresh, true, false),
                (44_000, PODS, Nothing, Degraded, false, false),
                (45_000, LIMIT_RANGES, Answers, Fresh, true, false),
            ],
        );
        check(
            "a late look skips states",
            true,
            &[
                (1_000, PODS, Fails, Stale(1), true, true),
                (2_000, NODES, Fails, Stale(1), true, true),
                (3_000, PODS, Answers, CatchingUp, true, true),
                (3_000, NODES, Answers, CatchingUp, true, true),
                (90_000, NODES, Nothing, Fresh, true, false),
            ],
        );
    }
}
