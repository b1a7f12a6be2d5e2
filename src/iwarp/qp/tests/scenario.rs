//! What a random run consists of.

use proptest::prelude::*;

use super::super::FirstFrame;
use crate::work::{MAX_INLINE, MAX_SGE, Opcode, flags};

#[derive(Clone, Debug)]
pub(super) struct Op {
    pub(super) opcode: Opcode,
    pub(super) lens: Vec<usize>,
    pub(super) flags: u32,
    pub(super) imm: u32,
}

impl Op {
    pub(super) fn len(&self) -> usize {
        self.lens.iter().sum()
    }

    pub(super) fn consumes_receive(&self) -> bool {
        !matches!(self.opcode, Opcode::Write | Opcode::Read)
    }

    pub(super) fn writes(&self) -> bool {
        matches!(self.opcode, Opcode::Write | Opcode::WriteImm)
    }
}

fn op(longest: usize) -> impl Strategy<Value = Op> {
    let opcode = prop::sample::select(vec![
        Opcode::Send,
        Opcode::SendImm,
        Opcode::SendInvalidate,
        Opcode::Write,
        Opcode::WriteImm,
        Opcode::Read,
    ]);
    let len = prop_oneof![Just(0), 1..40usize, 1..longest];
    (opcode, prop::collection::vec(len, 0..=MAX_SGE), 0..=flags::ALL, any::<u32>()).prop_map(
        |(opcode, lens, flags, imm)| {
            let mut op = Op { opcode, lens, flags, imm };
            if op.opcode == Opcode::Read || op.len() > MAX_INLINE {
                op.flags &= !flags::INLINE;
            }
            op
        },
    )
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) ops: [Vec<Op>; 2],
    pub(super) seed: u64,
    pub(super) crc: bool,
    pub(super) max_ulpdu: usize,
    pub(super) resources: (usize, usize),
    /// Library-owned receive buffers, for each end; 0 = the caller's.
    pub(super) managed: [usize; 2],
    pub(super) depth: usize,
    pub(super) first_frame: FirstFrame,
    /// Longest piece the pipe carries at a time.
    pub(super) chunk: usize,
    /// One in so many turns posts a receive.
    pub(super) late: usize,
}

pub(super) fn scenario(
    longest: usize,
    ulpdus: impl Strategy<Value = usize>,
) -> impl Strategy<Value = Scenario> {
    let ops = || prop::collection::vec(op(longest), 0..24);
    let chunk = prop_oneof![Just(1), 2..9usize, 10..3000usize, Just(1 << 20)];
    let first_frame = prop::sample::select(vec![FirstFrame::SendWrite, FirstFrame::SendRead]);
    (
        ([ops(), ops()], any::<u64>(), any::<bool>(), ulpdus, (1..=16usize, 1..=16usize)),
        ([0..5usize, 0..5usize], 1..20usize, first_frame, chunk, 1..40usize),
    )
        .prop_map(
            move |((ops, seed, crc, max_ulpdu, resources), (managed, depth, first_frame, chunk, late))| {
                let chunk = if longest > 1000 { chunk.max(500) } else { chunk };
                Scenario { ops, seed, crc, max_ulpdu, resources, managed, depth, first_frame, chunk, late }
            },
        )
}
