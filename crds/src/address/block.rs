//! One entry of a pool's `addresses` or `exclude`.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::{IpFamily, bits};

/// An inclusive range of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressBlock {
    family: IpFamily,
    first: u128,
    last: u128,
}

/// The error of a text that is not a block of addresses. The message names the value and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The text is neither a CIDR nor a range nor an address.
    #[error(
        "{0:?} is not an address block: write a CIDR (192.0.2.0/24), a range (192.0.2.10-192.0.2.20) or an address"
    )]
    Syntax(String),
    /// A CIDR has bits set behind its prefix.
    #[error("{text:?} has bits set behind its prefix: write {network} for the whole network, or the single address")]
    HostBits {
        /// The text as written.
        text: String,
        /// The network that contains it.
        network: IpNet,
    },
    /// A range goes from one family to the other.
    #[error("{0:?} runs from one IP family to the other: both ends of a range are IPv4, or both are IPv6")]
    MixedFamilies(String),
    /// A range ends before it starts.
    #[error("{text:?} ends before it starts: write {last}-{first}")]
    Reversed {
        /// The text as written.
        text: String,
        /// The start as written.
        first: IpAddr,
        /// The end as written.
        last: IpAddr,
    },
}

impl AddressBlock {
    /// Returns a block of a single address.
    pub fn single(address: IpAddr) -> Self {
        Self { family: IpFamily::of(address), first: bits(address), last: bits(address) }
    }

    /// Returns the family.
    pub fn family(&self) -> IpFamily {
        self.family
    }

    /// Returns the lowest address.
    pub fn first(&self) -> IpAddr {
        self.family.address(self.first)
    }

    /// Returns the highest address.
    pub fn last(&self) -> IpAddr {
        self.family.address(self.last)
    }

    pub(crate) fn bounds(&self) -> (u128, u128) {
        (self.first, self.last)
    }
}

impl From<IpNet> for AddressBlock {
    fn from(net: IpNet) -> Self {
        Self { family: IpFamily::of(net.addr()), first: bits(net.network()), last: bits(net.broadcast()) }
    }
}

impl FromStr for AddressBlock {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let syntax = || BlockError::Syntax(text.to_owned());
        if text.contains('/') {
            let net: IpNet = text.trim().parse().map_err(|_| syntax())?;
            if net.addr() != net.network() {
                return Err(BlockError::HostBits { text: text.to_owned(), network: net.trunc() });
            }
            return Ok(net.into());
        }
        let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| syntax());
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (address(first)?, address(last)?),
            None => (address(text)?, address(text)?),
        };
        if first.is_ipv4() != last.is_ipv4() {
            return Err(BlockError::MixedFamilies(text.to_owned()));
        }
        if first > last {
            return Err(BlockError::Reversed { text: text.to_owned(), first, last });
        }
        Ok(Self { family: IpFamily::of(first), first: bits(first), last: bits(last) })
    }
}

impl std::fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first())
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("192.0.2.0/24", "192.0.2.0-192.0.2.255")]
    #[test_case("192.0.2.7", "192.0.2.7")]
    #[test_case("192.0.2.7/32", "192.0.2.7")]
    #[test_case("192.0.2.10 - 192.0.2.20", "192.0.2.10-192.0.2.20"; "spaces round the dash, as MetalLB allows")]
    #[test_case("2001:db8::/126", "2001:db8::-2001:db8::3")]
    #[test_case("0.0.0.0/0", "0.0.0.0-255.255.255.255")]
    #[test_case("::/0", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")]
    fn block_is_read(text: &str, shown: &str) {
        assert_eq!(text.parse::<AddressBlock>().unwrap().to_string(), shown);
    }

    #[test_case("192.0.2.0/33", "is not an address block")]
    #[test_case("192.0.2.300", "is not an address block")]
    #[test_case("", "is not an address block")]
    #[test_case("192.0.2.5/24", "write 192.0.2.0/24")]
    #[test_case("192.0.2.20-192.0.2.10", "write 192.0.2.10-192.0.2.20")]
    #[test_case("192.0.2.1-2001:db8::1", "one IP family to the other")]
    fn unreadable_block_is_refused_with_a_remedy(text: &str, message: &str) {
        let error = text.parse::<AddressBlock>().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(error.contains(&format!("{text:?}")), "the value is named: {error}");
    }
}
