//! CPU time and memory of a process, as the kernel counts them, and the median of measurements.

#![allow(dead_code, reason = "each benchmark needs a part of it")]

use std::time::Duration;

/// A part of `/proc/PROCESS/stat`.
pub(crate) struct Stat {
    /// The first fifteen bytes of the program's name.
    pub(crate) name: String,
    /// User and system CPU time, in steps of 10 ms.
    pub(crate) cpu: Duration,
    /// User and system CPU time of the processes that it has waited for.
    pub(crate) cpu_of_children: Duration,
}

impl Stat {
    /// Reads the file. `process` is a number or `self`. Returns `None` for a process that has ended.
    pub(crate) fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name may contain spaces and brackets.
        let (name, fields) = stat.split_once('(')?.1.rsplit_once(") ")?;
        // utime, stime, cutime and cstime, in hundredths of a second on every Linux.
        let mut ticks = fields.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
        let mut two = || Some(Duration::from_millis(10 * (ticks.next()? + ticks.next()?)));
        Some(Self { name: name.to_owned(), cpu: two()?, cpu_of_children: two()? })
    }
}

/// Returns a line of `/proc/PROCESS/status`, such as `VmRSS`, in MiB. Panics if the process has ended.
pub(crate) fn mib(process: u32, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// Returns the median.
pub(crate) fn median(mut measured: Vec<f64>) -> f64 {
    measured.sort_by(f64::total_cmp);
    measured[measured.len() / 2]
}
