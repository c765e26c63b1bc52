//! Offences in, bans out.
//!
//! Whoever refuses a client reports it here without waiting; one task owns the ledger, decides, and is the only
//! writer of the kernel's lists.

pub mod banned;
pub mod keeping;
pub mod ledger;
pub mod memory;
pub mod prefixes;
pub mod projection;
pub mod record;
pub mod score;
pub mod task;
mod writer;

use std::{net::IpAddr, sync::Arc};

use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::denial::Denial;
use banned::Banned;

/// A client did something that counts against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offence {
    /// Where it came from.
    pub source: IpAddr,
    /// What it did.
    pub denial: Denial,
}

/// The request path's end: offences go out, bounded, without waiting, counting what is lost; who is banned comes back.
#[derive(Clone, Debug)]
pub struct Reporter {
    offences: mpsc::Sender<Offence>,
    lost: IntCounter,
    banned: Arc<Banned>,
}

impl Reporter {
    /// A reporter and the end that the ban task reads. `lost` counts offences that found the queue full.
    pub fn new(capacity: usize, lost: IntCounter) -> (Self, mpsc::Receiver<Offence>) {
        let (offences, receiver) = mpsc::channel(capacity);
        (Self { offences, lost, banned: Arc::default() }, receiver)
    }

    /// Who is banned, once the ban task fills it.
    pub const fn banned(&self) -> &Arc<Banned> {
        &self.banned
    }

    /// Reports an offence; denials without weight are ignored.
    pub fn report(&self, source: IpAddr, denial: Denial) {
        if denial.weight() > 0 && self.offences.try_send(Offence { source, denial }).is_err() {
            self.lost.inc();
        }
    }
}
