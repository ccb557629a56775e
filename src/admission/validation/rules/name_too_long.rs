//! `name-too-long`: a name of more than 242 characters.

use super::Rule;
use crate::api::daemonset::DaemonSet;
use crate::api::field::{Error, ErrorList, Path};
use crate::policy::Level;

pub(super) const RULE: Rule = Rule {
    id: "name-too-long",
    default_level: Level::Deny,
    finds: "a name of more than 242 characters",
    rationale: "Each revision of the template is kept as a ControllerRevision named `<name>-<hash>`, with a hash of up to 10 characters and at most 253 in all. With a longer name the controller fails before it creates any pod. Use a shorter name.",
    source: "pkg/controller/daemon/update.go (`snapshot`), pkg/controller/history/controller_history.go (`ControllerRevisionName`)",
    check,
};

const MAX_LENGTH: usize = 242;

fn check(daemon_set: &DaemonSet) -> ErrorList {
    if daemon_set.metadata.name.len() <= MAX_LENGTH {
        return ErrorList::new();
    }
    let mut fault = Error::too_long(Path::new("metadata.name"), MAX_LENGTH);
    fault.detail += ": its ControllerRevisions need 11 more, and without them there are no pods";
    fault.into()
}
