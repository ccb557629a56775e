//! A stranger at the port, without a credential.

mod bindings;
mod bodies;
mod connections;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use tokio::task::JoinHandle;

use super::caller::Caller;
use super::dice::Dice;
use super::tally::Tally;
use crate::harness::Warden;
use bodies::Body;
use connections::{Connection, Target};

/// The bodies that are sent at once.
const AT_ONCE: u64 = 3;

/// The running attacks of a stranger.
pub(super) struct Stranger {
    is_over: Arc<AtomicBool>,
    attacks: Vec<JoinHandle<Tally>>,
}

impl Stranger {
    /// `served` is the number of connections to open that the server has to serve: each costs a handshake.
    /// Begins. `pods` are those of the others, and `nodes` the names of their nodes.
    pub(super) async fn start(
        warden: &Warden,
        served: usize,
        (pods, nodes): (Api<Pod>, Vec<String>),
        dice: &mut Dice,
    ) -> Self {
        daemonset_warden::server::http::open_files::raise_open_file_limit();
        let is_over = Arc::new(AtomicBool::new(false));
        let mut attacks = Vec::new();
        let written = tokio::task::spawn_blocking(|| Body::ALL.map(Body::request)).await.expect("no panic");
        let written = Arc::new(written);
        for attacker in 0..AT_ONCE {
            let (caller, over, own) = (Caller::of(warden), is_over.clone(), dice.split());
            attacks.push(tokio::spawn(send_bodies(caller, attacker, written.clone(), own, over)));
        }
        let (caller, over) = (Caller::of(warden), is_over.clone());
        attacks.push(tokio::spawn(bindings::forge(caller, pods, nodes, dice.split(), over)));
        let address = SocketAddr::from(([127, 0, 0, 1], warden.port()));
        let target = Target::new(address, &warden.ca);
        attacks.push(tokio::spawn(open_connections(target, served, dice.split(), is_over.clone())));
        Self { is_over, attacks }
    }

    /// Ends the attacks.
    pub(super) async fn stop(self) -> Tally {
        self.is_over.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        for attack in self.attacks {
            tally.add(attack.await.expect("no panic"));
        }
        tally
    }
}

/// Returns the kinds of attacks.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    let bodies = Body::ALL.iter().map(|body| body.name());
    let connections = Connection::ALL.iter().map(|kind| kind.name());
    bodies.chain(connections).chain([bindings::OF_PODS, bindings::OF_NOBODY])
}

/// Sends bodies.
async fn send_bodies(
    caller: Caller,
    attacker: u64,
    written: Arc<[(Body, &'static str, String); Body::ALL.len()]>,
    mut dice: Dice,
    is_over: Arc<AtomicBool>,
) -> Tally {
    let mut tally = Tally::default();
    let mut order: Vec<usize> = (0..written.len()).collect();
    for round in 0.. {
        dice.shuffle(&mut order);
        for number in &order {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let (body, path, text) = &written[*number];
            let text = text.replace(bodies::UID, &format!("s-{attacker}-{round}-{number}"));
            let result = match caller.post(path, text).await {
                Ok((status, _)) if body.is_read(status) => Ok(()),
                Ok((status, text)) => Err(format!("{status}: {text}")),
                Err(why) => Err(why),
            };
            tally.count(body.name(), result);
            tokio::time::sleep(Duration::from_millis(dice.below(200))).await;
        }
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    tally
}

async fn open_connections(target: Target, served: usize, mut dice: Dice, is_over: Arc<AtomicBool>) -> Tally {
    let mut tally = Tally::default();
    loop {
        let mut all = Connection::ALL;
        dice.shuffle(&mut all);
        for kind in all {
            if is_over.load(Ordering::Relaxed) {
                return tally;
            }
            tally.count(kind.name(), kind.hold(&target, served).await);
        }
    }
}
