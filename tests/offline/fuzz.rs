//! Every parser of bytes from outside, with inputs that are nearly right: none panics, hangs or returns a wrong answer.
//!
//! The corpus is in tests/data/fuzz; `fuzz/mutator.rs` changes it. Each run has another seed, which it prints; `SEED=...`
//! repeats the run. A million inputs: `COUNT=80000 cargo test --test offline fuzz:: -- --nocapture`; not with `--release`,
//! which does not check for overflows.

mod mutator;
mod outside;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::http::{Request, StatusCode};
use daemonset_warden::admission::{mutation, validation};
use daemonset_warden::api::admission_v1;
use daemonset_warden::api::decode_budget::DecodeBudget;
use daemonset_warden::api::extender_v1::ExtenderArgs;
use daemonset_warden::api::extender_v1::preemption::ExtenderPreemptionArgs;
use daemonset_warden::api::json::Scanner;
use daemonset_warden::cache::change::Change;
use daemonset_warden::command::config;
use daemonset_warden::command::config::ParseError;
use daemonset_warden::command::explain::manifests;
use daemonset_warden::explain::inventory::Inventory;
use daemonset_warden::explain::{RowFilter, explain};
use daemonset_warden::policy::{Level, Policy};
use daemonset_warden::reservation::incoming_pod::IncomingDemand;
use daemonset_warden::reservation::preemption::judge_candidates;
use daemonset_warden::reservation::prepared_filter::{PreparedFilter, answer_verdicts};
use daemonset_warden::reservation::{Reservation, View};
use daemonset_warden::server::http::limits::Limits;
use daemonset_warden::server::{AppState, router};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::RawValue;
use tower::ServiceExt;

use self::mutator::{Random, mutate};

const ADMISSION: &str = include_str!("../data/fuzz/admission.jsonl");
const FILTER: &str = include_str!("../data/fuzz/filter.jsonl");
const PREEMPT: &str = include_str!("../data/fuzz/preempt.jsonl");
const CONFIG: &str = include_str!("../data/fuzz/config.yaml");
const CLUSTER: &str = include_str!("../data/explain/cluster.yaml");

/// Inputs for each target, in a second or two.
const COUNT: u64 = 2_000;
/// The longest time for one input, on a machine that is busy with other tests.
const SLOW: Duration = Duration::from_secs(5);

#[test]
fn reviews_and_their_answers() {
    let server = Server::new();
    fuzz("admission", &lines(ADMISSION), |input| {
        for path in ["/validate", "/mutate"] {
            let (status, answer) = server.post(path, input);
            assert!(matches!(status, StatusCode::OK | StatusCode::BAD_REQUEST), "{path} {status} {answer}");
            if let Ok(request) = admission_v1::parse(input)
                && status == StatusCode::OK
            {
                assert_eq!(answer["response"]["uid"], *request.uid, "{path}");
                assert!(answer["response"]["allowed"].is_boolean(), "{path} {answer}");
            }
        }
    });
}

#[test]
fn every_rule_on_any_daemon_set() {
    let mut strict = Policy::default();
    for rule in validation::rules::RULES {
        strict.admission.rules.insert(rule.id.into(), Level::Deny);
    }
    fuzz("validate", &lines(ADMISSION), |input| {
        let Ok(request) = admission_v1::parse(input) else { return };
        let Ok(outcome) = validation::review(&strict, &request, None) else { return };
        assert_eq!(outcome.status().is_none(), outcome.is_allowed());
        assert!(outcome.warnings().iter().all(|warning| warning.chars().count() <= 256));
    });
}

#[test]
fn patches_apply_and_leave_nothing_to_do() {
    let policy = Policy::default();
    fuzz("mutate", &lines(ADMISSION), |input| {
        let Ok(request) = admission_v1::parse(input) else { return };
        let Ok(patch) = mutation::review(&policy, &request, None, None) else { return };
        // A number that a Value cannot hold (1e999) is not tested.
        let Ok(mut review) = serde_json::from_slice::<Value>(input) else { return };
        let patch: json_patch::Patch = serde_json::from_str(&patch.to_json()).unwrap();
        json_patch::patch(&mut review["request"]["object"], &patch).unwrap();
        let again = serde_json::to_vec(&review).unwrap();
        let request = admission_v1::parse(&again).unwrap();
        let patch = mutation::review(&policy, &request, None, None).unwrap();
        assert!(patch.is_empty(), "{}", patch.to_json());
    });
}

#[test]
fn filter_arguments() {
    let server = Server::new();
    let view = Mutex::new(view());
    fuzz("filter", &lines(FILTER), |input| {
        let (status, _) = server.post("/scheduler/filter", input);
        let parsed = ExtenderArgs::parse(input);
        assert_eq!(status, if parsed.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST });
        let Ok(args) = parsed else { return };
        assert!(serde_json::from_slice::<&RawValue>(input).is_ok(), "accepted what is no JSON");
        let prepared = PreparedFilter::new(&Policy::default(), &args, &DecodeBudget::default());
        let (verdicts, _) = prepared.judge_with_cache(|| view.lock(), Instant::now());
        let result = answer_verdicts(&args, verdicts);
        assert!(
            serde_json::from_slice::<&RawValue>(&result.body.to_vec(input)).is_ok(),
            "answered what is no JSON"
        );
        assert!(result.refused.values().sum::<usize>() <= result.nodes);
    });
}

