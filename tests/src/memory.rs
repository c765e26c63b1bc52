//! A frame in plain memory that can be overwritten.

use enforcer_common::packet::{Packet, PacketMut};

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
