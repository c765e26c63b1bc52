//! Forwards what the program writes through aya-log to the daemon's log.
//!
//! The daemon spawns [`Diagnostics::run`] beside its other tasks when `kernel.log` is true; the log must have been set up
//! before `Kernel::load`. Without it the verifier has removed every diagnostic from the program.

#![allow(unsafe_code, reason = "tokio cannot see that aya-log's descriptor stays open")]

use anyhow::{Context as _, Result};
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

use super::program::Program;

/// The reading end of the program's diagnostics.
pub struct Diagnostics {
    logger: EbpfLogger<&'static dyn log::Log>,
}

impl Diagnostics {
    pub(super) fn open(program: &mut Program) -> Result<Self> {
        let logger = EbpfLogger::init(program.ebpf()).context("opening the program's diagnostics")?;
        Ok(Self { logger })
    }

    /// Forwards until it is dropped; ends only with an error.
    pub async fn run(self) -> Result<()> {
        // SAFETY: the logger owns the ring buffer whose descriptor it shows, never exchanges it, and lives in the AsyncFd.
        let registered = unsafe { AsyncFd::register_with_interest(self.logger, Interest::READABLE) };
        let mut logger = registered.map_err(std::io::Error::from)?;
        loop {
            let mut ready = logger.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}
