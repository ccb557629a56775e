//! Leader election for `/bind`: reads and writes the Lease, and the label of the Pod that judges.
//!
//! ```text
//!  watch of pods ──▶ JudgingCluster::look ──▶ Judge::look ─┐
//!                                                          ▼
//!  apiserver ◀── get, create, replace of the Lease ◀── Judge::next_step      SharedJudge::turn ──▶ server
//!            ◀── patch of Pods' labels             ◀── Judge::label_fixes
//! ```
//! The state machine is [`crate::reservation::judge`]; here are its calls. Each write of the Lease replaces the version that was
//! read, so that a process which was frozen cannot renew what another one holds. An error ends nothing: it is counted, and logged
//! with the right that is missing.

pub mod record;
pub mod shared_judge;

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, Patch, PostParams};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

pub use self::shared_judge::SharedJudge;

use super::WriteError;
use crate::api::meta::FIELD_MANAGER;
use crate::cache::replicas::{ACTIVE_LABEL, JUDGING_SINCE_ANNOTATION};
use crate::reservation::judge::{JudgeSight, JudgeState, JudgeTimes, JudgeTurn, LabelFix, LeaseStep};
use crate::telemetry::log_on_change::LogThrottle;
use crate::telemetry::logs::{Sanitized, chain};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::patch_params;

/// The most calls of one round: a read, a write that meets another version, and both again.
const MAX_STEPS: usize = 6;

/// The part of the cluster's view that leader election reads and changes. Its functions must not block.
pub trait JudgingCluster: Send + Sync + 'static {
    /// Returns the view at `now`.
    fn look(&self, now: Instant) -> JudgeSight;
    /// Records that this replica judges from now on, or does so no longer.
    fn set_judging(&self, is_judging: bool, now: Instant);
    /// Returns a note of what has been spent of holds and budgets.
    fn spent_note(&self, now: Instant) -> String;
    /// Takes over the note of the last judge.
    fn restore_spent(&self, note: &str, now: Instant);
}

/// The names of the Lease, and of the own Pod.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// The namespace and the name of the own Pod; `None` if the process runs in none.
    pub own_pod: Option<(String, String)>,
}

/// Moves `judge` for as long as the process runs.
pub async fn run(
    client: Client,
    settings: LeaseSettings,
    judge: SharedJudge,
    cluster: impl JudgingCluster,
    metrics: Arc<Metrics>,
) {
    let (identity, times) = judge.with(|judge| (judge.identity().to_owned(), judge.times()));
    let LeaseSettings { namespace, name, own_pod } = settings;
    tracing::info!(
        identity,
        lease = format!("{namespace}/{name}"),
        pod = own_pod.as_ref().map(|(_, pod)| pod),
        "leader election: waiting for the Lease, whose holder judges bindings"
    );
    if own_pod.is_none() {
        tracing::warn!(
            "leader election without POD_NAME and POD_NAMESPACE: no Pod gets the label {ACTIVE_LABEL}, and the Lease alone decides which replica judges"
        );
    }
    let elector = Elector {
        leases: Api::namespaced(client.clone(), &namespace),
        pods: own_pod.as_ref().map(|(namespace, _)| Api::namespaced(client, namespace)),
        namespace,
        name,
        own_pod: own_pod.map(|(_, pod)| pod),
        identity,
        times,
        judge,
        cluster,
        metrics,
        known: None,
        written_note: None,
        was_judging: false,
        has_begun: false,
        last_logged: None,
        lease_throttle: LogThrottle::default(),
        pod_throttle: LogThrottle::default(),
    };
    elector.run().await;
}

struct Elector<C> {
    leases: Api<Lease>,
    /// `None` without an own Pod.
    pods: Option<Api<Pod>>,
    namespace: String,
    name: String,
    own_pod: Option<String>,
    identity: String,
    times: JudgeTimes,
    judge: SharedJudge,
    cluster: C,
    metrics: Arc<Metrics>,
    /// The Lease as last read or written, with its version.
    known: Option<Lease>,
    /// The note that this process has written last.
    written_note: Option<String>,
    /// The last value that `set_judging` was called with.
    was_judging: bool,
    /// True if this replica has begun to judge and has not looked at the labels since.
    has_begun: bool,
    last_logged: Option<(JudgeState, JudgeTurn, String)>,
    lease_throttle: LogThrottle,
    pod_throttle: LogThrottle,
}