#[test]
fn preemption_arguments() {
    let server = Server::new();
    let view = Mutex::new(view());
    fuzz("preempt", &lines(PREEMPT), |input| {
        let (status, _) = server.post("/scheduler/preempt", input);
        let parsed = ExtenderPreemptionArgs::parse(input);
        assert_eq!(status, if parsed.is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST });
        let Ok(args) = parsed else { return };
        let candidates = args.candidates();
        let (protect, demand) = (Policy::default().protect_daemon_pods, IncomingDemand::of(&args.pod));
        let judged = judge_candidates(|| view.lock(), protect, &demand, &candidates, Instant::now());
        let verdicts = judged.unwrap_or_else(|| vec![None; candidates.len()]);
        let answer: Value =
            serde_json::from_slice(&args.to_result(|index| verdicts[index].is_none()).body).unwrap();
        let nodes = answer["NodeNameToMetaVictims"].as_object().unwrap();
        assert!(nodes.values().all(|victims| victims["Pods"].is_array()), "{answer}");
    });
}

#[test]
fn configurations() {
    fuzz("config", &[CONFIG.as_bytes()], |input| match config::parse(&String::from_utf8_lossy(input)) {
        Ok(_) => {}
        Err(ParseError::NotYaml(reason)) => assert!(!reason.is_empty()),
        Err(ParseError::Faults(faults)) => assert!(faults.iter().all(|fault| !fault.message.is_empty())),
    });
}

#[test]
fn manifests_to_explain() {
    let documents: Vec<&[u8]> = CLUSTER.split("\n---\n").map(str::as_bytes).collect();
    let mut all = documents.clone();
    all.extend([CLUSTER.as_bytes()]);
    fuzz("explain", &all, |input| {
        let mut inventory = Inventory::new(Arc::new(Policy::default()));
        // The objects before the fault are explained as well.
        let _ = manifests::parse(&String::from_utf8_lossy(input), &mut inventory);
        for row in explain(&inventory.cluster, &inventory.failures, &RowFilter::default()) {
            assert!(serde_json::to_string(&row).is_ok());
        }
    });
}

#[test]
fn the_scanner_and_serde_json_agree() {
    let seeds: Vec<&[u8]> = [ADMISSION, FILTER, PREEMPT].into_iter().flat_map(lines).collect();
    fuzz("scanner", &seeds, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let mut scanner = Scanner::new(text);
        let ours = scanner.value().and_then(|value| scanner.end().map(|()| value));
        let theirs = serde_json::from_str::<&RawValue>(text).map(RawValue::get);
        // The scanner stops at a depth that no object has.
        if !ours.is_err_and(|fault| fault.to_string().contains("deep")) {
            assert_eq!(ours.ok(), theirs.ok());
        }
    });
}

/// Calls `judge` for inputs mutated from `seeds`. Prints an input that panics or is slow.
fn fuzz(target: &str, seeds: &[&[u8]], judge: impl FnMut(&[u8]) + Send) {
    // A stack of the size of the main thread's, where the program reads files; a test's thread has a quarter of it.
    std::thread::scope(|scope| {
        let run = std::thread::Builder::new().stack_size(8 << 20);
        let run = run.spawn_scoped(scope, || fuzz_here(target, seeds, judge)).unwrap();
        run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn fuzz_here(target: &str, seeds: &[&[u8]], mut judge: impl FnMut(&[u8])) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let since_1970 = u64::from(since_1970.subsec_nanos()) + since_1970.as_secs();
    let seed = from_environment("SEED").unwrap_or(since_1970);
    let count = from_environment("COUNT").unwrap_or(COUNT);
    let mut random = Random(seed);
    let begin = Instant::now();
    for number in 0..count {
        let input = mutate(&mut random, seeds);
        let _shown = ShownInPanic { target, seed, number, input: &input };
        let begin = Instant::now();
        judge(&input);
        assert!(begin.elapsed() < SLOW, "took {:?}", begin.elapsed());
    }
    println!("{target}: {count} inputs in {:.0?}, SEED={seed}", begin.elapsed());
}

fn from_environment(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// Prints the input if its test panics.
struct ShownInPanic<'a> {
    target: &'a str,
    seed: u64,
    number: u64,
    input: &'a [u8],
}

impl Drop for ShownInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { target, seed, number, input } = self;
            println!("{target}, SEED={seed}, input {number}: {}", input.escape_ascii());
        }
    }
}

fn lines(text: &'static str) -> Vec<&'static [u8]> {
    text.lines().map(str::as_bytes).collect()
}

fn cluster() -> Inventory {
    let mut inventory = Inventory::new(Arc::new(Policy::default()));
    manifests::parse(CLUSTER, &mut inventory).unwrap();
    inventory
}

/// The cluster of the manifests, taken up by a reservation.
fn view() -> View {
    let cache = cluster().cluster;
    let mut reservation = Reservation::new(cache.policy().clone(), None);
    let daemon_sets = cache.daemon_sets().map(|(id, _)| Change::DaemonSetChanged { id, moves: true });
    let changes = daemon_sets.chain(cache.nodes().map(|(id, _)| Change::NodeAdded(id))).collect();
    reservation.observe(&cache, changes, Instant::now());
    View { cache, reservation }
}

/// The real router, without a cluster and with the default policy.
struct Server {
    runtime: tokio::runtime::Runtime,
    router: axum::Router,
}

impl Server {
    fn new() -> Self {
        let state = AppState::new(Policy::default(), Limits::default(), false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, router: router(state) }
    }

    /// Returns the status and the response, which must be JSON; null if a Value cannot hold an echoed number.
    fn post(&self, path: &str, body: &[u8]) -> (StatusCode, Value) {
        let request = Request::post(path).body(Body::from(body.to_vec())).unwrap();
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert!(serde_json::from_slice::<&RawValue>(&body).is_ok(), "{path} answered what is no JSON");
            (status, serde_json::from_slice(&body).unwrap_or_default())
        })
    }
}
