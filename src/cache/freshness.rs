//! Whether the watches that everything rests on are known to be broken.
//!
//! After an outage of the apiserver the scheduler may be back before us: it sees daemon pods gone and new nodes come of which we
//! know nothing yet, and a backlog takes their room within milliseconds. So while we know that we are blind ordinary pods are
//! asked to wait, for a short and bounded time: our own trouble must not keep the cluster's pods off for good.

use std::time::{Duration, Instant};

use crate::cache::Cache;

/// For how long pods are refused because we are blind, from the first that was: an apiserver takes its time to come back, and while
/// it is away nothing could be bound anyway. Once more when it answers again: that is when something can be lost.
const BLIND_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether we see the cluster.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sight {
    is_lost: bool,
    refused_since: Option<Instant>,
    gave_up: bool,
    /// Whether the time was given once more.
    is_returning: bool,
}

impl Sight {
    /// Whether a watch is known to be broken.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_lost
    }
}

impl Cache {
    /// A watch on nodes, pods or DaemonSets is broken.
    pub fn lose_sight(&mut self) {
        self.sight.is_lost = true;
    }

    /// What could not be asked answers again: what was missed is about to come.
    pub fn sight_returns(&mut self) {
        let sight = &mut self.sight;
        if sight.gave_up && !sight.is_returning {
            *sight = Sight { is_lost: sight.is_lost, is_returning: true, ..Sight::default() };
        }
    }

    /// Every watch works again, and what was missed has come.
    pub fn regain_sight(&mut self) {
        if std::mem::take(&mut self.sight).refused_since.is_some() {
            self.wake_any();
        }
    }

    /// Whether a pod of this priority is to wait until we see again: only where it could take a daemon pod's room.
    pub(crate) fn is_blind_to(&mut self, priority: i32, now: Instant) -> bool {
        let concerns = |info: &crate::cache::daemonset_info::DaemonSetInfo| {
            info.may_hold && info.weight.priority >= priority
        };
        if !self.sight.is_lost || !self.daemon_sets().any(|(_, info)| concerns(info)) {
            return false;
        }
        let since = *self.sight.refused_since.get_or_insert(now);
        !self.sight.gave_up && now.saturating_duration_since(since) < BLIND_TIMEOUT
    }

    /// Wakes the pods that were refused while we were blind, once we have been for too long.
    pub(crate) fn give_up_on_sight(&mut self, now: Instant) {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= BLIND_TIMEOUT;
        if !self.sight.gave_up && self.sight.refused_since.is_some_and(is_over) {
            self.sight.gave_up = true;
            self.wake_any();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::Policy;
    use crate::reservation::cluster_write::ClusterWrite;
    use crate::reservation::filter_reason::FilterReason;

    /// A cluster with a node and a DaemonSet whose pod has landed, so that nothing is kept.
    fn cluster(now: Instant) -> Cache {
        let object = |text: &str| serde_json::from_str(text).unwrap();
        let mut cluster = Cache::new(Arc::new(Policy::default()), None);
        cluster.apply_namespace(serde_json::from_str(r#"{"metadata":{"name":"ns"}}"#).unwrap());
        cluster.apply_daemon_set(
            "apps",
            object(r#"{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"d","namespace":"ns","uid":"d"},"spec":{"selector":{"matchLabels":{"app":"d"}},"template":{"metadata":{"labels":{"app":"d"}},"spec":{"nodeSelector":{"none":"here"},"containers":[]}}}}"#),
        );
        let node = r#"{"metadata":{"name":"n","uid":"n"},"status":{"allocatable":{"cpu":"4","pods":"10"}}}"#;
        cluster.apply_node(serde_json::from_str(node).unwrap(), now);
        cluster.refresh_all(now);
        cluster
    }

    fn ask(cluster: &mut Cache, priority: i32, now: Instant) -> Option<FilterReason> {
        let pod = format!(
            r#"{{"metadata":{{"uid":"p","namespace":"ns"}},"spec":{{"priority":{priority},"containers":[]}}}}"#
        );
        let mut call = cluster.judge(&serde_json::from_str(&pod).unwrap(), now);
        let known = call.refuse("n");
        assert_eq!(call.refuse("a node that we have not seen"), known);
        call.finish();
        known
    }

    #[test]
    fn waits_while_blind_and_is_woken_after() {
        let now = Instant::now();
        let mut cluster = cluster(now);
        assert_eq!(ask(&mut cluster, 0, now), None);
        cluster.lose_sight();
        assert_eq!(ask(&mut cluster, 0, now), Some(FilterReason::StaleCache));
        assert_eq!(ask(&mut cluster, 1, now), None, "more important than any daemon");
        assert_eq!(ask(&mut cluster, 0, now), Some(FilterReason::StaleCache));
        assert!(cluster.take_effects().is_empty());
        cluster.regain_sight();
        assert_eq!(cluster.take_effects(), [ClusterWrite::Wake("n".into())]);
        assert_eq!(ask(&mut cluster, 0, now), None);
    }

    #[test]
    fn does_not_wait_for_good() {
        let now = Instant::now();
        let mut cluster = cluster(now);
        cluster.lose_sight();
        assert_eq!(
            ask(&mut cluster, 0, now + BLIND_TIMEOUT),
            Some(FilterReason::StaleCache),
            "time runs from the first refusal"
        );
        let over = now + BLIND_TIMEOUT * 2;
        cluster.tick(over);
        assert_eq!(cluster.take_effects(), [ClusterWrite::Wake("n".into())]);
        assert_eq!(ask(&mut cluster, 0, over), None);
        cluster.tick(over);
        assert!(cluster.take_effects().is_empty());
    }
    #[test]
    fn waits_once_more_when_the_server_is_back() {
        let now = Instant::now();
        let mut cluster = cluster(now);
        cluster.lose_sight();
        cluster.sight_returns();
        assert_eq!(ask(&mut cluster, 0, now), Some(FilterReason::StaleCache));
        for (at, expected) in [(1, Some(FilterReason::StaleCache)), (2, None)] {
            let over = now + BLIND_TIMEOUT * at;
            cluster.tick(over);
            assert_eq!(ask(&mut cluster, 0, over), None);
            cluster.take_effects();
            cluster.sight_returns();
            assert_eq!(ask(&mut cluster, 0, over), expected, "only once");
        }
        cluster.regain_sight();
        cluster.lose_sight();
        assert_eq!(ask(&mut cluster, 0, now), Some(FilterReason::StaleCache), "another time");
    }
}