impl<C: JudgingCluster> Elector<C> {
    async fn run(mut self) {
        let mut last_round: Option<Instant> = None;
        loop {
            self.look();
            let (is_round_due, pause) = self.judge.with(|judge| {
                let is_due = last_round.is_none_or(|at| at.elapsed() >= judge.round_period());
                if is_due {
                    judge.begin_round();
                }
                (is_due, judge.pause())
            });
            if is_round_due {
                last_round = Some(Instant::now());
            }
            // In between a call can be due too, when a barrier or a hand-over has just come so far.
            self.take_steps().await;
            // At once when this replica begins to judge: the apiserver asks the earlier judge until its label is gone.
            if is_round_due || std::mem::take(&mut self.has_begun) {
                self.fix_labels().await;
            }
            sleep(pause.min(self.times.retry_period)).await;
        }
    }

    /// Shows the cluster to the judge, and reports what has changed.
    fn look(&mut self) {
        let now = Instant::now();
        let mut sight = self.cluster.look(now);
        sight.may_stand &= self.judge.may_stand();
        self.judge.with(|judge| judge.look(sight, now));
        self.report();
    }

    /// Tells the cluster, the metrics and the log of a change.
    fn report(&mut self) {
        let now = Instant::now();
        let turn = self.judge.turn(now);
        let (state, holder, is_handed_over) =
            self.judge.with(|judge| (judge.state(), judge.holder_text(now), judge.is_handed_over(now)));
        let is_judging = turn == JudgeTurn::Judges;
        if std::mem::replace(&mut self.was_judging, is_judging) != is_judging {
            self.has_begun = is_judging;
            self.cluster.set_judging(is_judging, now);
            self.metrics.leader_election.record_transition(is_judging);
        }
        if is_handed_over {
            self.judge.report_handed_over();
        }
        let shown = Some((state, turn, holder));
        if self.last_logged != shown {
            self.last_logged = shown;
            self.log_change();
        }
    }

    fn log_change(&self) {
        let Some((state, turn, holder)) = &self.last_logged else { return };
        let (identity, state, holder) = (&self.identity, state_text(*state), Sanitized(holder));
        match turn {
            JudgeTurn::Judges => tracing::info!(identity, state, "this replica judges bindings"),
            JudgeTurn::Denies => {
                tracing::info!(identity, state, %holder, "this replica does not judge bindings, and denies them for another one to judge");
            }
            JudgeTurn::Allows => {
                tracing::warn!(identity, state, %holder, "no replica judges bindings: they are allowed unjudged");
            }
        }
    }

    async fn take_steps(&mut self) {
        for _ in 0..MAX_STEPS {
            let Some(step) = self.judge.with(|judge| judge.next_step(Instant::now())) else { return };
            let is_done = match step {
                LeaseStep::Read => self.read().await,
                LeaseStep::Acquire => self.acquire().await,
                LeaseStep::Renew => self.renew().await,
                LeaseStep::Mark(token) => self.mark(token).await,
                LeaseStep::Release => self.release().await,
            };
            // The time of a call may have changed the view.
            self.look();
            if !is_done {
                return;
            }
        }
    }

