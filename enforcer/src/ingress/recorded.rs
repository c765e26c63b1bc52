//! A client's stream that keeps a copy of its first bytes, so that what a ClientHello says can be read once TLS has it, and
//! gives back what was read too much of it before.
//!
//! `handshake` takes the copy before the handshake goes on; from then on this is the bare stream, but for what may wait: the tickets
//! at the end of a handshake go out together with what HTTP says first, which saves a packet, and a wake-up of the client.

use std::{
    io::{self, IoSlice},
    iter,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
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
    writes: Writes,
    /// What was written and is not sent yet.
    kept: Vec<u8>,
}

/// What becomes of what is written, and of what was kept back before.
#[derive(Debug)]
enum Writes {
    /// It is sent, behind that.
    Sent,
    /// It is kept, until the client is waited for.
    Kept,
    /// It is sent, behind that, which goes out alone where the client is waited for and for so long nothing is written.
    Awaited(Duration, Option<Pin<Box<Sleep>>>),
}

impl Recorded {
    /// `first` was read from the stream already.
    pub(super) const fn new(stream: TcpStream, first: Vec<u8>) -> Self {
        Self { stream, first, copy: Some(Vec::new()), writes: Writes::Sent, kept: Vec::new() }
    }

    /// What has arrived so far, unless it was too much; nothing is kept any more.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        self.copy.take()
    }

    /// Keeps back what is written until the client is waited for: of a handshake, whose last part need not go alone.
    pub(super) fn begin(&mut self) {
        self.writes = Writes::Kept;
    }

    /// The handshake is over; its last part goes with what is written next, or alone after `patience` in which there is nothing to read.
    pub(super) fn go_on(&mut self, patience: Duration) {
        self.writes = if self.kept.is_empty() { Writes::Sent } else { Writes::Awaited(patience, None) };
    }

    /// So much of what was kept back is sent.
    fn sent(&mut self, count: usize) -> io::Result<()> {
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.kept.drain(..count.min(self.kept.len()));
        if self.kept.is_empty() {
            // A connection does this at its beginning alone.
            self.kept = Vec::new();
            if let Writes::Awaited(..) = self.writes {
                self.writes = Writes::Sent;
            }
        }
        Ok(())
    }

    fn release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.kept.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &self.kept))?;
            self.sent(count)?;
        }
        Poll::Ready(Ok(()))
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
        if outcome.is_pending() {
            if let Writes::Awaited(patience, alarm) = &mut self.writes
                && !patience.is_zero()
            {
                let patience = *patience;
                let alarm = alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                ready!(alarm.as_mut().poll(context));
            }
            if let Poll::Ready(Err(error)) = self.release(context) {
                return Poll::Ready(Err(error));
            }
        }
        outcome
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.kept.is_empty() {
            // It goes with the next write, or when the client is waited for, which whoever has nothing to write does.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.release(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Writes::Kept = self.writes {
            pieces.iter().for_each(|piece| self.kept.extend_from_slice(piece));
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        while !self.kept.is_empty() {
            let Self { stream, kept, .. } = &mut *self;
            let all: Vec<IoSlice<'_>> =
                iter::once(&**kept).chain(pieces.iter().map(|piece| &**piece)).map(IoSlice::new).collect();
            let written = ready!(Pin::new(stream).poll_write_vectored(context, &all))?;
            let others = written.saturating_sub(kept.len());
            self.sent(written - others)?;
            if others > 0 {
                return Poll::Ready(Ok(others));
            }
        }
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

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.kept.is_empty() {
            // An alert, for whoever is still there.
            let _ = self.stream.try_write(&self.kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, net};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// A stream, and its other end, which waits for nothing.
    async fn pair() -> (Recorded, net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        other.set_nonblocking(true).unwrap();
        (Recorded::new(listener.accept().await.unwrap().0, Vec::new()), other)
    }

    async fn write(stream: &mut Recorded, text: &str) {
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }

    /// Whether nothing was sent so far.
    fn is_silent(other: &net::TcpStream) -> bool {
        other.peek(&mut [0; 8]).is_err()
    }

    /// What comes until the end.
    fn rest(mut other: net::TcpStream) -> String {
        other.set_nonblocking(false).unwrap();
        let mut all = String::new();
        other.read_to_string(&mut all).unwrap();
        all
    }

    /// What arrives while the stream waits for its client.
    async fn heard(stream: &mut Recorded, other: &net::TcpStream, length: usize) -> String {
        let mut other = TcpStream::from_std(other.try_clone().unwrap()).unwrap();
        let (mut room, mut heard) = ([0; 8], vec![0; length]);
        tokio::select! {
            biased;
            read = stream.read(&mut room) => panic!("{read:?}"),
            read = other.read_exact(&mut heard) => assert_eq!(read.unwrap(), length),
        }
        String::from_utf8(heard).unwrap()
    }

    #[tokio::test]
    async fn the_end_of_a_handshake_goes_with_the_answer_or_alone() {
        for patience in [Duration::ZERO, Duration::from_millis(1)] {
            let (mut stream, other) = pair().await;
            stream.begin();
            write(&mut stream, "flight").await;
            assert!(is_silent(&other));
            assert_eq!(heard(&mut stream, &other, 6).await, "flight");
            write(&mut stream, "tickets").await;
            stream.go_on(patience);
            stream.flush().await.unwrap();
            assert!(is_silent(&other));
            assert_eq!(heard(&mut stream, &other, 7).await, "tickets", "as nothing comes");
            write(&mut stream, "answer").await;
            assert_eq!(heard(&mut stream, &other, 6).await, "answer");
        }
        let (mut stream, other) = pair().await;
        stream.begin();
        write(&mut stream, "tickets, ").await;
        stream.go_on(Duration::from_secs(3_600));
        write(&mut stream, "answer").await;
        assert_eq!(heard(&mut stream, &other, 15).await, "tickets, answer");
    }

    #[tokio::test]
    async fn an_end_loses_nothing() {
        for shuts_down in [false, true] {
            let (mut stream, other) = pair().await;
            stream.begin();
            write(&mut stream, "alert").await;
            if shuts_down {
                stream.shutdown().await.unwrap();
            }
            drop(stream);
            assert_eq!(rest(other), "alert", "{shuts_down}");
        }
    }
}
