//! The configured priority class for daemon pods that have none, so that they can preempt ordinary pods.
//!
//! A priority class is a privilege: only pods that a trusted controller creates for an existing DaemonSet get it. A pod that
//! admission could refuse because of the class does not get it.

use serde::{Deserialize, Deserializer};

use super::patch::Patch;
use crate::api::admission_v1::AdmissionRequest;
use crate::api::decode_budget::DecodeBudget;
use crate::api::meta::{Metadata, or_default};
use crate::cache::Cache;
use crate::daemonset::daemon_pod::daemon_set_reference;
use crate::policy::Policy;
use crate::policy::opt_out::is_opted_out;
use crate::scheduling::quota;

/// The prefix of the names of classes that the apiserver creates.
const SYSTEM_PREFIX: &str = "system-";

/// The fields of a pod that decide.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct CandidatePod {
    #[serde(deserialize_with = "or_default")]
    metadata: Metadata,
    #[serde(deserialize_with = "or_default")]
    spec: CandidateSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CandidateSpec {
    #[serde(deserialize_with = "or_default")]
    priority_class_name: String,
    /// True if the field is present, even as `null`.
    #[serde(deserialize_with = "is_present")]
    priority: bool,
    /// True if the field is present, even as `null`.
    #[serde(deserialize_with = "is_present")]
    preemption_policy: bool,
}

/// Adds the configured class to the patch for the pod that `request` creates, if the pod may have it: `may_have` asks the cluster.
///
/// The apiserver's priority plugin has already set a priority and a preemption policy, from no class or from the cluster's
/// default class. The patch removes both, so that the plugin computes them again from the class; otherwise it would refuse the
/// pod (kubernetes v1.36.3 plugin/pkg/admission/priority/admission.go `admitPod`).
pub(super) fn add(
    policy: &Policy,
    request: &AdmissionRequest<'_>,
    pod: &str,
    budget: &DecodeBudget<'_>,
    may_have: impl FnOnce(&CandidatePod) -> bool,
    patch: &mut Patch,
) {
    let class = policy.admission.default_priority_class_name.as_str();
    let is_trusted = policy.trusted_controllers.iter().any(|name| *name == request.user_info.username);
    if class.is_empty() || !is_trusted {
        return;
    }
    // A pod that cannot be read gets no class.
    let Ok(pod) = budget.decode::<CandidatePod>(pod) else { return };
    if pod.spec.priority_class_name == class || is_opted_out(&pod.metadata.labels) || !may_have(&pod) {
        return;
    }
    patch.add(&["spec", "priorityClassName"], class);
    if pod.spec.priority {
        patch.remove(&["spec", "priority"]);
    }
    if pod.spec.preemption_policy {
        patch.remove(&["spec", "preemptionPolicy"]);
    }
}

/// Returns true if a pod of `namespace` may have the configured class, by its DaemonSet, the class and the quotas.
pub fn may_have(policy: &Policy, namespace: &str, pod: &CandidatePod, cluster: &Cache) -> bool {
    let class = policy.admission.default_priority_class_name.as_str();
    let own = pod.spec.priority_class_name.as_str();
    let owner = daemon_set_reference(&policy.daemon_set_kinds, &pod.metadata);
    let known = owner.and_then(|owner| Some((owner, cluster.daemon_set(&owner.uid)?.1)));
    let Some((owner, info)) = known else { return false };
    let daemon_set = &info.daemon_set;
    let template = &daemon_set.spec.template.spec;
    let is_genuine = info.owns(namespace, &pod.metadata.labels)
        && daemon_set.metadata.name == owner.name
        && *info.group == *owner.group();
    // The apiserver has put the cluster's default class into the pod; a class that the DaemonSet's author chose stays.
    let is_global_default = || cluster.priority_class(own).is_some_and(|class| class.global_default);
    let is_unset = template.priority_class_name.is_empty()
        && template.priority.is_none()
        && template.preemption_policy.is_empty()
        && (own.is_empty() || is_global_default());
    is_genuine && is_unset && exists(cluster, class) && !may_refuse(cluster, namespace, class, own)
}

fn exists(cluster: &Cache, class: &str) -> bool {
    cluster.priority_class(class).is_some_and(|class| !class.metadata.is_deleting())
}

