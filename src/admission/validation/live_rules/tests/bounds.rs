//! The bounds of checks against the cluster: DaemonSets that are not checked, and the cost of a check.

use std::cell::Cell;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::admission::validation::{ReviewOutcome, review, review_within};
use crate::api::admission_v1;
use crate::api::decode_budget::DecodeBudget;
use crate::policy::{Level, Oversized};
use crate::scheduling::node_affinity;

/// A cluster that counts what is read of it.
struct CountingCache {
    inventory: Inventory,
    reads: Cell<usize>,
    steps: Cell<usize>,
    /// The reads after which the time is over.
    in_time: usize,
}

impl CountingCache {
    fn new(objects: &[(&str, &str)], in_time: usize) -> Self {
        Self { inventory: inventory(objects), reads: Cell::new(0), steps: Cell::new(0), in_time }
    }
}

impl ReadCache for CountingCache {
    fn read(&self, call: &mut dyn FnMut(&Cache)) -> Result<(), Unread> {
        if self.reads.replace(self.reads.get() + 1) >= self.in_time {
            return Err(Unread::TooLate);
        }
        call(&self.inventory.cluster);
        Ok(())
    }

    fn may_take(&self, steps: usize) -> Result<(), Unread> {
        self.steps.set(self.steps.get() + steps);
        Ok(())
    }
}

/// Returns a DaemonSet without a fault that is for nodes of `zone`.
fn daemon_set(zone: &str, spec: Value) -> Value {
    let mut template = json!({"nodeSelector": {"zone": zone}, "priorityClassName": "system-node-critical"});
    json_patch::merge(&mut template, &spec);
    review::tests::daemon_set(&json!({"spec": {"template": {"spec": template}}}).to_string())
}

/// Reviews a DaemonSet with `no-matching-node` at this level and all other live-data rules off.
fn reviewed(level: Level, object: &Value, old: Option<&Value>, cache: &CountingCache) -> ReviewOutcome {
    let mut policy = Policy::default();
    for rule in LIVE_RULES {
        policy.admission.rules.insert(rule.id.to_owned(), Level::Off);
    }
    policy.admission.rules.insert("no-matching-node".to_owned(), level);
    let operation = if old.is_some() { "UPDATE" } else { "CREATE" };
    let body = review::tests::body(&review::tests::request(operation, object, &json!(old)));
    let request = admission_v1::parse(&body).unwrap();
    review_within(&policy, &request, &DecodeBudget::default(), cache).unwrap()
}

/// Returns the reason for which a DaemonSet with this template is not checked.
fn unread(spec: Value) -> Option<Unread> {
    let object = json!({"metadata": {"name": "a"}, "spec": {"template": {"spec": spec}}});
    let object: DaemonSet = serde_json::from_value(object).unwrap();
    LiveData::read(&CountingCache::new(&[N1], 10), "apps", &object).err()
}

#[test]
fn texts_that_kubernetes_does_not_allow_are_not_compared_with_nodes() {
    let term = |requirement: Value| {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [requirement],
        }}}})
    };
    let exists = |key: &str| term(json!({"matchExpressions": [{"key": key, "operator": "Exists"}]}));
    let usual = [
        json!({"nodeSelector": {"a": "x".repeat(63)}}),
        exists(&format!("{}/{}", "a".repeat(253), "a".repeat(63))),
        term(
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n".repeat(253)]}]}),
        ),
    ];
    for spec in usual {
        assert_eq!(unread(spec.clone()), None, "{spec}");
    }
    let long = "x".repeat(3 << 20);
    let strange = [
        json!({"nodeSelector": {"a": "x".repeat(64)}}),
        json!({"nodeSelector": {"a": long}}),
        json!({"nodeSelector": {"!": ""}}),
        json!({"nodeName": long}),
        json!({"priorityClassName": long}),
        json!({"tolerations": [{"key": long}]}),
        json!({"containers": [{"resources": {"requests": {long.clone(): "1"}}}]}),
        exists("!"),
        exists(&"a".repeat(64)),
        exists(&format!("{}/a", "a".repeat(254))),
        term(json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["x".repeat(64)]}]})),
        term(
            json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n".repeat(254)]}]}),
        ),
    ];
    for spec in strange {
        let start: String = spec.to_string().chars().take(200).collect();
        assert_eq!(unread(spec), Some(Unread::TooLarge), "{start}");
    }
}

