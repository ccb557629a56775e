//! The nodes by id and by name, and for each a card: what answers nearly every question about it, in one cache line.
//!
//! A call of the scheduler asks for thousands of nodes. What is known of one takes hundreds of bytes in several places; the
//! card has its name, and how much it has left at least, if nothing is kept there. Whoever touches a node makes its card
//! invalid, and the next who has judged the node in full writes it anew: [`NodeTable::write_card`].

use std::hash::BuildHasher;
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use super::NodeId;
use super::node_state::{NodeState, Staleness};
use crate::scheduling::resources::Resources;

/// The nodes, with names that only pods mention.
#[derive(Debug, Default)]
pub(super) struct NodeTable {
    states: Slab<NodeState>,
    /// By id.
    cards: Vec<Card>,
    /// By the hash of the name.
    ids: HashTable<NodeId>,
    hash: DefaultHashBuilder,
}

/// What a pod asks for, if it is nothing unusual: rounded up.
#[derive(Debug, Clone, Copy)]
pub(in crate::daemonset) struct Modest {
    milli_cpu: u32,
    memory: u32,
    ephemeral_storage: u32,
    pods: u16,
}

/// How much of a name is on a card: all of most names, and with the rest it fills a cache line.
const HEAD: usize = 46;
/// What memory and storage are counted in here.
const MEBIBYTE: i64 = 1 << 20;

#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Card {
    /// The start of the name, and how long all of it is; of names that are longer than Kubernetes allows, that they are.
    head: [u8; HEAD],
    length: u16,
    /// What is left at least: rounded down, 0 where it is less than nothing. Thousandths.
    milli_cpu: u32,
    /// In [`MEBIBYTE`].
    memory: u32,
    /// In [`MEBIBYTE`].
    ephemeral_storage: u32,
    pods: u16,
    /// Whether nothing is kept there, nothing is to be worked out, and what it says is up to date.
    is_valid: bool,
}

impl NodeTable {
    pub(super) fn insert(&mut self, name: Arc<str>) -> NodeId {
        let card = Card::of(&name);
        let hash = self.hash.hash_one(&*name);
        let id = self.states.insert(NodeState::new(name));
        match self.cards.get_mut(id) {
            Some(old) => *old = card,
            // Ids are given from 0 on, and those of removed nodes again.
            None => self.cards.push(card),
        }
        let Self { states, ids, hash: hasher, .. } = self;
        ids.insert_unique(hash, id, |id| hasher.hash_one(&*states[*id].name));
        id
    }

    /// Takes out a node, which must be there.
    pub(super) fn remove(&mut self, id: NodeId) {
        let state = self.states.remove(id);
        self.cards[id].is_valid = false;
        let hash = self.hash.hash_one(&*state.name);
        if let Ok(entry) = self.ids.find_entry(hash, |other| *other == id) {
            entry.remove();
        }
    }

    #[inline]
    pub(super) fn id(&self, name: &str) -> Option<NodeId> {
        let is_it = |id: &NodeId| self.cards[*id].is_called(name, || &self.states[*id].name);
        self.ids.find(self.hash.hash_one(name), is_it).copied()
    }

    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.states.contains(id)
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&NodeState> {
        self.states.get(id)
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut NodeState> {
        let state = self.states.get_mut(id)?;
        self.cards[id].is_valid = false;
        Some(state)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.states.is_empty() && self.ids.is_empty()
    }

    /// Above every node's id.
    pub(super) fn capacity(&self) -> usize {
        self.states.capacity()
    }

    pub(super) fn iter(&self) -> slab::Iter<'_, NodeState> {
        self.states.iter()
    }

    /// To touch all nodes.
    pub(super) fn iter_mut(&mut self) -> slab::IterMut<'_, NodeState> {
        self.cards.iter_mut().for_each(|card| card.is_valid = false);
        self.states.iter_mut()
    }

    /// Whether a node's card says that nothing is kept there and that it has room for what is asked. If not, that is to be found
    /// out.
    #[inline]
    pub(super) fn surely_has_room(&self, id: NodeId, asked: Modest) -> bool {
        let card = &self.cards[id];
        card.is_valid
            && asked.milli_cpu <= card.milli_cpu
            && asked.memory <= card.memory
            && asked.ephemeral_storage <= card.ephemeral_storage
            && asked.pods <= card.pods
    }

    /// Writes a node's card anew, if there is anything to be said.
    pub(super) fn write_card(&mut self, id: NodeId) {
        let (card, state) = (&mut self.cards[id], &self.states[id]);
        card.is_valid = !state.is_dirty
            && !state.is_kept
            && state.node.is_some()
            && state.staleness == Staleness::UpToDate;
        if card.is_valid {
            let left = |all: i64, used: i64| all.saturating_sub(used).max(0);
            let mebibytes = |left: i64| u32::try_from(left / MEBIBYTE).unwrap_or(u32::MAX);
            let (all, used) = (&state.allocatable, &state.used);
            card.milli_cpu = u32::try_from(left(all.milli_cpu, used.milli_cpu)).unwrap_or(u32::MAX);
            card.memory = mebibytes(left(all.memory, used.memory));
            card.ephemeral_storage = mebibytes(left(all.ephemeral_storage, used.ephemeral_storage));
            card.pods = u16::try_from(left(all.pods, used.pods)).unwrap_or(u16::MAX);
        }
    }
}

