//! One fetch of a JWK set over https: bounded in time, size and place, and by one way only: no redirect is followed.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Request, StatusCode, Uri,
    header::{ACCEPT, AGE, CACHE_CONTROL, ETAG, HOST, IF_NONE_MATCH, USER_AGENT},
};
use http_body_util::{BodyExt as _, Empty, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::address::is_public;
use crate::{
    config::{RemoteKeys, UpstreamProtocol, UpstreamTls},
    policy::{
        keyring::{Fetched, Validator},
        tls::servers,
    },
    strict_json,
};

/// Bytes of a document, at most; `policy::jwks` allows no more either.
const MOST_BYTES: usize = 1 << 20;
/// Bytes of an `ETag` that is sent back.
const MOST_TAG: usize = 1_024;

/// A set; nothing of it where it is the one that `known` tells from others.
pub(super) async fn keys(remote: &RemoteKeys, known: Option<Validator>) -> Result<Fetched> {
    // Roots may have been renewed since; a fetch is rare.
    let tls = tls(remote.authorities.clone()).await?;
    let set = match &remote.discovery {
        None => remote.address.clone(),
        Some(issuer) => {
            let document = get(&remote.address, &tls, remote.private_addresses, None)
                .await
                .with_context(|| format!("discovery at {}", remote.address))?;
            jwks_uri(&document.text.unwrap_or_default(), issuer)
                .with_context(|| format!("discovery at {}", remote.address))?
        }
    };
    // A tag means something where it was given, and nowhere else.
    let known = known.filter(|known| set == known.address.as_str());
    get(&set, &tls, remote.private_addresses, known).await.with_context(|| format!("JWK set at {set}"))
}

/// How a server is spoken to whose certificate comes from these roots, or from those of the system.
pub(super) async fn tls(authorities: Option<PathBuf>) -> Result<Arc<ClientConfig>> {
    let tls = UpstreamTls {
        authorities,
        server_name: None,
        certificate: None,
        alpn: vec![UpstreamProtocol::Http1],
    };
    Ok(tokio::task::spawn_blocking(move || servers::connect(&tls)).await??.http1)
}

/// Where an issuer says that its keys are (OpenID Connect Discovery 1.0 section 4.3: it must be the issuer that it is asked as).
fn jwks_uri(document: &[u8], issuer: &str) -> Result<Uri> {
    let document = strict_json::object(document).context("not a JSON object, or one with a member twice")?;
    match document.get("issuer") {
        Some(Value::String(named)) if named == issuer => {}
        _ => bail!("it is not that of {issuer}: `issuer` says something else"),
    }
    let Some(Value::String(address)) = document.get("jwks_uri") else { bail!("no `jwks_uri`") };
    let address: Uri = address.parse().context("`jwks_uri` is no address")?;
    ensure!(address.scheme_str() == Some("https"), "`jwks_uri` is not https");
    Ok(address)
}

async fn get(
    address: &Uri,
    tls: &Arc<ClientConfig>,
    private_addresses: bool,
    known: Option<Validator>,
) -> Result<Fetched> {
    let (mut sender, connection) =
        open::<Empty<Bytes>>(address, tls, (private_addresses, "jwks_private_addresses")).await?;
    // Ends with this function, whatever the server does.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let path = address.path_and_query().map_or("/", |path| path.as_str());
    let authority = address.authority().context("no host")?.as_str();
    let mut request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("enforcer/", env!("CARGO_PKG_VERSION")));
    if let Some(known) = &known {
        request = request.header(IF_NONE_MATCH, &known.tag);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("HTTP")?;
    let status = response.status();
    let lifetime = lifetime(response.headers());
    if let (StatusCode::NOT_MODIFIED, Some(known)) = (status, known) {
        return Ok(Fetched { text: None, lifetime, validator: Some(known) });
    }
    ensure!(!status.is_redirection(), "answered {status}, and no redirect is followed");
    ensure!(status == StatusCode::OK, "answered {status}");
    let tag = response.headers().get(ETAG).filter(|tag| tag.len() <= MOST_TAG).cloned();
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?;
    let validator = tag.map(|tag| Validator { address: address.to_string(), tag });
    Ok(Fetched { text: Some(body.to_bytes().to_vec()), lifetime, validator })
}

/// Sends a body to `path` of an address and reads the answer, at most so many bytes. Bounded in time by whoever asks.
pub(super) async fn post(
    (address, path): (&Uri, &str),
    tls: &Arc<ClientConfig>,
    allow: (bool, &str),
    fields: &[(HeaderName, &str)],
    body: String,
    most: usize,
) -> Result<(StatusCode, HeaderMap, Bytes)> {
    let (mut sender, connection) = open::<Full<Bytes>>(address, tls, allow).await?;
    // Ends with this function, whatever the server does.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let mut request = Request::post(path)
        .header(HOST, address.authority().context("no host")?.as_str())
        .header(USER_AGENT, concat!("enforcer/", env!("CARGO_PKG_VERSION")));
    for (name, value) in fields {
        request = request.header(name, *value);
    }
    let response = sender.send_request(request.body(Full::new(body.into()))?).await.context("HTTP")?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, most).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?;
    Ok((head.status, head.headers, body.to_bytes()))
}

