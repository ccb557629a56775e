//! Rows as a table like kubectl's, and as JSON. Both hold one row at a time in memory.

use std::io::{self, Write};

use crate::explain::Row;

/// Spaces between columns, as kubectl has them.
const GAP: usize = 3;
const HEADINGS: [&str; 5] = ["DAEMONSET", "NODE", "STATE", "POD", "REASON"];

/// Writes a JSON array with one row per line. Fails if `out` does.
pub(super) fn json<'c>(out: &mut impl Write, rows: impl Iterator<Item = Row<'c>>) -> io::Result<()> {
    let mut separator = "[\n";
    for row in rows {
        write!(out, "{separator}  ")?;
        serde_json::to_writer(&mut *out, &row)?;
        separator = ",\n";
    }
    out.write_all(if separator == "[\n" { b"[]\n" } else { b"\n]\n" })
}

/// Writes columns as wide as their widest cells. That takes a first pass, so `rows` is called twice. Fails if `out` does.
pub(super) fn table<'c, I: Iterator<Item = Row<'c>>>(
    out: &mut impl Write,
    rows: impl Fn() -> I,
) -> io::Result<()> {
    let mut widths = HEADINGS.map(str::len);
    let mut is_empty = true;
    for row in rows() {
        is_empty = false;
        for (width, cell) in widths.iter_mut().zip(cells(&row)) {
            *width = (*width).max(cell.chars().count());
        }
    }
    if is_empty {
        return writeln!(out, "No DaemonSet and node to explain.");
    }
    line(out, &widths, HEADINGS)?;
    for row in rows() {
        line(out, &widths, cells(&row))?;
    }
    Ok(())
}

fn cells<'r>(row: &'r Row<'_>) -> [&'r str; 5] {
    [&row.daemon_set, row.node, row.state.as_str(), row.pod.unwrap_or("<none>"), &row.reason]
}

fn line(out: &mut impl Write, widths: &[usize; 5], cells: [&str; 5]) -> io::Result<()> {
    let [padded @ .., last] = cells;
    for (cell, width) in padded.iter().zip(widths) {
        write!(out, "{cell:<0$}", width + GAP)?;
    }
    writeln!(out, "{last}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::DaemonPodState;

    #[test]
    fn nothing_is_an_empty_array_and_a_word() {
        let mut text = Vec::new();
        json(&mut text, std::iter::empty()).unwrap();
        table(&mut text, std::iter::empty).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), "[]\nNo DaemonSet and node to explain.\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let row = |node, pod| Row {
            api_group: "apps",
            daemon_set: "kube-system/cni".into(),
            node,
            should_run: true,
            should_continue_running: true,
            state: DaemonPodState::Running,
            pod,
            reason: "bound and Ready".into(),
        };
        let rows = [row("n1", Some("cni-x")), row("a-longer-name", None)];
        let mut text = Vec::new();
        table(&mut text, || rows.iter().cloned()).unwrap();
        let expected = "\
DAEMONSET         NODE            STATE     POD      REASON
kube-system/cni   n1              Running   cni-x    bound and Ready
kube-system/cni   a-longer-name   Running   <none>   bound and Ready
";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        let mut text = Vec::new();
        json(&mut text, rows.into_iter()).unwrap();
        let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(read[0]["daemonSet"], "kube-system/cni");
        assert_eq!(read[1]["pod"], serde_json::Value::Null);
    }
}
