//! Takes the samples of refused packets out of the program's ring buffer and hands them to whoever watches.
//!
//! The daemon spawns [`Events::run`]. Nobody who watches can hold it up: each has a bounded queue and is told what it
//! missed. What comes in is bounded by the program, see [`enforcer_common::event`].

#![allow(unsafe_code, reason = "tokio cannot see that the ring buffer's descriptor stays open")]

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use aya::maps::{MapData, RingBuf};
use enforcer_common::{
    event::{Event, flag},
    maps,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::broadcast,
};

use super::{Attachment, OTHER_INTERFACES, Reason, program::Program};
use crate::clock::{self, KernelTime};

/// Samples that wait for a slow watcher: 2 MiB at most, and ten seconds of the default rate.
pub const QUEUE: usize = 1_024;

/// Samples that are read before other tasks have their turn.
const TURN: usize = 64;

/// A packet that was refused or changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was judged, in nanoseconds since 1970.
    pub unix_ns: u64,
    /// The interface that it came in by.
    pub interface: String,
    /// The CPU that judged it.
    pub cpu: u32,
    /// Why.
    pub reason: Reason,
    /// Length of the frame in bytes.
    pub length: usize,
    /// The first of them.
    pub bytes: Vec<u8>,
}

/// Where samples go.
pub type Samples = broadcast::Sender<Arc<Sample>>;

/// The reading end of the ring buffer.
pub struct Events {
    ring: RingBuf<MapData>,
    attachments: Arc<ArcSwap<Vec<Attachment>>>,
}

impl Events {
    pub(super) fn open(program: &Program, attachments: Arc<ArcSwap<Vec<Attachment>>>) -> Result<Self> {
        let ring =
            RingBuf::try_from(program.map(maps::EVENTS)?).context("opening the ring buffer of events")?;
        Ok(Self { ring, attachments })
    }

    /// Hands samples on until it is dropped; ends only with an error.
    pub async fn run(self, samples: Samples) -> Result<()> {
        let Self { ring, attachments } = self;
        // SAFETY: the ring buffer owns the map's descriptor, never exchanges it, and lives in the AsyncFd.
        let registered = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) };
        let mut ring = registered.map_err(std::io::Error::from).context("waiting for events")?;
        loop {
            let mut ready = ring.readable_mut().await?;
            // First, so that what comes while it is read wakes again.
            ready.clear_ready();
            let mut read = 0;
            while let Some(record) = ready.get_inner_mut().next() {
                if let Some(sample) = sample(&record, &attachments.load()) {
                    // Nobody watches: that is the usual case.
                    let _ = samples.send(Arc::new(sample));
                }
                drop(record);
                read += 1;
                if read % TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// A record in the daemon's words; `None` for one of another program version.
fn sample(record: &[u8], attachments: &[Attachment]) -> Option<Sample> {
    let (event, bytes) = Event::read(record)?;
    let reason = Reason::from_number(event.reason, event.flags & flag::WOULD_DROP != 0)?;
    let interface = attachments.iter().find(|one| one.index == event.interface);
    Some(Sample {
        unix_ns: clock::unix_ns(KernelTime(event.time)),
        interface: interface.map_or_else(|| OTHER_INTERFACES.to_owned(), |one| one.interface.clone()),
        cpu: event.cpu,
        reason,
        length: event.length as usize,
        bytes: bytes.to_vec(),
    })
}
