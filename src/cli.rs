//! The command line: commands, flags, defaults and help.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::command::config::duration;
use crate::telemetry::logs::LogFormat;
use crate::telemetry::otlp::Endpoint;
use crate::tls::secret::SecretName;

/// The greatest width of help, in columns. Examples are never wider, so that they can be copied.
const WIDTH: usize = 100;

const EXAMPLES: &str = "\
Examples:
  Try it out, without a cluster:
    daemonset-warden serve

  Find out why a daemon pod is missing, on the cluster that kubectl uses:
    daemonset-warden explain kube-system/cni --node worker-7

`daemonset-warden COMMAND --help` has more examples, and the exit codes.";

/// Daemon pods always land.
///
/// Validates DaemonSets, mutates daemon pods so that the default scheduler places them, and answers kube-scheduler as an
/// extender.
#[derive(Debug, Parser)]
#[command(name = "daemonset-warden", version, propagate_version = true, max_term_width = WIDTH, after_help = EXAMPLES)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
    /// The flags of logging, which every command has.
    #[command(flatten)]
    pub log: LogArgs,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve admission webhooks and the scheduler extender over HTTPS
    ///
    /// Without a kubeconfig, and outside of a cluster, the server runs standalone: it connects to nothing. Without a certificate,
    /// it creates a development CA and certificate in --cert-dir and prints the path of the CA.
    ///
    /// Routes of the secure port: POST /validate, /mutate, /scheduler/filter, /scheduler/preempt; GET /livez, /readyz.
    /// Routes of the metrics port: GET /metrics, /livez, /readyz.
    ///
    /// SIGTERM or SIGINT stops the server once all requests in flight are answered, after 15 s at most; a second signal stops it
    /// at once. The replica that judges bindings (--leader-elect) first hands over to another one, if there is one.
    ///
    /// Exit code 0 after such a stop, 1 for any failure. All faults of a configuration file are listed.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Print the KubeSchedulerConfiguration that makes kube-scheduler call daemonset-warden
    ///
    /// It contains the certificates, so kube-scheduler needs no other file, and reads it only when it starts. It is printed to
    /// standard output; with a client certificate, it contains a private key.
    ///
    /// If there is a KubeSchedulerConfiguration already, copy the entry of `extenders` into it. kube-scheduler waits 300 ms for a
    /// response; while daemonset-warden is down, pods are scheduled without it.
    ///
    /// Exit code 0, or 2 for any failure.
    #[command(after_help = SCHEDULER_CONFIG_EXAMPLES)]
    SchedulerConfig(SchedulerConfigArgs),
    /// Print for every DaemonSet and node if its pod should run there, if it does, and the reason if not
    ///
    /// A pod should run where Kubernetes' DaemonSet controller would create it. The reason names the taint, the selector or the
    /// resource, or repeats the message of the scheduler, the kubelet, a quota or a webhook.
    ///
    /// Without -f and --kubeconfig, it reads the cluster that kubectl uses: $KUBECONFIG, ~/.kube/config, then the pod's service
    /// account. It only lists objects: nothing is written, and the service need not be installed.
    ///
    /// States: Running (bound; the reason says if it is not Ready), Pending (not scheduled), Missing (there is no pod, or it
    /// failed or is being deleted), NotWanted (no pod should run), Misplaced (there is a pod, and the controller will delete it).
    ///
    /// Exit code 0 if all objects could be read, 2 if not.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  Every DaemonSet on every node:
    daemonset-warden explain

  One DaemonSet on one node:
    daemonset-warden explain kube-system/cni --node worker-7

  Preview a change, without a cluster:
    kubectl get nodes,pods,daemonsets -A -o json > cluster.json
    daemonset-warden explain -f cluster.json -f new-daemonset.yaml -o json";

/// The flags of `explain`, named after kubectl's.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The only DaemonSet to explain
    #[arg(value_name = "NAMESPACE/NAME", value_parser = namespace_and_name)]
    pub daemon_set: Option<(String, String)>,
    /// The only node to explain
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// The source of the objects.
    #[command(flatten)]
    pub sources: SourceArgs,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ExplainOutput,
}

