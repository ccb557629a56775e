//! Validation of DaemonSets: Kubernetes' own rules, and policy rules for what Kubernetes accepts and what then fails or harms the
//! DaemonSet.
//!
//! `/validate` calls [`review`] for each request. A refusal has Kubernetes' own words:
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
mod review;
pub mod rule;
pub mod rules;
mod semantic;
mod upstream;

pub use review::{ReviewOutcome, decode, review};

use self::live_rules::LiveData;
use self::rule::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList};
use crate::api::meta::GroupKind;
use crate::cache::Cache;
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
            apply_rule(rule, rule.check, policy, old, new, &mut validation);
        }
    }
    validation
}

/// Returns the faults that [`validate`] finds, and those that the live-data rules find in `cluster`, which must be fresh. Reads
/// every node of the cluster, twice on update.
pub fn validate_with_live_data(
    policy: &Policy,
    kind: &GroupKind,
    old: Option<&DaemonSet>,
    new: &DaemonSet,
    cluster: &Cache,
) -> Validation {
    let mut validation = validate(policy, kind, old, new);
    if kind.is_builtin() {
        let data = LiveData::new(cluster, &kind.group, new);
        // The faults of the stored DaemonSet matter only at level Deny, which is no live-data rule's default.
        let old_data = old.map(|old| LiveData::new(cluster, &kind.group, old));
        for rule in live_rules::LIVE_RULES {
            apply_rule(rule, rule.check, policy, old_data.as_ref(), &data, &mut validation);
        }
    }
    validation
}

/// Runs a rule and adds its faults to `validation`, as denials or warnings according to the rule's level.
fn apply_rule<Check, Subject>(
    rule: &Rule<Check>,
    check: impl Fn(&Subject) -> ErrorList,
    policy: &Policy,
    old: Option<&Subject>,
    new: &Subject,
    validation: &mut Validation,
) {
    let level = policy.admission.rules.get(rule.id).copied().unwrap_or(rule.default_level);
    if level == Level::Off {
        return;
    }
    let errors = check(new);
    if errors.is_empty() {
        return;
    }
    // An object that was stored with the fault must stay changeable. Indices move as lists grow, so faults are compared by text.
    let known = old.filter(|_| level == Level::Deny).map(check).unwrap_or_default();
    for error in errors {
        let is_known = known.iter().any(|known| known.kind == error.kind && known.body() == error.body());
        let fault = RuleFault { rule: rule.id, error };
        if level == Level::Deny && !is_known {
            validation.denials.push(fault)
        } else {
            validation.warnings.push(fault)
        }
    }
}
