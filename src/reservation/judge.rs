//! Leader election for `/bind`: one replica at a time judges bindings, the holder of a Lease.
//!
//! ```text
//!            the Lease is written                   all earlier bindings are seen
//!  Standby ───────────────────────▶ TakingOver ───────────────────────────▶ Judging
//!   │   ▲                             │    │                                  │  │
//!   │   └──── another holds it, or ───┴────┼──────────────────────────────────┘  │
//!   │         it is not renewed in time    │                                     │
//!   │                                      │ SIGTERM, or the own Pod is deleted  │
//!   │                                      └─────────────────────────────────────┤
//!   │                                                                            ▼
//!   └────────────────────────────▶ Released ◀─────────────────────────── HandingOver
//!     SIGTERM, or the own            (for good)   what was let through is
//!     Pod is deleted                              bound, the Lease given back
//! ```
//! A judge that cannot judge for one lease duration, as while a watch fails, hands over too, and then stands by.
//!
//! The states follow client-go's tools/leaderelection: another's Lease is valid for its duration from the time at which this
//! process saw it change, by this process' clock alone; the own one for the renew deadline from the start of the last write that
//! succeeded. What is between `Standby` and `Judging` client-go does not have: bindings of the earlier judge may be in flight, and
//! the watch of pods may not have brought them.
//!
//! | state | a binding is |
//! |---|---|
//! | Judging, and renewed within the renew deadline | judged |
//! | any other, while a living replica has a valid Lease | denied, to be tried again by way of that replica; allowed after one lease duration in which the label leads here and not there |
//! | any other, for one lease duration since no replica judges | denied, because another replica is about to judge |
//! | any other, after that | allowed: a Lease never stops a cluster's binding |
//!
//! The last two share one clock. Only a judge stops it, so reasons that take turns do not add up.

pub mod holder;
pub mod messages;

use std::time::{Duration, Instant};

pub use self::messages::{JudgeSight, JudgeState, JudgeTimes, JudgeTurn, LabelFix, LeaseRecord, LeaseStep};

use crate::cache::replicas::Replica;

/// The time that takes the place of the barrier where there is no own Pod to write to: a watch that works brings bindings within
/// milliseconds.
const WITHOUT_BARRIER: Duration = Duration::from_secs(2);
/// The longest wait at the hand-over for bindings that were let through. The scheduler writes them within milliseconds.
const LONGEST_DRAIN: Duration = Duration::from_secs(2);
/// The time for which a replica still answers after its label is gone: the apiserver may not have heard of the new one.
const AFTER_LABEL: Duration = Duration::from_secs(1);

/// The state machine of one replica. It does nothing by itself: the caller reports what it sees, and carries out
/// [`Judge::next_step`].
#[derive(Debug)]
pub struct Judge {
    identity: String,
    /// The name of the own Pod; `None` if the process runs in none.
    own_pod: Option<String>,
    times: JudgeTimes,
    phase: JudgePhase,
    lease: LeaseSight,
    sight: JudgeSight,
    /// The start of the last write of the Lease that succeeded.
    renewed_at: Instant,
    /// The time since which no replica judges; `None` while one does.
    no_judge_since: Option<Instant>,
    /// The last time at which the process is known to have run.
    ran_at: Instant,
    is_ending: bool,
    /// True once the own Pod was among the release's.
    has_seen_own: bool,
    /// The time since which the label leads to this replica, and not to the one that holds the Lease.
    misled_since: Option<Instant>,
    /// The time since which this replica could not judge what it is asked.
    unfit_since: Option<Instant>,
    due: DueSteps,
    takeovers: u64,
}

#[derive(Debug)]
enum JudgePhase {
    Standby,
    TakingOver { quiet_from: Instant, barrier: Barrier },
    Judging,
    HandingOver { since: Instant },
    Released { since: Instant, had_label: bool, label_gone_at: Option<Instant> },
}

