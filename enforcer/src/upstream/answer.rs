//! A server's answer on its way to a client: passed on piece by piece, with an end where nothing more comes.
//!
//! `forward` makes it, ingress reads it as fast as its client does. An HTTP answer that cannot go on is broken off; a gRPC
//! call ends with trailers that say why. One whose time is over lets its server go even if nobody reads on.

use std::{
    cell::RefCell,
    error::Error,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{task::JoinHandle, time::Sleep};

use super::{body::Progress, direct::Direct, grpc, held::Room, lease::Lease};
use crate::{clock, denial::Denial};

/// The body of an answer.
pub struct AnswerBody(Kind);

enum Kind {
    /// It ends when its reader finds out that it has to.
    Plain(Reading),
    /// It ends in time, whether or not anybody reads.
    Timed(Rc<RefCell<Reading>>, JoinHandle<()>),
    /// It was read here, and goes on as it came.
    Whole(Option<Bytes>),
}

/// An answer that is being read.
struct Reading {
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
    /// The id of a gRPC call.
    call: Option<HeaderValue>,
    /// Its time was over before somebody read its end; the server is let go.
    expired: bool,
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
        call: Option<HeaderValue>,
    ) -> Self {
        let Limits { patience, deadline } = limits;
        let mut reading = Reading {
            source,
            lease,
            upload,
            patience,
            deadline,
            waits_since: None,
            alarm: None,
            call,
            expired: false,
            broken: false,
        };
        reading.finish_if_over();
        let Some(deadline) = deadline.filter(|_| reading.lease.is_some()) else {
            return Self(Kind::Plain(reading));
        };
        let reading = Rc::new(RefCell::new(reading));
        let watched = Rc::downgrade(&reading);
        // A client that reads nothing must not keep a server.
        let timer = tokio::task::spawn_local(async move {
            tokio::time::sleep_until(deadline.into()).await;
            if let Some(reading) = watched.upgrade() {
                reading.borrow_mut().expire();
            }
        });
        Self(Kind::Timed(reading, timer))
    }
}

impl AnswerBody {
    /// Reads it to its end, if it has no more bytes than `most`; with its bytes as the body that goes on.
    pub(crate) async fn read_whole(self, most: usize) -> Result<(Bytes, Self), Denial> {
        let read = Limited::new(self, most).collect().await;
        let bytes = read.map_err(|_| Denial::UpstreamProtocol)?.to_bytes();
        Ok((bytes.clone(), Self(Kind::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))))
    }
}

/// Why an answer is not there as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It has more bytes than it may.
    TooLong,
    /// There is no room for so many of all requests together.
    NoRoom,
    /// It did not come to its end.
    Broken,
}

impl AnswerBody {
    /// Takes all of its bytes, at most so many, into `room`; trailers are left out.
    pub(crate) async fn take(mut self, most: u64, room: &mut Room) -> Result<Vec<u8>, Unread> {
        let mut whole = Vec::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
            if (whole.len() + data.len()) as u64 > most {
                return Err(Unread::TooLong);
            }
            if !room.take(data.len() as u64) {
                return Err(Unread::NoRoom);
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }

    /// Bytes that were made here, in the place of those that `room` was taken for.
    pub(crate) fn made(bytes: Vec<u8>, room: Room) -> Self {
        let bytes = Room::keep(&std::sync::Arc::new(room), bytes.into());
        Self(Kind::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Self(Kind::Timed(_, timer)) = self {
            timer.abort();
        }
    }
}

impl Reading {
    /// Its time is over.
    fn expire(&mut self) {
        if self.lease.is_some() && !self.broken {
            self.expired = true;
            self.source = Source::Over;
            self.lease = None;
        }
    }

    fn is_expired(&self) -> bool {
        // The clock is asked for answers that have a deadline alone, and are not at their end.
        self.expired
            || self.lease.is_some() && self.deadline.is_some_and(|deadline| deadline <= clock::instant_now())
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
        Some(match self.call.take() {
            Some(id) => Ok(Frame::trailers(grpc::trailers(denial, id))),
            None => Err(error),
        })
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
        match &mut self.0 {
            Kind::Plain(reading) => reading.poll_frame(context),
            Kind::Timed(reading, _) => reading.borrow_mut().poll_frame(context),
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Plain(reading) => reading.is_end_stream(),
            Kind::Timed(reading, _) => reading.borrow().is_end_stream(),
            Kind::Whole(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Plain(reading) => reading.size_hint(),
            Kind::Timed(reading, _) => reading.borrow().size_hint(),
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}

impl Reading {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Piece> {
        if self.broken {
            return Poll::Ready(None);
        }
        // Also where more is there: a server that never ends would have no deadline.
        if self.is_expired() {
            self.source = Source::Over;
            return Poll::Ready(self.break_off(Denial::DeadlineExceeded, "the answer took too long".into()));
        }
        match self.source.poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waits_since = None;
                self.finish_if_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(self.break_off(Denial::UpstreamProtocol, error)),
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Pending => match self.is_late(context) {
                None => Poll::Pending,
                Some(denial) => {
                    let error = "the upstream stopped in the middle of its answer".into();
                    Poll::Ready(self.break_off(denial, error))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broken || !self.expired && self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            _ if self.expired => SizeHint::default(),
            Source::Hyper(incoming) => incoming.size_hint(),
            Source::Direct(direct) => direct.size_hint(),
            Source::Over => SizeHint::with_exact(0),
        }
    }
}