#[test]
fn nodes_are_read_once_and_the_stored_daemon_set_only_if_a_fault_is_denied() {
    let (none, some) = (daemon_set("c", json!({})), daemon_set("a", json!({})));
    let reads = |level: Level, object: &Value, old: Option<&Value>| {
        let cache = CountingCache::new(&[N1, N2], usize::MAX);
        let outcome = reviewed(level, object, old, &cache);
        let of_a_pass = 2 * (50 + 1 + 4);
        assert_eq!(cache.steps.get() % of_a_pass, 0);
        let validation = outcome.validation;
        (cache.reads.get(), validation.denials.len(), validation.warnings.len())
    };
    assert_eq!(reads(Level::Warn, &none, None), (2, 0, 1));
    assert_eq!(reads(Level::Deny, &none, None), (2, 1, 0));
    assert_eq!(reads(Level::Deny, &some, Some(&none)), (2, 0, 0));
    assert_eq!(reads(Level::Deny, &none, Some(&some)), (4, 1, 0));
    assert_eq!(reads(Level::Deny, &none, Some(&daemon_set("c", json!({"hostNetwork": true})))), (4, 0, 1));
    assert_eq!(reads(Level::Warn, &none, Some(&some)), (2, 0, 1));
}

#[test]
fn a_daemon_set_that_is_refused_already_is_not_checked_against_the_cluster() {
    for spec in [json!({"restartPolicy": "Never"}), json!({"tolerations": [{"key": "a"}]})] {
        let mut object = daemon_set("c", spec);
        object["metadata"]["name"] = "a".repeat(250).into();
        let cache = CountingCache::new(&[N1], usize::MAX);
        let outcome = reviewed(Level::Deny, &object, None, &cache);
        assert!(!outcome.is_allowed() && outcome.oversized.is_none());
        assert_eq!(cache.reads.get(), 0);
    }
}

#[test]
fn a_daemon_set_that_is_not_checked_in_full_is_denied_or_said_to_be_so() {
    let checks = |level: Level, object: &Value, in_time: usize| {
        reviewed(level, object, None, &CountingCache::new(&[N1], in_time))
    };
    let usual = daemon_set("a", json!({}));
    let large = daemon_set("a", json!({"tolerations": vec![json!({"key": "a"}); 5_000]}));
    for (object, in_time, reason) in [
        (&large, 9, "it is too large to be checked against the cluster"),
        (&usual, 0, "to check it against the cluster took too long"),
        (&usual, 1, "to check it against the cluster took too long"),
    ] {
        let denied = checks(Level::Deny, object, in_time);
        assert_eq!(denied.oversized, Some(Oversized::Deny));
        let message = denied.status().unwrap().message;
        assert!(message.contains(reason), "{message}");
        let warned = checks(Level::Warn, object, in_time);
        assert_eq!((warned.oversized, warned.status()), (Some(Oversized::Allow), None));
        let warning =
            format!("daemonset-warden has not checked this DaemonSet against the cluster: {reason}");
        assert_eq!(warned.warnings(), [warning]);
        assert_eq!(checks(Level::Off, object, in_time), ReviewOutcome { ..checks(Level::Off, object, 9) });
    }
    // The stored one is not read in time: its faults are not known.
    let cache = CountingCache::new(&[N1], 2);
    let outcome = reviewed(Level::Deny, &daemon_set("c", json!({})), Some(&usual), &cache);
    assert_eq!((outcome.oversized, cache.reads.get()), (Some(Oversized::Deny), 3));
}

proptest! {
    /// To compare before the syntax is checked gives what upstream's order gives.
    #[test]
    fn terms_match_as_if_the_syntax_were_checked_first(
        requirements in prop::collection::vec(("[ab!]", "In|NotIn|Exists|DoesNotExist|Gt|Lt|in", prop::collection::vec("[a1!]", 0..3)), 0..4),
        label in prop::option::of("[a1]"),
    ) {
        let expressions: Vec<Value> = requirements
            .iter()
            .map(|(key, operator, values)| json!({"key": key, "operator": operator, "values": values}))
            .collect();
        let selector = json!({"nodeSelectorTerms": [{"matchExpressions": expressions}]});
        let selector = serde_json::from_value(selector).unwrap();
        let labels = label.into_iter().map(|value| ("a".to_owned(), value)).collect();
        let is_malformed = requirements.iter().any(|(key, operator, values)| {
            let count = match operator.as_str() {
                "In" | "NotIn" => !values.is_empty(),
                "Exists" | "DoesNotExist" => values.is_empty(),
                "Gt" | "Lt" => values == &["1"],
                _ => false,
            };
            !count || key == "!" || values.iter().any(|value| value == "!")
        });
        let matches = node_affinity::node_selector_matches(&selector, "n", &labels);
        prop_assert!(!(is_malformed || requirements.is_empty()) || !matches);
    }
}
