//! How many files the process may have open: a connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for [`super::limits::Limits::connections`] on both ports. Not all that the system would give, which may be a
/// billion: programs have been seen to walk through them.
const WANTED: u64 = 8_192;

/// Raises the soft limit as far as it is wanted and allowed; how many it is then.
///
/// Container runtimes start processes with a soft limit of 1,024 (containerd 2, systemd's default), for the sake of programs
/// that use `select`. Go programs raise it by themselves, and so do we.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // None is no limit at all.
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let wanted = WANTED.min(hard);
    if soft >= wanted {
        return soft;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::debug!(%error, "failed to raise the limit of open files");
            soft
        }
    }
}
