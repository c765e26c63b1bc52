//! Samples of packets that were not passed on as they came: what the program writes into a ring buffer for the daemon.
//!
//! A record is an [`Event`], followed by the frame's first bytes. How many are written is bounded per CPU by [`Budget`], so
//! that no flood keeps the daemon busy. What is not sampled is counted like everything else.

use crate::{
    gcra::{self, Rate},
    reason::{DropReason, PassReason},
};

/// Bytes of a frame that a sample holds: all headers, and the beginning of what they carry.
pub const HEAD: usize = 128;
/// Bytes of a frame that a sample holds if somebody should read the ClientHello in it: hellos with post-quantum keys have
/// up to 2,000 bytes, in segments of 1,500.
pub const WHOLE: usize = 2_048;

/// Bits of [`Event::flags`].
pub mod flag {
    /// The reason is under a dry run: the packet went on to the next step.
    pub const WOULD_DROP: u32 = 1 << 0;
}

/// What is known of a sampled packet. Host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// When it was judged: nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// The index of the interface that it came in by.
    pub interface: u32,
    /// The CPU that judged it.
    pub cpu: u32,
    /// The number of the reason.
    pub reason: u32,
    /// See [`flag`].
    pub flags: u32,
    /// Length of the frame in bytes.
    pub length: u32,
    /// How many of these follow.
    pub captured: u32,
}

const _: () = assert!(size_of::<Event>() == 32);

impl Event {
    /// A record as it comes out of the ring buffer, and the frame's bytes in it; `None` if it is none.
    pub fn read(record: &[u8]) -> Option<(Self, &[u8])> {
        let (head, bytes) = record.split_first_chunk::<{ size_of::<Self>() }>()?;
        let (time, words) = head.split_first_chunk::<8>()?;
        let word = |index: usize| {
            let bytes = words.get(index * 4..)?.first_chunk::<4>()?;
            Some(u32::from_ne_bytes(*bytes))
        };
        let event = Self {
            time: u64::from_ne_bytes(*time),
            interface: word(0)?,
            cpu: word(1)?,
            reason: word(2)?,
            flags: word(3)?,
            length: word(4)?,
            captured: word(5)?,
        };
        // Behind these the record holds whatever the buffer held before.
        Some((event, bytes.get(..event.captured as usize)?))
    }
}

/// Whether a sample for this reason holds [`WHOLE`] instead of [`HEAD`] bytes: those for which a hello was looked
/// at, or what came in its place.
#[inline(always)]
pub const fn shows_hello(reason: u32) -> bool {
    reason == DropReason::TlsVersion as u32
        || reason == DropReason::MalformedHello as u32
        || reason == DropReason::NotHello as u32
        || reason == DropReason::BadChecksum as u32
        || reason == DropReason::HelloLimit as u32
        || reason == DropReason::HelloAhead as u32
        || reason == DropReason::HelloName as u32
        || reason == DropReason::HelloUnlisted as u32
        || reason == DropReason::HelloFingerprint as u32
        || reason == PassReason::HelloPoisoned as u32
}

/// What one CPU may still sample, and what became of the packets that it could have sampled.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// State of the rate, see [`crate::gcra`].
    pub tat: u64,
    /// Written.
    pub sampled: u64,
    /// Not written, because the rate was used up.
    pub over: u64,
    /// Not written, because the daemon had not read what was written before.
    pub full: u64,
}

impl Budget {
    /// Charges one sample; `false`: the rate is used up, which is counted.
    #[inline(always)]
    pub fn take(&mut self, now: u64, rate: Rate) -> bool {
        match self.next(now, rate) {
            Ok(tat) => {
                self.tat = tat;
                true
            }
            Err(_) => {
                self.over += 1;
                false
            }
        }
    }

    /// Whether the rate is used up, which is counted; `false`: nothing is charged yet, see [`Budget::take`].
    #[inline(always)]
    pub fn refuses(&mut self, now: u64, rate: Rate) -> bool {
        let refused = self.next(now, rate).is_err();
        self.over += refused as u64;
        refused
    }

    #[inline(always)]
    fn next(&self, now: u64, rate: Rate) -> Result<u64, u64> {
        gcra::step(gcra::settle(self.tat, now, rate), now, rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: Event, bytes: &[u8]) -> Vec<u8> {
        let Event { time, interface, cpu, reason, flags, length, captured } = event;
        let words = [interface, cpu, reason, flags, length, captured].map(u32::to_ne_bytes);
        [&time.to_ne_bytes()[..], words.as_flattened(), bytes].concat()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let event =
            Event { time: 1 << 40, interface: 2, cpu: 3, reason: 78, flags: 1, length: 60, captured: 4 };
        let written = record(event, &[9, 8, 7, 6, 0xee, 0xee]);
        assert_eq!(Event::read(&written), Some((event, &[9, 8, 7, 6][..])));
        assert_eq!(Event::read(&record(Event { captured: 7, ..event }, &[0; 6])), None);
        assert_eq!(Event::read(&written[..31]), None);
    }

    #[test]
    fn samples_of_hellos_are_whole() {
        use DropReason::*;
        let whole = DropReason::ALL.iter().filter(|reason| shows_hello(**reason as u32));
        let mut whole: Vec<&str> = whole.map(|reason| reason.label()).collect();
        whole.sort_unstable();
        let mut expected = [
            TlsVersion,
            MalformedHello,
            NotHello,
            BadChecksum,
            HelloLimit,
            HelloAhead,
            HelloName,
            HelloUnlisted,
            HelloFingerprint,
        ]
        .map(DropReason::label);
        expected.sort_unstable();
        assert_eq!(whole, expected);
    }

    #[test]
    fn the_budget_ends_and_says_so() {
        let mut budget = Budget::default();
        let rate = Rate::per_second(1, 2);
        let taken: Vec<bool> = (0..4).map(|_| budget.take(1_000, rate)).collect();
        assert_eq!((taken, budget.over), (vec![true, true, false, false], 2));
        assert!(budget.refuses(1_000_000_999, rate));
        assert!(!budget.refuses(1_000_001_000, rate) && !budget.refuses(1_000_001_000, rate));
        assert_eq!(budget.over, 3, "what is not refused is not counted");
        assert!(budget.take(1_000_001_000, rate) && !budget.take(1_000_001_000, rate));
    }
}
