//! A frame in plain memory that can be overwritten.

use enforcer_common::{
    answer::{self, Answer, Kind},
    packet::{Packet, PacketMut},
    verdict::Verdict,
};

/// Return values of XDP programs (linux/bpf.h).
pub const XDP_DROP: u32 = 1;
/// The frame goes on to the network stack.
pub const XDP_PASS: u32 = 2;
/// The frame goes back out of the interface.
pub const XDP_TX: u32 = 3;

/// What the program makes of a frame: what it returns, and what is left of the frame unless that is dropped.
pub fn carry_out(frame: &[u8], verdict: Verdict, answer: &Answer) -> (u32, Option<Vec<u8>>) {
    let mut memory = Memory(frame.to_vec());
    match (verdict, answer.kind) {
        (Verdict::Pass(_), Kind::None) => (XDP_PASS, Some(memory.0)),
        (Verdict::Drop(_), Kind::None) => (XDP_DROP, None),
        _ if answer::write(&mut memory, answer).is_none() => (XDP_DROP, None),
        (_, kind) => (if kind.goes_on() { XDP_PASS } else { XDP_TX }, Some(memory.0)),
    }
}

/// The frame's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory(pub Vec<u8>);

impl Packet for Memory {
    fn length(&self) -> usize {
        self.0.len()
    }

    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.as_slice().bytes(offset)
    }

    fn first<const N: usize>(&self) -> Option<&[u8; N]> {
        self.0.first_chunk()
    }
}

impl PacketMut for Memory {
    fn resize(&mut self, length: usize) -> Option<()> {
        self.0.resize(length, 0);
        Some(())
    }

    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.0.get_mut(offset..)?.get_mut(..N)?.copy_from_slice(&bytes);
        Some(())
    }
}
