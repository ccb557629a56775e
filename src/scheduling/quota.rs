//! Resource quotas: the pods that a quota counts, and the room that it leaves.
//!
//! After kubernetes v1.36.3 pkg/quota/v1/evaluator/core/pods.go (`podMatchesScopeFunc`, `PodUsageFunc`) and
//! staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go (`CheckRequest`).

use crate::api::policy_objects::{ResourceQuota, ScopeSelectorRequirement};
use crate::api::quantity::Quantity;
use crate::scheduling::resources::Resources;

const PRIORITY_CLASS_SCOPE: &str = "PriorityClass";

/// Returns true if the quota is scoped to pods of `class`, as clusters that limit a class require.
pub fn is_for_class(quota: &ResourceQuota, class: &str) -> bool {
    let has_scope = class_scopes(quota).next().is_some() || needs_class(quota);
    has_scope && may_count(quota, class)
}

/// Returns true if the quota might count pods of `class`: its scopes do not rule the class out.
pub fn may_count(quota: &ResourceQuota, class: &str) -> bool {
    class_scopes(quota).all(|scope| matches_class(scope, class)) && !(needs_class(quota) && class.is_empty())
}

/// Returns true if the quota counts only pods with a class: the scope in the plain list stands for `Exists`.
fn needs_class(quota: &ResourceQuota) -> bool {
    quota.spec.scopes.iter().any(|scope| scope == PRIORITY_CLASS_SCOPE)
}

/// Returns the quota's requirements on priority classes.
fn class_scopes(quota: &ResourceQuota) -> impl Iterator<Item = &ScopeSelectorRequirement> {
    let expressions = quota.spec.scope_selector.match_expressions.iter();
    expressions.filter(|scope| scope.scope_name == PRIORITY_CLASS_SCOPE)
}

fn matches_class(scope: &ScopeSelectorRequirement, class: &str) -> bool {
    let is_named = scope.values.iter().any(|value| value == class);
    match scope.operator.as_str() {
        "In" => is_named,
        "NotIn" => !is_named,
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

/// The properties of a pod that decide if a quota counts it, and how much.
#[derive(Debug, Clone, Copy)]
pub struct CountedPod<'p> {
    /// The name of its priority class.
    pub class: &'p str,
    /// True if it has `activeDeadlineSeconds`.
    pub ends_by_itself: bool,
    /// Its requests.
    pub requests: &'p Resources,
}

/// Returns true if the quota does not count the pod, or leaves room for one more like it. Resources that are not known of a pod,
/// such as limits, are not checked: the apiserver does that.
pub fn leaves_room_for(quota: &ResourceQuota, pod: &CountedPod<'_>) -> bool {
    !counts(quota, pod)
        || quota.status.hard.iter().all(|(name, hard)| {
            let Some(asked) = usage(pod.requests, name).filter(|asked| *asked > 0) else { return true };
            let used = quota.status.used.get(name).copied().unwrap_or_default();
            scheduler_units(name, used).saturating_add(asked) <= scheduler_units(name, *hard)
        })
}

/// Returns true if the quota does not count the pod, or is large enough for it and the `planned` ones together, by pod and number.
/// The pods that are there do not count.
pub fn takes_all(quota: &ResourceQuota, pod: &CountedPod<'_>, planned: &[(CountedPod<'_>, u32)]) -> bool {
    !counts(quota, pod)
        || quota.status.hard.iter().all(|(name, hard)| {
            let Some(asked) = usage(pod.requests, name).filter(|asked| *asked > 0) else { return true };
            let counted = planned.iter().filter(|(pod, _)| counts(quota, pod));
            let all = counted.fold(asked, |sum, (pod, number)| {
                let each = usage(pod.requests, name).unwrap_or_default();
                sum.saturating_add(each.saturating_mul(i64::from(*number)))
            });
            all <= scheduler_units(name, *hard)
        })
}

/// Returns true if all scopes of the quota match the pod. A scope that is not known matches nothing.
fn counts(quota: &ResourceQuota, pod: &CountedPod<'_>) -> bool {
    let is_best_effort = pod.requests.milli_cpu == 0 && pod.requests.memory == 0;
    let is_in = |scope: &str| match scope {
        "Terminating" => pod.ends_by_itself,
        "NotTerminating" => !pod.ends_by_itself,
        "BestEffort" => is_best_effort,
        "NotBestEffort" => !is_best_effort,
        PRIORITY_CLASS_SCOPE => !pod.class.is_empty(),
        _ => false,
    };
    let matches = |scope: &ScopeSelectorRequirement| match scope.scope_name.as_str() {
        PRIORITY_CLASS_SCOPE => matches_class(scope, pod.class),
        name => is_in(name),
    };
    quota.spec.scopes.iter().all(|scope| is_in(scope))
        && quota.spec.scope_selector.match_expressions.iter().all(matches)
}

