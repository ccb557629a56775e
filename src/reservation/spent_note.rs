//! The note of what holds and gates have spent, for the replica that judges next: a change of the judge gives no time back.
//!
//! It has the charged seconds of each namespace, and of each hold and gate its clocks, and whether its time is up. Seconds
//! whose hold is not in the note, or is not known to the next judge, stay charged for their hour: nothing refunds them. Times are
//! ages, for the clocks of two machines differ; the time between the writing and the reading of the note is a few seconds, and adds
//! to them.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Reservation;
use super::hold::HoldState;
use crate::cache::Cache;

/// The longest note, in bytes. An annotation may have 256 KiB; the note is written again whenever it changes, twice a second at
/// most.
pub const MAX_NOTE: usize = 32 * 1024;
/// The part of it that the charged seconds of namespaces may take: forty namespaces with the most ranges that a minute can have.
const MAX_OF_NAMESPACES: usize = MAX_NOTE / 4 * 3;
/// The bytes of an entry in the note, beyond its names and ranges.
const ENTRY_BYTES: usize = 80;
/// The bytes of a range in the note.
const RANGE_BYTES: usize = 12;

/// Ages in seconds, in ranges that include their ends.
type Ages = Vec<(u64, u64)>;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct SpentNote<'a> {
    /// The charged seconds by namespace: those that have spent most.
    namespaces: BTreeMap<String, Ages>,
    /// The holds that have spent most.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    holds: Vec<SpentTime<'a>>,
    /// The gates that have spent most.
    #[serde(borrow, skip_serializing_if = "Vec::is_empty")]
    gates: Vec<SpentTime<'a>>,
}

/// The times of a hold or of a gate.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct SpentTime<'a> {
    #[serde(borrow)]
    node: Cow<'a, str>,
    /// The DaemonSet's UID.
    #[serde(borrow)]
    uid: Cow<'a, str>,
    /// The seconds on both clocks: of a hold, while the pod would fit and while not; of a gate, at any door and at `/bind`.
    seconds: (u64, u64),
    #[serde(skip_serializing_if = "is_false")]
    expired: bool,
    /// The seconds that were charged for a hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    charged: Ages,
}

impl<'a> SpentTime<'a> {
    fn new(node: &'a str, uid: &'a str, (first, second): (Duration, Duration), expired: bool) -> Self {
        let seconds = (first.as_secs(), second.as_secs());
        Self { node: node.into(), uid: uid.into(), seconds, expired, charged: Ages::new() }
    }

    fn bytes(&self) -> usize {
        self.node.len() + self.uid.len() + ENTRY_BYTES + self.charged.len() * RANGE_BYTES
    }

    fn times(&self) -> (Duration, Duration) {
        let most = |seconds: u64| Duration::from_secs(seconds).min(MAX_SPENT);
        (most(self.seconds.0), most(self.seconds.1))
    }
}

