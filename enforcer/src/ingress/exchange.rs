//! The answer to a request for tokens: read whole before anything of it goes on, so that the next refresh token is known before its client
//! can use it.

use http::{
    HeaderMap, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};
use serde_json::Value;

use super::worker::Worker;
use crate::{
    clock,
    denial::Denial,
    policy::{
        refreshes::{Exchange, Given, Refused},
        route::Route,
    },
    strict_json,
    upstream::AnswerBody,
};

/// Bytes of such an answer, at most.
const MOST_BYTES: usize = 64 << 10;

/// Asks for an answer that can be read here.
pub(super) fn prepare(headers: &mut HeaderMap) {
    headers.remove(ACCEPT_ENCODING);
}

/// Tells an exchange how it ended. Whatever is not an answer with tokens leaves the refresh token as it was: who gets it, and what the
/// server behind has made of it, is between its client and that server.
pub(super) async fn settle(
    worker: &Worker,
    route: &Route,
    exchange: Box<Exchange>,
    response: Response<AnswerBody>,
) -> Result<Response<AnswerBody>, Denial> {
    let Some(oauth) = route.oauth.as_ref().filter(|_| response.status() == StatusCode::OK) else {
        return Ok(response);
    };
    let (head, body) = response.into_parts();
    let (bytes, body) = body.read_whole(MOST_BYTES).await?;
    let answer = if head.headers.contains_key(CONTENT_ENCODING) { None } else { strict_json::object(&bytes) };
    let said = |name: &str| answer.as_ref()?.get(name).and_then(Value::as_str);
    let given = match answer {
        None => Given::Unknown,
        Some(_) => Given::Tokens {
            refresh: said("refresh_token").map(|token| oauth.mark(token)),
            access: said("access_token").map(|token| oauth.mark(token)),
        },
    };
    let now = clock::unix_now();
    match exchange.end(given, now) {
        Ok(is_tracked) => {
            if !is_tracked {
                worker.shared.metrics.refresh_untracked.inc();
            }
            Ok(Response::from_parts(head, body))
        }
        Err(Refused::Reused(ended)) => {
            oauth.end_line(&ended, now);
            Err(Denial::OauthRefreshReused)
        }
        Err(Refused::UnderWay | Refused::OtherKey) => Err(Denial::OauthRefreshReused),
    }
}