/// Returns the pod's use of a resource as a quota names it, in the scheduler's units.
fn usage(requests: &Resources, name: &str) -> Option<i64> {
    match name {
        "pods" | "count/pods" => Some(1),
        "cpu" | "requests.cpu" => Some(requests.milli_cpu),
        "memory" | "requests.memory" => Some(requests.memory),
        "ephemeral-storage" | "requests.ephemeral-storage" => Some(requests.ephemeral_storage),
        _ => name.strip_prefix("requests.").map(|name| requests.scalar(name)),
    }
}

/// Returns an amount of a quota in the scheduler's units.
fn scheduler_units(name: &str, amount: Quantity) -> i64 {
    if matches!(name, "cpu" | "requests.cpu") { amount.milli_value() } else { amount.value() }
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
            (
                serde_json::from_str(r#"{"spec":{"hard":{"pods":"1"},"scopes":["PriorityClass"]}}"#).unwrap(),
                true,
                true,
            ),
        ];
        for (quota, is_for, may) in cases {
            assert_eq!((is_for_class(&quota, "a"), may_count(&quota, "a")), (is_for, may), "{quota:?}");
        }
    }

    #[test]
    fn a_quota_takes_so_many_planned_pods() {
        let quota: ResourceQuota = serde_json::from_str(
            r#"{"spec":{"scopes":["NotTerminating"]},"status":{"hard":{"pods":"5","requests.cpu":"1"},"used":{"pods":"5"}}}"#,
        )
        .unwrap();
        let requests = |milli_cpu| Resources { milli_cpu, pods: 1, ..Resources::default() };
        let (small, large) = (requests(100), requests(300));
        let pod = |requests| CountedPod { class: "", ends_by_itself: false, requests };
        let takes = |planned: &[_]| takes_all(&quota, &pod(&small), planned);
        assert!(takes(&[]) && takes(&[(pod(&small), 4)]) && !takes(&[(pod(&small), 5)]), "pods");
        assert!(takes(&[(pod(&large), 3)]) && !takes(&[(pod(&large), 3), (pod(&small), 1)]), "CPU");
        assert!(takes(&[(CountedPod { ends_by_itself: true, ..pod(&large) }, 9)]), "another scope");
    }

    #[test]
    fn a_quota_leaves_room_or_does_not() {
        let quota = |hard: &str, used: &str, spec: &str| -> ResourceQuota {
            serde_json::from_str(&format!(
                r#"{{"spec":{{{spec}}},"status":{{"hard":{{{hard}}},"used":{{{used}}}}}}}"#
            ))
            .unwrap()
        };
        let requests = Resources { milli_cpu: 300, memory: 1 << 20, pods: 1, ..Resources::default() };
        let pod = CountedPod { class: "prod", ends_by_itself: false, requests: &requests };
        let cases = [
            ("nothing is limited", quota("", "", ""), true),
            ("pods are left", quota(r#""pods":"5""#, r#""pods":"4""#, ""), true),
            ("no pod is left", quota(r#""count/pods":"5""#, r#""count/pods":"5""#, ""), false),
            ("just enough CPU", quota(r#""requests.cpu":"1""#, r#""requests.cpu":"700m""#, ""), true),
            ("too little CPU", quota(r#""cpu":"1""#, r#""cpu":"701m""#, ""), false),
            ("limits are not known", quota(r#""limits.cpu":"1""#, r#""limits.cpu":"1""#, ""), true),
            ("devices that it does not ask for", quota(r#""requests.example.com/gpu":"0""#, "", ""), true),
            ("another scope", quota(r#""pods":"0""#, "", r#""scopes":["Terminating"]"#), true),
            (
                "its scope",
                quota(r#""pods":"0""#, "", r#""scopes":["NotTerminating","NotBestEffort"]"#),
                false,
            ),
            (
                "its class",
                quota(
                    r#""pods":"0""#,
                    "",
                    r#""scopeSelector":{"matchExpressions":[{"scopeName":"PriorityClass","operator":"In","values":["prod"]}]}"#,
                ),
                false,
            ),
        ];
        for (what, quota, expected) in cases {
            assert_eq!(leaves_room_for(&quota, &pod), expected, "{what}");
        }
    }
}
