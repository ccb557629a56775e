//! `cargo bench --bench load [-- mutate validate bind names nodes]`: the real server over TLS on 127.0.0.1, and in turn with it a
//! Go peer (benches/peer). Needs Go and h2load (Debian: nghttp2-client).
//!
//! Compare only the ratios of the rates: machines differ, and the load generator shares the cores with the server. docs/operate.md
//! uses the CPU time of a call and the memory of the server for sizing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark ends where it fails"
)]

mod load {
    pub(crate) mod process;
    pub(crate) mod requests;
    pub(crate) mod servers;
}

use std::time::Duration;

use load::process::{Stat, median};
use load::requests::requests;
use load::servers::{Server, load, p99};

/// The measurements of each side, of which the median counts.
const ROUNDS: usize = 3;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let warden = Server::warden(folder.path());
    let peer = Server::peer(folder.path());
    println!("Resident memory of the warden, idle: {:.1} MiB\n", warden.resident_mib());
    println!(
        "| request | connections | Go peer, 1/s | daemonset-warden, 1/s | ratio | at most | p99, peer | p99, warden | CPU a call, peer | CPU a call, warden | CPU a call, h2load | resident, warden |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    for request in requests()
        .into_iter()
        .filter(|request| wanted.is_empty() || wanted.iter().any(|name| name == request.name))
    {
        let body = folder.path().join(request.name);
        std::fs::write(&body, &request.body).expect("a body");
        let url = |server: &Server| format!("{}{}", server.url, request.path);
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        let mut generator = Duration::ZERO;
        let (before, peer_before) = (warden.cpu(), peer.cpu());
        for _ in 0..ROUNDS {
            theirs.push(load(&url(&peer), &body, request.connections, request.peer_calls));
            let others = cpu_of_children();
            ours.push(load(&url(&warden), &body, request.connections, request.warden_calls));
            generator += cpu_of_children() - others;
        }
        let a_call = |cpu: Duration, calls: usize| cpu.as_secs_f64() * 1e6 / (ROUNDS * calls) as f64;
        let cpu = a_call(warden.cpu() - before, request.warden_calls);
        let generator = a_call(generator, request.warden_calls);
        let peer_cpu = a_call(peer.cpu() - peer_before, request.peer_calls);
        let (theirs, ours) = (median(theirs), median(ours));
        // The highest possible ratio: even with a server that takes no time, h2load's one thread needs this time for a call.
        let at_most = 1e6 / generator / theirs;
        let slowest = |server, calls| p99(&url(server), &body, request.connections, calls);
        let their_p99 = slowest(&peer, request.peer_calls);
        let our_p99 = slowest(&warden, request.warden_calls);
        println!(
            "| {} | {} | {theirs:.0} | {ours:.0} | {:.1} | {at_most:.1} | {their_p99:.2} ms | {our_p99:.2} ms | {peer_cpu:.0} us | {cpu:.0} us | {generator:.0} us | {:.1} MiB |",
            request.what,
            request.connections,
            ours / theirs,
            warden.resident_mib(),
        );
    }
}

/// Returns the CPU time of the programs that this one has waited for.
fn cpu_of_children() -> Duration {
    Stat::of("self").expect("it runs").cpu_of_children
}
