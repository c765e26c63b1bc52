//! Long bodies: they pass at the pace of their reader, and nothing on the way collects them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use enforcer_tests::{
    edge::{Edge, Outgoing, Site},
    origin::{Origin, PRODUCED},
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame};

use super::bodies::within;

/// What is sent in each case.
const LENGTH: u64 = 192 << 20;
/// What may be on the way at once: windows and buffers of two connections, and of the sockets between them.
const ON_THE_WAY: u64 = 16 << 20;
const PIECE: usize = 64 << 10;

/// Zeros, of which it is known how many were taken.
struct Zeros {
    left: u64,
    taken: Arc<AtomicU64>,
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static ZEROS: [u8; PIECE] = [0; PIECE];
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= PIECE as u64;
        self.taken.fetch_add(PIECE as u64, SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&ZEROS)))))
    }
}

/// Edges with an upstream in HTTP/1.1 and one in HTTP/2.
fn edges(origin: &Origin) -> Result<[Edge; 2]> {
    let edge = |scheme: &str| {
        let mut site = Site::new(origin.address)?;
        site.config.http.max_body_bytes = 0;
        site.config.upstreams.get_mut("api").unwrap().servers =
            vec![format!("{scheme}://{}", origin.address).parse()?];
        site.start()
    };
    Ok([edge("http")?, edge("h2c")?])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_is_held_up_by_its_reader() -> Result<()> {
    let origin = Origin::start().await?;
    for edge in edges(&origin)? {
        for mut client in edge.clients().await? {
            PRODUCED.store(0, SeqCst);
            let request = Request::get(format!("/public/produce/{LENGTH}")).body(Empty::new().boxed())?;
            let mut body = client.send(request).await?.into_body();
            let mut read = 0;
            while let Some(frame) = within(body.frame()).await? {
                read += frame?.data_ref().map_or(0, Bytes::len) as u64;
                let ahead = PRODUCED.load(SeqCst).saturating_sub(read);
                assert!(ahead <= ON_THE_WAY, "{ahead} bytes are held between server and client");
            }
            assert_eq!(read, LENGTH);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_arrives_whole_and_is_held_up_by_its_server() -> Result<()> {
    let origin = Origin::start().await?;
    for edge in edges(&origin)? {
        for mut client in edge.clients().await? {
            let body: Outgoing = Zeros { left: LENGTH, taken: Arc::default() }.boxed();
            let response = within(client.send(Request::post("/public/count").body(body)?)).await??;
            let said = within(response.into_body().collect()).await??.to_bytes();
            assert_eq!(said, LENGTH.to_string());
        }
    }
    for is_http2 in [false, true] {
        // Anew: one stream that is held may take all that a server allows an HTTP/2 connection.
        for edge in edges(&origin)? {
            let mut client = if is_http2 { edge.http2().await? } else { edge.http1().await? };
            let taken = Arc::new(AtomicU64::new(0));
            let body: Outgoing = Zeros { left: LENGTH, taken: Arc::clone(&taken) }.boxed();
            // The answer begins before anything is read, and then the server reads nothing.
            let response = within(client.send(Request::post("/public/hold").body(body)?)).await??;
            let mut before = u64::MAX;
            // Until nothing moves any more.
            while before != taken.load(SeqCst) {
                before = taken.load(SeqCst);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            assert!(before <= ON_THE_WAY, "{before} bytes are held between client and server");
            drop(response);
        }
    }
    Ok(())
}
