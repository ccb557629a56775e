//! Holds: room that is reserved on one node for the missing pod of one DaemonSet.
//!
//! ```text
//!            missing                     does not fit any more
//!  (none) ────────────▶ Held ◀─────────────────────────────────▶ CannotFit
//!     ▲                 ▲│ │                                        │
//!     │                 ││ └────────── time is up ──▶ Expired       │
//!     │                 │▼                             │            │
//!     │            NoBasis: nothing shows that         │            │
//!     │            the pod will come                   │            │
//!     │ landed           │                             │            │
//!     └──────────────────┴─────────────────────────────┴────────────┘
//! ```
//! [`super::basis`] decides between `Held` and `NoBasis`. `Expired` stays until the pod has landed once or the Node was replaced:
//! another template gives no time back. `NotMissing` is the state while the DaemonSet is not desired on the node: the record keeps
//! the spent time, so that removing and adding a label does not restart the timeout.

use std::sync::Arc;
use std::time::{Duration, Instant};

use enum_map::Enum;
use strum::{IntoStaticStr, VariantNames};

use super::hold_basis::{HoldBasis, Predecessor};
use super::missing::MissingDaemonPod;
use super::refusal_clock::RefusalClock;
use super::wait_budget::ChargedSeconds;

/// The room that is reserved for one daemon pod.
#[derive(Debug)]
pub struct Hold {
    /// The daemon pod, as when the node was last refreshed.
    pub pod: MissingDaemonPod,
    /// The DaemonSet's UID, for ids are given out again.
    pub daemon_set_uid: Arc<str>,
    /// The basis of the hold; `None` while it has none.
    pub basis: Option<HoldBasis>,
    /// The bound pod that was there before.
    pub predecessor: Predecessor,
    /// The time since which the DaemonSet controller could have created the pod.
    pub unborn_since: Option<Instant>,
    /// Only a hold in the state `Held` reserves room.
    pub state: HoldState,
    /// The time at which the state became `Held`; `None` in any other state.
    pub held_since: Option<Instant>,
    /// True if the pod would fit right now.
    pub fits_now: bool,
    /// True if the node is too small for its daemon pods up to this one.
    pub is_node_too_small: bool,
    /// True if a pod was refused for it since it began.
    pub has_refused: bool,
    fits_clock: RefusalClock,
    waits_clock: RefusalClock,
    /// True if the pod that was refused last would have gone in without the holds for daemon pods that may not come.
    pub is_cause: bool,
    /// The seconds that were charged to the budget of the namespace.
    pub(super) charged: ChargedSeconds,
}

/// The state of a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    /// Room is reserved.
    Held,
    /// The pod could not fit beside more important ones, even if all others left.
    CannotFit,
    /// Nothing shows that the pod will come, so no room is reserved until something does.
    NoBasis,
    /// `holdTimeout` or `waitTimeout` is over: no room is reserved until the pod has landed or the Node is replaced.
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
    /// Admission would refuse the daemon pod.
    NotAdmitted,
    /// The DaemonSet controller has not created the daemon pod.
    NotCreated,
    /// The daemon pod waits for something other than room.
    NotSchedulable,
    /// The budget of the namespace is spent.
    BudgetSpent,
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
                "the daemon pod cannot fit on the node beside the daemon pods that go first, even if every pod of its own or lower priority left"
            }
            Self::HoldTimeout => {
                "there was room for the daemon pod for reservation.holdTimeout and it did not come: look for a quota, a scheduling gate, a volume or a crash that keeps it"
            }
            Self::WaitTimeout => {
                "there was not room enough for the daemon pod within reservation.waitTimeout: give the DaemonSet a higher priority class, or make room on the node"
            }
            Self::NotAdmitted => {
                "admission would refuse the daemon pod: look at its priority class, at the priority in the template, and at the quotas of the namespace"
            }
            Self::NotCreated => {
                "the DaemonSet controller has not created the daemon pod: look at the DaemonSet's FailedCreate events for a quota, a service account or a webhook that refuses it"
            }
            Self::NotSchedulable => {
                "the daemon pod waits for something other than room: look at its scheduling gates, volumes and affinity, and at the scheduler's message"
            }
            Self::BudgetSpent => {
                "pods have waited for a minute of the last hour for daemon pods of this namespace that did not come: room is reserved only for daemon pods that exist and wait for nothing but room"
            }
            Self::NodeGone => "the node is gone",
        }
    }
}

impl Hold {
    /// Returns a hold that has refused no pod yet.
    pub fn new(pod: MissingDaemonPod, daemon_set_uid: Arc<str>) -> Self {
        Self {
            pod,
            daemon_set_uid,
            basis: None,
            predecessor: Predecessor::None,
            unborn_since: None,
            state: HoldState::NotMissing,
            held_since: None,
            fits_now: false,
            is_node_too_small: false,
            has_refused: false,
            fits_clock: RefusalClock::default(),
            waits_clock: RefusalClock::default(),
            is_cause: true,
            charged: ChargedSeconds::default(),
        }
    }

    /// Records if a bound pod of the DaemonSet is on the node.
    pub(super) fn see_predecessor(&mut self, is_there: bool, now: Instant) {
        self.predecessor = match self.predecessor {
            _ if is_there => Predecessor::Present,
            Predecessor::Present => Predecessor::Left(now),
            gone => gone,
        };
    }

    /// Records that a pod was refused. Returns true for the first one since the hold began.
    pub fn has_first_refusal(&mut self) -> bool {
        !std::mem::replace(&mut self.has_refused, true)
    }

    /// Starts the clock for a pod that was refused and waits.
    pub fn record_refusal(&mut self, uid: &Arc<str>, now: Instant) {
        let clock = if self.fits_now { &mut self.fits_clock } else { &mut self.waits_clock };
        clock.record_refusal(uid, now);
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

    /// Counts the time until `now`. Returns the reason if it is up.
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

    /// Returns true if time in which a pod waits is charged to the budget of the namespace.
    pub fn is_charged(&self) -> bool {
        self.state == HoldState::Held
            && self.is_cause
            && self.basis.is_some_and(|basis| !basis.is_proven())
            && self.is_running()
    }

    /// Returns the time counted while the pod would have fit, and while it would not.
    pub(super) fn spent(&self) -> (Duration, Duration) {
        (self.fits_clock.spent(), self.waits_clock.spent())
    }

    /// Takes over the time that another replica has counted, and the end that it has come to.
    pub(super) fn restore_spent(
        &mut self,
        (fits, waits): (Duration, Duration),
        is_expired: bool,
        now: Instant,
    ) {
        self.fits_clock.restore_spent(fits);
        self.waits_clock.restore_spent(waits);
        if is_expired {
            self.transition_to(HoldState::Expired, now);
        }
    }

    /// Returns true while a clock runs.
    pub fn is_running(&self) -> bool {
        self.fits_clock.is_running() || self.waits_clock.is_running()
    }

    /// Returns true if nothing is lost with the record: the hold has not expired and no time was spent.
    pub fn is_blank(&self) -> bool {
        self.state != HoldState::Expired
            && self.fits_clock.spent().is_zero()
            && self.waits_clock.spent().is_zero()
            && self.charged.is_empty()
    }
}
