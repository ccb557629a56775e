//! Events in any order: the cache and the reservation are equal to those built anew from the objects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::reservation::hold::HoldState;
use crate::reservation::node_reservation::NodeReservation;

/// The objects after the events.
#[derive(Debug, Default)]
struct Objects {
    nodes: BTreeMap<String, Value>,
    pods: BTreeMap<String, Value>,
    daemon_sets: BTreeMap<String, Value>,
    namespaces: BTreeMap<String, Value>,
    priority_classes: BTreeMap<String, Value>,
    limit_ranges: BTreeMap<String, Value>,
}

/// A source of small numbers, taken from a large one.
struct SeededRandom(u64);

impl SeededRandom {
    fn roll(&mut self, sides: u64) -> u64 {
        let rolled = self.0 % sides;
        self.0 /= sides;
        rolled
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const SETS: [&str; 3] = ["a", "b", "c"];
const NAMESPACES: [&str; 2] = ["default", "kube-system"];

fn random_node(dice: &mut SeededRandom, name: &str) -> Value {
    let mut node = node(name);
    if dice.one_in(4) {
        json_patch::merge(&mut node, &json!({"metadata": {"uid": "another"}}));
    }
    let taints = ["a", "ToBeDeletedByClusterAutoscaler", "node.kubernetes.io/not-ready"];
    if dice.one_in(3) {
        let taint = json!({"key": dice.pick(&taints), "effect": "NoSchedule"});
        json_patch::merge(&mut node, &json!({"spec": {"taints": [taint]}}));
    }
    let labels =
        json!({"zone": dice.pick(&["x", "y"]), "type": dice.pick(&["real", "real", "virtual-kubelet"])});
    let cpu = dice.pick(&["1", "500m", "2"]);
    with(node, json!({"metadata": {"labels": labels}, "status": {"allocatable": {"cpu": cpu}}}))
}

fn random_daemon_set(dice: &mut SeededRandom, name: &str) -> Value {
    let namespace = if name == "c" { "kube-system" } else { "default" };
    let generation = dice.pick(&["1", "2"]);
    let mut set = with(
        daemon_set(name),
        json!({
            "metadata": {"namespace": namespace, "annotations": {
                "deprecated.daemonset.template.generation": generation,
            }},
            "spec": {"template": {"spec": {
                "priorityClassName": dice.pick(&["", "high"]),
                "containers": [{"name": "c", "resources": {"requests": {"cpu": dice.pick(&["300m", "600m"])}}}],
            }}},
        }),
    );
    if dice.one_in(3) {
        let selector = json!({"zone": dice.pick(&["x", "y"])});
        json_patch::merge(&mut set, &json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}}));
    }
    if dice.one_in(4) {
        let surge = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
        json_patch::merge(&mut set, &json!({"spec": {"updateStrategy": surge}}));
    }
    if dice.one_in(6) {
        json_patch::merge(&mut set, &json!({"spec": {"selector": {"matchLabels": {"more": "x"}}}}));
    }
    if dice.one_in(6) {
        set = terminating(set);
    }
    if dice.one_in(4) {
        json_patch::merge(
            &mut set,
            &json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}}),
        );
    }
    set
}

fn random_pod(dice: &mut SeededRandom, name: &str) -> Value {
    let daemon = dice.roll(3) > 0;
    let node = dice.pick(&NODES);
    let mut made = if daemon {
        let set = dice.pick(&SETS);
        let namespace = if dice.one_in(6) != (set == "c") { "kube-system" } else { "default" };
        let generation = dice.pick(&["1", "2"]);
        let created = dice.pick(&["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"]);
        let more = dice.pick(&["", "x"]);
        with(
            daemon_pod(set, node),
            json!({"metadata": {
                "name": name, "uid": name, "namespace": namespace, "creationTimestamp": created,
                "labels": {"pod-template-generation": generation, "more": more},
            }}),
        )
    } else {
        pod(name, dice.pick(&["100m", "500m", "900m"]))
    };
    if dice.one_in(2) {
        made = on(made, node);
    } else if dice.one_in(2) {
        let failed = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]);
        let change = json!({"metadata": {"resourceVersion": "7"}, "status": {"conditions": failed}});
        json_patch::merge(&mut made, &change);
    } else if dice.one_in(4) {
        json_patch::merge(&mut made, &json!({"status": {"nominatedNodeName": dice.pick(&NODES)}}));
    }
    if dice.one_in(5) {
        made = terminating(made);
    }
    if dice.one_in(5) {
        json_patch::merge(&mut made, &json!({"status": {"phase": dice.pick(&["Failed", "Succeeded"])}}));
    }
    priority(made, if dice.one_in(3) { 10 } else { 0 })
}

