//! Taints of nodes, and the tolerations of pods that match them.
//!
//! After kubernetes v1.36.3 staging/src/k8s.io/api/core/v1/toleration.go (`ToleratesTaint`) and
//! staging/src/k8s.io/component-helpers/scheduling/corev1/helpers.go (`FindMatchingUntoleratedTaint`).

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// The effect that keeps the scheduler from placing pods on the node.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// The effect that also evicts running pods from the node.
pub const NO_EXECUTE: &str = "NoExecute";

/// Returns true if `toleration` tolerates `taint`.
///
/// An empty effect matches every effect, and an empty key every key. With an empty key and operator Equal, only the value is
/// compared. Lt and Gt belong to an alpha feature upstream (TaintTolerationComparisonOperators, off by default) and tolerate
/// nothing.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = text(&toleration.effect);
    let key = text(&toleration.key);
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match text(&toleration.operator) {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

/// Returns the first taint that blocks scheduling (NoSchedule or NoExecute) and that none of `tolerations` tolerates. Returns
/// `None` if there is no such taint.
pub fn find_untolerated_taint<'t>(taints: &'t [Taint], tolerations: &[Toleration]) -> Option<&'t Taint> {
    taints.iter().find(|taint| blocks_scheduling(taint) && !any_tolerates(tolerations, taint))
}

/// Returns true if any of `tolerations` tolerates `taint`.
pub fn any_tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// Returns true if the scheduler and the DaemonSet controller keep pods off for this taint; PreferNoSchedule only lowers a score.
pub fn blocks_scheduling(taint: &Taint) -> bool {
    taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerates_as_upstream() {
        let taint = Taint {
            key: "gpu".into(),
            value: Some("a".into()),
            effect: NO_SCHEDULE.into(),
            time_added: None,
        };
        let cases = [
            ("gpu", "Exists", "", "NoSchedule", true),
            ("gpu", "Exists", "", "", true),
            ("", "Exists", "", "", true),
            ("gpu", "", "a", "NoSchedule", true),
            ("gpu", "Equal", "b", "NoSchedule", false),
            ("", "Equal", "a", "", true),
            ("", "", "", "", false),
            ("gpu", "Exists", "", "NoExecute", false),
            ("other", "Exists", "", "", false),
            ("gpu", "Gt", "a", "", false),
            ("gpu", "exists", "", "", false),
        ];
        for (key, operator, value, effect, expected) in cases {
            let toleration = toleration(key, operator, value, effect);
            assert_eq!(tolerates(&toleration, &taint), expected, "{toleration:?}");
        }
    }

    #[test]
    fn prefer_no_schedule_blocks_no_pod() {
        let taint = |effect: &str| Taint { key: "k".into(), effect: effect.into(), ..Taint::default() };
        let taints = [taint("PreferNoSchedule"), taint(NO_EXECUTE)];
        assert_eq!(find_untolerated_taint(&taints, &[]), Some(&taints[1]));
        assert_eq!(find_untolerated_taint(&taints, &[toleration("k", "Exists", "", "")]), None);
    }
}
