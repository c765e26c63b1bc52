//! A client's stream behind its handshake, or, with early data (0-RTT), before the end of it.
//!
//! tokio-rustls has no stream before a handshake is complete, and an answer that waits for that costs the round trip that early data
//! saves. So listeners that take early data have streams of their own, [`Early`], and all others those of tokio-rustls.

use std::{
    future::poll_fn,
    io::{self, BufRead as _, Read as _, Write as _},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_rustls::{StartHandshake, server::TlsStream};

use super::recorded::Recorded;

/// Bytes of early data that are copied at once.
const PIECE: usize = 4 << 10;

/// A stream that HTTP can be spoken on.
#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are the large one, which is on the heap with its connection"
)]
pub(super) enum Secured {
    /// Its handshake is complete.
    Complete(TlsStream<Recorded>),
    /// On a listener that takes early data.
    Early(Box<Early>),
}

impl Secured {
    /// What was agreed upon.
    pub(super) fn tls(&self) -> &ServerConnection {
        match self {
            Self::Complete(stream) => stream.get_ref().1,
            Self::Early(early) => &early.tls,
        }
    }

    /// Tells later whether the handshake is complete; `None` where it is.
    pub(super) fn completion(&self) -> Option<Arc<AtomicBool>> {
        match self {
            Self::Complete(_) => None,
            Self::Early(early) => early.tls.is_handshaking().then(|| Arc::clone(&early.complete)),
        }
    }
}

/// A stream that may carry requests before its handshake is complete.
#[derive(Debug)]
pub(super) struct Early {
    stream: Recorded,
    tls: ServerConnection,
    /// Set as soon as what comes, and came, is known to be no replay.
    complete: Arc<AtomicBool>,
    said_goodbye: bool,
}

impl Early {
    /// Goes on with a handshake until it is complete, or until early data was accepted.
    pub(super) async fn accept(
        started: StartHandshake<Recorded>,
        config: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let StartHandshake { accepted, io: mut stream, .. } = started;
        let tls = match accepted.into_connection(config) {
            Ok(tls) => tls,
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                if alert.write_all(&mut bytes).is_ok() {
                    // Whoever is gone need not be told.
                    let _ = stream.write_all(&bytes).await;
                }
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        };
        let mut early = Self { stream, tls, complete: Arc::default(), said_goodbye: false };
        poll_fn(|context| early.shake(context)).await?;
        Ok(early)
    }

    fn shake(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What came together with the hello was read with it.
        self.process(context)?;
        loop {
            ready!(self.send(context))?;
            if !self.tls.is_handshaking() || self.tls.early_data().is_some() {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.receive(context))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            self.process(context)?;
        }
    }

    /// Takes bytes from the network; 0: there will be no more.
    fn receive(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut stream = Blocking { stream: &mut self.stream, context };
        match self.tls.read_tls(&mut stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            outcome => Poll::Ready(outcome),
        }
    }

    fn process(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let outcome = self.tls.process_new_packets();
        if let Err(error) = outcome {
            // Says why, if that can be said at once.
            let _ = self.send(context);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        if !self.tls.is_handshaking() {
            self.complete.store(true, Relaxed);
        }
        Ok(())
    }

    /// Hands to the network what waits for it.
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            let mut stream = Blocking { stream: &mut self.stream, context };
            match self.tls.write_tls(&mut stream) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives what has been decrypted, early data first; `None`: nothing is there.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> Option<io::Result<()>> {
        if let Some(mut early) = self.tls.early_data() {
            let mut piece = [0; PIECE];
            let room = piece.len().min(buffer.remaining());
            match early.read(piece.get_mut(..room).unwrap_or_default()) {
                Ok(0) => {}
                Ok(count) => {
                    buffer.put_slice(piece.get(..count).unwrap_or_default());
                    return Some(Ok(()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        let mut reader = self.tls.reader();
        match reader.fill_buf() {
            Ok(bytes) => {
                let count = bytes.len().min(buffer.remaining());
                buffer.put_slice(bytes.get(..count).unwrap_or_default());
                reader.consume(count);
                Some(Ok(()))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Has bytes encrypted and sent by `write`, as far as there is room for them.
    fn offer(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(&mut rustls::Writer<'_>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.send(context))?;
        let count = write(&mut self.tls.writer())?;
        if let Poll::Ready(Err(error)) = self.send(context) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncRead for Early {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if let Some(given) = self.give(buffer) {
                return Poll::Ready(given);
            }
            ready!(self.receive(context))?;
            self.process(context)?;
            // Tickets, at the end of the handshake; what finds no room goes with the next answer.
            if let Poll::Ready(Err(error)) = self.send(context) {
                return Poll::Ready(Err(error));
            }
        }
    }
}

impl AsyncWrite for Early {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.offer(context, |writer| writer.write(bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.offer(context, |writer| writer.write_vectored(pieces))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.said_goodbye {
            self.said_goodbye = true;
            self.tls.send_close_notify();
        }
        ready!(self.send(context))?;
        match ready!(Pin::new(&mut self.stream).poll_shutdown(context)) {
            // The other side was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            outcome => Poll::Ready(outcome),
        }
    }
}

/// The stream as rustls wants it: what would wait is an error.
struct Blocking<'a, 'c> {
    stream: &'a mut Recorded,
    context: &'a mut Context<'c>,
}

impl Blocking<'_, '_> {
    fn at_once<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
        match polled {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl io::Read for Blocking<'_, '_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        Self::at_once(Pin::new(&mut *self.stream).poll_read(self.context, &mut buffer))?;
        Ok(buffer.filled().len())
    }
}

impl io::Write for Blocking<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::at_once(Pin::new(&mut *self.stream).poll_write(self.context, bytes))
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        Self::at_once(Pin::new(&mut *self.stream).poll_write_vectored(self.context, pieces))
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::at_once(Pin::new(&mut *self.stream).poll_flush(self.context))
    }
}

/// Both kinds are the same to whoever reads and writes.
macro_rules! delegate {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Secured::Complete($stream) => $call,
            Secured::Early($stream) => $call,
        }
    };
}

impl AsyncRead for Secured {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_read(context, buffer))
    }
}

impl AsyncWrite for Secured {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, stream => Pin::new(stream).poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, stream => Pin::new(stream).poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Complete(stream) => stream.is_write_vectored(),
            Self::Early(stream) => stream.is_write_vectored(),
        }
    }
}
