//! The note of what holds have spent, for the replica that judges next: a change of the judge gives no time back.
//!
//! It has the charged seconds of each namespace, and of each hold its clocks and the seconds that were charged for it. Seconds
//! whose hold is not in the note, or is not known to the next judge, stay charged for their hour: nothing refunds them. Times are
//! ages, for the clocks of two machines differ; the time between the writing and the reading of the note is a few seconds, and adds
//! to them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Reservation;
use super::hold::Hold;
use crate::cache::Cache;

/// The longest note, in bytes. An annotation may have 256 KiB; the note is written again whenever it changes, twice a second at
/// most.
const MAX_NOTE: usize = 16 * 1024;
/// The bytes of a hold in the note, beyond its names and ranges.
const HOLD_BYTES: usize = 64;
/// The bytes of a range in the note.
const RANGE_BYTES: usize = 12;

/// Ages in seconds, in ranges that include their ends.
type Ages = Vec<(u64, u64)>;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct SpentNote {
    /// The charged seconds by namespace.
    namespaces: BTreeMap<String, Ages>,
    /// The holds that have spent most.
    holds: Vec<SpentHold>,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct SpentHold {
    node: String,
    uid: String,
    /// The seconds on both clocks.
    fits: u64,
    waits: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    charged: Ages,
}

impl Reservation {
    /// Returns what the holds have spent, as JSON of 16 KiB at most: those that have spent most, and all namespaces as far as they
    /// fit. Empty if nothing is spent.
    pub fn spent_note(&mut self, cache: &Cache, now: Instant) -> String {
        let mut room = MAX_NOTE;
        let mut note = SpentNote::default();
        for (namespace, ages) in self.wait_budgets.ages(now) {
            let bytes = namespace.len() + HOLD_BYTES + ages.len() * RANGE_BYTES;
            if !ages.is_empty() && bytes < room / 2 {
                room -= bytes;
                note.namespaces.insert(namespace, ages);
            }
        }
        let is_spent = |hold: &Hold| !hold.is_blank() && !hold.spent().0.max(hold.spent().1).is_zero();
        let mut spent = Vec::new();
        for (id, node) in cache.nodes() {
            let holds = self.nodes.get(id).into_iter().flat_map(|row| &row.holds);
            spent.extend(holds.filter(|hold| is_spent(hold)).map(|hold| (node, hold)));
        }
        spent.sort_by_key(|(_, hold)| std::cmp::Reverse(hold.spent().0 + hold.spent().1));
        for (node, hold) in spent {
            let charged = self.wait_budgets.ages_of(&hold.charged, now);
            let bytes =
                node.name.len() + hold.daemon_set_uid.len() + HOLD_BYTES + charged.len() * RANGE_BYTES;
            if bytes >= room {
                break;
            }
            room -= bytes;
            let (fits, waits) = hold.spent();
            note.holds.push(SpentHold {
                node: node.name.to_string(),
                uid: hold.daemon_set_uid.to_string(),
                fits: fits.as_secs(),
                waits: waits.as_secs(),
                charged,
            });
        }
        if note == SpentNote::default() {
            return String::new();
        }
        // A map of texts and numbers has a form in JSON.
        serde_json::to_string(&note).unwrap_or_default()
    }

    /// Charges what the replica that judged before has noted. A note that cannot be read charges nothing. Call it once, before this
    /// process judges.
    pub fn restore_spent(&mut self, cache: &Cache, note: &str, now: Instant) {
        if note.len() > 2 * MAX_NOTE {
            return;
        }
        let Ok(note) = serde_json::from_str::<SpentNote>(note) else { return };
        for SpentHold { node, uid, fits, waits, charged } in &note.holds {
            let Some((id, _)) = cache.node(node) else { continue };
            self.refresh(cache, id, now);
            let Some(hold) = self.nodes[id].holds.iter_mut().find(|hold| *hold.daemon_set_uid == **uid)
            else {
                continue;
            };
            let most = |seconds: &u64| Duration::from_secs(*seconds).min(MAX_SPENT);
            hold.add_spent((most(fits), most(waits)));
            let namespace = &self.daemon_sets[hold.pod.daemon_set].reference.namespace;
            // Seconds that this process has charged for it itself are later than those, and stand in order.
            let of_hold = Some(&mut hold.charged).filter(|charged| charged.is_empty());
            self.wait_budgets.restore(namespace, charged, of_hold, now);
            self.ticking.insert(id);
            self.mark_dirty(id);
        }
        for (namespace, ages) in &note.namespaces {
            self.wait_budgets.restore(namespace, ages, None, now);
        }
    }
}

/// The most time that a note can add to a clock: longer than any timeout that is of use.
const MAX_SPENT: Duration = Duration::from_secs(7 * 24 * 3600);
