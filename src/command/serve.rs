//! `serve`: reads the configuration, binds the ports, loads the certificate, and serves until a signal.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cli::{LogArgs, ServeArgs};
use crate::command::config;
use crate::command::leader_election::{ElectionView, LeaderElection};
use crate::command::long_tasks::{LongTasks, TaskEnded};
use crate::policy::Policy;
use crate::reservation::View;
use crate::server;
use crate::server::AppState;
use crate::server::http::limits::Limits;
use crate::server::http::listener::Ports;
use crate::server::http::open_files as files;
use crate::telemetry::OtlpSettings;
use crate::telemetry::logs;
use crate::telemetry::metrics::{Metrics, RegisteredWebhook};
use crate::telemetry::otlp::Traces;
use crate::tls::ca_injector::WebhookConfiguration;
use crate::tls::names::CertificateNames;
use crate::tls::rotator::{RotatorSettings, SecretRotator};
use crate::tls::{CertificateSource, Tls};
use crate::watch::Watches;
use crate::watch::client;
use crate::watch::shared_cache::SharedCache;
use crate::writes;
use crate::writes::lease::SharedJudge;
use crate::writes::lease::{self, JudgingCluster};
use crate::writes::{NominationCallback, NominationResult};

pub(super) fn run(args: ServeArgs, log: &LogArgs) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let log = logs::start(log.verbosity, log.logging_format, &metrics)?;
    let policy = args.config.as_deref().map(config::load).transpose()?.unwrap_or_default();
    // One thread for all but requests, which have threads of their own: an event of a watch passes through three tasks, and on
    // several threads, each of them would have to be woken.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the runtime")?
        .block_on(async {
            let mut signals = Signals::new()?;
            // Ports first: a second server on the same ports must not create certificates.
            let secure = SocketAddr::new(args.bind_address, args.secure_port);
            let ports = Ports::bind(secure, args.metrics_bind_address)?;
            let mut tasks = LongTasks::default();
            tasks.spawn("reports of the log's limit", log.limit().report_regularly());
            serve(&args, policy, metrics, ports, tasks, async || signals.next().await).await
        })
}

