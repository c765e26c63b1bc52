//! The word of a slot in the flow table: whose it is, how far, since when, and whether somebody is at work on it.
//!
//! Called by [`crate::flow`], and by the daemon, which looks for refused flows. 32 bits of tag, 8 of phase, 24 of time.

/// Nanoseconds of one unit of time, as a power of two: about half a second.
const UNIT: u32 = 29;
/// Bits of time; it comes round after 104 days, and what is that old seems young for a moment, which loses nothing.
const TIME: u32 = 0x00ff_ffff;
/// Somebody is at work on the entry.
const CLAIMED: u64 = 0x80 << 24;
/// Units for which a flow is kept that awaits the rest of a hello, or is refused: 10 s, for which servers wait for a hello. What
/// expires is taken over only when its slot is needed.
const LIFETIME: u32 = 19;

/// Units for which a flow that awaits the rest of a hello, or is refused, is given up for nothing: 2 s, in which a client repeats what was
/// lost, and the daemon has looked for its socket.
const GRACE: u32 = 4;
/// Whatever was begun by one segment without a SYN, by its worth.
const LOOSE: u32 = 1 << 26;
/// Whatever has had its hello accepted, and is remembered in case that the server has not taken it.
const PASSED: u32 = 1 << 25;
/// Whatever has shown its SYN alone.
const OPENED: u32 = 1 << 24;
/// Units after which everything that passed before has long been with the server: half a second at least.
const SETTLED: u32 = 2;

/// Units after which nothing is held to be part of a flow: 64 s, since servers wait for a hello for up to a minute, and who waits as
/// long as they do must not find his flow forgotten.
const MEMORY: u32 = 120;

/// How far a flow is.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No flow.
    Free = 0,
    /// Its SYN has been seen, or what may be the beginning of its hello.
    Opened = 1,
    /// Part of its hello has been inspected.
    Awaiting = 2,
    /// Its hello was refused; the server's socket does not know yet.
    Refused = 3,
    /// Its hello was refused, and the server's socket was sent a reset.
    Ended = 4,
    /// As [`Phase::Awaiting`], of a flow whose SYN was not seen: anybody may have made it up by one segment.
    Loose = 5,
    /// Its hello was accepted. Should the server not have taken it, nothing else comes in its place.
    Passed = 6,
}

impl Phase {
    /// The phase with this number; what has none is free.
    #[inline(always)]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Opened,
            2 => Self::Awaiting,
            3 => Self::Refused,
            4 => Self::Ended,
            5 => Self::Loose,
            6 => Self::Passed,
            _ => Self::Free,
        }
    }

    /// Whether a hello, or more of it, is to come.
    #[inline(always)]
    pub const fn awaits(self) -> bool {
        matches!(self, Self::Opened | Self::Awaiting | Self::Loose)
    }

    /// Whether its hello was refused.
    #[inline(always)]
    pub const fn is_refused(self) -> bool {
        matches!(self, Self::Refused | Self::Ended)
    }
}

/// The word of a flow that has just got this far.
#[inline(always)]
pub const fn word(hash: u64, phase: Phase, now: u64) -> u64 {
    (hash & !0xffff_ffff) | (phase as u64) << 24 | ((now >> UNIT) as u32 & TIME) as u64
}

/// The same while somebody is at work.
#[inline(always)]
pub const fn claimed(word: u64) -> u64 {
    word | CLAIMED
}

/// Whether somebody is.
#[inline(always)]
pub const fn is_claimed(word: u64) -> bool {
    word & CLAIMED != 0
}

/// How far the flow is.
#[inline(always)]
pub const fn phase(word: u64) -> Phase {
    Phase::from_number((word >> 24) as u8 & 0x7f)
}

/// Whether the slot holds the flow with this hash, going by the tag.
#[inline(always)]
pub const fn is(word: u64, hash: u64) -> bool {
    (word ^ hash) >> 32 == 0 && word as u32 != 0
}

/// Units since the flow got this far. A clock that lags by a tick shows none.
#[inline(always)]
const fn age(word: u64, now: u64) -> u32 {
    let age = ((now >> UNIT) as u32).wrapping_sub(word as u32) & TIME;
    if age > TIME / 2 { 0 } else { age }
}

