//! A server behind the edge, in this process: it says what it was asked, echoes bodies, and misbehaves on request.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

/// A running origin; ends when dropped.
#[derive(Debug)]
pub struct Origin {
    /// Where it listens.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// Starts on a free loopback port of the running runtime.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
                );
            }
        });
        Ok(Self { address, task })
    }
}

/// What a request ends with: `/echo` gives its body back as it comes, `/sink` its length when
/// it is complete, `/stall` never answers, `/slow` takes a second, `/break` closes the
/// connection, everything else gets a description of itself.
async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, hyper::Error>>, hyper::Error> {
    let path = request.uri().path();
    if path.ends_with("/echo") {
        return Ok(Response::new(request.into_body().boxed()));
    }
    if path.ends_with("/sink") {
        let length = request.into_body().collect().await?.to_bytes().len();
        let length = Full::new(Bytes::from(length.to_string())).map_err(|never| match never {});
        return Ok(Response::new(length.boxed()));
    }
    if path.ends_with("/stall") {
        std::future::pending::<Infallible>().await;
    }
    if path.ends_with("/break") {
        let broken = Full::new(Bytes::from_static(b"short")).map_err(|never| match never {}).boxed();
        let mut response = Response::new(broken);
        response.headers_mut().insert("content-length", HeaderValue::from_static("not a number"));
        return Ok(response);
    }
    if path.ends_with("/slow") {
        tokio::time::sleep(Duration::from_millis(1000)).await;
    }
    if path.ends_with("/empty") {
        let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
        *response.status_mut() = http::StatusCode::NO_CONTENT;
        return Ok(response);
    }
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let seen = json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "version": format!("{:?}", request.version()),
        "headers": headers,
    });
    let body = Full::new(Bytes::from(seen.to_string())).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert("server", HeaderValue::from_static("origin/1.0"));
    headers.insert("x-powered-by", HeaderValue::from_static("Origin"));
    headers.insert("strict-transport-security", HeaderValue::from_static("max-age=1"));
    headers.insert("connection", HeaderValue::from_static("x-internal"));
    headers.insert("x-internal", HeaderValue::from_static("for the proxy only"));
    headers.insert("x-kept", HeaderValue::from_static("yes"));
    Ok(response)
}
