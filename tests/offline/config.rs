//! The configuration file: its fields and defaults, and the faults that are reported.

use std::time::Duration;

use daemonset_warden::api::meta::GroupKind;
use daemonset_warden::cli::Cli;
use daemonset_warden::command::config::{ParseError, parse};
use daemonset_warden::policy::{Level, Oversized, Policy, ProtectDaemonPods, ReservationMode};

const HEAD: &str = "apiVersion: config.daemonset-warden.io/v1alpha1\nkind: DaemonSetWardenConfiguration\n";

fn faults(text: &str) -> Vec<String> {
    match parse(text) {
        Ok(policy) => panic!("accepted {text}: {policy:?}"),
        Err(ParseError::NotYaml(reason)) => vec![format!("not YAML: {reason}")],
        Err(ParseError::Faults(faults)) => faults.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn an_empty_configuration_is_the_default() {
    assert_eq!(parse(HEAD).unwrap(), Policy::default());
    let nulls =
        "daemonSetKinds:\nadmission:\nreservation: {mode: null}\npreemption: {}\nreadinessGates: {}\n";
    assert_eq!(parse(&format!("{HEAD}{nulls}")).unwrap(), Policy::default());
}

#[test]
fn the_documented_defaults_are_the_defaults() {
    let page = include_str!("../../docs/configuration.md");
    let example = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(parse(example).unwrap(), Policy::default());
    // A field that the example omits would have its default as well, so each field must be there.
    for field in [
        "daemonSetKinds:",
        "trustedControllers:",
        "rules:",
        "schedulerName:",
        "defaultPriorityClassName:",
        "skipTolerations:",
        "oversized:",
        "mode:",
        "holdTimeout:",
        "waitTimeout:",
        "namespaceSelector:",
        "bindTimeout:",
        "ignoreNodes:",
        "startupTaints:",
        "nominate:",
        "protectDaemonPods:",
    ] {
        assert!(example.contains(field), "{field}");
    }
}

#[test]
fn the_example_in_the_help_is_read() {
    let mut command = <Cli as clap::CommandFactory>::command();
    let help = command.find_subcommand_mut("serve").unwrap().render_long_help().to_string();
    let (_, example) = help.split_once("    apiVersion:").expect("an example");
    let policy = parse(&format!("    apiVersion:{example}")).unwrap();
    assert_eq!(policy.reservation.mode, ReservationMode::Audit);
    assert_eq!(policy.admission.default_priority_class_name, "daemons");
}

#[test]
fn the_documented_example_is_read() {
    let text = r#"
daemonSetKinds: [{apiGroup: apps, kind: DaemonSet}, {apiGroup: apps.kruise.io, kind: DaemonSet}]
trustedControllers: [system:serviceaccount:kruise-system:kruise-manager]
admission:
  rules: {no-requests: Off, host-port-surge: Deny}
  schedulerName: my-scheduler
  defaultPriorityClassName: ""
  skipTolerations: {matchExpressions: [{key: team, operator: In, values: [a, b]}]}
  oversized: Allow
reservation:
  mode: Audit
  holdTimeout: 1h30m
  waitTimeout: 90s
  namespaceSelector: {}
  ignoreNodes: [{matchLabels: {type: virtual-kubelet}}]
  startupTaints: [node.cilium.io/agent-not-ready]
readinessGates: {namespaceSelector: {matchLabels: {gates: "true"}}}
preemption: {protectDaemonPods: Never}
"#;
    let policy = parse(&format!("{HEAD}{text}")).unwrap();
    assert_eq!(
        policy.daemon_set_kinds[1],
        GroupKind { group: "apps.kruise.io".to_owned(), kind: "DaemonSet".to_owned() }
    );
    assert_eq!(policy.admission.rules["no-requests"], Level::Off);
    assert_eq!(policy.admission.rules["host-port-surge"], Level::Deny);
    assert_eq!(policy.admission.scheduler_name, "my-scheduler");
    let skip = policy.admission.skip_tolerations.unwrap();
    assert_eq!(
        skip.match_expressions.unwrap()[0].values.as_deref(),
        Some(&["a".to_owned(), "b".to_owned()][..])
    );
    assert_eq!(policy.admission.oversized, Oversized::Allow);
    assert_eq!(policy.reservation.mode, ReservationMode::Audit);
    assert_eq!(policy.reservation.hold_timeout, Duration::from_secs(5_400));
    assert_eq!(policy.reservation.wait_timeout, Duration::from_secs(90));
    assert_eq!(policy.reservation.startup_taints, ["node.cilium.io/agent-not-ready"]);
    assert_eq!(policy.protect_daemon_pods, ProtectDaemonPods::Never);
}

#[test]
fn off_may_have_become_false_on_its_way_through_helm() {
    let policy =
        parse(&format!("{HEAD}admission: {{rules: {{no-requests: false}}}}\nreservation: {{mode: false}}\n"));
    let policy = policy.unwrap();
    assert_eq!(policy.admission.rules["no-requests"], Level::Off);
    assert_eq!(policy.reservation.mode, ReservationMode::Off);
}

#[test]
fn all_faults_are_told_with_their_paths() {
    let text = r#"
daemonSetKinds: [{apiGroup: apps}, {apiGroup: Apps!, kind: DaemonSet, version: v1}, 3]
trustedControllers: []
admission:
  rules: {no-request: Warn, host-port-surge: Maybe, no-requests: 3}
  schedulerName: ""
  defaultPriorityClassName: 7
  skipTolerations: {matchExpressions: [{key: team, operator: in, values: [a]}, {key: "", operator: In}, {operator: Exists, values: [x]}]}
  oversized: Warn
reservation:
  mode: enforce
  holdTimeout: 10
  waitTimeout: 0s
  namespaceSelector: {matchLabels: {"a b": c, d: "e f", g: 1}}
  ignoreNodes: [{}]
  startupTaints: ["-"]
readinessGates: []
preemption: {protectDaemonPods: true}
unknown: 1
"#;
    let found = faults(&format!("{HEAD}{text}"));
    let expected = [
        "daemonSetKinds[0].kind: is missing",
        "daemonSetKinds[1].apiGroup: \"Apps!\": a lowercase RFC 1123 subdomain",
        "daemonSetKinds[1].version: is no known field; known are apiGroup, kind",
        "daemonSetKinds[2]: must be an object, not 3",
        "trustedControllers: must not be empty",
        "admission.rules.host-port-surge: must be one of Deny, Warn, Off, not \"Maybe\"",
        "admission.rules.no-requests: must be one of Deny, Warn, Off, not 3",
        "admission.rules.no-request: is no known rule; did you mean no-requests?",
        "admission.schedulerName: must not be empty",
        "admission.defaultPriorityClassName: must be text, not 7 (put it in quotes)",
        "admission.skipTolerations.matchExpressions[0].operator: must be one of In, NotIn, Exists, DoesNotExist, not \"in\"",
        "admission.skipTolerations.matchExpressions[1].key: must not be empty",
        "admission.skipTolerations.matchExpressions[1].values: must not be empty with operator In",
        "admission.skipTolerations.matchExpressions[2].key: is missing",
        "admission.skipTolerations.matchExpressions[2].values: must be empty with operator Exists",
        "admission.oversized: must be one of Deny, Allow, not \"Warn\"",
        "reservation.mode: must be one of Enforce, Audit, Off, not \"enforce\"",
        "reservation.holdTimeout: must be a duration like 90s, 10m or 1h30m, not 10",
        "reservation.waitTimeout: must be longer than 0",
        "reservation.namespaceSelector.matchLabels[a b]: \"a b\": name part must consist of",
        "reservation.namespaceSelector.matchLabels[d]: \"e f\": a valid label must be",
        "reservation.namespaceSelector.matchLabels[g]: must be text, not 1 (put it in quotes)",
        "reservation.ignoreNodes[0]: must not be empty: it would match everything",
        "reservation.startupTaints[0]: \"-\": name part must consist of",
        "readinessGates: must be an object, not a list",
        "preemption.protectDaemonPods: must be one of PreferOthers, Always, Never, not true",
        "unknown: is no known field; known are",
    ];
    for expected in expected {
        assert!(found.iter().any(|fault| fault.starts_with(expected)), "{expected} in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn what_is_no_configuration_is_told() {
    let cases = [
        ("", "must be an object, not nothing"),
        ("[1, 2]", "must be an object, not a list"),
        ("a: [", "not YAML"),
        ("a: 1\na: 2", "not YAML"),
        (
            "apiVersion: config.daemonset-warden.io/v1\nkind: Pod",
            "apiVersion: is \"config.daemonset-warden.io/v1\"; it must be",
        ),
        ("a: 1\n---\nb: 2", "not YAML"),
    ];
    for (text, expected) in cases {
        let found = faults(text);
        assert!(found.iter().any(|fault| fault.starts_with(expected)), "{text:?}: {found:?}");
    }
}

#[test]
fn bombs_do_not_go_off() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        laughs.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
    }
    for text in [
        laughs,
        "[".repeat(100_000),
        "a: ".repeat(1_000),
        format!("a: {}1{}", "[".repeat(500), "]".repeat(500)),
    ] {
        let begin = std::time::Instant::now();
        assert!(faults(&text)[0].starts_with("not YAML"));
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}
