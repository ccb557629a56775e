//! `toleration-seconds`: tolerationSeconds on a toleration that the controller overwrites.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;
use crate::scheduling::taints::NO_EXECUTE;
use k8s_openapi::api::core::v1::Toleration;

pub(super) const RULE: Rule = Rule {
    id: "toleration-seconds",
    default_level: Level::Warn,
    finds: "tolerationSeconds on a toleration that the controller overwrites",
    rationale: "Daemon pods tolerate `node.kubernetes.io/not-ready` and `node.kubernetes.io/unreachable` with effect NoExecute without a time limit: the controller overwrites a toleration that has one.",
    source: "pkg/controller/daemon/util/daemonset_util.go (`AddOrUpdateDaemonPodTolerations`)",
    check,
};

const KEYS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const DETAIL: &str = "the controller overwrites this toleration by one without end";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    let tolerations = daemon_set.spec.template.spec.tolerations.iter().enumerate();
    let overwritten = tolerations.filter(|(_, toleration)| is_overwritten(toleration));
    let timed = overwritten.filter_map(|(index, toleration)| Some((index, toleration.toleration_seconds?)));
    let path = Path::new("spec.template.spec.tolerations");
    timed.map(|(index, _)| Error::forbidden(path.index(index).child("tolerationSeconds"), DETAIL)).collect()
}

/// Returns true if the DaemonSet controller replaces the toleration by its own (`MatchToleration`): key, operator, value and effect
/// are equal, and the seconds do not count.
fn is_overwritten(toleration: &Toleration) -> bool {
    toleration.key.as_deref().is_some_and(|key| KEYS.contains(&key))
        && toleration.effect.as_deref() == Some(NO_EXECUTE)
        && toleration.operator.as_deref() == Some("Exists")
        && toleration.value.as_deref().unwrap_or_default().is_empty()
}
