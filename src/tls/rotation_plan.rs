//! The plan for the Secret of `--tls-secret`, from its state and the time: no clock, no key, no cluster. Times are in Unix seconds.
//!
//! A CA lives for ten years. Its clients need warning of its end, because schedulers are configured by hand:
//! ```text
//! made ───────────────────────────────────┬──────────────────────┬───────────────────▶ expired
//!                                         │ ROLL_OVER: the next   │ SWITCH: the next one signs,
//!                                         │ CA joins the bundle   │ this one stays in the bundle
//! ```
//! A clock that is wrong can put a CA out of use before its time or after it. Then another CA is made, and the first one is put
//! aside in the place of the successor, with its key, until it is valid again: schedulers trust the first one and no other.

use super::names::CertificateNames;
use super::validity::{DAY, Validity};

/// The life of a CA, in seconds. It is long, because schedulers read their CA once, at their start, from a file that people wrote.
pub const CA_LIFETIME: i64 = 10 * 365 * DAY;
/// The seconds that a CA has left when its successor joins the bundle that clients trust.
pub const CA_ROLL_OVER: i64 = 365 * DAY;
/// The seconds that a CA has left when its successor signs. Between [`CA_ROLL_OVER`] and this, half a year, people take the bundle
/// to their schedulers.
pub const CA_SWITCH: i64 = 180 * DAY;
/// The least number of seconds that a successor is in the bundle before it signs, even when its turn is overdue.
pub const CA_PROPAGATION_TIME: i64 = DAY;
/// The life of a serving certificate, in seconds. It is short, so that renewals are frequent enough to be seen to work.
pub const LEAF_LIFETIME: i64 = 90 * DAY;
/// The seconds that a serving certificate has left when it is renewed: a third of its life, as cert-manager does.
pub const LEAF_RENEWAL: i64 = 30 * DAY;
/// A certificate is valid from this many seconds before it is made, because the clocks of a cluster differ.
pub const CLOCK_SKEW: i64 = 60 * 60;

/// The usable part of a Secret's content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretState {
    /// The CA that signs; `None` unless its certificate and key are there and belong together.
    pub ca: Option<Validity>,
    /// The CA that will sign next; `None` unless its certificate and key are there and belong together.
    pub next: Option<Validity>,
    /// The serving certificate; `None` if it is missing or cannot be parsed.
    pub leaf: Option<Leaf>,
    /// True if the Secret has no data, as the chart makes it.
    pub is_empty: bool,
}

/// The facts about the serving certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The validity of the certificate itself, not of its CA.
    pub validity: Validity,
    /// True if the CA that signs has signed the certificate.
    pub is_signed_by_ca: bool,
    /// True if the certificate's private key is there.
    pub has_key: bool,
    /// The names in the certificate.
    pub names: CertificateNames,
}

/// The step for the CA that signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaStep {
    /// The CA is good.
    Keep,
    /// This replica writes back the content that it last served from: the Secret was emptied or spoilt.
    Restore,
    /// The next CA takes the place of this one, which stays in the bundle.
    Promote,
    /// There is no usable CA: this replica makes one.
    Make,
}

/// The step for the serving certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafStep {
    /// The certificate is good.
    Keep,
    /// The CA signs another, with these names.
    Sign(CertificateNames),
}

/// The steps that put the Secret right, each possibly none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The step for the CA that signs.
    pub ca: CaStep,
    /// True if the CA that will sign next has to be made.
    pub make_next: bool,
    /// The step for the serving certificate.
    pub leaf: LeafStep,
    /// The reasons for the steps, for the log; empty if nothing is to be done.
    pub reasons: Vec<&'static str>,
}

impl Plan {
    /// Returns true if the Secret has to be written.
    pub fn writes(&self) -> bool {
        self.ca != CaStep::Keep || self.make_next || self.leaf != LeafStep::Keep
    }
}

