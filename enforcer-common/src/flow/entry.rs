//! What the flow table keeps of one flow, and which of its beginnings is followed.

use super::{Ends, Kind, Opening, Segment, WINDOW, slot, slot::Phase};
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
    /// See [`doubts`].
    doubts: u32,
}

/// What other beginnings a flow has had.
pub(super) mod others {
    /// There is another one.
    pub(crate) const ONE: u16 = 1;
    /// What came at it was refused: nothing goes on there, and nothing begins.
    pub(crate) const DEAD: u16 = 2;
}

/// At which beginning a hello was read to its end and has not been found good by the lists (yet): none of it passes a second time.
mod doubts {
    pub(super) const HERE: u32 = 1;
    pub(super) const THERE: u32 = 2;
}

/// What [`Entry::place`] is told, and says.
pub(super) mod place {
    pub(crate) const REFUSED: u32 = 1;
    /// As [`super::Entry::meet`] says it.
    pub(crate) const REACHES: u32 = 2;
    pub(crate) const ENDED: u32 = 4;
    pub(crate) const OPENS: u32 = 8;
    /// No kind yet: what is repeated is to be compared, and what is new to be read.
    pub(crate) const GOES_ON: u32 = 1 << 8;
    /// Nothing is new.
    pub(crate) const KNOWN: u32 = 1 << 9;
}

/// What [`Entry::weigh`] says.
pub(super) mod weighed {
    pub(crate) const PASSES: u32 = 1;
    pub(crate) const CHANGED: u32 = 2;
    /// The parser begins anew, the flow waits as it did.
    pub(crate) const HELD: u32 = 4;
    /// It was good, and does not pass.
    pub(crate) const BACK: u32 = 8;
    pub(crate) const KEPT: u32 = 16;
    pub(crate) const FORGOTTEN: u32 = 32;
    /// The flow is followed on, and has just got further.
    pub(crate) const FOLLOWED: u32 = 64;
    /// It is, and is as old as before.
    pub(crate) const STAYS: u32 = 128;
    pub(crate) const DISPUTED: u32 = 256;
    pub(crate) const FIRST: u32 = 512;
    /// What is accepted is to be compared with lists.
    pub(crate) const LISTS: u32 = 1024;
    /// From this bit on: of a hello that is accepted, how many of its bytes decided.
    pub(crate) const BITS: u32 = 11;
}

/// What [`Entry::take_up`] says, in place of a phase.
pub(super) const DISPUTED: u32 = 1 << 8;
/// Beside a phase: what was kept at the beginning is to be forgotten.
pub(super) const FORGET: u32 = 1 << 9;

const _: () = assert!(size_of::<Entry>() == 256);

