//! A client's TLS stream under HTTP/1.1: hyper gets to see whole heads that have one reading, in time, and nothing else.
//!
//! `connection` puts it between TLS and hyper. Where a head cannot be read, or does not arrive, hyper gets a request in its
//! place that stands for it, so that the refusal is answered, counted and reported in order and like all others; behind it
//! nothing is read any more. A chunked body that breaks its framing is broken for hyper too. Which heads are readable is
//! the business of [`messages`].

mod messages;

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::Method;
use send_wrapper::SendWrapper;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{connection::Connection, secured::Secured};
use crate::denial::Denial;
use messages::{Bounds, Fault, Messages};

/// Stands for a head that cannot be read; its method is no client's.
const STAND_IN: &[u8] = b"- / HTTP/1.1\r\n\r\n";
/// No chunk's size, no chunk's end, and no trailer: whatever hyper waits for, it is not this.
const BROKEN: &[u8] = b"!\0\r\n\r\n";
/// What is still taken, and thrown away, behind a refused head, so that the answer is not lost to a reset: a close with
/// bytes unread is one (RFC 1122 section 4.2.2.13).
const DISCARD: usize = 256 << 10;

/// Whether a request stands for a head that could not be read.
pub(super) fn is_stand_in(method: &Method) -> bool {
    method.as_str() == "-"
}

/// A stream that hands on what can be read.
pub(super) struct Readable {
    stream: Secured,
    /// hyper wants streams `Send` that may be upgraded; this one never leaves its thread.
    connection: SendWrapper<Rc<Connection>>,
    messages: Messages,
    /// Bytes that hyper did not get yet.
    held: Vec<u8>,
    /// So many of them may be handed on.
    good: usize,
    /// Bytes that have been thrown away; there is nothing more to read then.
    discarded: Option<usize>,
    /// Time for a head.
    limit: Duration,
    end: Option<Pin<Box<Sleep>>>,
}

impl Readable {
    pub(super) fn new(stream: Secured, connection: Rc<Connection>, http: &crate::config::Http) -> Self {
        let bounds =
            Bounds { bytes: http.max_header_bytes as usize, fields: usize::from(http.max_header_fields) };
        let limit = http.header_timeout;
        let messages = Messages::new(bounds);
        let connection = SendWrapper::new(connection);
        Self { stream, connection, messages, held: Vec::new(), good: 0, discarded: None, limit, end: None }
    }

    /// Looks at what hyper would get from `before` on, and keeps back what it must not have yet.
    fn inspect(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let new = buffer.filled().get(before..).unwrap_or_default();
        let followed = if self.held.is_empty() {
            let followed = self.messages.follow(new);
            self.held.extend_from_slice(new.get(followed.good..).unwrap_or_default());
            buffer.set_filled(before + followed.good);
            followed
        } else {
            self.held.extend_from_slice(new);
            buffer.set_filled(before);
            let followed = self.messages.follow(&self.held);
            self.good = followed.good;
            followed
        };
        if followed.good > 0 {
            self.end = None;
        }
        match followed.fault {
            None => {}
            Some(Fault::Head(denial)) => self.refuse(denial),
            Some(Fault::Body) => self.end_with(BROKEN),
        }
    }

    fn refuse(&mut self, denial: Denial) {
        self.connection.cannot_read(denial);
        self.end_with(STAND_IN);
    }

    fn end_with(&mut self, last: &[u8]) {
        self.held.truncate(self.good);
        self.held.extend_from_slice(last);
        self.good = self.held.len();
        self.discarded = Some(0);
        self.end = None;
    }

    /// Hands on what is good of what was held.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.good.min(buffer.remaining());
        buffer.put_slice(self.held.get(..count).unwrap_or_default());
        self.held.drain(..count);
        self.good -= count;
        if self.held.is_empty() {
            // Seldom needed again, and connections live long.
            self.held = Vec::new();
        }
    }

    /// Reads on without an end for whoever asks: it is closed from here.
    fn discard(&mut self, context: &mut Context<'_>) {
        let mut room = [0; 4096];
        while let Some(count @ ..DISCARD) = self.discarded {
            let mut buffer = ReadBuf::new(&mut room);
            let outcome = Pin::new(&mut self.stream).poll_read(context, &mut buffer);
            if buffer.filled().is_empty() || !matches!(outcome, Poll::Ready(Ok(()))) {
                return;
            }
            self.discarded = Some(count + buffer.filled().len());
        }
    }
}

impl AsyncRead for Readable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            if self.good > 0 {
                self.give(buffer);
                return Poll::Ready(Ok(()));
            }
            if self.discarded.is_some() {
                self.discard(context);
                return Poll::Pending;
            }
            if self.connection.has_switched() {
                self.messages.switch();
            }
            let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
            if buffer.filled().len() > before {
                self.inspect(buffer, before);
                if buffer.filled().len() > before {
                    return Poll::Ready(Ok(()));
                }
            } else if outcome.is_pending() && self.messages.is_in_head() {
                let limit = self.limit;
                let end = self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                ready!(end.as_mut().poll(context));
                self.refuse(Denial::RequestTimeout);
            } else {
                return outcome;
            }
        }
    }
}

impl AsyncWrite for Readable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
