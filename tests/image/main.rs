//! The image, without a container engine: the tests run the instructions of the Dockerfile, and then the program in a root folder
//! with only the files of the last stage.
//!
//! The first run builds the release, which takes minutes. The files stay in the target folder's `tmp/image/root`; the tests of
//! the chart use them if `DAEMONSET_WARDEN_IMAGE` names that folder.

// The crate contains only tests: a failed unwrap is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod apiserver;
mod dockerfile;
mod image;

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use self::apiserver::Apiserver;
use self::dockerfile::Dockerfile;
use self::image::Image;

/// The largest size of the image, in bytes.
const MAX_SIZE: u64 = 25 << 20;

#[test]
fn the_dockerfile_and_the_chart_agree_with_cargo() {
    let dockerfile = Dockerfile::read();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let version = env!("CARGO_PKG_RUST_VERSION");
    let builder = &dockerfile.stages[0];
    assert!(
        builder.from.starts_with(&format!("rust:{version}-")),
        "{}: built with another compiler",
        builder.from
    );
    // The tests make the image without a base image.
    assert_eq!(dockerfile.last().from, "scratch");
    let values = fs::read_to_string(root.join("charts/daemonset-warden/values.yaml")).unwrap();
    let (user, group) = dockerfile.last().user.split_once(':').unwrap();
    // The chart uses one number for both.
    assert_eq!(user, group);
    assert!(values.contains(&format!("  runAsUser: {user}\n")));
}

#[test]
fn the_image_is_small_and_holds_one_program() {
    let image = Image::made();
    let (mut size, mut files) = (0, Vec::new());
    for (path, bytes) in image.files() {
        println!("image: {:>9} bytes  {path}", bytes);
        size += bytes;
        files.push(path);
    }
    println!("image: {:.1} MiB in all", size as f64 / (1 << 20) as f64);
    assert!(size < MAX_SIZE, "{size}");
    assert_eq!(files, ["/daemonset-warden", "/etc/ssl/certs/ca-certificates.crt"]);
    let listed = std::process::Command::new("ldd").arg(image.root.join("daemonset-warden")).output().unwrap();
    let listed =
        String::from_utf8_lossy(&listed.stdout).into_owned() + &String::from_utf8_lossy(&listed.stderr);
    assert!(listed.contains("statically linked") || listed.contains("not a dynamic executable"), "{listed}");
}

#[test]
fn it_starts_as_its_user() {
    let image = Image::made();
    let version = image.container().run(&["--version"]);
    assert_eq!(version.stdout, format!("daemonset-warden {}\n", env!("CARGO_PKG_VERSION")), "{version:?}");
    // Without an argument it serves. It cannot write a certificate anywhere, and reports that.
    let alone = image.container().run(&[]);
    assert!(!alone.success && alone.stderr.contains("--cert-dir cannot be used either"), "{alone:?}");
}

/// The statically linked libc must resolve names without loading libraries.
#[test]
fn it_finds_names_and_knows_public_cas() {
    let image = Image::made();
    let apiserver = Apiserver::start("apiserver.test");
    let by_hosts = ("/etc/hosts", "127.0.0.1 apiserver.test\n".to_owned());
    let by_dns = ("/etc/resolv.conf", format!("nameserver {}\n", apiserver.dns));
    for (way, file) in [("hosts", by_hosts), ("DNS", by_dns)] {
        let container = image.container();
        container.write(file.0, &file.1);
        container.write("/data/kubeconfig", &apiserver.kubeconfig(true));
        let explained = container.run(&["explain", "--kubeconfig=/data/kubeconfig"]);
        assert!(explained.stderr.contains("said by the apiserver"), "{way}: {explained:?}");
    }

    // Without a CA in the kubeconfig, the program uses the image's CAs, which do not contain the CA of the test.
    let container = image.container();
    container.write("/etc/hosts", "127.0.0.1 apiserver.test\n");
    container.write("/data/kubeconfig", &apiserver.kubeconfig(false));
    let explain = ["explain", "--kubeconfig=/data/kubeconfig"];
    let refused = container.run(&explain);
    assert!(refused.stderr.contains("UnknownIssuer"), "{refused:?}");
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    let public = fs::read_to_string(image.root.join(bundle.trim_start_matches('/'))).unwrap();
    container.write(bundle, &(public + &apiserver.ca));
    let explained = container.run(&explain);
    assert!(explained.stderr.contains("said by the apiserver"), "{explained:?}");
}

#[test]
fn it_serves_where_it_may_write() {
    let image = Image::made();
    let container = image.container();
    fs::create_dir(container.root.path().join("data")).unwrap();
    let user = image.user.split(':').next().unwrap().parse().unwrap();
    // Fails without root; then the program runs as the user of the test, who owns the folder.
    let _ = chown(container.root.path().join("data"), Some(user), None);
    let ports = ["--secure-port=0", "--metrics-bind-address=127.0.0.1:0"];
    let line = container.first_line(&[&["serve", "--cert-dir=/data/certs"], &ports[..]].concat());
    assert!(line.starts_with("listening on https://127.0.0.1:"), "{line}");
}
