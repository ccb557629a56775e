//! `on-delete-rolling-update`: rollingUpdate settings beside type OnDelete.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::daemonset::ON_DELETE;
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "on-delete-rolling-update",
    default_level: Level::Warn,
    finds: "rollingUpdate settings beside type OnDelete",
    rationale: "With OnDelete, the controller replaces a pod only after it is deleted; maxUnavailable and maxSurge are neither used nor checked. Remove them, or use RollingUpdate.",
    source: "pkg/controller/daemon/daemon_controller.go (`updateDaemonSet`), pkg/apis/apps/validation/validation.go (`ValidateDaemonSetUpdateStrategy`)",
    check,
};

const DETAIL: &str = "type OnDelete ignores it";

fn check(daemon_set: &DaemonSet) -> ErrorList {
    let strategy = daemon_set.spec.update_strategy().unwrap_or_default();
    let settings = strategy
        .rolling_update
        .filter(|update| update.max_unavailable.is_some() || update.max_surge.is_some());
    if strategy.kind != ON_DELETE || settings.is_none() {
        return ErrorList::new();
    }
    Error::forbidden(Path::new("spec.updateStrategy.rollingUpdate"), DETAIL).into()
}
