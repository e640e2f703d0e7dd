//! One entry of a pool's `addresses` or `exclude`.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

use super::{IpFamily, bits};

/// An inclusive run of addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressBlock {
    family: IpFamily,
    first: u128,
    last: u128,
}

/// Why a text is no block of addresses. The message names the value and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Neither a CIDR nor a range nor an address.
    #[error(
        "{0:?} is not an address block: write a CIDR (192.0.2.0/24), a range (192.0.2.10-192.0.2.20) or an address"
    )]
    Syntax(String),
    /// A CIDR with bits set behind its prefix.
    #[error("{text:?} has bits set behind its prefix: write {network} for the whole network, or the single address")]
    HostBits {
        /// As written.
        text: String,
        /// The network it lies in.
        network: IpNet,
    },
    /// A range from one family to the other.
    #[error("{0:?} runs from one IP family to the other: both ends of a range are IPv4, or both are IPv6")]
    MixedFamilies(String),
    /// A range whose end lies before its start.
    #[error("{text:?} ends before it starts: write {last}-{first}")]
    Reversed {
        /// As written.
        text: String,
        /// The start as written.
        first: IpAddr,
        /// The end as written.
        last: IpAddr,
    },
}

impl AddressBlock {
    /// A block of a single address.
    pub fn single(address: IpAddr) -> Self {
        Self { family: IpFamily::of(address), first: bits(address), last: bits(address) }
    }

    /// Its family.
    pub fn family(&self) -> IpFamily {
        self.family
    }

    /// Its lowest address.
    pub fn first(&self) -> IpAddr {
        self.family.address(self.first)
    }

    /// Its highest address.
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
    fn reads(text: &str, shown: &str) {
        assert_eq!(text.parse::<AddressBlock>().unwrap().to_string(), shown);
    }

    #[test_case("192.0.2.0/33", "is not an address block")]
    #[test_case("192.0.2.300", "is not an address block")]
    #[test_case("", "is not an address block")]
    #[test_case("192.0.2.5/24", "write 192.0.2.0/24")]
    #[test_case("192.0.2.20-192.0.2.10", "write 192.0.2.10-192.0.2.20")]
    #[test_case("192.0.2.1-2001:db8::1", "one IP family to the other")]
    fn refuses(text: &str, message: &str) {
        let error = text.parse::<AddressBlock>().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert!(error.contains(&format!("{text:?}")), "the value is named: {error}");
    }
}
