//! The chart, rendered by the real Helm and compared with golden files. Helm refuses values outside of the schema by name. The
//! program accepts the rendered flags and configuration, and the pages made from the chart are up to date.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clap::Parser;
use daemonset_warden::cli::Cli;
use daemonset_warden::command::config;
use daemonset_warden::telemetry::metrics;
use serde_json::Value;

use super::chart_values::MATRIX;
use super::support::golden;
use super::tools::tools;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/daemonset-warden")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(chart().join(file)).unwrap()
}

fn helm(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut helm = Command::new(tools().program("helm"));
    // Otherwise Helm writes caches to the home folder and reads its settings.
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME"] {
        helm.env(name, home.path());
    }
    helm.env_remove("KUBECONFIG").args(args).output().unwrap()
}

fn render(args: &[&str]) -> String {
    let chart = chart();
    let mut all = vec!["template", "warden", chart.to_str().unwrap()];
    if !args.iter().any(|arg| arg.starts_with("--namespace")) {
        all.push("--namespace=daemonset-warden");
    }
    all.extend(args);
    let output = helm(&all);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn objects(text: &str) -> Vec<Value> {
    text.split("\n---\n")
        .filter(|document| document.lines().any(|line| line.starts_with("kind:")))
        .map(|document| serde_saphyr::from_str(document).unwrap_or_else(|e| panic!("{e}:\n{document}")))
        .collect()
}

#[test]
fn helm_has_nothing_to_say() {
    let output = helm(&["lint", "--strict", chart().to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && !text.contains("[WARNING]"), "{text}");
}

#[test]
fn renders_what_it_rendered() {
    for (name, args) in MATRIX {
        let text = render(args);
        assert_eq!(text, render(args), "{name}: rendered twice, the output is the same");
        golden(&format!("tests/data/chart/{name}.golden"), &text);
    }
}

#[test]
fn what_it_renders_is_what_the_program_takes() {
    for (name, args) in MATRIX {
        for object in objects(&render(args)) {
            for file in ["config.yaml", "extender.yaml"] {
                let Some(text) = object["data"][file].as_str() else { continue };
                let policy = config::parse(text).unwrap_or_else(|faults| panic!("{name}: {faults:?}"));
                // The replica that holds the Lease nominates for the extender's pods too.
                assert!(file == "config.yaml" || !policy.reservation.nominates(), "{name}");
            }
            for container in object["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten()
            {
                let args: Vec<_> =
                    container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
                Cli::try_parse_from([&["daemonset-warden"], &*args].concat())
                    .unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
    }
}

#[test]
fn the_certificate_names_the_services_of_all_webhooks() {
    for (name, args) in MATRIX {
        let objects = objects(&render(args));
        let mut names: Vec<String> = Vec::new();
        for object in &objects {
            let dns = object["spec"]["dnsNames"].as_array().into_iter().flatten();
            names.extend(dns.map(|name| name.as_str().unwrap().to_owned()));
            for arg in arguments(object) {
                let list = arg.strip_prefix("--tls-names=").unwrap_or_default();
                names.extend(list.split(',').map(str::to_owned));
            }
        }
        let webhooks = objects.iter().flat_map(|object| object["webhooks"].as_array().into_iter().flatten());
        let wanted = webhooks.map(|webhook| {
            let service = &webhook["clientConfig"]["service"];
            format!("{}.{}.svc", service["name"].as_str().unwrap(), service["namespace"].as_str().unwrap())
        });
        // A certificate of the operator's own cannot be seen: the notes say which name it may lack.
        let notes = if *name == "secret" { notes(args) } else { String::new() };
        for wanted in wanted {
            let is_old = *name == "secret" && !wanted.contains("-bind.");
            assert!(is_old || names.contains(&wanted) || notes.contains(&wanted), "{name}: {wanted}");
        }
    }
}

#[test]
fn only_replicas_of_the_deployment_stand_for_the_lease_and_nominate() {
    for (name, args) in MATRIX {
        let objects = objects(&render(args));
        let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind);
        let files = &of_kind("ConfigMap").unwrap()["data"];
        for argument in of_kind("DaemonSet").into_iter().flat_map(arguments) {
            let Some(file) = argument.strip_prefix("--config=/etc/daemonset-warden/") else { continue };
            assert!(files[file].as_str().unwrap().contains("nominate: false"), "{name}: {file}");
        }
        let has_bind =
            objects.iter().any(|object| object["webhooks"][0]["clientConfig"]["service"]["path"] == "/bind");
        for object in &objects {
            let stands = arguments(object).contains(&"--leader-elect");
            match object["kind"].as_str().unwrap() {
                "Deployment" => assert!(stands || !has_bind, "{name}"),
                _ => assert!(!stands, "{name}: {}", object["kind"]),
            }
        }
    }
}

/// Returns the arguments of the containers of an object.
fn arguments(object: &Value) -> Vec<&str> {
    let containers = object["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
    containers
        .flat_map(|container| container["args"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect()
}

/// Returns the notes that `helm install` prints.
fn notes(args: &[&str]) -> String {
    let chart = chart();
    let mut all = vec![
        "install",
        "warden",
        chart.to_str().unwrap(),
        "--dry-run=client",
        "--namespace=daemonset-warden",
    ];
    all.extend(args);
    let output = helm(&all);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_once("NOTES:").expect("notes").1.to_owned()
}

#[test]
fn the_notes_say_if_room_is_kept_and_how_to_end_all_refusals() {
    let end = "kubectl delete validatingwebhookconfiguration warden-daemonset-warden-daemonset-warden-bind";
    for (args, said, has_end) in [
        (&[][..], "Room for daemon pods is kept now", true),
        (&["--set=config.reservation.mode=Audit"], "is NOT kept yet", true),
        (&["--set=config.reservation.mode=Off"], "is not kept (config.reservation.mode is Off)", true),
        (
            &["--set=bindingWebhook.enabled=false"],
            "is not kept until kube-scheduler calls the extender",
            false,
        ),
        (&["--set=bindingWebhook.failurePolicy=Fail"], "WITHOUT A REPLICA NO POD IS BOUND", true),
    ] {
        let notes = notes(args);
        assert!(notes.contains(said) && notes.contains(end) == has_end, "{args:?}: {notes}");
    }
}

#[test]
fn every_pod_passes_the_restricted_pod_security_standard_but_for_the_hosts_network() {
    for (name, args) in MATRIX {
        for object in objects(&render(args)) {
            let pod =
                if object["kind"] == "Pod" { &object["spec"] } else { &object["spec"]["template"]["spec"] };
            for container in pod["containers"].as_array().into_iter().flatten() {
                let (of_pod, of_container) = (&pod["securityContext"], &container["securityContext"]);
                assert_eq!(of_pod["runAsNonRoot"], true, "{name}");
                assert_eq!(of_pod["seccompProfile"]["type"], "RuntimeDefault", "{name}");
                assert_eq!(of_container["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(of_container["readOnlyRootFilesystem"], true, "{name}");
                assert_eq!(of_container["capabilities"]["drop"][0], "ALL", "{name}");
            }
        }
    }
}

#[test]
fn rejects_values_that_are_none_and_names_them() {
    for (value, named) in [
        ("replica=3", "replica"),
        ("replicas=0", "/replicas"),
        ("replicas=two", "/replicas"),
        ("validatingWebhook.failurePolicy=ignore", "/validatingWebhook/failurePolicy"),
        ("mutatingWebhook.timeoutSeconds=31", "/mutatingWebhook/timeoutSeconds"),
        ("mutatingWebhook.timeout=3", "timeout"),
        ("bindingWebhook.failurePolicy=Never", "/bindingWebhook/failurePolicy"),
        ("bindingWebhook.timeoutSeconds=0", "/bindingWebhook/timeoutSeconds"),
        ("bindingWebhook.objectSelector.matchLabels.a=b", "objectSelector"),
        ("flowSchema.enable=false", "enable"),
        ("hostNetwork=true", "/securePort"),
        ("tls.source=helm", "/tls/source"),
        ("tls.source=secret", "/tls/secret/name"),
        ("config.reservation.mode=enforce", "/config/reservation/mode"),
        ("config.reservations.mode=Enforce", "reservations"),
        ("config.admission.rules.no-requests=Error", "/config/admission/rules/no-requests"),
        ("image.digest=latest", "/image/digest"),
        ("service.clusterIP=warden", "/service/clusterIP"),
        ("priorityClass.value=2000000000", "/priorityClass/value"),
        ("pod.resources.request.cpu=1", "request"),
        ("tracing.endpoint=collector:4317", "/tracing/endpoint"),
        ("tracing.samplingRatePerMillion=1", "/tracing/endpoint"),
        ("tracing.samplingRatePerMillion=1000001", "/tracing/samplingRatePerMillion"),
        ("deployment.terminationGracePeriodSeconds=5", "/deployment/terminationGracePeriodSeconds"),
        ("deployment.preStopSleepSeconds=30", "deployment.terminationGracePeriodSeconds"),
        ("deployment.terminationGracePeriodSeconds=32", "must be at least preStopSleepSeconds and 23 s"),
        ("pod.runAsUser=0", "/pod/runAsUser"),
        ("metricsPort=10250", "metricsPort"),
        ("schedulerExtender.daemonSet.securePort=443", "/schedulerExtender/daemonSet/securePort"),
        (
            "schedulerExtender.daemonSet.metricsBindAddress=10.0.0.1",
            "/schedulerExtender/daemonSet/metricsBindAddress",
        ),
    ] {
        let output = helm(&["template", "warden", chart().to_str().unwrap(), "--set", value]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && text.contains(named), "{value}: {text}");
    }
}

#[test]
fn alerts_and_panels_ask_for_metrics_labels_and_values_that_there_are() {
    for file in ["files/alerts.yaml", "files/dashboard.json"] {
        let text = read(file).replace("\\\"", "\"");
        for (start, _) in text.match_indices("daemonset_warden_") {
            let rest = &text[start..];
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(rest.len());
            let name = &rest[..end];
            let bare = name.trim_end_matches("_bucket");
            let metric = metrics::TABLE.iter().find(|metric| metric.name == bare);
            let metric = metric.unwrap_or_else(|| panic!("{file}: no metric {name}"));
            assert_eq!(bare != name, metric.kind == metrics::MetricKind::Histogram, "{file}: {name}");
            let selector = rest[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
            for pair in selector.into_iter().flat_map(|(pairs, _)| pairs.split(',')) {
                let (label, values) = pair.split_once('=').unwrap();
                let (_, known) =
                    metric.labels.iter().find(|(own, _)| *own == label).expect("a label of the metric");
                for value in values.trim_matches(['~', '"']).split('|') {
                    assert!(known.contains(&value), "{file}: {name} has no {label} {value}");
                }
            }
        }
        for (start, _) in text.match_indices("by (") {
            let labels = text[start + 4..].split(')').next().unwrap();
            for label in labels.split(',').map(str::trim).filter(|label| *label != "le") {
                let known =
                    metrics::TABLE.iter().any(|metric| metric.labels.iter().any(|(own, _)| *own == label));
                assert!(known, "{file}: no metric has the label {label}");
            }
        }
    }
}

#[test]
fn the_page_of_alerts_is_made_from_them() {
    golden("docs/alerts.md", &alerts(&serde_saphyr::from_str(&read("files/alerts.yaml")).unwrap()));
}

#[test]
fn the_readme_is_made_from_the_values() {
    let values = read("values.yaml");
    golden("charts/daemonset-warden/README.md", &readme(&values));
}

#[test]
fn every_value_is_described_and_in_the_schema() {
    let values = read("values.yaml");
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    for row in rows(&values) {
        let property = row.path.split('.').fold(&schema, |schema, key| &schema["properties"][key]);
        assert!(property.is_object(), "{} is not in values.schema.json", row.path);
        assert!(!row.what.is_empty(), "{} has no description", row.path);
    }
}

/// A value of values.yaml, with its comment.
struct Row {
    path: String,
    default: String,
    what: String,
}

/// Returns the values: each leaf, and each mapping or list that has its own comment.
fn rows(values: &str) -> Vec<Row> {
    let parsed: Value = serde_saphyr::from_str(values).unwrap();
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in values.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if let Some(said) = text.strip_prefix('#') {
            comment.push(said.trim());
        } else if text.is_empty() {
            comment.clear();
        } else if let Some((key, _)) = text.split_once(':').filter(|_| !text.starts_with("- ")) {
            path.retain(|(of, _)| *of < indent);
            // The lines below a mapping with a comment are its default.
            let above: Vec<_> = path.iter().map(|(_, key)| *key).collect();
            path.push((indent, key));
            if rows.iter().any(|row| above.join(".") == row.path)
                || rows.iter().any(|row| above.join(".").starts_with(&format!("{}.", row.path)))
            {
                continue;
            }
            let keys: Vec<_> = path.iter().map(|(_, key)| *key).collect();
            let default = keys.iter().fold(&parsed, |value, key| &value[*key]);
            if comment.is_empty() && default.as_object().is_some_and(|default| !default.is_empty()) {
                continue;
            }
            rows.push(Row { path: keys.join("."), default: default.to_string(), what: comment.join(" ") });
            comment.clear();
        }
    }
    rows
}

fn readme(values: &str) -> String {
    let mut page = String::from(
        "# daemonset-warden: Helm chart\n\n\
         ```sh\nhelm install daemonset-warden charts/daemonset-warden --namespace daemonset-warden --create-namespace \\\n  \
         --set image.repository=YOUR-REGISTRY/daemonset-warden\n```\n\n\
         Then room is kept for missing daemon pods, and both other webhooks work: `docs/install.md` has what a cluster may need besides,\n\
         a week of `config.reservation.mode=Audit` first, and kube-scheduler's extender as a second step. One command ends all refusals of\n\
         bindings at once: `kubectl delete validatingwebhookconfiguration daemonset-warden-bind`.\n\n\
         The chart needs Kubernetes 1.30 or newer. Nothing in it is random, so that `helm template` and Argo CD render the same each\n\
         time; the program itself makes the certificates.\n\n\
         This page is made from `values.yaml`: `UPDATE_GOLDEN=1 cargo test --test offline chart` writes it.\n\n\
         ## Values\n\n| value | default | description |\n|---|---|---|\n",
    );
    for row in rows(values) {
        let what = row.what.replace('|', "\\|");
        page += &format!("| `{}` | `{}` | {what} |\n", row.path, row.default);
    }
    page
}

fn alerts(alerts: &Value) -> String {
    let mut page = String::from(
        "# Alerts\n\nThe alerts of the chart (`metrics.prometheusRule.enabled`), each with its remedy. \
         `metrics.prometheusRule.runbookUrl` links each alert to this\npage. The page is made from \
         `charts/daemonset-warden/files/alerts.yaml`: `UPDATE_GOLDEN=1 cargo test --test offline chart` writes it.\n",
    );
    for alert in alerts["alerts"].as_array().unwrap() {
        let text = |field: &str| alert[field].as_str().unwrap_or_else(|| panic!("{alert}: no {field}"));
        page += &format!(
            "\n## {}\n\n{}\n\n{}, after {}:\n\n```promql\n{}\n```\n\n**Remedy.** {}\n",
            text("alert"),
            text("summary"),
            text("severity"),
            text("for"),
            text("expr"),
            text("runbook"),
        );
    }
    page
}
