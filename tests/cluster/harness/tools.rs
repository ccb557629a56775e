//! The programs of the control plane: built from tests/control-plane on first use, then kept in a cache folder.
//!
//! The cache is `$DAEMONSET_WARDEN_CACHE`, else `daemonset-warden` in the user's cache folder; a change of go.mod or
//! go.sum makes a new entry. Nothing is skipped when Go is missing: the tests fail, and say what to install.
//!
//! `KUBERNETES=1.34` takes Kubernetes' own programs from tests/control-plane/minors/1.34, whose go.mod is built when it is
//! first asked for. What is beside them stays the same.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The Go packages of the programs that each minor of Kubernetes has of its own; a program is called like the last part of
/// its package.
const KUBERNETES: [&str; 4] = [
    "k8s.io/kubernetes/cmd/kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-scheduler",
    "k8s.io/kubernetes/cmd/kubectl",
];

/// The same for what is beside them.
const BESIDE: [&str; 3] =
    ["go.etcd.io/etcd/server/v3", "helm.sh/helm/v4/cmd/helm", "sigs.k8s.io/kwok/cmd/kwok"];

/// The Stage files of KWOK's own module that make fake nodes and pods live.
const STAGES: [&str; 5] = [
    "kustomize/stage/node/fast/node-initialize.yaml",
    "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "kustomize/stage/pod/fast/pod-ready.yaml",
    "kustomize/stage/pod/fast/pod-complete.yaml",
    "kustomize/stage/pod/fast/pod-delete.yaml",
];

/// What the oracle is made of.
const ORACLE: [&str; 5] =
    ["go.mod", "go.sum", "cmd/oracle/main.go", "cmd/oracle/place.go", "cmd/oracle/validation.go"];

/// Where the built programs are.
pub(crate) struct Tools {
    control_plane: PathBuf,
    /// The same folder, unless another minor was asked for.
    kubernetes: PathBuf,
    version: String,
    child_guard: PathBuf,
}

impl Tools {
    /// The program's path: `kube-apiserver`, `etcd`, `helm`, ...
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let kubernetes = KUBERNETES.iter().any(|package| file_name(package) == name);
        let folder = if kubernetes { &self.kubernetes } else { &self.control_plane };
        // Go calls a program like its package, and etcd's is `go.etcd.io/etcd/server/v3`.
        folder.join("bin").join(if name == "etcd" { "server" } else { name })
    }

    /// Of Kubernetes: `v1.36.3`, unless another minor was asked for.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The program that ends others when this process ends.
    pub(crate) fn child_guard(&self) -> &Path {
        &self.child_guard
    }

    /// KWOK's Stage files, in no order that matters.
    pub(crate) fn stages(&self) -> Vec<String> {
        STAGES
            .iter()
            .map(|stage| {
                let file = self.control_plane.join("stages").join(file_name(stage));
                fs::read_to_string(&file).unwrap_or_else(|e| panic!("failed to read {}: {e}", file.display()))
            })
            .collect()
    }
}

/// The programs, built if need be. Panics with what to do about it if they cannot be.
pub(crate) fn tools() -> &'static Tools {
    // The outcome is remembered, not only success: one failed build is enough for all tests of a run.
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    match TOOLS.get_or_init(build) {
        Ok(tools) => tools,
        Err(why) => panic!("the control plane's programs could not be built: {why}"),
    }
}

/// The program that asks Kubernetes' own code, built if need be. Panics with what to do about it if it cannot be.
#[allow(dead_code, reason = "the offline tests use it")]
pub(crate) fn oracle() -> &'static Path {
    static ORACLE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match ORACLE.get_or_init(build_oracle) {
        Ok(program) => program,
        Err(why) => panic!("the oracle could not be built: {why}"),
    }
}

