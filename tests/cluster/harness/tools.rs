//! The programs of the control plane: built from tests/control-plane on first use, then kept in a cache folder.
//!
//! The cache is `$DAEMONSET_WARDEN_CACHE`, else `daemonset-warden` in the user's cache folder. A change of go.mod or
//! go.sum makes a new entry. Without Go no test is skipped: the tests fail, and say what to install.
//!
//! `KUBERNETES=1.34` takes Kubernetes' own programs from tests/control-plane/minors/1.34, and builds them on first use.
//! The other programs stay the same.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The Go packages of Kubernetes' own programs, which differ for each minor. A program is named like the last part of its
/// package.
const KUBERNETES: [&str; 4] = [
    "k8s.io/kubernetes/cmd/kube-apiserver",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-scheduler",
    "k8s.io/kubernetes/cmd/kubectl",
];

/// The Go packages of the other programs, the same for each minor.
const BESIDE: [&str; 3] =
    ["go.etcd.io/etcd/server/v3", "helm.sh/helm/v4/cmd/helm", "sigs.k8s.io/kwok/cmd/kwok"];

/// The Stage files in KWOK's module that make nodes and pods Ready and remove deleted pods.
const STAGES: [&str; 5] = [
    "kustomize/stage/node/fast/node-initialize.yaml",
    "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
    "kustomize/stage/pod/fast/pod-ready.yaml",
    "kustomize/stage/pod/fast/pod-complete.yaml",
    "kustomize/stage/pod/fast/pod-delete.yaml",
];

/// The sources of the oracle; a change of one makes a new cache entry.
const ORACLE: [&str; 5] =
    ["go.mod", "go.sum", "cmd/oracle/main.go", "cmd/oracle/place.go", "cmd/oracle/validation.go"];

/// The built programs.
pub(crate) struct Tools {
    control_plane: PathBuf,
    /// The same folder, unless `KUBERNETES` names another minor.
    kubernetes: PathBuf,
    version: String,
    child_guard: PathBuf,
}

impl Tools {
    /// Returns the path of a program, such as `kube-apiserver`, `etcd` or `helm`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let kubernetes = KUBERNETES.iter().any(|package| file_name(package) == name);
        let folder = if kubernetes { &self.kubernetes } else { &self.control_plane };
        // Go names a program like its package, and etcd's is `go.etcd.io/etcd/server/v3`.
        folder.join("bin").join(if name == "etcd" { "server" } else { name })
    }

    /// The version of Kubernetes, such as `v1.36.3`.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The program that kills a component when this process ends.
    pub(crate) fn child_guard(&self) -> &Path {
        &self.child_guard
    }

    /// Returns the text of KWOK's Stage files.
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

/// Returns the programs; the first call builds those that are not in the cache. Panics with the reason if a build fails.
pub(crate) fn tools() -> &'static Tools {
    // A failure is kept as well: one failed build is enough for all tests of a run.
    static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();
    match TOOLS.get_or_init(build) {
        Ok(tools) => tools,
        Err(e) => panic!("failed to build the control plane's programs: {e}"),
    }
}

/// Returns the program that runs Kubernetes' own code; the first call builds it. Panics with the reason if the build fails.
#[allow(dead_code, reason = "the offline tests use it")]
pub(crate) fn oracle() -> &'static Path {
    static ORACLE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match ORACLE.get_or_init(build_oracle) {
        Ok(program) => program,
        Err(e) => panic!("failed to build the oracle: {e}"),
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
    let (usual, control_plane) = build_kubernetes(&module, &BESIDE, |into| copy_stages(&module, into))?;
    let (version, kubernetes) = match minor_asked_for(&module, &usual)? {
        Some(minor) => build_kubernetes(&minor, &[], |_| Ok(()))?,
        None => (usual, control_plane.clone()),
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

/// Builds Kubernetes in the version of the module's go.mod, and further packages. Returns the version and the folder.
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

/// Returns the module of the minor that `KUBERNETES` names, or `None` for the usual one.
fn minor_asked_for(module: &Path, usual: &str) -> Result<Option<PathBuf>, String> {
    let minor = std::env::var("KUBERNETES").unwrap_or_default();
    if minor.is_empty() || usual.starts_with(&format!("v{minor}.")) {
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
    Err(format!("KUBERNETES={minor}: there are {} and {usual}", there.join(", ")))
}

fn read(module: &Path, name: &str) -> Result<String, String> {
    let file = module.join(name);
    fs::read_to_string(&file).map_err(|e| format!("failed to read {}: {e}", file.display()))
}

fn cache_folder() -> Result<PathBuf, String> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = set("DAEMONSET_WARDEN_CACHE") {
        // Builds run in another folder, where a relative path would be another place.
        return std::path::absolute(&folder).map_err(|e| format!("DAEMONSET_WARDEN_CACHE: {e}"));
    }
    set("XDG_CACHE_HOME")
        .or_else(|| set("HOME").map(|home| home.join(".cache")))
        .map(|folder| folder.join("daemonset-warden"))
        .ok_or_else(|| "neither DAEMONSET_WARDEN_CACHE nor HOME is set".to_owned())
}

/// Returns the cache entry; `make` makes it if it is not there. A file lock keeps parallel runs from building the same
/// entry twice, and the final rename keeps an interrupted build from becoming an entry.
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

/// Builds Go packages, and prints the progress to the terminal.
fn go_build(module: &Path, into: &Path, flags: &str, packages: &[&str]) -> Result<(), String> {
    let mut go = Command::new("go")
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        // A go.work in a parent folder must not change the build.
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

/// Returns the linker flags that set the version, as Kubernetes' release scripts do. Without them `go build` makes a binary
/// of version v0.0.0-master, and clients and Helm charts check the version.
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

/// Returns a cache key by FNV-1a, which is the same in every release of Rust.
fn hash(texts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in texts.iter().flat_map(|text| text.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// Prints a line to the terminal at once. The test harness captures `eprintln!` until the test ends.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "control plane: {text}");
}