/// Returns true if a quota could refuse the pod because of its new class.
///
/// A quota that counts the pod with and without the class makes no difference. A quota that counts the pod only with the class may
/// be used up. A system class outside kube-system may need a quota of its own, and the cache does not know how much of a quota is
/// used.
fn may_refuse(cluster: &Cache, namespace: &str, class: &str, before: &str) -> bool {
    let mut quotas = cluster.resource_quotas(namespace);
    let newly_counted =
        quotas.any(|quota| quota::may_count(quota, class) && !quota::may_count(quota, before));
    newly_counted || class.starts_with(SYSTEM_PREFIX) && namespace != "kube-system"
}

fn is_present<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(from).map(|_| true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admission::mutation;
    use crate::api::admission_v1;

    const CONTROLLER: &str = "system:serviceaccount:kube-system:daemon-set-controller";
    const CLASS: &str = r#"{"metadata":{"name":"daemon"},"value":1000}"#;

    fn patch(username: &str, spec: &str, class: &str, quota: &str) -> String {
        let mut policy = Policy::default();
        policy.admission.default_priority_class_name = "daemon".to_owned();
        let mut cluster = Cache::new(Arc::new(policy.clone()));
        let daemon_set = r#"{"metadata":{"name":"a","namespace":"s","uid":"u"},"spec":{"selector":{"matchLabels":{"a":"b"}}}}"#;
        cluster.apply_daemon_set("apps", serde_json::from_str(daemon_set).unwrap());
        cluster.apply_priority_class(serde_json::from_str(class).unwrap());
        cluster.apply_priority_class(
            serde_json::from_str(r#"{"metadata":{"name":"usual"},"value":1,"globalDefault":true}"#).unwrap(),
        );
        if !quota.is_empty() {
            cluster.apply_resource_quota(
                serde_json::from_str(&format!(
                    r#"{{"metadata":{{"name":"q","namespace":"s"}},"spec":{quota}}}"#
                ))
                .unwrap(),
            );
        }
        let pod = format!(
            r#"{{"metadata":{{"labels":{{"a":"b"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"DaemonSet","name":"a","uid":"u","controller":true}}]}},"spec":{spec}}}"#
        );
        let body = format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"1","kind":{{"group":"","version":"v1","kind":"Pod"}},"operation":"CREATE","namespace":"s","userInfo":{{"username":"{username}"}},"object":{pod}}}}}"#
        );
        let request = admission_v1::parse(body.as_bytes()).unwrap();
        mutation::review(&policy, &request, None, Some(&cluster)).unwrap().to_json()
    }

    #[test]
    fn a_class_is_given_only_where_nothing_can_refuse_the_pod_for_it() {
        let nothing = mutation::review(&Policy::default(), &admission_v1::parse(br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","operation":"CREATE"}}"#).unwrap(), None, None).unwrap().to_json();
        let spec = r#"{"priority":0,"preemptionPolicy":"PreemptLowerPriority"}"#;
        let given = patch(CONTROLLER, spec, CLASS, "");
        for part in [
            r#""/spec/priorityClassName""#,
            r#""daemon""#,
            r#""/spec/priority""#,
            r#""/spec/preemptionPolicy""#,
        ] {
            assert!(given.contains(part), "{given}");
        }
        assert!(!patch(CONTROLLER, "{}", CLASS, "").contains("remove"));
        assert_eq!(
            patch(
                CONTROLLER,
                r#"{"priorityClassName":"usual","priority":1,"preemptionPolicy":"a"}"#,
                CLASS,
                ""
            ),
            given
        );

        let scoped = r#"{"hard":{"pods":"1"},"scopeSelector":{"matchExpressions":[{"scopeName":"PriorityClass","operator":"In","values":["daemon"]}]}}"#;
        let cases = [
            patch("eve", spec, CLASS, ""),
            patch(CONTROLLER, r#"{"priorityClassName":"chosen"}"#, CLASS, ""),
            patch(CONTROLLER, r#"{"priorityClassName":"daemon"}"#, CLASS, ""),
            patch(CONTROLLER, spec, r#"{"metadata":{"name":"other"}}"#, ""),
            patch(CONTROLLER, spec, CLASS, scoped),
        ];
        for patch in cases {
            assert_eq!(patch, nothing);
        }
        assert_eq!(patch(CONTROLLER, spec, CLASS, r#"{"hard":{"pods":"1"}}"#), given, "counts it either way");
    }
}
