//! A request's body on its way to a server: counted, bounded, never collected.

use std::{
    error::Error,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::denial::Denial;

/// What the body did so far, for whoever waits for the answer. Written and read by one thread; atomic because the
/// client's connection task asks for `Send`.
#[derive(Debug, Default)]
pub(super) struct Progress {
    bytes: AtomicU64,
    state: AtomicU8,
}

const FLOWING: u8 = 0;
const WAITING: u8 = 1;
const TOO_LARGE: u8 = 2;
const MALFORMED: u8 = 3;
const ABORTED: u8 = 4;
const DONE: u8 = 5;

impl Progress {
    /// Bytes that were forwarded.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether the server took everything that there is, and the client owes more.
    pub(super) fn waits_for_client(&self) -> bool {
        self.state.load(Relaxed) == WAITING
    }

    /// Why the body ended early.
    pub(super) fn failure(&self) -> Option<Denial> {
        match self.state.load(Relaxed) {
            TOO_LARGE => Some(Denial::BodyTooLarge),
            MALFORMED => Some(Denial::RequestMalformed),
            ABORTED => Some(Denial::RequestTimeout),
            _ => None,
        }
    }
}

/// A body with a bound.
#[derive(Debug)]
pub(super) struct RequestBody {
    incoming: Incoming,
    left: u64,
    /// `None` where there is no body at all.
    progress: Option<Arc<Progress>>,
}

impl RequestBody {
    /// Wraps a body; `max_body` 0 means no bound.
    pub(super) fn new(incoming: Incoming, max_body: u64) -> (Self, Option<Arc<Progress>>) {
        let progress = (!incoming.is_end_stream()).then(Arc::<Progress>::default);
        let left = if max_body == 0 { u64::MAX } else { max_body };
        (Self { incoming, left, progress: progress.clone() }, progress)
    }

    fn now(&self, state: u8) {
        if let Some(progress) = &self.progress {
            progress.state.store(state, Relaxed);
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.now(WAITING);
        let Some(frame) = ready!(Pin::new(&mut self.incoming).poll_frame(context)) else {
            self.now(DONE);
            return Poll::Ready(None);
        };
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                self.now(if error.is_parse() { MALFORMED } else { ABORTED });
                return Poll::Ready(Some(Err(error.into())));
            }
        };
        self.now(FLOWING);
        if let Some(data) = frame.data_ref() {
            let length = data.len() as u64;
            let Some(left) = self.left.checked_sub(length) else {
                self.now(TOO_LARGE);
                return Poll::Ready(Some(Err("the body exceeds its bound".into())));
            };
            self.left = left;
            if let Some(progress) = &self.progress {
                progress.bytes.fetch_add(length, Relaxed);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
