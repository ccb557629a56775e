//! Who is nominated, when, and whose nomination is taken back.

use super::*;
use crate::daemonset::policy::{Policy, ReservationMode};
use crate::daemonset::reservation::nomination::{Nomination, NominationOutcome};

/// A pod of `daemon_set` for `node` that the scheduler has tried and failed, at a version of its own.
fn failed(daemon_set: &str, node: &str, version: u64) -> Value {
    let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable"});
    with(
        daemon_pod(daemon_set, node),
        json!({"metadata": {"resourceVersion": version.to_string()}, "status": {"conditions": [condition]}}),
    )
}

fn because(pod: Value, reason: &str) -> Value {
    with(
        pod,
        json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason}]}}),
    )
}

fn nominated(pod: Value, node: &str, version: u64) -> Value {
    with(
        pod,
        json!({"metadata": {"resourceVersion": version.to_string()}, "status": {"nominatedNodeName": node}}),
    )
}

fn sized(base: Value, cpu: &str) -> Value {
    with(base, json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}))
}

/// The nodes of `names` have 100m left, and a pod of `d`, 300m, has failed on each.
fn waiting_on(names: &[&str], change: impl FnOnce(&mut Policy)) -> World {
    let mut world = World::with(change);
    world.daemon_set("d", json!({}));
    for name in names {
        world.node(name, json!({}));
        world.pod(&on(pod(&format!("o-{name}"), "900m"), name));
        world.pod(&failed("d", name, 1));
    }
    world
}

fn waiting() -> World {
    waiting_on(&["n1"], |_| {})
}

impl World {
    /// The nominations that are decided now, and how many were dropped.
    fn nominate(&mut self) -> (Vec<Nomination>, usize) {
        self.cluster.tick(self.now);
        let dropped = self.cluster.nominate(self.now);
        let effects = self.cluster.take_effects().into_iter();
        let of = |effect| if let Effect::Nominate(nomination) = effect { Some(nomination) } else { None };
        (effects.filter_map(of).collect(), dropped)
    }

    /// Pods and nodes of the nominations that are decided now; no node where one is taken back.
    fn nominations(&mut self) -> Vec<(String, Option<String>)> {
        let (nominations, _) = self.nominate();
        let short = |nomination: &Nomination| {
            (nomination.uid.to_string(), nomination.node.as_deref().map(str::to_owned))
        };
        nominations.iter().map(short).collect()
    }

    fn wait(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    fn written(&mut self, uid: &str, version: u64) {
        let outcome = NominationOutcome::Written { resource_version: version.to_string() };
        self.cluster.nomination_done(uid, &outcome, self.now);
    }

    /// The pod of `d` on n1 is nominated by this process, and the watch has brought it.
    fn nominated_by_us() -> Self {
        let mut world = waiting();
        assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
        world.written("d-n1", 2);
        world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
        assert_eq!(world.cluster.nominations_len(), 1);
        world.wait(10.0);
        assert_eq!(world.nominations(), []);
        world
    }
}

fn sets(uid: &str, node: &str) -> (String, Option<String>) {
    (uid.to_owned(), Some(node.to_owned()))
}

fn clears(uid: &str) -> (String, Option<String>) {
    (uid.to_owned(), None)
}

#[test]
fn the_pod_is_named_with_its_version() {
    let (nominations, dropped) = waiting().nominate();
    let expected = Nomination {
        namespace: "default".into(),
        name: "d-n1".into(),
        uid: "d-n1".into(),
        resource_version: "1".into(),
        node: Some("n1".into()),
    };
    assert_eq!((nominations, dropped), (vec![expected], 0));
}

#[test]
fn who_is_nominated() {
    let gone = |version| with(daemon_pod("d", "n1"), json!({"metadata": {"resourceVersion": version}}));
    let of_forger = with(failed("d", "n1", 1), json!({"metadata": {"labels": {"app": "x"}}}));
    let ignored = json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}});
    let cases = [
        ("failed", failed("d", "n1", 1), true),
        (
            "failed by an error, a refused binding among them",
            because(failed("d", "n1", 1), "SchedulerError"),
            true,
        ),
        ("waits for its gates", because(failed("d", "n1", 1), "SchedulingGated"), false),
        ("not tried yet", gone("1"), false),
        ("on its way out", terminating(failed("d", "n1", 1)), false),
        ("bound", on(failed("d", "n1", 1), "n1"), false),
        ("nominated by the scheduler, which preempts", nominated(failed("d", "n1", 1), "n1", 1), false),
        ("ignored", with(failed("d", "n1", 1), ignored), false),
        ("a forger's", of_forger, false),
        ("an ordinary pod", because(pod("p", "300m"), "Unschedulable"), false),
    ];
    for (what, pod, expected) in cases {
        let mut world = waiting();
        world.cluster.delete_pod("d-n1", world.now);
        world.pod(&pod);
        assert_eq!(!world.nominations().is_empty(), expected, "{what}");
    }
}

