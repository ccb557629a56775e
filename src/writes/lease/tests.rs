//! Leader election of one or two replicas on a small apiserver, which has a Lease, Pods and optimistic locking.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;

use super::*;
use crate::cache::replicas::Replica;
use crate::reservation::judge::Judge;

/// Long enough for a machine that runs other tests: a process that gets no processor for the renew deadline judges no longer.
const TIMES: JudgeTimes = JudgeTimes {
    lease_duration: Duration::from_secs(3),
    renew_deadline: Duration::from_secs(2),
    retry_period: Duration::from_millis(50),
};
/// The longest wait of a test for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The apiserver's objects; the Pods are what the replicas' watches show.
#[derive(Default)]
struct Objects {
    lease: Option<Value>,
    version: u64,
    pods: BTreeMap<String, Replica>,
    /// The status that calls about Leases, and those about Pods, are answered with; 0 for none.
    lease_status: u16,
    pod_status: u16,
    calls: Vec<String>,
}

type Shared = Arc<Mutex<Objects>>;

fn with_pods(names: &[&str]) -> Shared {
    let pod = |name: &&str| {
        let replica = Replica { uid: format!("uid-{name}"), name: (*name).to_owned(), ..Replica::default() };
        ((*name).to_owned(), replica)
    };
    Arc::new(Mutex::new(Objects { pods: names.iter().map(pod).collect(), ..Objects::default() }))
}

fn answer(objects: &mut Objects, method: &Method, path: &str, body: &Value) -> (u16, Value) {
    let status = |code: u16| {
        (code, json!({ "kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": "" }))
    };
    if let Some(name) = path.strip_prefix("/api/v1/namespaces/warden/pods/") {
        if objects.pod_status != 0 {
            return status(objects.pod_status);
        }
        let Some(pod) = objects.pods.get_mut(name) else { return status(404) };
        let metadata = &body["metadata"];
        if metadata["uid"].as_str().is_some_and(|uid| uid != pod.uid) {
            return status(409);
        }
        pod.is_active = metadata["labels"][ACTIVE_LABEL] == "true";
        if let Some(token) = metadata["annotations"][JUDGING_SINCE_ANNOTATION].as_str() {
            pod.token = token.to_owned();
        }
        return (200, json!({ "metadata": { "name": name } }));
    }
    assert!(path.starts_with("/apis/coordination.k8s.io/v1/namespaces/warden/leases"), "{path}");
    if objects.lease_status != 0 {
        return status(objects.lease_status);
    }
    let version = objects.lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
    match (method, &version) {
        (&Method::GET, None) | (&Method::PUT, None) => return status(404),
        (&Method::GET, Some(_)) => return (200, objects.lease.clone().unwrap()),
        (&Method::POST, Some(_)) => return status(409),
        (&Method::PUT, Some(version)) if body["metadata"]["resourceVersion"] != *version => {
            return status(409);
        }
        _ => {}
    }
    objects.version += 1;
    let mut lease = body.clone();
    lease["metadata"]["resourceVersion"] = objects.version.to_string().into();
    objects.lease = Some(lease.clone());
    (200, lease)
}

fn client(objects: &Shared) -> Client {
    let objects = objects.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let objects = objects.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let mut objects = objects.lock().unwrap();
            objects.calls.push(format!("{} {}", head.method, head.uri.path()));
            let (code, answer) = answer(&mut objects, &head.method, head.uri.path(), &body);
            let answer = Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
            Ok::<_, std::convert::Infallible>(answer.expect("an answer"))
        }
    });
    Client::new(service, "warden")
}

/// A replica's view: the Pods of the apiserver, and what it was told.
#[derive(Clone)]
struct TestView {
    objects: Shared,
    told: Arc<Mutex<Vec<String>>>,
    unseen: Arc<Mutex<usize>>,
    name: &'static str,
}

impl JudgingCluster for TestView {
    fn look(&self, _: Instant) -> JudgeSight {
        JudgeSight {
            replicas: self.objects.lock().unwrap().pods.values().cloned().collect(),
            may_stand: true,
            is_complete: true,
            unseen_bindings: *self.unseen.lock().unwrap(),
        }
    }

    fn set_judging(&self, is_judging: bool, _: Instant) {
        self.told.lock().unwrap().push(format!("judging {is_judging}"));
    }

