//! The answers of the apiserver to the writes of nominations.

use super::*;

/// A hold has ended and its nomination is taken back: the possible answers to that write.
#[test]
fn a_nomination_is_taken_back_until_that_is_done() {
    let ending = || {
        let mut world = Stage::nominated_by_us();
        world.end_holds();
        assert_eq!(world.nominations(), [clears("d-n1")]);
        world
    };
    for outcome in [NominationOutcome::Outdated, NominationOutcome::Unknown] {
        let mut world = ending();
        world.answer("d-n1", &outcome);
        assert_eq!(world.nominated_now(), 1, "{outcome:?}: still ours");
        world.wait(2.0);
        assert_eq!(world.nominations(), [clears("d-n1")], "{outcome:?}: once more");
    }
    // There is no answer.
    let mut world = ending();
    world.wait(15.0);
    assert_eq!(world.nominations(), [clears("d-n1")]);

    // The watch is first, and the scheduler nominates the pod before the answer comes.
    let mut world = ending();
    world.pod(&failed("d", "n1", 3));
    world.written("d-n1", 3);
    assert_eq!(world.nominated_now(), 0);
    world.pod(&nominated(failed("d", "n1", 3), "n1", 4));
    world.wait(10.0);
    assert_eq!(world.nominations(), [], "not ours");
}

#[test]
fn only_the_answer_to_the_last_write_counts() {
    let mut world = waiting();
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    let first = world.asked["d-n1"].clone();
    world.wait(15.0);
    world.pod(&failed("d", "n1", 2));
    assert_eq!(world.nominations(), [sets("d-n1", "n1")]);
    world.nomination_done(&first, &NominationOutcome::Outdated);
    world.written("d-n1", 3);
    world.pod(&nominated(failed("d", "n1", 2), "n1", 3));
    assert_eq!(world.nominated_now(), 1);
    world.nomination_done(&first, &NominationOutcome::Outdated);
    assert_eq!(world.nominated_now(), 1);
    world.nomination_done(&Nomination { uid: "nobody".into(), ..first }, &NominationOutcome::Unknown);
}

/// Another pod of the node was deleted, and the node is dirty since.
#[test]
fn an_answer_may_come_between_an_event_and_what_follows_from_it() {
    let mut world = world_of("900m", &[("a", "300m"), ("b", "300m")]);
    assert_eq!(world.nominations().len(), 2);
    world.delete_pod("b-n1");
    world.written("a-n1", 2);
    assert_eq!(world.nominated_now(), 1);
}

/// The process that nominated the pod has ended, or another replica judges now.
#[test]
fn the_next_judge_takes_back_what_another_one_has_nominated() {
    let by_us = |pod: Value| {
        with(
            pod,
            json!({"metadata": {"managedFields": [{"manager": "daemonset-warden", "subresource": "status"}]}}),
        )
    };
    for (is_ours, expected) in [(true, vec![clears("d-n1")]), (false, vec![])] {
        let mut world = waiting();
        let judge = |world: &mut Stage, is_judging: bool| {
            let TestCluster { view: View { cache, reservation }, now } = &mut world.world;
            reservation.set_judging(cache, is_judging, *now);
        };
        judge(&mut world, false);
        assert_eq!(world.nominations(), [], "the judge alone nominates");
        let pod = nominated(failed("d", "n1", 2), "n1", 2);
        world.pod(&if is_ours { by_us(pod) } else { pod });
        judge(&mut world, true);
        assert_eq!(world.nominated_now(), usize::from(is_ours));
        world.end_holds();
        assert_eq!(world.nominations(), expected);
    }
}