/// Applies one event to the cluster and to the objects.
fn step(world: &mut TestCluster, objects: &mut Objects, kind: u8, dice: &mut SeededRandom) {
    match kind {
        0..=2 => {
            let name = dice.pick(&NODES);
            if dice.one_in(4) {
                objects.nodes.remove(name);
                world.delete_node(name);
            } else {
                let node = random_node(dice, name);
                world.event(|cache| cache.apply_node(object(node.clone(), json!({}))));
                objects.nodes.insert(name.to_owned(), node);
            }
        }
        3..=8 => {
            let name = dice.pick(&["p1", "p2", "p3", "p4", "p5", "p6"]);
            if dice.one_in(4) {
                objects.pods.remove(name);
                world.delete_pod(name);
            } else {
                let pod = random_pod(dice, name);
                world.pod(&pod);
                objects.pods.insert(name.to_owned(), pod);
            }
        }
        9..=11 => {
            let name = dice.pick(&SETS);
            if dice.one_in(4) {
                objects.daemon_sets.remove(name);
                world.delete_daemon_set(&format!("ds-{name}"));
            } else {
                let set = random_daemon_set(dice, name);
                world.event(|cache| cache.apply_daemon_set("apps", object(set.clone(), json!({}))));
                objects.daemon_sets.insert(name.to_owned(), set);
            }
        }
        12 => {
            let name = dice.pick(&NAMESPACES);
            if dice.one_in(3) {
                objects.namespaces.remove(name);
                world.delete_namespace(name);
            } else {
                let ignore = dice.pick(&["true", "false", "false"]);
                let labels = json!({"daemonset-warden.io/ignore": ignore});
                let namespace = json!({"metadata": {"name": name, "labels": labels}});
                world.event(|cache| cache.apply_namespace(object(namespace.clone(), json!({}))));
                objects.namespaces.insert(name.to_owned(), namespace);
            }
        }
        13 => {
            if dice.one_in(2) {
                objects.priority_classes.remove("high");
                world.event(|cache| cache.delete_priority_class("high"));
            } else {
                let class = json!({"metadata": {"name": "high"}, "value": dice.roll(2) * 100, "globalDefault": dice.one_in(2)});
                world.event(|cache| cache.apply_priority_class(object(class.clone(), json!({}))));
                objects.priority_classes.insert("high".to_owned(), class);
            }
        }
        14 => {
            if dice.one_in(2) {
                objects.limit_ranges.remove("l");
                world.event(|cache| cache.delete_limit_range("default", "l"));
            } else {
                let limits =
                    json!([{"type": "Container", "defaultRequest": {"cpu": dice.pick(&["50m", "250m"])}}]);
                let range =
                    json!({"metadata": {"name": "l", "namespace": "default"}, "spec": {"limits": limits}});
                world.event(|cache| cache.apply_limit_range(object(range.clone(), json!({}))));
                objects.limit_ranges.insert("l".to_owned(), range);
            }
        }
        15 => {
            world.now += Duration::from_millis(dice.roll(3000));
            world.tick();
        }
        _ => {
            let asks = random_pod(dice, dice_name(kind));
            world.ask(&with(asks, json!({"spec": {"nodeName": null}})), &["n1", "n2", "n3", "unknown"]);
        }
    }
}

fn dice_name(kind: u8) -> &'static str {
    if kind.is_multiple_of(2) { "p1" } else { "q" }
}

fn rebuilt(objects: &Objects) -> TestCluster {
    let mut world = TestCluster::new();
    world.delete_namespace("default");
    for pod in objects.pods.values().rev() {
        world.pod(pod);
    }
    for set in objects.daemon_sets.values().rev() {
        world.event(|cache| cache.apply_daemon_set("apps", object(set.clone(), json!({}))));
    }
    for node in objects.nodes.values().rev() {
        world.event(|cache| cache.apply_node(object(node.clone(), json!({}))));
    }
    for class in objects.priority_classes.values() {
        world.event(|cache| cache.apply_priority_class(object(class.clone(), json!({}))));
    }
    for range in objects.limit_ranges.values() {
        world.event(|cache| cache.apply_limit_range(object(range.clone(), json!({}))));
    }
    for namespace in objects.namespaces.values() {
        world.event(|cache| cache.apply_namespace(object(namespace.clone(), json!({}))));
    }
    world
}