    fn spent_note(&self, _: Instant) -> String {
        format!("spent by {}", self.name)
    }

    fn restore_spent(&self, note: &str, _: Instant) {
        self.told.lock().unwrap().push(format!("restore {note:?}"));
    }
}

struct TestReplica {
    judge: SharedJudge,
    view: TestView,
    metrics: Arc<Metrics>,
    task: tokio::task::JoinHandle<()>,
}

fn start(objects: &Shared, name: &'static str) -> TestReplica {
    let own_pod = Some(name.to_owned());
    let judge = SharedJudge::new(Judge::new(new_identity(name), own_pod, TIMES, Instant::now()));
    judge.begin_to_stand();
    let view = TestView { objects: objects.clone(), told: Arc::default(), unseen: Arc::default(), name };
    let settings = LeaseSettings {
        namespace: "warden".to_owned(),
        name: "daemonset-warden".to_owned(),
        own_pod: Some(("warden".to_owned(), name.to_owned())),
    };
    let metrics = Arc::new(Metrics::default());
    let run = run(client(objects), settings, judge.clone(), view.clone(), metrics.clone());
    TestReplica { judge, view, metrics, task: tokio::spawn(run) }
}

impl TestReplica {
    fn turn(&self) -> JudgeTurn {
        self.judge.turn(Instant::now())
    }

    fn told(&self) -> Vec<String> {
        self.view.told.lock().unwrap().clone()
    }

