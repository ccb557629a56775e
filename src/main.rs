//! The daemonset-warden program: see `daemonset-warden --help`.

fn main() {}
