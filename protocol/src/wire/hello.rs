//! Hello: the body of a frame that says "I am here".

use std::{str, time::Duration};

use super::{
    ENVELOPE, FrameLimit, Heard, Hello, Kernel, KeyId, Question, Sender, State,
    bytes::{Flaw, Reader, address_len, put_address, whole_millis},
};
use crate::{
    claim::Digest,
    mac::MacAddr,
    node::{Incarnation, NodeId, NodeName},
};

/// Flags of a Hello.
const DEAF: u8 = 1;

/// Flags of a heard entry.
const WANTS_ECHO: u8 = 1;
const WANTS_CLAIMS: u8 = 1 << 1;
const SUSPECT: u8 = 1 << 2;
const PROBED: u8 = 1 << 3;
const PINGED: u8 = 1 << 4;

/// Stands for a silent kernel, in the place of the time since its last answer.
const KERNEL_SILENT: u16 = u16::MAX;

/// State, flags, highest version (1 each), interval (2), uptime (8), peers (2), digest (4 + 8), MAC (6), and how many
/// bytes the name has, how many keys and heard entries there are, how many bytes each entry has (1 each).
const FIXED: usize = 3 + 2 + 8 + 2 + 12 + 6 + 4;

/// Node, incarnation, sequence (8 each), age, kernel (2 each), flags (1).
const HEARD: u8 = 3 * 8 + 2 * 2 + 1;

/// Returns how many heard entries fit into a Hello besides the rest: at least 34, if the link carries the longest
/// frame, with a name of 253 bytes, an IPv6 address and four keys.
pub fn heard_capacity(limit: FrameLimit, hello_without_heard: &Hello) -> usize {
    let Hello { name, address, keys, .. } = hello_without_heard;
    let rest = ENVELOPE + FIXED + name.as_str().len() + address.map_or(1, address_len) + keys.len() * size_of::<u64>();
    // The number of entries has one byte.
    (limit.bytes().saturating_sub(rest) / usize::from(HEARD)).min(u8::MAX.into())
}