    fn metric(&self, name: &str) -> f64 {
        let text = String::from_utf8(self.metrics.text()).unwrap();
        let name = format!("daemonset_warden_leader_election_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }
}

async fn eventually(text: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "not so: {text}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn active(objects: &Shared) -> Vec<String> {
    let objects = objects.lock().unwrap();
    objects.pods.values().filter(|pod| pod.is_active).map(|pod| pod.name.clone()).collect()
}

fn holder(objects: &Shared) -> String {
    let lease = objects.lock().unwrap().lease.clone().unwrap_or_default();
    lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

/// The Lease of somebody who renews it as fast as replicas read it.
fn foreign_lease(objects: &Shared, holder: &str, times: u64) {
    let mut objects = objects.lock().unwrap();
    objects.version += 1;
    objects.lease = Some(json!({
        "metadata": { "name": "daemonset-warden", "resourceVersion": objects.version.to_string() },
        "spec": { "holderIdentity": holder, "leaseDurationSeconds": 1, "leaseTransitions": times },
    }));
}

#[tokio::test]
async fn one_of_two_judges_and_hands_over() {
    let objects = with_pods(&["a", "b"]);
    let a = start(&objects, "a");
    eventually("a judges", || a.turn() == JudgeTurn::Judges).await;
    assert_eq!(active(&objects), ["a"]);
    let b = start(&objects, "b");
    sleep(TIMES.lease_duration).await;
    assert_eq!((a.turn(), b.turn()), (JudgeTurn::Judges, JudgeTurn::Denies));
    assert!(holder(&objects).starts_with("a_"));

    // A label that was set by hand is removed; one that was removed is set again.
    objects.lock().unwrap().pods.get_mut("b").unwrap().is_active = true;
    objects.lock().unwrap().pods.get_mut("a").unwrap().is_active = false;
    eventually("the label is put right", || active(&objects) == ["a"]).await;

    // A binding is under way: the Lease is kept, and nobody judges.
    *a.view.unseen.lock().unwrap() = 1;
    a.judge.begin_hand_over(Instant::now());
    let was_held = holder(&objects);
    assert_eq!(a.turn(), JudgeTurn::Denies);
    sleep(Duration::from_millis(300)).await;
    assert_eq!((holder(&objects), b.turn()), (was_held, JudgeTurn::Denies));
    *a.view.unseen.lock().unwrap() = 0;
    let begin = Instant::now();
    eventually("b judges", || b.turn() == JudgeTurn::Judges).await;
    assert!(begin.elapsed() < TIMES.lease_duration, "the Lease was given back: {:?}", begin.elapsed());
    eventually("only b has the label", || active(&objects) == ["b"]).await;
    a.judge.wait_until_handed_over().await;
    assert_eq!(a.turn(), JudgeTurn::Denies);

    assert_eq!(a.told(), ["judging true", "judging false"]);
    assert_eq!(b.told(), [r#"restore "spent by a""#, "judging true"]);
    assert_eq!((a.metric("judging"), a.metric("transitions_total")), (0.0, 2.0));
    assert_eq!((b.metric("judging"), b.metric("transitions_total")), (1.0, 1.0));
    assert!(!a.task.is_finished() && !b.task.is_finished());
}

#[tokio::test]
async fn a_holder_that_dies_is_followed_after_its_time_and_a_second() {
    let objects = with_pods(&["a", "b"]);
    let a = start(&objects, "a");
    eventually("a judges", || a.turn() == JudgeTurn::Judges).await;
    let b = start(&objects, "b");
    eventually("b has read the Lease", || b.judge.with(|b| b.holder_text(Instant::now()).starts_with("a_")))
        .await;
    a.task.abort();
    let begin = Instant::now();
    eventually("b judges", || b.turn() == JudgeTurn::Judges).await;
    let took = begin.elapsed();
    assert!(took > TIMES.lease_duration + Duration::from_millis(500), "{took:?}");
    // The dead one's judge is asked, too: its process was frozen.
    assert_eq!(a.turn(), JudgeTurn::Denies);
    eventually("only b has the label", || active(&objects) == ["b"]).await;
}

#[tokio::test]
async fn a_stranger_may_hold_the_lease() {
    let objects = with_pods(&["a"]);
    foreign_lease(&objects, "stranger", 0);
    let (begin, mut times) = (Instant::now(), 0);
    let a = start(&objects, "a");
    while a.turn() == JudgeTurn::Denies {
        times += 1;
        foreign_lease(&objects, "stranger", times);
        sleep(Duration::from_millis(20)).await;
    }
    let took = begin.elapsed();
    assert_eq!(a.turn(), JudgeTurn::Allows);
    assert!(took >= TIMES.lease_duration && took < 2 * TIMES.lease_duration, "{took:?}");
    // It goes on for as long as the stranger renews; then this replica judges.
    eventually("a judges", || a.turn() == JudgeTurn::Judges).await;
    // The stranger takes the Lease from it.
    foreign_lease(&objects, "stranger", 0);
    eventually("a does not judge", || a.turn() == JudgeTurn::Denies).await;
    objects.lock().unwrap().lease = None;
    eventually("a judges again", || a.turn() == JudgeTurn::Judges).await;
    // It is the judge, and somebody deletes the Lease.
    let transitions = a.metric("transitions_total");
    objects.lock().unwrap().lease = None;
    eventually("the Lease is written again", || holder(&objects).starts_with("a_")).await;
    assert_eq!((a.turn(), a.metric("transitions_total")), (JudgeTurn::Judges, transitions));
    assert_eq!(a.metric("errors_total"), 0.0, "{:?}", objects.lock().unwrap().calls);
}

#[tokio::test]
async fn without_the_rights_bindings_are_allowed_after_one_lease_duration() {
    let with_status = async |lease_status, pod_status| {
        let objects = with_pods(&["a"]);
        objects.lock().unwrap().lease_status = lease_status;
        objects.lock().unwrap().pod_status = pod_status;
        let a = start(&objects, "a");
        sleep(TIMES.lease_duration / 2).await;
        assert_eq!(a.turn(), JudgeTurn::Denies);
        eventually("bindings are allowed", || a.turn() == JudgeTurn::Allows).await;
        assert!(a.metric("errors_total") > 1.0 && !a.task.is_finished());
        objects.lock().unwrap().lease_status = 0;
        objects.lock().unwrap().pod_status = 0;
        eventually("a judges", || a.turn() == JudgeTurn::Judges).await;
    };
    tokio::join!(with_status(403, 0), with_status(500, 0), with_status(403, 403));
}

/// The chart's Service leads to no replica then, but a webhook with a URL does.
#[tokio::test]
async fn without_the_right_to_patch_pods_it_judges_after_two_seconds() {
    let objects = with_pods(&["a"]);
    objects.lock().unwrap().pod_status = 403;
    let (a, begin) = (start(&objects, "a"), Instant::now());
    eventually("a judges", || a.turn() == JudgeTurn::Judges).await;
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(a.metric("errors_total") >= 1.0);
    assert!(active(&objects).is_empty());
}