fn build_oracle() -> Result<PathBuf, String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane");
    let sources = ORACLE.iter().map(|name| read(&module, name)).collect::<Result<Vec<_>, _>>()?;
    let key = hash(&sources.iter().map(String::as_str).collect::<Vec<_>>());
    let folder = entry(&cache_folder()?.join("oracle").join(key), |into| {
        say("building the oracle out of Kubernetes' own packages: once");
        go_build(&module, into, "-s -w", &["./cmd/oracle"])
    })?;
    Ok(folder.join("oracle"))
}

fn build() -> Result<Tools, String> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane");
    let (newest, control_plane) = build_kubernetes(&module, &BESIDE, |into| copy_stages(&module, into))?;
    let (version, kubernetes) = match minor_asked_for(&module, &newest)? {
        Some(minor) => build_kubernetes(&minor, &[], |_| Ok(()))?,
        None => (newest, control_plane.clone()),
    };

    let read = |name: &str| read(&module, name);
    let key = hash(&[
        &read("cmd/child_guard/main.go")?,
        &read("cmd/child_guard/attributes_linux.go")?,
        &read("cmd/child_guard/attributes_other.go")?,
    ]);
    let child_guard = entry(&cache_folder()?.join("child_guard").join(key), |into| {
        go_build(&module, into, "-s -w", &["./cmd/child_guard"])
    })?;
    Ok(Tools { control_plane, kubernetes, version, child_guard: child_guard.join("child_guard") })
}

/// Kubernetes as the module's go.mod has it, and further packages; gives its version and the folder.
fn build_kubernetes(
    module: &Path,
    beside: &[&str],
    finish: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(String, PathBuf), String> {
    let go_mod = read(module, "go.mod")?;
    let version = version_of("k8s.io/kubernetes", &go_mod)?;
    let key = hash(&[&go_mod, &read(module, "go.sum")?]);
    let folder = cache_folder()?.join("control-plane").join(format!("{version}-{key}"));
    let packages = [&KUBERNETES, beside].concat();
    let folder = entry(&folder, |into| {
        let and = if beside.is_empty() { "" } else { ", etcd, KWOK and Helm" };
        say(&format!("building Kubernetes {version}{and}: once, and several minutes"));
        go_build(module, &into.join("bin"), &version_flags(&version), &packages)?;
        finish(into)
    })?;
    Ok((version, folder))
}

/// The module of the minor that `KUBERNETES` names, unless that is the newest.
fn minor_asked_for(module: &Path, newest: &str) -> Result<Option<PathBuf>, String> {
    let minor = std::env::var("KUBERNETES").unwrap_or_default();
    if minor.is_empty() || newest.starts_with(&format!("v{minor}.")) {
        return Ok(None);
    }
    let minors = module.join("minors");
    let asked_for = minors.join(&minor);
    if asked_for.join("go.mod").is_file() {
        return Ok(Some(asked_for));
    }
    let there: Vec<_> = fs::read_dir(&minors)
        .map_err(|e| format!("failed to read {}: {e}", minors.display()))?
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    Err(format!("KUBERNETES={minor}: there are {} and {newest}", there.join(", ")))
}

fn read(module: &Path, name: &str) -> Result<String, String> {
    let file = module.join(name);
    fs::read_to_string(&file).map_err(|e| format!("failed to read {}: {e}", file.display()))
}

fn cache_folder() -> Result<PathBuf, String> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("DAEMONSET_WARDEN_CACHE") {
        // Builds run in another folder: a relative path would mean two places.
        return std::path::absolute(&folder).map_err(|e| format!("DAEMONSET_WARDEN_CACHE: {e}"));
    }
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("daemonset-warden"))
        .ok_or_else(|| "neither DAEMONSET_WARDEN_CACHE nor HOME is set".to_owned())
}