/// Appends a Hello.
pub(super) fn put(out: &mut Vec<u8>, hello: &Hello) -> Result<(), Flaw> {
    out.extend([hello.state as u8, if hello.deaf { DEAF } else { 0 }, hello.highest_version]);
    out.extend(promised_millis(hello.interval).to_be_bytes());
    out.extend(u64::try_from(hello.uptime.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
    out.extend(hello.peers.to_be_bytes());
    out.extend(hello.claims.count.to_be_bytes());
    out.extend(hello.claims.sum.to_be_bytes());
    out.extend(hello.mac.0);
    put_address(out, hello.address);
    let name = hello.name.as_str().as_bytes();
    out.push(count("name", name.len())?);
    out.extend(name);
    out.push(count("keys", hello.keys.len())?);
    for key in &hello.keys {
        out.extend(key.0.to_be_bytes());
    }
    out.extend([count("heard", hello.heard.len())?, HEARD]);
    for heard in &hello.heard {
        put_heard(out, heard);
    }
    Ok(())
}

fn put_heard(out: &mut Vec<u8>, heard: &Heard) {
    for number in [heard.node.0, heard.incarnation.0, heard.sequence] {
        out.extend(number.to_be_bytes());
    }
    out.extend(whole_millis(heard.age, u16::MAX).to_be_bytes());
    let (question, kernel) = match heard.kernel {
        None => (None, 0),
        Some(Kernel::Answered(question, age)) => (Some(question), whole_millis(age, KERNEL_SILENT - 1)),
        Some(Kernel::Silent(question)) => (Some(question), KERNEL_SILENT),
    };
    out.extend(kernel.to_be_bytes());
    let flags = [
        (heard.wants_echo, WANTS_ECHO),
        (heard.wants_claims, WANTS_CLAIMS),
        (heard.suspect, SUSPECT),
        (question.is_some(), PROBED),
        (question == Some(Question::Ping), PINGED),
    ];
    out.push(flags.into_iter().filter(|(set, _)| *set).fold(0, |flags, (_, flag)| flags | flag));
}

/// Reads a Hello. Bytes after the fields of this version stay unread.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Hello, Flaw> {
    let state = match reader.u8("state")? {
        0 => State::Listening,
        1 => State::Active,
        2 => State::Restarting,
        3 => State::Leaving,
        unknown => return Err(Flaw::new("state", format!("unknown state {unknown}"))),
    };
    let flags = reader.u8("flags")?;
    let highest_version = reader.u8("highest version")?;
    let interval = reader.millis("interval")?;
    let uptime = Duration::from_millis(reader.u64("uptime")?);
    let peers = reader.u16("peers")?;
    let claims = Digest { count: reader.u32("digest.count")?, sum: reader.u64("digest.sum")? };
    let mac = MacAddr(reader.mac("mac")?);
    let address = reader.optional_address("address")?;
    let length = reader.u8("name")?;
    let name = str::from_utf8(reader.bytes("name", length.into())?)
        .map(NodeName::new)
        .map_err(|error| Flaw::new("name", format!("it is not UTF-8: {error}")))?;
    let count = reader.u8("keys")?;
    let keys = (0..count).map(|_| reader.u64("keys").map(KeyId)).collect::<Result<_, _>>()?;
    let count = reader.u8("heard")?;
    let length = reader.u8("heard.length")?;
    // Bytes after an entry's fields of this version stay unread.
    let mut entry = || read_heard(&mut Reader(reader.bytes("heard", length.into())?));
    let heard = (0..count).map(|_| entry()).collect::<Result<_, _>>()?;
    Ok(Hello {
        state,
        highest_version,
        deaf: flags & DEAF != 0,
        interval,
        uptime,
        peers,
        claims,
        name,
        mac,
        address,
        keys,
        heard,
    })
}

fn read_heard(reader: &mut Reader<'_>) -> Result<Heard, Flaw> {
    let node = NodeId(reader.u64("heard.node")?);
    let incarnation = Incarnation(reader.u64("heard.incarnation")?);
    let sequence = reader.u64("heard.sequence")?;
    let age = reader.millis("heard.age")?;
    let kernel = reader.u16("heard.kernel")?;
    let flags = reader.u8("heard.flags")?;
    let question = if flags & PINGED == 0 { Question::Address } else { Question::Ping };
    let kernel = match kernel {
        _ if flags & PROBED == 0 => None,
        KERNEL_SILENT => Some(Kernel::Silent(question)),
        millis => Some(Kernel::Answered(question, Duration::from_millis(millis.into()))),
    };
    Ok(Heard {
        node,
        incarnation,
        sequence,
        age,
        kernel,
        wants_echo: flags & WANTS_ECHO != 0,
        wants_claims: flags & WANTS_CLAIMS != 0,
        suspect: flags & SUSPECT != 0,
    })
}

/// Checks the rules for a Hello.
pub(super) fn check(sender: Sender, hello: &Hello) -> Result<(), Flaw> {
    if hello.highest_version == 0 {
        return Err(Flaw::new("highest version", "it is 0; the first version is 1"));
    }
    if hello.interval.is_zero() {
        return Err(Flaw::new("interval", "it is 0: the sender would be silent at once"));
    }
    if !hello.mac.is_unicast() {
        return Err(Flaw::new("mac", format!("{} is not the address of one station", hello.mac)));
    }
    check_name(hello.name.as_str())?;
    if hello.name.id() != sender.node {
        let what = format!("{} has the id {:?}, but the header says {:?}", hello.name, hello.name.id(), sender.node);
        return Err(Flaw::new("name", what));
    }
    // More keys than this build takes are allowed: a later build may take more.
    if hello.keys.is_empty() {
        return Err(Flaw::new("keys", "there are none"));
    }
    Ok(())
}

/// Checks a node's name. It is a DNS subdomain (RFC 1123, as the API server has it), since it is written to logs and
/// statuses.
fn check_name(name: &str) -> Result<(), Flaw> {
    let alphabet = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > NodeName::MAX_LEN {
        return Err(Flaw::new("name", format!("{} bytes; a name has 1 to {}", name.len(), NodeName::MAX_LEN)));
    }
    match name.chars().find(|c| !alphabet(*c)) {
        Some(other) => Err(Flaw::new("name", format!("{other:?} is none of a-z, 0-9, '-', '.'"))),
        None => Ok(()),
    }
}

/// Returns a promise in whole milliseconds, never shorter than it is.
fn promised_millis(time: Duration) -> u16 {
    u16::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u16::MAX)
}

fn count(field: &'static str, count: usize) -> Result<u8, Flaw> {
    u8::try_from(count).map_err(|_| Flaw::new(field, format!("{count} do not fit: their number has one byte")))
}
