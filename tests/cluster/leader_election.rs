//! Two processes of `serve --leader-elect` on a real apiserver, with a Pod object for each: one judges, and the other one follows
//! it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::harness::{
    ControlPlane, PodName, TestNamespace, Warden, WardenOptions, consistently, eventually, eventually_within,
    object, say,
};

const ACTIVE: &str = "daemonset-warden.io/active";
const LEASE: &str = "daemonset-warden";
/// The default of --leader-elect-lease-duration.
const LEASE_DURATION: Duration = Duration::from_secs(5);
/// The second for bindings in flight, the round of 500 ms, and the barrier; more than 2 s for a machine that runs other tests.
const THEN: Duration = Duration::from_secs(4);

struct Election {
    namespace: TestNamespace<&'static ControlPlane>,
    kubeconfig: PathBuf,
    node: String,
}

impl Election {
    async fn begin(name: &str) -> Self {
        let namespace = TestNamespace::shared(name).await;
        let kubeconfig = namespace.elected_kubeconfig().await;
        let node = namespace.node().await;
        Self { namespace, kubeconfig, node }
    }

    /// Starts a replica: its Pod, and its process.
    async fn replica(&self, name: &str) -> Warden {
        let pod = json!({
            "metadata": {
                "labels": { "app.kubernetes.io/name": "daemonset-warden", "app.kubernetes.io/instance": "test" },
                // The Pod is there while it is being deleted, as a real one is for its grace period.
                "finalizers": ["daemonset-warden.test/kept"],
            },
            "spec": { "nodeName": self.node },
        });
        self.namespace.create(&self.namespace.pod(name, "10m", pod)).await;
        self.process(name).await
    }

    async fn process(&self, name: &str) -> Warden {
        let options = WardenOptions {
            config: self.namespace.holding_here(Value::Null),
            kubeconfig: Some(self.kubeconfig.clone()),
        };
        let pod = PodName { namespace: self.namespace.name.clone(), name: name.to_owned() };
        Warden::start_as_pod(options, pod, &["--leader-elect"]).await
    }

    async fn has_label(&self, pod: &str) -> bool {
        let pod = self.namespace.api::<Pod>().get(pod).await.expect("the Pod is kept");
        pod.metadata.labels.is_some_and(|labels| labels.contains_key(ACTIVE))
    }

    /// Waits until the Pod `with` has the label, and `without` has none.
    async fn label_moves(&self, with: &str, without: &str) {
        eventually(&format!("the label is on {with} alone"), async || {
            match (self.has_label(with).await, self.has_label(without).await) {
                (true, false) => Ok(()),
                labels => Err(format!("{labels:?}")),
            }
        })
        .await;
    }

    /// Lets the Pods go, so that the namespace can.
    async fn end(&self, pods: &[&str]) {
        for pod in pods {
            self.namespace.change::<Pod>(pod, &json!({ "metadata": { "finalizers": null } })).await;
        }
    }
}

async fn is_judging(warden: &Warden) -> bool {
    warden.metric("daemonset_warden_leader_election_judging", &[]).await == 1.0
}

/// Waits until `warden` judges, and returns the time that it took.
async fn judges(warden: &Warden, at_most: Duration) -> Duration {
    let begin = Instant::now();
    eventually_within(at_most, "it judges", async || {
        if is_judging(warden).await { Ok(()) } else { Err(warden.log()) }
    })
    .await;
    begin.elapsed()
}

async fn stops_judging(warden: &Warden) {
    eventually(
        "it does not judge",
        async || {
            if is_judging(warden).await { Err(warden.log()) } else { Ok(()) }
        },
    )
    .await;
}

