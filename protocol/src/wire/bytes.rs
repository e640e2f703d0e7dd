//! Fields as bytes: big-endian. No read passes the end.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// The reason why a frame is invalid: the field, and its fault.
#[derive(Debug)]
pub(super) struct Flaw {
    /// The field, by its name in docs/protocol/frames.md.
    pub field: &'static str,
    /// The fault, with the value.
    pub what: String,
}

impl Flaw {
    /// Returns a flaw.
    pub fn new(field: &'static str, what: impl Into<String>) -> Self {
        Self { field, what: what.into() }
    }
}

/// Codes of the families of addresses: they are easy to read in a hex dump.
const NO_ADDRESS: u8 = 0;
const IPV4: u8 = 4;
const IPV6: u8 = 6;

/// The unread part of a body, or of a record within it.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Returns the next `count` bytes.
    pub fn bytes(&mut self, field: &'static str, count: usize) -> Result<&'a [u8], Flaw> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or_else(|| ends(field, self.0.len(), count))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Flaw> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or_else(|| ends(field, self.0.len(), N))?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, Flaw> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub fn u16(&mut self, field: &'static str) -> Result<u16, Flaw> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, Flaw> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub fn u64(&mut self, field: &'static str) -> Result<u64, Flaw> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub fn mac(&mut self, field: &'static str) -> Result<[u8; 6], Flaw> {
        self.array(field)
    }

    /// Returns whole milliseconds in two bytes.
    pub fn millis(&mut self, field: &'static str) -> Result<Duration, Flaw> {
        self.u16(field).map(|millis| Duration::from_millis(millis.into()))
    }

    /// Returns an address, which may be absent.
    pub fn optional_address(&mut self, field: &'static str) -> Result<Option<IpAddr>, Flaw> {
        match self.u8(field)? {
            NO_ADDRESS => Ok(None),
            IPV4 => Ok(Some(Ipv4Addr::from(self.array::<4>(field)?).into())),
            IPV6 => Ok(Some(Ipv6Addr::from(self.array::<16>(field)?).into())),
            family => Err(Flaw::new(field, format!("unknown family {family}: 4, 6, and here and there 0, are known"))),
        }
    }

    /// Returns an address.
    pub fn address(&mut self, field: &'static str) -> Result<IpAddr, Flaw> {
        self.optional_address(field)?.ok_or_else(|| Flaw::new(field, "there is none"))
    }
}

fn ends(field: &'static str, left: usize, needed: usize) -> Flaw {
    Flaw::new(field, format!("it is cut off: {left} of {needed} bytes are there"))
}

/// Returns the number of bytes that an address takes, its family included.
pub(super) const fn address_len(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => 5,
        IpAddr::V6(_) => MAX_ADDRESS,
    }
}

/// Maximum number of bytes that an address takes.
pub(super) const MAX_ADDRESS: usize = 17;

/// Appends an address, or the mark that there is none.
pub(super) fn put_address(out: &mut Vec<u8>, address: Option<IpAddr>) {
    match address {
        None => out.push(NO_ADDRESS),
        Some(IpAddr::V4(address)) => {
            out.push(IPV4);
            out.extend(address.octets());
        }
        Some(IpAddr::V6(address)) => {
            out.push(IPV6);
            out.extend(address.octets());
        }
    }
}

/// Returns whole milliseconds of a time that has passed; `max` stands for that or more.
pub(super) fn whole_millis(time: Duration, max: u16) -> u16 {
    u16::try_from(time.as_millis()).unwrap_or(u16::MAX).min(max)
}
