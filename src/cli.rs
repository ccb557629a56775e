//! The command line: what can be typed, its defaults, and its help.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::telemetry::logs::LogFormat;
use crate::telemetry::otlp::Endpoint;
use crate::tls::secret::SecretName;

/// How wide help is at most; examples are never wider, so that they can be copied.
const WIDTH: usize = 100;

const EXAMPLES: &str = "\
Examples:
  Try it out, without a cluster:
    daemonset-warden serve

  Why is a daemon pod missing? On the cluster that kubectl talks to:
    daemonset-warden explain kube-system/cni --node worker-7

`daemonset-warden COMMAND --help` has more of them, and says what exit codes mean.";

/// Daemon pods always land.
///
/// Validates DaemonSets, mutates daemon pods so that the default scheduler places them, and answers kube-scheduler as an
/// extender.
#[derive(Debug, Parser)]
#[command(name = "daemonset-warden", version, propagate_version = true, max_term_width = WIDTH, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How much and how to log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve admission webhooks and the scheduler extender over HTTPS
    ///
    /// Without a kubeconfig, and outside of a cluster, it runs standalone: it talks to nobody and needs nothing. Without a
    /// certificate it makes a development CA and certificate in --cert-dir and says where.
    ///
    /// Routes of the secure port: POST /validate, /mutate, /scheduler/filter, /scheduler/preempt; GET /livez, /readyz.
    /// Routes of the metrics port: GET /metrics, /livez, /readyz.
    ///
    /// SIGTERM or SIGINT ends it once the requests in work are answered, after 15 s at most; a second one ends it at once.
    ///
    /// Exit code 0 after such an end, 1 for anything else, such as a configuration file with faults: all of them are listed.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeArgs>),
    /// Print the KubeSchedulerConfiguration that makes kube-scheduler ask us
    ///
    /// The certificates are put into it, so the scheduler needs this one file, and reads it at its start only. It is printed to
    /// standard output; with a client certificate it holds a private key.
    ///
    /// If there is a KubeSchedulerConfiguration already, copy the entry of `extenders` into it. The extender has 300 ms for an
    /// answer, and may be down: then pods are scheduled without it.
    ///
    /// Exit code 0, or 2 if it could not be made.
    #[command(after_help = SCHEDULER_CONFIG_EXAMPLES)]
    SchedulerConfig(SchedulerConfigArgs),
    /// Say for every DaemonSet and node whether its pod should run there, whether it does, and if not, why
    ///
    /// Whether it should is what Kubernetes' own DaemonSet controller decides. The reason names the taint, the selector or the
    /// resource, or repeats what the scheduler, the kubelet, a quota or a webhook said.
    ///
    /// Without -f and --kubeconfig it looks where kubectl looks: $KUBECONFIG, ~/.kube/config, then the pod's service account.
    /// It only lists: nothing is written, and the service need not be installed.
    ///
    /// States: Running (bound; the reason says if it is not Ready), Pending (not scheduled), Missing (there is no pod, or it
    /// failed or is being deleted), NotWanted, Misplaced (there is a pod and the controller will delete it).
    ///
    /// Exit code 0 if all could be read, 2 if not.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  Every DaemonSet on every node:
    daemonset-warden explain

  One DaemonSet on one node:
    daemonset-warden explain kube-system/cni --node worker-7

  What a change would do, without a cluster:
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
    /// Where the objects come from.
    #[command(flatten)]
    pub sources: SourceArgs,
    /// How to print
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ExplainOutput,
}

/// Where objects come from: manifests or a cluster.
#[derive(Debug, Args)]
pub struct SourceArgs {
    /// Cluster to look at
    #[arg(long, value_name = "FILE", conflicts_with = "filename")]
    pub kubeconfig: Option<PathBuf>,
    /// Manifests to read instead of a cluster: a file, a folder or - for standard input; repeatable
    ///
    /// YAML or JSON, many documents in one, and lists such as kubectl prints. Of a folder, *.yaml, *.yml and *.json in it and
    /// below it. Nodes, DaemonSets, Pods, Events, Namespaces, PriorityClasses, LimitRanges, ResourceQuotas and RuntimeClasses
    /// are looked at, other kinds are passed over; the last of two objects of a name counts.
    #[arg(short, long, value_name = "FILE|DIR|-")]
    pub filename: Vec<PathBuf>,
}

/// How `explain` prints.
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
    /// The exit code when it could not be done: 2 for the commands whose 1 says that something was found.
    pub fn failure_code(&self) -> u8 {
        if matches!(self, Self::Serve(_)) { 1 } else { 2 }
    }
}

/// The exit code for arguments that are refused: that of the subcommand they name, 1 without one.
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
  Try it out, with certificates made in ./certs:
    daemonset-warden serve
    curl --cacert certs/ca.crt https://127.0.0.1:8443/readyz

  With a cluster to look at, so that room is kept:
    daemonset-warden serve --kubeconfig ~/.kube/config

  With a certificate of your own, on all addresses, and with rules set in a file:
    daemonset-warden serve --bind-address 0.0.0.0 --config warden.yaml \\
      --tls-cert-file tls.crt --tls-private-key-file tls.key --client-ca-file scheduler-ca.crt

A configuration file; what is left out has its default:
    apiVersion: config.daemonset-warden.io/v1alpha1
    kind: DaemonSetWardenConfiguration
    admission:
      rules: {no-requests: Deny, no-priority-class: Off}   # by rule: Deny, Warn or Off
      defaultPriorityClassName: daemons   # for daemon pods without one; default: none
    reservation:
      mode: Audit         # Enforce (default), Audit or Off
      holdTimeout: 10m    # how long pods are refused if the daemon pod could come, and does not
      waitTimeout: 1h     # how long while there is no room for it yet
    preemption:
      protectDaemonPods: PreferOthers     # PreferOthers (default), Always or Never";