/// The source of objects: manifests or a cluster.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Kubeconfig of the cluster to read
    #[arg(long, value_name = "FILE", conflicts_with = "filename")]
    pub kubeconfig: Option<PathBuf>,
    /// Manifests to read instead of a cluster: a file, a folder or - for standard input; repeatable
    ///
    /// YAML or JSON, one document or many in a file, and lists as kubectl prints them. In a folder and its subfolders, files
    /// named *.yaml, *.yml and *.json are read. Nodes, DaemonSets, Pods, Events, Namespaces, PriorityClasses, LimitRanges,
    /// ResourceQuotas and RuntimeClasses are used, other kinds are ignored. Of two objects with one name, the last one counts.
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub filename: Vec<PathBuf>,
}

/// The output formats of `explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExplainOutput {
    /// Columns, for people.
    Table,
    /// An array with a row for each DaemonSet and node, for programs.
    Json,
}

fn namespace_and_name(text: &str) -> Result<(String, String), String> {
    match text.split('/').collect::<Vec<_>>()[..] {
        [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("expected NAMESPACE/NAME".to_owned()),
    }
}

impl Command {
    /// Returns the exit code of a failure: 1 for `serve`, 2 for the other commands.
    pub fn failure_code(&self) -> u8 {
        if matches!(self, Self::Serve(_)) { 1 } else { 2 }
    }
}

/// Returns the exit code for arguments that clap refuses: that of the subcommand in them, or 1 without one.
pub fn usage_failure_code(args: impl Iterator<Item = std::ffi::OsString>) -> u8 {
    let lenient = <Cli as clap::CommandFactory>::command().ignore_errors(true);
    let matches = lenient.try_get_matches_from(args).ok();
    match matches.as_ref().and_then(clap::ArgMatches::subcommand_name) {
        None | Some("serve") => 1,
        Some(_) => 2,
    }
}

const SERVE_EXAMPLES: &str = "\
Examples:
  Try it out, with certificates created in ./certs:
    daemonset-warden serve
    curl --cacert certs/ca.crt https://127.0.0.1:8443/readyz

  With a cluster, so that room is reserved for daemon pods:
    daemonset-warden serve --kubeconfig ~/.kube/config

  With a certificate of your own, on all addresses, and with a configuration file:
    daemonset-warden serve --bind-address 0.0.0.0 --config warden.yaml \\
      --tls-cert-file tls.crt --tls-private-key-file tls.key --client-ca-file scheduler-ca.crt

A configuration file; absent fields have their defaults:
    apiVersion: config.daemonset-warden.io/v1alpha1
    kind: DaemonSetWardenConfiguration
    admission:
      rules: {no-requests: Deny, no-priority-class: Off}   # by rule: Deny, Warn or Off
      defaultPriorityClassName: daemons   # for daemon pods without one; default: none
    reservation:
      mode: Audit         # Enforce (default), Audit or Off
      holdTimeout: 10m    # limit of a hold while there is room for the daemon pod
      waitTimeout: 1h     # limit of a hold while there is none
    preemption:
      protectDaemonPods: PreferOthers     # PreferOthers (default), Always or Never";

const SCHEDULER_CONFIG_EXAMPLES: &str = "\
Examples:
  Through a Service with a fixed address:
    daemonset-warden scheduler-config --url https://10.96.0.50/scheduler \\
      --ca-file warden-ca.crt > scheduler.yaml
    kube-scheduler --config=scheduler.yaml

  Through the host's loopback address, where the chart's extender DaemonSet listens:
    daemonset-warden scheduler-config --url https://127.0.0.1:10643/scheduler \\
      --ca-file warden-ca.crt > scheduler.yaml

  With only kubectl, by the program in the cluster:
    kubectl -n daemonset-warden get secret daemonset-warden-tls \\
        -o jsonpath='{.data.ca\\.crt}' | base64 -d |
      kubectl -n daemonset-warden exec -i deployment/daemonset-warden -- /daemonset-warden \\
        scheduler-config --url https://10.96.0.50/scheduler --ca-file - > scheduler.yaml";

/// The flags of `scheduler-config`.
#[derive(Debug, Args)]
pub struct SchedulerConfigArgs {
    /// URL of daemonset-warden for the scheduler: https, preferably with an address, and /scheduler at the end. Given twice, the
    /// scheduler calls both for every pod, and room stays reserved while one of them is down
    #[arg(long, value_name = "URL", required = true)]
    pub url: Vec<String>,
    /// CA of daemonset-warden's certificate, in PEM, or - for standard input; without one, kube-scheduler would verify nothing
    #[arg(long, value_name = "FILE")]
    pub ca_file: PathBuf,
    /// Client certificate of the scheduler, in PEM, if `serve` has a --client-ca-file
    #[arg(long, value_name = "FILE", requires = "client_key_file")]
    pub client_cert_file: Option<PathBuf>,
    /// Private key of --client-cert-file, in PEM
    #[arg(long, value_name = "FILE", requires = "client_cert_file")]
    pub client_key_file: Option<PathBuf>,
    /// Path of the scheduler's own kubeconfig on its host; the default is kubeadm's
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/scheduler.conf")]
    pub scheduler_kubeconfig: PathBuf,
}

/// The flags of `serve`, named after those of Kubernetes' own components.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// DaemonSetWardenConfiguration to read, in YAML; without it, all fields have their defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Kubeconfig of the cluster; without it, the service account of the pod, and outside of a pod no cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address to serve HTTPS on; 0.0.0.0 or :: for all
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind_address: IpAddr,
    /// Port to serve HTTPS on; 0 takes a free one and prints it
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    pub secure_port: u16,
    /// Folder for the development CA and certificate, used when no --tls-cert-file is given
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub cert_dir: PathBuf,
    /// Certificate to serve with, in PEM, followed by its intermediate CAs; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of --tls-cert-file, in PEM (PKCS#8, PKCS#1 or SEC1)
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Secret with the CA and the certificate of all replicas, which create and renew both
    ///
    /// Needs a cluster. Clients find the CA in it under ca.crt.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "tls_cert_file", requires = "tls_names")]
    pub tls_secret: Option<SecretName>,
    /// DNS names and addresses in the certificate of --tls-secret, such as NAME.NAMESPACE.svc, separated by commas
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', requires = "tls_secret")]
    pub tls_names: Vec<String>,
    /// ValidatingWebhookConfiguration that the CA of --tls-secret is written into
    #[arg(long, value_name = "NAME", requires = "tls_secret")]
    pub validating_webhook_configuration: Option<String>,
    /// MutatingWebhookConfiguration that the CA of --tls-secret is written into
    #[arg(long, value_name = "NAME", requires = "tls_secret")]
    pub mutating_webhook_configuration: Option<String>,
    /// ValidatingWebhookConfiguration of /bind that the CA of --tls-secret is written into
    #[arg(long, value_name = "NAME", requires = "tls_secret")]
    pub bind_webhook_configuration: Option<String>,
    /// CA of the clients that may call /scheduler/*; without it, every client may
    ///
    /// The webhooks stay open to clients without a certificate, because an apiserver usually has none.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Address and port to serve metrics and health on, in plain HTTP; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))]
    pub metrics_bind_address: SocketAddr,
    /// OTLP collector to send spans of requests to, over HTTP, such as http://HOST:4318; without it, nothing is traced
    ///
    /// Without a path, /v1/traces is used. https needs certificate authorities: SSL_CERT_FILE names them if the system has none,
    /// as in the image. OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES are read.
    #[arg(long, value_name = "URL")]
    pub tracing_endpoint: Option<Endpoint>,
    /// Requests to trace, of a million that come without a traceparent
    ///
    /// A request with a traceparent is traced if its caller samples it, as an apiserver with tracing does; kube-scheduler sends no
    /// traceparent.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "tracing_endpoint",
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub tracing_sampling_rate_per_million: u32,
    /// The flags of leader election.
    #[command(flatten)]
    pub election: LeaderElectionArgs,
}

