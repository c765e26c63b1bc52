//! Requests that change to another protocol: WebSocket over HTTP/1.1 and HTTP/2, with a real client and a real server.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use enforcer_tests::{
    edge::{Edge, NAME, Outgoing, Site, route},
    origin::Origin,
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, client_async,
    tungstenite::{
        Error, Message,
        handshake::server::{Request as Asked, Response as Agreed},
        protocol::Role,
    },
};
use tonic::codegen::tokio_stream::StreamExt as _;

use super::bodies::{eventually, within};

/// A WebSocket server that sends back what it gets, and says so in a field of its own.
async fn echo() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                #[allow(clippy::result_large_err, reason = "the library's signature")]
                let agree = |asked: &Asked, mut agreed: Agreed| {
                    assert_eq!(asked.headers()["host"], NAME);
                    assert!(asked.headers().contains_key("x-forwarded-for"));
                    agreed.headers_mut().insert("x-agreed", "yes".parse().unwrap());
                    Ok(agreed)
                };
                let Ok(mut socket) = accept_hdr_async(stream, agree).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    let is_data = message.is_text() || message.is_binary();
                    if is_data && send(&mut socket, message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}

async fn send<S>(socket: &mut WebSocketStream<S>, message: Message) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    use futures_util::SinkExt as _;
    socket.send(message).await
}

fn site(server: SocketAddr) -> Result<Site> {
    let mut site = Site::new(server)?;
    site.config.routes[0].upgrade = vec!["websocket".to_owned()];
    site.config.routes.push(route("/plain/", None, &[]));
    Ok(site)
}

/// A WebSocket over HTTP/1.1.
async fn http1(
    edge: &Edge,
    path: &str,
) -> Result<Result<WebSocketStream<impl AsyncRead + AsyncWrite + Unpin + use<>>, Error>> {
    let stream = edge.tls(NAME, &["http/1.1"]).await?;
    let outcome = within(client_async(format!("wss://{NAME}{path}"), stream)).await?;
    Ok(outcome.map(|(socket, response)| {
        assert_eq!(response.headers()["x-agreed"], "yes");
        socket
    }))
}

/// Asks for WebSocket by extended CONNECT.
async fn connect(
    edge: &Edge,
    path: &str,
    protocol: &'static str,
) -> Result<http::Response<hyper::body::Incoming>> {
    let mut client = edge.http2().await?;
    // The client learns from the first answer at the latest that it may.
    let first = Request::get("/plain/x").body(Empty::new().boxed())?;
    drop(within(client.send(first)).await??);
    let request = Request::builder().method(Method::CONNECT).uri(path);
    let request = request.header("sec-websocket-version", "13").extension(Protocol::from_static(protocol));
    within(client.send(request.body(Outgoing::new(Empty::new()))?)).await?
}

/// A WebSocket over HTTP/2.
async fn http2(edge: &Edge, path: &str) -> Result<WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>> {
    let response = connect(edge, path, "websocket").await?;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-agreed"], "yes");
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let upgraded = within(hyper::upgrade::on(response)).await??;
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) -> Result<()> {
    let large = Message::binary(vec![7; 1 << 20]);
    for message in [Message::text("hello"), large, Message::text("")] {
        send(&mut socket, message.clone()).await?;
        assert_eq!(within(socket.next()).await?.unwrap()?, message);
    }
    socket.close(None).await?;
    while let Some(last) = within(socket.next()).await? {
        assert!(last?.is_close());
    }
    Ok(())
}

#[tokio::test]
async fn websockets_pass_over_both_protocols() -> Result<()> {
    let edge = site(echo().await?)?.start()?;
    converse(http1(&edge, "/public/ws").await??).await?;
    converse(http2(&edge, "/public/ws").await?).await?;
    let count = |status| edge.metrics.requests.with_label_values(&["/public/", status]).get();
    assert_eq!((count("1xx"), count("2xx")), (1, 1));
    eventually(|| edge.metrics.connections_open.get() == 0).await
}

#[tokio::test]
async fn only_routes_that_allow_it_upgrade() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = site(origin.address)?.start()?;
    // The server is not asked for it, and answers as always.
    for (path, status) in [("/plain/ws", 200), ("/api/ws", 401), ("/nowhere", 404)] {
        let refused = http1(&edge, path).await?.err().unwrap();
        assert!(
            matches!(&refused, Error::Http(response) if response.status() == status),
            "{path}: {refused}"
        );
    }
    // A server that does not agree.
    let refused = http1(&edge, "/public/ws").await?.err().unwrap();
    assert!(matches!(&refused, Error::Http(response) if response.status() == 200), "{refused}");
    for (path, protocol, status) in [
        ("/plain/ws", "websocket", 501),
        ("/public/ws", "other", 501),
        ("/public/ws", "websocket", 502),
        ("/public/status/403", "websocket", 403),
        ("/api/ws", "websocket", 401),
    ] {
        let response = connect(&edge, path, protocol).await?;
        assert_eq!(response.status().as_u16(), status, "{path} {protocol}");
    }
    Ok(())
}

#[tokio::test]
async fn silence_ends_a_tunnel() -> Result<()> {
    let mut site = site(echo().await?)?;
    site.config.upstreams.get_mut("api").unwrap().upgrade_timeout = Duration::from_millis(500);
    let edge = site.start()?;
    let mut socket = http1(&edge, "/public/ws").await??;
    for _ in 0..8 {
        send(&mut socket, Message::text("not yet")).await?;
        assert!(within(socket.next()).await?.unwrap()?.is_text());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!matches!(within(socket.next()).await?, Some(Ok(_))));
    assert!(!matches!(within(http2(&edge, "/public/ws").await?.next()).await?, Some(Ok(_))));
    eventually(|| edge.metrics.connections_open.get() == 0).await
}

#[tokio::test]
async fn a_drain_waits_for_tunnels_and_then_cuts_them() -> Result<()> {
    let server = echo().await?;
    let edge = site(server)?.start()?;
    let sockets = (http1(&edge, "/public/ws").await??, http2(&edge, "/public/ws").await?);
    let drain = tokio::spawn(edge.ingress.drain(Duration::from_secs(20)));
    converse(sockets.0).await?;
    assert!(!drain.is_finished());
    converse(sockets.1).await?;
    assert_eq!(within(drain).await??.aborted, 0);

    let edge = site(server)?.start()?;
    let mut sockets = (http1(&edge, "/public/ws").await??, http2(&edge, "/public/ws").await?);
    assert_eq!(within(edge.ingress.drain(Duration::from_millis(100))).await?.aborted, 2);
    assert!(!matches!(within(sockets.0.next()).await?, Some(Ok(_))));
    assert!(!matches!(within(sockets.1.next()).await?, Some(Ok(_))));
    Ok(())
}