/// The cache entry, made by `make` if it is not there. A file lock keeps parallel runs from building the same twice,
/// and the final rename keeps an interrupted build from being taken for a whole one.
fn entry(folder: &Path, make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    if folder.exists() {
        return Ok(folder.to_owned());
    }
    let at = |e: std::io::Error| format!("{}: {e}", folder.display());
    fs::create_dir_all(folder.parent().expect("an entry is inside the cache")).map_err(at)?;
    let beside = |ending: &str| {
        let mut name = folder.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let lock = File::create(beside(".lock")).map_err(at)?;
    if lock.try_lock().is_err() {
        say(&format!("waiting for another run that builds {}", folder.display()));
        lock.lock().map_err(at)?;
    }
    if !folder.exists() {
        let building = beside(".building");
        let _ = fs::remove_dir_all(&building);
        fs::create_dir_all(&building).map_err(at)?;
        make(&building)?;
        fs::rename(&building, folder).map_err(at)?;
    }
    Ok(folder.to_owned())
}

/// Builds Go packages, and tells the terminal how far it is.
fn go_build(module: &Path, into: &Path, flags: &str, packages: &[&str]) -> Result<(), String> {
    let mut go = Command::new("go")
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        // A go.work of the surroundings must not change what is built.
        .env("GOWORK", "off")
        .args(["build", "-v", "-trimpath", "-ldflags", flags, "-o"])
        .arg(into.join("")) // the slash at the end makes it a folder
        .args(packages)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| without_go(&e))?;

    let started = Instant::now();
    let mut told = started;
    let mut lines = Vec::new();
    for line in BufReader::new(go.stderr.take().expect("stderr is piped")).lines() {
        lines.push(line.map_err(|e| e.to_string())?);
        if told.elapsed() > Duration::from_secs(10) {
            told = Instant::now();
            say(&format!("{} packages in {} s", lines.len(), started.elapsed().as_secs()));
        }
    }
    let status = go.wait().map_err(|e| e.to_string())?;
    if status.success() {
        return Ok(());
    }
    let end = lines.split_off(lines.len().saturating_sub(30)).join("\n");
    Err(format!("`go build` ended with {status}:\n{end}"))
}

/// A binary built by `go build` calls itself v0.0.0-master: clients and Helm charts look at the version, so it is set
/// as Kubernetes' own release scripts set it.
fn version_flags(version: &str) -> String {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let mut flags = "-s -w".to_owned();
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        flags += &format!(
            " -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
        );
    }
    flags
}

fn version_of(package: &str, go_mod: &str) -> Result<String, String> {
    go_mod
        .lines()
        .filter_map(|line| line.trim().strip_prefix(package))
        .find_map(|rest| rest.strip_prefix(' ')?.split(' ').next())
        .map(str::to_owned)
        .ok_or_else(|| format!("go.mod requires no {package}"))
}

/// Keeps the Stage files beside the programs, so that a run with a warm cache needs no Go.
fn copy_stages(module: &Path, into: &Path) -> Result<(), String> {
    let into = into.join("stages");
    let list = Command::new("go")
        .current_dir(module)
        .env("GOWORK", "off")
        .args(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"])
        .output()
        .map_err(|e| without_go(&e))?;
    let kwok = PathBuf::from(String::from_utf8_lossy(&list.stdout).trim());
    fs::create_dir_all(&into).map_err(|e| e.to_string())?;
    for stage in STAGES {
        // Read and written rather than copied: files of the module cache are read-only, and the mode would follow.
        let text = fs::read(kwok.join(stage)).map_err(|e| format!("KWOK's {stage}: {e}"))?;
        fs::write(into.join(file_name(stage)), text).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn without_go(error: &std::io::Error) -> String {
    format!("failed to run `go`: {error}. Install Go 1.26 or newer (https://go.dev/dl), and have it in PATH")
}

/// FNV-1a: the key of a cache, not a secret, and the same in every release of Rust.
fn hash(texts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in texts.iter().flat_map(|text| text.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Tells the terminal. `eprintln!` would be captured until the test ends, which is when nobody needs it any more.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "control plane: {text}");
}
