//! The policy rules: checks for what Kubernetes accepts and what then fails or harms the DaemonSet. One file per rule.
//!
//! docs/rules.md is [`markdown`]'s output; a test compares them.

mod affinity_names_node;
mod host_network_dns;
mod host_port_surge;
mod managed_label_selector;
mod name_too_long;
mod no_priority_class;
mod no_requests;
mod node_name_in_template;
mod on_delete_rolling_update;
mod scheduling_gates;
mod tolerates_everything;
mod toleration_seconds;

use super::live_rules::LIVE_RULES;
use super::rule::Rule;

/// All rules that need no live data, those of level Deny first. Faults are reported in this order.
pub const RULES: &[Rule] = &[
    managed_label_selector::RULE,
    name_too_long::RULE,
    node_name_in_template::RULE,
    host_port_surge::RULE,
    no_requests::RULE,
    no_priority_class::RULE,
    scheduling_gates::RULE,
    host_network_dns::RULE,
    affinity_names_node::RULE,
    toleration_seconds::RULE,
    on_delete_rolling_update::RULE,
    tolerates_everything::RULE,
];

/// Returns the text of docs/rules.md.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Policy rules\n\n\
         <!-- Made from the table in src/admission/validation/rules.rs: run `UPDATE_GOLDEN=1 cargo test --test offline rules_doc`. -->\n\n\
         Beside Kubernetes' own rules, which always refuse, daemonset-warden checks for what Kubernetes accepts and what\n\
         then fails or harms the DaemonSet. Each rule has a level, which the configuration can change by the rule's id:\n\n\
         ```yaml\n\
         admission:\n\
         \x20 rules: {no-requests: Off, host-port-surge: Deny}         # Deny | Warn | Off\n\
         ```\n\n\
         A fault that the stored object has already does not refuse an update: it is a warning. Updates that do not change the spec\n\
         and objects that are being deleted are not checked. The rules apply to Kubernetes' own DaemonSets (`apps`). Sources are files\n\
         of kubernetes v1.36.3.\n\n\
         | id | default | finds |\n|---|---|---|\n",
    );
    for rule in RULES {
        text += &rule.table_row("");
    }
    for rule in LIVE_RULES {
        text += &rule.table_row(" (live data)");
    }
    text += "\nRules marked *live data* check the DaemonSet against the cluster at the time of the request. They are silent while the\n\
             server runs standalone, while its cache is not fresh, and for a DaemonSet that is refused already. One with more than\n\
             5,000 elements, with more than 5,000,000 comparisons with nodes, or whose check takes longer than 1.5 s is not checked: a\n\
             warning says so, or the DaemonSet is denied if one of these rules has the level Deny (`admission.oversized`).\n";
    text.extend(RULES.iter().map(Rule::section));
    text.extend(LIVE_RULES.iter().map(Rule::section));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::daemonset::DaemonSet;

    /// Objects with faults, with their fields, and objects without, for every rule.
    #[test]
    fn rules_find_what_they_say() {
        let surge = r#""updateStrategy":{"rollingUpdate":{"maxSurge":"10%","maxUnavailable":0}}"#;
        let cases: &[(&str, &str, &[&str])] = &[
            (
                "managed-label-selector",
                r#"{"spec":{"selector":{"matchLabels":{"app":"a","controller-revision-hash":"b"}}}}"#,
                &["spec.selector.matchLabels[controller-revision-hash]"],
            ),
            (
                "managed-label-selector",
                r#"{"spec":{"selector":{"matchExpressions":[{"key":"app","operator":"Exists"},{"key":"topology.kubernetes.io/zone","operator":"In","values":["a"]},{"key":"pod-template-generation","operator":"DoesNotExist"}]}}}"#,
                &["spec.selector.matchExpressions[1]", "spec.selector.matchExpressions[2]"],
            ),
            (
                "managed-label-selector",
                r#"{"spec":{"selector":{"matchExpressions":[{"key":"topology.kubernetes.io/region","operator":"Exists"}]}}}"#,
                &[],
            ),
            ("name-too-long", r#"{"metadata":{"name":"LONG"}}"#, &["metadata.name"]),
            ("name-too-long", r#"{"metadata":{"name":"short"}}"#, &[]),
            (
                "node-name-in-template",
                r#"{"spec":{"template":{"spec":{"nodeName":"n"}}}}"#,
                &["spec.template.spec.nodeName"],
            ),
            (
                "host-port-surge",
                r#"{"spec":{SURGE,"template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":1,"hostPort":1}]}]}}}}"#,
                &["spec.updateStrategy.rollingUpdate.maxSurge"],
            ),
            (
                "host-port-surge",
                r#"{"spec":{SURGE,"template":{"spec":{"hostNetwork":true,"containers":[{"name":"c","ports":[{"containerPort":1}]}]}}}}"#,
                &["spec.updateStrategy.rollingUpdate.maxSurge"],
            ),
            (
                "host-port-surge",
                r#"{"spec":{SURGE,"template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":1}]}]}}}}"#,
                &[],
            ),
            (
                "host-port-surge",
                r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","ports":[{"containerPort":1,"hostPort":1}]}]}}}}"#,
                &[],
            ),
            (
                "no-requests",
                r#"{"spec":{"template":{"spec":{"containers":[{"name":"c"}]}}}}"#,
                &["spec.template.spec.containers"],
            ),
            (
                "no-requests",
                r#"{"spec":{"template":{"spec":{"containers":[{"name":"c","resources":{"limits":{"memory":"1Mi"}}}]}}}}"#,
                &[],
            ),
            (
                "no-requests",
                r#"{"spec":{"template":{"spec":{"containers":[{},{"name":"c","resources":{"requests":{"cpu":"1m"}}}]}}}}"#,
                &[],
            ),
            (
                "no-requests",
                r#"{"spec":{"template":{"spec":{"resources":{"requests":{"cpu":"1m"}},"containers":[{}]}}}}"#,
                &[],
            ),
            ("no-priority-class", r#"{}"#, &["spec.template.spec.priorityClassName"]),
            ("no-priority-class", r#"{"spec":{"template":{"spec":{"priorityClassName":"p"}}}}"#, &[]),
            (
                "scheduling-gates",
                r#"{"spec":{"template":{"spec":{"schedulingGates":[{"name":"g"}]}}}}"#,
                &["spec.template.spec.schedulingGates"],
            ),
            (
                "host-network-dns",
                r#"{"spec":{"template":{"spec":{"hostNetwork":true,"dnsPolicy":"ClusterFirst"}}}}"#,
                &["spec.template.spec.dnsPolicy"],
            ),
            (
                "host-network-dns",
                r#"{"spec":{"template":{"spec":{"hostNetwork":true}}}}"#,
                &["spec.template.spec.dnsPolicy"],
            ),
            (
                "host-network-dns",
                r#"{"spec":{"template":{"spec":{"hostNetwork":true,"dnsPolicy":"ClusterFirstWithHostNet"}}}}"#,
                &[],
            ),
            ("host-network-dns", r#"{"spec":{"template":{"spec":{"dnsPolicy":"ClusterFirst"}}}}"#, &[]),
            (
                "affinity-names-node",
                r#"{"spec":{"template":{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[]},{"matchFields":[{"key":"metadata.name","operator":"In","values":["n"]}]}]}}}}}}}"#,
                &[
                    "spec.template.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[1].matchFields",
                ],
            ),
            (
                "toleration-seconds",
                r#"{"spec":{"template":{"spec":{"tolerations":[{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":5},{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute"},{"key":"other","operator":"Exists","effect":"NoExecute","tolerationSeconds":5}]}}}}"#,
                &["spec.template.spec.tolerations[0].tolerationSeconds"],
            ),
            (
                "on-delete-rolling-update",
                r#"{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":{"maxSurge":1}}}}"#,
                &["spec.updateStrategy.rollingUpdate"],
            ),
            (
                "on-delete-rolling-update",
                r#"{"spec":{"updateStrategy":{"type":"OnDelete","rollingUpdate":{}}}}"#,
                &[],
            ),
            (
                "on-delete-rolling-update",
                r#"{"spec":{"updateStrategy":{"rollingUpdate":{"maxUnavailable":1}}}}"#,
                &[],
            ),
            (
                "tolerates-everything",
                r#"{"spec":{"template":{"spec":{"tolerations":[{"key":"a"},{"operator":"Exists"}]}}}}"#,
                &["spec.template.spec.tolerations[1]"],
            ),
        ];
        for (id, text, fields) in cases {
            let rule = RULES.iter().find(|rule| rule.id == *id).unwrap();
            let text = text.replace("SURGE", surge).replace("LONG", &"n".repeat(243));
            let daemon_set: DaemonSet = serde_json::from_str(&text).unwrap();
            let found: Vec<String> =
                (rule.check)(&daemon_set).iter().map(|fault| fault.field.to_string()).collect();
            assert_eq!(found, *fields, "{id} {text}");
        }
        for rule in RULES {
            assert!(cases.iter().any(|(id, ..)| *id == rule.id), "{} is not tested", rule.id);
        }
    }
}
