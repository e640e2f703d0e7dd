//! The classic BPF program of an ARP socket: the kernel drops every frame that cannot be a request for one of our
//! addresses, so that foreign ARP, of which a busy segment has thousands a second, wakes nobody. Pure.
//!
//! It passes Ethernet/IPv4 ARP requests that are untagged, not for another host and not our own, and whose target lies
//! in one of the ranges the addresses form. Ranges, sorted, are searched by halving: a frame costs about 2 log2(n)
//! instructions. Where there are more than [`MAX_RANGES`] runs of addresses, those with the smallest gaps are joined:
//! the filter then passes a few requests too many, which the speaker looks up and drops.

use std::net::Ipv4Addr;

use socket2::SockFilter;

/// The kernel charges a filter to the socket as eBPF, at 8 bytes an instruction, and while one replaces another it
/// charges both; before 6.7 a socket had 20 KiB for that (net.core.optmem_max), so a program may have 1,250 of them. A
/// range becomes 11 at most: two comparisons and a branch of 2 each where the address is above 127.255.255.255, two
/// returns of 2, a jump. 100 ranges and the header are 1,130.
pub const MAX_RANGES: usize = 100;

// Instruction codes (linux/bpf_common.h).
const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const JA: u16 = 0x05;
const JEQ_K: u16 = 0x15;
const JGT_K: u16 = 0x25;
const JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;

/// Ancillary data, "loaded" from negative offsets (linux/filter.h): SKF_AD_OFF is -0x1000.
const AD_OFF: u32 = (-0x1000_i32) as u32;
const AD_PKTTYPE: u32 = AD_OFF + 4;
const AD_VLAN_TAG_PRESENT: u32 = AD_OFF + 48;

/// `sll_pkttype` of frames for others and of our own (linux/if_packet.h).
const PACKET_OTHERHOST: u32 = 3;
const PACKET_OUTGOING: u32 = 4;

const DROP: Instruction = Instruction::new(RET_K, 0, 0, 0);
/// Passes the frame whole: the value is a length to cut to.
const PASS: Instruction = Instruction::new(RET_K, 0, 0, u32::MAX);

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jt: u8,
    /// Instructions to skip if it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl Instruction {
    const fn new(code: u16, jt: u8, jf: u8, k: u32) -> Self {
        Self { code, jt, jf, k }
    }
}

impl From<Instruction> for SockFilter {
    fn from(i: Instruction) -> Self {
        Self::new(i.code, i.jt, i.jf, i.k)
    }
}

/// The program for a set of addresses (in any order). For none: drop everything.
pub fn arp_requests_for(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<Instruction> {
    let ranges = ranges(addresses);
    if ranges.is_empty() {
        return vec![DROP];
    }
    let mut program = Vec::with_capacity(HEADER_LEN + 6 * ranges.len());
    program.extend(HEADER);
    search(&ranges, &mut program);
    program
}

const HEADER_LEN: usize = 14;

/// Everything but the target address. Offsets are from the destination MAC: ARP begins at 14 (RFC 826).
const HEADER: [Instruction; HEADER_LEN] = [
    Instruction::new(LD_W_ABS, 0, 0, AD_PKTTYPE),
    Instruction::new(JEQ_K, 11, 0, PACKET_OTHERHOST),
    Instruction::new(JEQ_K, 10, 0, PACKET_OUTGOING),
    // The tag itself is out of the frame by now: the kernel keeps it beside.
    Instruction::new(LD_W_ABS, 0, 0, AD_VLAN_TAG_PRESENT),
    Instruction::new(JEQ_K, 0, 8, 0),
    // Hardware type Ethernet and protocol IPv4, then their lengths, then the operation.
    Instruction::new(LD_W_ABS, 0, 0, 14),
    Instruction::new(JEQ_K, 0, 6, 0x0001_0800),
    Instruction::new(LD_W_ABS, 0, 0, 18),
    Instruction::new(JEQ_K, 0, 4, 0x0604_0001),
    Instruction::new(LD_H_ABS, 0, 0, 12),
    Instruction::new(JEQ_K, 0, 2, 0x0806),
    // The target address stays in the accumulator for the search.
    Instruction::new(LD_W_ABS, 0, 0, 38),
    Instruction::new(JA, 0, 0, 1),
    DROP,
];

/// Searches sorted ranges for the accumulator.
fn search(ranges: &[(u32, u32)], program: &mut Vec<Instruction>) {
    match ranges {
        [] => program.push(DROP),
        [(first, last)] => {
            program.extend([Instruction::new(JGE_K, 0, 2, *first), Instruction::new(JGT_K, 1, 0, *last), PASS, DROP])
        }
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            program.push(Instruction::new(JGE_K, 0, 1, high[0].0));
            // A conditional jump reaches 255 instructions only; this one reaches all.
            let jump = program.len();
            program.push(Instruction::new(JA, 0, 0, 0));
            search(low, program);
            // A few hundred at most, see MAX_RANGES.
            program[jump].k = u32::try_from(program.len() - jump - 1).unwrap_or(u32::MAX);
            search(high, program);
        }
    }
}

