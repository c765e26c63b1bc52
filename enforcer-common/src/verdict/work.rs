//! The steps in which a verdict is reached, and what one leaves for the next.
//!
//! Called by [`super::decide`], which takes one step after the other, and by the program, which makes a function of each: the verifier
//! checks it by itself, whatever leads to it, and its stack ends with it. So what a packet costs its source, and what is looked for in a hello,
//! belongs into a step (of its own, if it needs much), and never into a call from another step.

use super::{Source, Verdict};
use crate::{
    flow::{Followed, Segment},
    headers::Headers,
    hello::marks::Marks,
    port::Port,
    reason::{DropReason, PassReason},
};

/// Steps, in the order in which they can be taken. Each leaves to a later one, but [`Step::Stranger`], after which a flow is followed that
/// it has taken up.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads the headers up to the IP header; allowances.
    Begin = FIRST,
    /// Reads IPv6 extension headers.
    Extensions,
    /// Reads TCP or UDP; management ports.
    Transport,
    /// Bans, and what every packet costs its source.
    Charge,
    /// What else a packet costs, by its number or its bytes.
    Weigh,
    /// Datagrams to a port where QUIC is served.
    Quic,
    /// A SYN: what it costs its source.
    Open,
    /// A segment to a protected port: cookies for SYNs, and what is known of its flow.
    Segment,
    /// Follows the flow.
    Follow,
    /// Data of a flow that is not known.
    Stranger,
    /// What has become known of a hello: what it costs, and whether it is refused.
    Conclude,
    /// A hello that is good so far and has been read to its end, where something is listed of such.
    Compare,
}

/// Beyond every reason's number.
const FIRST: u32 = 128;

/// What comes next, as one number, as functions of the program hand it over: a step, or else the reason of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next(u32);

impl Next {
    /// The verdict is there.
    #[inline(always)]
    pub const fn end(verdict: Verdict) -> Self {
        Self(verdict.number())
    }

    /// A step is to be taken.
    #[inline(always)]
    pub const fn to(step: Step) -> Self {
        Self(step as u32)
    }

    /// The number.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether the first look hands on to another step than the first, so that what it has seen is to be recalled.
    #[inline(always)]
    pub const fn follows_first_look(self) -> bool {
        self.0 > FIRST
    }

    /// Whether the verdict is there.
    #[inline(always)]
    pub const fn is_end(self) -> bool {
        self.0 < FIRST
    }

    /// The step that is to be taken, if one is.
    pub const fn step(self) -> Option<Step> {
        const STEPS: [Step; 12] = [
            Step::Begin,
            Step::Extensions,
            Step::Transport,
            Step::Charge,
            Step::Weigh,
            Step::Quic,
            Step::Open,
            Step::Segment,
            Step::Follow,
            Step::Stranger,
            Step::Conclude,
            Step::Compare,
        ];
        if self.is_end() { None } else { Some(STEPS[(self.0 - FIRST) as usize]) }
    }

    /// The verdict; what has no number is dropped as malformed.
    pub const fn verdict(self) -> Verdict {
        if let Some(reason) = PassReason::from_number(self.0) {
            return Verdict::Pass(reason);
        }
        match DropReason::from_number(self.0) {
            Some(reason) => Verdict::Drop(reason),
            None => Verdict::Drop(DropReason::MalformedTcp),
        }
    }
}

/// What steps know of a packet. In the program it lies in a map, so that it takes no stack and the verifier, which knows nothing of what
/// is in maps, walks each step once.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// What has been read.
    pub headers: Headers,
    /// Whom the packet is charged to.
    pub source: Source,
    /// What is known of the destination port.
    pub port: Port,
    /// Number of the reason for which what follows the IP header cannot be parsed; 0: it can.
    pub(super) broken: u32,
    /// Why a SYN passes that is as it should be.
    pub(super) clean: PassReason,
    /// Whether it passes at the expense of what sources without a slot share.
    pub(super) shared: bool,
    /// Whether the flow has just been taken up, on a guess.
    pub(super) guessed: bool,
    /// What the segment is to its flow.
    pub(super) followed: Followed,
    /// The segment, as the flow table sees it.
    pub segment: Segment,
    /// What was gathered of a hello that has been read to its end.
    pub marks: Marks,
}

impl Work {
    /// Nothing is known.
    pub const NONE: Self = Self {
        headers: Headers::UNREAD,
        source: Source::NOBODY,
        port: Port::UNKNOWN,
        broken: 0,
        clean: PassReason::Clean,
        shared: false,
        guessed: false,
        followed: Followed::UNKNOWN,
        segment: Segment::NONE,
        marks: Marks::NONE,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_steps_from_verdicts() {
        for step in [Step::Begin, Step::Charge, Step::Stranger, Step::Conclude, Step::Compare] {
            assert_eq!(Next::to(step).step(), Some(step));
        }
        for reason in DropReason::ALL {
            let next = Next::end(Verdict::Drop(*reason));
            assert_eq!((next.step(), next.verdict()), (None, Verdict::Drop(*reason)));
        }
        for reason in PassReason::ALL {
            assert_eq!(Next::end(Verdict::Pass(*reason)).verdict(), Verdict::Pass(*reason));
        }
    }
}