/// The proof that all bindings of earlier judges are in the cache.
#[derive(Debug)]
enum Barrier {
    /// The token has not been written to the own Pod.
    Unmarked,
    /// The token has been written; the watch of pods brings it behind all earlier bindings.
    Marked(String),
    /// The own Pod cannot be written.
    Refused(Instant),
}

/// The Lease as last read or written.
#[derive(Debug)]
enum LeaseSight {
    /// It has not been read.
    Unknown,
    /// There is none. The time is the one at which the holder of the last one judges no longer, if it was another replica.
    Missing(Option<Instant>),
    /// The record, and the time at which it was first seen.
    Seen(LeaseRecord, Instant),
}

#[derive(Debug, Default)]
struct DueSteps {
    read: bool,
    write: bool,
    mark: bool,
}

impl Judge {
    /// Returns a replica that stands by. `identity` is unique to the process, and begins with the name of `own_pod` and `_`.
    pub fn new(identity: String, own_pod: Option<String>, times: JudgeTimes, now: Instant) -> Self {
        Self {
            identity,
            own_pod,
            times,
            phase: JudgePhase::Standby,
            lease: LeaseSight::Unknown,
            sight: JudgeSight::default(),
            renewed_at: now,
            no_judge_since: Some(now),
            ran_at: now,
            is_ending: false,
            has_seen_own: false,
            misled_since: None,
            unfit_since: None,
            due: DueSteps::default(),
            takeovers: 0,
        }
    }

    /// Returns the answer to a binding at `now`. Call [`Self::notice`] first.
    pub fn turn(&self, now: Instant) -> JudgeTurn {
        let judged_until = self.judged_until();
        if judged_until.is_some_and(|end| now < end) {
            // The label cannot be moved, as where Pods cannot be written: another attempt comes here again.
            let is_only_one_asked =
                self.misled_since.is_some_and(|since| now >= since + self.times.lease_duration);
            return match (self.is_judging(), is_only_one_asked) {
                (true, _) => JudgeTurn::Judges,
                (false, true) => JudgeTurn::Allows,
                (false, false) => JudgeTurn::Denies,
            };
        }
        let since = self.no_judge_since.or(judged_until).unwrap_or(now);
        if now < since + self.times.lease_duration { JudgeTurn::Denies } else { JudgeTurn::Allows }
    }

    /// Returns the state.
    pub fn state(&self) -> JudgeState {
        match self.phase {
            JudgePhase::Standby => JudgeState::Standby,
            JudgePhase::TakingOver { .. } => JudgeState::TakingOver,
            JudgePhase::Judging => JudgeState::Judging,
            JudgePhase::HandingOver { .. } => JudgeState::HandingOver,
            JudgePhase::Released { .. } => JudgeState::Released,
        }
    }

    /// Returns the identity that this replica writes into the Lease.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns the durations.
    pub fn times(&self) -> JudgeTimes {
        self.times
    }

    /// Records that the process runs. After a gap in which it cannot have run, as while it was frozen, all that it knew is old:
    /// it judges no longer, and waits anew for another judge.
    pub fn notice(&mut self, now: Instant) {
        let has_slept = now.saturating_duration_since(self.ran_at) > self.times.renew_deadline;
        self.ran_at = self.ran_at.max(now);
        self.stop_if_late(now);
        if has_slept {
            self.no_judge_since = Some(now);
        }
        self.update_clock(now);
    }

    /// Takes the view of the cluster. Call it several times a second: it is also what lets time pass.
    pub fn look(&mut self, sight: JudgeSight, now: Instant) {
        self.notice(now);
        self.sight = sight;
        match self.own_replica() {
            Some(own) => {
                self.is_ending |= own.is_terminating;
                self.has_seen_own = true;
            }
            // Deleted without a grace period, or taken out of the release by its labels.
            None => self.is_ending |= self.has_seen_own && self.sight.is_complete,
        }
        let is_misled = self.own_replica().is_some_and(|own| own.is_active) && self.is_holder_unlabelled();
        self.misled_since = is_misled.then(|| self.misled_since.unwrap_or(now));
        self.unfit_since = (!self.sight.may_stand).then(|| self.unfit_since.unwrap_or(now));
        self.advance(now);
    }