/// A connection to the server of an https address.
pub(super) async fn open<B>(
    address: &Uri,
    tls: &Arc<ClientConfig>,
    allow: (bool, &str),
) -> Result<(http1::SendRequest<B>, http1::Connection<TokioIo<TlsStream<TcpStream>>, B>)>
where
    B: hyper::body::Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let host = address.host().context("no host")?.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).context("no usable host")?;
    let stream = connect(host, address.port_u16().unwrap_or(443), allow).await?;
    let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.context("TLS")?;
    http1::Builder::new().max_buf_size(64 << 10).handshake(TokioIo::new(stream)).await.context("HTTP")
}

/// `allow`: whether addresses may be used that are not public, and the key that says so.
async fn connect(host: &str, port: u16, (private_addresses, key): (bool, &str)) -> Result<TcpStream> {
    let found = tokio::net::lookup_host((host, port)).await.context("looking up the host")?;
    let found: Vec<SocketAddr> = found.collect();
    let allowed: Vec<SocketAddr> =
        found.iter().copied().filter(|address| private_addresses || is_public(address.ip())).collect();
    if let (true, Some(address)) = (allowed.is_empty(), found.first()) {
        bail!("{} is no public address; `{key} = true` allows it", address.ip());
    }
    let mut last = None;
    for address in allowed {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some((address, error)),
        }
    }
    match last {
        Some((address, error)) => Err(error).with_context(|| format!("connecting to {address}")),
        None => bail!("the host has no address"),
    }
}

/// For how long an answer may be kept (RFC 9111 section 4.2.1): `max-age` less the `Age` that it has already. What must not be kept
/// at all is kept for the shortest time that there is.
fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let mut lifetime = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',') {
            let directive = directive.trim().to_ascii_lowercase();
            if directive == "no-store" || directive == "no-cache" {
                return Some(Duration::ZERO);
            }
            if let Some(seconds) = directive.strip_prefix("max-age=") {
                lifetime = seconds.trim_matches('"').parse().ok();
            }
        }
    }
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.parse::<u64>().ok()).unwrap_or(0);
    lifetime.map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(age)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_what_the_issuer_says() {
        for (fields, expected) in [
            (vec![], None),
            (vec![("cache-control", "public, max-age=300")], Some(300)),
            (vec![("cache-control", "max-age=300"), ("age", "100")], Some(200)),
            (vec![("cache-control", "max-age=300"), ("age", "400")], Some(0)),
            (vec![("cache-control", "Max-Age=\"60\"")], Some(60)),
            (vec![("cache-control", "max-age=300"), ("cache-control", "no-store")], Some(0)),
            (vec![("cache-control", "max-age=x")], None),
        ] {
            let mut headers = http::HeaderMap::new();
            for (name, value) in &fields {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(lifetime(&headers), expected.map(Duration::from_secs), "{fields:?}");
        }
    }

    #[test]
    fn discovery_is_believed_of_its_issuer_alone() {
        let read = |text: &str| jwks_uri(text.as_bytes(), "https://id.example.com");
        let good = r#"{"issuer":"https://id.example.com","jwks_uri":"https://id.example.com/keys"}"#;
        assert_eq!(read(good).unwrap(), "https://id.example.com/keys");
        for bad in [
            "[]",
            r#"{"issuer":"https://id.example.com"}"#,
            r#"{"issuer":"https://id.example.com/","jwks_uri":"https://id.example.com/keys"}"#,
            r#"{"issuer":"https://id.example.com","jwks_uri":"http://id.example.com/keys"}"#,
            r#"{"issuer":"https://id.example.com","jwks_uri":"https://a/","jwks_uri":"https://b/"}"#,
            r#"{"jwks_uri":"https://id.example.com/keys"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
