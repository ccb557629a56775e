//! The layers of the code: pure folders do no I/O, folders name only lower layers, files have no cycles, every file is compiled.

mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::sources::{is_test_file, root, rust_files};

/// The layers of `src`: a folder may name the folders of later rows only. Folders of one row do not name each other.
const LAYERS: &[&[&str]] = &[
    &["main", "lib", "cli", "command"],
    &["server"],
    &["watch", "writes", "tls"],
    &["telemetry"],
    &["admission", "explain"],
    &["reservation"],
    &["cache"],
    &["daemonset"],
    &["scheduling", "policy"],
    &["api"],
];

/// The row of [`LAYERS`] from which on folders do no I/O.
const FIRST_PURE_LAYER: usize = 4;

/// Words that the pure folders must not name, anywhere in their code: not only in `use` lines.
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
    "opentelemetry",
    "unsafe",
];

/// Parts of `std` that pure folders must not import, as in `use std::{fs, io}`.
const IMPURE_STD: &[&str] = &["fs", "env", "net", "thread", "process", "io", "time::SystemTime"];

#[test]
fn pure_folders_do_no_io() {
    let mut faults = Vec::new();
    for folder in LAYERS[FIRST_PURE_LAYER..].iter().copied().flatten() {
        let folder = root().join("src").join(folder);
        assert!(folder.with_extension("rs").exists(), "{} is no folder of modules", folder.display());
        for file in [vec![folder.with_extension("rs")], rust_files(&folder)].concat() {
            if is_test(&file) {
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
    let layer = |folder: &str| {
        let found = LAYERS.iter().position(|layer| layer.contains(&folder));
        found.unwrap_or_else(|| panic!("src/{folder} has no place in LAYERS"))
    };
    let mut faults = BTreeSet::new();
    let imports = imports();
    for (from, targets) in &imports {
        for to in targets {
            let (of, named) = (folder_of(from), folder_of(to));
            let is_allowed = of == named || layer(named) > layer(of) || layer(of) == 0 && layer(named) == 0;
            if !is_allowed {
                faults.insert(format!("{from} names {to}"));
            }
        }
    }
    assert!(faults.is_empty(), "against the order of LAYERS: {faults:#?}");
}

/// Imports between a parent module and its children are not counted: neither is useful alone.
#[test]
fn files_do_not_go_round_in_circles() {
    let imports = imports();
    let is_family = |a: &str, b: &str| {
        let is_parent = |a: &str, b: &str| b.starts_with(&format!("{}/", a.trim_end_matches(".rs")));
        is_parent(a, b) || is_parent(b, a)
    };
    let reached_from = |start: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start.to_owned()]);
        while let Some(from) = next.pop() {
            for to in imports.get(&from).into_iter().flatten() {
                if !is_family(&from, to) && reached.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        reached
    };
    let reached: BTreeMap<_, _> = imports.keys().map(|file| (file.as_str(), reached_from(file))).collect();
    let mut faults = BTreeSet::new();
    for (file, others) in reached.iter().filter(|(file, others)| others.contains(**file)) {
        let is_in = |other: &&str| others.contains(*other) && reached[other].contains(*file);
        faults.insert(reached.keys().copied().filter(is_in).collect::<Vec<_>>());
    }
    assert!(faults.is_empty(), "these name each other: {faults:#?}");
}

/// Returns the files of src that each file of src names, without test modules, by their paths below src.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let src = root().join("src");
    let files: Vec<_> = rust_files(&src).into_iter().filter(|file| !is_test(file)).collect();
    let path = |file: &PathBuf| file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    let module = |path: &str| {
        let names = path.trim_end_matches(".rs").split('/').map(str::to_owned);
        if matches!(path, "lib.rs" | "main.rs") { Vec::new() } else { names.collect::<Vec<_>>() }
    };
    let by_module: BTreeMap<_, _> =
        files.iter().map(path).filter(|path| path != "main.rs").map(|path| (module(&path), path)).collect();
    let target = |named: &[String]| (1..=named.len()).rev().find_map(|n| by_module.get(&named[..n]));
    let of = |file: &PathBuf| {
        let own = path(file);
        let named = imports::named_modules(&fs::read_to_string(file).unwrap(), &module(&own));
        let targets = named.iter().filter_map(|named| target(named)).filter(|target| **target != own);
        let targets: BTreeSet<_> = targets.cloned().collect();
        (own, targets)
    };
    files.iter().map(of).collect()
}

/// Returns `server` for `server/limits.rs` and for `server.rs`.
fn folder_of(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// True for a file of tests, which may do I/O and name every folder.
fn is_test(file: &Path) -> bool {
    is_test_file(file.strip_prefix(root()).unwrap())
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
    let source = "use crate::{a::{B, c::d}, e}; // crate::no\nfn f() { super::g::h(); x!(crate::i) } mod j { fn k() { super::l() } }
        #[cfg(test)] mod tests { use crate::no; }";
    let named = imports::named_modules(source, &["m".to_owned(), "n".to_owned()]);
    let named: Vec<_> = named.iter().map(|path| path.join("::")).collect();
    assert_eq!(named, ["a::B", "a::c::d", "e", "m::g::h", "i", "m::n::l"]);
}

#[test]
fn every_file_is_compiled() {
    let mut reached = BTreeSet::new();
    let tests = ["tests/offline/main.rs", "tests/cluster/main.rs", "tests/image/main.rs"];
    for start in ["src/lib.rs", "src/main.rs"].into_iter().chain(tests) {
        reach(&root().join(start), true, &mut reached);
    }
    // Each benchmark is a separate program, named in Cargo.toml.
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
        // `mod b;` in `mod a { .. }` is a/b.rs.
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

/// Returns the text of a file without its comments and tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    without_comments(text)
}

fn without_comments(text: &str) -> String {
    let line = |line: &str| line.split("//").next().unwrap_or_default().to_owned() + "\n";
    text.lines().map(line).collect()
}

/// True if `code` contains `word` as a whole word.
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
