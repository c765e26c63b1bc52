//! What hand-made clients do to HTTP/2, and how they end: `ENHANCE_YOUR_CALM`, one offence, and no trace of the connection.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::{Context as _, Result};
use enforcer::denial::Denial;
use enforcer_tests::{
    edge::{Edge, NAME, Site},
    frames::{self, ACK, END_HEADERS, END_STREAM, fields, frame, kind, preface, request},
    origin::Origin,
};
use http::Request;
use http_body_util::{BodyExt, Empty, Full};
use tokio::{
    io::{AsyncWriteExt, ReadHalf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::bodies::{eventually, within};

type Reader = ReadHalf<TlsStream<TcpStream>>;

/// Sends all of it, and whatever the other side says meanwhile is for the caller.
async fn attack(edge: &Edge, bytes: Vec<u8>) -> Result<Reader> {
    let (reader, mut writer) = tokio::io::split(edge.tls(NAME, &["h2"]).await?);
    tokio::spawn(async move {
        // It may be cut off in the middle.
        let _ = writer.write_all(&bytes).await;
        std::future::pending::<()>().await;
    });
    Ok(reader)
}

/// Why the connection ended.
async fn end(reader: &mut Reader) -> Result<Option<&'static str>> {
    let mut reason = None;
    while let Ok(Some(frame)) = within(frames::next(reader)).await? {
        if frame.kind == kind::GOAWAY {
            reason = frame.reason();
        }
    }
    Ok(reason)
}

/// An attacker gets nowhere, and everybody else is served.
async fn is_cut(edge: &mut Edge, bytes: Vec<u8>, denial: Denial) -> Result<()> {
    let mut reader = attack(edge, bytes).await?;
    assert_eq!(end(&mut reader).await?, Some("ENHANCE_YOUR_CALM"));
    assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, denial);
    assert_eq!(edge.metrics.denials.with_label_values(&[denial.code()]).get(), 1);
    eventually(|| edge.metrics.connections_open.get() == 0).await?;
    let mut client = edge.http2().await?;
    let answer = client.send(Request::get("/public/x").body(Empty::new().boxed())?).await?;
    assert_eq!(answer.status(), 200);
    assert!(edge.offences.try_recv().is_err());
    Ok(())
}

/// Against a front door as it is by default.
async fn flood(repeated: impl Fn(u32) -> Vec<u8>, count: u32) -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    let bytes = (0..count).flat_map(repeated);
    let bytes = preface().into_iter().chain(bytes).collect();
    is_cut(&mut edge, bytes, Denial::Http2Flood).await
}

fn get(stream: u32) -> Vec<u8> {
    frame(kind::HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/public/stall"))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

#[tokio::test]
async fn rapid_reset() -> Result<()> {
    flood(|n| [get(2 * n + 1), reset(2 * n + 1)].concat(), 2_000).await
}

/// One request at a time, which h2 has handed on before it is taken back.
#[tokio::test]
async fn rapid_reset_without_haste() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.control_frames.as_mut().unwrap().burst = 100;
    let mut edge = site.start()?;
    let mut stream = edge.tls(NAME, &["h2"]).await?;
    stream.write_all(&preface()).await?;
    let mut sent = 0;
    let reason = 'all: loop {
        let id = 2 * sent + 1;
        sent += 1;
        let ping = frame(kind::PING, 0, 0, b"are you?");
        let _ = stream.write_all(&[get(id), ping, reset(id)].concat()).await;
        loop {
            match within(frames::next(&mut stream)).await?? {
                Some(frame) if frame.kind == kind::PING && frame.flags & ACK != 0 => break,
                Some(frame) if frame.kind == kind::GOAWAY => break 'all frame.reason(),
                Some(_) => {}
                None => break 'all None,
            }
        }
    };
    assert_eq!(reason, Some("ENHANCE_YOUR_CALM"));
    assert!((40..200).contains(&sent), "{sent}");
    assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::Http2Flood);
    Ok(())
}

#[tokio::test]
async fn continuation_flood() -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    let head = frame(kind::HEADERS, END_STREAM, 1, &request("GET", "/public/x"));
    let more = frame(kind::CONTINUATION, 0, 1, &[]).repeat(10_000);
    is_cut(&mut edge, [preface(), head, more].concat(), Denial::Http2Flood).await
}

#[tokio::test]
async fn settings_flood() -> Result<()> {
    // SETTINGS_ENABLE_PUSH: 0
    flood(|_| frame(kind::SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0]), 3_000).await
}

#[tokio::test]
async fn ping_flood() -> Result<()> {
    flood(|_| frame(kind::PING, 0, 0, b"are you?"), 3_000).await
}

#[tokio::test]
async fn priority_flood() -> Result<()> {
    flood(|n| frame(kind::PRIORITY, 0, 2 * n + 1, &[0, 0, 0, 0, 16]), 3_000).await
}

#[tokio::test]
async fn window_update_flood() -> Result<()> {
    flood(|_| frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()), 3_000).await
}

#[tokio::test]
async fn flood_of_frames_that_nobody_knows() -> Result<()> {
    flood(|_| frame(0xfa, 0, 0, &[]), 3_000).await
}

#[tokio::test]
async fn empty_data_flood() -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    let head = frame(kind::HEADERS, END_HEADERS, 1, &request("POST", "/public/stall"));
    let more = frame(kind::DATA, 0, 1, &[]).repeat(3_000);
    is_cut(&mut edge, [preface(), head, more].concat(), Denial::Http2Flood).await
}

/// A field of 4 KB that is sent once and named many times (RFC 7541 section 6.1): 16 KB that would unpack to 60 MB.
#[tokio::test]
async fn header_bomb() -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    let mut block = request("GET", "/public/x");
    let mut bomb = fields(&[("x", "y".repeat(3_900))]);
    // With incremental indexing: it becomes entry 62 of the table.
    bomb[0] = 0x40;
    block.extend(bomb);
    block.extend([0xbe; 12_000]);
    let head = frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &block);
    is_cut(&mut edge, [preface(), head].concat(), Denial::Http2Flood).await
}

#[tokio::test]
async fn a_head_that_does_not_end() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.header_timeout = Duration::from_millis(200);
    let mut edge = site.start()?;
    let head = frame(kind::HEADERS, END_STREAM, 1, &request("GET", "/public/x"));
    is_cut(&mut edge, [preface(), head].concat(), Denial::RequestTimeout).await
}

#[tokio::test]
async fn who_takes_much_may_say_so_often() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let limit = site.config.http.control_frames.as_mut().unwrap();
    (limit.events, limit.period, limit.burst) = (1, Duration::from_secs(3600), 100);
    site.config.http.max_body_bytes = 0;
    let mut edge = site.start()?;
    let mut client = edge.http2().await?;
    // Its windows are of 64 KiB, so it opens them hundreds of times.
    let body = Full::new(vec![b'x'; 16 << 20].into()).boxed();
    let answer = client.send(Request::post("/public/echo").body(body)?).await?;
    let body = within(answer.into_body().collect()).await?.context("cut off")?.to_bytes();
    assert_eq!(body.len(), 16 << 20);
    assert!(edge.offences.try_recv().is_err());
    Ok(())
}
