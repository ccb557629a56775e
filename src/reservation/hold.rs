//! Holds: room that is reserved on one node for the missing pod of one DaemonSet.
//!
//! ```text
//!            missing                     does not fit any more
//!  (none) ────────────▶ Held ◀─────────────────────────────────▶ CannotFit
//!     ▲                  │  │                                        │
//!     │ landed           │  └────────── time is up ──▶ Expired       │
//!     └──────────────────┴───────────────────────────────┴───────────┘
//! ```
//! `Expired` stays until the pod has landed once, the template has changed or the Node was replaced. `NotMissing` is the state
//! while the DaemonSet is not desired on the node: the record keeps the spent time, so that removing and adding a label does not
//! restart the timeout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use enum_map::Enum;
use strum::{IntoStaticStr, VariantNames};

use super::missing::MissingDaemonPod;
use super::refusal_clock::RefusalClock;

/// The room that is reserved for one daemon pod.
#[derive(Debug)]
pub struct Hold {
    /// The daemon pod, as when the node was last refreshed.
    pub pod: MissingDaemonPod,
    /// The DaemonSet's UID, for ids are given out again.
    pub daemon_set_uid: Arc<str>,
    /// The version of the template for which the spent time was counted.
    pub template_version: u64,
    /// Only a hold in the state `Held` reserves room.
    pub state: HoldState,
    /// The time at which the state became `Held`; `None` in any other state.
    pub held_since: Option<Instant>,
    /// True if the pod would fit right now.
    pub fits_now: bool,
    /// True if a pod was refused because of the hold since it began.
    pub has_refused: bool,
    fits_clock: RefusalClock,
    waits_clock: RefusalClock,
}

/// The state of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    /// Room is reserved.
    Held,
    /// The pod could not fit beside more important ones, even if all others left.
    CannotFit,
    /// `holdTimeout` or `waitTimeout` is over: no room is reserved until the pod has landed, the template changes or the Node is
    /// replaced.
    Expired,
    /// The pod is not missing, for the DaemonSet is not desired on the node.
    NotMissing,
}

/// The reason for which a hold ended, as in the metric's label and in Events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enum, IntoStaticStr, VariantNames)]
pub enum EndReason {
    /// The daemon pod is bound to the node.
    Landed,
    /// The DaemonSet is not desired on the node any more, or was deleted.
    NotWanted,
    /// The daemon pod can no longer fit.
    CannotFit,
    /// The pod would have fit for `holdTimeout`, and did not come.
    HoldTimeout,
    /// The pod did not fit for `waitTimeout`.
    WaitTimeout,
    /// The Node was deleted or replaced.
    NodeGone,
}

impl EndReason {
    /// Returns the value of the metric's label, which is also the word in Events.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the sentence for Events.
    pub fn message(self) -> &'static str {
        match self {
            Self::Landed => "the daemon pod is bound to the node",
            Self::NotWanted => "the DaemonSet does not want a pod on the node any more",
            Self::CannotFit => {
                "the daemon pod cannot fit on the node even if every pod of its own or lower priority left"
            }
            Self::HoldTimeout => {
                "there was room for the daemon pod for reservation.holdTimeout and it did not come: look for a quota, a scheduling gate, a volume or a crash that keeps it"
            }
            Self::WaitTimeout => {
                "there was not room enough for the daemon pod within reservation.waitTimeout: give the DaemonSet a higher priority class, or make room on the node"
            }
            Self::NodeGone => "the node is gone",
        }
    }
}

impl Hold {
    /// Returns a hold in the state `NotMissing` that has refused no pod yet.
    pub fn new(pod: MissingDaemonPod, daemon_set_uid: Arc<str>, template_version: u64) -> Self {
        Self {
            pod,
            daemon_set_uid,
            template_version,
            state: HoldState::NotMissing,
            held_since: None,
            fits_now: false,
            has_refused: false,
            fits_clock: RefusalClock::default(),
            waits_clock: RefusalClock::default(),
        }
    }

    /// Returns true if the hold reserves its room against a pod of this `priority`: one of the same or lower priority. If
    /// `strictly`, as for a daemon pod on its target, only one of lower priority.
    pub fn is_held_against(&self, priority: i32, strictly: bool) -> bool {
        self.state == HoldState::Held
            && if strictly { self.pod.priority > priority } else { self.pod.priority >= priority }
    }

    /// Records that a pod was refused, which starts the clock. Returns true for the first pod since the hold began.
    pub fn record_refusal(&mut self, uid: &Arc<str>, now: Instant) -> bool {
        let clock = if self.fits_now { &mut self.fits_clock } else { &mut self.waits_clock };
        clock.record_refusal(uid, now);
        !std::mem::replace(&mut self.has_refused, true)
    }

    /// Records that the pod would, or would not, fit right now. The time counts towards `holdTimeout` while it would, else towards
    /// `waitTimeout`.
    pub fn set_fits_now(&mut self, fits_now: bool, now: Instant) {
        if self.fits_now != fits_now {
            self.fits_now = fits_now;
            let (from, to) = if fits_now {
                (&mut self.waits_clock, &mut self.fits_clock)
            } else {
                (&mut self.fits_clock, &mut self.waits_clock)
            };
            from.continue_as(to, now);
        }
    }

    /// Changes the state. Any state but `Held` stops the clocks.
    pub fn transition_to(&mut self, state: HoldState, now: Instant) {
        if state != HoldState::Held {
            self.fits_clock.stop(now);
            self.waits_clock.stop(now);
            self.held_since = None;
        } else if self.state != HoldState::Held {
            self.held_since = Some(now);
        }
        self.state = state;
    }

    /// Sets the spent time to zero, for a new template.
    pub fn reset_for_template(&mut self, template_version: u64, now: Instant) {
        self.template_version = template_version;
        self.fits_clock.reset_spent(now);
        self.waits_clock.reset_spent(now);
        if self.state == HoldState::Expired {
            self.state = HoldState::NotMissing;
        }
    }

    /// Counts the time until `now`. Returns the reason if the time of a `Held` hold is up, which the caller then ends; else `None`.
    /// `is_waiting` is that of [`RefusalClock::tick`].
    pub fn tick(
        &mut self,
        now: Instant,
        hold_timeout: Duration,
        wait_timeout: Duration,
        is_waiting: impl Fn(&str) -> Option<bool>,
    ) -> Option<EndReason> {
        self.fits_clock.tick(now, &is_waiting);
        self.waits_clock.tick(now, is_waiting);
        if self.state != HoldState::Held {
            None
        } else if self.fits_now && self.fits_clock.spent() >= hold_timeout {
            Some(EndReason::HoldTimeout)
        } else if !self.fits_now && self.waits_clock.spent() >= wait_timeout {
            Some(EndReason::WaitTimeout)
        } else {
            None
        }
    }

    /// Returns true while a clock runs: a pod that the hold refused waits.
    pub fn is_running(&self) -> bool {
        self.fits_clock.is_running() || self.waits_clock.is_running()
    }

    /// Returns true if nothing is lost with the record: the hold has not expired and no time was spent.
    pub fn is_blank(&self) -> bool {
        self.state != HoldState::Expired
            && self.fits_clock.spent().is_zero()
            && self.waits_clock.spent().is_zero()
    }
}
