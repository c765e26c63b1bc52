//! What the flow table keeps of one flow, and which of its beginnings is followed.

use super::{Ends, WINDOW, slot::Phase};
use crate::hello::automaton::Parser;

/// What is known of one flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub ends: Ends,
    /// The first sequence number that has not been inspected; of a refused flow, the one that the server expects.
    pub next: u32,
    /// Where the hello begins.
    pub start: u32,
    /// Of a refused flow: the sequence number behind the answer that the client was given.
    pub value: u32,
    /// Of a hello that has been accepted, how many of its bytes decided that; else 0.
    pub(super) accepted: u32,
    /// The parser between two segments.
    pub parser: Parser,
    /// Where another SYN says that the hello begins, if [`others::ONE`] is set.
    pub(super) other: u32,
    /// Whether the flow's SYN was not seen, so that nothing says that it begins where it seems to.
    pub(super) loose: u16,
    /// See [`others`].
    pub(super) others: u16,
    /// Bytes of the hello that have passed, see [`super::kept`]. Of one that has been accepted, those of them that can be compared, and no more than
    /// decided; 0: it was whole in one segment, and nothing was kept.
    pub(super) passed: u32,
    /// The same as `passed` of the other beginning.
    pub(super) passed_other: u32,
    /// The same as `accepted` of the other beginning.
    pub(super) accepted_other: u32,
    reserved: u32,
}

/// What other beginnings a flow has had.
pub(super) mod others {
    /// There is another one.
    pub(crate) const ONE: u16 = 1;
    /// What came at it was refused: nothing goes on there, and nothing begins.
    pub(crate) const DEAD: u16 = 2;
}

const _: () = assert!(size_of::<Entry>() == 256);

impl Entry {
    pub(super) const TURNED: u32 = 1;
    pub(super) const REACHES: u32 = 2;
    /// See [`Entry::settle`].
    pub(super) const AGAIN: u32 = 4;
    pub(super) const BITS: u32 = 3;

    /// Data of a flow that awaits its hello, or has had it accepted: whether it begins or goes on at the other beginning, where it is followed from
    /// now on, and whether it lies behind the one that is left. In numbers, for a function that the verifier checks by itself.
    pub fn meet(&mut self, sequence: u32, length: u32) -> u32 {
        if length == 0 || self.others & others::ONE == 0 {
            return 0;
        }
        let mut found = 0;
        let dead = self.others & others::DEAD != 0;
        if !dead && (sequence == self.other || self.goes_on_elsewhere(sequence)) {
            self.turn();
            found = Self::TURNED;
        }
        if self.reaches_other(sequence, length) { found | Self::REACHES } else { found }
    }

    /// What becomes of a flow after a segment of its hello; `how` has a bit each for one that lies behind the other beginning, one that
    /// passes, and one that does not stand in place of a hello that was accepted; above them, of a hello that is accepted, how many of its bytes
    /// decided.
    pub fn settle(&mut self, how: u32) {
        let (reaches, passes, again) = (how & 1 != 0, how & 2 != 0, how & Self::AGAIN != 0);
        let decided = how >> Self::BITS;
        if (self.others != 0 || again) && (reaches || !passes) {
            // What does not pass may be forged, so that the connection itself waits as it did. What passed and lies behind the other
            // beginning would be taken for the beginning of a hello, should the server begin there.
            self.begin(self.start, self.passed);
        } else if decided != 0 {
            self.accept(decided);
        }
    }

    /// The hello has been accepted by its first `decided` bytes. Should the server not have taken it, nothing else comes in its place; if
    /// another one is awaited at the other beginning, that is followed.
    #[inline(always)]
    fn accept(&mut self, decided: u32) {
        self.accepted = decided;
        if self.passed > decided {
            self.passed = decided;
        }
        self.next = self.start.wrapping_add(self.passed);
        if self.others == others::ONE && self.accepted_other == 0 {
            self.turn();
        }
    }

    /// The segment that has just been the first at a beginning did not pass after all.
    #[inline(always)]
    pub(super) fn undo(&mut self, start: u32) {
        if start == self.start {
            self.accepted = 0;
            self.begin(start, 0);
        } else if start == self.other {
            self.accepted_other = 0;
            self.passed_other = 0;
        }
    }

