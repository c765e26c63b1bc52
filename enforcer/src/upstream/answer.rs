//! A server's answer on its way to a client: passed on piece by piece, with an end where nothing more comes.
//!
//! `forward` makes it, ingress reads it as fast as its client does. An HTTP answer that cannot go on is broken off; a gRPC
//! call ends with trailers that say why.

use std::{
    error::Error,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::{body::Progress, direct::Direct, grpc, lease::Lease};
use crate::{clock, denial::Denial};

/// The body of an answer.
pub struct AnswerBody {
    source: Source,
    /// `None` once the answer was read to its end, and where there is none to read.
    lease: Option<Lease>,
    /// The request's body, which may still be on its way.
    upload: Option<Rc<Progress>>,
    patience: Duration,
    deadline: Option<Instant>,
    /// Since when nothing comes.
    waits_since: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    is_grpc: bool,
    broken: bool,
}

/// How long an answer may take.
pub(super) struct Limits {
    /// Between two pieces.
    pub(super) patience: Duration,
    /// To its end.
    pub(super) deadline: Option<Instant>,
}

/// Where an answer's body comes from.
pub(super) enum Source {
    Hyper(Incoming),
    Direct(Box<Direct>),
    /// It was read to its end.
    Over,
}

impl Source {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Hyper(incoming) => incoming.is_end_stream(),
            Self::Direct(direct) => direct.is_over(),
            Self::Over => true,
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Piece> {
        match self {
            Self::Hyper(incoming) => Pin::new(incoming)
                .poll_frame(context)
                .map(|piece| piece.map(|piece| piece.map_err(Into::into))),
            Self::Direct(direct) => direct.poll_frame(context),
            Self::Over => Poll::Ready(None),
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;
type Piece = Option<Result<Frame<Bytes>, Failure>>;

impl AnswerBody {
    pub(super) fn new(
        source: Source,
        lease: Option<Lease>,
        upload: Option<Rc<Progress>>,
        limits: Limits,
        is_grpc: bool,
    ) -> Self {
        let Limits { patience, deadline } = limits;
        let mut body = Self {
            source,
            lease,
            upload,
            patience,
            deadline,
            waits_since: None,
            alarm: None,
            is_grpc,
            broken: false,
        };
        body.finish_if_over();
        body
    }

    fn finish_if_over(&mut self) {
        if self.source.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        match std::mem::replace(&mut self.source, Source::Over) {
            Source::Direct(direct) => lease.finish_direct(direct),
            source @ (Source::Hyper(_) | Source::Over) => {
                self.source = source;
                lease.finish();
            }
        }
    }

    /// Ends an answer that cannot go on.
    fn break_off(&mut self, denial: Denial, error: Failure) -> Piece {
        self.broken = true;
        if let Some(lease) = self.lease.take()
            && denial != Denial::DeadlineExceeded
        {
            lease.server().failed(denial.code());
        }
        Some(if self.is_grpc { Ok(Frame::trailers(grpc::trailers(denial))) } else { Err(error) })
    }

    /// Whether the wait for the next piece has lasted too long; wakes the task when it has.
    fn is_late(&mut self, context: &mut Context<'_>) -> Option<Denial> {
        let now = clock::instant_now();
        let waits_since = *self.waits_since.get_or_insert(now);
        loop {
            let moved = self.upload.as_ref().map_or(waits_since, |upload| upload.last().max(waits_since));
            let late = moved + self.patience;
            let end = self.deadline.map_or(late, |deadline| deadline.min(late));
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end.into())));
            if alarm.deadline() != end.into() {
                alarm.as_mut().reset(end.into());
            }
            if alarm.as_mut().poll(context).is_pending() {
                return None;
            }
            let now = clock::instant_now();
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                return Some(Denial::DeadlineExceeded);
            }
            let moved = self.upload.as_ref().map_or(waits_since, |upload| upload.last().max(waits_since));
            if moved + self.patience <= now {
                return Some(Denial::UpstreamTimeout);
            }
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Piece> {
        let this = &mut *self;
        if this.broken {
            return Poll::Ready(None);
        }
        match this.source.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.waits_since = None;
                this.finish_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(this.break_off(Denial::UpstreamProtocol, error)),
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => match this.is_late(context) {
                None => Poll::Pending,
                Some(denial) => {
                    let error = "the upstream stopped in the middle of its answer".into();
                    Poll::Ready(this.break_off(denial, error))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken || self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Hyper(incoming) => incoming.size_hint(),
            Source::Direct(direct) => direct.size_hint(),
            Source::Over => SizeHint::with_exact(0),
        }
    }
}
