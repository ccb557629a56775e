//! The obstacle to scheduling a pending pod: room, or something else that no reserved room would help with.
//!
//! The scheduler's words are those of kubernetes v1.36.3 pkg/scheduler/framework/plugins: it filters by taints, node affinity,
//! ports and resources first, and by volumes, other pods and claims of devices after them (`getDefaultPlugins`,
//! apis/config/v1/default_plugins.go). So a message that names no lack of room means that the pod would fit.

use crate::api::pod::{Pod, PodCondition, PodSpec};

/// The obstacle to scheduling a pod that is not bound, by the pod itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// Room on the node, or the pod's turn.
    Room,
    /// Perhaps something else: claims, other pods, or a scheduler that has not taken the pod in hand.
    Uncertain,
    /// Something else: scheduling gates, or what the scheduler names.
    Other,
}

/// The scheduler of pods that name none (`v1.DefaultSchedulerName` upstream).
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// Parts of the scheduler's messages, and of this program's own, that say that room is lacking, or that the node is not open yet.
const LACK_OF_ROOM: [&str; 8] = [
    "Insufficient ",
    "Too many pods",
    "have free ports",
    "untolerated taint",
    "were unschedulable",
    "kept room for missing daemon pods",
    "waited for a required daemon pod",
    "had changed since they were last seen",
];
/// Parts of the scheduler's messages if it has no node of the pod's name: its watch of nodes may be behind.
const NO_SUCH_NODE: [&str; 2] = ["NodeAffinity", "didn't match Pod's node affinity/selector"];

/// Returns the obstacle to scheduling `pod`, which is not bound.
pub fn obstacle(pod: &Pod) -> Obstacle {
    let spec = &pod.spec;
    let unless_uncertain = if spec.depends_on_others() { Obstacle::Uncertain } else { Obstacle::Room };
    if !spec.scheduling_gates.is_empty() {
        return Obstacle::Other;
    }
    let is_scheduled =
        |condition: &&PodCondition| condition.kind == "PodScheduled" && condition.status == "False";
    match pod.status.conditions.iter().find(is_scheduled) {
        None => obstacle_before_first_try(spec),
        Some(condition) if condition.reason == "Unschedulable" && !condition.message.is_empty() => {
            let message = &*condition.message;
            if LACK_OF_ROOM.iter().any(|part| message.contains(part)) {
                unless_uncertain
            } else if !is_for_default_scheduler(spec) || names_only_other_nodes(message) {
                Obstacle::Uncertain
            } else {
                Obstacle::Other
            }
        }
        // Gates that were just removed, or an error of the scheduler, after which it tries again.
        Some(_) => unless_uncertain,
    }
}

/// Returns the obstacle to scheduling a pod that no scheduler has tried, such as the next one of a template.
pub fn obstacle_before_first_try(spec: &PodSpec) -> Obstacle {
    if !spec.scheduling_gates.is_empty() {
        Obstacle::Other
    } else if spec.depends_on_others() || !is_for_default_scheduler(spec) {
        Obstacle::Uncertain
    } else {
        Obstacle::Room
    }
}

fn is_for_default_scheduler(spec: &PodSpec) -> bool {
    matches!(spec.scheduler_name.as_str(), "" | DEFAULT_SCHEDULER)
}

/// Returns true if the message gives no reason but that nodes do not have the pod's name. A daemon pod's message says so of every
/// other node of the cluster, beside the reason of its own: "0/3 nodes are available: 1 node(s) didn't match pod topology spread
/// constraints, 2 node(s) didn't satisfy plugin(s) \[NodeAffinity\]. preemption: ..."
fn names_only_other_nodes(message: &str) -> bool {
    let reasons = message.split_once("available: ").map_or(message, |(_, reasons)| reasons);
    let reasons = reasons.split_once(". ").map_or(reasons, |(reasons, _)| reasons);
    reasons.split(", ").all(|reason| NO_SUCH_NODE.iter().any(|part| reason.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lack_of_room_is_helped_by_reserved_room() {
        let pod = |spec: &str, reason: &str, message: &str| -> Pod {
            let conditions = if reason.is_empty() {
                String::new()
            } else {
                format!(
                    r#"{{"type":"PodScheduled","status":"False","reason":"{reason}","message":"{message}"}}"#
                )
            };
            serde_json::from_str(&format!(
                r#"{{"spec":{{{spec}}},"status":{{"conditions":[{conditions}]}}}}"#
            ))
            .unwrap()
        };
        let claim = r#""volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"missing"}}]"#;
        let ephemeral = r#""volumes":[{"name":"v","ephemeral":{}}]"#;
        let near = r#""affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"zone"}]}}"#;
        let gates = r#""schedulingGates":[{"name":"g"}]"#;
        let other = r#""schedulerName":"nobody""#;
        let insufficient =
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity].";
        let ours = "running Bind plugin: node(s) kept room for missing daemon pods";
        let cases = [
            ("not tried yet", pod("", "", ""), Obstacle::Room),
            ("too little CPU", pod("", "Unschedulable", insufficient), Obstacle::Room),
            (
                "a port is taken",
                pod("", "Unschedulable", "1 node(s) didn't have free ports for the requested pod ports"),
                Obstacle::Room,
            ),
            ("a taint", pod("", "Unschedulable", "1 node(s) had untolerated taint(s)"), Obstacle::Room),
            ("this program", pod("", "SchedulerError", ours), Obstacle::Room),
            ("an empty volume", pod(r#""volumes":[{"emptyDir":{}}]"#, "", ""), Obstacle::Room),
            (
                "the scheduler has not seen the node",
                pod(
                    "",
                    "Unschedulable",
                    "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity].",
                ),
                Obstacle::Uncertain,
            ),
            (
                "the scheduler does not like the node",
                pod(
                    "",
                    "Unschedulable",
                    "0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
                ),
                Obstacle::Other,
            ),
            (
                "the scheduler has not seen the node, with advice",
                pod(
                    "",
                    "Unschedulable",
                    "0/3 nodes are available: 3 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
                ),
                Obstacle::Uncertain,
            ),
            ("gates", pod(gates, "SchedulingGated", ""), Obstacle::Other),
            ("a claim, not tried", pod(claim, "", ""), Obstacle::Uncertain),
            ("a claim is made for it", pod(ephemeral, "", ""), Obstacle::Uncertain),
            ("a claim, too little CPU", pod(claim, "Unschedulable", insufficient), Obstacle::Uncertain),
            (
                "a claim that does not exist",
                pod(
                    claim,
                    "Unschedulable",
                    r#"0/3 nodes are available: persistentvolumeclaim \"missing\" not found."#,
                ),
                Obstacle::Other,
            ),
            ("near others, not tried", pod(near, "", ""), Obstacle::Uncertain),
            (
                "near nobody",
                pod(
                    near,
                    "Unschedulable",
                    "1 node(s) didn't match pod affinity rules, 2 node(s) didn't match Pod's node affinity",
                ),
                Obstacle::Other,
            ),
            ("devices", pod(r#""resourceClaims":[{"name":"gpu"}]"#, "", ""), Obstacle::Uncertain),
            ("a scheduler that nobody serves", pod(other, "", ""), Obstacle::Uncertain),
            (
                "another scheduler in its own words",
                pod(other, "Unschedulable", "nothing today"),
                Obstacle::Uncertain,
            ),
            ("another scheduler that lacks room", pod(other, "Unschedulable", insufficient), Obstacle::Room),
        ];
        for (what, pod, expected) in cases {
            assert_eq!(obstacle(&pod), expected, "{what}");
        }
    }
}
