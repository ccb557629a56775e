//! Reviews of bindings that no apiserver has sent, of pods that wait and of pods that do not exist, all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::harness::node_of;
use crate::hostile::caller::Caller;
use crate::hostile::dice::Dice;
use crate::hostile::door::{Door, binding_review, forged_pod};
use crate::hostile::tally::Tally;

/// The names of the attacks.
pub(super) const OF_PODS: &str = "forged bindings of pods that wait";
pub(super) const OF_NOBODY: &str = "forged bindings of pods that do not exist";
/// The interval at which the stranger learns the names of the pods that wait.
const LEARNS: Duration = Duration::from_secs(2);
/// The longest pause between two reviews, in milliseconds.
const PAUSE: u64 = 20;

/// Sends reviews. A stranger who knows the pods' names and UIDs does the most harm.
pub(super) async fn forge(
    caller: Caller,
    pods: Api<Pod>,
    nodes: Vec<String>,
    mut dice: Dice,
    is_over: Arc<AtomicBool>,
) -> Tally {
    let mut tally = Tally::default();
    let (mut waiting, mut learned): (Vec<Value>, Option<Instant>) = (Vec::new(), None);
    for number in 0_u64.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        if learned.is_none_or(|at| at.elapsed() > LEARNS)
            && let Ok(list) = pods.list(&ListParams::default()).await
        {
            let unbound = list.items.iter().filter(|pod| node_of(pod).is_none());
            waiting = unbound.map(identity).collect();
            learned = Some(Instant::now());
        }
        let chosen = dice.below(2 * waiting.len() as u64 + 1) as usize;
        let (attack, pod) = match waiting.get(chosen) {
            Some(pod) => (OF_PODS, pod.clone()),
            None => (OF_NOBODY, forged_pod(&format!("nobody-{number}"), "1")),
        };
        let node = &nodes[dice.below(nodes.len() as u64) as usize];
        let result = match caller.post(Door::Bind.path(), binding_review(&pod, node).to_string()).await {
            Ok((200, _)) => Ok(()),
            Ok((status, text)) => Err(format!("{status}: {text}")),
            Err(why) => Err(why),
        };
        tally.count(attack, result);
        tokio::time::sleep(Duration::from_millis(dice.below(PAUSE))).await;
    }
    tally
}

fn identity(pod: &Pod) -> Value {
    json!({ "metadata": { "name": pod.name_any(), "namespace": pod.namespace(), "uid": pod.uid() } })
}