impl Index<NodeId> for NodeTable {
    type Output = NodeState;

    fn index(&self, id: NodeId) -> &NodeState {
        &self.states[id]
    }
}

impl IndexMut<NodeId> for NodeTable {
    fn index_mut(&mut self, id: NodeId) -> &mut NodeState {
        self.cards[id].is_valid = false;
        &mut self.states[id]
    }
}

impl Modest {
    /// `None` for what no card tells of.
    pub(in crate::daemonset) fn of(asked: &Resources) -> Option<Self> {
        let mebibytes = |asked: i64| u32::try_from(asked.max(0).checked_add(MEBIBYTE - 1)? / MEBIBYTE).ok();
        if !asked.scalars.is_empty() {
            return None;
        }
        Some(Self {
            milli_cpu: u32::try_from(asked.milli_cpu.max(0)).ok()?,
            memory: mebibytes(asked.memory)?,
            ephemeral_storage: mebibytes(asked.ephemeral_storage)?,
            pods: u16::try_from(asked.pods.max(0)).ok()?,
        })
    }
}

impl Card {
    fn of(name: &str) -> Self {
        let start = &name.as_bytes()[..name.len().min(HEAD)];
        let mut head = [0; HEAD];
        head[..start.len()].copy_from_slice(start);
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        Self { head, length, milli_cpu: 0, memory: 0, ephemeral_storage: 0, pods: 0, is_valid: false }
    }

    /// Whether this is the name of its node; `whole` gives that if it must be looked at.
    #[inline]
    fn is_called<'s>(&self, name: &str, whole: impl FnOnce() -> &'s Arc<str>) -> bool {
        match name.as_bytes().get(..HEAD) {
            Some(head) if name.len() > HEAD => self.head == head && **whole() == *name,
            _ => usize::from(self.length) == name.len() && self.head[..name.len()] == *name.as_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scheduling::node::Node;

    #[test]
    fn a_card_fills_a_cache_line() {
        assert_eq!(size_of::<Card>(), 64);
    }

    #[test]
    fn a_node_is_called_by_its_whole_name() {
        let names = [1, HEAD - 1, HEAD, HEAD + 1, 2 * HEAD].map(|length| "n".repeat(length));
        let mut table = NodeTable::default();
        let ids: Vec<_> = names.iter().map(|name| table.insert(name.as_str().into())).collect();
        for (name, id) in names.iter().zip(&ids) {
            assert_eq!(table.id(name), Some(*id));
            assert_eq!(table.id(&format!("{}m", &name[1..])), None);
        }
        assert_eq!(table.id(""), None);
        table.remove(ids[2]);
        assert_eq!(table.id(&names[2]), None);
        let again = table.insert("other".into());
        assert_eq!((again, table.id("other")), (ids[2], Some(again)));
    }

    #[test]
    fn a_card_is_invalid_once_its_node_is_touched() {
        let nothing = Modest::of(&Resources::default()).unwrap();
        let mut table = NodeTable::default();
        let [id, other] = ["a", "b"].map(|name| table.insert(name.into()));
        table.write_card(id);
        assert!(!table.surely_has_room(id, nothing), "there is no Node of that name yet");
        let touches: [fn(&mut NodeTable, NodeId); 3] = [
            |table, id| table[id].is_dirty = false,
            |table, id| table.get_mut(id).unwrap().is_dirty = false,
            |table, _| table.iter_mut().for_each(drop),
        ];
        for touch in touches {
            for id in [id, other] {
                table[id].node = Some(Node::default());
                table.write_card(id);
                assert!(table.surely_has_room(id, nothing));
            }
            touch(&mut table, id);
            assert!(!table.surely_has_room(id, nothing));
        }
        let changes: [fn(&mut NodeState); 3] = [
            |state| state.is_dirty = true,
            |state| state.is_kept = true,
            |state| state.staleness = Staleness::GaveUp,
        ];
        for change in changes {
            change(&mut table[id]);
            table.write_card(id);
            assert!(!table.surely_has_room(id, nothing));
            table[id] = NodeState::new("a".into());
            table[id].node = Some(Node::default());
        }
    }

    proptest! {
        #[test]
        fn a_card_never_promises_too_much(amounts in prop::array::uniform12(prop_oneof![
            any::<i64>(), -3..5_i64, (0..4_i64, -1..2_i64).prop_map(|(mebibytes, more)| mebibytes * MEBIBYTE + more),
        ])) {
            let [all, used, asked] = [0, 4, 8].map(|at| Resources {
                milli_cpu: amounts[at],
                memory: amounts[at + 1],
                ephemeral_storage: amounts[at + 2],
                pods: amounts[at + 3],
                scalars: Vec::new(),
            });
            let mut table = NodeTable::default();
            let id = table.insert("a".into());
            let fits = all.has_room_beside(&used, &asked);
            (table[id].node, table[id].allocatable, table[id].used) = (Some(Node::default()), all, used);
            table.write_card(id);
            if let Some(modest) = Modest::of(&asked) {
                prop_assert!(fits || !table.surely_has_room(id, modest));
            }
        }
    }
}
