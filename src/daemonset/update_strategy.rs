//! Rolling updates of a DaemonSet: surge, and the number of pods that may be unavailable.
//!
//! After kubernetes v1.36.3 pkg/controller/daemon/util/daemonset_util.go (`SurgeCount`, `UnavailableCount`),
//! pkg/controller/daemon/update.go (`updatedDesiredNodeCounts`) and
//! staging/src/k8s.io/apimachinery/pkg/util/intstr/intstr.go (`GetScaledValueFromIntOrPercent`).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::daemonset::{DaemonSetSpec, ON_DELETE};
use crate::api::int_or_percent::{is_zero, percent};

impl DaemonSetSpec {
    /// Returns true if a rolling update starts the new pod while the old one still runs: `maxSurge` is not 0. Returns false for the
    /// strategy OnDelete.
    pub fn uses_surge(&self) -> bool {
        let strategy = self.update_strategy().unwrap_or_default();
        let surge = strategy.rolling_update.and_then(|rolling_update| rolling_update.max_surge);
        strategy.kind != ON_DELETE && surge.is_some_and(|surge| !is_zero(&surge))
    }
}

/// Returns the number of pods that `value` stands for: a number as it is, a percentage of `total` rounded up
/// (`GetScaledValueFromIntOrPercent`). Returns at least 1, as the controller does without a surge (`updatedDesiredNodeCounts`).
pub fn scaled(value: &IntOrString, total: usize) -> usize {
    let scaled = match value {
        IntOrString::Int(count) => usize::try_from(*count).unwrap_or(0),
        IntOrString::String(text) => {
            let percent = usize::try_from(percent(text).unwrap_or(0)).unwrap_or(usize::MAX);
            percent.saturating_mul(total).div_ceil(100)
        }
    };
    scaled.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surge_is_a_number_or_percentage_above_zero() {
        for (strategy, surges) in [
            (r"{}", false),
            (r#"{"rollingUpdate":{"maxSurge":0}}"#, false),
            (r#"{"rollingUpdate":{"maxSurge":2}}"#, true),
            (r#"{"rollingUpdate":{"maxSurge":"0%"}}"#, false),
            (r#"{"rollingUpdate":{"maxSurge":"10%"}}"#, true),
            (r#"{"type":"OnDelete","rollingUpdate":{"maxSurge":"10%"}}"#, false),
        ] {
            let spec: DaemonSetSpec =
                serde_json::from_str(&format!(r#"{{"updateStrategy":{strategy}}}"#)).unwrap();
            assert_eq!(spec.uses_surge(), surges, "{strategy}");
        }
    }

    #[test]
    fn percentages_are_rounded_up_to_at_least_one() {
        let percent = |text: &str, total| scaled(&IntOrString::String(text.to_owned()), total);
        assert_eq!(
            [percent("0%", 5), percent("10%", 5), percent("50%", 5), percent("100%", 5)],
            [1, 1, 3, 5]
        );
        assert_eq!([0, 1, 7].map(|count| scaled(&IntOrString::Int(count), 5)), [1, 1, 7]);
    }
}
