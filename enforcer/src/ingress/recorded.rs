//! A client's stream that keeps a copy of its first bytes, so that what a ClientHello says can be read once TLS has it, and
//! gives back what was read too much of it before.
//!
//! `handshake` takes the copy before the handshake goes on; from then on this is the bare stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that are kept at most. With a post-quantum key share a ClientHello has some 2 KB; a longer one than this is
/// served, but nothing of it is kept.
const MOST: usize = 20 << 10;

/// A stream and what came first.
#[derive(Debug)]
pub(super) struct Recorded {
    stream: TcpStream,
    /// What was read of it before.
    first: Vec<u8>,
    copy: Option<Vec<u8>>,
}

impl Recorded {
    /// `first` was read from the stream already.
    pub(super) const fn new(stream: TcpStream, first: Vec<u8>) -> Self {
        Self { stream, first, copy: Some(Vec::new()) }
    }

    /// What has arrived so far, unless it was too much; nothing is kept any more.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        self.copy.take()
    }
}

impl AsyncRead for Recorded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = if self.first.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let first = std::mem::take(&mut self.first);
            let (now, later) = first.split_at(first.len().min(buffer.remaining()));
            buffer.put_slice(now);
            self.first = later.to_vec();
            Poll::Ready(Ok(()))
        };
        if let Some(copy) = &mut self.copy
            && let Some(new) = buffer.filled().get(before..)
        {
            if copy.len() + new.len() > MOST {
                self.copy = None;
            } else {
                copy.extend_from_slice(new);
            }
        }
        outcome
    }
}

impl AsyncWrite for Recorded {
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
        match pieces {
            // TLS writes most answers as one record, and `send` costs the kernel less than `writev`.
            [piece] => Pin::new(&mut self.stream).poll_write(context, piece),
            pieces => Pin::new(&mut self.stream).poll_write_vectored(context, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