const SCHEDULER_CONFIG_EXAMPLES: &str = "\
Examples:
  Through a Service with a fixed address:
    daemonset-warden scheduler-config --url https://10.96.0.50/scheduler \\
      --ca-file warden-ca.crt > scheduler.yaml
    kube-scheduler --config=scheduler.yaml

  Through the host's loopback address, where the chart's extender DaemonSet answers:
    daemonset-warden scheduler-config --url https://127.0.0.1:10643/scheduler \\
      --ca-file warden-ca.crt > scheduler.yaml

  With nothing but kubectl, by the program in the cluster:
    kubectl -n daemonset-warden get secret daemonset-warden-tls \\
        -o jsonpath='{.data.ca\\.crt}' | base64 -d |
      kubectl -n daemonset-warden exec -i deployment/daemonset-warden -- /daemonset-warden \\
        scheduler-config --url https://10.96.0.50/scheduler --ca-file - > scheduler.yaml";

/// The flags of `scheduler-config`.
#[derive(Debug, Args)]
pub struct SchedulerConfigArgs {
    /// Where the scheduler reaches us: https, preferably an address, and /scheduler at the end. Given twice, it asks both, and
    /// goes on keeping room with either of them gone, for the price of a second call a pod
    #[arg(long, value_name = "URL", required = true)]
    pub url: Vec<String>,
    /// CA of our certificate, in PEM, or - for standard input; required, because without one kube-scheduler verifies nothing
    #[arg(long, value_name = "FILE")]
    pub ca_file: PathBuf,
    /// Certificate that the scheduler shows us, in PEM, if `serve` has a --client-ca-file
    #[arg(long, value_name = "FILE", requires = "client_key_file")]
    pub client_cert_file: Option<PathBuf>,
    /// Private key of --client-cert-file, in PEM
    #[arg(long, value_name = "FILE", requires = "client_cert_file")]
    pub client_key_file: Option<PathBuf>,
    /// The scheduler's own kubeconfig, as kube-scheduler finds it; the default is kubeadm's
    #[arg(long, value_name = "FILE", default_value = "/etc/kubernetes/scheduler.conf")]
    pub scheduler_kubeconfig: PathBuf,
}

/// The flags of `serve`, named after those of Kubernetes' own components.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// DaemonSetWardenConfiguration to read, in YAML; without it, every default holds
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to reach the cluster; without it, the service account of the pod, and outside of a pod no cluster at all
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
    /// Certificate to serve with, in PEM, followed by what leads to its CA; read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of --tls-cert-file, in PEM (PKCS#8, PKCS#1 or SEC1)
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Secret that all replicas keep a CA and their certificate in; made and renewed by them
    ///
    /// Needs a cluster. Clients find the CA in it under ca.crt.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "tls_cert_file", requires = "tls_names")]
    pub tls_secret: Option<SecretName>,
    /// What the certificate of --tls-secret names, such as NAME.NAMESPACE.svc; names and addresses, separated by commas
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', requires = "tls_secret")]
    pub tls_names: Vec<String>,
    /// ValidatingWebhookConfiguration that the CA of --tls-secret is written into
    #[arg(long, value_name = "NAME", requires = "tls_secret")]
    pub validating_webhook_configuration: Option<String>,
    /// MutatingWebhookConfiguration that the CA of --tls-secret is written into
    #[arg(long, value_name = "NAME", requires = "tls_secret")]
    pub mutating_webhook_configuration: Option<String>,
    /// CA of the clients that may call /scheduler/*; without it, anybody may
    ///
    /// The webhooks stay open to clients without a certificate, because that is what apiservers are.
    #[arg(long, value_name = "FILE")]
    pub client_ca_file: Option<PathBuf>,
    /// Address and port to serve metrics and health on, in plain HTTP; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))]
    pub metrics_bind_address: SocketAddr,
    /// OTLP collector to send spans of requests to, over HTTP, such as http://HOST:4318; without it, nothing is traced
    ///
    /// Without a path, /v1/traces is meant. https needs certificate authorities: SSL_CERT_FILE names them where the system has
    /// none, as in the image. OTEL_EXPORTER_OTLP_HEADERS and OTEL_RESOURCE_ATTRIBUTES are read.
    #[arg(long, value_name = "URL")]
    pub tracing_endpoint: Option<Endpoint>,
    /// How many of a million requests to trace that come without a traceparent
    ///
    /// Those that come with one are traced if their caller says so, as an apiserver with tracing does; kube-scheduler says nothing.
    #[arg(long, value_name = "N", default_value_t = 0, requires = "tracing_endpoint",
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub tracing_sampling_rate_per_million: u32,
}

/// So that what every command has does not stand between what one of them has.
const LOGGING: &str = "Logging";

/// Logging, in the words of Kubernetes' own components.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// How much to log: 0 warnings, 2 what was refused or changed too, 4 every request, 6 what libraries do
    ///
    /// RUST_LOG, if set, decides instead, as in RUST_LOG=daemonset_warden=debug,h2=trace.
    #[arg(short, long = "v", global = true, value_name = "LEVEL", default_value_t = 2, help_heading = LOGGING)]
    pub verbosity: u8,
    /// How to log; by default text on a terminal and JSON elsewhere
    #[arg(long, global = true, value_name = "FORMAT", help_heading = LOGGING)]
    pub logging_format: Option<LogFormat>,
}

/// clap's error without the usage, in one line: what is wrong, and its hint.
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
    fn failures_are_told_from_findings() {
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