/// The reason for which the server ends.
enum EndCause {
    Signal(&'static str),
    Task(TaskEnded),
}

/// Serves on `ports` until `next_signal` returns the name of a signal, or until one of its tasks ends; `tasks` may have some already.
///
/// # Errors
/// Fails if it cannot start, if a task ends, and at a second signal.
pub async fn serve(
    args: &ServeArgs,
    policy: Policy,
    metrics: Arc<Metrics>,
    ports: Ports,
    mut tasks: LongTasks,
    mut next_signal: impl AsyncFnMut() -> &'static str,
) -> anyhow::Result<()> {
    let config = client::config(args.kubeconfig.as_deref()).await?;
    let rotator = rotator(args, config.clone(), metrics.clone())?;
    let tls = Arc::new(load_tls(args, rotator.as_ref(), config.is_some(), metrics.clone())?);
    let (namespace, pod) = (client::own_namespace(), own_pod_name());
    let election = LeaderElection::read(args, namespace.as_deref(), pod.as_deref())?;
    let connected = connect(config, &policy, election.as_ref(), metrics.clone(), &mut tasks)?;
    let (cluster, judge) = connected.unzip();
    let judge = judge.flatten();
    let needs_certificate = args.client_ca_file.is_some();
    let limits = limits_of_this_process();
    let traces = traces(args, metrics.clone())?;
    let state = AppState::with_cluster(
        policy,
        limits,
        needs_certificate,
        metrics,
        cluster.clone(),
        judge.clone(),
        traces.clone(),
    );
    announce(&ports, &tls)?;
    let (drain, draining) = watch::channel(false);
    let mut serving = tokio::spawn(server::serve(state.clone(), ports, tls.clone(), draining));
    tasks.spawn("reload of the certificate", tls.clone().watch());
    let is_obtained = rotator.map(|rotator| {
        let is_obtained = rotator.is_obtained();
        tasks.spawn("rotation of the certificate", rotator.run());
        is_obtained
    });
    let get_ready = async {
        if let Some(mut is_obtained) = is_obtained {
            // Fails only if the rotator has ended, and then this ends too.
            let _ = is_obtained.wait_for(|is_obtained| *is_obtained).await;
            // Until now, the server used a certificate that no client trusts; TLS reloads every other second.
            tls.reload_now().await;
        }
        tls.wait_until_usable().await;
        if let Some(cluster) = &cluster {
            cluster.wait_until_synced().await;
        }
        state.readiness.set(true);
        if let Some(judge) = &judge {
            judge.begin_to_stand();
        }
        std::future::pending().await
    };

    let cause = tokio::select! {
        signal = next_signal() => EndCause::Signal(signal),
        task = tasks.first_ended() => EndCause::Task(task),
        ended = &mut serving => anyhow::bail!("the server ended by itself: {ended:?}"),
        never = get_ready => never,
    };
    state.readiness.set(false);
    if let (EndCause::Task(_), Some(cluster)) = (&cause, &cluster) {
        // The task may have been one that feeds the cache or ends its holds.
        cluster.distrust();
    }
    if let Some(judge) = &judge {
        tokio::select! {
            () = hand_over(judge, &election) => {}
            signal = next_signal() => anyhow::bail!("stopped at once by a second {signal}"),
        }
    }
    match &cause {
        EndCause::Signal(signal) => {
            tracing::info!(signal, "shutting down: no new connections, requests in flight are answered");
        }
        EndCause::Task(task) => {
            tracing::error!(
                error = %task,
                "a bug: shutting down, so that the process is started again. No room is reserved any more, requests in flight are answered"
            );
        }
    }
    drain.send_replace(true);
    // The other tasks run to the end: after a signal, the last responses need a fresh cache, too.
    let _tasks = tasks;
    let shut_down = async {
        if !serving.await.context("the server failed while it shut down")?.context("failed to serve")? {
            tracing::warn!("shut down with requests in flight");
        }
        if let Some(traces) = traces {
            traces.flush().await;
        }
        match cause {
            EndCause::Signal(_) => Ok(()),
            EndCause::Task(task) => Err(task.into()),
        }
    };
    tokio::select! {
        ended = shut_down => ended,
        signal = next_signal() => anyhow::bail!("stopped at once by a second {signal}"),
    }
}

/// Returns the default limits, with fewer connections if the system allows too few open files.
fn limits_of_this_process() -> Limits {
    let (limits, files) = (Limits::default(), files::raise_open_file_limit());
    let fitting = limits.clone().within_files(files);
    if fitting.connections < limits.connections {
        let (usual, connections) = (limits.connections, fitting.connections);
        tracing::warn!(
            files,
            connections,
            usual,
            "too few open files are allowed (ulimit -n): fewer connections are served"
        );
    }
    fitting
}

/// Hands the judging of bindings over and serves on, until the apiserver asks another replica or there is none.
async fn hand_over(judge: &SharedJudge, election: &Option<LeaderElection>) {
    let longest = election.as_ref().map(LeaderElection::longest_hand_over).unwrap_or_default();
    judge.begin_hand_over(Instant::now());
    tracing::info!(
        "handing over: this replica judges no bindings any more, and serves until another one does"
    );
    // The task of leader election may be the one that has ended.
    if timeout(longest, judge.wait_until_handed_over()).await.is_err() {
        tracing::warn!("no other replica is known to judge bindings after {}s", longest.as_secs());
    }
}

/// Returns the name of the Pod that the process runs in: the environment variable POD_NAME. `None` outside of a Pod.
fn own_pod_name() -> Option<String> {
    std::env::var("POD_NAME").ok().filter(|name| !name.is_empty())
}

/// Adds the tasks that watch the cluster and write to it, if there is one, and that of leader election. Returns the cache that they
/// fill, and the judge.
fn connect(
    config: Option<kube::Config>,
    policy: &Policy,
    election: Option<&LeaderElection>,
    metrics: Arc<Metrics>,
    tasks: &mut LongTasks,
) -> anyhow::Result<Option<(SharedCache, Option<SharedJudge>)>> {
    let Some(config) = config else {
        if election.is_some() {
            anyhow::bail!("--leader-elect needs a cluster: --kubeconfig, or the service account of a pod");
        }
        tracing::info!("running standalone: no --kubeconfig, and no service account of a pod");
        return Ok(None);
    };
    tracing::info!(apiserver = %config.cluster_url, "watching the cluster");
    let client = client::client(config.clone())?;
    let (queue, writer) = writes::write_queue(metrics.clone());
    let own_namespace = client::own_namespace();
    let enqueue = move |write| queue.enqueue(write);
    let watches =
        Watches::new(config.clone(), Arc::new(policy.clone()), own_namespace, metrics.clone(), enqueue);
    let cache = watches.cache().clone();
    let on_result = policy.reservation.nominates().then(|| report_to(cache.clone()));
    let writes = writer.tasks(client, own_pod_name(), on_result);
    for (name, task) in watches.tasks()?.into_iter().chain(writes) {
        tasks.spawn(name, task);
    }
    let judge = election.map(|election| -> anyhow::Result<_> {
        let (judge, lease) = (election.judge(), election.lease.clone());
        let own_pod = lease.own_pod.as_ref().map(|(_, pod)| pod.clone());
        let view = ElectionView { cache: cache.clone(), own_pod };
        // Another replica may judge until this one knows better.
        view.set_judging(false, Instant::now());
        // A client of its own: no other write may delay a renewal.
        let run = lease::run(client::client(config)?, lease, judge.clone(), view, metrics);
        tasks.spawn("leader election", run);
        Ok(judge)
    });
    Ok(Some((cache, judge.transpose()?)))
}

/// Returns a callback that passes the result of each nomination to the reservation. The callback takes the cache's lock.
fn report_to(cache: SharedCache) -> NominationCallback {
    Box::new(move |result| match result {
        NominationResult::Permitted(is_permitted) => {
            cache.lock().reservation.permit_nomination(is_permitted);
        }
        NominationResult::Done(nomination, outcome) => {
            let View { cache, reservation } = &mut *cache.lock();
            reservation.nomination_done(cache, &nomination, &outcome, Instant::now());
        }
    })
}

/// Starts to send spans to --tracing-endpoint. Returns `None` if the flag is not given.
fn traces(args: &ServeArgs, metrics: Arc<Metrics>) -> anyhow::Result<Option<Traces>> {
    let Some(endpoint) = args.tracing_endpoint.clone() else { return Ok(None) };
    let settings = OtlpSettings {
        endpoint,
        sampling_rate_per_million: args.tracing_sampling_rate_per_million,
        pod: std::env::var("POD_NAME").ok(),
        namespace: client::own_namespace(),
    };
    Ok(Some(Traces::start(&settings, metrics)?))
}

/// Returns the rotator of the Secret of --tls-secret, not started. Returns `None` if the flag is not given. Fails if a name of
/// --tls-names is bad, or there is no cluster.
fn rotator(
    args: &ServeArgs,
    config: Option<kube::Config>,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Option<SecretRotator>> {
    let Some(secret) = args.tls_secret.clone() else { return Ok(None) };
    let names = CertificateNames::parse(&args.tls_names);
    let faults = names.faults();
    if !faults.is_empty() {
        anyhow::bail!("--tls-names: neither a name nor an address: {}", faults.join(", "));
    }
    let config =
        config.context("--tls-secret needs a cluster: --kubeconfig, or the service account of a pod")?;
    let configuration = |webhook, name: &Option<String>| {
        name.as_ref().map(|name| WebhookConfiguration { webhook, name: name.clone() })
    };
    let configurations = [
        configuration(RegisteredWebhook::Validate, &args.validating_webhook_configuration),
        configuration(RegisteredWebhook::Mutate, &args.mutating_webhook_configuration),
        configuration(RegisteredWebhook::Bind, &args.bind_webhook_configuration),
    ];
    let configurations = configurations.into_iter().flatten().collect();
    let settings = RotatorSettings { secret, names, configurations };
    Ok(Some(SecretRotator::new(config, settings, metrics)?))
}

fn load_tls(
    args: &ServeArgs,
    rotator: Option<&SecretRotator>,
    in_cluster: bool,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Tls> {
    let client_ca = args.client_ca_file.clone();
    // Outside of a cluster, a certificate that cannot be used ends the program at once, with exit code 1.
    let load = if in_cluster { Tls::load_or_wait } else { Tls::load };
    if let Some(rotator) = rotator {
        return Ok(load(CertificateSource::Secret(rotator.pair()), client_ca, metrics)?);
    }
    // clap requires both or neither.
    if let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_private_key_file) {
        let source = CertificateSource::Files { certificate: certificate.clone(), key: key.clone() };
        return Ok(load(source, client_ca, metrics)?);
    }
    let source =
        CertificateSource::Development { directory: args.cert_dir.clone(), address: args.bind_address };
    Tls::load(source, client_ca, metrics)
        .context("no --tls-cert-file was given, and --cert-dir cannot be used either")
}

/// Prints the addresses of the server, the only line on stdout: for people, and for programs that chose port 0.
fn announce(ports: &Ports, tls: &Tls) -> anyhow::Result<()> {
    let (secure, metrics) = ports.addresses().context("failed to find out the ports")?;
    let ca = tls.development_ca().map(|ca| format!(" (CA {})", ca.display())).unwrap_or_default();
    // A closed stdout is not an error.
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