    /// Begins to end: this replica hands over and never judges again. For SIGTERM.
    pub fn end(&mut self, now: Instant) {
        self.notice(now);
        self.is_ending = true;
        self.advance(now);
    }

    /// Begins a round of calls. Call it once a retry period, and then [`Self::next_step`] until it returns `None`.
    pub fn begin_round(&mut self) {
        self.due = DueSteps { read: !self.holds(), write: true, mark: true };
    }

    /// Returns the call that is due. Each result must be reported before the next call.
    pub fn next_step(&mut self, now: Instant) -> Option<LeaseStep> {
        if std::mem::take(&mut self.due.read) {
            return Some(LeaseStep::Read);
        }
        match &self.phase {
            JudgePhase::Standby if self.may_acquire(now) && std::mem::take(&mut self.due.write) => {
                Some(LeaseStep::Acquire)
            }
            JudgePhase::TakingOver { .. } | JudgePhase::Judging if std::mem::take(&mut self.due.write) => {
                Some(LeaseStep::Renew)
            }
            JudgePhase::TakingOver { quiet_from, barrier: Barrier::Unmarked }
                if now >= *quiet_from && self.own_pod.is_some() && std::mem::take(&mut self.due.mark) =>
            {
                Some(LeaseStep::Mark(format!("{}/{}", self.identity, self.takeovers)))
            }
            JudgePhase::HandingOver { since } => {
                let is_drained = self.sight.unseen_bindings == 0 || now >= *since + LONGEST_DRAIN;
                (is_drained && std::mem::take(&mut self.due.write)).then_some(LeaseStep::Release)
            }
            // The end came while the Lease was being acquired.
            JudgePhase::Released { .. } if self.holds_record() && std::mem::take(&mut self.due.write) => {
                Some(LeaseStep::Release)
            }
            _ => None,
        }
    }

    /// Takes the Lease as it was read; `None` if there is none.
    pub fn read(&mut self, record: Option<LeaseRecord>, now: Instant) {
        if record.as_ref().is_some_and(|record| record.holder != self.identity) && self.holds() {
            self.stop(now);
        }
        // There is nothing to give back any more.
        if record.is_none() && matches!(self.phase, JudgePhase::HandingOver { .. }) {
            self.stop(now);
        }
        // If it is ours or deleted, the holder writes it again.
        self.due.write |= self.holds();
        self.lease = match (record, std::mem::replace(&mut self.lease, LeaseSight::Unknown)) {
            // Only a change of the record shows that its holder lives.
            (Some(record), LeaseSight::Seen(known, at)) if record == known => LeaseSight::Seen(known, at),
            (Some(record), _) => LeaseSight::Seen(record, now),
            (None, LeaseSight::Seen(known, at)) => {
                let was_another = !known.holder.is_empty() && known.holder != self.identity;
                // The holder stops at its own renew deadline at the latest; replicas of a release have the same flags.
                let longest = known.duration.min(self.times.renew_deadline);
                LeaseSight::Missing(was_another.then(|| at + longest))
            }
            (None, LeaseSight::Missing(end)) => LeaseSight::Missing(end),
            (None, LeaseSight::Unknown) => LeaseSight::Missing(None),
        };
        self.advance(now);
    }

    /// Takes the Lease as it was written. `started` is the time before the call.
    pub fn written(&mut self, record: LeaseRecord, started: Instant, now: Instant) {
        match self.phase {
            JudgePhase::Standby => {
                self.takeovers += 1;
                self.due.mark = true;
                let quiet_from = self.quiet_from(now);
                self.phase = JudgePhase::TakingOver { quiet_from, barrier: Barrier::Unmarked };
                self.renewed_at = started;
            }
            JudgePhase::TakingOver { .. } | JudgePhase::Judging => self.renewed_at = started,
            // A renewal may have been under way when the hand-over began.
            JudgePhase::HandingOver { .. } if record.holder == self.identity => {}
            JudgePhase::HandingOver { .. } => self.stop(now),
            JudgePhase::Released { .. } => {}
        }
        self.lease = LeaseSight::Seen(record, now);
        self.stop_if_late(now);
        self.advance(now);
    }

