//! The kernel filter that passes neighbour advertisements only, so that a client's traffic wakes no recorder or prober.

use socket2::SockFilter;

use crate::probe::frame::{NEIGHBOUR_ADVERTISEMENT, OFFSET_ICMPV6_TYPE, OFFSET_NEXT_HEADER};

/// BPF_LD | BPF_B | BPF_ABS
const LOAD_BYTE: u16 = 0x30;
/// BPF_JMP | BPF_JEQ | BPF_K
const JUMP_IF_EQUAL: u16 = 0x15;
/// BPF_RET | BPF_K
const RETURN: u16 = 0x06;

const ICMPV6: u32 = 58;
const WHOLE_FRAME: u32 = u32::MAX;

pub(super) fn filter() -> [SockFilter; 6] {
    [
        SockFilter::new(LOAD_BYTE, 0, 0, OFFSET_NEXT_HEADER),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, ICMPV6),
        SockFilter::new(LOAD_BYTE, 0, 0, OFFSET_ICMPV6_TYPE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, u32::from(NEIGHBOUR_ADVERTISEMENT)),
        SockFilter::new(RETURN, 0, 0, WHOLE_FRAME),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
