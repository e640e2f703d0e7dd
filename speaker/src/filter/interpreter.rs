//! A model of the kernel's work on a program: it checks the program, charges for it, and runs it.

use super::program::{
    AD_IFINDEX, AD_PKTTYPE, AD_VLAN_TAG_PRESENT, Instruction, JA, JEQ_K, JGE_K, JGT_K, LD_B_ABS, LD_H_ABS, LD_W_ABS,
    RET_K,
};

/// The facts about a frame that the kernel knows in addition to its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ancillary {
    /// The addressee of the frame (`sll_pkttype`).
    pub packet_type: u8,
    pub tagged: bool,
    /// The index of the interface that receives the frame in the end.
    pub interface: u32,
}

impl Ancillary {
    /// The interface of the segment.
    pub(super) const INTERFACE: u32 = 7;
    pub(super) const HOST: Self = Self { packet_type: 0, tagged: false, interface: Self::INTERFACE };
    pub(super) const BROADCAST: Self = Self { packet_type: 1, tagged: false, interface: Self::INTERFACE };
    pub(super) const MULTICAST: Self = Self { packet_type: 2, tagged: false, interface: Self::INTERFACE };
}

/// Runs a program as the kernel does, for the instructions used here. Returns whether the frame passes.
pub(super) fn run(program: &[Instruction], frame: &[u8], ancillary: Ancillary) -> bool {
    let (mut a, mut pc) = (0_u32, 0_usize);
    loop {
        let Instruction { code, jt, jf, k } = program[pc];
        pc += 1;
        let skip = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LD_W_ABS | LD_H_ABS | LD_B_ABS => {
                a = match k {
                    AD_PKTTYPE => u32::from(ancillary.packet_type),
                    AD_IFINDEX => ancillary.interface,
                    AD_VLAN_TAG_PRESENT => u32::from(ancillary.tagged),
                    _ => {
                        let len = match code {
                            LD_W_ABS => 4,
                            LD_H_ABS => 2,
                            _ => 1,
                        };
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

/// Makes the kernel's checks on a program: every jump lands inside, the last instruction returns (`bpf_check_classic`).
pub(super) fn check(program: &[Instruction]) {
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

/// Returns the maximum number of eBPF instructions that the kernel makes of a program (`bpf_convert_filter`,
/// net/core/filter.c).
pub(super) fn ebpf_len(program: &[Instruction]) -> usize {
    // The kernel first clears registers and loads the frame's bounds.
    let prologue = 8;
    let converted = program.iter().map(|i| match i.code {
        // The kernel converts a load to a check of the bounds, the load, a swap, and a call for bytes beyond the linear
        // part.
        LD_W_ABS | LD_H_ABS | LD_B_ABS => 15,
        JA => 1,
        RET_K => 2,
        // An operand above the largest signed one is loaded first; a jump both ways makes two instructions.
        _ => 1 + usize::from(i.k > i32::MAX as u32) + usize::from(i.jt > 0 && i.jf > 0),
    });
    prologue + converted.sum::<usize>()
}
