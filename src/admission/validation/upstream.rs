//! Kubernetes' own validation of DaemonSets, in its order and words.
//!
//! After kubernetes v1.36.3 pkg/apis/apps/validation/validation.go (`ValidateDaemonSet`, `ValidateDaemonSetUpdate`,
//! `ValidateDaemonSetSpec`), pkg/registry/apps/daemonset/strategy.go and
//! staging/src/k8s.io/apiserver/pkg/registry/rest/{create,update}.go (`BeforeCreate`, `BeforeUpdate`). Upstream reports the entries
//! of a map in random order; here they are ordered by key. Each `check*` function adds the faults that it finds to `faults`.

mod metadata;
mod selector;
mod template;
mod update_strategy;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::api::daemonset::{DaemonSet, DaemonSetSpec};
use crate::api::field::{Error, ErrorList, Path};
use crate::api::meta::GroupKind;
use crate::scheduling::label_selector;

const NEGATIVE: &str = "must be greater than or equal to 0";

/// Returns the faults of `new`, a DaemonSet of `kind` that is created or, if there is `old`, replaces `old`.
pub(super) fn faults(kind: &GroupKind, old: Option<&DaemonSet>, new: &DaemonSet) -> ErrorList {
    let mut faults = ErrorList::new();
    if kind.is_builtin() {
        match old {
            None => metadata::check_create(new, &mut faults),
            Some(old) => metadata::check_update(old, new, &mut faults),
        }
    }
    if let Some(old) = old {
        selector::check_immutable(old.spec.selector.as_ref(), new.spec.selector.as_ref(), &mut faults);
    }
    let allow_invalid_values = allows_invalid_values(old);
    if kind.is_builtin() {
        check_spec(old.map(|old| &old.spec), &new.spec, allow_invalid_values, &mut faults);
    } else {
        check_common_spec(&new.spec, allow_invalid_values, &mut faults);
    }
    faults
}

/// Checks the spec (`ValidateDaemonSetSpec`). The template's generation is not checked: clients cannot set it (strategy.go
/// `PrepareForCreate`, `PrepareForUpdate`).
fn check_spec(
    old: Option<&DaemonSetSpec>,
    spec: &DaemonSetSpec,
    allow_invalid_values: bool,
    faults: &mut ErrorList,
) {
    check_selector(spec, allow_invalid_values, faults);
    template::check_labels(&spec.template, faults);
    template::check_annotations(old.map(|old| &old.template), &spec.template, faults);
    template::check_spec(&spec.template.spec, faults);
    check_not_negative(i64::from(spec.min_ready_seconds), "spec.minReadySeconds", faults);
    // Decoding has refused strategies of another shape.
    update_strategy::check(&spec.update_strategy().unwrap_or_default(), old.is_some(), faults);
    if let Some(limit) = spec.revision_history_limit {
        check_not_negative(i64::from(limit), "spec.revisionHistoryLimit", faults);
    }
}

/// Checks the part of `ValidateDaemonSetSpec` that applies to every controller of daemon pods.
fn check_common_spec(spec: &DaemonSetSpec, allow_invalid_values: bool, faults: &mut ErrorList) {
    check_selector(spec, allow_invalid_values, faults);
    template::check_labels(&spec.template, faults);
    template::check_spec(&spec.template.spec, faults);
}

fn check_selector(spec: &DaemonSetSpec, allow_invalid_values: bool, faults: &mut ErrorList) {
    if let Some(selector) = &spec.selector {
        selector::check(selector, allow_invalid_values, "spec.selector", faults);
    }
    let labels = &spec.template.metadata.labels;
    if label_selector::matches(spec.selector.as_ref(), labels) == Some(false) {
        let path = Path::new("spec.template.metadata.labels");
        let labels = Some(labels).filter(|labels| !labels.is_empty());
        faults.push(Error::invalid(path, &labels, "`selector` does not match template `labels`"));
    }
    if spec.selector.as_ref().is_some_and(label_selector::is_empty) {
        let empty = LabelSelector::default();
        let path = Path::new("spec.selector");
        faults.push(Error::invalid(path, &empty, "empty selector is invalid for daemonset"));
    }
}

/// Returns true if the selector's expressions may have values that are not valid label values, because the stored object has such
/// values already (strategy.go `ValidateUpdate`, pkg/api/pod/util.go `hasInvalidLabelValueInAffinitySelector`). Returns false
/// without a stored object.
fn allows_invalid_values(old: Option<&DaemonSet>) -> bool {
    let Some(old) = old else { return false };
    let is_invalid = |selector: &LabelSelector| {
        let mut faults = ErrorList::new();
        selector::check(selector, false, "", &mut faults);
        !faults.is_empty()
    };
    old.spec.selector.as_ref().is_some_and(selector::has_invalid_value)
        || old.validated_only.affinity_selectors.iter().any(is_invalid)
}

fn check_not_negative(value: i64, path: &str, faults: &mut ErrorList) {
    if value < 0 {
        faults.push(Error::invalid(Path::new(path), &value, NEGATIVE));
    }
}
