//! `managed-label-selector`: a selector that depends on a label that the system overwrites.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::daemonset::daemon_pod::{GENERATION_LABEL, REVISION_LABEL};
use crate::policy::Level;
use crate::scheduling::label_selector;

pub(super) const RULE: Rule = Rule {
    id: "managed-label-selector",
    default_level: Level::Deny,
    finds: "a selector that depends on a label that the system overwrites",
    rationale: "The DaemonSet controller and the apiserver write these labels on each pod: `controller-revision-hash`, `pod-template-generation`, `topology.kubernetes.io/zone`, `topology.kubernetes.io/region`. A pod that then no longer matches is released and created again, without end. Use labels of your own.",
    source: "pkg/controller/daemon/util/daemonset_util.go (`CreatePodTemplate`), plugin/pkg/admission/podtopologylabels/admission.go, pkg/controller/controller_ref_manager.go (`ClaimObject`)",
    check,
};

const MANAGED: [&str; 4] =
    [REVISION_LABEL, GENERATION_LABEL, "topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
const DETAIL: &str =
    "the system overwrites this label on pods, which then no longer match and are made again without end";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    let Some(selector) = &daemon_set.spec.selector else { return ErrorList::new() };
    let path = Path::new("spec.selector");
    let labels = selector.match_labels.iter().flatten().filter(|(key, _)| MANAGED.contains(&key.as_str()));
    let labels =
        labels.map(|(key, value)| Error::invalid_text(path.child("matchLabels").key(key), value, DETAIL));
    let expressions = label_selector::expressions(selector).iter().enumerate();
    // `Exists` holds for every value of the label.
    let expressions = expressions.filter(|(_, requirement)| {
        MANAGED.contains(&requirement.key.as_str()) && requirement.operator != "Exists"
    });
    let expressions = expressions.map(|(index, requirement)| {
        Error::invalid_text(path.child("matchExpressions").index(index), &requirement.key, DETAIL)
    });
    labels.chain(expressions).collect()
}
