//! Whether a DaemonSet is right: upstream's own rules, and ours about what upstream accepts and people regret.
//!
//! [`review`] is all that `/validate` calls; [`validate`] is what it shares with `check`.

pub mod live_rules;
mod review;
pub mod rule;
pub mod rules;
mod semantic;
mod upstream;

pub use review::{Cause, Refusal, Verdict, decode, review};

use self::live_rules::LiveData;
use self::rule::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList};
use crate::api::meta::GroupKind;
use crate::cache::Cache;
use crate::policy::{Level, Policy};

/// What is wrong with a DaemonSet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// What upstream refuses, in upstream's order.
    pub errors: ErrorList,
    /// What the policy refuses.
    pub denials: Vec<RuleFault>,
    /// What the policy warns of.
    pub warnings: Vec<RuleFault>,
}

/// A fault that a policy rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// The rule's id.
    pub rule: &'static str,
    /// What it found.
    pub error: Error,
}

impl Validation {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.denials.is_empty() && self.warnings.is_empty()
    }
}

/// Judges a DaemonSet of `kind`: its creation, or with `old` its update.
///
/// What the apiserver would have defaulted is judged as if it had been. Of kinds other than Kubernetes' own only the selector,
/// its immutability and the template's labels, restartPolicy and activeDeadlineSeconds are looked at: what their other fields
/// mean is their controllers' business.
pub fn validate(policy: &Policy, kind: &GroupKind, old: Option<&DaemonSet>, new: &DaemonSet) -> Validation {
    let mut validation = Validation { errors: upstream::faults(kind, old, new), ..Validation::default() };
    if kind.is_builtin() {
        for rule in rules::RULES {
            judge(rule, rule.check, policy, old, new, &mut validation);
        }
    }
    validation
}

/// [`validate`], and the rules that only live data can judge by; `cluster` must be known in full.
pub fn validate_live(
    policy: &Policy,
    kind: &GroupKind,
    old: Option<&DaemonSet>,
    new: &DaemonSet,
    cluster: &Cache,
) -> Validation {
    let mut validation = validate(policy, kind, old, new);
    if kind.is_builtin() {
        let view = LiveData::new(cluster, &kind.group, new);
        // What the old one is told of counts only where a rule refuses, which none does by default.
        let old_view = old.map(|old| LiveData::new(cluster, &kind.group, old));
        for rule in live_rules::LIVE_RULES {
            judge(rule, rule.check, policy, old_view.as_ref(), &view, &mut validation);
        }
    }
    validation
}

fn judge<Check, Subject>(
    rule: &Rule<Check>,
    check: impl Fn(&Subject) -> ErrorList,
    policy: &Policy,
    old: Option<&Subject>,
    new: &Subject,
    found: &mut Validation,
) {
    let level = policy.admission.rules.get(rule.id).copied().unwrap_or(rule.default);
    if level == Level::Off {
        return;
    }
    let errors = check(new);
    if errors.is_empty() {
        return;
    }
    // What was let in before the rule was set must stay changeable. Indices move as lists grow, so only the text tells.
    let known = old.filter(|_| level == Level::Deny).map(check).unwrap_or_default();
    for error in errors {
        let is_known = known.iter().any(|known| known.kind == error.kind && known.body() == error.body());
        let fault = RuleFault { rule: rule.id, error };
        if level == Level::Deny && !is_known { found.denials.push(fault) } else { found.warnings.push(fault) }
    }
}