    /// Records that somebody else has written or deleted the Lease since it was read: it is read again.
    pub fn conflict(&mut self) {
        self.due.read = true;
    }

    /// Takes the answer to [`LeaseStep::Mark`]: the token if it was written, `None` if the own Pod cannot be written. After a
    /// failure that may pass, report nothing: the next round tries again.
    pub fn marked(&mut self, token: Option<String>, now: Instant) {
        if let JudgePhase::TakingOver { barrier, .. } = &mut self.phase {
            *barrier = token.map_or(Barrier::Refused(now), Barrier::Marked);
        }
        self.advance(now);
    }

    /// Returns the labels that the judge has to put right: its own, and those of other replicas, also one that was set by hand.
    pub fn label_fixes(&self) -> Vec<LabelFix> {
        let Some(own) = self.own_replica().filter(|_| self.is_judging()) else { return Vec::new() };
        let fixes =
            self.sight.replicas.iter().filter(|replica| replica.is_active != (replica.uid == own.uid));
        let fix = |replica: &Replica| LabelFix {
            pod: replica.name.clone(),
            uid: replica.uid.clone(),
            is_active: replica.uid == own.uid,
        };
        fixes.map(fix).collect()
    }

    /// Returns the pause before the next look: short while others wait for one.
    pub fn pause(&self) -> Duration {
        let short = Duration::from_millis(20);
        let usual = Duration::from_millis(100);
        let is_transition = matches!(self.state(), JudgeState::TakingOver | JudgeState::HandingOver);
        if is_transition { short } else { usual }
    }

    /// Returns the time between two rounds: shorter than the retry period while the holder is about to give the Lease back.
    pub fn round_period(&self) -> Duration {
        let is_awaited = matches!(self.phase, JudgePhase::Standby) && self.is_holder_ending();
        if is_awaited { self.times.retry_period.min(self.pause()) } else { self.times.retry_period }
    }

    /// Returns true once the process may stop to serve: the apiserver asks another replica, or there is none, or one lease duration
    /// has passed since the hand-over.
    pub fn is_handed_over(&self, now: Instant) -> bool {
        let JudgePhase::Released { since, had_label, label_gone_at } = &self.phase else { return false };
        !had_label
            || !self.others().any(|other| !other.is_terminating)
            || now >= *since + self.times.lease_duration
            || label_gone_at.is_some_and(|at| now >= at + AFTER_LABEL)
    }

    /// Changes the state where the view, or the time, allows it.
    fn advance(&mut self, now: Instant) {
        if let JudgePhase::TakingOver { quiet_from, barrier } = &self.phase
            && self.has_seen_all(*quiet_from, barrier, now)
        {
            self.phase = JudgePhase::Judging;
        }
        match self.phase {
            JudgePhase::Standby if self.is_ending => self.stop(now),
            JudgePhase::TakingOver { .. } | JudgePhase::Judging
                if self.is_ending || self.must_step_down(now) =>
            {
                self.phase = JudgePhase::HandingOver { since: now };
                self.due.write = true;
                // The count was taken before: another thread may have let a binding through since. The next look counts all.
                self.sight.unseen_bindings = usize::MAX;
            }
            _ => {}
        }
        let is_active = self.own_replica().is_some_and(|own| own.is_active);
        if let JudgePhase::Released { label_gone_at, .. } = &mut self.phase
            && !is_active
        {
            label_gone_at.get_or_insert(now);
        }
        self.update_clock(now);
    }