impl Reservation {
    /// Returns what holds, gates and namespaces have spent, as JSON of 32 KiB at most: of each kind those that have spent most.
    /// Empty if nothing is spent.
    pub fn spent_note(&mut self, cache: &Cache, now: Instant) -> String {
        let mut room = MAX_NOTE;
        let mut note = SpentNote::default();
        let mut namespaces: Vec<_> = self.wait_budgets.ages(now).into_iter().collect();
        let seconds = |ages: &Ages| ages.iter().map(|(first, last)| last - first + 1).sum::<u64>();
        namespaces.sort_by_key(|(_, ages)| Reverse(seconds(ages)));
        for (namespace, ages) in namespaces.into_iter().filter(|(_, ages)| !ages.is_empty()) {
            let bytes = namespace.len() + ENTRY_BYTES + ages.len() * RANGE_BYTES;
            if bytes < room.saturating_sub(MAX_NOTE - MAX_OF_NAMESPACES) {
                room -= bytes;
                note.namespaces.insert(namespace, ages);
            }
        }
        let (mut holds, mut gates) = (Vec::new(), Vec::new());
        for (id, node) in cache.nodes() {
            let Some(row) = self.nodes.get(id) else { continue };
            for hold in row.holds.iter().filter(|hold| !hold.is_blank()) {
                let is_expired = hold.state == HoldState::Expired;
                let spent = SpentTime::new(&node.name, &hold.daemon_set_uid, hold.spent(), is_expired);
                holds.push((spent, Some(&hold.charged)));
            }
            for gate in row.gates.iter().filter(|gate| !gate.is_blank()) {
                let spent = SpentTime::new(&node.name, &gate.daemon_set_uid, gate.spent(), gate.is_expired);
                gates.push((spent, None));
            }
        }
        for (from, to) in [(&mut holds, &mut note.holds), (&mut gates, &mut note.gates)] {
            from.retain(|(spent, _)| spent.expired || spent.seconds != (0, 0));
            from.sort_by_key(|(spent, _)| Reverse(spent.seconds.0 + spent.seconds.1));
            for (mut spent, charged) in from.drain(..) {
                // Only of those that may be noted: there can be thousands, and the cache is locked.
                if let Some(charged) = charged {
                    spent.charged = self.wait_budgets.ages_of(charged, now);
                }
                if spent.bytes() >= room {
                    break;
                }
                room -= spent.bytes();
                to.push(spent);
            }
        }
        if note == SpentNote::default() {
            return String::new();
        }
        // A map of texts and numbers has a form in JSON.
        serde_json::to_string(&note).unwrap_or_default()
    }

    /// Takes over what the replica that judged before has noted. A note that cannot be read changes nothing. Call it before this
    /// process judges.
    pub fn restore_spent(&mut self, cache: &Cache, note: &str, now: Instant) {
        if note.len() > 2 * MAX_NOTE {
            return;
        }
        let Ok(note) = serde_json::from_str::<SpentNote<'_>>(note) else { return };
        // What was charged while this process judged it has charged itself.
        let known_from =
            self.judged_until.map_or(u64::MAX, |end| now.saturating_duration_since(end).as_secs() + 1);
        let news = |ages: &Ages| -> Ages {
            let young = ages.iter().filter(|(first, _)| *first <= known_from);
            young.map(|(first, last)| (*first, (*last).min(known_from))).collect()
        };
        for spent in &note.holds {
            let Some((id, _)) = cache.node(&spent.node) else { continue };
            self.refresh(cache, id, now);
            let Some(hold) = self.nodes[id].holds.iter_mut().find(|hold| *hold.daemon_set_uid == *spent.uid)
            else {
                continue;
            };
            hold.restore_spent(spent.times(), spent.expired, now);
            let namespace = &self.daemon_sets[hold.pod.daemon_set].reference.namespace;
            // Seconds that this process has charged for it itself are later than those, and stand in order.
            let of_hold = Some(&mut hold.charged).filter(|charged| charged.is_empty());
            self.wait_budgets.restore(namespace, &news(&spent.charged), of_hold, now);
            self.ticking.insert(id);
            self.mark_dirty(id);
        }
        for spent in &note.gates {
            let Some((id, _)) = cache.node(&spent.node) else { continue };
            self.refresh(cache, id, now);
            let gates = &mut self.nodes[id].gates;
            if let Some(gate) = gates.iter_mut().find(|gate| *gate.daemon_set_uid == *spent.uid) {
                gate.restore_spent(spent.times(), spent.expired, now);
                self.ticking.insert(id);
                self.mark_dirty(id);
            }
        }
        for (namespace, ages) in &note.namespaces {
            self.wait_budgets.restore(namespace, &news(ages), None, now);
        }
    }
}

/// The most time that a note can add to a clock: longer than any timeout that is of use.
const MAX_SPENT: Duration = Duration::from_secs(7 * 24 * 3600);

/// For serde: a word that is false is left out.
fn is_false(value: &bool) -> bool {
    !value
}
