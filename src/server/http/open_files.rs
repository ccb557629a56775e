//! The limit of open files of this process: each connection is one.

use rlimit::Resource;

/// The soft limit that is wanted, enough for [`super::limits::Limits::connections`] on both ports. It is not all that the system
/// allows, which may be a billion, because some programs walk through all of them.
const WANTED: u64 = 8_192;

/// Raises the soft limit to `WANTED`, or as near to it as the hard limit allows. Returns the soft limit that is now in force, 0 if
/// it cannot be read. Call it at the start, before [`super::limits::Limits::within_files`].
///
/// Container runtimes start processes with a soft limit of 1,024 (containerd 2, systemd's default), for the sake of programs
/// that use `select`. Go programs raise it by themselves too.
pub fn raise_open_file_limit() -> u64 {
    rlimit::increase_nofile_limit(WANTED).unwrap_or_else(|error| {
        tracing::debug!(%error, "failed to raise the limit of open files");
        Resource::NOFILE.get().map_or(0, |(soft, _)| soft)
    })
}
