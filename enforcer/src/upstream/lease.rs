//! A connection on loan to one request, from the moment it is chosen until its answer has been read or given up.

use std::rc::Rc;

use http::{Method, Request, Response, response};
use hyper::{body::Incoming, client::conn::TrySendError};

use super::{
    body::RequestBody,
    direct::{Direct, Failed},
    pool::{Channel, Server, Unavailable, Want},
};

/// A request that is in the hands of a server; counts as that until it is dropped.
pub(super) struct Flight(Rc<Server>);

impl Flight {
    pub(super) fn begin(server: &Rc<Server>) -> Self {
        server.upstream.health.count_request(server.index, true);
        Self(Rc::clone(server))
    }

    /// Waits for a connection.
    pub(super) async fn board(self, want: Want) -> Result<Lease, Unavailable> {
        let (channel, reused) = self.0.acquire(want).await?;
        Ok(Lease { channel: Some(channel), reused, is_last: false, flight: self })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.upstream.health.count_request(self.0.index, false);
    }
}

/// See the module. Dropped early, it ends an HTTP/1.1 connection, which has the rest of an answer in it.
pub(super) struct Lease {
    /// There until the end.
    channel: Option<Channel>,
    /// The connection carried other requests before.
    pub(super) reused: bool,
    /// The connection carries nothing after this.
    is_last: bool,
    flight: Flight,
}

impl Lease {
    pub(super) fn is_http2(&self) -> bool {
        self.channel.as_ref().is_some_and(Channel::is_http2)
    }

    pub(super) fn server(&self) -> &Rc<Server> {
        &self.flight.0
    }

    /// Sends a request. One that was not begun comes back with the error.
    pub(super) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        match &mut self.channel {
            Some(Channel::Http1 { sender, .. }) => sender.try_send_request(request).await,
            Some(Channel::Http2 { sender, .. }) => sender.try_send_request(request).await,
            Some(Channel::Direct(_)) | None => std::future::pending().await,
        }
    }

    /// Whether the connection is one for [`Lease::ask`].
    pub(super) fn is_direct(&self) -> bool {
        self.channel.as_ref().is_some_and(Channel::is_direct)
    }

    /// Sends the head of a request without a body.
    pub(super) async fn ask(&mut self, head: &[u8], method: &Method) -> Result<response::Parts, Failed> {
        match &mut self.channel {
            Some(Channel::Direct(direct)) => direct.ask(head, method).await,
            _ => std::future::pending().await,
        }
    }

    /// The connection, for whoever reads the answer from it.
    pub(super) fn take_direct(&mut self) -> Option<Box<Direct>> {
        match self.channel.take() {
            Some(Channel::Direct(direct)) => Some(direct),
            other => {
                self.channel = other;
                None
            }
        }
    }

    /// Has the connection end with this answer.
    pub(super) const fn retire(&mut self) {
        self.is_last = true;
    }

    /// Gives it back, with its answer read to the end.
    pub(super) fn finish_direct(mut self, direct: Box<Direct>) {
        self.channel = Some(Channel::Direct(direct));
        self.finish();
    }

    /// The answer was read to its end: the connection can carry another request.
    pub(super) fn finish(mut self) {
        if let Some(channel) = self.channel.take() {
            self.flight.0.release(channel, !self.is_last);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take() {
            self.flight.0.release(channel, false);
        }
    }
}