#[test]
fn when_nobody_is_nominated() {
    let modes = [
        (ReservationMode::Enforce, true, 1),
        (ReservationMode::Enforce, false, 0),
        (ReservationMode::Audit, true, 0),
        (ReservationMode::Off, true, 0),
    ];
    for (mode, nominate, expected) in modes {
        let mut world = waiting_on(&["n1"], |policy| {
            (policy.reservation.mode, policy.reservation.nominate) = (mode, nominate);
        });
        assert_eq!(world.nominations().len(), expected, "{mode:?}, nominate: {nominate}");
    }

    let mut world = waiting();
    world.node("n1", json!({"metadata": {"labels": {"daemonset-warden.io/ignore": "true"}}}));
    assert_eq!(world.nominations(), [], "an ignored node");

    let mut world = waiting();
    world.cluster.lose_sight();
    assert_eq!(world.nominations(), [], "a watch is broken");
    world.cluster.regain_sight();
    assert_eq!(world.nominations().len(), 1);

    let mut world = waiting();
    world.cluster.permit_nomination(false);
    assert_eq!(world.nominations(), [], "no right");
    world.cluster.permit_nomination(true);
    assert_eq!(world.nominations().len(), 1);
}

#[test]
fn a_node_in_doubt_waits() {
    // The scheduler offers the node to a pod that does not fit in our view: one has left whose end we have not seen.
    let mut world = World::new();
    world.daemon_set("d", template(json!({"priority": 0})));
    world.daemon_set("landed", template(json!({"priority": 100})));
    world.node("n1", json!({}));
    world.pod(&on(priority(daemon_pod("landed", "n1"), 100), "n1"));
    world.pod(&on(pod("o", "600m"), "n1"));
    world.pod(&failed("d", "n1", 1));
    assert_eq!(world.ask_one(&priority(pod("p", "200m"), 1), "n1"), Some(Kept::Stale));
    assert_eq!(world.nominations(), []);
    world.wait(2.0);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")], "the doubt has a clock");
}

/// Where nothing is left the scheduler keeps others off by itself, and a nomination would only cost it time.
#[test]
fn only_where_others_would_be_refused() {
    let memory = |amount: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "300m", "memory": amount}}}]}});
    let full = |world: &mut World| world.pod(&on(pod("rest", "100m"), "n1"));
    let mut world = waiting();
    full(&mut world);
    assert_eq!(world.nominations(), [], "no CPU is left");
    world.cluster.delete_pod("rest", world.now);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")], "as soon as some is");

    // A daemon that asks for memory too: a pod that asks for memory alone is refused, and from then on others would be.
    let mut world = waiting();
    full(&mut world);
    world.pod(&with(failed("d", "n1", 1), memory("1Gi")));
    assert_eq!(world.nominations(), [], "memory alone is of use to nobody we know");
    let asks = with(
        pod("p", "0"),
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"memory": "3500Mi"}}}]}}),
    );
    assert_eq!(world.ask_one(&asks, "n1"), Some(Kept::Room));
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);

    let mut world = waiting();
    world.node("n1", json!({"status": {"allocatable": {"pods": "1"}}}));
    assert_eq!(world.nominations(), [], "no slot for a pod is left");

    let mut world = waiting();
    world.pod(&terminating(on(with(daemon_pod("d", "n1"), json!({"metadata": {"uid": "old"}})), "n1")));
    assert_eq!(world.nominations(), [], "its predecessor still holds the room: it would count twice");
    world.cluster.delete_pod("old", world.now);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
}

