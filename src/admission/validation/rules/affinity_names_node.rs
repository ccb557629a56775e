//! `affinity-names-node`: required node affinity that names nodes (`matchFields`).

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "affinity-names-node",
    default_level: Level::Warn,
    finds: "required node affinity that names nodes (`matchFields`)",
    rationale: "The controller replaces the required node affinity of each pod by one that names the pod's own node. The template's affinity selects nodes for the controller only, and never reaches the scheduler. Select nodes by label.",
    source: "pkg/controller/daemon/util/daemonset_util.go (`ReplaceDaemonSetPodNodeNameNodeAffinity`)",
    check,
};

const TERMS: &str = "spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
const DETAIL: &str = "the controller replaces this in every pod; choose nodes by label";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    let required = daemon_set.spec.template.spec.affinity.node_affinity.required.iter();
    let terms = required.flat_map(|required| &required.node_selector_terms).enumerate();
    let naming =
        terms.filter(|(_, term)| term.match_fields.as_ref().is_some_and(|fields| !fields.is_empty()));
    naming
        .map(|(index, _)| Error::forbidden(Path::new(TERMS).index(index).child("matchFields"), DETAIL))
        .collect()
}
