//! An upgraded connection: bytes both ways between a client and a server, until both have ended or nothing has passed for
//! too long. What they say is never looked at.

use std::{
    cell::Cell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use super::lease::Lease;
use crate::clock;

/// Bytes that are held in each direction.
const BUFFER: usize = 16 << 10;

/// The server's end, and the connection that it is: it counts as one, and as a request, as long as it lasts.
pub struct Tunnel {
    server: OnUpgrade,
    patience: Duration,
    lease: Lease,
}

impl Tunnel {
    pub(super) const fn new(server: OnUpgrade, lease: Lease, patience: Duration) -> Self {
        Self { server, patience, lease }
    }

    /// Passes bytes on from the moment at which both sides have changed protocols.
    pub async fn run(self, client: OnUpgrade) {
        let Self { server, patience, lease } = self;
        // One that does not come had its connection broken before.
        if let Ok((client, server)) = tokio::try_join!(client, server) {
            let last = Rc::new(Cell::new(clock::instant_now()));
            let mut client = Watched { stream: TokioIo::new(client), last: Rc::clone(&last) };
            let mut server = Watched { stream: TokioIo::new(server), last: Rc::clone(&last) };
            let passing = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER);
            unless_idle(passing, &last, patience).await;
        }
        drop(lease);
    }
}

async fn unless_idle(passing: impl Future, last: &Cell<Instant>, patience: Duration) {
    let mut passing = pin!(passing);
    loop {
        let end = last.get() + patience;
        let over = tokio::time::timeout_at(end.into(), passing.as_mut()).await.is_ok();
        if over || last.get() + patience <= clock::instant_now() {
            return;
        }
    }
}

/// A stream that notes when something passed.
struct Watched<S> {
    stream: S,
    last: Rc<Cell<Instant>>,
}

impl<S> Watched<S> {
    fn moved(&self) {
        self.last.set(clock::instant_now());
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if polled.is_ready() {
            self.moved();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        if polled.is_ready() {
            self.moved();
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
