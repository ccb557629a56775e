//! The process under attack, as /proc shows it.

use std::fs;

/// A process. The id alone is given out again after its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: u32,
    /// The time of its start, in clock ticks since the boot.
    started: u64,
}

impl Identity {
    /// Returns the identity of a running process; `None` if it has ended.
    pub(super) fn of(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name, in parentheses, may contain spaces. The state is the first field behind it.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let has_ended = matches!(fields.next()?, "Z" | "X");
        let started = fields.nth(18)?.parse().expect("a number of ticks");
        (!has_ended).then_some(Self { id, started })
    }

    /// Returns the largest resident memory so far, 0 if the process has ended.
    pub(super) fn peak_mib(self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.map(|peak| peak.trim().trim_end_matches(" kB").parse::<u64>().expect("a number"));
        kib.unwrap_or_default() / 1024
    }
}
