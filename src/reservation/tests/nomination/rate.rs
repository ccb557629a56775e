//! The bounds of nominations: their rate, their number, and the turn of each pod.

use super::*;

/// Returns 200 nodes on which a pod of `d` has failed; the last node has the oldest hold.
fn two_hundred() -> (Stage, Vec<String>) {
    let names: Vec<String> = (0..200).rev().map(|number| format!("n{number:03}")).collect();
    let mut world = Stage::of(TestCluster::new());
    world.daemon_set("d", json!({}));
    for name in &names {
        world.node(name, json!({}));
        world.pod(&on(pod(&format!("o-{name}"), "900m"), name));
        world.refresh();
        world.wait(0.001);
    }
    for name in names.iter().rev() {
        world.pod(&failed("d", name, 1));
    }
    (world, names)
}

fn nodes((nominations, dropped): (Vec<Nomination>, usize)) -> (Vec<String>, usize) {
    let node = |nomination: Nomination| nomination.node.unwrap().to_string();
    (nominations.into_iter().map(node).collect(), dropped)
}

#[test]
fn within_a_rate_and_the_oldest_holds_first() {
    let (mut world, names) = two_hundred();
    assert_eq!(nodes(world.nominate()), (names[..50].to_vec(), 150), "a burst");
    let nothing_written = |world: &mut Stage, names: &[String]| {
        for name in names {
            world.answer(&format!("d-{name}"), &NominationOutcome::Outdated);
        }
    };
    nothing_written(&mut world, &names[..50]);
    world.wait(1.0);
    assert_eq!(nodes(world.nominate()), (names[50..75].to_vec(), 0), "a second later; counted once in two");
    nothing_written(&mut world, &names[50..75]);

    // The scheduler places ten pods in a second: it is busy.
    for number in 0..10 {
        let name = format!("web-{number}");
        world.pod(&pod(&name, "1m"));
        world.pod(&on(pod(&name, "1m"), "elsewhere"));
    }
    world.wait(1.0);
    // The first are due again, and come first.
    assert_eq!(nodes(world.nominate()), (names[..5].to_vec(), 170), "a fifth of the rate");
    world.wait(1.0);
    nothing_written(&mut world, &names[..5]);
    assert_eq!(nodes(world.nominate()).0.len(), 25, "idle again");
}

#[test]
fn within_a_number() {
    let (mut world, names) = two_hundred();
    for _ in 0..10 {
        for name in nodes(world.nominate()).0 {
            world.written(&format!("d-{name}"), 2);
            world.pod(&nominated(failed("d", &name, 1), &name, 2));
        }
        world.wait(2.0);
    }
    assert_eq!((world.nominated_now(), nodes(world.nominate())), (100, (vec![], 100)), "no more at once");
    world.pod(&on(failed("d", &names[7], 3), &names[7]));
    assert_eq!(nodes(world.nominate()).0, [names[100].clone()], "one has landed, and the next is nominated");
}

/// An admission policy refuses every pod: the pods behind them in the queue have their turn all the same.
#[test]
fn nobody_waits_behind_pods_that_are_refused() {
    let (mut world, names) = two_hundred();
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..20 {
        for name in nodes(world.nominate()).0 {
            world.answer(&format!("d-{name}"), &NominationOutcome::Refused);
            asked.insert(name);
        }
        world.wait(0.5);
    }
    assert_eq!(asked.len(), names.len());
}
