//! Bytes of request bodies that are held to be judged, of all workers, and how many may be.
//!
//! A body that is read before its request is forwarded takes room with every piece, and gives it back when nobody has its bytes any
//! more: refused, or written to a server. Beyond the bound a request is refused.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;

/// The bytes that all have taken.
#[derive(Debug, Default)]
pub struct Held(AtomicU64);

/// What one body has taken.
#[derive(Debug)]
pub struct Room {
    held: Arc<Held>,
    most: u64,
    bytes: u64,
}

impl Room {
    /// Nothing yet; `most`: bytes that all may have taken together.
    pub fn new(held: &Arc<Held>, most: u64) -> Self {
        Self { held: Arc::clone(held), most, bytes: 0 }
    }

    /// Takes so many more, if they are there.
    pub(super) fn take(&mut self, bytes: u64) -> bool {
        let Held(held) = &*self.held;
        let taken =
            held.try_update(Relaxed, Relaxed, |all| all.checked_add(bytes).filter(|all| *all <= self.most));
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }

    /// The bytes that it was taken for, which give it back with the last of their clones.
    pub(super) fn keep(self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() { bytes } else { Bytes::from_owner(Kept { bytes, _room: self }) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Held(held) = &*self.held;
        held.fetch_sub(self.bytes, Relaxed);
    }
}

struct Kept {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_there_again_when_the_last_has_gone() {
        let held = Arc::new(Held::default());
        let (mut one, mut other) = (Room::new(&held, 10), Room::new(&held, 10));
        assert!(one.take(4) && one.take(3));
        assert!(!other.take(4) && other.take(3) && !other.take(1));
        let bytes = one.keep(Bytes::from_static(b"1234567"));
        let part = bytes.slice(2..3);
        drop(bytes);
        assert!(!other.take(1), "a part of it is still there");
        drop(part);
        assert!(other.take(7) && !other.take(u64::MAX));
        drop(other);
        assert_eq!(held.0.load(Relaxed), 0);
    }
}
