//! The doors of a warden at which a control plane asks about pods.

/// The doors at which a test's control plane asks a warden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doors {
    /// None: there is no warden.
    Without,
    /// `/scheduler/filter`: the scheduler asks before it chooses a node.
    Extender,
    /// `/bind`: the apiserver asks when the scheduler has chosen one.
    Bind,
    Both,
}

impl Doors {
    pub(crate) const ALL: [Self; 4] = [Self::Without, Self::Extender, Self::Bind, Self::Both];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Without => "without",
            Self::Extender => "extender",
            Self::Bind => "bind",
            Self::Both => "both",
        }
    }

    pub(crate) fn has_extender(self) -> bool {
        matches!(self, Self::Extender | Self::Both)
    }

    pub(crate) fn has_bind(self) -> bool {
        matches!(self, Self::Bind | Self::Both)
    }

    /// Returns those that the environment variable `DOORS` names, such as `without,bind`, or else `usual`.
    pub(crate) fn asked(usual: &[Self]) -> Vec<Self> {
        let Ok(asked) = std::env::var("DOORS") else { return usual.to_vec() };
        let known = |name: &str| Self::ALL.into_iter().find(|doors| doors.name() == name);
        asked.split(',').map(|name| known(name).unwrap_or_else(|| panic!("DOORS: {name}"))).collect()
    }
}
