//! `tolerates-everything`: a toleration without a key.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "tolerates-everything",
    default_level: Level::Off,
    finds: "a toleration without a key",
    rationale: "The pods tolerate every taint, including those that an autoscaler or an operator sets to drain a node. Some agents need that; for most, the tolerations that every daemon pod gets are enough.",
    source: "staging/src/k8s.io/api/core/v1/toleration.go (`ToleratesTaint`)",
    check,
};

const DETAIL: &str = "a toleration without key tolerates every taint";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    let tolerations = daemon_set.spec.template.spec.tolerations.iter().enumerate();
    let keyless =
        tolerations.filter(|(_, toleration)| toleration.key.as_deref().unwrap_or_default().is_empty());
    let path = Path::new("spec.template.spec.tolerations");
    keyless.map(|(index, _)| Error::required(path.index(index), DETAIL)).collect()
}
