//! The table that decides which connection of a port gives way to a newcomer. PURE: it is told events, in their order, and opens and
//! closes nothing.
//!
//! ```text
//! open ──▶ Handshakes ──handshaken──▶ Common | Certified        a group each, with a limit of its own
//!             │                            │
//!             ▼                            ▼
//!          waiting                      waiting ◀──idle── ──busy──▶ busy       only a waiting connection gives way
//!             └──────────────┬─────────────┘
//!                            ▼
//!                         leaving ──busy──▶ busy     a request came before the connection heard of it: it keeps its place
//! ```
//!
//! Of a group that is over its limit, the connection that has waited for the longest gives way. An address that holds more
//! connections of the group than `TableLimits::address` comes first, the largest of them before the others. A newcomer is judged
//! as those before it: it waits for the shortest time, so it gives way only where no other can.
//!
//! Each event takes logarithmic time.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use enum_map::{Enum, EnumMap};
use slab::Slab;

/// The number of connections that a table has places for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableLimits {
    /// Those whose TLS handshake has not ended.
    pub(crate) handshakes: usize,
    /// The others.
    pub(crate) connections: usize,
    /// Those of [`Self::connections`] that are kept for clients with a certificate.
    pub(crate) certified: usize,
    /// Those beyond [`Self::connections`] that are told of it.
    pub(crate) surplus: usize,
    /// Those of one address and group up to which larger addresses give way before it.
    pub(crate) address: usize,
}

/// A number that stands for a connection until it is closed.
pub(crate) type ConnectionId = usize;

/// The answer to a newcomer, and the signals of the connections that give way to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Admission<S> {
    pub(crate) verdict: AdmissionVerdict,
    pub(crate) gave_way: Vec<S>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AdmissionVerdict {
    /// The connection has a place.
    Placed,
    /// The connection has a place only to be told that there is none.
    Surplus,
    /// The connection has to close.
    Refused,
}

/// The connections of a port. `S` is the signal by which a connection is told that it gives way.
#[derive(Debug)]
pub(crate) struct ConnectionTable<S> {
    limits: TableLimits,
    rows: Slab<ConnectionRow<S>>,
    groups: EnumMap<Group, GroupMembers>,
    next_turn: u64,
}

#[derive(Debug)]
struct ConnectionRow<S> {
    signal: S,
    address: IpAddr,
    group: Group,
    state: RowState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RowState {
    /// No request is in flight. The longest waiting connection has the lowest number.
    Waiting(u64),
    Busy,
    /// Told to give way, and counted no longer.
    Leaving,
}

/// Connections that give way to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
enum Group {
    Handshakes,
    Common,
    Certified,
}

/// The turns and connections of those that wait, the longest waiting first.
type Queue = BTreeSet<(u64, ConnectionId)>;

/// The connections of a group, without those that leave.
#[derive(Debug, Default)]
struct GroupMembers {
    count: usize,
    waiting: Queue,
    by_address: HashMap<IpAddr, AddressMembers>,
    /// The addresses over their limit that have a waiting connection, with the number of their connections.
    large: BTreeSet<(usize, IpAddr)>,
}

#[derive(Debug, Default)]
struct AddressMembers {
    count: usize,
    waiting: Queue,
}

impl<S: Clone> ConnectionTable<S> {
    /// Returns an empty table.
    pub(crate) fn new(limits: TableLimits) -> Self {
        Self { limits, rows: Slab::new(), groups: EnumMap::default(), next_turn: 0 }
    }

    /// Takes a connection whose handshake begins.
    pub(crate) fn open(&mut self, address: IpAddr, signal: S) -> (ConnectionId, Admission<S>) {
        self.insert(address, signal, Group::Handshakes)
    }

    /// Takes a connection that needs no handshake.
    pub(crate) fn open_plain(&mut self, address: IpAddr, signal: S) -> (ConnectionId, Admission<S>) {
        self.insert(address, signal, Group::Common)
    }

    /// Moves a connection whose handshake has ended to those that are served. One that was told to leave meanwhile is judged anew.
    pub(crate) fn handshaken(&mut self, id: ConnectionId, is_certified: bool) -> Admission<S> {
        self.set(id, RowState::Leaving);
        self.rows[id].group = if is_certified { Group::Certified } else { Group::Common };
        self.admit(id)
    }

    /// Records that a request is in flight. Until [`Self::idle`] the connection does not give way.
    pub(crate) fn busy(&mut self, id: ConnectionId) {
        self.set(id, RowState::Busy);
    }

    /// Records that no request is in flight any more.
    pub(crate) fn idle(&mut self, id: ConnectionId) {
        let waiting = RowState::Waiting(self.turn());
        self.set(id, waiting);
    }

    /// Returns true if the connection was told to leave, and no request has begun since.
    pub(crate) fn is_leaving(&self, id: ConnectionId) -> bool {
        self.rows[id].state == RowState::Leaving
    }

