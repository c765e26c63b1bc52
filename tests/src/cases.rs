//! The table of packet cases: a frame, what the tables hold, and the verdict with its reason.
//!
//! It runs twice: on [`crate::tables::State::tables`] without privilege, and through the loaded program by
//! `BPF_PROG_TEST_RUN`. A case that ends differently in the two is a failure of the house's first decision.

mod cookies;
mod hellos;
mod limits;
mod link;
mod network;
mod quic;
mod transport;

use enforcer_common::verdict::Verdict;

use crate::tables::State;

/// One packet and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Unique.
    pub name: String,
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
        hellos::cases(),
        cookies::cases(),
        quic::cases(),
    ]
    .concat()
}

/// A case with the default tables.
fn case(name: &str, frame: Vec<u8>, expected: Verdict) -> Case {
    Case { name: name.to_owned(), frame, state: State::default(), expected }
}

impl Case {
    /// The same with other tables.
    fn with(mut self, state: State) -> Self {
        self.state = state;
        self
    }
}
