//! Bytes of bodies that are held to be judged, or to be encrypted, of all workers, and how many may be.
//!
//! A body that is read before its request is forwarded takes room with every piece, and gives it back when nobody has its bytes any
//! more: refused, or written to a server. Beyond the bound a request is refused.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use prometheus::IntGauge;

/// The bytes that all have taken.
#[derive(Debug)]
pub struct Held {
    bytes: AtomicU64,
    gauge: IntGauge,
}

impl Held {
    /// None yet; `gauge` shows how many they are.
    pub const fn new(gauge: IntGauge) -> Self {
        Self { bytes: AtomicU64::new(0), gauge }
    }

    fn take(&self, bytes: u64, most: u64) -> bool {
        let within = |all: u64| all.checked_add(bytes).filter(|all| *all <= most);
        let taken = self.bytes.try_update(Relaxed, Relaxed, within).is_ok();
        if taken {
            self.gauge.add(bytes.cast_signed());
        }
        taken
    }

    fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
        self.gauge.sub(bytes.cast_signed());
    }
}

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
    pub(crate) fn take(&mut self, bytes: u64) -> bool {
        let taken = self.held.take(bytes, self.most);
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    /// The bytes that it was taken for, which give it back with the last of their clones, if nobody else has it.
    pub(super) fn keep(room: &Arc<Self>, bytes: Bytes) -> Bytes {
        if bytes.is_empty() { bytes } else { Bytes::from_owner(Kept { bytes, _room: Arc::clone(room) }) }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.held.give_back(self.bytes);
    }
}

struct Kept {
    bytes: Bytes,
    _room: Arc<Room>,
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
        let gauge = IntGauge::new("held", "held").unwrap();
        let held = Arc::new(Held::new(gauge.clone()));
        let (mut one, mut other) = (Room::new(&held, 10), Room::new(&held, 10));
        assert!(one.take(4) && one.take(3));
        assert_eq!(gauge.get(), 7);
        assert!(!other.take(4) && other.take(3) && !other.take(1));
        let bytes = Room::keep(&Arc::new(one), Bytes::from_static(b"1234567"));
        let part = bytes.slice(2..3);
        drop(bytes);
        assert!(!other.take(1), "a part of it is still there");
        drop(part);
        assert!(other.take(7) && !other.take(u64::MAX));
        drop(other);
        assert_eq!((held.bytes.load(Relaxed), gauge.get()), (0, 0));
    }
}
