//! Claims: the body of a frame that says "I answer for these".

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{
    Change, Claims, ENVELOPE, FrameLimit,
    bytes::{Flaw, MAX_ADDRESS, Reader, address_len, put_address},
};
use crate::{
    claim::{Birth, Claim, ClaimKey, Epoch, Reason},
    node::NodeId,
};

/// Flag of a Claims frame: it is exhaustive for a range.
const RANGE: u8 = 1;

/// Kinds of changes.
const WITHDRAWN: u8 = 0;
const CLAIMED: u8 = 1;

/// Flag of a withdrawal.
const DELETED: u8 = 1;
/// Flag of a claim.
const COVER: u8 = 1;

/// Subject (8), flags (1), a range of two IPv6 addresses, number of changes (2).
const MAX_FIXED: usize = 8 + 1 + 2 * MAX_ADDRESS + 2;

/// Returns the bytes for changes in one frame, whatever its range.
const fn room(limit: FrameLimit) -> usize {
    limit.bytes() - ENVELOPE - MAX_FIXED
}

/// Length, kind, flags (1 each), birth (8).
const WITHDRAWAL: usize = 3 + 8;

/// A withdrawal's fields, and epoch (4), key (8), reason (1).
const CLAIM: usize = WITHDRAWAL + 4 + 8 + 1;

/// Returns how many changes fit into any frame, whatever they are: claims of IPv6 addresses, with a range, are the
/// longest.
pub const fn changes_per_frame(limit: FrameLimit) -> usize {
    room(limit) / (CLAIM + MAX_ADDRESS)
}

const fn length(change: &Change) -> usize {
    match change {
        Change::Claimed(claim) => CLAIM + address_len(claim.address),
        Change::Withdrawn { address, .. } => WITHDRAWAL + address_len(*address),
    }
}

/// Returns the changes of a subject's claims, in as few frames as possible. Of several changes of one address the last
/// counts.
pub fn delta(limit: FrameLimit, subject: NodeId, mut changes: Vec<Change>) -> Vec<Claims> {
    sort(&mut changes);
    split(limit, changes).into_iter().map(|changes| Claims { subject, range: None, changes }).collect()
}

/// Returns all of a subject's claims, as frames whose ranges follow each other without a gap from the lowest IPv4 to
/// the highest IPv6 address: a receiver of all of them knows every claim of the subject, and each frame is of use
/// without the others. There is at least one frame, also for no claims.
pub fn full_list(limit: FrameLimit, subject: NodeId, mut changes: Vec<Change>) -> Vec<Claims> {
    sort(&mut changes);
    let mut parts = split(limit, changes);
    if parts.is_empty() {
        parts.push(Vec::new());
    }
    let mut frames: Vec<Claims> = Vec::with_capacity(parts.len());
    // From the last to the first: each range ends before the next begins.
    let mut end = Some(IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)));
    while let (Some(last), Some(changes)) = (end, parts.pop()) {
        let first = match changes.first() {
            Some(change) if !parts.is_empty() => change.address(),
            _ => IpAddr::V4(Ipv4Addr::from_bits(0)),
        };
        frames.push(Claims { subject, range: Some((first, last)), changes });
        end = predecessor(first);
    }
    frames.reverse();
    frames
}

/// Sorts changes in ascending order of addresses, each once.
fn sort(changes: &mut Vec<Change>) {
    // The sort is stable: of several changes, the last one comes first now, and stays.
    changes.reverse();
    changes.sort_by_key(Change::address);
    changes.dedup_by_key(|change| change.address());
}

/// Splits changes into parts that fit into a frame each.
fn split(limit: FrameLimit, changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut parts: Vec<Vec<Change>> = Vec::new();
    let mut left = 0;
    for change in changes {
        let length = length(&change);
        match parts.last_mut().filter(|_| length <= left) {
            Some(part) => part.push(change),
            None => {
                parts.push(vec![change]);
                left = room(limit);
            }
        }
        left -= length;
    }
    parts
}

/// Returns the address before this one, in the order of frames: IPv4 before IPv6.
fn predecessor(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_sub(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(address) => Some(match address.to_bits().checked_sub(1) {
            Some(bits) => Ipv6Addr::from_bits(bits).into(),
            None => Ipv4Addr::from_bits(u32::MAX).into(),
        }),
    }
}

