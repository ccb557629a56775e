//! A stranger at the port, without a credential.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinHandle;

use super::Dice;
use super::probe::{Caller, filter_body};
use crate::harness::Warden;

/// The attacks that run at once.
const AT_ONCE: u64 = 3;

/// The running attacks of a stranger.
pub(super) struct Stranger {
    is_over: Arc<AtomicBool>,
    attacks: Vec<JoinHandle<u64>>,
}

impl Stranger {
    pub(super) fn start(warden: &Warden, mut dice: Dice) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let attacks = (0..AT_ONCE).map(|attacker| {
            let (caller, over) = (Caller::of(warden), is_over.clone());
            let mut own = Dice(dice.below(u64::MAX) | 1);
            tokio::spawn(async move {
                let mut done = 0;
                while !over.load(Ordering::Relaxed) {
                    attack(&caller, &mut own, attacker * 1_000_000 + done).await;
                    done += 1;
                    tokio::time::sleep(Duration::from_millis(own.below(200))).await;
                }
                done
            })
        });
        let attacks = attacks.collect();
        Self { is_over, attacks }
    }

    /// Ends the attacks. Returns their number.
    pub(super) async fn stop(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        let mut done = 0;
        for attack in self.attacks {
            done += attack.await.expect("no panic");
        }
        done
    }
}

/// Sends one of the bodies that did harm. The answer does not matter.
async fn attack(caller: &Caller, dice: &mut Dice, number: u64) {
    let names = |count: usize| -> Vec<String> { (0..count).map(|node| format!("node-{node}")).collect() };
    let (path, body) = match dice.below(7) {
        0 => (
            "/validate",
            review(
                &json!({ "metadata": { "name": "d", "namespace": "n", "ownerReferences": vec![json!({}); 2_000] } }),
            ),
        ),
        1 => {
            let list = format!("[{}]", vec!["{}"; 500_000].join(","));
            (
                "/validate",
                review(&json!({})).replace(
                    "\"object\":{}",
                    &format!(
                        "\"object\":{{\"spec\":{{\"template\":{{\"spec\":{{\"containers\":{list}}}}}}}}}"
                    ),
                ),
            )
        }
        2 => {
            let mut body = filter_body(&format!("s{number}"), "1", &vec!["node-1".to_owned(); 50_000]);
            let amounts: serde_json::Map<_, _> =
                (0..20_000).map(|name| (format!("example.com/r{name}"), json!("-1"))).collect();
            body["Pod"]["spec"]["containers"][0]["resources"]["requests"] = amounts.into();
            ("/scheduler/filter", body.to_string())
        }
        3 => {
            let mut body = filter_body(&format!("s{number}"), "1", &names(5_000));
            let term = json!({ "matchExpressions": [{ "key": "a", "operator": "In", "values": ["b"] }] });
            let terms = vec![term; 20_000];
            body["Pod"]["spec"]["affinity"] = json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } });
            ("/scheduler/filter", body.to_string())
        }
        4 => (
            "/scheduler/preempt",
            json!({ "Pod": { "metadata": { "uid": format!("s{number}") } }, "NodeNameToMetaVictims": {} })
                .to_string(),
        ),
        // New UIDs, each of which is remembered for a while.
        _ => ("/scheduler/filter", filter_body(&format!("s{number}"), "100m", &names(500)).to_string()),
    };
    let _ = caller.post(path, body).await;
}

fn review(object: &serde_json::Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "CREATE", "kind": { "group": "apps", "version": "v1", "kind": "DaemonSet" },
            "resource": { "group": "apps", "version": "v1", "resource": "daemonsets" }, "object": object,
        },
    })
    .to_string()
}
