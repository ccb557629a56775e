//! The amounts that are reserved for a missing daemon pod, and those that count as requested.

use super::*;

/// Returns the most that an ordinary pod may request on n1, in thousandths of a CPU; the node has 1000.
fn room(world: &mut TestCluster) -> i64 {
    let fits = |world: &mut TestCluster, cpu: i64| {
        let refused = world.ask_one(&pod("probe", &format!("{cpu}m")), "n1").is_some();
        world.ask(&pod("probe", "1m"), &[]);
        !refused
    };
    (0..=1000).rev().step_by(50).find(|cpu| fits(world, *cpu)).unwrap_or(-1)
}

fn requests(cpu: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
}

#[test]
fn reserve_by_template() {
    let container = |resources: Value| json!({"containers": [{"name": "c", "resources": resources}]});
    let cases = [
        ("requests", template(requests("300m")), 700),
        ("limits as requests", template(container(json!({"limits": {"cpu": "400m"}}))), 600),
        ("limit range", template(container(json!({}))), 750),
        ("overhead", template(with(requests("300m"), json!({"runtimeClassName": "vm"}))), 600),
        (
            "an init container that asks for more",
            template(with(
                requests("300m"),
                json!({"initContainers": [{"name": "i", "resources": {"requests": {"cpu": "500m"}}}]}),
            )),
            500,
        ),
        (
            "a sidecar beside it",
            template(with(
                requests("300m"),
                json!({"initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}}]}),
            )),
            600,
        ),
        (
            "of the whole pod",
            template(with(requests("300m"), json!({"resources": {"requests": {"cpu": "450m"}}}))),
            550,
        ),
        ("cannot fit", template(requests("1100m")), 1000),
    ];
    for (what, change, expected) in cases {
        let mut world = TestCluster::new();
        let limits = json!([{"type": "Container", "defaultRequest": {"cpu": "250m"}}]);
        let range = json!({"metadata": {"name": "l", "namespace": "default"}, "spec": {"limits": limits}});
        world.event(|cache| cache.apply_limit_range(object(range, json!({}))));
        let class = json!({"metadata": {"name": "vm"}, "overhead": {"podFixed": {"cpu": "100m"}}});
        world.event(|cache| cache.apply_runtime_class(object(class, json!({}))));
        world.node("n1", json!({}));
        world.daemon_set("d", change);
        assert_eq!(room(&mut world), expected, "{what}");
    }
}

#[test]
fn reserve_by_pods() {
    let pod_of = |node: &str, uid: &str, cpu: &str, generation: &str, day: &str| {
        let metadata = json!({
            "uid": uid, "name": uid, "labels": {"pod-template-generation": generation},
            "creationTimestamp": format!("2026-01-{day}T00:00:00Z"),
        });
        with(daemon_pod("d", node), json!({"metadata": metadata, "spec": requests(cpu)}))
    };
    let elsewhere =
        |uid: &str, cpu: &str, generation: &str, day: &str| on(pod_of("n2", uid, cpu, generation, day), "n2");
    let cases = [
        (
            "the pending pod",
            vec![pod_of("n1", "a", "200m", "1", "01"), elsewhere("b", "500m", "1", "02")],
            800,
        ),
        ("the newest pod", vec![elsewhere("a", "500m", "1", "02"), elsewhere("b", "400m", "1", "01")], 500),
        (
            "of the current template",
            vec![elsewhere("a", "500m", "0", "02"), elsewhere("b", "400m", "1", "01")],
            600,
        ),
        ("none of the current template", vec![elsewhere("a", "500m", "0", "02")], 700),
        ("its own leave", vec![terminating(on(pod_of("n1", "a", "300m", "1", "01"), "n1"))], 700),
        (
            "its own leave, and the next asks for more",
            vec![
                terminating(on(pod_of("n1", "a", "300m", "1", "01"), "n1")),
                pod_of("n1", "b", "500m", "1", "02"),
            ],
            500,
        ),
    ];
    for (what, mut pods, expected) in cases {
        for _ in 0..2 {
            let mut world = TestCluster::new();
            world.node("n1", json!({}));
            pods.iter().for_each(|pod| world.pod(pod));
            world.daemon_set("d", json!({}));
            assert_eq!(room(&mut world), expected, "{what}");
            pods.reverse();
        }
    }
}

#[test]
fn missing_counts_where_nothing_is_reserved() {
    // The amounts of its terminating pod and of the hold cancel out, although the pod may have left already.
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    world.pod(&on(pod("o", "700m"), "n1"));
    world.pod(&terminating(on(daemon_pod("d", "n1"), "n1")));
    assert_eq!(world.ask_one(&pod("p", "300m"), "n1"), Some(FilterReason::Reserved));
    assert_eq!(world.ask_one(&pod("p", "0"), "n1"), None);
}

#[test]
fn several_priorities() {
    let of = |cpu: &str, priority: i32| template(with(requests(cpu), json!({"priority": priority})));
    let refused = |sets: &[(&str, i32)], asking: i32, cpu: &str| {
        let mut world = TestCluster::new();
        world.node("n1", json!({}));
        for (at, (cpu, priority)) in sets.iter().enumerate() {
            world.daemon_set(&format!("d{at}"), of(cpu, *priority));
        }
        world.ask_one(&priority(pod("p", cpu), asking), "n1").is_some()
    };
    let three = [("300m", 30), ("300m", 20), ("300m", 10)];
    assert_eq!(
        [0, 10, 11, 20, 21, 30, 31].map(|asking| refused(&three, asking, "200m")),
        [true, true, false, false, false, false, false]
    );
    assert_eq!(
        [10, 20, 21, 30, 31].map(|asking| refused(&three, asking, "500m")),
        [true, true, false, false, false]
    );
    assert_eq!([30, 31].map(|asking| refused(&three, asking, "800m")), [true, false]);
    // The second does not fit beside the first and takes nothing from the third.
    let together = [("600m", 30), ("600m", 20), ("300m", 10)];
    assert!(!refused(&together, 0, "100m") && refused(&together, 0, "150m"));
    assert!(!refused(&together, 20, "400m") && refused(&together, 20, "450m"));
}

#[test]
fn priority_by_class() {
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", template(json!({"priorityClassName": "high"})));
    let refused = |world: &mut TestCluster, asking: i32| {
        world.ask_one(&priority(pod("p", "800m"), asking), "n1").is_some()
    };
    assert!(refused(&mut world, 0) && !refused(&mut world, 1), "the class is not there");
    let class = json!({"metadata": {"name": "high"}, "value": 100});
    world.event(|cache| cache.apply_priority_class(object(class, json!({}))));
    assert!(refused(&mut world, 100) && !refused(&mut world, 101));
    world.daemon_set("d", json!({}));
    assert!(refused(&mut world, 0) && !refused(&mut world, 1), "no class");
    for (name, value) in [("usual", 7), ("more", 70)] {
        let class = json!({"metadata": {"name": name}, "value": value, "globalDefault": true});
        world.event(|cache| cache.apply_priority_class(object(class, json!({}))));
    }
    assert!(refused(&mut world, 7) && !refused(&mut world, 8), "the least of the defaults");
}

#[test]
fn slots_ports_and_extended_resources() {
    let ask = |set: Value, node: Value, asking: Value| {
        let mut world = TestCluster::new();
        world.node("n1", node);
        world.daemon_set("d", template(set));
        world.ask_one(&with(pod("p", "100m"), json!({"spec": asking})), "n1").is_some()
    };
    let slots = |pods: &str| json!({"status": {"allocatable": {"pods": pods}}});
    assert!(ask(json!({}), slots("1"), json!({})) && !ask(json!({}), slots("2"), json!({})));

    let port = |port: u16, protocol: &str, ip: &str| {
        let port = json!({"containerPort": port, "hostPort": port, "protocol": protocol, "hostIP": ip});
        json!({"containers": [{"name": "c", "ports": [port]}]})
    };
    let own = port(9100, "TCP", "");
    assert!(ask(own.clone(), json!({}), port(9100, "TCP", "10.0.0.1")));
    assert!(
        !ask(own.clone(), json!({}), port(9100, "UDP", "")) && !ask(own, json!({}), port(9101, "TCP", ""))
    );
    assert!(ask(
        with(
            port(0, "TCP", ""),
            json!({"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]})
        ),
        json!({}),
        port(80, "TCP", "")
    ));

    let gpu = |count: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": count}}}]});
    let node = || json!({"status": {"allocatable": {"example.com/gpu": "2"}}});
    assert!(
        ask(gpu("1"), node(), gpu("2"))
            && !ask(gpu("1"), node(), gpu("1"))
            && !ask(gpu("1"), node(), requests("1"))
    );
    assert!(!ask(gpu("3"), node(), gpu("2")), "cannot fit");
}

#[test]
fn resized_pods_hold_the_most_that_they_may() {
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let resized = |spec: &str, allocated: &str, actuated: &str, reason: &str| {
        let condition = json!({"type": "PodResizePending", "status": "True", "reason": reason});
        let status =
            json!({"name": "c", "allocatedResources": {"cpu": allocated}, "resources": resources(actuated)});
        with(
            on(pod("o", spec), "n1"),
            json!({"status": {"containerStatuses": [status], "conditions": [condition]}}),
        )
    };
    let cases = [
        (resized("100m", "100m", "100m", ""), 600),
        (resized("500m", "100m", "100m", "Deferred"), 200),
        (resized("100m", "500m", "100m", ""), 200),
        (resized("100m", "100m", "500m", ""), 200),
        (resized("600m", "100m", "100m", "Infeasible"), 600),
    ];
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    for (pod, expected) in cases {
        world.pod(&pod);
        assert_eq!(room(&mut world), expected, "{pod}");
    }
}

#[test]
fn nominated_pods_count_by_priority() {
    let nominated = |priority_of: i32| {
        priority(with(pod("o", "400m"), json!({"status": {"nominatedNodeName": "n1"}})), priority_of)
    };
    for (nominee, expected) in [(-1, 700), (0, 300), (5, 300)] {
        let mut world = TestCluster::new();
        world.node("n1", json!({}));
        world.daemon_set("d", template(with(requests("300m"), json!({"priority": 10}))));
        world.pod(&nominated(nominee));
        assert_eq!(room(&mut world), expected, "{nominee}");
        // Once it is allowed it is assumed, and not counted twice.
        assert_eq!(world.ask_one(&nominated(nominee), "n1"), None);
        assert_eq!(room(&mut world), 300, "{nominee}");
    }
    // A daemon pod that preempts is not counted beside its own hold.
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    world.pod(&with(daemon_pod("d", "n1"), json!({"status": {"nominatedNodeName": "n1"}})));
    assert_eq!(room(&mut world), 700);
}

#[test]
fn absurd_pods_leave_nothing_behind() {
    let mut world = TestCluster::new();
    world.node("n1", json!({}));
    world.daemon_set("d", json!({}));
    for name in ["a", "b"] {
        world.pod(&on(pod(name, "99999999999999999999"), "n1"));
    }
    for name in ["a", "b"] {
        world.delete_pod(name);
    }
    assert_eq!(room(&mut world), 700);
}
