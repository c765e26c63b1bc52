//! The table of packet cases: a frame, what the tables hold, and the verdict with its reason.
//!
//! It runs twice: on [`crate::tables::State::tables`] without privilege, and through the loaded program by
//! `BPF_PROG_TEST_RUN`. A case that ends differently in the two is a failure of the house's first decision.

mod budgets;
mod cookies;
mod flows;
mod glance;
mod hellos;
mod limits;
mod link;
mod listed;
mod network;
mod quic;
mod transport;

use enforcer_common::{reason::DropReason, verdict::Verdict};

use crate::tables::State;

/// One packet and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Unique.
    pub name: String,
    /// Frames that came before, on the same tables, and what became of them.
    pub before: Vec<(Vec<u8>, Verdict)>,
    /// The frame.
    pub frame: Vec<u8>,
    /// The tables.
    pub state: State,
    /// What must come out.
    pub expected: Verdict,
}

/// Every case.
pub fn all() -> Vec<Case> {
    [
        link::cases(),
        network::cases(),
        transport::cases(),
        limits::cases(),
        glance::cases(),
        budgets::cases(),
        hellos::cases(),
        flows::cases(),
        listed::cases(),
        cookies::cases(),
        quic::cases(),
    ]
    .concat()
}

/// Frames that come one after the other, each with what must become of it.
fn sequence(name: &str, mut frames: Vec<(Vec<u8>, Verdict)>) -> Case {
    let last = frames.pop();
    let (frame, expected) = last.unwrap_or((Vec::new(), Verdict::Drop(DropReason::Truncated)));
    Case { before: frames, ..case(name, frame, expected) }
}

/// A case with the default tables.
fn case(name: &str, frame: Vec<u8>, expected: Verdict) -> Case {
    Case { name: name.to_owned(), before: Vec::new(), frame, state: State::default(), expected }
}

impl Case {
    /// The same with other tables.
    fn with(mut self, state: State) -> Self {
        self.state = state;
        self
    }
}
