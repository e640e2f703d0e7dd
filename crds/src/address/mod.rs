//! Addresses as the API writes them: families, blocks (`10.0.0.0/24`, `10.0.0.1-10.0.0.9`, `10.0.0.1`), sets of
//! addresses, and the object name of an address.

mod block;
mod name;
mod set;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub use block::{AddressBlock, BlockError};
pub use name::{address_of_name, name_of_address};
pub use set::AddressSet;

/// An IP family, spelled as in `spec.ipFamilies` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl IpFamily {
    /// Both families, in the order in which tables show them.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Returns the address with the given bits; IPv4 takes the low 32.
    pub(crate) fn address(self, bits: u128) -> IpAddr {
        match self {
            // A set of family V4 only holds bits that came from an Ipv4Addr.
            #[allow(clippy::cast_possible_truncation, reason = "the value came from 32 bits")]
            Self::V4 => Ipv4Addr::from_bits(bits as u32).into(),
            Self::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

impl std::fmt::Display for IpFamily {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Returns the address as an integer of its family's width.
pub(crate) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}
