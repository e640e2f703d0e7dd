//! Classic BPF, put together from blocks. All jumps are relative and forward, so a block means the same wherever it
//! stands; it is left at its end, or by a return.

use herald_packet_socket::SockFilter;

use super::ranges::Ranges;

// The instruction codes (linux/bpf_common.h).
pub(super) const LD_W_ABS: u16 = 0x20;
pub(super) const LD_H_ABS: u16 = 0x28;
pub(super) const LD_B_ABS: u16 = 0x30;
pub(super) const JA: u16 = 0x05;
pub(super) const JEQ_K: u16 = 0x15;
pub(super) const JGT_K: u16 = 0x25;
pub(super) const JGE_K: u16 = 0x35;
pub(super) const RET_K: u16 = 0x06;

/// The offset of ancillary data, "loaded" from negative offsets (linux/filter.h): SKF_AD_OFF is -0x1000.
const AD_OFF: u32 = (-0x1000_i32) as u32;
pub(super) const AD_PKTTYPE: u32 = AD_OFF + 4;
pub(super) const AD_IFINDEX: u32 = AD_OFF + 8;
pub(super) const AD_VLAN_TAG_PRESENT: u32 = AD_OFF + 48;

const DROP: Instruction = Instruction::new(RET_K, 0, 0, 0);
/// Passes the frame whole: the value is a length to cut to.
const PASS: Instruction = Instruction::new(RET_K, 0, 0, u32::MAX);

/// One instruction of classic BPF (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// The operation.
    pub code: u16,
    /// Instructions to skip if the comparison holds.
    pub jt: u8,
    /// Instructions to skip if the comparison does not hold.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl Instruction {
    const fn new(code: u16, jt: u8, jf: u8, k: u32) -> Self {
        Self { code, jt, jf, k }
    }

    /// Returns a jump over a number of instructions. A conditional jump reaches 255 only; this one reaches all.
    fn skip(instructions: usize) -> Self {
        // A program has 4,096 instructions at most.
        Self::new(JA, 0, 0, u32::try_from(instructions).unwrap_or(u32::MAX))
    }
}

impl From<Instruction> for SockFilter {
    fn from(i: Instruction) -> Self {
        Self::new(i.code, i.jt, i.jf, i.k)
    }
}

/// A load into the accumulator. A load beyond the end of the frame drops the frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load(Instruction);

impl Load {
    /// The addressee of the frame (`sll_pkttype`).
    pub(super) const PACKET_TYPE: Self = Self::word(AD_PKTTYPE);
    /// The index of the interface that receives the frame in the end: the VLAN's or the macvlan's, not its parent's.
    pub(super) const INTERFACE: Self = Self::word(AD_IFINDEX);
    /// 1 if the frame had a VLAN tag.
    pub(super) const VLAN_TAG_PRESENT: Self = Self::word(AD_VLAN_TAG_PRESENT);

    /// Loads four bytes of the frame, as a big-endian number.
    pub(super) const fn word(offset: u32) -> Self {
        Self(Instruction::new(LD_W_ABS, 0, 0, offset))
    }

    /// Loads two bytes.
    pub(super) const fn half(offset: u32) -> Self {
        Self(Instruction::new(LD_H_ABS, 0, 0, offset))
    }

    /// Loads one byte.
    pub(super) const fn byte(offset: u32) -> Self {
        Self(Instruction::new(LD_B_ABS, 0, 0, offset))
    }
}

/// Instructions that run from the first to the end, unless a return comes first.
#[derive(Clone, Debug)]
pub(super) struct Block(Vec<Instruction>);

impl Block {
    /// Returns an empty block, which goes on with every frame.
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Returns the block that passes every frame.
    pub(super) fn pass() -> Self {
        Self(vec![PASS])
    }

    /// Replaces the accumulator.
    pub(super) fn load(self, Load(instruction): Load) -> Self {
        self.then([instruction])
    }

    /// Drops the frame unless the accumulator has one of the values (a few).
    pub(super) fn require(mut self, values: &[u32]) -> Self {
        for (checks_left, value) in (1..=values.len()).rev().zip(values) {
            // The jump goes over the other checks and the return behind them.
            let skip = u8::try_from(checks_left).unwrap_or(u8::MAX);
            self = self.then([Instruction::new(JEQ_K, skip, 0, *value)]);
        }
        self.then([DROP])
    }

    /// Drops the frame if the accumulator has the value.
    pub(super) fn refuse(self, value: u32) -> Self {
        self.then([Instruction::new(JEQ_K, 0, 1, value), DROP])
    }

    /// Runs the block if the accumulator has the value. The block's last load stays in the accumulator.
    pub(super) fn when(self, value: u32, Self(block): Self) -> Self {
        self.then([Instruction::new(JEQ_K, 1, 0, value), Instruction::skip(block.len())]).then(block)
    }

    /// Passes the frame if the accumulator is in one of the ranges.
    pub(super) fn pass_within(self, ranges: &Ranges) -> Self {
        self.then(search(ranges.as_slice()))
    }

    /// Returns the program that drops all remaining frames.
    pub(super) fn drop_rest(self) -> Vec<Instruction> {
        self.then([DROP]).0
    }

    /// Returns the program that passes all remaining frames.
    pub(super) fn pass_rest(self) -> Vec<Instruction> {
        self.then([PASS]).0
    }

    fn then(mut self, instructions: impl IntoIterator<Item = Instruction>) -> Self {
        self.0.extend(instructions);
        self
    }
}

/// Returns instructions that pass the frame if the accumulator is in one of the sorted ranges; otherwise the program
/// goes on behind them.
fn search(ranges: &[(u32, u32)]) -> Vec<Instruction> {
    match ranges {
        [] => Vec::new(),
        [(first, last)] => vec![Instruction::new(JGE_K, 0, 2, *first), Instruction::new(JGT_K, 1, 0, *last), PASS],
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let (boundary, low, high) = (high[0].0, search(low), search(high));
            let mut program = vec![Instruction::new(JGE_K, 0, 1, boundary), Instruction::skip(low.len() + 1)];
            program.extend(low);
            program.push(Instruction::skip(high.len()));
            program.extend(high);
            program
        }
    }
}
