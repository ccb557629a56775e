//! Random cases, for which Kubernetes 1.36.3's own code (tests/control-plane/cmd/oracle) and the warden give the same answers.
//!
//! Each run has another seed, which it prints. `SEED=...` repeats a run, and a long run is
//! `COUNT=100000 cargo test --release --test offline differential -- --nocapture`.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::Request;
use daemonset_warden::admission::mutation;
use daemonset_warden::api::admission_v1;
use daemonset_warden::api::daemonset::DaemonSet;
use daemonset_warden::daemonset::placement::node_should_run_daemon_pod;
use daemonset_warden::policy::Policy;
use daemonset_warden::server::http::limits::Limits;
use daemonset_warden::server::{AppState, router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::tools;

/// Enough cases for every branch, in about a second.
const COUNT: u64 = 2_000;

#[test]
fn creation_is_judged_as_upstream_judges_it() {
    let router = Webhook::new();
    compare("create", |case| {
        for object in [&case["object"], &case["raw"]] {
            same(&router.causes("CREATE", object, &Value::Null), &case["causes"])?;
        }
        Ok(())
    });
}

#[test]
fn updates_are_judged_as_upstream_judges_them() {
    let router = Webhook::new();
    compare("update", |case| same(&router.causes("UPDATE", &case["object"], &case["old"]), &case["causes"]));
}

#[test]
fn pods_are_placed_as_upstream_places_them() {
    compare("place", |case| {
        let mut pod = case["pod"].clone();
        pod["spec"]["nodeName"] = case["node"].clone();
        let patched = mutate(pod);
        let spec = &patched["spec"];
        same(
            &json!([spec["affinity"], spec["tolerations"]]),
            &json!([case["affinity"], case["tolerations"]]),
        )?;
        if spec.get("nodeName").is_some() {
            return Err("it still has a node name".to_owned());
        }
        same(&mutate(patched.clone()), &patched)
    });
}

#[test]
fn nodes_are_chosen_as_upstream_chooses_them() {
    compare("run", |case| {
        let daemon_set: DaemonSet =
            serde_json::from_value(case["daemonSet"].clone()).map_err(|e| e.to_string())?;
        let node = serde_json::from_value(case["node"].clone()).map_err(|e| e.to_string())?;
        let placement = node_should_run_daemon_pod(&daemon_set.spec.template.spec, &node);
        let ours = json!([placement.should_run, placement.should_continue_running]);
        same(&ours, &json!([case["shouldRun"], case["shouldContinue"]]))
    });
}

/// Calls `judge` for the oracle's cases of `op`, and panics with the first few differences.
fn compare(op: &str, judge: impl Fn(&Value) -> Result<(), String>) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed =
        from_environment("SEED").unwrap_or(u64::from(since_1970.subsec_nanos()) + since_1970.as_secs());
    let count = from_environment("COUNT").unwrap_or(COUNT);
    let again = format!("-op {op} -seed {seed} -count {count}");
    let mut oracle =
        Command::new(tools::oracle()).args(again.split(' ')).stdout(Stdio::piped()).spawn().unwrap();
    let (mut cases, mut differences) = (0, Vec::new());
    for line in BufReader::new(oracle.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        cases += 1;
        if let Err(difference) = judge(&serde_json::from_str(&line).unwrap()) {
            differences.push(format!("{difference}\n  case {line}"));
        }
    }
    assert!(oracle.wait().unwrap().success() && cases == count, "the oracle ended early: {again}");
    // The output is captured, and shown when the test fails or with --nocapture.
    println!("{op}: {cases} cases, {} differences, SEED={seed}", differences.len());
    let _ = std::io::stdout().flush();
    let first = differences.iter().take(5).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} of {cases} differ, oracle {again}:\n{first}", differences.len());
}

fn from_environment(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn same(ours: &Value, upstreams: &Value) -> Result<(), String> {
    if ours == upstreams || in_order(ours) == in_order(upstreams) {
        return Ok(());
    }
    // Prints only the differences of long lists.
    if let (Some(ours), Some(upstreams)) = (in_order(ours), in_order(upstreams)) {
        let less = |all: &[String], known: &[String]| {
            all.iter()
                .filter(|one| !known.contains(one))
                .map(|one| format!("\n    {one}"))
                .collect::<String>()
        };
        let (more, missing) = (less(&ours, &upstreams), less(&upstreams, &ours));
        return Err(format!(
            "ours alone:{more}\n  upstream's alone:{missing}\n  {} and {} in all",
            ours.len(),
            upstreams.len()
        ));
    }
    Err(format!("ours {ours}\n  upstream's {upstreams}"))
}

/// Returns the causes in one order. Upstream walks maps in random order, so the causes of one path have no fixed order.
fn in_order(causes: &Value) -> Option<Vec<String>> {
    let path = |cause: &Value| cause["field"].as_str().map(str::to_owned);
    let mut causes: Vec<(usize, String)> = causes
        .as_array()?
        .iter()
        .map(|cause| path(cause).map(|_| (0, cause.to_string())))
        .collect::<Option<_>>()?;
    let fields: Vec<Option<String>> =
        causes.iter().map(|(_, text)| path(&serde_json::from_str(text).unwrap())).collect();
    for at in 1..causes.len() {
        causes[at].0 = causes[at - 1].0 + usize::from(fields[at] != fields[at - 1]);
    }
    causes.sort();
    Some(causes.into_iter().map(|(_, text)| text).collect())
}

/// The real router, without a cluster and with the default policy.
struct Webhook {
    runtime: tokio::runtime::Runtime,
    router: axum::Router,
}

impl Webhook {
    fn new() -> Self {
        let state = AppState::new(Policy::default(), Limits::default(), false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, router: router(state) }
    }

    /// Returns the causes of a denial by upstream's rules; empty if allowed, or denied only by the warden's own rules.
    fn causes(&self, operation: &str, object: &Value, old: &Value) -> Value {
        let kind = json!({"group": "apps", "version": "v1", "kind": "DaemonSet"});
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {"uid": "1", "kind": kind, "operation": operation, "object": object, "oldObject": old},
        });
        let request = Request::post("/validate").body(Body::from(review.to_string())).unwrap();
        let answer: Value = self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice(&body).unwrap()
        });
        let status = &answer["response"]["status"];
        if answer["response"]["allowed"] == true || status["code"] == 403 {
            return json!([]);
        }
        let Some(causes) = status["details"]["causes"].as_array() else { return answer };
        let cause = |cause: &Value| json!({"field": cause["field"], "type": cause["reason"], "message": cause["message"]});
        causes.iter().map(cause).collect()
    }
}

/// Returns the pod with the patch applied.
fn mutate(mut pod: Value) -> Value {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "object": pod},
    });
    let body = serde_json::to_vec(&review).unwrap();
    let request = admission_v1::parse(&body).unwrap();
    let patch = mutation::review(&Policy::default(), &request, None, None).unwrap();
    json_patch::patch(&mut pod, &serde_json::from_str::<json_patch::Patch>(&patch.to_json()).unwrap())
        .unwrap();
    pod
}
