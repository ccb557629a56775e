//! Nominated pods stand before pods of equal priority in the scheduler: they must not keep out a daemon pod that goes first.

use super::*;

/// The scheduler counts a nominated pod against pods of equal priority: it must not keep out a daemon pod that goes first and would
/// land without it.
#[test]
fn no_daemon_pod_is_kept_out_by_one_behind_it() {
    // 400m are left: the small one fits, the large one does not.
    let world = |large: i32, small: i32| {
        let mut world = Stage::of(TestCluster::new());
        world.node("n1", json!({}));
        let younger = json!({"metadata": {"creationTimestamp": "2021-01-01T00:00:00Z"}});
        world.daemon_set("a-large", with(template(json!({"priority": large})), younger));
        let older = json!({"metadata": {"creationTimestamp": "2020-01-01T00:00:00Z"}});
        world.daemon_set("small", with(template(json!({"priority": small})), older));
        world.pod(&on(pod("o", "600m"), "n1"));
        world.pod(&priority(sized(failed("a-large", "n1", 1), "500m"), large));
        world
    };
    let cases = [
        ("equals", 0, 0, vec![]),
        ("the large one is more important", 1, 0, vec![sets("a-large-n1", "n1")]),
        ("the small one is more important", 0, 1, vec![sets("a-large-n1", "n1")]),
    ];
    for (what, large, small, expected) in cases {
        assert_eq!(world(large, small).nominations(), expected, "{what}");
    }

    // The small one has landed, and is deleted in a rolling update while the large one is nominated.
    let mut world = world(0, 0);
    let landed = sized(on(daemon_pod("small", "n1"), "n1"), "300m");
    world.pod(&landed);
    assert_eq!(world.nominations(), [sets("a-large-n1", "n1")]);
    world.written("a-large-n1", 2);
    world.pod(&nominated(sized(failed("a-large", "n1", 1), "500m"), "n1", 2));
    world.wait(10.0);
    assert_eq!(world.nominations(), []);
    world.delete_pod("small-n1");
    assert_eq!(world.nominations(), [clears("a-large-n1")], "its place is its own");

    let mut world = world_of("600m", &[("a-large", "800m"), ("small", "300m")]);
    assert_eq!(
        world.nominations(),
        [sets("small-n1", "n1")],
        "the older one goes first, and the other cannot fit beside it"
    );
    let mut world = world_of("600m", &[("a-large", "500m"), ("small", "300m")]);
    assert_eq!(world.nominations(), [sets("small-n1", "n1")], "has room");

    let mut world = world_of("700m", &[("a", "400m"), ("b", "100m")]);
    assert_eq!(world.nominations(), [sets("b-n1", "n1")], "the second has room");
    let mut world = world_of("700m", &[("a", "400m"), ("b", "350m")]);
    assert_eq!(world.nominations().len(), 2, "neither fits");
    // Two that want the same port of the host.
    let port = json!({"spec": {"containers": [{
        "name": "c", "ports": [{"containerPort": 1, "hostPort": 9100}], "resources": {"requests": {"cpu": "10m"}},
    }]}});
    let mut world = world_of("995m", &[("a", "10m"), ("b", "10m")]);
    for name in ["a", "b"] {
        world.pod(&with(failed(name, "n1", 2), port.clone()));
    }
    world.pod(&on(pod("o", "985m"), "n1"));
    assert_eq!(
        world.nominations(),
        [sets("b-n1", "n1")],
        "the older one; the port of the other would keep it out"
    );

    // Two that do not fit either are nominated together.
    let mut world = Stage::of(TestCluster::new());
    world.node("n1", json!({}));
    world.pod(&on(pod("o", "900m"), "n1"));
    for name in ["a", "b"] {
        world.daemon_set(name, json!({}));
        world.pod(&failed(name, "n1", 1));
    }
    assert_eq!(world.nominations(), [sets("a-n1", "n1"), sets("b-n1", "n1")]);
}
