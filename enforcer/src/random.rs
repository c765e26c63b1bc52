//! Random bytes for what has to be unique and hard to guess, like the ids of requests: a thread draws them for many at once.
//!
//! Never for keys, whose bytes must not lie about before they are needed.

use std::cell::RefCell;

use aws_lc_rs::rand;

/// Bytes that are drawn at once: the generator costs more per call than per byte.
const DRAWN: usize = 1024;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; DRAWN], used: DRAWN }) };
}

struct Pool {
    bytes: [u8; DRAWN],
    /// So many of them were given out.
    used: usize,
}

impl Pool {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        if self.bytes.len().saturating_sub(self.used) < N {
            rand::fill(&mut self.bytes).ok()?;
            self.used = 0;
        }
        let taken = self.bytes.get_mut(self.used..)?.first_chunk_mut::<N>()?;
        self.used += N;
        // Nothing is given out twice, whatever goes wrong.
        Some(std::mem::replace(taken, [0; N]))
    }
}

/// `N` bytes, at most 1,024; `None` if there is no randomness.
pub fn bytes<const N: usize>() -> Option<[u8; N]> {
    POOL.with_borrow_mut(Pool::take)
}

/// Writes bytes as hexadecimal digits, as far as there is room.
pub fn hex(bytes: &[u8], room: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, room) in bytes.iter().zip(room.as_chunks_mut::<2>().0) {
        *room = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_are_given_out_twice() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1_000 {
            assert!(seen.insert(bytes::<16>().unwrap()));
            assert!(seen.insert(bytes::<24>().unwrap()[..16].try_into().unwrap()));
        }
        assert!(bytes::<{ DRAWN + 1 }>().is_none());
        assert_ne!(bytes::<DRAWN>().unwrap(), bytes::<DRAWN>().unwrap());
    }

    #[test]
    fn digits_fill_the_room_that_there_is() {
        let mut room = [b'.'; 5];
        hex(&[0x0f, 0xa0, 0x11], &mut room);
        assert_eq!(&room, b"0fa0.");
    }
}
