//! The time for which pods may wait for daemon pods of a namespace that never come.
//!
//! An author can write DaemonSets whose pods cannot exist, and write them anew. So each namespace has a budget: the seconds of the
//! last hour in which a pod was refused for a hold without proof ([`super::basis`]), however many holds and nodes, unless the
//! daemon pod has landed. A namespace whose budget is spent has holds for schedulable pods only. Another name, another template or
//! a new DaemonSet gives nothing back; time does. A namespace that runs many daemon pods has a larger budget, for it has to wait
//! longer for its DaemonSet controller.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// The seconds of an hour in which pods may wait for daemon pods of one namespace that do not come. Twelve DaemonSets of a
/// namespace on 60 new nodes have their last pod after 41 s, with the DaemonSet controller's default rate.
const BUDGET: usize = 60;
/// The bound daemon pods of a namespace for which it has no larger budget.
const FEW_PODS: usize = 200;
/// The bound daemon pods beyond those for which it has a second more: the controller creates as many in a second by default.
const PODS_A_SECOND: usize = 20;
/// The most bound daemon pods that are counted, for ten minutes more.
const MANY_PODS: usize = FEW_PODS + 600 * PODS_A_SECOND;
/// The time after which a second is given back.
const PERIOD: Duration = Duration::from_secs(3600);

/// The budgets of all namespaces.
#[derive(Debug)]
pub(super) struct WaitBudgets {
    /// The seconds that each namespace may spend.
    pub(super) limit: usize,
    /// The seconds more of the namespaces that have spent half of the budget, and run many daemon pods.
    more: HashMap<String, usize>,
    /// The beginning of second 3,600.
    epoch: Option<Instant>,
    /// By namespace: the seconds in which a pod waited, and the number of holds that it waited for.
    spent: HashMap<String, BTreeMap<u64, u32>>,
}

impl Default for WaitBudgets {
    fn default() -> Self {
        Self { limit: BUDGET, more: HashMap::new(), epoch: None, spent: HashMap::new() }
    }
}

/// The seconds that were charged for one hold, in ranges that include their ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ChargedSeconds(Vec<(u64, u64)>);

impl ChargedSeconds {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the seconds as ages before `now`, in ranges that include their ends.
    fn ages(&self, now: u64) -> Vec<(u64, u64)> {
        self.0.iter().map(|(first, last)| (now.saturating_sub(*last), now.saturating_sub(*first))).collect()
    }

    /// Adds a second, not earlier than all others. Returns false if it is there already.
    fn insert(&mut self, second: u64) -> bool {
        match self.0.last_mut() {
            Some((_, last)) if *last == second => return false,
            Some((_, last)) if *last + 1 == second => *last = second,
            _ => self.0.push((second, second)),
        }
        true
    }
}

impl WaitBudgets {
    /// Charges the present second for a hold for which a pod waits. Returns true if no time is left for the namespace.
    pub(super) fn charge(&mut self, namespace: &str, charged: &mut ChargedSeconds, now: Instant) -> bool {
        let second = self.second(now);
        if charged.insert(second) {
            *self.spent.entry_ref(namespace).or_default().entry(second).or_default() += 1;
        }
        self.is_spent(namespace)
    }

    /// Gives more time to namespaces that run many daemon pods. `bound_pods` returns their number, up to a limit, and is called for
    /// few namespaces. Call it once a tick.
    pub(super) fn allow_for_many(&mut self, bound_pods: impl Fn(&str, usize) -> usize) {
        let half_spent = self.spent.iter().filter(|(_, spent)| spent.len() >= self.limit / 2);
        let more =
            |namespace: &str| bound_pods(namespace, MANY_PODS).saturating_sub(FEW_PODS) / PODS_A_SECOND;
        self.more = half_spent.map(|(namespace, _)| (namespace.clone(), more(namespace))).collect();
    }

    /// Gives back what was charged for a hold: its pod has landed.
    pub(super) fn refund(&mut self, namespace: &str, charged: &mut ChargedSeconds) {
        let Some(spent) = self.spent.get_mut(namespace) else { return };
        for second in std::mem::take(&mut charged.0).into_iter().flat_map(|(first, last)| first..=last) {
            if let Some(holds) = spent.get_mut(&second) {
                *holds -= 1;
                if *holds == 0 {
                    spent.remove(&second);
                }
            }
        }
    }

