//! A client's TLS stream under HTTP/2, which counts what passes: frames that carry neither a request nor a body cost the
//! client nothing and the server an answer, so they have a budget, and a head that has begun has to end in time.
//!
//! `connection` puts it between TLS and hyper, whose h2 has limits of its own where it alone sees the harm: CONTINUATION frames,
//! small DATA frames, the size of fields once they are unpacked, streams reset before they were looked at. Never changes
//! what passes; whoever goes too far gets GOAWAY, and the end.

mod frames;

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use enforcer_common::gcra::{self, Rate};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{connection::Connection, secured::Secured, worker::Worker};
use crate::{clock, config, denial::Denial};
use frames::{CONTINUATION, DATA, Frame, Frames, HEADERS, PING, PREFACE, RST_STREAM, WINDOW_UPDATE};

/// `ENHANCE_YOUR_CALM` (RFC 9113 section 7).
const CALM: u32 = 11;
/// Window updates and pings that one DATA frame of ours may be answered with: clients open the windows of stream and connection
/// after each, and measure the time that data take.
const FREE_PER_DATA: u32 = 4;
/// What is saved up of these at most.
const FREE: u32 = 10_000;

/// A stream that ends when its client sends too much of nothing.
pub(super) struct Calm {
    stream: Secured,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    incoming: Frames,
    outgoing: Frames,
    budget: Budget,
    /// The newest stream of the client.
    newest: u32,
    /// Time for a head.
    limit: Duration,
    /// When it is over for the head of this number.
    end: Option<(u64, Pin<Box<Sleep>>)>,
}

/// What a client may still send.
struct Budget {
    rate: Option<Rate>,
    debt: u64,
    free: u32,
}

impl Budget {
    fn new(limit: Option<config::RateLimit>) -> Self {
        let rate = limit.map(|limit| {
            let period = u64::try_from(limit.period.as_nanos()).unwrap_or(u64::MAX);
            Rate::new(limit.events, period, limit.burst)
        });
        Self { rate, debt: 0, free: 0 }
    }

    /// Whether the client may send this.
    fn admits(&mut self, frame: Frame) -> bool {
        let Some(rate) = self.rate else { return true };
        match frame.kind {
            DATA | HEADERS | CONTINUATION => return true,
            WINDOW_UPDATE | PING if self.free > 0 => {
                self.free -= 1;
                return true;
            }
            _ => {}
        }
        match gcra::step(self.debt, clock::kernel_now().0, rate) {
            Ok(debt) => {
                self.debt = debt;
                true
            }
            Err(_) => false,
        }
    }
}

impl Calm {
    pub(super) fn new(
        stream: Secured,
        worker: Rc<Worker>,
        connection: Rc<Connection>,
        http: &config::Http,
    ) -> Self {
        Self {
            stream,
            worker,
            connection,
            incoming: Frames::behind(PREFACE),
            outgoing: Frames::behind(0),
            budget: Budget::new(http.control_frames),
            newest: 0,
            limit: http.header_timeout,
            end: None,
        }
    }

    fn look_at_incoming(&mut self, bytes: &[u8]) -> bool {
        let (budget, newest) = (&mut self.budget, &mut self.newest);
        self.incoming.follow(bytes, |frame| {
            if frame.kind == HEADERS {
                *newest = frame.stream;
            }
            budget.admits(frame)
        })
    }

    fn look_at_outgoing(&mut self, bytes: &[u8]) {
        let (budget, worker, connection) = (&mut self.budget, &self.worker, &self.connection);
        self.outgoing.follow(bytes, |frame| {
            match (frame.kind, frame.reason) {
                (DATA, _) => budget.free = (budget.free + FREE_PER_DATA).min(FREE),
                // PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR: h2 found the request malformed (RFC 9113 section 8.1.1).
                (RST_STREAM, Some(1 | 3 | 6)) => {
                    worker.refused(connection.client.address, Denial::RequestMalformed);
                }
                _ => {}
            }
            true
        });
    }

    /// Says why, as far as the client reads it at once, and ends.
    fn give_up(&mut self, context: &mut Context<'_>, denial: Denial) -> Poll<io::Result<()>> {
        self.connection.ended_for(denial);
        if self.outgoing.is_between() {
            let farewell = frames::goaway(self.newest, CALM);
            let mut stream = Pin::new(&mut self.stream);
            if stream.as_mut().poll_write(context, &farewell).is_ready() {
                let _ = stream.poll_flush(context);
            }
        }
        Poll::Ready(Err(io::Error::other(denial.code())))
    }
}

impl AsyncRead for Calm {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if outcome.is_ready() {
            let new = buffer.filled().get(before..).unwrap_or_default();
            if !self.look_at_incoming(new) {
                buffer.set_filled(before);
                return self.give_up(context, Denial::Http2Flood);
            }
            return outcome;
        }
        let head = self.incoming.head();
        self.end = self.end.take().filter(|(of, _)| head == Some(*of));
        let Some(head) = head else { return Poll::Pending };
        let limit = self.limit;
        let (_, end) = self.end.get_or_insert_with(|| (head, Box::pin(tokio::time::sleep(limit))));
        ready!(end.as_mut().poll(context));
        self.give_up(context, Denial::RequestTimeout)
    }
}

impl AsyncWrite for Calm {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.look_at_outgoing(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        let mut left = written;
        for piece in pieces {
            let seen = piece.len().min(left);
            self.look_at_outgoing(piece.get(..seen).unwrap_or_default());
            left -= seen;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
