//! One policy rule: its id, its texts, and the function that finds its faults.

use crate::api::daemonset::DaemonSet;
use crate::api::field::Error;
use crate::policy::Level;

/// One policy rule; `Check` is what finds its faults.
#[derive(Debug)]
pub struct Rule<Check = fn(&DaemonSet) -> Vec<Error>> {
    /// Public: configurations name it.
    pub id: &'static str,
    /// What its faults lead to unless the configuration says otherwise.
    pub default: Level,
    /// What it finds.
    pub what: &'static str,
    /// Why that is worth a word, and what to do.
    pub why: &'static str,
    /// Where Kubernetes does what the rule says it does.
    pub source: &'static str,
    /// The faults of a DaemonSet.
    pub check: Check,
}

impl<Check> Rule<Check> {
    /// The rule's row in the table of docs/rules.md; `mark` stands behind what it finds.
    pub(super) fn table_row(&self, mark: &str) -> String {
        format!("| [`{0}`](#{0}) | {1:?} | {2}{mark} |\n", self.id, self.default, self.what)
    }

    /// The rule's section in docs/rules.md.
    pub(super) fn section(&self) -> String {
        let Self { id, default, what, why, source, .. } = self;
        format!("\n## {id}\n\nDefault: {default:?}. Finds {what}.\n\n{why}\n\nSource: {source}.\n")
    }
}