    /// What came at this beginning was refused, and there has been a SYN at another one: it is followed there.
    #[inline(always)]
    pub(super) fn outlive(&mut self, start: u32) {
        self.other = self.next;
        self.passed_other = 0;
        self.accepted_other = 0;
        self.others = others::ONE | others::DEAD;
        self.loose = 0;
        self.accepted = 0;
        self.begin(start, 0);
    }

    /// Notes a SYN at another beginning; `false`: there are two already.
    #[inline(always)]
    pub(super) fn begins_at(&mut self, other: u32) -> bool {
        if self.others & others::ONE != 0 {
            return false;
        }
        self.other = other;
        self.passed_other = 0;
        self.accepted_other = 0;
        self.others = others::ONE;
        if self.accepted != 0 {
            self.turn();
        }
        true
    }

    /// Whether a SYN is one of those that are known.
    #[inline(always)]
    pub(super) const fn knows(&self, start: u32) -> bool {
        start == self.start || (self.others == others::ONE && start == self.other)
    }

    /// Whether data lies behind the other beginning, at whose first byte nothing has been followed; behind a hello that was accepted there it may.
    #[inline(always)]
    const fn reaches_other(&self, sequence: u32, length: u32) -> bool {
        let before = self.other.wrapping_sub(sequence);
        if self.accepted_other != 0 {
            // Nobody's bytes are part of two hellos.
            return before.wrapping_neg() < self.accepted_other || before < length;
        }
        // Of what was refused nothing is repeated either: it has been forgotten.
        let dead = self.others & others::DEAD != 0 && before <= WINDOW;
        let end = length.wrapping_sub(before);
        dead || (end != 0 && end <= WINDOW + length)
    }

    /// The two beginnings change places. The parser forgets what it has read, and is reminded when that is needed.
    #[inline(always)]
    fn turn(&mut self) {
        let (start, passed, accepted) = (self.other, self.passed_other, self.accepted_other);
        self.other = self.start;
        self.passed_other = self.passed;
        self.accepted_other = self.accepted;
        self.accepted = accepted;
        self.loose = 0;
        self.begin(start, passed);
    }

    /// Whether data goes on where the other beginning's ended, or repeats what was accepted there, and not where this one's did.
    #[inline(always)]
    const fn goes_on_elsewhere(&self, sequence: u32) -> bool {
        let (here, there) = (sequence.wrapping_sub(self.start), sequence.wrapping_sub(self.other));
        if self.accepted_other != 0 {
            return there < self.accepted_other && (here > self.passed || self.accepted != 0);
        }
        self.passed_other != 0 && there <= self.passed_other && here > self.passed
    }

    /// Is followed from this beginning on, at which so much has passed.
    #[inline(always)]
    pub(super) fn begin(&mut self, start: u32, passed: u32) {
        self.start = start;
        self.next = start;
        self.passed = passed;
        self.parser.reset();
    }

    /// Whether a hello was accepted, and the sequence number lies outside of what decided that.
    #[inline(always)]
    pub(super) const fn is_beyond(&self, sequence: u32) -> bool {
        self.accepted != 0 && sequence.wrapping_sub(self.start) >= self.accepted
    }

    /// Whether all data is beyond, and nothing else is known of the flow.
    #[inline(always)]
    pub fn has_passed(&self, sequence: u32, length: u32) -> bool {
        let before = self.start.wrapping_sub(sequence);
        self.others == 0 && self.is_beyond(sequence) && before >= length
    }

    /// Whether everything that decided has passed and can be compared.
    #[inline(always)]
    pub(super) const fn is_whole(&self) -> bool {
        self.accepted != 0 && self.passed >= self.accepted
    }

    /// Whether what came at the other beginning was refused.
    #[inline(always)]
    pub(super) const fn is_dead_elsewhere(&self) -> bool {
        self.others & others::DEAD != 0
    }

    /// Whether its SYN was not seen.
    #[inline(always)]
    pub const fn is_loose(&self) -> bool {
        self.loose != 0
    }

    /// The phase that goes with it.
    #[inline(always)]
    pub(super) const fn phase(&self) -> Phase {
        if self.loose != 0 {
            Phase::Loose
        } else if self.accepted != 0 {
            Phase::Passed
        } else if self.passed == 0 {
            Phase::Opened
        } else {
            Phase::Awaiting
        }
    }
}