/// The heading in `--help` of the flags of leader election.
const LEADER_ELECTION: &str = "Leader election";

/// The flags of leader election, named after those of Kubernetes' own components.
#[derive(Debug, Args)]
#[command(next_help_heading = LEADER_ELECTION)]
pub struct LeaderElectionArgs {
    /// Judge bindings only while this replica holds a Lease, so that one of several replicas does
    ///
    /// Needs a cluster. POD_NAME and POD_NAMESPACE in the environment name the own Pod, whose label says that it judges. Without
    /// this flag every replica judges what it is asked about.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set)]
    pub leader_elect: bool,
    /// Time after which a Lease that is not renewed may be taken over
    ///
    /// As long, bindings are denied at most for want of a judge; then they are allowed.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    pub leader_elect_lease_duration: Duration,
    /// Time after the last renewal after which the holder stops judging; shorter than the lease duration
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration::parse)]
    pub leader_elect_renew_deadline: Duration,
    /// Time between two renewals of the Lease, or two reads
    #[arg(long, value_name = "DURATION", default_value = "500ms", value_parser = duration::parse)]
    pub leader_elect_retry_period: Duration,
    /// Namespace of the Lease; the default is the own one, POD_NAMESPACE
    #[arg(long, value_name = "NAMESPACE")]
    pub leader_elect_resource_namespace: Option<String>,
    /// Name of the Lease
    #[arg(long, value_name = "NAME", default_value = "daemonset-warden")]
    pub leader_elect_resource_name: String,
}