#[test]
fn again_when_the_scheduler_has_cleared_it_but_not_at_once() {
    let mut world = waiting();
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    assert_eq!(world.nominations(), [], "under way");
    world.written("d-n1", 2);
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    world.pod(&failed("d", "n1", 3));
    assert_eq!(world.cluster.nominations_len(), 0, "cleared by the scheduler");
    world.wait(1.9);
    assert_eq!(world.nominations(), []);
    world.wait(0.1);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    // Nobody says what came of it: once more when the time comes.
    world.wait(2.0);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.cluster.nomination_done("d-n1", &NominationOutcome::Refused, world.now);
    world.wait(59.0);
    assert_eq!(world.nominations(), [], "refused for a reason that will not go in two seconds");
    world.wait(1.0);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.cluster.nomination_done("d-n1", &NominationOutcome::Outdated, world.now);
    world.wait(2.0);
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
}

#[test]
fn taken_back_when_the_hold_ends() {
    let not_wanted = |world: &mut World| world.daemon_set("d", template(json!({"nodeSelector": {"a": "b"}})));
    let mut world = World::nominated_by_us();
    not_wanted(&mut world);
    assert_eq!(world.nominations(), [clears("d-n1")]);
    world.written("d-n1", 3);
    world.pod(&failed("d", "n1", 3));
    world.wait(10.0);
    assert_eq!(world.nominations(), [], "once");

    let mut world = World::nominated_by_us();
    world.pod(&priority(on(pod("vip", "800m"), "n1"), 5));
    assert_eq!(world.nominations(), [clears("d-n1")], "it cannot fit any more");

    let mut world = World::nominated_by_us();
    world.cluster.delete_node("n1", world.now);
    assert_eq!(world.nominations(), [clears("d-n1")], "the node is gone");

    let mut world = World::nominated_by_us();
    world.pod(&on(failed("d", "n1", 9), "n1"));
    assert_eq!((world.nominations(), world.cluster.nominations_len()), (vec![], 0), "bound");

    let mut world = World::nominated_by_us();
    world.cluster.delete_pod("d-n1", world.now);
    assert_eq!((world.nominations(), world.cluster.nominations_len()), (vec![], 0), "gone");

    let mut world = waiting_on(&["n1"], |policy| policy.reservation.wait_timeout = Duration::from_secs(5));
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.written("d-n1", 2);
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    world.pod(&pod("p", "100m"));
    assert_eq!(world.ask_one(&pod("p", "100m"), "n1"), Some(Kept::Room));
    world.wait(5.0);
    assert_eq!(world.nominations(), [clears("d-n1")], "its time is up");
    world.wait(100.0);
    world.written("d-n1", 3);
    world.pod(&failed("d", "n1", 3));
    assert_eq!(world.nominations(), [], "room is held no longer");
}

