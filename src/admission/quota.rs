//! Resource quotas by priority class: the quotas that are scoped to a class, and those that may count its pods.
//!
//! After kubernetes v1.36.3 pkg/quota/v1/evaluator/core/pods.go (`podMatchesScopeFunc`) and
//! staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go (`CheckRequest`).

use crate::api::policy_objects::{ResourceQuota, ScopeSelectorRequirement};

const PRIORITY_CLASS_SCOPE: &str = "PriorityClass";

/// Returns true if the quota has requirements on the priority class, and `class` meets them all. A cluster that limits a class
/// admits pods of that class only under such a quota.
pub fn is_for_class(quota: &ResourceQuota, class: &str) -> bool {
    scopes(quota).next().is_some() && scopes(quota).all(|scope| matches(scope, class))
}

/// Returns true if the quota may count pods of `class`: its requirements on the priority class, if any, do not rule the class out.
/// An empty `class` is a pod without one.
pub fn may_count(quota: &ResourceQuota, class: &str) -> bool {
    scopes(quota).all(|scope| matches(scope, class))
}

/// Returns the quota's requirements on the priority class.
fn scopes(quota: &ResourceQuota) -> impl Iterator<Item = &ScopeSelectorRequirement> {
    let expressions = quota.spec.scope_selector.match_expressions.iter();
    expressions.filter(|scope| scope.scope_name == PRIORITY_CLASS_SCOPE)
}

fn matches(scope: &ScopeSelectorRequirement, class: &str) -> bool {
    let is_named = scope.values.iter().any(|value| value == class);
    match scope.operator.as_str() {
        "In" => is_named,
        "NotIn" => !is_named,
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_choose_by_class() {
        let quota = |scopes: &str| -> ResourceQuota {
            serde_json::from_str(&format!(
                r#"{{"spec":{{"hard":{{"pods":"1"}},"scopeSelector":{{"matchExpressions":[{scopes}]}}}}}}"#
            ))
            .unwrap()
        };
        let scope = |operator: &str, values: &str| {
            quota(&format!(r#"{{"scopeName":"PriorityClass","operator":"{operator}","values":[{values}]}}"#))
        };
        let cases = [
            (quota(""), false, true),
            (quota(r#"{"scopeName":"BestEffort","operator":"Exists"}"#), false, true),
            (scope("In", r#""a","b""#), true, true),
            (scope("In", r#""b""#), false, false),
            (scope("NotIn", r#""a""#), false, false),
            (scope("Exists", ""), true, true),
            (scope("DoesNotExist", ""), false, false),
        ];
        for (quota, is_for, may) in cases {
            assert_eq!((is_for_class(&quota, "a"), may_count(&quota, "a")), (is_for, may), "{quota:?}");
        }
    }
}
