//! Validation of a DaemonSet's update strategy.
//!
//! After kubernetes v1.36.3 pkg/apis/apps/validation/validation.go (`ValidateDaemonSetUpdateStrategy`,
//! `ValidateRollingUpdateDaemonSet`) with the defaults of pkg/apis/apps/v1/defaults.go (`SetDefaults_DaemonSet`).

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;

use crate::api::daemonset::{DaemonSetUpdateStrategy, ON_DELETE, ROLLING_UPDATE, RollingUpdateDaemonSet};
use crate::api::field::{Error, ErrorList, Path};
use crate::api::int_or_percent::{is_zero, percent};

const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

/// Checks the strategy as if the apiserver had defaulted it; the `rollingUpdate` of OnDelete is not checked.
///
/// On update, an absent maxUnavailable in a `rollingUpdate` counts as 0 and not as the default, as in upstream's validation. The
/// apiserver never calls that with such an object, because its internal type has no absent value; only tests/data/conformance.jsonl
/// has this case.
pub(super) fn check(strategy: &DaemonSetUpdateStrategy, is_update: bool, faults: &mut ErrorList) {
    match strategy.kind.as_str() {
        "" | ROLLING_UPDATE => check_rolling_update(strategy.rolling_update.as_ref(), is_update, faults),
        ON_DELETE => {}
        _ => {
            let path = Path::new("spec.updateStrategy");
            let internal = InternalUpdateStrategy::from(strategy);
            faults.push(Error::not_supported(path, &internal, &[ROLLING_UPDATE, ON_DELETE]));
        }
    }
}

fn check_rolling_update(
    rolling_update: Option<&RollingUpdateDaemonSet>,
    is_update: bool,
    faults: &mut ErrorList,
) {
    let max_unavailable = rolling_update.and_then(|update| update.max_unavailable.as_ref());
    let max_surge = rolling_update.and_then(|update| update.max_surge.as_ref());
    let default = IntOrString::Int(i32::from(!is_update || rolling_update.is_none()));
    let max_unavailable = max_unavailable.unwrap_or(&default);
    let max_surge = max_surge.unwrap_or(&IntOrString::Int(0));
    let unavailable_path = || Path::new("spec.updateStrategy.rollingUpdate.maxUnavailable");
    let surge_path = || Path::new("spec.updateStrategy.rollingUpdate.maxSurge");

    check_syntax(max_unavailable, unavailable_path, faults);
    check_syntax(max_surge, surge_path, faults);
    check_at_most_all(max_unavailable, unavailable_path, faults);
    check_at_most_all(max_surge, surge_path, faults);
    match (is_zero(max_unavailable), is_zero(max_surge)) {
        (false, false) => {
            let detail = "may not be set when maxUnavailable is non-zero";
            faults.push(Error::invalid(surge_path(), max_surge, detail));
        }
        (true, true) => {
            faults.push(Error::required(unavailable_path(), "cannot be 0 when maxSurge is 0"));
        }
        _ => {}
    }
}

/// Checks that the value is a count that is not negative, or a percentage (`ValidatePositiveIntOrPercent`).
fn check_syntax(value: &IntOrString, path: impl Fn() -> Path, faults: &mut ErrorList) {
    match value {
        IntOrString::String(text) if percent(text).is_none() => {
            faults.push(Error::invalid(path(), value, PERCENT));
        }
        IntOrString::Int(count) if *count < 0 => {
            faults.push(Error::invalid(path(), value, super::NEGATIVE));
        }
        _ => {}
    }
}

/// Checks that a percentage is 100 at most (`IsNotMoreThan100Percent`).
fn check_at_most_all(value: &IntOrString, path: impl Fn() -> Path, faults: &mut ErrorList) {
    if let IntOrString::String(text) = value
        && percent(text).is_some_and(|percent| percent > 100)
    {
        faults.push(Error::invalid(path(), value, "must not be greater than 100%"));
    }
}

/// The strategy as upstream prints it: its internal type, with Go's names and without defaults.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InternalUpdateStrategy<'a> {
    r#type: &'a str,
    rolling_update: Option<InternalRollingUpdate<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InternalRollingUpdate<'a> {
    max_unavailable: &'a IntOrString,
    max_surge: &'a IntOrString,
}

impl<'a> From<&'a DaemonSetUpdateStrategy> for InternalUpdateStrategy<'a> {
    fn from(strategy: &'a DaemonSetUpdateStrategy) -> Self {
        let zero = &IntOrString::Int(0);
        let rolling_update = strategy.rolling_update.as_ref().map(|update| InternalRollingUpdate {
            max_unavailable: update.max_unavailable.as_ref().unwrap_or(zero),
            max_surge: update.max_surge.as_ref().unwrap_or(zero),
        });
        Self { r#type: &strategy.kind, rolling_update }
    }
}
