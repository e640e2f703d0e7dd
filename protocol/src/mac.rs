//! Link-layer addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A 48-bit Ethernet address. Written in lower case with colons, as Linux does.
///
/// ```
/// use herald_protocol::mac::MacAddr;
/// let mac: MacAddr = "02:00:5E:10:00:01".parse().unwrap();
/// assert_eq!(mac.to_string(), "02:00:5e:10:00:01");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// Every station on the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// No address: the target of an ARP request.
    pub const ZERO: Self = Self([0; 6]);

    /// Returns whether one station can own it. None owns a group address (the lowest bit of the first byte, IEEE
    /// 802-2014 section 8.2.2) or all zeroes.
    pub fn is_unicast(self) -> bool {
        self != Self::ZERO && self.0[0] & 1 == 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl TryFrom<String> for MacAddr {
    type Error = ParseMacError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The error of a text that is not a link-layer address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a link-layer address: write six bytes in hexadecimal, as in 02:00:5e:10:00:01")]
pub struct ParseMacError(String);

impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseMacError(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2 && !p.starts_with('+')).ok_or_else(refuse)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() { Err(refuse()) } else { Ok(Self(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;

    #[test_case("02:00:5e:10:00:01", Some([2, 0, 0x5e, 0x10, 0, 1]))]
    #[test_case("FF:ff:FF:ff:FF:ff", Some([0xff; 6]))]
    #[test_case("", None)]
    #[test_case("02:00:5e:10:00", None; "five bytes")]
    #[test_case("02:00:5e:10:00:01:02", None; "seven bytes")]
    #[test_case("02:00:5e:10:00:1", None; "half a byte")]
    #[test_case("02:00:5e:10:00:+1", None; "a sign is not a digit")]
    fn reads(text: &str, expected: Option<[u8; 6]>) {
        let read = text.parse::<MacAddr>().ok();
        assert_eq!(read, expected.map(MacAddr));
        if let Some(mac) = read {
            assert_eq!(mac.to_string(), text.to_lowercase());
        }
    }

    #[test_case("02:00:5e:10:00:01", true)]
    #[test_case("ff:ff:ff:ff:ff:ff", false)]
    #[test_case("01:80:c2:00:00:00", false)]
    #[test_case("00:00:00:00:00:00", false)]
    fn unicast(text: &str, expected: bool) {
        assert_eq!(text.parse::<MacAddr>().unwrap().is_unicast(), expected);
    }
}
