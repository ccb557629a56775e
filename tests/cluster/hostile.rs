//! An adversary beside the scenarios: a tenant with the ClusterRole `edit` in one namespace, and a stranger who reaches the port and has no
//! credential, several attacks of each at once.
//!
//! Every daemon pod of the others lands, no pod of higher priority is refused for the tenant's sake, pods of equal priority wait for it no
//! more than the budget, no call waits long, the program goes on and stays small. The seed of a run is printed; `SEED=...` repeats it.
//! `cargo test --release --test cluster hostile::full_size -- --ignored --nocapture` runs it longer and larger.

mod probe;
mod stranger;
mod tenant;

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{TestNamespace, say};
use crate::scenarios::scenario_run::{Scenario, ScenarioRun};

use probe::Probe;
use stranger::Stranger;
use tenant::Tenant;

/// The bounds of a run.
struct Bounds {
    nodes: usize,
    /// The time for which the attack goes on after the scenario.
    lasts: Duration,
    /// The longest time that a call may take.
    call: Duration,
}

/// Debug builds take forty times as long, and share two cores with the control plane, the attackers and other tests.
const CALL: Duration =
    if cfg!(debug_assertions) { Duration::from_secs(10) } else { Duration::from_millis(500) };
const SMALL: Bounds = Bounds { nodes: 6, lasts: Duration::from_secs(20), call: CALL };

/// A source of numbers that a seed repeats.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % sides
    }
}

async fn attacked(name: &'static str, scenario: Scenario, bounds: &Bounds) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed
        .unwrap_or_else(|| Instant::now().elapsed().as_nanos() as u64 ^ u64::from(std::process::id()) << 20);
    say(&format!("{name}: SEED={seed}"));
    let tenants = format!("{name}-tenant");
    let run = ScenarioRun::beside(name, &tenants, bounds.nodes).await;
    let warden = run.warden.as_ref().expect("started with the warden");
    let tenant_namespace = TestNamespace::shared(&tenants).await;
    let probe = Probe::start(&run.namespace, warden).await;
    let tenant = Tenant::start(&tenant_namespace, &run.namespace.name, Dice(seed | 1)).await;
    let stranger = Stranger::start(warden, Dice(seed.rotate_left(17) | 1));

    let outcome = run.run(scenario).await;
    tokio::time::sleep(bounds.lasts).await;
    let attacks = stranger.stop().await + tenant.stop().await;
    let report = probe.stop().await;
    say(&format!("{name}: {outcome:?}; {attacks} attacks; {report:?}"));

    assert!(attacks > 20, "the adversary did next to nothing: {attacks}");
    assert_eq!(outcome.daemons, outcome.wanted, "{outcome:?}");
    assert!(outcome.evicted.is_empty(), "{outcome:?}");
    assert_eq!(report.important_refused, 0, "pods of higher priority were refused");
    assert!(
        report.waited <= Duration::from_secs(60),
        "pods of equal priority waited for {:?}",
        report.waited
    );
    assert!(report.slowest_call <= bounds.call, "a call took {:?}", report.slowest_call);
    assert!(report.peak_mib < 256, "{} MiB", report.peak_mib);
    assert!(!warden.log().contains("panicked"));
    assert_eq!(warden.id(), report.process, "it was restarted");
}

#[tokio::test]
async fn a_rollout_finishes_beside_a_hostile_tenant_and_a_stranger() {
    attacked("hostile-a", Scenario::Rollout { gone_after: "0s" }, &SMALL).await;
}

#[tokio::test]
async fn nodes_that_join_get_their_daemon_pods_beside_a_hostile_tenant_and_a_stranger() {
    attacked("hostile-b", Scenario::Join { ready_after: None }, &SMALL).await;
}

#[tokio::test]
#[ignore = "minutes, and alone: see the head of this file"]
async fn full_size() {
    let bounds = Bounds { nodes: 50, lasts: Duration::from_secs(300), call: Duration::from_millis(100) };
    attacked("hostile-full-a", Scenario::Rollout { gone_after: "0s" }, &bounds).await;
    attacked("hostile-full-b", Scenario::Join { ready_after: None }, &bounds).await;
}

/// The fault that was found: a DaemonSet whose pods can never exist stopped ordinary scheduling on every node.
#[tokio::test]
async fn a_daemon_set_whose_pods_cannot_exist_keeps_no_pod_off_for_long() {
    let namespace = TestNamespace::shared("cannot-exist").await;
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let config = namespace.holding_here(json!({}));
    let warden = crate::harness::Warden::start(crate::harness::WardenOptions { config, kubeconfig }).await;
    let names = namespace.nodes(1, 1, &crate::harness::NodeOptions::default()).await;
    let quota =
        json!({ "metadata": { "name": "small" }, "spec": { "hard": { "pods": "5", "requests.cpu": "1" } } });
    namespace.create::<k8s_openapi::api::core::v1::ResourceQuota>(&crate::harness::object(quota)).await;
    let spec = |change: serde_json::Value| {
        let mut template = json!({ "containers": [{
            "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "3900m" } },
        }] });
        json_patch::merge(&mut template, &change);
        json!({ "spec": { "template": { "spec": template } } })
    };
    let small = json!([{ "name": "main", "image": "example.test/main:1", "resources": { "requests": { "cpu": "100m" } } }]);
    let cases = [
        ("states-a-priority", spec(json!({ "priority": 1_999_999_999 }))),
        ("beyond-the-quota", spec(json!({}))),
        ("no-such-class", spec(json!({ "priorityClassName": "nobody" }))),
        ("no-such-account", spec(json!({ "serviceAccountName": "nobody", "containers": small }))),
    ];
    for (name, change) in cases {
        namespace.create(&namespace.daemon_set(name, change)).await;
        let begun = Instant::now();
        crate::harness::eventually(&format!("{name}: no room is kept"), async || {
            let refused = probe::asks(&warden, "800m", &names).await;
            if refused { Err("refused".to_owned()) } else { Ok(()) }
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(15), "{name}: {:?}", begun.elapsed());
        // Another template gives nothing back.
        let changed =
            json!({ "spec": { "template": { "metadata": { "annotations": { "changed": "often" } } } } });
        namespace.change::<k8s_openapi::api::apps::v1::DaemonSet>(name, &changed).await;
        crate::harness::consistently(
            Duration::from_secs(3),
            &format!("{name}: no room is kept"),
            async || {
                let refused = probe::asks(&warden, "800m", &names).await;
                if refused { Err("refused".to_owned()) } else { Ok(()) }
            },
        )
        .await;
        namespace.delete::<k8s_openapi::api::apps::v1::DaemonSet>(name).await;
    }
}
