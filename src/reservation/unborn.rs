//! The pods that room is held for before they exist, by namespace: no more than its quotas would ever take.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;

use super::Reservation;
use super::cluster_write::DaemonSetReference;
use super::hold::{Hold, HoldState};
use super::hold_basis::HoldBasis;
use crate::cache::{Cache, DaemonSetId, NodeId};

/// The number of such pods by namespace and DaemonSet.
#[derive(Debug, Default)]
pub(super) struct UnbornPods(HashMap<String, BTreeMap<DaemonSetId, u32>>);

/// A DaemonSet whose pod counts as unborn on a node. The names are its own, for the record of the DaemonSet may have gone.
pub(super) type UnbornPod = (DaemonSetId, Arc<DaemonSetReference>);

impl UnbornPods {
    fn add(&mut self, (id, daemon_set): &UnbornPod) {
        *self.0.entry_ref(daemon_set.namespace.as_str()).or_default().entry(*id).or_default() += 1;
    }

    fn remove(&mut self, (id, daemon_set): &UnbornPod) {
        let Some(of_namespace) = self.0.get_mut(&daemon_set.namespace) else { return };
        if let Some(count) = of_namespace.get_mut(id) {
            *count -= 1;
            if *count == 0 {
                of_namespace.remove(id);
            }
        }
        if of_namespace.is_empty() {
            self.0.remove(&daemon_set.namespace);
        }
    }

    /// Returns true if nothing is counted.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Returns true if the hold is in force for a pod that does not exist.
fn is_for_unborn(hold: &Hold) -> bool {
    hold.state == HoldState::Held && hold.basis.is_some_and(HoldBasis::is_unborn)
}

impl Reservation {
    /// Counts the unborn pods of a node again. Call it after each change of its holds.
    pub(super) fn count_unborn(&mut self, id: NodeId) {
        let row = &self.nodes[id];
        let holding = row.holds.iter().filter(|hold| is_for_unborn(hold)).map(|hold| hold.pod.daemon_set);
        if holding.clone().eq(row.unborn.iter().map(|(daemon_set, _)| *daemon_set)) {
            return;
        }
        let now: Vec<UnbornPod> =
            holding.map(|daemon_set| (daemon_set, self.daemon_sets[daemon_set].reference.clone())).collect();
        now.iter().for_each(|pod| self.unborn.add(pod));
        let before = std::mem::replace(&mut self.nodes[id].unborn, now);
        before.iter().for_each(|pod| self.unborn.remove(pod));
    }

    /// Returns true if quotas would not take the pod of a DaemonSet for a node beside those that room is held for already: on other
    /// nodes, and of the DaemonSets `before` it on this one.
    pub(super) fn is_beyond_quota(
        &self,
        cache: &Cache,
        id: NodeId,
        daemon_set: DaemonSetId,
        before: &[DaemonSetId],
    ) -> bool {
        let namespace = &self.daemon_sets[daemon_set].reference.namespace;
        if cache.resource_quotas(namespace).next().is_none() {
            return false;
        }
        let mut others = self.unborn.0.get(namespace).cloned().unwrap_or_default();
        for (own, _) in &self.nodes[id].unborn {
            if let Some(count) = others.get_mut(own) {
                *count -= 1;
            }
        }
        for other in before.iter().filter(|other| self.daemon_sets[**other].reference.namespace == *namespace)
        {
            *others.entry(*other).or_default() += 1;
        }
        !cache.quotas_take(daemon_set, &others)
    }
}
