//! A client's TLS stream under HTTP/1.1, with a time limit on heads.
//!
//! `connection` puts it between TLS and hyper, whose own limit also counts the time in which a client has nothing to ask:
//! here the time begins with the first byte of a head. Never looks at what passes.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use send_wrapper::SendWrapper;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_rustls::server::TlsStream;

use super::{connection::Connection, recorded::Recorded};

/// A stream whose heads must arrive in time.
pub(super) struct TimedHeads {
    stream: TlsStream<Recorded>,
    /// hyper wants streams `Send` that may be upgraded; this one never leaves its thread.
    connection: SendWrapper<Rc<Connection>>,
    limit: Duration,
    end: Option<Pin<Box<Sleep>>>,
}

impl TimedHeads {
    pub(super) fn new(stream: TlsStream<Recorded>, connection: Rc<Connection>, limit: Duration) -> Self {
        Self { stream, connection: SendWrapper::new(connection), limit, end: None }
    }
}

impl AsyncRead for TimedHeads {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if !self.connection.is_reading_head() {
            self.end = None;
        }
        if outcome.is_ready() {
            if buffer.filled().len() > before && self.connection.is_between_requests() {
                self.connection.head_begins();
                let limit = self.limit;
                self.end.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            }
            return outcome;
        }
        let Some(end) = &mut self.end else { return Poll::Pending };
        ready!(end.as_mut().poll(context));
        self.connection.head_is_late();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for TimedHeads {
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