/// Appends Claims.
pub(super) fn put(out: &mut Vec<u8>, claims: &Claims) -> Result<(), Flaw> {
    out.extend(claims.subject.0.to_be_bytes());
    out.push(if claims.range.is_some() { RANGE } else { 0 });
    if let Some((first, last)) = claims.range {
        put_address(out, Some(first));
        put_address(out, Some(last));
    }
    let count = claims.changes.len();
    let count = u16::try_from(count).map_err(|_| Flaw::new("changes", format!("{count} changes in one frame")))?;
    out.extend(count.to_be_bytes());
    claims.changes.iter().try_for_each(|change| put_change(out, change))
}

/// Appends a change: the length of its fields, by which a reader skips unknown ones, and its fields.
fn put_change(out: &mut Vec<u8>, change: &Change) -> Result<(), Flaw> {
    let fields = length(change) - 1;
    let fields =
        u8::try_from(fields).map_err(|_| Flaw::new("change.length", format!("{fields} bytes in one change")))?;
    out.push(fields);
    match change {
        Change::Claimed(Claim { address, birth, epoch, key, reason, cover }) => {
            out.extend([CLAIMED, if *cover { COVER } else { 0 }]);
            put_address(out, Some(*address));
            out.extend(birth.0.to_be_bytes());
            out.extend(epoch.0.to_be_bytes());
            out.extend(key.0.to_be_bytes());
            out.push(reason.code());
        }
        Change::Withdrawn { address, birth, deleted } => {
            out.extend([WITHDRAWN, if *deleted { DELETED } else { 0 }]);
            put_address(out, Some(*address));
            out.extend(birth.0.to_be_bytes());
        }
    }
    Ok(())
}

/// Reads Claims. Bytes after the fields of this version stay unread.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Claims, Flaw> {
    let subject = NodeId(reader.u64("subject")?);
    let flags = reader.u8("flags")?;
    let range =
        if flags & RANGE == 0 { None } else { Some((reader.address("range.first")?, reader.address("range.last")?)) };
    let count = reader.u16("changes")?;
    let changes = (0..count).filter_map(|_| read_change(reader).transpose()).collect::<Result<_, _>>()?;
    Ok(Claims { subject, range, changes })
}

/// Reads a change. Bytes after its fields of this version stay unread; a change of a kind that a later build may send
/// is left out, whatever its fields are.
fn read_change(reader: &mut Reader<'_>) -> Result<Option<Change>, Flaw> {
    let length = reader.u8("change.length")?;
    let mut fields = Reader(reader.bytes("change", length.into())?);
    let kind = fields.u8("change.kind")?;
    if !matches!(kind, WITHDRAWN | CLAIMED) {
        return Ok(None);
    }
    let flags = fields.u8("change.flags")?;
    let address = fields.address("change.address")?;
    let birth = Birth(fields.u64("change.birth")?);
    if kind == WITHDRAWN {
        return Ok(Some(Change::Withdrawn { address, birth, deleted: flags & DELETED != 0 }));
    }
    let epoch = Epoch(fields.u32("change.epoch")?);
    let key = ClaimKey(fields.u64("change.key")?);
    let reason = Reason::of_code(fields.u8("change.reason")?);
    Ok(Some(Change::Claimed(Claim { address, birth, epoch, key, reason, cover: flags & COVER != 0 })))
}

/// Checks the rules for Claims.
pub(super) fn check(claims: &Claims) -> Result<(), Flaw> {
    if let Some((first, last)) = claims.range {
        if first > last {
            return Err(Flaw::new("range", format!("it begins at {first}, behind its end {last}")));
        }
        let outside = |address: &IpAddr| !(first..=last).contains(address);
        if let Some(address) = claims.changes.iter().map(Change::address).find(outside) {
            return Err(Flaw::new("changes", format!("{address} is outside the range {first} to {last}")));
        }
    }
    let mut addresses = claims.changes.iter().map(Change::address);
    let mut before = addresses.next();
    for address in addresses {
        if before >= Some(address) {
            return Err(Flaw::new("changes", format!("{address} is not in ascending order")));
        }
        before = Some(address);
    }
    Ok(())
}