/// Whether the flow is kept for its own sake no longer.
#[inline(always)]
pub const fn is_expired(word: u64, now: u64) -> bool {
    age(word, now) > LIFETIME
}

/// Whether a segment is no longer held to be part of the flow.
#[inline(always)]
pub const fn is_forgotten(word: u64, now: u64) -> bool {
    age(word, now) > MEMORY
}

/// Whether whatever passed of the flow has long been with the server.
#[inline(always)]
pub const fn is_settled(word: u64, now: u64) -> bool {
    age(word, now) >= SETTLED
}

/// Units since something got this far that has long been with the server; 0: it has not. What is free is older than everything.
#[inline(always)]
pub const fn age_of_settled(word: u64, now: u64) -> u32 {
    if word == 0 {
        return u32::MAX;
    }
    if is_settled(word, now) { age(word, now) } else { 0 }
}

/// The same flow, as old, in another phase.
#[inline(always)]
pub const fn with_phase(word: u64, phase: Phase) -> u64 {
    (word & !(0xff << 24)) | (phase as u64) << 24
}

/// Nanoseconds since the flow got this far, at least.
pub const fn settled_for(word: u64, now: u64) -> u64 {
    (age(word, now).saturating_sub(1) as u64) << UNIT
}

/// How gladly the slot is given to another flow; 0: not at all.
#[inline(always)]
pub const fn worth(word: u64, now: u64) -> u32 {
    if word == 0 {
        return u32::MAX;
    }
    if is_claimed(word) {
        return 0;
    }
    if is_expired(word, now) {
        return u32::MAX - 1;
    }
    let age = age(word, now);
    match phase(word) {
        Phase::Loose => LOOSE + age,
        Phase::Passed => PASSED + age,
        Phase::Opened => OPENED + age,
        Phase::Free | Phase::Awaiting | Phase::Refused | Phase::Ended => {
            if age > GRACE {
                age
            } else {
                0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_word_says_what_was_put_into_it() {
        let made = word(0x1234_5678_9abc_def0, Phase::Awaiting, 50 * SECOND);
        assert_eq!(phase(made), Phase::Awaiting);
        assert_eq!(phase(claimed(made)), Phase::Awaiting);
        assert!(is_claimed(claimed(made)) && !is_claimed(made));
        assert!(is(made, 0x1234_5678_0000_0000) && !is(made, 0x1234_5679_0000_0000));
        assert!(!is(0, 0), "a free slot is nobody's, whatever the tag");
    }

    #[test]
    fn free_slots_go_first_then_expired_ones_then_the_oldest_without_a_syn_then_accepted_ones_then_syns() {
        let now = 1_000 * SECOND;
        let at = |phase, age: u64| worth(word(7 << 32, phase, now - age * SECOND), now);
        assert!(worth(0, now) > at(Phase::Refused, 12));
        assert!(at(Phase::Refused, 12) > at(Phase::Loose, 5));
        assert!(at(Phase::Loose, 5) > at(Phase::Loose, 1));
        assert!(at(Phase::Loose, 0) > at(Phase::Passed, 9));
        assert!(at(Phase::Passed, 5) > at(Phase::Passed, 1));
        assert!(at(Phase::Passed, 0) > at(Phase::Opened, 9));
        assert!(at(Phase::Opened, 5) > at(Phase::Opened, 1));
        assert!(at(Phase::Opened, 0) > 0);
        assert!(at(Phase::Opened, 0) > at(Phase::Awaiting, 9));
        assert!(at(Phase::Awaiting, 9) > at(Phase::Refused, 5));
        for phase in [Phase::Awaiting, Phase::Refused, Phase::Ended] {
            assert!(at(phase, 4) > 0);
            assert_eq!(at(phase, 2), 0);
        }
        assert_eq!(worth(claimed(word(7 << 32, Phase::Opened, 0)), now), 0);
    }

    #[test]
    fn a_clock_that_lags_makes_nothing_old() {
        let early = word(7 << 32, Phase::Awaiting, 100 * SECOND);
        assert!(!is_expired(early, 99 * SECOND));
        assert_eq!(settled_for(early, 99 * SECOND), 0);
        assert!(settled_for(early, 104 * SECOND) > 2 * SECOND);
    }
}
