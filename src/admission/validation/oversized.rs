//! The answer to a review that is too large to be checked.
//!
//! The apiserver takes no answer in time, and no 4xx, for an answer of its own: with `failurePolicy: Ignore` it admits the object. So
//! whoever pads an object could get around every rule, and the operator chooses what happens to it (`admission.oversized`).

use super::live_rules::LIVE_RULES;
use super::outcome::ReviewOutcome;
use super::rules::RULES;
use super::{Validation, level_of};
use crate::admission::review_head::ReviewHead;
use crate::api::field::start_of;
use crate::api::meta::GroupKind;
use crate::policy::{Level, Oversized, Policy};

/// Returns the choice for a DaemonSet of `kind` that is too large. One that nothing could refuse is allowed.
///
/// The rules apply to Kubernetes' own DaemonSets, which the apiserver itself validates besides. For other kinds nobody else checks the
/// selector, which always refuses.
fn choice(policy: &Policy, kind: &GroupKind) -> Oversized {
    let is_denied = RULES.iter().any(|rule| level_of(policy, rule) == Level::Deny);
    if is_denied || !kind.is_builtin() { policy.admission.oversized } else { choice_for_live_rules(policy) }
}

/// Returns the choice for a DaemonSet that only the live-data rules have not checked.
pub(super) fn choice_for_live_rules(policy: &Policy) -> Oversized {
    let is_denied = LIVE_RULES.iter().any(|rule| level_of(policy, rule) == Level::Deny);
    if is_denied { policy.admission.oversized } else { Oversized::Allow }
}

/// Returns the outcome for a DaemonSet of `kind` and `name` that is too large.
pub(super) fn outcome(policy: &Policy, kind: &GroupKind, name: String) -> ReviewOutcome {
    ReviewOutcome {
        group: kind.group.clone(),
        kind: kind.kind.clone(),
        name,
        validation: Validation::default(),
        oversized: Some(choice(policy, kind)),
        unread: None,
    }
}

/// Reviews a request of which only the start was read, as [`review_within`](super::review_within) does one that takes too much memory.
pub fn review_unread(policy: &Policy, head: &ReviewHead<'_>) -> ReviewOutcome {
    let kind = head.request.daemon_set_kind(&policy.daemon_set_kinds);
    let Some(kind) = kind.filter(|_| matches!(&*head.request.operation, "CREATE" | "UPDATE")) else {
        return ReviewOutcome::default();
    };
    if head.object.is_deleting || head.object.is_opted_out {
        return ReviewOutcome::default();
    }
    let name = if head.request.name.is_empty() { &head.object.name } else { &head.request.name };
    outcome(policy, kind, start_of(name))
}
