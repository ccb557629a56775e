//! Makes the image on this machine by the Dockerfile, and runs containers of it by chroot.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::dockerfile::{Dockerfile, Stage};

/// The files of the last stage, and its entry point and user.
pub(crate) struct Image {
    pub(crate) root: PathBuf,
    pub(crate) user: String,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
}

impl Image {
    /// Returns the image; the first call makes it.
    pub(crate) fn made() -> &'static Self {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        IMAGE.get_or_init(|| Self::make(&Dockerfile::read()))
    }

    fn make(dockerfile: &Dockerfile) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
        let [build, last] = &dockerfile.stages[..] else { panic!("a stage that builds, and the image") };
        let workdir = folder.join("build");
        copy_context(build, &workdir, &folder.join("target"));
        // Files that the build writes outside of its working folder go to this folder.
        let outside = folder.join("outside");
        fs::create_dir_all(&outside).unwrap();
        for command in &build.runs {
            let made = last.copies_from.iter().map(|(_, from, _)| from);
            let here = made.fold(command.clone(), |command, path| {
                command.replace(&format!(" {path}"), &format!(" {}{path}", outside.display()))
            });
            run(&here, &workdir);
        }

        let root = folder.join("root");
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        for (stage, from, to) in &last.copies_from {
            assert_eq!(stage, &build.name);
            let made = outside.join(from.trim_start_matches('/'));
            // A file that the build has not made belongs to the base image; this machine has the same file on Debian.
            let from = if made.exists() { made } else { PathBuf::from(from) };
            let to = root.join(to.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        }
        let (entrypoint, cmd) = (last.entrypoint.clone(), last.cmd.clone());
        Self { root, user: last.user.clone(), entrypoint, cmd }
    }

    /// Returns the path of each file in the image, with its size.
    pub(crate) fn files(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        let mut folders = vec![self.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let name = format!("/{}", path.strip_prefix(&self.root).unwrap().display());
                    files.push((name, fs::metadata(&path).unwrap().len()));
                }
            }
        }
        files.sort();
        files
    }

    /// Returns a copy of the image, into which a test can write files.
    pub(crate) fn container(&self) -> Container<'_> {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let container = Container { image: self, root };
        for (file, _) in self.files() {
            let to = container.inside(&file);
            fs::copy(self.root.join(file.trim_start_matches('/')), to).unwrap();
        }
        container
    }
}

/// A copy of the image.
pub(crate) struct Container<'i> {
    image: &'i Image,
    pub(crate) root: tempfile::TempDir,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) success: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Container<'_> {
    /// Writes a file that a kubelet would mount.
    pub(crate) fn write(&self, path: &str, text: &str) {
        fs::write(self.inside(path), text).unwrap();
    }

    /// Runs the entry point to its end, with these arguments, or with CMD's if there are none.
    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        let output = self.command(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Outcome { success: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs the entry point until it has written a line, and kills it. Returns the line.
    pub(crate) fn first_line(&self, args: &[&str]) -> String {
        let mut child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        line
    }

    /// Returns the command of the entry point: with an empty environment, and as the image's user if the tests run as root.
    fn command(&self, args: &[&str]) -> Command {
        let is_root = Command::new("id").arg("-u").output().unwrap().stdout.trim_ascii() == b"0";
        let mut command = Command::new("env");
        command.args(["-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
        if is_root {
            command.args(["chroot", &format!("--userspec={}", self.image.user)]).arg(self.root.path());
        } else {
            command
                .args(["unshare", "--map-root-user"])
                .arg(format!("--root={}", self.root.path().display()));
        }
        command.args(&self.image.entrypoint).stdin(Stdio::null());
        if args.is_empty() {
            command.args(&self.image.cmd)
        } else {
            command.args(args)
        };
        command
    }

    fn inside(&self, path: &str) -> PathBuf {
        let inside = self.root.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        inside
    }
}

/// Copies the files that the stage copies, and no others. Keeps the modification times, by which Cargo finds changed files.
fn copy_context(stage: &Stage, workdir: &Path, target: &Path) {
    let _ = fs::remove_dir_all(workdir);
    fs::create_dir_all(workdir).unwrap();
    fs::create_dir_all(target).unwrap();
    for (what, into) in &stage.copies {
        for what in what {
            // A folder is copied under its own name, and files into the working folder.
            assert!(into == "./" || into == what, "COPY {what} {into}");
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(what);
            let copied = Command::new("cp").arg("-a").arg(from).arg(workdir.join(what)).status().unwrap();
            assert!(copied.success(), "COPY {what}");
        }
    }
    // .dockerignore
    let pages = Command::new("find").arg(workdir).args(["-name", "*.md", "-delete"]).status().unwrap();
    assert!(pages.success());
    symlink(target, workdir.join("target")).unwrap();
}

fn run(command: &str, workdir: &Path) {
    let mut shell = Command::new("sh");
    shell.args(["-ec", command]).current_dir(workdir).stdin(Stdio::null());
    // Cargo sets variables for the programs that it starts; the build must not see them.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_about_us = name.starts_with("CARGO") && name != "CARGO_HOME";
        if is_about_us || name == "RUSTFLAGS" || name == "RUSTDOCFLAGS" {
            shell.env_remove(&*name);
        }
    }
    let built = shell.status().unwrap();
    assert!(built.success(), "{command}: {built}");
}
