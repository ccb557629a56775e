//! The outcome of a review: the Status of a refusal, and the warnings.

use std::collections::HashSet;

use super::live_rules::Unread;
use super::{RuleFault, Validation};
use crate::api::admission_v1::response::{Status, StatusCause, StatusDetails};
use crate::api::field::{Error, ErrorKind, quote};
use crate::policy::Oversized;

/// The length to which the apiserver cuts warnings that are long in total (staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go).
const WARNING_MAX_CHARS: usize = 256;
/// The most warnings: the apiserver shows 4,096 characters of warnings in full, and more than these only cut.
const MAX_WARNINGS: usize = 50;
/// The most causes of a refusal, as many as one list of errors has.
const MAX_CAUSES: usize = 200;
/// The fault of an object that is not checked.
const TOO_LARGE: &str = "it is too large to be checked";
/// The fault of an object that the live-data rules have not checked.
const TOO_LARGE_FOR_CLUSTER: &str = "it is too large to be checked against the cluster";
/// The fault of an object that the live-data rules have not checked in time.
const TOO_LATE: &str = "to check it against the cluster took too long";

/// The outcome of a review.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ReviewOutcome {
    /// The DaemonSet's API group. Empty, like `kind` and `name`, if the request was allowed without validation.
    pub group: String,
    /// The DaemonSet's kind.
    pub kind: String,
    /// The DaemonSet's name or generateName.
    pub name: String,
    /// The DaemonSet's faults.
    pub validation: Validation,
    /// The operator's choice, if the DaemonSet was not checked in full because it is too large.
    pub oversized: Option<Oversized>,
    /// The reason, if only the live-data rules were not checked.
    pub unread: Option<Unread>,
}

impl ReviewOutcome {
    /// Returns true if the request is allowed.
    pub fn is_allowed(&self) -> bool {
        self.validation.errors.is_empty()
            && self.validation.denials.is_empty()
            && self.oversized != Some(Oversized::Deny)
    }

    /// Returns the Status of a refusal, with a cause for every fault: code 422 if Kubernetes refuses the object too, 403 if only the
    /// policy does. `None` if the request is allowed.
    pub fn status(&self) -> Option<Status> {
        let Validation { errors, denials, .. } = &self.validation;
        if !errors.is_empty() {
            let causes = errors.iter().map(|error| cause(error, error.body()));
            let faults = errors.iter().map(ToString::to_string);
            let more = if errors.is_full() { ", and more" } else { "" };
            let message = format!("{} is invalid: {}{more}", self.object(), aggregate(faults));
            return Some(self.failure(422, "Invalid", message, causes.collect()));
        }
        if denials.is_empty() {
            return self
                .oversized
                .filter(|choice| *choice == Oversized::Deny)
                .map(|_| self.denial_for_size());
        }
        let causes = denials
            .iter()
            .take(MAX_CAUSES)
            .map(|RuleFault { rule, error }| cause(error, format!("{} ({rule})", error.body())));
        let faults = denials.iter().take(MAX_CAUSES).map(|fault| format!("{} ({})", fault.error, fault.rule));
        let mut rules: Vec<String> =
            denials.iter().map(|fault| format!("admission.rules.{}", fault.rule)).collect();
        rules.dedup();
        let message = format!(
            "{} is forbidden by policy: {}; change the object, or set {} to Warn or Off in the configuration of daemonset-warden",
            self.object(),
            aggregate(faults),
            rules.join(" and "),
        );
        Some(self.failure(403, "Forbidden", message, causes.collect()))
    }

    fn denial_for_size(&self) -> Status {
        let cause = StatusCause {
            reason: ErrorKind::TooLong.reason(),
            message: self.unchecked().to_owned(),
            field: "spec".to_owned(),
        };
        let message = format!(
            "{} is forbidden by policy: {}; make it smaller, or set admission.oversized to Allow in the configuration of daemonset-warden",
            self.object(),
            self.unchecked(),
        );
        self.failure(403, "Forbidden", message, vec![cause])
    }

    /// Returns the fault of an object that was not checked in full.
    fn unchecked(&self) -> &'static str {
        match self.unread {
            None => TOO_LARGE,
            Some(Unread::TooLate) => TOO_LATE,
            Some(_) => TOO_LARGE_FOR_CLUSTER,
        }
    }

    fn failure(&self, code: u16, reason: &'static str, message: String, causes: Vec<StatusCause>) -> Status {
        let Self { group, kind, name, .. } = self;
        let details = StatusDetails { name: name.clone(), group: group.clone(), kind: kind.clone(), causes };
        Status { status: "Failure", message, reason, details, code }
    }

    /// Returns the warnings, fit for an HTTP header. If Kubernetes refuses the object, the policy's denials are among them.
    pub fn warnings(&self) -> Vec<String> {
        let Validation { errors, denials, warnings } = &self.validation;
        let denials = if errors.is_empty() { &[] } else { denials.as_slice() };
        let is_unchecked = self.oversized == Some(Oversized::Allow);
        let part = if self.unread.is_some() { " against the cluster" } else { "" };
        let unchecked = is_unchecked.then(|| {
            format!("daemonset-warden has not checked this {}{part}: {}", self.kind, self.unchecked())
        });
        let faults = denials.iter().chain(warnings).map(warning);
        unchecked.into_iter().chain(faults).take(MAX_WARNINGS).collect()
    }

    /// Returns the object as messages name it: `DaemonSet.apps "name"`.
    fn object(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        format!("{}{dot}{} {}", self.kind, self.group, quote(&self.name))
    }
}

/// Returns the only text, or the distinct texts in brackets (staging/src/k8s.io/apimachinery/pkg/util/errors/errors.go).
fn aggregate(texts: impl Iterator<Item = String>) -> String {
    let mut seen = HashSet::new();
    let different: Vec<String> = texts.filter(|text| seen.insert(text.clone())).collect();
    match different.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

fn cause(error: &Error, message: String) -> StatusCause {
    StatusCause { reason: error.kind.reason(), message, field: error.field.to_string() }
}

fn warning(fault: &RuleFault) -> String {
    let end = format!(" ({})", fault.rule);
    // The apiserver drops a warning with a control character in it.
    let visible = |char: char| if char.is_control() { ' ' } else { char };
    let mut text: String = fault.error.to_string().chars().map(visible).collect();
    let room = WARNING_MAX_CHARS - end.len();
    if text.chars().count() > room {
        text = text.chars().take(room - 1).chain(['…']).collect();
    }
    text + &end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::field::Path;

    fn fault(detail: &str) -> RuleFault {
        RuleFault { rule: "rule", error: Error::forbidden(Path::new("a"), detail) }
    }

    #[test]
    fn a_warning_is_fit_for_a_header() {
        let text = warning(&fault(&"ä\n".repeat(300)));
        assert!(text.chars().count() == WARNING_MAX_CHARS && !text.contains(char::is_control), "{text}");
        assert!(text.starts_with("a: Forbidden: ä ") && text.ends_with("… (rule)"), "{text}");
    }

    #[test]
    fn the_number_of_causes_and_warnings_is_bounded() {
        let many: Vec<RuleFault> = (0..1_000).map(|number| fault(&number.to_string())).collect();
        let validation = Validation { denials: many.clone(), warnings: many, ..Validation::default() };
        let outcome = ReviewOutcome { validation, ..ReviewOutcome::default() };
        let status = outcome.status().unwrap();
        assert_eq!((status.details.causes.len(), outcome.warnings().len()), (MAX_CAUSES, MAX_WARNINGS));
        assert!(status.message.len() < 10_000);
    }
}
