//! A network namespace for one test, with addresses for pods.
//!
//! The apiserver takes no endpoint in 127.0.0.0/8, so a test whose replicas are endpoints needs other addresses. It gets them on
//! the loopback device of a network namespace, where they collide with nothing.

use std::net::Ipv4Addr;
use std::process::Command;

/// Set in the environment of a test that runs in its network namespace; the value says if the user was root before.
const INSIDE: &str = "DAEMONSET_WARDEN_NETWORK_NAMESPACE";

/// Runs a test a second time, in a network namespace of its own. Returns false after that run, and true inside of it.
///
/// # Panics
/// If that run fails.
pub(crate) fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let is_root = is_root();
    let mut unshare = Command::new("unshare");
    unshare.arg("--net");
    if !is_root {
        unshare.arg("--map-root-user");
    }
    // All of 10.99.0.0/16 is local then, as 127.0.0.0/8 is.
    let script = r#"ip link set lo up && ip addr add 10.99.0.1/16 dev lo && exec "$0" "$@""#;
    let program = std::env::current_exe().expect("the test's program");
    let status = unshare
        .args(["sh", "-c", script])
        .arg(program)
        .args([test, "--exact", "--include-ignored", "--nocapture"])
        .env(INSIDE, if is_root { "root" } else { "user" })
        .status()
        .expect("unshare runs: install util-linux");
    assert!(status.success(), "{test} in its network namespace: {status}; `ip` is of iproute2");
    false
}

/// Returns an address of a pod in the namespace.
pub(super) fn pod_address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 1, number)
}

/// Returns true if the user that runs the tests is root, outside of any user namespace that [`is_inside`] has made.
pub(super) fn is_root() -> bool {
    match std::env::var(INSIDE) {
        Ok(before) => before == "root",
        Err(_) => Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0"),
    }
}