/// Returns the plan for a Secret in this `state`. `last_served` is the state of the content that this replica last served from;
/// `None` if it has served none. `names` are those that the certificate must have. `now` is the apiserver's time, which is the same
/// for all replicas, and by which most clients verify certificates.
pub fn decide(
    state: &SecretState,
    last_served: Option<&SecretState>,
    names: &CertificateNames,
    now: i64,
) -> Plan {
    let mut reasons = Vec::new();
    let usable = |ca: Option<Validity>| ca.filter(|ca| ca.is_usable(now));
    let ca = if let Some(ca) = usable(state.ca) {
        let may_switch = state.next.is_some_and(|next| {
            !next.is_over(now)
                && now - next.not_before - CLOCK_SKEW >= CA_PROPAGATION_TIME
                && next.left(now) > ca.left(now)
        });
        // A successor is made in the last year only. This CA was put aside when a clock was wrong, and is valid again.
        let was_put_aside = ca.left(now) > CA_ROLL_OVER + DAY
            && state.next.is_some_and(|next| next.not_before <= now && !next.is_over(now));
        if was_put_aside {
            reasons.push("the CA from before the clock was wrong is valid again");
            CaStep::Promote
        } else if ca.left(now) < CA_SWITCH && may_switch {
            reasons.push("the CA is about to expire, and its successor is known to clients");
            CaStep::Promote
        } else {
            CaStep::Keep
        }
    } else {
        reasons.push(match (state.is_empty, state.ca) {
            (true, _) => "the Secret is empty",
            (false, Some(ca)) if ca.is_over(now) => "the CA has expired",
            (false, Some(_)) => "the CA is not valid for more than a day yet: some clock was or is wrong",
            (false, None) => "the CA or its key is missing or spoilt",
        });
        if last_served.is_some_and(|served| usable(served.ca).is_some()) {
            CaStep::Restore
        } else if usable(state.next).is_some() {
            CaStep::Promote
        } else {
            CaStep::Make
        }
    };

    let ca_left = match ca {
        CaStep::Keep => state.ca,
        CaStep::Restore => last_served.and_then(|served| served.ca),
        CaStep::Promote => state.next,
        CaStep::Make => None,
    }
    .map_or(CA_LIFETIME, |ca| ca.left(now));
    let next = match ca {
        CaStep::Keep => usable(state.next),
        CaStep::Restore => last_served.and_then(|served| usable(served.next)),
        CaStep::Promote | CaStep::Make => None,
    };
    let make_next = ca_left < CA_ROLL_OVER && next.is_none_or(|next| next.left(now) < CA_ROLL_OVER);
    if make_next {
        reasons.push("the CA expires within a year: its successor joins the bundle");
    }

    let leaf = match ca {
        // The content that is written back has its own certificate; the next plan judges it.
        CaStep::Restore => LeafStep::Keep,
        CaStep::Promote | CaStep::Make => LeafStep::Sign(names.clone()),
        CaStep::Keep => leaf(state.leaf.as_ref(), ca_left, names, now, &mut reasons),
    };
    Plan { ca, make_next, leaf, reasons }
}

