//! Versions of the protocol: those that a speaker reads, and the one in which it writes
//! (docs/protocol/frames.md#versions).

use std::{fmt, ops::RangeInclusive};

/// The protocol versions that a speaker reads; it can write each of them as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    oldest: u8,
    newest: u8,
}

impl Versions {
    /// The versions of this build.
    pub const THIS: Self = Self { oldest: 1, newest: 1 };

    /// Returns the versions in this range; `None` if it is empty or has a 0, which is not a version.
    pub fn new(range: RangeInclusive<u8>) -> Option<Self> {
        let (oldest, newest) = range.into_inner();
        (1 <= oldest && oldest <= newest).then_some(Self { oldest, newest })
    }

    /// Returns whether this version is one of them.
    pub fn contains(self, version: u8) -> bool {
        (self.oldest..=self.newest).contains(&version)
    }

    /// Returns the highest version, which a Hello states.
    pub const fn newest(self) -> u8 {
        self.newest
    }

    /// Returns the version to write so that all peers can read it: the highest that this speaker and each of them read.
    /// If a peer reads none of this speaker's versions, that is the oldest.
    ///
    /// All nodes whose Hellos can be read are peers here, *also those that have not echoed this node yet*: a node can
    /// do so only once it can read the version.
    pub fn to_write(self, peers_newest: impl Iterator<Item = u8>) -> u8 {
        peers_newest.min().map_or(self.newest, |lowest| lowest.clamp(self.oldest, self.newest))
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}
