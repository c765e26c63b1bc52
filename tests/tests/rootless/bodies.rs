//! Request bodies that tests steer, and bounded waiting.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use enforcer_tests::edge::Outgoing;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// Far beyond what anything here takes, so that only a hang runs into it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The outcome of `future`, or an error if it hangs.
pub(super) async fn within<F: Future>(future: F) -> Result<F::Output> {
    tokio::time::timeout(PATIENCE, future).await.context("still waiting after 20 s")
}

/// Polls until `condition` holds.
pub(super) async fn eventually(mut condition: impl FnMut() -> bool) -> Result<()> {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

/// A body that is sent piece by piece; it ends when the sender is dropped.
pub(super) struct Channel(mpsc::Receiver<Bytes>);

impl Channel {
    pub(super) fn open() -> (mpsc::Sender<Bytes>, Outgoing) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Self(receiver).boxed())
    }
}

impl Body for Channel {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// A body that does not say how long it is.
pub(super) struct Unannounced(pub(super) Full<Bytes>);

impl Body for Unannounced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }
}