/// Returns all derived values of both, by names, for ids differ.
fn summary(world: &mut TestCluster) -> Value {
    world.refresh_all();
    let View { cache, reservation } = &world.view;
    let set_name = |id: &usize| cache.daemon_set_by_id(*id).uid.to_string();
    let pod_names = |ids: &[usize]| -> BTreeSet<String> {
        ids.iter().map(|id| cache.pod_by_id(*id).uid.to_string()).collect()
    };
    let mut nodes = BTreeMap::new();
    for (id, node) in cache.nodes() {
        let row = &reservation.nodes[id];
        let missing = reservation.missing_on(cache, id);
        let missing: BTreeMap<String, String> = missing
            .iter()
            .map(|pod| {
                let pending = pod.pending.map(|pod| cache.pod_by_id(pod).uid.clone());
                (
                    set_name(&pod.daemon_set),
                    format!("{} {:?} {:?} {:?}", pod.priority(), pod.need(), pod.reserved(), pending),
                )
            })
            .collect();
        let holds = row.holds.iter().filter(|hold| hold.state != HoldState::NotMissing);
        let holds: BTreeMap<String, String> = holds
            .map(|hold| {
                (
                    set_name(&hold.pod.daemon_set),
                    format!(
                        "{:?} {:?} {} {:?}",
                        hold.state,
                        hold.pod.reserved(),
                        hold.fits_now,
                        hold.pod.priority()
                    ),
                )
            })
            .collect();
        let desired: BTreeSet<String> = row.desired.iter().map(set_name).collect();
        assert_eq!(desired.len(), row.desired.len());
        let summary = json!({
            "requested": format!("{:?}", node.requested), "allocatable": format!("{:?}", node.allocatable), "desired": desired,
            "highest": row.highest_desired_priority, "kept": row.has_hold_or_gate(), "missing": missing, "holds": holds,
            "pods": pod_names(&node.pods), "nominated": pod_names(&node.nominated), "daemons": pod_names(&node.daemon_pods),
            "may be nominated": reservation.may_be_nominated_on(cache, id),
        });
        nodes.insert(node.name.to_string(), summary);
    }
    let sets: BTreeMap<String, Value> = cache
        .daemon_sets()
        .map(|(id, info)| {
            let pods: Vec<usize> = info.pods.iter().copied().collect();
            let newest = info.newest_pod.map(|pod| cache.pod_by_id(pod).uid.to_string());
            let summary = json!({"pods": pod_names(&pods), "newest": newest, "demand": format!("{:?}", info.demand), "holds": reservation.daemon_sets[id].may_hold});
            (info.uid.to_string(), summary)
        })
        .collect();
    json!({"nodes": nodes, "sets": sets})
}

/// Panics unless each recorded id is of an object that exists, and ids that are not given out have empty records.
fn check_ids(View { cache, reservation }: &View) {
    cache.check_ids();
    let is_daemon_set = |id: usize, uid: &Arc<str>| cache.daemon_set(uid).is_some_and(|(own, _)| own == id);
    for (id, row) in reservation.nodes.iter().enumerate() {
        assert!(cache.node_if_known(id).is_some() || row.is_empty(), "a record of no node");
        assert!(row.desired.iter().all(|set| cache.daemon_set_if_known(*set).is_some()));
        for hold in &row.holds {
            assert!(is_daemon_set(hold.pod.daemon_set, &hold.daemon_set_uid));
            let pending = hold.pod.pending;
            assert!(row.is_dirty || pending.is_none_or(|pod| cache.pod_if_known(pod).is_some()));
        }
        assert!(row.gates.iter().all(|gate| is_daemon_set(gate.daemon_set, &gate.daemon_set_uid)));
    }
    for (id, row) in reservation.daemon_sets.iter().enumerate() {
        let info = cache.daemon_set_if_known(id);
        assert_eq!(&*row.reference.uid, info.map_or("", |info| &*info.uid));
        assert!(info.is_some() || !row.restricts_nodes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 100 } else { 2000 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_in_any_order_give_what_the_objects_give(events in prop::collection::vec((0_u8..20, any::<u64>()), 1..80)) {
        let mut world = TestCluster::with(|policy| policy.reservation.wait_timeout = Duration::from_secs(86_400));
        let mut objects = Objects::default();
        objects.namespaces.insert("default".to_owned(), json!({"metadata": {"name": "default"}}));
        for (at, (kind, dice)) in events.into_iter().enumerate() {
            step(&mut world, &mut objects, kind, &mut SeededRandom(dice));
            check_ids(&world.view);
            if at % 8 == 0 {
                prop_assert_eq!(summary(&mut world), summary(&mut rebuilt(&objects)));
            }
        }
        prop_assert_eq!(summary(&mut world), summary(&mut rebuilt(&objects)));
        check_ids(&world.view);

        for name in world.view.cache.node_names() {
            world.delete_node(&name);
        }
        for uid in world.view.cache.daemon_set_uids("apps", "") {
            world.delete_daemon_set(&uid);
        }
        for uid in world.view.cache.pod_uids() {
            world.delete_pod(&uid);
        }
        world.pass(60);
        let View { cache, reservation } = &world.view;
        prop_assert!(cache.is_empty());
        prop_assert!(reservation.nodes.iter().all(NodeReservation::is_empty));
        prop_assert!(reservation.nominations.remembers_nothing());
        prop_assert!(reservation.oldest.is_empty() && reservation.placing.is_empty());
        prop_assert!(reservation.unborn.is_empty());
        prop_assert!(reservation.dirty.is_empty() && reservation.waiting.is_empty() && reservation.assumed.is_empty());
    }
}
