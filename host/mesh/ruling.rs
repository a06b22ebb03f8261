//! What operators decide about plugins while the proxy runs.

use super::ids::Name;

/// What a plugin may have beyond what every plugin has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grant {
    /// Reads the arguments of the calls that it routes.
    Arguments,
}

impl Grant {
    pub const ALL: [Self; 1] = [Self::Arguments];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grant| grant.as_str() == name)
    }
}

/// Grants as people read them.
pub fn list(grants: &[Grant]) -> String {
    let names: Vec<String> = grants.iter().map(|grant| format!("`{}`", grant.as_str())).collect();
    names.join(", ")
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// To one build: another file of the same name has to be allowed anew.
    Granted { plugin: Name, sha256: [u8; 32], grant: Grant },
    /// Whatever the configuration says.
    Switched { plugin: Name, enabled: bool },
}