    /// Forgets a connection. Its number may be given to another.
    pub(crate) fn closed(&mut self, id: ConnectionId) {
        self.set(id, RowState::Leaving);
        self.rows.remove(id);
    }

    fn insert(&mut self, address: IpAddr, signal: S, group: Group) -> (ConnectionId, Admission<S>) {
        let id = self.rows.insert(ConnectionRow { signal, address, group, state: RowState::Leaving });
        (id, self.admit(id))
    }

    /// Takes `newcomer` into its group, and makes room for it.
    fn admit(&mut self, newcomer: ConnectionId) -> Admission<S> {
        self.idle(newcomer);
        let group = self.rows[newcomer].group;
        let mut gave_way = Vec::new();
        // More than one only after a connection kept its place because of a request that came meanwhile.
        while let Some(crowded) = self.crowded(group) {
            match self.groups[crowded].next_to_give_way() {
                Some(oldest) if oldest != newcomer => {
                    self.set(oldest, RowState::Leaving);
                    gave_way.push(self.rows[oldest].signal.clone());
                }
                _ => return Admission { verdict: self.without_a_place(newcomer), gave_way },
            }
        }
        Admission { verdict: AdmissionVerdict::Placed, gave_way }
    }

    /// Returns the group that has to give way after a newcomer to `group`. Those with a certificate have the places that are kept for
    /// them, and what others do not use beyond that.
    fn crowded(&self, group: Group) -> Option<Group> {
        let limits = &self.limits;
        let [handshakes, common, certified] = self.counts();
        match group {
            Group::Handshakes => (handshakes > limits.handshakes).then_some(Group::Handshakes),
            Group::Certified if certified <= limits.certified => None,
            _ if common > limits.common() => Some(Group::Common),
            _ if common + certified > limits.connections => Some(Group::Certified),
            _ => None,
        }
    }

    /// Judges a newcomer to whom no other gives way.
    fn without_a_place(&mut self, newcomer: ConnectionId) -> AdmissionVerdict {
        let (limits, group) = (&self.limits, self.rows[newcomer].group);
        let [_, common, certified] = self.counts();
        let is_surplus = match group {
            Group::Handshakes => false,
            Group::Common => {
                common <= limits.common() + limits.surplus
                    && common + certified <= limits.connections + limits.surplus
            }
            Group::Certified => common + certified <= limits.connections + limits.surplus,
        };
        if is_surplus {
            return AdmissionVerdict::Surplus;
        }
        self.set(newcomer, RowState::Leaving);
        AdmissionVerdict::Refused
    }

    /// Returns the number of connections of each group, without those that leave.
    fn counts(&self) -> [usize; 3] {
        self.groups.as_array().each_ref().map(|group| group.count)
    }

    fn turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    fn set(&mut self, id: ConnectionId, state: RowState) {
        let row = &mut self.rows[id];
        let before = std::mem::replace(&mut row.state, state);
        self.groups[row.group].change(row.address, self.limits.address, id, before, state);
    }
}

impl TableLimits {
    /// Returns the number of places for clients without a certificate.
    fn common(&self) -> usize {
        self.connections.saturating_sub(self.certified)
    }
}

impl GroupMembers {
    /// Changes the state of a connection of `address`.
    fn change(
        &mut self,
        address: IpAddr,
        address_limit: usize,
        id: ConnectionId,
        before: RowState,
        after: RowState,
    ) {
        let own = self.by_address.entry(address).or_default();
        let rank = own.rank(address_limit);
        for (count, waiting) in [(&mut self.count, &mut self.waiting), (&mut own.count, &mut own.waiting)] {
            if let RowState::Waiting(turn) = before {
                waiting.remove(&(turn, id));
            }
            if let RowState::Waiting(turn) = after {
                waiting.insert((turn, id));
            }
            *count += usize::from(after != RowState::Leaving);
            *count -= usize::from(before != RowState::Leaving);
        }
        let new_rank = own.rank(address_limit);
        if own.count == 0 {
            self.by_address.remove(&address);
        }
        if rank != new_rank {
            rank.map(|count| self.large.remove(&(count, address)));
            new_rank.map(|count| self.large.insert((count, address)));
        }
    }

    fn next_to_give_way(&self) -> Option<ConnectionId> {
        let largest = self.large.last().and_then(|(_, address)| self.by_address.get(address));
        let queue = largest.map_or(&self.waiting, |largest| &largest.waiting);
        queue.first().map(|(_, id)| *id)
    }
}

impl AddressMembers {
    /// Returns the number of connections of an address that has to give way before others.
    fn rank(&self, limit: usize) -> Option<usize> {
        (self.count > limit && !self.waiting.is_empty()).then_some(self.count)
    }
}

#[cfg(test)]
mod tests;