/// The heading in `--help` of the flags that every command has.
const LOGGING: &str = "Logging";

/// The flags of logging, named after those of Kubernetes' own components.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Log level: 0 warnings, 2 refusals and changes too, 4 every request, 6 messages of libraries
    ///
    /// RUST_LOG, if set, decides instead, as in RUST_LOG=daemonset_warden=debug,h2=trace.
    #[arg(short, long = "v", global = true, value_name = "LEVEL", default_value_t = 2, help_heading = LOGGING)]
    pub verbosity: u8,
    /// Log format; by default text on a terminal and JSON elsewhere
    #[arg(long, global = true, value_name = "FORMAT", help_heading = LOGGING)]
    pub logging_format: Option<LogFormat>,
}

/// Returns clap's error and its tip in one line, without the usage. Returns the whole help if no subcommand was given.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return text;
    }
    let mut parts =
        text.split("\n\n").filter(|part| part.starts_with("error:") || part.trim_start().starts_with("tip:"));
    let joined = |part: &str| part.split_whitespace().collect::<Vec<_>>().join(" ");
    let first = parts.next().map(joined).unwrap_or_default();
    parts.map(joined).fold(first, |line, tip| format!("{line} ({tip})"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_can_be_copied() {
        let cli = Cli::command();
        for command in std::iter::once(&cli).chain(cli.get_subcommands()) {
            let examples = command.get_after_help().map(ToString::to_string).expect("each has examples");
            for line in examples.lines() {
                assert!(line.chars().count() <= WIDTH, "{}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn refused_arguments_have_their_commands_exit_code() {
        let code = |args: &[&str]| usage_failure_code(args.iter().map(Into::into));
        assert_eq!(code(&["daemonset-warden", "-v", "4", "explain", "serve"]), 2);
        assert_eq!(code(&["daemonset-warden", "serve", "--config", "explain"]), 1);
        assert_eq!(code(&["daemonset-warden", "--nonsense"]), 1);
    }

    #[test]
    fn usage_errors_are_one_line() {
        let line = |args: &[&str]| {
            let args = [&["daemonset-warden"], args].concat();
            one_line(&Cli::try_parse_from(args).unwrap_err())
        };
        assert_eq!(
            line(&["serve", "--secure-prt", "1"]),
            "error: unexpected argument '--secure-prt' found (tip: a similar argument exists: '--secure-port')"
        );
        assert_eq!(
            line(&["serve", "--tls-cert-file", "a"]),
            "error: the following required arguments were not provided: --tls-private-key-file <FILE>"
        );
        assert_eq!(
            line(&["serve", "--secure-port", "70000"]),
            "error: invalid value '70000' for '--secure-port <PORT>': 70000 is not in 0..=65535"
        );
        assert_eq!(
            line(&["explain", "agent"]),
            "error: invalid value 'agent' for '[NAMESPACE/NAME]': expected NAMESPACE/NAME"
        );
        assert!(line(&["explain", "--kubeconfig", "a", "-f", "b"]).contains("cannot be used with"));
    }
}
