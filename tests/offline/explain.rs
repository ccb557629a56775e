//! `explain` by the real binary: compared with upstream's answers, in every state, and with input that is an error.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// Runs `explain` and returns its exit code, stdout and stderr.
fn explain(args: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_daemonset-warden"))
        .arg("explain")
        .args(args)
        .env("HOME", "/nonexistent")
        .env_remove("KUBECONFIG")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program closes its standard input when it does not read it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Checks the `run` cases of a file, and returns their number.
fn check_cases(text: &str) -> usize {
    let cases = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let cases = cases.filter(|case| case["op"] == "run");
    let mut count = 0;
    for case in cases {
        let mut node = case["node"].clone();
        node["apiVersion"] = "v1".into();
        node["kind"] = "Node".into();
        let input = format!("{}\n{node}\n", case["daemonSet"]);
        let (code, stdout, stderr) = explain(&["-f", "-", "-o", "json"], &input);
        assert_eq!(code, Some(0), "{stderr}");
        let rows: Value = serde_json::from_str(&stdout).unwrap();
        let [row] = &rows.as_array().unwrap()[..] else { panic!("{stdout}") };
        let found = (&row["shouldRun"], &row["shouldContinueRunning"]);
        assert_eq!(found, (&case["shouldRun"], &case["shouldContinue"]), "{case}");
        let state = if case["shouldRun"] == true { "Missing" } else { "NotWanted" };
        assert_eq!((&row["state"], &row["pod"]), (&state.into(), &Value::Null), "{case}");
        count += 1;
    }
    count
}

#[test]
fn answers_are_upstreams() {
    assert!(check_cases(include_str!("../data/conformance.jsonl")) >= 300);
}

#[test]
#[ignore = "EXPLAIN_CASES=file: cases that tests/control-plane/cmd/oracle has made"]
fn answers_are_upstreams_to_more_questions() {
    let file = std::env::var_os("EXPLAIN_CASES").expect("EXPLAIN_CASES names no file");
    let count = check_cases(&std::fs::read_to_string(file).unwrap());
    println!("{count} cases, no difference");
    assert!(count > 0);
}

#[test]
fn outputs_are_golden() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/explain");
    let input = data.join("cluster.yaml");
    for (format, golden) in [("table", "explain.table.golden"), ("json", "explain.json.golden")] {
        let (code, stdout, stderr) = explain(&["-f", input.to_str().unwrap(), "-o", format], "");
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        let golden = data.join(golden);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &stdout).unwrap();
        }
        assert_eq!(stdout, std::fs::read_to_string(&golden).unwrap_or_default());
    }
    let (code, stdout, _) =
        explain(&["kube-system/cni", "--node", "full", "-f", input.to_str().unwrap(), "-o", "json"], "");
    let rows: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, rows.len()), (Some(0), 1));
}

#[test]
fn what_cannot_be_explained_is_said_with_exit_code_2() {
    let cases: [(&[&str], &str, &str); 11] = [
        (&["-f", "/nonexistent"], "", "failed to read /nonexistent"),
        (&["-f", "-"], "{\"kind\":", "standard input: EOF"),
        (&["-f", "-"], "a: [", "standard input: "),
        (&["-f", "-"], "just words", "expected Kubernetes objects"),
        (&["-f", "-"], "[1]", "expected Kubernetes objects"),
        (&["-f", "-"], "a: b", "an object has no kind"),
        (
            &["-f", "-"],
            r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n"},"spec":{"taints":1}}"#,
            "Node n: ",
        ),
        (&["-f", "-", "a/b"], "", "DaemonSet a/b not found among 0 DaemonSets"),
        (&["-f", "-", "--node", "n"], "", "Node n not found among 0 Nodes"),
        (&["agent"], "", "expected NAMESPACE/NAME"),
        (&[], "", "no cluster to look at"),
    ];
    for (args, stdin, text) in cases {
        let (code, stdout, stderr) = explain(args, stdin);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?} {stdin}");
        assert!(stderr.starts_with("error: ") && stderr.contains(text), "{args:?} {stdin}: {stderr}");
    }
}

#[test]
fn lists_and_folders_are_read_and_other_kinds_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "a/nodes.json",
        r#"{"kind":"NodeList","apiVersion":"v1","items":[{"metadata":{"name":"n1"}},{"metadata":{"name":"n2"}}]}"#,
    );
    write(
        "list.yml",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap}\n",
    );
    write("notes.txt", "[not a manifest");
    let (code, stdout, stderr) = explain(&["-f", directory.path().to_str().unwrap(), "-o", "json"], "");
    assert_eq!(code, Some(0), "{stderr}");
    let rows: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    let nodes: Vec<&str> = rows.iter().map(|row| row["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, ["n1", "n2"]);
    assert_eq!(rows[0]["daemonSet"], "default/a");
}
