//! The specification of a laboratory.

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A laboratory's ID, which is part of the names of its namespaces, cgroups and directories.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabId(String);

/// The error for a text that is not a valid ID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a lab id is 1 to 16 of the characters a-z and 0-9, but {0:?} is not")]
pub struct InvalidLabId(String);

impl LabId {
    /// Returns the ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LabId {
    fn default() -> Self {
        Self("herald".to_owned())
    }
}

impl std::fmt::Display for LabId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabId {
    type Err = InvalidLabId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A dash is not allowed: namespaces are named `hl-<id>-<host>` and found by their prefix `hl-<id>-`.
        let fits = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if fits { Ok(Self(text.to_owned())) } else { Err(InvalidLabId(text.to_owned())) }
    }
}

impl TryFrom<String> for LabId {
    type Error = InvalidLabId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LabId> for String {
    fn from(id: LabId) -> Self {
        id.0
    }
}

/// The mode in which kube-proxy programs the nodes' kernels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// nftables.
    #[default]
    Nftables,
    /// iptables.
    Iptables,
    /// IPVS, available only where the kernel has it.
    Ipvs,
}

impl std::fmt::Display for ProxyMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
            Self::Ipvs => "ipvs",
        })
    }
}

/// The parts of a laboratory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its ID.
    pub id: LabId,
    /// Number of worker nodes, `node1` and so on.
    pub nodes: u8,
    /// Number of hosts outside the cluster on the same wire, `client1` and so on.
    pub clients: u8,
    /// Number of layer-2 segments, `lan0` and so on; every node and client has an interface `ethN` on each.
    pub segments: u8,
    /// Mode of kube-proxy.
    pub proxy: ProxyMode,
    /// Directory of ready-made binaries; missing ones are taken from the cache or built.
    pub bin_dir: Option<PathBuf>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            id: LabId::default(),
            nodes: 3,
            clients: 1,
            segments: 1,
            proxy: ProxyMode::default(),
            bin_dir: std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from),
        }
    }
}

/// The error for a specification that cannot be laid out.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSpec {
    /// A number outside its range: addresses and MACs contain the host's number in two decimal digits, starting at 11.
    #[error("{what}: {given} asked for, {from} to {to} are possible")]
    OutOfRange {
        /// Name of the number.
        what: &'static str,
        /// The number given.
        given: u8,
        /// Smallest possible number.
        from: u8,
        /// Largest possible number.
        to: u8,
    },
}

impl Spec {
    /// Checks that the numbers fit the address plan.
    ///
    /// # Errors
    /// When a number does not fit.
    pub fn validate(&self) -> Result<(), InvalidSpec> {
        for (what, given, from, to) in
            [("nodes", self.nodes, 1, 80), ("clients", self.clients, 0, 80), ("segments", self.segments, 1, 8)]
        {
            if !(from..=to).contains(&given) {
                return Err(InvalidSpec::OutOfRange { what, given, from, to });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_case::test_case;

    #[test_case("herald", true)]
    #[test_case("a1", true)]
    #[test_case("", false; "empty")]
    #[test_case("a-b", false; "a dash would make prefixes ambiguous")]
    #[test_case("Lab", false; "capitals")]
    #[test_case("../etc", false; "a path")]
    #[test_case("abcdefghijklmnopq", false; "seventeen characters")]
    fn lab_id_is_validated(text: &str, fits: bool) {
        assert_eq!(text.parse::<LabId>().is_ok(), fits);
    }

    #[test_case(|spec| spec.nodes = 0, Some("nodes: 0 asked for, 1 to 80 are possible"); "no node")]
    #[test_case(|spec| spec.nodes = 81, Some("nodes: 81 asked for, 1 to 80 are possible"); "too many nodes")]
    #[test_case(|spec| spec.segments = 9, Some("segments: 9 asked for, 1 to 8 are possible"); "too many segments")]
    #[test_case(|spec| spec.clients = 0, None; "no client is fine")]
    fn spec_is_validated(change: fn(&mut Spec), refusal: Option<&str>) {
        let mut spec = Spec::default();
        change(&mut spec);
        assert_eq!(spec.validate().err().map(|e| e.to_string()).as_deref(), refusal);
    }
}
