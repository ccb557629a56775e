//! One policy rule: its id, its texts, and the function that finds its faults.

use crate::api::daemonset::DaemonSet;
use crate::api::field::ErrorList;
use crate::policy::Level;

/// One policy rule. `Check` is the type of the function that finds its faults.
#[derive(Debug)]
pub struct Rule<Check = fn(&DaemonSet) -> ErrorList> {
    /// The rule's name in configurations and messages, which users rely on.
    pub id: &'static str,
    /// The level of the rule if the configuration sets none.
    pub default_level: Level,
    /// The fault, in words that docs/rules.md puts after "Finds".
    pub finds: &'static str,
    /// The consequence of the fault, and the remedy.
    pub rationale: &'static str,
    /// The files and functions of kubernetes v1.36.3 that behave as the rationale says.
    pub source: &'static str,
    /// Returns the faults of a DaemonSet; an empty list if it keeps the rule.
    pub check: Check,
}

impl<Check> Rule<Check> {
    /// Returns the rule's row in the table of docs/rules.md. `mark` is a text to put behind `finds`.
    pub(super) fn table_row(&self, mark: &str) -> String {
        format!("| [`{0}`](#{0}) | {1:?} | {2}{mark} |\n", self.id, self.default_level, self.finds)
    }

    /// Returns the rule's section in docs/rules.md.
    pub(super) fn section(&self) -> String {
        let Self { id, default_level, finds, rationale, source, .. } = self;
        format!(
            "\n## {id}\n\nDefault: {default_level:?}. Finds {finds}.\n\n{rationale}\n\nSource: {source}.\n"
        )
    }
}
