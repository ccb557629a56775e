//! Refusals because the cache lacks events: ordinary pods wait for the events, and for a bounded time only.
//!
//! An ordinary pod waits where it could take the room of a daemon pod, on every node, known or not. The time runs from the first
//! refusal, and once more from the time when the apiserver answers again: a fault of the warden must not keep pods off for good.

use std::time::{Duration, Instant};

use crate::cache::freshness::CacheFreshness;

/// The time pods are refused because the cache lacks events, from the first refusal. The apiserver needs time to return;
/// nothing can be bound while it is away.
const STALE_REFUSAL_TIMEOUT: Duration = Duration::from_secs(30);

/// The clock of one outage.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StaleRefusals {
    refusing_since: Option<Instant>,
    has_expired: bool,
    is_extended: bool,
}

impl StaleRefusals {
    /// Records the freshness. Returns true if an outage in which pods were refused has ended: the caller must wake them.
    pub(super) fn observe(&mut self, freshness: CacheFreshness) -> bool {
        match freshness {
            CacheFreshness::Fresh | CacheFreshness::Degraded => {
                return std::mem::take(self).refusing_since.is_some();
            }
            CacheFreshness::CatchingUp if self.has_expired && !self.is_extended => {
                *self = Self { is_extended: true, ..Self::default() };
            }
            CacheFreshness::CatchingUp | CacheFreshness::Stale { .. } | CacheFreshness::Unsynced => {}
        }
        false
    }

    /// Returns true if an ordinary pod that could take the room of a daemon pod is refused now. The first call of an outage starts
    /// the clock.
    pub(super) fn refuses(&mut self, now: Instant) -> bool {
        let since = *self.refusing_since.get_or_insert(now);
        !self.has_expired && now.saturating_duration_since(since) < STALE_REFUSAL_TIMEOUT
    }

    /// Returns true once, when the time is up: the caller must wake the refused pods.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= STALE_REFUSAL_TIMEOUT;
        let expires = !self.has_expired && self.refusing_since.is_some_and(is_over);
        self.has_expired |= expires;
        expires
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::Policy;
    use crate::reservation::View;
    use crate::reservation::cluster_write::ClusterWrite;
    use crate::reservation::filter_reason::FilterReason;

    /// A view with a node and a DaemonSet that wants no pod there, so that no room is reserved.
    fn view(now: Instant) -> View {
        let object = |text: &str| serde_json::from_str(text).unwrap();
        let mut view = View::new(Arc::new(Policy::default()), None);
        view.cache.apply_namespace(serde_json::from_str(r#"{"metadata":{"name":"ns"}}"#).unwrap());
        view.cache.apply_daemon_set(
            "apps",
            object(r#"{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"d","namespace":"ns","uid":"d"},"spec":{"selector":{"matchLabels":{"app":"d"}},"template":{"metadata":{"labels":{"app":"d"}},"spec":{"nodeSelector":{"none":"here"},"containers":[]}}}}"#),
        );
        let node = r#"{"metadata":{"name":"n","uid":"n"},"status":{"allocatable":{"cpu":"4","pods":"10"}}}"#;
        view.cache.apply_node(serde_json::from_str(node).unwrap());
        view.observe(now);
        view.reservation.refresh_all(&view.cache, now);
        view
    }

    fn ask(View { cache, reservation }: &mut View, priority: i32, now: Instant) -> Option<FilterReason> {
        let pod = format!(
            r#"{{"metadata":{{"uid":"p","namespace":"ns"}},"spec":{{"priority":{priority},"containers":[]}}}}"#
        );
        let mut call = reservation.begin_filter(cache, &serde_json::from_str(&pod).unwrap(), now);
        let known = call.refuse("n");
        assert_eq!(call.refuse("a node that we have not seen"), known);
        call.finish();
        known
    }

    #[test]
    fn waits_while_stale_and_is_woken_after() {
        let now = Instant::now();
        let mut view = view(now);
        assert_eq!(ask(&mut view, 0, now), None);
        view.reservation.observe_freshness(&view.cache, CacheFreshness::Stale { since: now });
        assert_eq!(ask(&mut view, 0, now), Some(FilterReason::StaleCache));
        assert_eq!(ask(&mut view, 1, now), None, "more important than any daemon");
        assert_eq!(ask(&mut view, 0, now), Some(FilterReason::StaleCache));
        assert!(view.reservation.take_writes().is_empty());
        view.reservation.observe_freshness(&view.cache, CacheFreshness::Fresh);
        assert_eq!(view.reservation.take_writes(), [ClusterWrite::Wake("n".into())]);
        assert_eq!(ask(&mut view, 0, now), None);
    }

    #[test]
    fn does_not_wait_for_good() {
        let now = Instant::now();
        let mut view = view(now);
        view.reservation.observe_freshness(&view.cache, CacheFreshness::Stale { since: now });
        assert_eq!(
            ask(&mut view, 0, now + STALE_REFUSAL_TIMEOUT),
            Some(FilterReason::StaleCache),
            "time runs from the first refusal"
        );
        let over = now + STALE_REFUSAL_TIMEOUT * 2;
        view.reservation.tick(&view.cache, over);
        assert_eq!(view.reservation.take_writes(), [ClusterWrite::Wake("n".into())]);
        assert_eq!(ask(&mut view, 0, over), None);
        view.reservation.tick(&view.cache, over);
        assert!(view.reservation.take_writes().is_empty());
    }

    #[test]
    fn waits_once_more_when_the_server_is_back() {
        let now = Instant::now();
        let mut view = view(now);
        view.reservation.observe_freshness(&view.cache, CacheFreshness::Stale { since: now });
        view.reservation.observe_freshness(&view.cache, CacheFreshness::CatchingUp);
        assert_eq!(ask(&mut view, 0, now), Some(FilterReason::StaleCache));
        for (at, expected) in [(1, Some(FilterReason::StaleCache)), (2, None)] {
            let over = now + STALE_REFUSAL_TIMEOUT * at;
            view.reservation.tick(&view.cache, over);
            assert_eq!(ask(&mut view, 0, over), None);
            view.reservation.take_writes();
            view.reservation.observe_freshness(&view.cache, CacheFreshness::CatchingUp);
            assert_eq!(ask(&mut view, 0, over), expected, "only once");
        }
        view.reservation.observe_freshness(&view.cache, CacheFreshness::Fresh);
        view.reservation.observe_freshness(&view.cache, CacheFreshness::Stale { since: now });
        assert_eq!(ask(&mut view, 0, now), Some(FilterReason::StaleCache), "another time");
    }
}
