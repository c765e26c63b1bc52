//! `POST /revoke` on the metrics listener: token revocation as RFC 7009 has it, for the one client that the configuration names.
//!
//! Nothing has to be verified of the token: what is remembered is a hash of what its holder sends, and a token that is good for
//! nothing is none the worse for it. Nobody is served without a secret, and the listener is one of loopback then.

use std::sync::Arc;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use serde_json::json;

use super::revocation;
use crate::{
    clock,
    metrics::http::Admin,
    policy::{Policy, SharedPolicy},
    revoked::{Kind, mark::token_body},
    strict_json,
};

/// Longest token, bytes.
const LONGEST: usize = 16 << 10;

/// Answers by the policy in force.
#[derive(Clone, Debug)]
pub struct Endpoint(pub SharedPolicy);

impl Admin for Endpoint {
    fn answer(&self, head: &Parts, body: &[u8]) -> Response<Full<Bytes>> {
        answer(&Arc::clone(&self.0.load()), head, body, clock::unix_now())
    }
}

/// What a request for revocation gets.
pub fn answer(policy: &Policy, head: &Parts, body: &[u8], now: u64) -> Response<Full<Bytes>> {
    let Some(client) = policy.revocation_client() else {
        return plain(StatusCode::NOT_FOUND, "revocation.client_id is not set\n".to_owned());
    };
    if head.method != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only POST\n".to_owned());
    }
    let known = credentials(head).is_some_and(|(id, secret)| client.is(&id, &secret));
    if !known {
        tracing::warn!("POST /revoke without the secret of revocation.client_id");
        let mut response = error(StatusCode::UNAUTHORIZED, "invalid_client");
        let challenge = HeaderValue::from_static("Basic realm=\"revocation\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    // RFC 7009 section 2.1: a form, with the token once.
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let is_form = kind
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"));
    let mut tokens = form_urlencoded::parse(body).filter(|(name, _)| name == "token").map(|(_, token)| token);
    let token = match (is_form, tokens.next(), tokens.next()) {
        (true, Some(token), None) if !token.is_empty() && token.len() <= LONGEST => token,
        _ => return error(StatusCode::BAD_REQUEST, "invalid_request"),
    };
    let revoked = policy.revoked();
    let mark = revoked.marker().mark(Kind::Token, token_body(token.as_bytes()));
    let terms = revocation::token_terms(policy, expiry(&token), now);
    match revoked.revoke(mark, terms, now) {
        Ok(()) => {
            tracing::info!(client = client.id, "a token is revoked");
            plain(StatusCode::OK, String::new())
        }
        Err(_) => {
            // RFC 7009 section 2.2.1: the token is as good as it was, and the client has to know.
            revocation::full(policy);
            let mut response = error(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            response
        }
    }
}

/// `Authorization: Basic` (RFC 6749 section 2.3.1: both parts are form-encoded).
fn credentials(head: &Parts) -> Option<(String, String)> {
    let mut values = head.headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    let decoded = STANDARD.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(decoded).ok()?;
    let (id, secret) = text.split_once(':')?;
    let plain = |part: &str| {
        let (name, _) = form_urlencoded::parse(part.as_bytes()).next()?;
        Some(name.into_owned())
    };
    Some((plain(id)?, plain(secret)?))
}

/// When a JWT says that it ends; it is not verified.
fn expiry(token: &str) -> Option<u64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    // Some issuers write 0 for what never ends.
    strict_json::object(&claims)?.get("exp")?.as_u64().filter(|at| *at > 0)
}

fn error(status: StatusCode, error: &str) -> Response<Full<Bytes>> {
    let mut response = plain(status, json!({ "error": error }).to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