    /// Gives up the Lease, or the hope for it: to `Standby`, or to `Released` at the end.
    fn stop(&mut self, now: Instant) {
        let held = matches!(self.phase, JudgePhase::HandingOver { .. }) && self.own_pod.is_some();
        let had_label = held || self.own_replica().is_some_and(|own| own.is_active);
        self.phase = match self.phase {
            JudgePhase::Released { .. } => return,
            _ if self.is_ending => JudgePhase::Released { since: now, had_label, label_gone_at: None },
            _ => JudgePhase::Standby,
        };
        self.update_clock(now);
    }

    /// Stops if the Lease was not renewed in time. The hand-over needs no renewal, and ends with the Lease.
    fn stop_if_late(&mut self, now: Instant) {
        let limit = match self.phase {
            JudgePhase::TakingOver { .. } | JudgePhase::Judging => self.times.renew_deadline,
            JudgePhase::HandingOver { .. } => self.times.lease_duration,
            JudgePhase::Standby | JudgePhase::Released { .. } => return,
        };
        if now >= self.renewed_at + limit {
            // Nobody has judged since then.
            self.update_clock(now);
            self.stop(now);
        }
    }

    fn update_clock(&mut self, now: Instant) {
        match self.judged_until() {
            Some(end) if now < end => self.no_judge_since = None,
            Some(end) => _ = self.no_judge_since.get_or_insert(end),
            None => _ = self.no_judge_since.get_or_insert(now),
        }
    }

    /// Returns true if this replica has not been able to judge for one lease duration, as while a watch fails, and another one may.
    fn must_step_down(&self, now: Instant) -> bool {
        self.unfit_since.is_some_and(|since| now >= since + self.times.lease_duration)
            && self.others().any(|other| !other.is_terminating)
    }

    /// Returns the time until which a replica is known to judge, this one or another; `None` if none is known to.
    fn judged_until(&self) -> Option<Instant> {
        if self.is_judging() {
            return Some(self.renewed_at + self.times.renew_deadline);
        }
        let LeaseSight::Seen(record, at) = &self.lease else { return None };
        // Replicas have the same flags, and renew several times in this time: a longer one was written by somebody else.
        let longest = self.times.lease_duration + Duration::from_secs(1);
        self.is_living(&record.holder).then(|| *at + record.duration.min(longest))
    }

    fn has_seen_all(&self, quiet_from: Instant, barrier: &Barrier, now: Instant) -> bool {
        let has_token = |token: &String| {
            self.own_replica().is_some_and(|own| own.token == *token) && self.sight.is_complete
        };
        // A Pod that cannot be written, or a watch that does not bring it, must not keep a cluster without a judge.
        let is_overdue = now >= quiet_from + self.times.lease_duration;
        match barrier {
            Barrier::Unmarked if self.own_pod.is_none() => now >= quiet_from + WITHOUT_BARRIER,
            Barrier::Unmarked => is_overdue,
            Barrier::Marked(token) => has_token(token) || is_overdue,
            Barrier::Refused(at) => now >= *at + WITHOUT_BARRIER,
        }
    }

    fn is_judging(&self) -> bool {
        matches!(self.phase, JudgePhase::Judging)
    }

    fn holds(&self) -> bool {
        !matches!(self.phase, JudgePhase::Standby | JudgePhase::Released { .. })
    }

    /// Returns true if the Lease, as last seen, names this process.
    fn holds_record(&self) -> bool {
        matches!(&self.lease, LeaseSight::Seen(record, _) if record.holder == self.identity)
    }

    fn own_replica(&self) -> Option<&Replica> {
        let own = self.own_pod.as_ref()?;
        self.sight.replicas.iter().find(|replica| replica.name == *own)
    }

    /// Returns the other Pods of the release.
    fn others(&self) -> impl Iterator<Item = &Replica> {
        self.sight.replicas.iter().filter(|replica| Some(&replica.name) != self.own_pod.as_ref())
    }
}

#[cfg(test)]
mod tests;
