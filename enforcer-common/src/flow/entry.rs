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
    /// Whether the flow's SYN was not seen, so that nothing says that it begins where it seems to.
    pub(super) loose: u32,
    /// The parser between two segments.
    pub parser: Parser,
    /// Where another SYN says that the hello begins, if [`others::ONE`] is set.
    pub(super) other: u32,
    /// See [`others`].
    pub(super) others: u32,
    /// Bytes of the hello that have passed, see [`super::kept`].
    pub(super) passed: u32,
    /// How many those were before the last segment that passed.
    pub(super) before: u32,
    /// The same as `passed` of the other beginning.
    pub(super) passed_other: u32,
    reserved: u32,
}

/// What other beginnings a flow has had.
pub(super) mod others {
    /// There is another one.
    pub(crate) const ONE: u32 = 1;
    /// What came at it was refused: nothing goes on there, and nothing begins.
    pub(crate) const DEAD: u32 = 2;
}

const _: () = assert!(size_of::<Entry>() == 256);

impl Entry {
    pub(super) const TURNED: u32 = 1;
    pub(super) const REACHES: u32 = 2;
    pub(super) const DISPUTED: u32 = 1;
    pub(super) const HELD: u32 = 2;
    pub(super) const OPENED: u32 = 4;
    pub(super) const ENDED: u32 = 8;

    /// Data of a flow that awaits its hello: whether it begins or goes on at the other beginning, where it is followed from now on, and whether it
    /// lies behind the one that is left. In numbers, for a function that the verifier checks by itself.
    pub fn meet(&mut self, sequence: u32, length: u32) -> u32 {
        if length == 0 || self.others & others::ONE == 0 {
            return 0;
        }
        let mut found = 0;
        let dead = self.others & others::DEAD != 0;
        if !dead && (sequence == self.other || self.goes_on_elsewhere(sequence)) {
            let start = self.other;
            let passed = self.passed_other;
            self.other = self.start;
            self.passed_other = self.passed;
            self.begin(start, passed);
            self.loose = 0;
            found = Self::TURNED;
        }
        if self.reaches_other(sequence, length) { found | Self::REACHES } else { found }
    }

    /// What becomes of a flow after a segment of its hello; `how` has a bit each for one that lies behind the other beginning, one that
    /// passes, and a flow that is followed on.
    pub fn settle(&mut self, how: u32) -> u32 {
        let (reaches, passes, keep) = (how & 1 != 0, how & 2 != 0, how & 4 != 0);
        if self.others == 0 {
            return 0;
        }
        if reaches || !passes {
            // What does not pass may be forged, so that the connection itself waits as it did. What passed and lies behind the other
            // beginning would be taken for the beginning of a hello, should the server begin there.
            self.begin(self.start, self.passed);
            return Self::DISPUTED | Self::HELD;
        }
        if keep { Self::DISPUTED } else { Self::DISPUTED | self.turn() }
    }

    /// What came at this beginning was refused, and there has been a SYN at another one: it is followed there.
    #[inline(always)]
    pub(super) fn outlive(&mut self, start: u32) {
        self.other = self.next;
        self.passed_other = 0;
        self.others = others::ONE | others::DEAD;
        self.loose = 0;
        self.begin(start, 0);
    }

    /// Notes a SYN at another beginning; `false`: there are two already.
    #[inline(always)]
    pub(super) fn begins_at(&mut self, other: u32) -> bool {
        if self.others & others::ONE != 0 {
            return self.other == other;
        }
        self.other = other;
        self.passed_other = 0;
        self.others = others::ONE;
        true
    }

    /// Whether data lies behind the other beginning, at whose first byte nothing has been followed.
    #[inline(always)]
    const fn reaches_other(&self, sequence: u32, length: u32) -> bool {
        let end = sequence.wrapping_add(length).wrapping_sub(self.other);
        // Of what was refused nothing is repeated either: it has been forgotten.
        let dead = self.others & others::DEAD != 0 && self.other.wrapping_sub(sequence) <= WINDOW;
        dead || (end != 0 && end <= WINDOW + length)
    }

    /// The hello at one beginning has been accepted, and the other one is left.
    #[inline(always)]
    fn turn(&mut self) -> u32 {
        let dead = self.others & others::DEAD != 0;
        self.begin(self.other, self.passed_other);
        self.loose = 0;
        self.others = 0;
        if dead { Self::OPENED | Self::ENDED } else { Self::OPENED }
    }

    /// Whether data goes on where the other beginning's ended, and not where this one's did.
    #[inline(always)]
    const fn goes_on_elsewhere(&self, sequence: u32) -> bool {
        self.passed_other != 0
            && sequence.wrapping_sub(self.other) <= self.passed_other
            && sequence.wrapping_sub(self.start) > self.passed
    }

    /// Is followed from this beginning on, at which so much has passed. The parser has forgotten that, and is reminded when it is needed.
    #[inline(always)]
    pub(super) fn begin(&mut self, start: u32, passed: u32) {
        self.start = start;
        self.next = start;
        self.passed = passed;
        self.before = passed;
        self.parser.reset();
    }

    /// The phase that goes with it.
    #[inline(always)]
    pub(super) const fn phase(&self) -> Phase {
        if self.loose != 0 {
            Phase::Loose
        } else if self.passed == 0 {
            Phase::Opened
        } else {
            Phase::Awaiting
        }
    }
}
