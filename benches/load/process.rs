//! CPU time and memory of a process, as the kernel counts them, and the median of measurements.

#![allow(dead_code, reason = "each benchmark needs a part of it")]

use std::time::Duration;

/// A process's `stat`.
pub(crate) struct Stat {
    /// Fifteen bytes of it at most.
    pub(crate) name: String,
    /// CPU time that it has taken, the kernel's for it included; in steps of 10 ms.
    pub(crate) cpu: Duration,
    /// The same of the processes that it has waited for.
    pub(crate) cpu_of_children: Duration,
}

impl Stat {
    /// `process` is a number, or `self`. `None` for a process that has ended.
    pub(crate) fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name may hold blanks and brackets.
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
        // utime, stime, cutime and cstime, in hundredths of a second on every Linux.
        let mut ticks = fields.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
        let mut two = || Some(Duration::from_millis(10 * (ticks.next()? + ticks.next()?)));
        Some(Self { name: name.to_owned(), cpu: two()?, cpu_of_children: two()? })
    }
}

/// A line of the `status` of a process that runs, such as `VmRSS`, in MiB.
pub(crate) fn mib(process: u32, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// The middle one.
pub(crate) fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    measured[measured.len() / 2]
}
