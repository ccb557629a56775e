//! `tolerates-everything`: a toleration without a key.
//!
//! It tolerates every taint, also the one that an autoscaler or an operator sets to empty a node. Some agents want
//! that; most want the tolerations that every daemon pod gets anyway.
//!
//! Source: kubernetes v1.36.3 staging/src/k8s.io/api/core/v1/toleration.go (`ToleratesTaint`).

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "tolerates-everything",
    default: Level::Off,
    what: "a toleration without a key",
    why: "It tolerates every taint, also the one that an autoscaler or an operator sets to empty a node. Some agents want that; most want the tolerations that every daemon pod gets anyway.",
    source: "staging/src/k8s.io/api/core/v1/toleration.go (`ToleratesTaint`)",
    check,
};

const DETAIL: &str = "a toleration without key tolerates every taint";

fn check(daemon_set: &DaemonSet) -> Vec<Error> {
    let tolerations = daemon_set.spec.template.spec.tolerations.iter().enumerate();
    let keyless =
        tolerations.filter(|(_, toleration)| toleration.key.as_deref().unwrap_or_default().is_empty());
    let path = Path::new("spec.template.spec.tolerations");
    keyless.map(|(index, _)| Error::required(path.index(index), DETAIL)).collect()
}