    /// Returns true if no time is left for the namespace.
    pub(super) fn is_spent(&self, namespace: &str) -> bool {
        let more = self.more.get(namespace).copied().unwrap_or_default();
        self.spent.get(namespace).is_some_and(|spent| spent.len() >= self.limit.saturating_add(more))
    }

    /// Returns the charged seconds of each namespace as ages before `now`, in ranges that include their ends, the newest first.
    pub(super) fn ages(&mut self, now: Instant) -> BTreeMap<String, Vec<(u64, u64)>> {
        let now = self.second(now);
        let ages = |seconds: &BTreeMap<u64, u32>| {
            let mut ranges: Vec<(u64, u64)> = Vec::new();
            for age in seconds.keys().rev().map(|second| now.saturating_sub(*second)) {
                match ranges.last_mut() {
                    Some((_, last)) if *last + 1 == age => *last = age,
                    _ => ranges.push((age, age)),
                }
            }
            ranges
        };
        self.spent.iter().map(|(namespace, seconds)| (namespace.clone(), ages(seconds))).collect()
    }

    /// Charges seconds of these ages that another replica has charged, for good unless `charged` of a hold is given.
    pub(super) fn restore(
        &mut self,
        namespace: &str,
        ages: &[(u64, u64)],
        charged: Option<&mut ChargedSeconds>,
        now: Instant,
    ) {
        let now = self.second(now);
        let oldest = PERIOD.as_secs();
        let seconds = ages.iter().flat_map(|(first, last)| *first..=(*last).min(oldest));
        let mut seconds: Vec<u64> =
            seconds.take(PERIOD.as_secs() as usize).map(|age| now.saturating_sub(age)).collect();
        seconds.sort_unstable();
        seconds.dedup();
        let spent = self.spent.entry_ref(namespace).or_default();
        match charged {
            Some(charged) => seconds.retain(|second| charged.insert(*second)),
            None => seconds.retain(|second| !spent.contains_key(second)),
        }
        for second in seconds {
            *spent.entry(second).or_default() += 1;
        }
    }

    /// Gives back the seconds that are older than an hour. Call it once a tick.
    pub(super) fn expire(&mut self, now: Instant) {
        let now = self.second(now);
        self.spent.retain(|_, spent| {
            while let Some(first) = spent.first_entry()
                && first.key() + PERIOD.as_secs() <= now
            {
                first.remove();
            }
            !spent.is_empty()
        });
    }

    /// Returns true if nothing is charged.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.spent.values().all(BTreeMap::is_empty)
    }

    /// Returns the seconds that were charged for one hold as ages before `now`.
    pub(super) fn ages_of(&mut self, charged: &ChargedSeconds, now: Instant) -> Vec<(u64, u64)> {
        let now = self.second(now);
        charged.ages(now)
    }

    /// Returns the number of the second; the first one is so high that seconds of the hour before it can be charged.
    fn second(&mut self, now: Instant) -> u64 {
        let epoch = *self.epoch.get_or_insert(now);
        PERIOD.as_secs() + now.saturating_duration_since(epoch).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_an_hour_however_many_holds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut budgets = WaitBudgets::default();
        let mut holds = vec![ChargedSeconds::default(); 3];
        for second in 0..BUDGET as u64 - 1 {
            for hold in &mut holds {
                budgets.charge("tenant", hold, at(second));
                budgets.charge("tenant", hold, at(second));
            }
        }
        assert!(!budgets.is_spent("tenant"), "a second counts once");
        assert!(budgets.charge("tenant", &mut holds[0], at(100)));
        assert!(budgets.is_spent("tenant") && !budgets.is_spent("other"), "the last second");
        budgets.allow_for_many(|_, _| FEW_PODS + PODS_A_SECOND);
        assert!(!budgets.is_spent("tenant"), "a second more");
        budgets.allow_for_many(|_, _| FEW_PODS);
        assert!(budgets.is_spent("tenant"));

        let mut landed = std::mem::take(&mut holds[0]);
        budgets.refund("tenant", &mut landed);
        assert!(!budgets.is_spent("tenant") && landed.is_empty());
        assert_eq!(budgets.spent["tenant"].len(), BUDGET - 1, "two others waited in the same seconds");

        budgets.expire(at(3600 + 29));
        assert_eq!(budgets.spent["tenant"].len(), BUDGET - 1 - 30);
        // What has expired cannot be given back twice.
        holds.iter_mut().for_each(|hold| budgets.refund("tenant", hold));
        budgets.expire(at(3600 + 30));
        assert!(budgets.is_empty());
    }
}
