//! Validation of a DaemonSet's template: labels, annotations, restartPolicy and activeDeadlineSeconds.
//!
//! After kubernetes v1.36.3 pkg/apis/core/validation/validation.go (`ValidatePodTemplateSpec`,
//! `ValidatePodSpecificAnnotations`, `validateRestartPolicy`, `ValidatePodSpec`) and pkg/apis/apps/validation/validation.go.
//! The rest of the pod spec is left to the apiserver.

use crate::api::daemonset::PodTemplateSpec;
use crate::api::field::{Error, ErrorList, Path};
use crate::api::pod::{MIRROR_ANNOTATION, PodSpec};

use super::{metadata, selector};

const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
const ALWAYS: &str = "Always";

/// Checks the labels. Upstream leaves `metadata` out of the path.
pub(super) fn check_labels(template: &PodTemplateSpec, faults: &mut ErrorList) {
    selector::check_labels(&template.metadata.labels, "spec.template.labels", faults);
}

/// Checks the annotations. Upstream leaves `metadata` out of the path, and accepts a bad deletion cost if the stored object has a
/// bad one.
pub(super) fn check_annotations(
    old: Option<&PodTemplateSpec>,
    template: &PodTemplateSpec,
    faults: &mut ErrorList,
) {
    let annotations = &template.metadata.annotations;
    let path = || Path::new("spec.template.annotations");
    metadata::check_annotations(annotations.iter(), path, faults);
    if let Some(value) = annotations.get(MIRROR_ANNOTATION)
        && template.spec.node_name.is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        faults.push(Error::invalid_text(path().key(MIRROR_ANNOTATION), value, detail));
    }
    if let Some(cost) = bad_deletion_cost(template)
        && old.and_then(bad_deletion_cost).is_none()
    {
        let path = path().key(DELETION_COST_ANNOTATION);
        faults.push(Error::invalid_text(path, cost, "must be a 32bit integer"));
    }
}

/// Checks restartPolicy and activeDeadlineSeconds: first as those of any pod, then as a DaemonSet's.
pub(super) fn check_spec(spec: &PodSpec, faults: &mut ErrorList) {
    let restart_policy = if spec.restart_policy.is_empty() { ALWAYS } else { &spec.restart_policy };
    let path = || Path::new("spec.template.spec.restartPolicy");
    if !matches!(restart_policy, ALWAYS | "OnFailure" | "Never") {
        faults.push(Error::not_supported(path(), &restart_policy, &[ALWAYS, "OnFailure", "Never"]));
    }
    let deadline_path = || Path::new("spec.template.spec.activeDeadlineSeconds");
    if let Some(seconds) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        let detail = "must be between 1 and 2147483647, inclusive";
        faults.push(Error::invalid(deadline_path(), &seconds, detail));
    }
    if restart_policy != ALWAYS {
        faults.push(Error::not_supported(path(), &restart_policy, &[ALWAYS]));
    }
    if spec.active_deadline_seconds.is_some() {
        faults.push(Error::forbidden(deadline_path(), "activeDeadlineSeconds in DaemonSet is not Supported"));
    }
}

/// Returns the deletion cost if it is not a 32-bit integer, or has a plus sign or leading zeros (pkg/apis/core/helper/helpers.go
/// `GetDeletionCostFromPodAnnotations`). Returns `None` if it is good or absent.
fn bad_deletion_cost(template: &PodTemplateSpec) -> Option<&str> {
    let text = template.metadata.annotations.get(DELETION_COST_ANNOTATION)?.as_str();
    let starts_well = text == "0" || text.starts_with(|first| matches!(first, '-' | '1'..='9'));
    let is_good = starts_well && text.parse::<i32>().is_ok();
    (!is_good).then_some(text)
}