/// Watches for the time `during` that `judge` judges and `other` does not.
async fn only_judge(judge: &Warden, other: &Warden, during: Duration) {
    consistently(during, "one judges, the other does not", async || {
        match (is_judging(judge).await, is_judging(other).await) {
            (true, false) => Ok(()),
            judging => Err(format!("{judging:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_judge_hands_over_at_its_end() {
    let election = Election::begin("handed-over-lease").await;
    let mut a = election.replica("a").await;
    judges(&a, LEASE_DURATION).await;
    let b = election.replica("b").await;
    election.label_moves("a", "b").await;
    only_judge(&a, &b, LEASE_DURATION).await;

    // A label that was set by hand is removed; one that was removed is set again.
    election.namespace.change::<Pod>("b", &json!({ "metadata": { "labels": { ACTIVE: "true" } } })).await;
    election.namespace.change::<Pod>("a", &json!({ "metadata": { "labels": { ACTIVE: null } } })).await;
    election.label_moves("a", "b").await;

    // SIGTERM.
    let ending = tokio::task::spawn_blocking(move || (a.terminate(), a.log()));
    let took = judges(&b, LEASE_DURATION).await;
    say(&format!("SIGTERM: another replica judges after {took:?}"));
    election.label_moves("b", "a").await;
    let (status, log) = ending.await.unwrap();
    assert!(status.success() && log.contains("handing over"), "{status} {log}");

    // The container is started again in its Pod.
    let a = election.process("a").await;
    only_judge(&b, &a, Duration::from_secs(2)).await;

    // The Pod of the judge is deleted, and its process goes on to run.
    election.namespace.delete::<Pod>("b").await;
    let took = judges(&a, LEASE_DURATION).await;
    say(&format!("deletion of the Pod: another replica judges after {took:?}"));
    assert!(!is_judging(&b).await);
    election.label_moves("a", "b").await;
    for warden in [&a, &b] {
        assert!(!warden.log().contains("grant the verb"), "{}", warden.log());
    }
    election.end(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_that_fails_is_followed() {
    let election = Election::begin("followed-lease").await;
    let mut a = election.replica("a").await;
    judges(&a, LEASE_DURATION).await;
    let mut b = election.replica("b").await;
    tokio::task::block_in_place(|| a.kill());
    let took = judges(&b, LEASE_DURATION + THEN).await;
    say(&format!("SIGKILL: another replica judges after {took:?}"));
    assert!(took > LEASE_DURATION - Duration::from_secs(1), "its Lease was not waited out: {took:?}");
    election.label_moves("b", "a").await;

    let mut a = election.process("a").await;
    b.freeze();
    let took = judges(&a, LEASE_DURATION + THEN).await;
    say(&format!("SIGSTOP: another replica judges after {took:?}"));
    b.thaw();
    stops_judging(&b).await;
    only_judge(&a, &b, Duration::from_secs(3)).await;
    election.label_moves("a", "b").await;

    // The judge's own container is killed and started again: nobody else takes over in between.
    let begin = Instant::now();
    tokio::task::block_in_place(|| {
        a.kill();
        a.restart();
    });
    judges(&a, LEASE_DURATION).await;
    say(&format!("SIGKILL, and its container is started again: it judges after {:?}", begin.elapsed()));
    assert!(!is_judging(&b).await);
    election.end(&["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_a_stranger_holds_does_not_stop_bindings() {
    let election = Election::begin("strangers-lease").await;
    let held = json!({ "spec": { "holderIdentity": "stranger", "leaseDurationSeconds": 3600 } });
    let mut lease = held.clone();
    lease["metadata"] = json!({ "name": LEASE });
    election.namespace.create(&object::<Lease>(lease)).await;
    let (begin, a) = (Instant::now(), election.replica("a").await);
    eventually_within(LEASE_DURATION + THEN, "bindings are allowed", async || {
        let log = a.log();
        if log.contains("no replica judges bindings: they are allowed unjudged") { Ok(()) } else { Err(log) }
    })
    .await;
    say(&format!("a stranger's Lease: bindings are allowed {:?} after the start", begin.elapsed()));
    assert!(
        a.log().contains("stranger holds the Lease, and is no living Pod of this release"),
        "{}",
        a.log()
    );
    assert!(!is_judging(&a).await && !election.has_label("a").await);
    election.namespace.delete::<Lease>(LEASE).await;
    judges(&a, LEASE_DURATION + THEN).await;
    // The stranger takes it again, and somebody deletes it again.
    election.namespace.change::<Lease>(LEASE, &held).await;
    stops_judging(&a).await;
    election.namespace.delete::<Lease>(LEASE).await;
    judges(&a, LEASE_DURATION + THEN).await;
    election.end(&["a"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_rights_bindings_are_allowed_and_the_log_says_what_to_grant() {
    let namespace = TestNamespace::shared("no-lease").await;
    let kubeconfig = namespace.warden_kubeconfig().await;
    let node = namespace.node().await;
    let election = Election { namespace, kubeconfig, node };
    let a = election.replica("a").await;
    eventually_within(LEASE_DURATION + THEN, "bindings are allowed", async || {
        let log = a.log();
        if log.contains("they are allowed unjudged") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(a.log().contains("grant the verbs get, create and update on leases"), "{}", a.log());
    assert!(a.metric("daemonset_warden_leader_election_errors_total", &[]).await > 1.0);
    // The right comes later.
    election.namespace.elected_kubeconfig().await;
    judges(&a, LEASE_DURATION + THEN).await;
    election.end(&["a"]).await;
}
