//! Who gives way: a table of cases, and random events beside a model that searches through all connections.

use proptest::prelude::*;

use super::*;

type Named = ConnectionTable<&'static str>;

fn limits() -> TableLimits {
    TableLimits { handshakes: 2, connections: 3, certified: 0, surplus: 1, address: 100 }
}

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

/// Opens connections that wait, one of each address and name.
fn served(limits: TableLimits, connections: &[(u8, &'static str)]) -> (Named, Vec<ConnectionId>) {
    let mut table = ConnectionTable::new(limits);
    let ids = connections.iter().map(|(from, name)| {
        let (id, admission) = table.open_plain(address(*from), *name);
        assert_eq!(admission, placed(&[]), "{name}");
        id
    });
    let ids = ids.collect();
    (table, ids)
}

fn placed(gave_way: &[&'static str]) -> Admission<&'static str> {
    Admission { verdict: AdmissionVerdict::Placed, gave_way: gave_way.to_vec() }
}

#[test]
fn the_longest_waiting_connection_gives_way() {
    let (mut table, ids) = served(limits(), &[(1, "a"), (2, "b"), (3, "c")]);
    // The first has just been used.
    table.busy(ids[0]);
    table.idle(ids[0]);
    assert_eq!(table.open_plain(address(4), "d").1, placed(&["b"]));
    assert_eq!(table.open_plain(address(4), "e").1, placed(&["c"]));
    assert_eq!(table.open_plain(address(4), "f").1, placed(&["a"]));
    assert!(ids.iter().all(|id| table.is_leaving(*id)));
}

#[test]
fn a_connection_with_a_request_in_flight_never_gives_way() {
    let (mut table, ids) = served(limits(), &[(1, "a"), (2, "b"), (3, "c")]);
    ids.iter().for_each(|id| table.busy(*id));
    let (surplus, admission) = table.open_plain(address(4), "d");
    assert_eq!((admission.verdict, admission.gave_way), (AdmissionVerdict::Surplus, Vec::new()));
    // The next one takes the place of the surplus one, and is surplus as well.
    let (next, admission) = table.open_plain(address(4), "e");
    assert_eq!((admission.verdict, admission.gave_way), (AdmissionVerdict::Surplus, vec!["d"]));
    assert!(table.is_leaving(surplus));
    table.busy(next);
    let (_, admission) = table.open_plain(address(4), "f");
    assert_eq!((admission.verdict, admission.gave_way), (AdmissionVerdict::Refused, Vec::new()));
    table.idle(ids[1]);
    // Both the surplus one and the newcomer are over the limit, and only one can give way.
    let (_, admission) = table.open_plain(address(4), "g");
    assert_eq!((admission.verdict, admission.gave_way), (AdmissionVerdict::Surplus, vec!["b"]));
}

#[test]
fn a_request_that_comes_in_the_last_moment_keeps_its_connection() {
    let (mut table, ids) = served(limits(), &[(1, "a"), (2, "b"), (3, "c")]);
    assert_eq!(table.open_plain(address(4), "d").1, placed(&["a"]));
    table.busy(ids[0]);
    assert!(!table.is_leaving(ids[0]));
    // There is one too many until the next newcomer.
    assert_eq!(table.open_plain(address(4), "e").1, placed(&["b", "c"]));
}

#[test]
fn the_largest_address_gives_way_first_once_it_holds_more_than_its_share() {
    let limits = TableLimits { connections: 6, address: 2, ..limits() };
    let connections = [(1, "a1"), (1, "a2"), (2, "b1"), (2, "b2"), (2, "b3"), (3, "c")];
    let (mut table, _) = served(limits, &connections);
    assert_eq!(table.open_plain(address(4), "d").1, placed(&["b1"]), "2 holds three");
    assert_eq!(table.open_plain(address(5), "e").1, placed(&["a1"]), "none holds three: the oldest of all");
    assert_eq!(table.open_plain(address(2), "b4").1, placed(&["b2"]), "2 holds three again");
    // The largest one is busy, and its newcomer is the only one of it that could give way.
    let (mut table, ids) = served(limits, &[(9, "a"), (8, "b"), (8, "c"), (8, "d"), (8, "e"), (8, "f")]);
    ids[1..].iter().for_each(|id| table.busy(*id));
    let (_, admission) = table.open_plain(address(8), "g");
    assert_eq!((admission.verdict, admission.gave_way), (AdmissionVerdict::Surplus, Vec::new()));
}

#[test]
fn handshakes_give_way_among_themselves() {
    let mut table = Named::new(limits());
    let (first, _) = table.open(address(1), "a");
    let (second, _) = table.open(address(1), "b");
    assert_eq!(table.open(address(2), "c").1, placed(&["a"]));
    assert_eq!(table.handshaken(second, false), placed(&[]));
    assert_eq!(table.open(address(2), "d").1, placed(&[]));
    // Its handshake ended before it heard that it had to leave.
    assert_eq!(table.handshaken(first, false), placed(&[]));
    assert_eq!(table.counts(), [2, 2, 0]);
}

#[test]
fn a_share_is_kept_for_certificates() {
    let limits = TableLimits { handshakes: 9, connections: 4, certified: 2, ..limits() };
    let mut table = Named::new(limits);
    let mut open = |name, is_certified| {
        let (id, _) = table.open(address(1), name);
        table.handshaken(id, is_certified)
    };
    assert_eq!(open("a", false), placed(&[]));
    assert_eq!(open("b", false), placed(&[]));
    assert_eq!(open("c", false), placed(&["a"]), "two of four places are kept");
    assert_eq!(open("x", true), placed(&[]));
    assert_eq!(open("y", true), placed(&[]));
    assert_eq!(open("d", false), placed(&["b"]), "those with a certificate stay");
    assert_eq!(open("z", true), placed(&["x"]));
}

#[test]
fn certificates_use_what_others_do_not() {
    let limits = TableLimits { handshakes: 9, connections: 4, certified: 2, ..limits() };
    let mut table = Named::new(limits);
    let mut open = |name, is_certified| {
        let (id, _) = table.open(address(1), name);
        table.handshaken(id, is_certified)
    };
    for name in ["x", "y", "z", "w"] {
        assert_eq!(open(name, true), placed(&[]));
    }
    assert_eq!(open("a", false), placed(&["x"]));
    assert_eq!(open("b", false), placed(&["y"]));
    assert_eq!(open("c", false), placed(&["a"]), "the rest is kept");
}

/// An event; connections are numbered by the order in which they opened.
#[derive(Debug, Clone, Copy)]
enum Event {
    Open(u8),
    OpenPlain(u8),
    Handshaken(prop::sample::Index, bool),
    Busy(prop::sample::Index),
    Idle(prop::sample::Index),
    Closed(prop::sample::Index),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = prop_oneof![
        4 => (0_u8..6).prop_map(Event::Open),
        2 => (0_u8..6).prop_map(Event::OpenPlain),
        4 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(which, is_certified)| Event::Handshaken(which, is_certified)),
        3 => any::<prop::sample::Index>().prop_map(Event::Busy),
        3 => any::<prop::sample::Index>().prop_map(Event::Idle),
        1 => any::<prop::sample::Index>().prop_map(Event::Closed),
    ];
    prop::collection::vec(one, 0..200)
}

fn some_limits() -> impl Strategy<Value = TableLimits> {
    (1_usize..6, 1_usize..12, 0_usize..6, 0_usize..3, 1_usize..5).prop_map(
        |(handshakes, connections, certified, surplus, address)| TableLimits {
            handshakes,
            connections,
            certified: certified.min(connections / 2),
            surplus,
            address,
        },
    )
}

/// A connection of the model.
#[derive(Debug, Clone, Copy)]
struct ModelConnection {
    number: usize,
    id: ConnectionId,
    address: IpAddr,
    group: Group,
    state: RowState,
}

/// The same rules, by a search through all connections.
#[derive(Default)]
struct Model {
    open: Vec<ModelConnection>,
    time: u64,
}

impl Model {
    fn count(&self, of: impl Fn(&ModelConnection) -> bool) -> usize {
        self.open.iter().filter(|one| one.state != RowState::Leaving && of(one)).count()
    }

    fn waiting(&mut self) -> RowState {
        self.time += 1;
        RowState::Waiting(self.time)
    }

    /// Returns the connection of `group` that gives way next: of the largest address over its share, else of all.
    fn next(&self, group: Group, limits: &TableLimits) -> Option<ModelConnection> {
        let waits = |one: &&ModelConnection| one.group == group && matches!(one.state, RowState::Waiting(_));
        let held = |of: IpAddr| self.count(|one| one.group == group && one.address == of);
        let large = self.open.iter().filter(waits).map(|one| (held(one.address), one.address));
        let largest = large.filter(|(count, _)| *count > limits.address).max();
        let candidates = self.open.iter().filter(waits);
        let candidates = candidates.filter(|one| largest.is_none_or(|(_, address)| one.address == address));
        candidates
            .min_by_key(|one| match one.state {
                RowState::Waiting(turn) => turn,
                RowState::Busy | RowState::Leaving => u64::MAX,
            })
            .copied()
    }

    fn crowded(&self, group: Group, limits: &TableLimits) -> Option<Group> {
        let of = |group| self.count(|one| one.group == group);
        let (common, certified) = (of(Group::Common), of(Group::Certified));
        let for_all = limits.connections - limits.certified;
        if group == Group::Handshakes {
            return (of(group) > limits.handshakes).then_some(group);
        }
        if group == Group::Certified && certified <= limits.certified {
            return None;
        }
        if common > for_all {
            return Some(Group::Common);
        }
        (common + certified > limits.connections).then_some(Group::Certified)
    }

    /// Takes the connection `number`, and returns the numbers of those that give way.
    fn admit(&mut self, number: usize, limits: &TableLimits) -> Vec<usize> {
        let waiting = self.waiting();
        let own = self.open.iter().position(|one| one.number == number).unwrap();
        self.open[own].state = waiting;
        let mut gave_way = Vec::new();
        while let Some(crowded) = self.crowded(self.open[own].group, limits) {
            let Some(next) = self.next(crowded, limits).filter(|next| next.number != number) else { break };
            let at = self.open.iter().position(|one| one.number == next.number).unwrap();
            self.open[at].state = RowState::Leaving;
            gave_way.push(next.number);
        }
        gave_way
    }
}

proptest! {
    #[test]
    fn no_event_lets_another_give_way_than_the_rules(limits in some_limits(), events in events()) {
        let (mut table, mut model) = (ConnectionTable::new(limits), Model::default());
        for (number, event) in events.into_iter().enumerate() {
            let pick = |of: &[ModelConnection], which: prop::sample::Index, fits: &dyn Fn(&ModelConnection) -> bool| {
                let fitting: Vec<_> = of.iter().copied().filter(|one| fits(one)).collect();
                (!fitting.is_empty()).then(|| *which.get(&fitting))
            };
            let (newcomer, admission) = match event {
                Event::Open(from) | Event::OpenPlain(from) => {
                    let group = if matches!(event, Event::Open(_)) { Group::Handshakes } else { Group::Common };
                    let address = address(from);
                    let (id, admission) = if group == Group::Handshakes {
                        table.open(address, number)
                    } else {
                        table.open_plain(address, number)
                    };
                    model.open.push(ModelConnection { number, id, address, group, state: RowState::Leaving });
                    (number, admission)
                }
                Event::Handshaken(which, is_certified) => {
                    let Some(one) = pick(&model.open, which, &|one| one.group == Group::Handshakes) else { continue };
                    let at = model.open.iter().position(|other| other.number == one.number).unwrap();
                    model.open[at].state = RowState::Leaving;
                    model.open[at].group = if is_certified { Group::Certified } else { Group::Common };
                    (one.number, table.handshaken(one.id, is_certified))
                }
                Event::Busy(which) => {
                    // Also a connection that was told to leave.
                    let Some(one) = pick(&model.open, which, &|one| one.group != Group::Handshakes) else { continue };
                    table.busy(one.id);
                    let at = model.open.iter().position(|other| other.number == one.number).unwrap();
                    model.open[at].state = RowState::Busy;
                    continue;
                }
                Event::Idle(which) => {
                    let Some(one) = pick(&model.open, which, &|one| one.state == RowState::Busy) else { continue };
                    table.idle(one.id);
                    let waiting = model.waiting();
                    let at = model.open.iter().position(|other| other.number == one.number).unwrap();
                    model.open[at].state = waiting;
                    continue;
                }
                Event::Closed(which) => {
                    let Some(one) = pick(&model.open, which, &|_| true) else { continue };
                    table.closed(one.id);
                    model.open.retain(|other| other.number != one.number);
                    continue;
                }
            };
            let before: Vec<_> = model.open.clone();
            prop_assert_eq!(&admission.gave_way, &model.admit(newcomer, &limits));
            for number in &admission.gave_way {
                let one = before.iter().find(|one| one.number == *number).unwrap();
                prop_assert!(matches!(one.state, RowState::Waiting(_)), "only those that wait give way: {one:?}");
                prop_assert!(table.is_leaving(one.id));
            }
            let own = model.open.iter().position(|one| one.number == newcomer).unwrap();
            let group = model.open[own].group;
            prop_assert_eq!(
                admission.verdict == AdmissionVerdict::Placed, model.crowded(group, &limits).is_none()
            );
            if admission.verdict == AdmissionVerdict::Refused {
                model.open[own].state = RowState::Leaving;
            }
            let of = |group| model.count(|one| one.group == group);
            let counts = [of(Group::Handshakes), of(Group::Common), of(Group::Certified)];
            prop_assert_eq!(table.counts(), counts);
            let [_, common, certified] = counts;
            // Certified connections within their share were not cut, whatever came.
            if group != Group::Certified && admission.gave_way.iter().any(|number| {
                before.iter().any(|one| one.number == *number && one.group == Group::Certified)
            }) {
                prop_assert!(certified >= limits.certified, "{common} {certified}");
            }
        }
        // Nothing is left of connections that have closed.
        for one in &model.open {
            table.closed(one.id);
        }
        prop_assert!(table.rows.is_empty());
        for group in table.groups.values() {
            prop_assert!(group.count == 0 && group.waiting.is_empty());
            prop_assert!(group.by_address.is_empty() && group.large.is_empty());
        }
    }
}
