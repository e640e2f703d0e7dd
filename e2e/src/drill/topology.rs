//! The laboratories in which drills are done.

use herald_lab::cluster::{ProxyMode, Spec};

/// A laboratory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Topology {
    /// Three nodes, kube-proxy in nftables mode as in all other laboratories but one.
    Three,
    /// Three nodes, kube-proxy in iptables mode.
    Iptables,
    /// Three nodes on two segments: the probed addresses are on the second, the API server is on the first.
    TwoSegments,
    /// Two nodes.
    Two,
    /// One node.
    One,
}

impl Topology {
    /// Returns the specification of its laboratory: two clients, because the one whose traffic is measured does nothing
    /// else.
    #[must_use]
    pub fn spec(self, base: &Spec) -> Spec {
        let (nodes, segments) = match self {
            Self::Three | Self::Iptables => (3, 1),
            Self::TwoSegments => (3, 2),
            Self::Two => (2, 1),
            Self::One => (1, 1),
        };
        Spec { nodes, segments, clients: 2, proxy: self.proxy(), ..base.clone() }
    }

    /// Returns the mode of its kube-proxy.
    #[must_use]
    pub fn proxy(self) -> ProxyMode {
        if self == Self::Iptables { ProxyMode::Iptables } else { ProxyMode::Nftables }
    }

    /// Returns the segment of the probed addresses.
    #[must_use]
    pub fn segment(self) -> u8 {
        u8::from(self == Self::TwoSegments)
    }

    /// Returns the suffix that distinguishes its figures from those of three nodes.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Three | Self::Iptables => "",
            Self::TwoSegments => "-two-segments",
            Self::Two => "-two-nodes",
            Self::One => "-one-node",
        }
    }
}

impl std::fmt::Display for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Three => "three nodes",
            Self::Iptables => "three nodes, kube-proxy iptables",
            Self::TwoSegments => "three nodes on two segments",
            Self::Two => "two nodes",
            Self::One => "one node",
        })
    }
}
