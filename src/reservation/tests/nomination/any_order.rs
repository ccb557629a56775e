//! Events and the answers to nominations in any order: nothing panics, and nothing is remembered in the end.

use proptest::prelude::*;

use super::*;

/// One of two nodes.
fn a_node(dice: u64) -> &'static str {
    ["n1", "n2"][usize::from(dice & 1 == 1)]
}

/// Applies an event of one of four daemon pods, the nodes, or the DaemonSets.
fn happens(world: &mut Stage, kind: u8, dice: u64) {
    let (set, node, version) = (["a", "b"][usize::from(dice & 2 == 2)], a_node(dice), dice >> 2 & 7);
    let uid = format!("{set}-{node}");
    match kind {
        0..=5 => world.pod(&failed(set, node, version)),
        6 | 7 => world.pod(&nominated(failed(set, node, version), a_node(dice >> 5), version)),
        8 => world.pod(&on(failed(set, node, version), node)),
        9 => world.pod(&with(failed(set, node, version), json!({"metadata": {"ownerReferences": null}}))),
        10 | 11 => world.delete_pod(&uid),
        12 => world.delete_node(node),
        13 => world.node(node, json!({})),
        14 => world.pod(&on(pod(&format!("o-{node}"), ["900m", "500m"][usize::from(dice & 8 == 8)]), node)),
        15 => world.delete_pod(&format!("o-{node}")),
        16 => world.delete_daemon_set(&format!("ds-{set}")),
        17 => world.daemon_set(set, template(json!({"nodeSelector": {"none": "here"}}))),
        _ => world.daemon_set(set, json!({})),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 300 } else { 5000 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nominations_and_their_answers_may_come_between_any_events(events in prop::collection::vec((0_u8..30, any::<u64>()), 1..150)) {
        let mut world = Stage::of(TestCluster::new());
        for dice in 0..4 {
            happens(&mut world, 13, dice);
            happens(&mut world, 18, dice);
        }
        let mut asked: Vec<Nomination> = Vec::new();
        for (kind, dice) in events {
            match kind {
                20..=24 => {
                    world.wait([0.0, 0.3, 2.0, 16.0][usize::try_from(dice & 3).unwrap()]);
                    world.world.nominate();
                    let writes = world.view.reservation.take_writes().into_iter();
                    asked.extend(writes.filter_map(|write| if let ClusterWrite::Nominate(one) = write { Some(one) } else { None }));
                }
                25..=29 if !asked.is_empty() => {
                    let at = usize::try_from(dice % asked.len() as u64).unwrap();
                    let nomination = if dice & 64 == 64 { asked[at].clone() } else { asked.swap_remove(at) };
                    let outcome = match dice >> 8 & 7 {
                        0 => NominationOutcome::Outdated,
                        1 => NominationOutcome::Refused,
                        2 => NominationOutcome::Unknown,
                        version => NominationOutcome::Written { resource_version: version.to_string() },
                    };
                    world.nomination_done(&nomination, &outcome);
                }
                kind => happens(&mut world, kind % 20, dice),
            }
        }
        for dice in 0..4 {
            happens(&mut world, 10, dice);
            happens(&mut world, 12, dice);
        }
        world.wait(100.0);
        world.nominate();
        prop_assert!(world.view.reservation.nominations.remembers_nothing());
    }
}