impl Entry {
    pub(super) const TURNED: u32 = 1;

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
        if self.reaches_other(sequence, length) { found | place::REACHES } else { found }
    }

    /// What a segment is by its place: the number of a [`Kind`], or what [`place`] says.
    pub fn place(&self, sequence: u32, length: u32, how: u32) -> u32 {
        let inspected = self.next.wrapping_sub(sequence);
        let ahead = (inspected as i32) < 0;
        let far = inspected.wrapping_add(WINDOW) > 2 * WINDOW;
        if how & (place::REFUSED | place::ENDED) != 0 {
            // A SYN says nothing of where the connection is. What else is far is of another one, or a decoy.
            return if far && how & place::OPENS == 0 {
                Kind::Elsewhere as u32
            } else if how & place::REFUSED != 0 {
                Kind::Refusal as u32
            } else {
                Kind::Ended as u32
            };
        }
        let (first, loose) = (self.passed == 0, self.loose != 0);
        let reaches = how & place::REACHES != 0;
        let behind = inspected >= length;
        let front = self.start.wrapping_sub(sequence);
        if !loose && front != 0 && front < length {
            // No client sends what lies in front of where it began: whoever does has begun elsewhere, or the server reads none of it.
            return Kind::Ahead as u32;
        }
        let beyond = self.is_beyond(sequence);
        if reaches && (ahead || far || behind || beyond) {
            let dead = beyond && self.others & others::DEAD != 0;
            return if dead { Kind::Ended as u32 } else { Kind::Ahead as u32 };
        }
        // The second: a keep-alive probe (RFC 9293 section 3.8.4), whose byte nobody reads.
        if beyond || (length == 1 && front == 1 && !loose) {
            return Kind::Behind as u32;
        }
        if ahead && !far {
            // Of a flow without its SYN the hello may begin elsewhere: nobody is held back on a guess.
            return if loose { Kind::Unknown as u32 } else { Kind::Ahead as u32 };
        }
        if far || (first && behind) {
            // Of a connection that was there before a SYN was forged, or of a beginning that has been forgotten.
            return Kind::Elsewhere as u32;
        }
        if self.is_whole() && self.doubts & doubts::HERE != 0 {
            return Kind::Changed as u32;
        }
        if behind || self.is_whole() { place::GOES_ON | place::KNOWN } else { place::GOES_ON }
    }

    /// What is to be done about a segment that has been read, whose kind is in the lowest byte of `how`; above it a bit each for the first one, one that
    /// lies behind the other beginning, and a hello that was read to its end. See [`weighed`].
    pub fn weigh(&self, how: u32, decided: u32) -> u32 {
        let (part, accepted) = (how & 0xff == Kind::Part as u32, how & 0xff == Kind::Accepted as u32);
        let (first, reaches, whole) = (how & 1 << 8 != 0, how & 1 << 9 != 0, how & 1 << 10 != 0);
        let (loose, disputed, again) = (self.loose != 0, self.others != 0, self.accepted != 0);
        let passes = part || accepted;
        let late = decided > self.accepted || (part && decided == self.accepted);
        if again && (!passes || reaches || late) {
            // In place of a good hello comes none, or one that is decided later: what lies beyond has not been held back.
            return weighed::CHANGED | weighed::HELD | weighed::STAYS;
        }
        let held = disputed && (reaches || !passes);
        let accepts = accepted && (!loose || (disputed && !whole));
        // Of a flow without its SYN no refusal is stored: its parser stays where it ended, and says the same of what is repeated. A hello that
        // was read to its end may yet be refused.
        let keep = accepts || part || (loose && (!accepted || whole));
        let mut found = 0;
        if passes {
            found |= weighed::PASSES;
        }
        if held {
            // What does not pass may be forged, so that the connection itself waits as it did. What passed and lies behind the other
            // beginning would be taken for the beginning of a hello, should the server begin there.
            found |= weighed::HELD | weighed::STAYS;
            if passes {
                found |= weighed::BACK;
            }
        } else if passes && (part || (!first && accepts)) {
            found |= weighed::KEPT;
        } else if !first && !keep {
            found |= weighed::FORGOTTEN;
        }
        if again {
            found |= weighed::STAYS;
        } else if keep {
            found |= weighed::FOLLOWED;
        }
        if disputed || again {
            // In place of an accepted hello nothing ends a connection.
            found |= weighed::DISPUTED;
        }
        if first && !again {
            found |= weighed::FIRST;
        }
        if whole {
            found |= weighed::LISTS;
        }
        if accepts && !held { found | decided << weighed::BITS } else { found }
    }

    /// Does so; answers the number of the phase that the flow is in then.
    pub fn settle(&mut self, found: u32) -> u32 {
        let decided = found >> weighed::BITS;
        if found & weighed::HELD != 0 {
            self.begin(self.start, self.passed);
        } else if decided != 0 {
            self.accept(decided, found & weighed::LISTS != 0);
        }
        self.phase() as u32
    }

    /// What a segment with which a flow is taken up makes of what is known: the number of the phase that it is in then, with [`FORGET`]; or
    /// [`DISPUTED`]. `word` is the slot's, or 0 if it held another flow.
    pub fn take_up(&mut self, segment: &Segment, opening: &Opening, word: u64) -> u32 {
        let live = word != 0
            && opening.begins
            && !slot::is_forgotten(word, segment.now)
            && self.ends.are(&segment.ends);
        // A beginning that was made up says nothing of a connection that begins now.
        let made_up = slot::phase(word) as u32 == Phase::Loose as u32;
        if !live || made_up || (opening.value == Opening::FRESH && slot::is_settled(word, segment.now)) {
            self.ends = segment.ends;
            self.value = opening.value;
            self.loose = !opening.begins as u16;
            self.others = 0;
            self.accepted = 0;
            self.doubts = 0;
            self.begin(opening.next, 0);
            return opening.phase as u32;
        }
        if slot::phase(word).is_refused() {
            self.outlive(opening.next);
        } else if opening.value == Opening::ANEW {
            self.undo(opening.next);
            // Nothing had passed before.
            return self.phase() as u32 | FORGET;
        } else if !self.knows(opening.next) && !self.begins_at(opening.next) {
            // Which one the server took is not known, and a third one could not be told from either.
            return DISPUTED;
        }
        // Of a SYN that comes again, what has been inspected since stays inspected, or the rest would seem to be ahead. It may begin now, so the
        // flow counts as new.
        self.phase() as u32
    }

    /// The hello has been accepted by its first `decided` bytes. Should the server not have taken it, nothing else comes in its place; if
    /// another one is awaited at the other beginning, that is followed.
    #[inline(always)]
    fn accept(&mut self, decided: u32, lists: bool) {
        self.accepted = decided;
        self.doubts &= !doubts::HERE;
        if lists {
            self.doubts |= doubts::HERE;
        }
        if self.passed > decided {
            self.passed = decided;
        }
        self.next = self.start.wrapping_add(self.passed);
        if self.others == others::ONE && self.accepted_other == 0 {
            self.turn();
        }
    }

    /// The lists let the hello pass whose last part came with this number.
    pub(super) const fn confirm(&mut self, sequence: u32) {
        if sequence.wrapping_sub(self.start) < self.accepted {
            self.doubts &= !doubts::HERE;
        } else if sequence.wrapping_sub(self.other) < self.accepted_other {
            self.doubts &= !doubts::THERE;
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
        self.doubts = 0;
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
        self.doubts &= doubts::HERE;
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
        self.doubts = (self.doubts & doubts::HERE) << 1 | (self.doubts & doubts::THERE) >> 1;
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
    ///
    /// Urgent data in front of the hello is not: the byte that it calls urgent may lie up to 65,535 behind its first one (RFC 9293 section 3.1),
    /// and servers leave that one out.
    pub fn has_passed(&self, sequence: u32, length: u32, urgent: bool) -> bool {
        let before = self.start.wrapping_sub(sequence);
        let points = urgent && before != 0 && before <= WINDOW;
        !points && self.others == 0 && self.is_beyond(sequence) && before >= length
    }

    /// Whether everything that decided has passed and can be compared.
    #[inline(always)]
    pub(super) const fn is_whole(&self) -> bool {
        self.accepted != 0 && self.passed >= self.accepted
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
