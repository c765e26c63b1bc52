//! Requests that wait for their turn, because a limit says so.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::worker::Worker;
use crate::{checks::Refusal, denial::Denial};

/// Waits for a request's turn, if not too many do so already.
pub(super) async fn wait(worker: &Worker, delay: Duration, most: u32) -> Result<(), Refusal> {
    if delay.is_zero() {
        return Ok(());
    }
    let Some(_place) = Waiting::begin(&worker.shared.delayed, most) else {
        let retry_after = Some(delay.as_secs() + 1);
        return Err(Refusal { retry_after, ..Refusal::plain(Denial::Overloaded) });
    };
    tokio::time::sleep(delay).await;
    Ok(())
}

/// One of the requests that wait.
struct Waiting<'w>(&'w AtomicU32);

impl<'w> Waiting<'w> {
    fn begin(waiting: &'w AtomicU32, most: u32) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Relaxed) < most).then_some(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