/// Returns the step for the serving certificate of a CA that is kept and has `ca_left` seconds left. Adds the reason of a step to
/// `reasons`.
fn leaf(
    leaf: Option<&Leaf>,
    ca_left: i64,
    names: &CertificateNames,
    now: i64,
    reasons: &mut Vec<&'static str>,
) -> LeafStep {
    let fault = match leaf {
        None => Some("the certificate is missing or spoilt"),
        Some(leaf) if !leaf.has_key => Some("the certificate's key is missing or of another certificate"),
        Some(leaf) if !leaf.is_signed_by_ca => Some("the certificate was not signed by the CA"),
        Some(leaf) if leaf.validity.is_over(now) => Some("the certificate has expired"),
        Some(leaf) if leaf.validity.not_before > now => Some("the certificate is not valid yet"),
        // Near the CA's own end a new certificate would not last longer either.
        Some(leaf) if leaf.validity.left(now) < LEAF_RENEWAL && leaf.validity.left(now) < ca_left => {
            Some("the certificate expires within a month")
        }
        Some(_) => None,
    };
    if let Some(fault) = fault {
        reasons.push(fault);
        return LeafStep::Sign(names.clone());
    }
    match leaf {
        // Both lists: during a rolling update replicas want different names, and must not undo each other's.
        Some(leaf) if !leaf.names.contains_all(names) => {
            reasons.push("the certificate lacks a name");
            LeafStep::Sign(leaf.names.with(names))
        }
        _ => LeafStep::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn names(list: &[&str]) -> CertificateNames {
        CertificateNames::parse(&list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    fn left(days: i64) -> Validity {
        Validity { not_before: NOW - 30 * DAY, not_after: NOW + days * DAY }
    }

    fn good() -> SecretState {
        SecretState {
            ca: Some(left(3000)),
            next: None,
            leaf: Some(Leaf {
                validity: left(60),
                is_signed_by_ca: true,
                has_key: true,
                names: names(&["a.b.svc"]),
            }),
            is_empty: false,
        }
    }

    fn with_leaf(change: impl FnOnce(&mut Leaf)) -> SecretState {
        let mut state = good();
        change(state.leaf.as_mut().unwrap());
        state
    }

    /// One row: the Secret's state, the content last served, and the plan.
    fn row(
        case: &str,
        state: &SecretState,
        last_served: Option<&SecretState>,
        ca: CaStep,
        make_next: bool,
        signs: bool,
    ) {
        let plan = decide(state, last_served, &names(&["a.b.svc"]), NOW);
        assert_eq!(
            (plan.ca, plan.make_next, plan.leaf != LeafStep::Keep),
            (ca, make_next, signs),
            "{case}: {plan:?}"
        );
        assert_eq!(plan.reasons.is_empty(), !plan.writes(), "{case}: each step has a reason: {plan:?}");
    }

    #[test]
    fn the_decision_table() {
        use CaStep::{Keep, Make, Promote, Restore};
        let empty = SecretState { is_empty: true, ..SecretState::default() };
        let spoilt = SecretState::default();
        let ca =
            |days, next: Option<i64>| SecretState { ca: Some(left(days)), next: next.map(left), ..good() };
        let fresh_next = |days| SecretState {
            next: Some(Validity { not_before: NOW - CLOCK_SKEW - 60, not_after: NOW + 3650 * DAY }),
            ..ca(days, None)
        };

        row("all is well", &good(), None, Keep, false, false);
        row("fresh from the chart", &empty, None, Make, false, true);
        row("emptied while we serve", &empty, Some(&good()), Restore, false, false);
        row("spoilt, first start", &spoilt, None, Make, false, true);
        row("spoilt while we serve", &spoilt, Some(&good()), Restore, false, false);
        row(
            "the CA's key is gone, its successor is there",
            &SecretState { ca: None, next: Some(left(3000)), ..good() },
            None,
            Promote,
            false,
            true,
        );
        row("the CA expired", &ca(-1, None), None, Make, false, true);
        row("the CA expired, and so did what we hold", &ca(-1, None), Some(&ca(-1, None)), Make, false, true);
        row("the CA expired, its successor is there", &ca(-1, Some(3000)), None, Promote, false, true);
        row("a year and a day left", &ca(366, None), None, Keep, false, false);
        row("less than a year left", &ca(364, None), None, Keep, true, false);
        row("less than a year left, successor there", &ca(364, Some(3000)), None, Keep, false, false);
        row("less than half a year left, successor known", &ca(179, Some(3000)), None, Promote, false, true);
        row("less than half a year left, successor new", &fresh_next(179), None, Keep, false, false);
        row("a day left, no successor", &ca(1, None), None, Keep, true, false);
        row("successor that ends as soon", &ca(179, Some(100)), None, Keep, true, false);
        row("the certificate is gone", &SecretState { leaf: None, ..good() }, None, Keep, false, true);
        row("the key is of another one", &with_leaf(|leaf| leaf.has_key = false), None, Keep, false, true);
        row("signed by another CA", &with_leaf(|leaf| leaf.is_signed_by_ca = false), None, Keep, false, true);
        row("a month and a day left", &with_leaf(|leaf| leaf.validity = left(31)), None, Keep, false, false);
        row("less than a month left", &with_leaf(|leaf| leaf.validity = left(29)), None, Keep, false, true);
        row("expired", &with_leaf(|leaf| leaf.validity = left(-1)), None, Keep, false, true);
        row(
            "made by a clock that is ahead",
            &with_leaf(|leaf| leaf.validity = Validity { not_before: NOW + DAY, not_after: NOW + 90 * DAY }),
            None,
            Keep,
            false,
            true,
        );
        let ahead = |days| Validity { not_before: NOW + days * DAY, not_after: NOW + 3000 * DAY };
        let ca_ahead = |days, next| SecretState { ca: Some(ahead(days)), next, ..good() };
        row(
            "a CA that is ahead by a day is waited for: schedulers have it",
            &ca_ahead(1, None),
            None,
            Keep,
            false,
            false,
        );
        row("a CA that is ahead by more", &ca_ahead(2, None), None, Make, false, true);
        row(
            "a CA that is ahead, and we hold a good one",
            &ca_ahead(2, None),
            Some(&good()),
            Restore,
            false,
            false,
        );
        row(
            "a CA that is ahead, and the one put aside is good",
            &ca_ahead(2, Some(left(3000))),
            None,
            Promote,
            false,
            true,
        );
        row(
            "a good CA, and one put aside that is ahead",
            &SecretState { next: Some(ahead(2)), ..good() },
            None,
            Keep,
            false,
            false,
        );
        row("a good CA, and one put aside that is over", &ca(3000, Some(-1)), None, Keep, false, false);
        row(
            "a good CA, and the one put aside is good again",
            &ca(3000, Some(3300)),
            None,
            Promote,
            false,
            true,
        );
        row("another name", &with_leaf(|leaf| leaf.names = names(&["c.d.svc"])), None, Keep, false, true);
        row(
            "more names",
            &with_leaf(|leaf| leaf.names = names(&["c.d.svc", "a.b.svc"])),
            None,
            Keep,
            false,
            false,
        );
    }

    #[test]
    fn a_certificate_that_lasts_as_long_as_its_ca_is_not_signed_again_and_again() {
        let mut state = good();
        state.ca = Some(left(10));
        state.leaf.as_mut().unwrap().validity = left(10);
        assert_eq!(decide(&state, None, &names(&["a.b.svc"]), NOW).leaf, LeafStep::Keep);
    }

    #[test]
    fn replicas_that_want_different_names_do_not_undo_each_other() {
        let state = with_leaf(|leaf| leaf.names = names(&["old.svc"]));
        let LeafStep::Sign(signed) = decide(&state, None, &names(&["new.svc"]), NOW).leaf else {
            panic!("a name is missing");
        };
        assert_eq!(signed, names(&["new.svc", "old.svc"]));
        let after = with_leaf(|leaf| leaf.names = signed);
        for wanted in ["old.svc", "new.svc"] {
            assert!(!decide(&after, None, &names(&[wanted]), NOW).writes(), "{wanted}");
        }
    }
}
