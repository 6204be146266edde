//! The kinds of work that the service does by schedule or on request.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A kind of job; each is a command that an operator can type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// `lifeboat backup base`
    Base,
    /// `lifeboat backup filestore`
    Filestore,
    /// `lifeboat backup configuration`
    Configuration,
    /// `lifeboat verify`
    Verify,
    /// `lifeboat drill run`
    Drill,
    /// `lifeboat prune`
    Prune,
    /// `lifeboat report`
    Report,
    /// `lifeboat policy check`
    Policy,
}

impl JobKind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Base,
        Self::Filestore,
        Self::Configuration,
        Self::Verify,
        Self::Drill,
        Self::Prune,
        Self::Report,
        Self::Policy,
    ];

    /// The words of its command.
    pub fn words(self) -> &'static [&'static str] {
        match self {
            Self::Base => &["backup", "base"],
            Self::Filestore => &["backup", "filestore"],
            Self::Configuration => &["backup", "configuration"],
            Self::Verify => &["verify"],
            Self::Drill => &["drill", "run"],
            Self::Prune => &["prune"],
            Self::Report => &["report"],
            Self::Policy => &["policy", "check"],
        }
    }

    /// The word for it in configuration, ledger and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Filestore => "filestore",
            Self::Configuration => "configuration",
            Self::Verify => "verify",
            Self::Drill => "drill",
            Self::Prune => "prune",
            Self::Report => "report",
            Self::Policy => "policy",
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_of_the_configuration() {
        for kind in JobKind::ALL {
            assert_eq!(serde_json::to_value(kind).expect("plain"), kind.word());
        }
    }
}
