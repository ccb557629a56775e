//! Room that is kept on one node for one DaemonSet's missing pod.
//!
//! ```text
//!            missing                     does not fit any more
//!  (none) ────────────▶ Held ◀─────────────────────────────────▶ CannotFit
//!     ▲                  │  │                                        │
//!     │ landed           │  └────────── time is up ──▶ Expired       │
//!     └──────────────────┴───────────────────────────────┴───────────┘
//! ```
//! `Expired` stays until the pod has landed once, the template has changed or the Node is another. A DaemonSet that is no
//! longer wanted is `NotMissing`: its record is kept only for what it has spent, so that a label which comes and goes does
//! not start the time anew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use enum_map::Enum;
use strum::{IntoStaticStr, VariantNames};

use super::missing::MissingDaemonPod;
use super::refusal_clock::RefusalClock;

/// Room kept for one daemon pod.
#[derive(Debug)]
pub struct Hold {
    /// The pod that room is kept for.
    pub pod: MissingDaemonPod,
    /// The UID of the DaemonSet: ids are used again.
    pub daemon_set_uid: Arc<str>,
    /// The template that the time was spent on.
    pub template_version: u64,
    /// How far it is.
    pub state: HoldState,
    /// The time since which room is held, while it is.
    pub held_since: Option<Instant>,
    /// Whether the pod would fit right now.
    pub fits_now: bool,
    /// Whether anything was refused for it since it began.
    pub has_refused: bool,
    fits_clock: RefusalClock,
    waits_clock: RefusalClock,
}

/// How far a hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldState {
    /// Room is kept.
    Held,
    /// The pod could not fit beside more important ones, even if everything else left.
    CannotFit,
    /// Its time is up.
    Expired,
    /// The pod is not missing: nothing wants it here.
    NotMissing,
}

/// Why a hold ended; a closed set, used as a metric label and in Events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Enum, IntoStaticStr, VariantNames)]
pub enum EndReason {
    /// The daemon pod is bound to the node.
    Landed,
    /// The DaemonSet does not want the node any more, or is gone.
    NotWanted,
    /// The daemon pod can no longer fit.
    CannotFit,
    /// Room sufficed for `holdTimeout`, and the daemon pod did not come.
    HoldTimeout,
    /// Room did not suffice for `waitTimeout`.
    WaitTimeout,
    /// The Node is gone.
    NodeGone,
}

impl EndReason {
    /// The word for it in metrics and Events: the variant's name.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// A sentence for people.
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
    /// A hold that has refused nothing yet.
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

    /// Whether it keeps room against a pod: one of its own or lower priority, or for a daemon pod (`strictly`) of lower.
    pub fn is_held_against(&self, priority: i32, strictly: bool) -> bool {
        self.state == HoldState::Held
            && if strictly { self.pod.priority > priority } else { self.pod.priority >= priority }
    }

    /// Something was refused for it. Whether that is the first time.
    pub fn record_refusal(&mut self, uid: &Arc<str>, now: Instant) -> bool {
        let clock = if self.fits_now { &mut self.fits_clock } else { &mut self.waits_clock };
        clock.record_refusal(uid, now);
        !std::mem::replace(&mut self.has_refused, true)
    }

    /// Notes whether the pod would fit right now: time goes on against the other timeout from here.
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

    /// Moves on; time runs only while room is kept.
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

    /// The template has changed: all the time is given again. What was said of it stays said while it goes on.
    pub fn reset_for_template(&mut self, template_version: u64, now: Instant) {
        self.template_version = template_version;
        self.fits_clock.reset_spent(now);
        self.waits_clock.reset_spent(now);
        if self.state == HoldState::Expired {
            self.state = HoldState::NotMissing;
        }
    }

    /// Counts the time until `now`; the reason when it is up.
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

    /// Whether its time runs.
    pub fn is_running(&self) -> bool {
        self.fits_clock.is_running() || self.waits_clock.is_running()
    }

    /// Whether nothing would be lost by forgetting it.
    pub fn is_blank(&self) -> bool {
        self.state != HoldState::Expired
            && self.fits_clock.spent().is_zero()
            && self.waits_clock.spent().is_zero()
    }
}
