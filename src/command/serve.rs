//! `serve`: configuration, certificate, ports; then until a signal.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::cli::{LogArgs, ServeArgs};
use crate::config;
use crate::daemonset::policy::Policy;
use crate::logs;
use crate::server::AppState;
use crate::server::limits::Limits;
use crate::server::listener::Ports;
use crate::server::metrics::Metrics;
use crate::server::tls::{Source, Tls};

pub(super) fn run(args: ServeArgs, log: &LogArgs) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let _flush = logs::start(log, metrics.clone())?;
    let policy = args.config.as_deref().map(config::load).transpose()?.unwrap_or_default();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(serve(&args, policy, metrics))
}

async fn serve(args: &ServeArgs, policy: Policy, metrics: Arc<Metrics>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    // Ports first: a second server on the same ones should not make certificates.
    let ports = Ports::bind(SocketAddr::new(args.bind_address, args.secure_port), args.metrics_bind_address)?;
    let tls = Arc::new(load_tls(args, metrics.clone())?);
    let state = AppState::with_metrics(policy, Limits::default(), args.client_ca_file.is_some(), metrics);
    announce(&ports, &tls)?;
    let (drain, draining) = watch::channel(false);
    let mut serving = tokio::spawn(ports.serve(state.clone(), tls.clone(), draining));
    tokio::spawn(tls.watch());
    state.readiness.set(true);

    let signal = tokio::select! {
        signal = signals.next() => signal,
        ended = &mut serving => anyhow::bail!("the server ended by itself: {ended:?}"),
    };
    tracing::info!(signal, "ending: no new connections, requests in work are answered");
    state.readiness.set(false);
    drain.send_replace(true);
    tokio::select! {
        answered = serving => {
            if !answered.context("the server failed while ending")? {
                tracing::warn!("ended with requests in work");
            }
            Ok(())
        }
        signal = signals.next() => anyhow::bail!("ended at once by a second {signal}"),
    }
}

fn load_tls(args: &ServeArgs, metrics: Arc<Metrics>) -> anyhow::Result<Tls> {
    let client_ca = args.client_ca_file.clone();
    // clap has made sure that it is both or neither.
    if let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_private_key_file) {
        let source = Source::Files { certificate: certificate.clone(), key: key.clone() };
        return Ok(Tls::load(source, client_ca, metrics)?);
    }
    let source = Source::Development { directory: args.cert_dir.clone(), address: args.bind_address };
    Tls::load(source, client_ca, metrics)
        .context("no --tls-cert-file was given, and --cert-dir cannot be used either")
}

/// Prints where the server listens; the only line on stdout, for people and for programs that chose port 0.
fn announce(ports: &Ports, tls: &Tls) -> anyhow::Result<()> {
    let (secure, metrics) = ports.addresses().context("failed to find out the ports")?;
    let ca = tls.development_ca().map(|ca| format!(" (CA {})", ca.display())).unwrap_or_default();
    // Who has closed stdout does not want to know.
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "listening on https://{secure}{ca}, metrics on http://{metrics}");
    let _ = stdout.flush();
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("failed to listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
