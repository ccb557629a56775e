//! The configuration file: YAML of a DaemonSetWardenConfiguration, to a [`Policy`], with all faults at once.

mod duration;
mod reader;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::policy::{AdmissionPolicy, Level, Policy, ProtectDaemonPods, ReservationMode, ReservationPolicy};

use crate::admission::validation::live_rules::LIVE_RULES;
use crate::admission::validation::rules::RULES;
use crate::api::meta::GroupKind;

use self::reader::Reader;

const API_VERSION: &str = "config.daemonset-warden.io/v1alpha1";
const KIND: &str = "DaemonSetWardenConfiguration";

/// A configuration with everything set is 2 KB.
const MAX_SIZE: u64 = 1024 * 1024;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("failed to read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be meant.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(PathBuf),
    /// The file is not YAML.
    #[error("{path} is not YAML: {reason}")]
    NotYaml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The file says things that cannot be done.
    #[error("{path} has {} {}:{}", .faults.len(), plural(.faults.len()), list(.faults))]
    Faults {
        /// Which file.
        path: PathBuf,
        /// All of them.
        faults: Vec<ConfigFault>,
    },
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Such as `reservation.holdTimeout`; empty for the whole file.
    pub path: String,
    /// What is wrong and what would be right.
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

/// Reads the file.
///
/// # Errors
/// When it cannot be read, or what it says cannot be done: with every fault.
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

/// Why a text is no configuration.
#[derive(Debug)]
pub enum ParseError {
    /// It is not YAML.
    NotYaml(String),
    /// Every fault of a text that is YAML.
    Faults(Vec<ConfigFault>),
}

/// Reads a configuration.
///
/// # Errors
/// When it is not YAML, or with every fault.
pub fn parse(text: &str) -> Result<Policy, ParseError> {
    let value: Value = serde_saphyr::from_str_with_options(text, yaml_options())
        .map_err(|error| ParseError::NotYaml(error.to_string().trim().to_owned()))?;
    let mut faults = Vec::new();
    let policy = policy(Reader::root(&value, &mut faults));
    if faults.is_empty() { Ok(policy) } else { Err(ParseError::Faults(faults)) }
}

/// Limits far above any configuration, and YAML 1.2, where `off` and `no` are words.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // Anchors are fine; a few that unfold into a gigabyte are not.
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
        readiness_gate_namespaces: root
            .object("readinessGates", |mut gates| {
                let selector = gates.label_selector("namespaceSelector");
                gates.end();
                selector
            })
            .flatten()
            .unwrap_or(default.readiness_gate_namespaces),
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
                let live = LIVE_RULES.iter().map(|rule| rule.id);
                let found = RULES
                    .iter()
                    .map(|rule| rule.id)
                    .chain(live)
                    .filter_map(|id| Some((id.to_owned(), rules.choice(id, &levels)?)))
                    .collect();
                rules.end_of("rule");
                found
            })
            .unwrap_or_default(),
        scheduler_name: admission.name("schedulerName").unwrap_or(default.scheduler_name),
        default_priority_class_name: admission
            .name_or_empty("defaultPriorityClassName")
            .unwrap_or(default.default_priority_class_name),
        skip_tolerations: admission.label_selector("skipTolerations"),
    };
    admission.end();
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
