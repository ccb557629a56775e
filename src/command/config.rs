//! The configuration file: a DaemonSetWardenConfiguration in YAML, read into a [`Policy`] or refused with all faults at once.

pub(crate) mod duration;
mod reader;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::policy::{
    AdmissionPolicy, Level, Oversized, Policy, ProtectDaemonPods, ReadinessGatePolicy, ReservationMode,
    ReservationPolicy,
};

use crate::admission::validation::live_rules::LIVE_RULES;
use crate::admission::validation::rules::RULES;
use crate::api::meta::GroupKind;

use self::reader::Reader;

const API_VERSION: &str = "config.daemonset-warden.io/v1alpha1";
const KIND: &str = "DaemonSetWardenConfiguration";

/// The size limit of a configuration file, in bytes. A configuration with every field set has 2 KB.
const MAX_SIZE: u64 = 1024 * 1024;

/// A configuration file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// The file is not YAML.
    #[error("{path} is not YAML: {reason}")]
    NotYaml {
        /// The file.
        path: PathBuf,
        /// The parser's message, with the position.
        reason: String,
    },
    /// The file has faults.
    #[error("{path} has {} {}:{}", .faults.len(), plural(.faults.len()), list(.faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// All faults.
        faults: Vec<ConfigFault>,
    },
}

/// A fault of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The path of the field, such as `reservation.holdTimeout`; empty for the whole file.
    pub path: String,
    /// The fault, and what the field accepts.
    pub message: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

/// Reads the configuration file. Absent fields have their defaults.
///
/// # Errors
/// Fails if the file cannot be read, is too large or is not YAML, or if its fields have faults: the error has all of them.
pub fn load(path: &Path) -> Result<Policy, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).map_err(read)?.take(MAX_SIZE + 1).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(ConfigError::TooLarge(path.to_owned()));
    }
    parse(&text).map_err(|error| match error {
        ParseError::NotYaml(reason) => ConfigError::NotYaml { path: path.to_owned(), reason },
        ParseError::Faults(faults) => ConfigError::Faults { path: path.to_owned(), faults },
    })
}

/// The error of a text that is not a configuration.
#[derive(Debug)]
pub enum ParseError {
    /// Not YAML: the parser's message.
    NotYaml(String),
    /// All faults of a text that is YAML.
    Faults(Vec<ConfigFault>),
}

/// Parses the text of a configuration. Absent fields have their defaults.
///
/// # Errors
/// Fails if the text is not YAML, or if its fields have faults: the error has all of them.
pub fn parse(text: &str) -> Result<Policy, ParseError> {
    let value: Value = serde_saphyr::from_str_with_options(text, yaml_options())
        .map_err(|error| ParseError::NotYaml(error.to_string().trim().to_owned()))?;
    let mut faults = Vec::new();
    let policy = policy(Reader::root(&value, &mut faults));
    if faults.is_empty() { Ok(policy) } else { Err(ParseError::Faults(faults)) }
}

/// Returns the parser's options: limits far above any configuration, and YAML 1.2, in which `off` and `no` are strings.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // A few anchors can expand to a gigabyte.
        budget: serde_saphyr::budget! {
            max_documents: 1,
            max_depth: 32,
            max_nodes: 50_000,
            max_events: 200_000,
            max_aliases: 100,
            max_anchors: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
        },
        duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    }
}

fn policy(mut root: Reader<'_>) -> Policy {
    let default = Policy::default();
    root.constant("apiVersion", API_VERSION);
    root.constant("kind", KIND);
    let policy = Policy {
        daemon_set_kinds: root
            .list("daemonSetKinds", |kind| kind.group_kind())
            .map(|kinds| kinds.into_iter().flatten().collect())
            .unwrap_or(default.daemon_set_kinds),
        trusted_controllers: root.texts("trustedControllers").unwrap_or(default.trusted_controllers),
        admission: root.object("admission", admission).unwrap_or_default(),
        reservation: root.object("reservation", reservation).unwrap_or_default(),
        readiness_gates: root.object("readinessGates", readiness_gates).unwrap_or_default(),
        protect_daemon_pods: root
            .object("preemption", |mut preemption| {
                let protect = preemption.choice(
                    "protectDaemonPods",
                    &[
                        ("PreferOthers", ProtectDaemonPods::PreferOthers),
                        ("Always", ProtectDaemonPods::Always),
                        ("Never", ProtectDaemonPods::Never),
                    ],
                );
                preemption.end();
                protect
            })
            .flatten()
            .unwrap_or(default.protect_daemon_pods),
    };
    root.end();
    policy
}

fn admission(mut admission: Reader<'_>) -> AdmissionPolicy {
    let default = AdmissionPolicy::default();
    let policy = AdmissionPolicy {
        rules: admission
            .object("rules", |mut rules| {
                let levels = [("Deny", Level::Deny), ("Warn", Level::Warn), ("Off", Level::Off)];
                let live_ids = LIVE_RULES.iter().map(|rule| rule.id);
                let levels_by_id = RULES
                    .iter()
                    .map(|rule| rule.id)
                    .chain(live_ids)
                    .filter_map(|id| Some((id.to_owned(), rules.choice(id, &levels)?)))
                    .collect();
                rules.end_of("rule");
                levels_by_id
            })
            .unwrap_or_default(),
        scheduler_name: admission.name("schedulerName").unwrap_or(default.scheduler_name),
        default_priority_class_name: admission
            .name_or_empty("defaultPriorityClassName")
            .unwrap_or(default.default_priority_class_name),
        skip_tolerations: admission.label_selector("skipTolerations"),
        oversized: admission
            .choice("oversized", &[("Deny", Oversized::Deny), ("Allow", Oversized::Allow)])
            .unwrap_or(default.oversized),
    };
    admission.end();
    policy
}

fn readiness_gates(mut gates: Reader<'_>) -> ReadinessGatePolicy {
    let default = ReadinessGatePolicy::default();
    let policy = ReadinessGatePolicy {
        namespace_selector: gates.label_selector("namespaceSelector").unwrap_or(default.namespace_selector),
        bind_timeout: gates.duration("bindTimeout").unwrap_or(default.bind_timeout),
    };
    gates.end();
    policy
}

fn reservation(mut reservation: Reader<'_>) -> ReservationPolicy {
    let default = ReservationPolicy::default();
    let policy = ReservationPolicy {
        mode: reservation
            .choice(
                "mode",
                &[
                    ("Enforce", ReservationMode::Enforce),
                    ("Audit", ReservationMode::Audit),
                    ("Off", ReservationMode::Off),
                ],
            )
            .unwrap_or(default.mode),
        hold_timeout: reservation.duration("holdTimeout").unwrap_or(default.hold_timeout),
        wait_timeout: reservation.duration("waitTimeout").unwrap_or(default.wait_timeout),
        namespace_selector: reservation
            .label_selector("namespaceSelector")
            .unwrap_or(default.namespace_selector),
        ignore_nodes: reservation.label_selectors("ignoreNodes").unwrap_or(default.ignore_nodes),
        startup_taints: reservation.label_keys("startupTaints").unwrap_or(default.startup_taints),
        nominate: reservation.boolean("nominate").unwrap_or(default.nominate),
    };
    reservation.end();
    policy
}

impl Reader<'_> {
    fn group_kind(mut self) -> Option<GroupKind> {
        let group = self.name("apiGroup");
        let kind = self.text("kind");
        self.required("apiGroup", group.is_some());
        self.required("kind", kind.is_some());
        self.end();
        Some(GroupKind { group: group?, kind: kind? })
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "fault" } else { "faults" }
}

fn list(faults: &[ConfigFault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}
