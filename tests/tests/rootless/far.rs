//! A client half a second away on a lossy network, as TCP shows it: every piece takes a quarter of a second on its way, and one in
//! thirty comes when it was sent a second time, with all that is behind it. Nothing may break of that with limits at their defaults.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use bytes::Bytes;
use enforcer_tests::{
    edge::{Edge, NAME, Site},
    origin::Origin,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::mpsc,
    task::JoinSet,
    time::Instant,
};

use super::{bodies::within, upstreams::futures};

/// One way.
const DELAY: Duration = Duration::from_millis(250);
/// Until a lost segment is there: it is missed after a round trip, and sent again.
const REPEATED: Duration = Duration::from_millis(1_000);
/// Bytes that travel as one: what a network carries of a connection at once.
const PIECE: usize = 16 << 10;
const ONE_IN: usize = 30;

/// A way to the edge that is long and bad; lives as long as the set.
async fn way(to: SocketAddr, tasks: &mut JoinSet<()>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tasks.spawn(async move {
        let (mut connections, mut number) = (JoinSet::new(), 0);
        while let (Ok((client, _)), Ok(server)) = (listener.accept().await, TcpStream::connect(to).await) {
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            // Each loses other ones.
            number += 7;
            connections.spawn(carry(from_client, to_server, number));
            connections.spawn(carry(from_server, to_client, number + 11));
        }
    });
    Ok(address)
}

async fn carry(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, mut number: usize) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let reading = async move {
        loop {
            let mut piece = vec![0; PIECE];
            let Ok(count @ 1..) = from.read(&mut piece).await else { return };
            piece.truncate(count);
            number += 1;
            let lost = number.is_multiple_of(ONE_IN);
            let due = Instant::now() + DELAY + if lost { REPEATED } else { Duration::ZERO };
            if sender.send((due, piece)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, piece)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

/// Everything that a client of this protocol does on one connection.
async fn visit(edge: &Edge, address: SocketAddr, is_http2: bool) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    let stream = edge.tls_over(stream, NAME, &[if is_http2 { "h2" } else { "http/1.1" }]).await?;
    let upload = Bytes::from(vec![b'x'; 200_000]);
    let requests = [
        Request::get("/public/x").body(Bytes::new())?,
        Request::post("/public/sink").body(upload.clone())?,
        Request::get("/public/produce/300000").body(Bytes::new())?,
        // Refused while it is on its way.
        Request::post("/api/x").body(upload)?,
        Request::get("/api/x")
            .header("authorization", format!("Bearer {}", edge.site.token()?))
            .body(Bytes::new())?,
    ];
    let expected = [StatusCode::OK, StatusCode::OK, StatusCode::OK, StatusCode::UNAUTHORIZED, StatusCode::OK];
    let mut answers = Vec::new();
    if is_http2 {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        // All at once.
        let mut under_way = JoinSet::new();
        for (number, request) in requests.into_iter().enumerate() {
            let mut sender = sender.clone();
            under_way.spawn(async move {
                let (mut head, body) = request.into_parts();
                head.uri = format!("https://{NAME}{}", head.uri).parse()?;
                let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
                let status = answer.status();
                anyhow::Ok((number, status, answer.into_body().collect().await?.to_bytes().len()))
            });
        }
        while let Some(answer) = under_way.join_next().await {
            answers.push(answer??);
        }
        answers.sort_unstable_by_key(|(number, ..)| *number);
    } else {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        for (number, request) in requests.into_iter().enumerate() {
            let (mut head, body) = request.into_parts();
            head.headers.insert("host", http::HeaderValue::from_static(NAME));
            sender.ready().await?;
            let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
            let status = answer.status();
            answers.push((number, status, answer.into_body().collect().await?.to_bytes().len()));
        }
    }
    for ((number, status, length), expected) in answers.iter().zip(expected) {
        ensure!(*status == expected, "request {number}, HTTP/2 {is_http2}: {status}");
        ensure!(*number != 2 || *length == 300_000, "request {number}: {length} bytes");
    }
    ensure!(answers.len() == expected.len());
    Ok(())
}

#[tokio::test]
async fn nothing_breaks_half_a_second_away_with_one_piece_in_thirty_lost() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = Site::new(origin.address)?.start()?;
    let mut tasks = JoinSet::new();
    let address = way(edge.address, &mut tasks).await?;
    let visits = (0..8).map(|number| within(visit(&edge, address, number % 2 == 0)));
    for (number, outcome) in futures(visits).await.into_iter().enumerate() {
        if let Err(error) = outcome.and_then(|inner| inner) {
            anyhow::bail!("client {number}: {error:#}");
        }
    }
    for stage in ["handshake", "head", "body", "write", "idle"] {
        assert_eq!(edge.metrics.time_limits.with_label_values(&[stage]).get(), 0, "{stage}");
    }
    Ok(())
}
