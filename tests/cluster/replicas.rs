//! Two replicas, of which the scheduler calls one or both. One of them ends while nodes join.

use std::time::Duration;

use kube::api::ListParams;
use serde_json::json;

use crate::harness::{
    ControlPlane, Extender, Forwarder, NodeOptions, Scheduler, SchedulerOptions, TestNamespace, Warden,
    WardenOptions, describe, eventually, eventually_within, is_bound,
};

const NODES: usize = 6;
const DAEMONS: [&str; 3] = ["cni", "csi", "logs"];

struct Replicas {
    namespace: TestNamespace<&'static ControlPlane>,
    first: Warden,
    second: Warden,
    forwarder: Forwarder,
    _scheduler: Scheduler,
}

/// The replicas that the scheduler calls for each pod.
#[derive(Clone, Copy, PartialEq)]
enum AskedReplicas {
    /// One replica, by the address that both share.
    One,
    /// Both replicas, each by its own address.
    Both,
}

/// Lets nodes join a cluster with a backlog, and returns when a third of the daemon pods are bound.
async fn in_the_middle_of_a_join(name: &str, asks: AskedReplicas) -> Replicas {
    let namespace = TestNamespace::shared(name).await;
    let kubeconfig = Some(namespace.warden_kubeconfig().await);
    let config = namespace.holding_here(serde_json::Value::Null);
    let options = || WardenOptions { config: config.clone(), kubeconfig: kubeconfig.clone() };
    let (first, second) = (Warden::start(options()).await, Warden::start(options()).await);
    let forwarder = Forwarder::start(first.port()).await;
    let behind_one_address = Extender {
        url_prefix: format!("https://127.0.0.1:{}/scheduler", forwarder.port),
        // Each replica has its own CA.
        ca: first.ca.clone() + &second.ca,
        ..first.extender()
    };
    // With the other tests on two cores a call can take more than 300 ms; then the scheduler goes on without the extender,
    // and the test proves nothing.
    let patient = |extender| Extender { http_timeout: "5s", ..extender };
    let extenders = match asks {
        AskedReplicas::One => vec![behind_one_address],
        AskedReplicas::Both => vec![patient(first.extender()), patient(second.extender())],
    };
    let scheduler_options =
        SchedulerOptions { name: name.to_owned(), extenders, ..SchedulerOptions::default() };
    let plane = namespace.plane;
    let scheduler = tokio::task::spawn_blocking(move || plane.scheduler(&scheduler_options)).await.unwrap();

    let by = json!({ "spec": { "template": { "spec": { "schedulerName": name } } } });
    for daemon in DAEMONS {
        namespace.create(&namespace.daemon_set(daemon, by.clone())).await;
    }
    namespace.create(&namespace.deployment("web", 8 * NODES, "1", by)).await;
    namespace.pods_exist("web", 8 * NODES).await;
    namespace.add_nodes(1, NODES, &NodeOptions::default()).await;
    let replicas = Replicas { namespace, first, second, forwarder, _scheduler: scheduler };
    eventually("a third of the daemon pods have landed", async || {
        let landed = replicas.landed().await;
        if landed >= NODES { Ok(()) } else { Err(format!("{landed}")) }
    })
    .await;
    replicas
}

impl Replicas {
    async fn landed(&self) -> usize {
        let of_daemons = ListParams::default().labels("app in (cni,csi,logs)");
        let pods =
            self.namespace.api::<k8s_openapi::api::core::v1::Pod>().list(&of_daemons).await.unwrap().items;
        pods.iter().filter(|pod| is_bound(pod)).count()
    }

    async fn ordinary_pods_fill_the_rest(&self) {
        eventually_within(Duration::from_secs(120), "ordinary pods fill what is left", async || {
            let pods = self.namespace.pods("web").await;
            let bound = pods.iter().filter(|pod| is_bound(pod)).count();
            if bound == 3 * NODES { Ok(()) } else { Err(describe(&pods)) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_told_to_stop_in_the_middle_of_a_join_loses_no_daemon_pod() {
    let mut replicas = in_the_middle_of_a_join("handed-over", AskedReplicas::One).await;
    replicas.forwarder.switch(replicas.second.port());
    let status = tokio::task::block_in_place(|| replicas.first.terminate());
    assert!(status.success(), "{status}; {}", replicas.first.log());
    for daemon in DAEMONS {
        replicas.namespace.settled(daemon, NODES as i32).await;
    }
    replicas.ordinary_pods_fill_the_rest().await;
    // All daemon pods may have been bound before the first replica ended. For a node that joins now, the scheduler calls the
    // second replica.
    replicas.namespace.add_nodes(NODES + 1, 1, &NodeOptions::default()).await;
    for daemon in DAEMONS {
        replicas.namespace.settled(daemon, NODES as i32 + 1).await;
    }
    assert!(replicas.second.filter_calls().await > 0.0, "the scheduler asks the other");
    assert!(replicas.namespace.recorder.preempted().is_empty());
}

/// The scheduler schedules one pod at a time, so at most one call is lost. Its pod can take the room of one node's daemon pods,
/// and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_in_the_middle_of_a_join_costs_one_node_at_most() {
    let mut replicas = in_the_middle_of_a_join("taken-over", AskedReplicas::One).await;
    replicas.forwarder.switch(replicas.second.port());
    tokio::task::block_in_place(|| replicas.first.kill());
    let wanted = DAEMONS.len() * NODES;
    eventually_within(Duration::from_secs(120), "daemon pods land on all nodes but one", async || {
        let landed = replicas.landed().await;
        if landed >= wanted - DAEMONS.len() { Ok(()) } else { Err(format!("{landed} of {wanted}")) }
    })
    .await;

    // From now on the other replica holds room.
    let late = replicas.namespace.nodes(NODES + 1, 2, &NodeOptions::default()).await;
    eventually_within(Duration::from_secs(60), "daemon pods land on the nodes that join later", async || {
        let mut landed = 0;
        for daemon in DAEMONS {
            let pods = replicas.namespace.pods(daemon).await;
            let on_late = |pod: &&k8s_openapi::api::core::v1::Pod| {
                is_bound(pod)
                    && crate::harness::node_of(pod).is_some_and(|node| late.iter().any(|l| l == node))
            };
            landed += pods.iter().filter(on_late).count();
        }
        if landed == DAEMONS.len() * late.len() { Ok(()) } else { Err(format!("{landed}")) }
    })
    .await;
    assert!(replicas.second.filter_calls().await > 0.0, "the scheduler asks the other");
}

/// The price is a second call for each pod.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_costs_nothing_where_the_scheduler_asks_both() {
    let mut replicas = in_the_middle_of_a_join("both-asked", AskedReplicas::Both).await;
    tokio::task::block_in_place(|| replicas.first.kill());
    for daemon in DAEMONS {
        replicas.namespace.settled(daemon, NODES as i32).await;
    }
    replicas.ordinary_pods_fill_the_rest().await;
    assert!(replicas.namespace.recorder.preempted().is_empty());
}
