//! The shape of the code: pure folders are pure, data flows one way, and every file is compiled.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What the pure folders must not name, anywhere in their code: not only in `use` lines.
const IMPURE: &[&str] = &[
    "tokio",
    "axum",
    "hyper",
    "kube::",
    "rustls",
    "tracing",
    "log::",
    "socket2",
    "std::fs",
    "std::env",
    "std::net",
    "std::thread",
    "std::process",
    "std::io",
    "std::sync::mpsc",
    "SystemTime",
    "Instant::now",
    "async fn",
    ".await",
    "println!",
    "eprintln!",
    "print!",
    "dbg!",
    "include_str!",
    "OffsetDateTime",
    "Timestamp::now",
    "rand::",
    "env!",
    "crate::server",
    "crate::certificates",
    "crate::config",
    "crate::command",
    "crate::cli",
    "crate::log_on_change",
    "crate::logs",
    "crate::watch",
    "crate::live",
    "crate::metrics",
    "crate::traces",
    "opentelemetry",
    "crate::events",
    "unsafe",
];

/// `use std::{fs, io}` and the like, whose paths are not to be found as one word.
const IMPURE_STD: &[&str] = &["fs", "env", "net", "thread", "process", "io", "time::SystemTime"];

#[test]
fn pure_folders_do_no_io() {
    let mut faults = Vec::new();
    for folder in ["src/scheduling", "src/daemonset"] {
        for file in [vec![root().join(format!("{folder}.rs"))], rust_files(&root().join(folder))].concat() {
            // Files of tests may do as they like, as tests inside of files.
            let is_test = |part: &str| part == "tests" || part == "tests.rs" || part.ends_with("_tests.rs");
            if file.iter().filter_map(|part| part.to_str()).any(is_test) {
                continue;
            }
            let code = code(&file);
            for word in IMPURE {
                if names(&code, word) {
                    faults.push(format!("{} names {word}", file.display()));
                }
            }
            for group in code.match_indices("std::{").map(|(at, _)| &code[at..]) {
                let group = &group[..group.find(';').unwrap_or(group.len())];
                for word in IMPURE_STD {
                    if names(group, word) {
                        faults.push(format!("{} names std::{word}", file.display()));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn data_flows_one_way() {
    let rules: [(&str, &[&str]); 9] = [
        ("src/scheduling", &["daemonset::", "super::super::"]),
        ("src/daemonset", &["crate::server", "crate::command"]),
        ("src/server", &["crate::command", "crate::config", "crate::cli"]),
        ("src/config", &["crate::command", "crate::server", "crate::cli"]),
        ("src/watch", &["crate::command", "crate::server", "crate::config", "crate::cli", "crate::events"]),
        ("src/events", &["crate::command", "crate::server", "crate::config", "crate::cli", "crate::watch"]),
        // What the edges share knows none of them.
        ("src/live", &["crate::command", "crate::server", "crate::config", "crate::watch", "crate::events"]),
        ("src/traces", &["crate::command", "crate::server", "crate::config", "crate::cli", "crate::watch"]),
        ("src/metrics", &["crate::command", "crate::server", "crate::config", "crate::watch", "crate::live"]),
    ];
    for (folder, forbidden) in rules {
        for file in [vec![root().join(format!("{folder}.rs"))], rust_files(&root().join(folder))].concat() {
            if file.exists() {
                let code = code(&file);
                let found = forbidden.iter().find(|word| names(&code, word));
                assert!(found.is_none(), "{} names {}", file.display(), found.unwrap());
            }
        }
    }
}

#[test]
fn the_test_sees_what_it_looks_for() {
    for (text, word) in [
        ("let now = std::time::SystemTime::now();", "SystemTime"),
        ("fn f() { tracing::info!(\"x\") }", "tracing"),
        ("std::fs::read(path)", "std::fs"),
    ] {
        assert!(names(&without_comments(text), word), "{text}");
    }
    assert!(!names(&without_comments("// tokio is not used\nlet x = 1; /// std::fs"), "tokio"));
    assert!(!names("the_tokio_like", "tokio"), "only whole words");
}

#[test]
fn every_file_is_compiled() {
    let mut reached = BTreeSet::new();
    let tests = ["tests/offline/main.rs", "tests/cluster/main.rs", "tests/image/main.rs"];
    for start in ["src/lib.rs", "src/main.rs"].into_iter().chain(tests) {
        reach(&root().join(start), true, &mut reached);
    }
    // Each benchmark is a program of its own, named in Cargo.toml.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for file in rust_files(&root().join("benches")) {
        let relative = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let stem = file.file_stem().unwrap().to_str().unwrap();
        if manifest.contains(&format!("\"{relative}\"")) || manifest.contains(&format!("name = \"{stem}\"")) {
            reach(&file, true, &mut reached);
        }
    }
    let all = ["src", "tests", "benches"].map(|folder| rust_files(&root().join(folder))).concat();
    let orphans: Vec<_> = all.iter().filter(|file| !reached.contains(*file)).collect();
    assert!(orphans.is_empty(), "no mod declares {orphans:#?}");
}

/// Follows `mod x;` and `#[path = "..."]`.
fn reach(file: &Path, is_root: bool, reached: &mut BTreeSet<PathBuf>) {
    if !reached.insert(file.to_owned()) {
        return;
    }
    let folder = file.parent().unwrap();
    let children = if is_root || file.ends_with("mod.rs") {
        folder.to_owned()
    } else {
        folder.join(file.file_stem().unwrap())
    };
    let mut path = None;
    let mut inline = Vec::new();
    for line in code(file).lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(|path| folder.join(path));
        }
        // `mod a { mod b; }` is a/b.rs.
        if let Some((_, name)) = line.strip_suffix(" {").and_then(|line| line.rsplit_once("mod ")) {
            inline.push(children.join(name));
        }
        let Some(name) =
            line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).map(|(_, name)| name)
        else {
            continue;
        };
        let folders = inline.iter().chain([&children]);
        let by_name =
            folders.flat_map(|folder| [folder.join(format!("{name}.rs")), folder.join(name).join("mod.rs")]);
        if let Some(found) = path.take().into_iter().chain(by_name).find(|candidate| candidate.exists()) {
            reach(&found.components().collect::<PathBuf>(), false, reached);
        }
    }
}

/// A file without its comments and without its tests, which may do as they like.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    without_comments(text)
}

fn without_comments(text: &str) -> String {
    let line = |line: &str| line.split("//").next().unwrap_or_default().to_owned() + "\n";
    text.lines().map(line).collect()
}

/// Whether `code` has `word` as a word of its own.
fn names(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(is_part);
        let after = code[at + word.len()..].chars().next().is_some_and(is_part);
        let open = word.starts_with(is_part);
        let close = word.ends_with(is_part);
        !(open && before || close && after)
    })
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