    /// Reads the Lease. Returns false after an error, as the following functions do.
    async fn read(&mut self) -> bool {
        // Not get_opt, which reads the reason of a Status, and not the code.
        let read = match self.in_time(self.leases.get(&self.name)).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        };
        let now = Instant::now();
        match read {
            Ok(lease) => {
                let record = lease.as_ref().map(record::record_of);
                self.known = lease;
                self.judge.with(|judge| judge.read(record, now));
                true
            }
            Err(error) => {
                self.lease_failed(&error, "read");
                false
            }
        }
    }

    async fn acquire(&mut self) -> bool {
        // Also if this process is the holder: an earlier attempt may have been stored without an answer.
        let note = self.known.as_ref().map(|lease| record::note_of(lease).to_owned());
        let note = note.filter(|note| self.written_note.as_ref() != Some(note));
        let lease = record::held(self.known.as_ref(), &self.name, &self.identity, self.times.lease_duration);
        self.write(lease, note).await
    }

    async fn renew(&mut self) -> bool {
        let mut lease =
            record::held(self.known.as_ref(), &self.name, &self.identity, self.times.lease_duration);
        record::set_note(&mut lease, self.cluster.spent_note(Instant::now()));
        self.write(lease, None).await
    }

    async fn release(&mut self) -> bool {
        let Some(known) = &self.known else {
            self.judge.with(|judge| judge.conflict());
            return true;
        };
        let mut lease = record::given_back(known);
        record::set_note(&mut lease, self.cluster.spent_note(Instant::now()));
        self.write(lease, None).await
    }

    /// Writes the Lease: replaces the known version, or creates it if there is none. After a success the cluster takes over the
    /// `note` of the last judge.
    async fn write(&mut self, lease: Lease, note: Option<String>) -> bool {
        let started = Instant::now();
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let written = match &self.known {
            Some(_) => self.in_time(self.leases.replace(&self.name, &params, &lease)).await,
            None => self.in_time(self.leases.create(&params, &lease)).await,
        };
        let now = Instant::now();
        match written {
            Ok(lease) => {
                let record = record::record_of(&lease);
                self.written_note = Some(record::note_of(&lease).to_owned());
                self.known = Some(lease);
                if let Some(note) = note {
                    self.cluster.restore_spent(&note, now);
                }
                self.judge.with(|judge| judge.written(record, started, now));
                true
            }
            // Somebody else has written, created or deleted it.
            Err(error) if error.code() == Some(409) || self.known.is_some() && error.code() == Some(404) => {
                self.judge.with(|judge| judge.conflict());
                true
            }
            Err(error) => {
                self.lease_failed(&error, "write");
                false
            }
        }
    }

    /// Writes the label and the token to the own Pod.
    async fn mark(&mut self, token: String) -> bool {
        let Some(pod) = self.own_pod.clone() else { return false };
        let metadata = json!({
            "labels": { ACTIVE_LABEL: "true" },
            "annotations": { JUDGING_SINCE_ANNOTATION: token },
        });
        let patched = self.patch(&pod, metadata).await;
        let now = Instant::now();
        match patched {
            Ok(()) => {
                self.judge.with(|judge| judge.marked(Some(token), now));
                true
            }
            Err(error) => {
                if error.is_final() {
                    self.judge.with(|judge| judge.marked(None, now));
                }
                self.pod_failed(&error, &pod);
                false
            }
        }
    }

    /// Puts the labels of the release's Pods right, as far as the apiserver allows it.
    async fn fix_labels(&mut self) {
        for LabelFix { pod, uid, is_active } in self.judge.with(|judge| judge.label_fixes()) {
            let value = if is_active { json!("true") } else { Value::Null };
            // The UID, so that a new Pod of the name is left alone.
            let metadata = json!({ "uid": uid, "labels": { ACTIVE_LABEL: value } });
            match self.patch(&pod, metadata).await {
                Ok(()) => {
                    let change = if is_active { "set" } else { "removed" };
                    tracing::info!(pod, change, "put the label {ACTIVE_LABEL} right");
                }
                // The Pod is gone, or another one has its name.
                Err(error) if matches!(error.code(), Some(404 | 409)) => {}
                Err(error) => self.pod_failed(&error, &pod),
            }
        }
    }

    async fn patch(&self, pod: &str, metadata: Value) -> Result<(), WriteError> {
        let Some(pods) = &self.pods else { return Ok(()) };
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        self.in_time(pods.patch_metadata(pod, &patch_params(), &patch)).await.map(drop)
    }

    /// Waits for a call, a third of the renew deadline at most: of three attempts one may succeed in time.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, WriteError> {
        Ok(timeout(self.times.renew_deadline / 3, call).await??)
    }

    fn lease_failed(&mut self, error: &WriteError, action: &str) {
        self.metrics.leader_election.record_error();
        if self.lease_throttle.is_new(error.code().unwrap_or_default()) {
            let (namespace, name) = (&self.namespace, &self.name);
            let hint = match error.code() {
                Some(403) => {
                    ": grant the verbs get, create and update on leases of coordination.k8s.io in this namespace"
                }
                Some(404) => ": does the namespace exist?",
                _ => "",
            };
            tracing::warn!(
                namespace,
                name,
                "failed to {action} the Lease of leader election{hint}: {}",
                Sanitized(&chain(error))
            );
        }
    }

    fn pod_failed(&mut self, error: &WriteError, pod: &str) {
        self.metrics.leader_election.record_error();
        if self.pod_throttle.is_new(error.code().unwrap_or_default()) {
            let hint = match error.code() {
                Some(403) => ": grant the verb patch on pods in this namespace",
                Some(404) => ": POD_NAME and POD_NAMESPACE name no Pod",
                _ => "",
            };
            tracing::warn!(
                pod,
                "failed to write the label {ACTIVE_LABEL} of a Pod, by which the apiserver finds the judge{hint}: {}",
                Sanitized(&chain(error))
            );
        }
    }
}

fn state_text(state: JudgeState) -> &'static str {
    match state {
        JudgeState::Standby => "standby",
        JudgeState::TakingOver => "taking over",
        JudgeState::Judging => "judging",
        JudgeState::HandingOver => "handing over",
        JudgeState::Released => "released",
    }
}

/// Returns an identity for a process: `name` and random digits, as client-go does. A container that is started again in its Pod has
/// another one.
pub fn new_identity(name: &str) -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let random = || RandomState::new().build_hasher().finish();
    format!("{name}_{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests;