/// The addresses as at most [`MAX_RANGES`] closed ranges, sorted.
fn ranges(addresses: impl IntoIterator<Item = Ipv4Addr>) -> Vec<(u32, u32)> {
    let mut bits: Vec<u32> = addresses.into_iter().map(Ipv4Addr::to_bits).collect();
    bits.sort_unstable();
    bits.dedup();
    // A gap as wide as the MAX_RANGES-th widest (or any gap at all) separates two ranges.
    let mut gaps: Vec<u32> = bits.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 1).collect();
    gaps.sort_unstable_by(|a, b| b.cmp(a));
    let widest_joined = gaps.get(MAX_RANGES - 1).copied().unwrap_or(1);
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for address in bits {
        match ranges.last_mut() {
            Some((_, last)) if address - *last <= widest_joined => *last = address,
            _ => ranges.push((address, address)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use herald_segment::mac::MacAddr;
    use proptest::prelude::*;
    use test_case::test_case;

    use super::*;
    use crate::arp;

    /// What the kernel knows of a frame beside its bytes.
    #[derive(Clone, Copy, Debug)]
    struct Ancillary {
        packet_type: u32,
        tagged: bool,
    }

    const BROADCAST: Ancillary = Ancillary { packet_type: 1, tagged: false };

    /// The kernel's interpreter, for the instructions used here. Says whether the frame passes.
    fn run(program: &[Instruction], frame: &[u8], ancillary: Ancillary) -> bool {
        let (mut a, mut pc) = (0_u32, 0_usize);
        loop {
            let Instruction { code, jt, jf, k } = program[pc];
            pc += 1;
            let skip = |holds: bool| usize::from(if holds { jt } else { jf });
            match code {
                LD_W_ABS | LD_H_ABS => {
                    a = match k {
                        AD_PKTTYPE => ancillary.packet_type,
                        AD_VLAN_TAG_PRESENT => u32::from(ancillary.tagged),
                        _ => {
                            let len = if code == LD_W_ABS { 4 } else { 2 };
                            // A load beyond the frame drops it.
                            let Some(bytes) = frame.get(k as usize..k as usize + len) else { return false };
                            bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
                        }
                    }
                }
                JA => pc += k as usize,
                JEQ_K => pc += skip(a == k),
                JGT_K => pc += skip(a > k),
                JGE_K => pc += skip(a >= k),
                RET_K => return k > 0,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    /// The kernel's checks on a program: every jump lands inside, the last instruction returns (`bpf_check_classic`).
    fn check(program: &[Instruction]) {
        assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
        for (pc, i) in program.iter().enumerate() {
            let furthest = match i.code {
                JA => i.k as usize,
                JEQ_K | JGT_K | JGE_K => usize::from(i.jt.max(i.jf)),
                _ => 0,
            };
            assert!(pc + furthest + usize::from(i.code != RET_K) < program.len(), "{pc}: {i:?}");
        }
    }

    fn request(target: u32) -> arp::Frame {
        let sender = MacAddr([2, 0, 0, 0, 0, 9]);
        arp::announcement(Ipv4Addr::from_bits(target), sender)
    }

    fn passes(addresses: &[u32], frame: &[u8], ancillary: Ancillary) -> bool {
        let program = arp_requests_for(addresses.iter().copied().map(Ipv4Addr::from_bits));
        check(&program);
        run(&program, frame, ancillary)
    }

    #[test]
    fn nothing_owned_drops_everything() {
        assert!(!passes(&[], &request(1), BROADCAST));
    }

    #[test_case(Ancillary { packet_type: 0, tagged: false }, true; "to this host")]
    #[test_case(BROADCAST, true)]
    #[test_case(Ancillary { packet_type: PACKET_OTHERHOST, tagged: false }, false; "to another host")]
    #[test_case(Ancillary { packet_type: PACKET_OUTGOING, tagged: false }, false; "our own")]
    #[test_case(Ancillary { packet_type: 1, tagged: true }, false; "tagged")]
    fn by_what_the_kernel_knows(ancillary: Ancillary, expected: bool) {
        assert_eq!(passes(&[7], &request(7), ancillary), expected);
    }

    #[test_case(12, 0x86; "EtherType")]
    #[test_case(15, 6; "hardware type")]
    #[test_case(16, 0x86; "protocol type")]
    #[test_case(18, 8; "hardware length")]
    #[test_case(19, 16; "protocol length")]
    #[test_case(21, 2; "operation")]
    fn by_what_the_frame_says(at: usize, byte: u8) {
        let mut frame = request(7);
        frame[at] = byte;
        assert!(!passes(&[7], &frame, BROADCAST));
    }

    #[test]
    fn a_thousand_scattered_addresses_fit() {
        let addresses: Vec<u32> = (0..1000).map(|i| 0x0a00_0000 + i * 3).collect();
        let program = arp_requests_for(addresses.iter().copied().map(Ipv4Addr::from_bits));
        check(&program);
        assert!(addresses.iter().all(|a| run(&program, &request(*a), BROADCAST)));
        assert!(!run(&program, &request(0x0a00_0000 - 1), BROADCAST));
        assert!(!run(&program, &request(0x0a00_0000 + 3000), BROADCAST));
    }

    proptest! {
        #[test]
        fn passes_what_is_owned_and_nothing_else(
            owned in proptest::collection::btree_set(0u32..2000, 0..MAX_RANGES), asked in 0u32..2000,
        ) {
            let addresses: Vec<u32> = owned.iter().copied().collect();
            prop_assert_eq!(passes(&addresses, &request(asked), BROADCAST), owned.contains(&asked));
        }

        #[test]
        fn never_drops_what_is_owned(owned in proptest::collection::btree_set(any::<u32>(), 1..2000), pick in any::<prop::sample::Index>()) {
            let addresses: Vec<u32> = owned.iter().copied().collect();
            let asked = addresses[pick.index(addresses.len())];
            prop_assert!(passes(&addresses, &request(asked), BROADCAST));
            prop_assert!(ranges(addresses.into_iter().map(Ipv4Addr::from_bits)).len() <= MAX_RANGES);
        }

        #[test]
        fn random_frames_pass_only_if_the_reader_would_look(
            frame in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            // Random bytes are practically never an ARP request; cut frames never are.
            prop_assert!(!passes(&[7], &frame, BROADCAST) || frame.len() >= arp::FRAME_LEN);
        }
    }
}
