//! Claims: statements of ownership of an address, and their comparison.
//!
//! *The owner of an address is the node with the highest precedence, (birth, epoch, key), among live claims.* Birth and
//! epoch order the history of an address; the key breaks ties the same way on every node, whatever the node knows of
//! the API.

use std::net::IpAddr;

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::node::{NodeName, first_eight};

/// When the VirtualIP object of an address was created, in seconds since the Unix epoch: of two objects for one address
/// the younger is right. The value is read from the object, so it is the same on every node; no clock is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Birth(pub u64);

impl Birth {
    /// Returns the next later birth.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// Number of owners of an address since its birth, as far as the claimant knows; the first owner claims 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

impl Epoch {
    /// Returns the epoch that beats this one. It saturates: a forged maximum (which takes the cluster's key) leaves the
    /// tie to the key instead of wrapping round to the beginning.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// The tie-break: the first eight bytes of SHA-256 over address, object UID and node name, separated by NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClaimKey(pub u64);

impl ClaimKey {
    /// Returns the key of a node's claims on an address.
    pub fn of(address: IpAddr, uid: &str, node: &NodeName) -> Self {
        let mut context = Context::new(&SHA256);
        // The textual form of RFC 5952. NUL cannot occur in any of the three parts, so different inputs give different
        // texts.
        for part in [address.to_string().as_str(), uid, node.as_str()] {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        Self(first_eight(context.finish().as_ref()))
    }
}

/// The reason why a claim was made. It travels with the claim, so that every node can tell what happened, and a node
/// that was deposed for its class knows to hold down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Reason {
    /// No node claimed the address.
    Vacant,
    /// The owner resumes after a restart.
    Resumed,
    /// The owner's node is dead.
    Dead,
    /// The owner announced that it leaves.
    Leaving,
    /// The owner reports that it hears nothing: its traffic is lost.
    Deaf,
    /// The owner is of a worse class (NotReady, excluded, no endpoint) than the claimant.
    Class,
    /// The owner's speaker has been silent for too long.
    CoverExpired,
    /// The address was freed and assigned again; the owner does not know it.
    Recreated,
    /// A reason of a later build, by its code, which is not among those above ([`Reason::of_code`]). It is kept and
    /// repeated unchanged, so that both sides agree on the fingerprint; this build draws no conclusion from it.
    Later(u8),
}

impl Reason {
    /// Every reason of this build. The position of a reason is its code on the wire.
    pub const ALL: [Self; 8] = [
        Self::Vacant,
        Self::Resumed,
        Self::Dead,
        Self::Leaving,
        Self::Deaf,
        Self::Class,
        Self::CoverExpired,
        Self::Recreated,
    ];

    /// Returns its code on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Vacant => 0,
            Self::Resumed => 1,
            Self::Dead => 2,
            Self::Leaving => 3,
            Self::Deaf => 4,
            Self::Class => 5,
            Self::CoverExpired => 6,
            Self::Recreated => 7,
            Self::Later(code) => code,
        }
    }

    /// Returns the reason with this code.
    pub fn of_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(Self::Later(code))
    }
}

/// Stores a reason as its code in the state that outlives a restart: another build may read it.
mod as_code {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Reason;

    pub(super) fn serialize<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(reason.code())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
        u8::deserialize(deserializer).map(Reason::of_code)
    }
}

/// Rank of a claim: the highest owns the address.
pub type Precedence = (Birth, Epoch, ClaimKey);

/// "I answer for this address."
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// The address.
    pub address: IpAddr,
    /// The birth of the object for which it is claimed.
    pub birth: Birth,
    /// Ownership epoch; +1 with every change of owner.
    pub epoch: Epoch,
    /// Tie-break.
    pub key: ClaimKey,
    /// Why it was made.
    #[serde(with = "as_code")]
    pub reason: Reason,
    /// Whether other nodes may answer for the claimant while its speaker is silent (L2Advertisement `cover`).
    pub cover: bool,
}

impl Claim {
    /// Returns the rank by which claims are compared.
    pub fn precedence(&self) -> Precedence {
        (self.birth, self.epoch, self.key)
    }

    /// Returns this claim's part of a [`Digest`].
    pub fn fingerprint(&self) -> u64 {
        let mut context = Context::new(&SHA256);
        match self.address {
            IpAddr::V4(address) => context.update(&address.octets()),
            IpAddr::V6(address) => context.update(&address.octets()),
        }
        context.update(&self.birth.0.to_be_bytes());
        context.update(&self.epoch.0.to_be_bytes());
        context.update(&self.key.0.to_be_bytes());
        context.update(&[self.reason.code(), u8::from(self.cover)]);
        first_eight(context.finish().as_ref())
    }
}

/// A digest of all of a node's claims: their number, and the exclusive or of their fingerprints. Two nodes with equal
/// digests hold the same claims. The digest need not withstand forgery: frames are authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Number of claims.
    pub count: u32,
    /// Exclusive or of the fingerprints.
    pub sum: u64,
}

impl Digest {
    /// Adds a claim.
    pub fn add(&mut self, fingerprint: u64) {
        self.count += 1;
        self.sum ^= fingerprint;
    }

    /// Removes a claim that was added.
    pub fn remove(&mut self, fingerprint: u64) {
        self.count -= 1;
        self.sum ^= fingerprint;
    }
}
