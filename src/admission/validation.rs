//! Validation of DaemonSets: Kubernetes' own rules, and policy rules for what Kubernetes accepts and what then fails or harms the
//! DaemonSet.
//!
//! `/validate` calls [`review()`] for each request. A refusal has Kubernetes' own words:
//!
//! ```
//! use daemonset_warden::admission::validation;
//! use daemonset_warden::api::admission_v1;
//! use daemonset_warden::policy::Policy;
//!
//! let body = br#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
//!     "uid": "1", "operation": "CREATE", "namespace": "kube-system",
//!     "kind": {"group": "apps", "version": "v1", "kind": "DaemonSet"},
//!     "object": {"metadata": {"name": "agent"}, "spec": {
//!         "selector": {"matchLabels": {"app": "agent"}},
//!         "template": {"metadata": {"labels": {"app": "cni"}}}
//!     }}
//! }}"#;
//! let outcome = validation::review(&Policy::default(), &admission_v1::parse(body)?, None)?;
//!
//! let status = outcome.status().expect("the request is refused");
//! assert_eq!(status.code, 422);
//! assert!(status.message.contains("`selector` does not match template `labels`"));
//! # Ok::<(), admission_v1::BadReview>(())
//! ```

pub mod live_rules;
mod outcome;
mod oversized;
mod review;
pub mod rule;
pub mod rules;
mod semantic;
mod upstream;

pub use outcome::ReviewOutcome;
pub use oversized::review_unread;
pub use review::{decode, review, review_within};

use std::cell::OnceCell;
use std::collections::HashSet;

use self::live_rules::{LIVE_RULES, LiveData, ReadCache, Unread};
use self::rule::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorKind, ErrorList};
use crate::api::meta::GroupKind;
use crate::policy::{Level, Policy};

/// The faults of a DaemonSet, by the consequence.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// Faults that Kubernetes refuses, in its order.
    pub errors: ErrorList,
    /// Faults that the policy refuses.
    pub denials: Vec<RuleFault>,
    /// Faults that the policy warns of.
    pub warnings: Vec<RuleFault>,
}

/// A fault that a policy rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// The id of the rule.
    pub rule: &'static str,
    /// The fault, with its field.
    pub error: Error,
}

impl Validation {
    /// Returns true if there is no fault.
    pub fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.denials.is_empty() && self.warnings.is_empty()
    }
}

/// Returns the faults of `new`, a DaemonSet of `kind` that is created or, if there is `old`, replaces `old`.
///
/// Absent fields count as the apiserver would default them. For kinds other than Kubernetes' own, only the selector, its
/// immutability and the template's labels, restartPolicy and activeDeadlineSeconds are checked: the other fields have the meaning
/// that their controllers give them.
pub fn validate(policy: &Policy, kind: &GroupKind, old: Option<&DaemonSet>, new: &DaemonSet) -> Validation {
    let mut validation = Validation { errors: upstream::faults(kind, old, new), ..Validation::default() };
    if kind.is_builtin() {
        for rule in rules::RULES {
            let level = level_of(policy, rule);
            if level != Level::Off {
                let stored = || old.map(rule.check).unwrap_or_default();
                apply_rule(rule, level, (rule.check)(new), stored, &mut validation);
            }
        }
    }
    validation
}

/// Adds the faults of the live-data rules to `validation`: none while the cache is not fresh, and none if there are faults that
/// refuse the DaemonSet already. Reads a few nodes of `cache` at a time.
///
/// # Errors
/// Returns the reason if rules could not be checked although the cache is fresh.
fn validate_with_live_data(
    policy: &Policy,
    kind: &GroupKind,
    old: Option<&DaemonSet>,
    new: &DaemonSet,
    cache: &dyn ReadCache,
    validation: &mut Validation,
) -> Result<(), Unread> {
    let level = |rule: &Rule<_>| level_of(policy, rule);
    let is_refused = !validation.errors.is_empty() || !validation.denials.is_empty();
    if is_refused || !kind.is_builtin() || LIVE_RULES.iter().all(|rule| level(rule) == Level::Off) {
        return Ok(());
    }
    let data = match LiveData::read(cache, &kind.group, new) {
        Ok(data) => data,
        Err(Unread::Stale) => return Ok(()),
        Err(unread) => return Err(unread),
    };
    // The faults of the stored DaemonSet matter only where one of the new one is denied.
    let stored = OnceCell::new();
    for rule in LIVE_RULES.iter().filter(|rule| level(rule) != Level::Off) {
        let errors = (rule.check)(&data);
        if level(rule) == Level::Deny
            && !errors.is_empty()
            && let Some(old) = old
            && let Err(unread @ (Unread::TooLate | Unread::Deferred)) =
                stored.get_or_init(|| LiveData::read(cache, &kind.group, old))
        {
            return Err(*unread);
        }
        let known = || match stored.get() {
            None => ErrorList::new(),
            Some(Ok(stored)) => (rule.check)(stored),
            // One that is too large stays changeable: every fault of the new one counts as stored.
            Some(Err(_)) => (rule.check)(&data),
        };
        apply_rule(rule, level(rule), errors, known, validation);
    }
    Ok(())
}

fn level_of<Check>(policy: &Policy, rule: &Rule<Check>) -> Level {
    policy.admission.rules.get(rule.id).copied().unwrap_or(rule.default_level)
}

/// Adds the faults that a rule of `level` has found to `validation`, as denials or warnings according to the level. `stored`
/// returns those of the stored object.
fn apply_rule<Check>(
    rule: &Rule<Check>,
    level: Level,
    errors: ErrorList,
    stored: impl FnOnce() -> ErrorList,
    validation: &mut Validation,
) {
    if errors.is_empty() {
        return;
    }
    // An object that was stored with the fault must stay changeable. Indices move as lists grow, so faults are compared by text.
    let known = if level == Level::Deny { stored() } else { ErrorList::new() };
    let known: HashSet<(ErrorKind, String)> = known.iter().map(|error| (error.kind, error.body())).collect();
    for error in errors {
        let is_denied = level == Level::Deny && !known.contains(&(error.kind, error.body()));
        let fault = RuleFault { rule: rule.id, error };
        if is_denied { validation.denials.push(fault) } else { validation.warnings.push(fault) }
    }
}