#[test]
fn what_others_nominated_is_theirs() {
    let not_wanted = |world: &mut World| world.daemon_set("d", template(json!({"nodeSelector": {"a": "b"}})));
    // A predecessor's, or the scheduler's own.
    let mut world = waiting();
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    not_wanted(&mut world);
    assert_eq!(world.nominations(), []);

    // Ours was cleared, and then the scheduler nominated the pod itself.
    let mut world = World::nominated_by_us();
    world.pod(&failed("d", "n1", 3));
    world.pod(&nominated(failed("d", "n1", 3), "n1", 4));
    not_wanted(&mut world);
    assert_eq!(world.nominations(), []);

    // The same, and the answer to our patch comes after all of it.
    let mut world = waiting();
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    world.pod(&failed("d", "n1", 3));
    world.pod(&nominated(failed("d", "n1", 3), "n1", 4));
    world.written("d-n1", 2);
    not_wanted(&mut world);
    world.wait(10.0);
    assert_eq!(world.nominations(), []);

    // The answer comes before the watch brings what was written.
    let mut world = waiting();
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.written("d-n1", 2);
    world.pod(&with(failed("d", "n1", 1), json!({"spec": {"priority": 0}})));
    world.pod(&nominated(failed("d", "n1", 1), "n1", 2));
    not_wanted(&mut world);
    world.wait(10.0);
    assert_eq!(world.nominations(), [clears("d-n1")], "ours");

    // The scheduler preempts for a pod that we nominated before.
    let mut world = World::nominated_by_us();
    world.pod(&priority(terminating(on(pod("victim", "50m"), "n1")), -1));
    not_wanted(&mut world);
    assert_eq!(world.nominations(), [], "victims are leaving for it");
    world.cluster.delete_pod("victim", world.now);
    assert_eq!(world.nominations(), [clears("d-n1")]);
}

/// To the scheduler a nominated pod stands before its equals: it must not keep a daemon pod out that would land without it.
#[test]
fn no_daemon_pod_is_kept_out_by_an_equal() {
    // 400m are left: the small one fits, the large one does not.
    let world = |large: i32, small: i32| {
        let mut world = World::new();
        world.node("n1", json!({}));
        world.daemon_set("a-large", template(json!({"priority": large})));
        world.daemon_set("small", template(json!({"priority": small})));
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
    world.cluster.delete_pod("small-n1", world.now);
    assert_eq!(world.nominations(), [clears("a-large-n1")], "its place is its own");

    // Two that do not fit either are nominated together.
    let mut world = World::new();
    world.node("n1", json!({}));
    world.pod(&on(pod("o", "900m"), "n1"));
    for name in ["a", "b"] {
        world.daemon_set(name, json!({}));
        world.pod(&failed(name, "n1", 1));
    }
    assert_eq!(world.nominations(), [sets("a-n1", "n1"), sets("b-n1", "n1")]);
}

#[test]
fn within_a_rate_and_the_oldest_holds_first() {
    let names: Vec<String> = (0..200).map(|number| format!("n{number:03}")).collect();
    let mut world = World::new();
    world.daemon_set("d", json!({}));
    // The last comes first.
    for name in names.iter().rev() {
        world.node(name, json!({}));
        world.pod(&on(pod(&format!("o-{name}"), "900m"), name));
        world.cluster.refresh_all(world.now);
        world.wait(0.001);
    }
    for name in &names {
        world.pod(&failed("d", name, 1));
    }
    let rate = |world: &mut World| {
        let (nominations, dropped) = world.nominate();
        (
            nominations
                .into_iter()
                .map(|nomination| nomination.node.unwrap().to_string())
                .collect::<Vec<_>>(),
            dropped,
        )
    };
    let (first, dropped) = rate(&mut world);
    let oldest: Vec<String> = names.iter().rev().take(first.len()).cloned().collect();
    assert_eq!((first, dropped), (oldest, 150), "a burst of 50");
    assert_eq!(rate(&mut world), (vec![], 0), "counted once in two seconds");
    world.wait(1.0);
    assert_eq!(rate(&mut world).0.len(), 5, "five a second");
    world.wait(1.0);
    let (next, dropped) = rate(&mut world);
    assert_eq!(next.len(), 5);
    assert_eq!(dropped, 195, "the oldest are due again, and are served first");
}
