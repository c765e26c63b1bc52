//! Whether a request to the authorization server behind is one that may be made: the code flow with PKCE and nothing older
//! (RFC 6749, RFC 7636, RFC 9700), by a client that is known, to where it said that it wants its answers.
//!
//! Comes after the checks of the route, because the form has to be read for it. A grant for such a route is worth nothing before
//! [`judge`] has said yes. The request goes on as it came.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer_common::limiter::Charge;
use http::{HeaderMap, HeaderValue, Method, header};

use super::{Grant, Now, Refusal, facts::RequestFacts, token::binding};
use crate::{
    config::Endpoint,
    denial::Denial,
    policy::{
        Policy,
        refreshes::{Exchange, Refused},
        route::{Route, oauth::OAuth},
    },
    replay::Receipt,
};

/// Bytes of a form, at most.
pub const MOST_BYTES: u64 = 64 << 10;
/// Members of a query in which credentials are never sent (RFC 6750 section 2.3, RFC 9700 section 4.3.2).
const CREDENTIALS: [&str; 4] = ["access_token", "refresh_token", "id_token", "client_secret"];
/// Characters of a code verifier (RFC 7636 section 4.1).
const VERIFIER: std::ops::RangeInclusive<usize> = 43..=128;
/// Characters of a challenge by S256: 32 bytes in base64url.
const CHALLENGE: usize = 43;

/// Names in forms on which the outcome depends.
const JUDGED: [&str; 14] = [
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "grant_type",
    "redirect_uri",
    "refresh_token",
    "request",
    "request_uri",
    "response_mode",
    "response_type",
    "scope",
];

type Form<'a> = HashMap<Cow<'a, str>, Cow<'a, str>>;

/// Whether a query carries what must not be written into logs, histories and referrers.
pub(super) fn has_credentials(query: &str) -> bool {
    // Most queries have nothing like it.
    let may = query.bytes().any(|byte| byte == b'%') || query.contains("token") || query.contains("secret");
    let is_one = |pair: &str| {
        form_urlencoded::parse(pair.as_bytes()).any(|(name, _)| CREDENTIALS.contains(&name.as_ref()))
    };
    may && query.split(';').any(is_one)
}

/// Judges a request that the checks of its route let through; `query` is that of its target. [`written`] is to be asked afterwards.
pub fn judge(
    policy: &Policy,
    grant: &mut Grant,
    facts: &RequestFacts<'_>,
    query: Option<&str>,
    body: &[u8],
    now: Now,
) -> Result<(), Refusal> {
    let route = Arc::clone(&grant.route);
    let Some(oauth) = &route.oauth else { return Ok(()) };
    let judged = match oauth.endpoint {
        Endpoint::Authorization => authorization(oauth, facts, query, body).map(|()| (None, None)),
        Endpoint::Token => token(policy, &route, oauth, facts, query, body, now),
    };
    match judged {
        Ok(exchange) => {
            let (exchange, proof) = exchange;
            grant.exchange = exchange.map(Box::new);
            grant.is_judged = proof.is_none();
            grant.proof = proof;
            Ok(())
        }
        Err(refusal) => Err(refusal.at(&route, std::mem::take(&mut grant.standing))),
    }
}

/// RFC 6749 section 4.1.1 with RFC 7636 section 4.3.
fn authorization(
    oauth: &OAuth,
    facts: &RequestFacts<'_>,
    query: Option<&str>,
    body: &[u8],
) -> Result<(), Refusal> {
    let query = query.unwrap_or_default();
    let form = match *facts.method {
        Method::GET | Method::HEAD if body.is_empty() => form(query.as_bytes())?,
        Method::POST if query.is_empty() => {
            is_form(facts.headers)?;
            form(body)?
        }
        Method::GET | Method::HEAD | Method::POST => return Err(Refusal::plain(Denial::OauthRequest)),
        _ => return Err(not_allowed("GET, HEAD, POST")),
    };
    let get = |name: &str| form.get(name).map(Cow::as_ref).filter(|value: &&str| !value.is_empty());
    // What says elsewhere what is asked for cannot be judged here (RFC 9101, RFC 9126).
    if get("request").is_some() || get("request_uri").is_some() {
        return Err(Refusal::plain(Denial::OauthRequest));
    }
    let client = get("client_id").ok_or_else(|| Refusal::plain(Denial::OauthRequest))?;
    let uris = oauth.clients.get(client).ok_or_else(|| Refusal::plain(Denial::OauthRedirect))?;
    match get("redirect_uri") {
        Some(uri) if uris.iter().any(|known| known == uri) => {}
        Some(_) | None => return Err(Refusal::plain(Denial::OauthRedirect)),
    }
    // Others bring tokens through the browser (RFC 9700 section 2.1.2).
    match get("response_type") {
        Some("code") => {}
        Some(_) => return Err(Refusal::plain(Denial::OauthGrant)),
        None => return Err(Refusal::plain(Denial::OauthRequest)),
    }
    let challenge = get("code_challenge").ok_or_else(|| Refusal::plain(Denial::OauthPkce))?;
    // Without a method it would be `plain` (RFC 7636 section 4.3).
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_good = get("code_challenge_method") == Some("S256")
        && challenge.len() == CHALLENGE
        && challenge.bytes().all(good);
    if is_good { Ok(()) } else { Err(Refusal::plain(Denial::OauthPkce)) }
}

/// RFC 6749 section 3.2; who is to be told how the exchange ended, and what is to be waited for before it begins.
fn token(
    policy: &Policy,
    route: &Route,
    oauth: &OAuth,
    facts: &RequestFacts<'_>,
    query: Option<&str>,
    body: &[u8],
    now: Now,
) -> Result<(Option<Exchange>, Option<Receipt>), Refusal> {
    if *facts.method != Method::POST {
        return Err(not_allowed("POST"));
    }
    if query.is_some_and(|query| !query.is_empty()) {
        return Err(Refusal::plain(Denial::OauthRequest));
    }
    is_form(facts.headers)?;
    let form = form(body)?;
    let get = |name: &str| form.get(name).map(Cow::as_ref).filter(|value: &&str| !value.is_empty());
    let own = basic(facts.headers)?;
    let client = match (&own, get("client_id")) {
        (Some(own), Some(named)) if own != named => return Err(Refusal::plain(Denial::OauthRequest)),
        (Some(own), _) => Some(own.as_str()),
        (None, named) => named,
    };
    if !oauth.clients.is_empty() && !client.is_some_and(|client| oauth.clients.contains_key(client)) {
        return Err(Refusal::plain(Denial::OauthRedirect));
    }
    if let (Some(limiter), Some(client)) = (&oauth.client_limiter, client) {
        match limiter.charge(limiter.hash(client.as_bytes()), now.monotonic) {
            Charge::Within => {}
            Charge::Exceeded(wait) => {
                let retry_after = Some(wait.div_ceil(1_000_000_000).max(1));
                return Err(Refusal { retry_after, ..Refusal::plain(Denial::RateLimited) });
            }
            Charge::Full | Charge::Banned(_) => return Err(Refusal::plain(Denial::LimiterFull)),
        }
    }
    let grant = get("grant_type").ok_or_else(|| Refusal::plain(Denial::OauthRequest))?;
    if !oauth.grants.iter().any(|known| known == grant) {
        return Err(Refusal::plain(Denial::OauthGrant));
    }
    let refresh = match grant {
        "authorization_code" => {
            get("code").ok_or_else(|| Refusal::plain(Denial::OauthRequest))?;
            let verifier = get("code_verifier").ok_or_else(|| Refusal::plain(Denial::OauthPkce))?;
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if !VERIFIER.contains(&verifier.len()) || !verifier.bytes().all(good) {
                return Err(Refusal::plain(Denial::OauthPkce));
            }
            if let (Some(uri), Some(uris)) =
                (get("redirect_uri"), client.and_then(|client| oauth.clients.get(client)))
                && !uris.iter().any(|known| known == uri)
            {
                return Err(Refusal::plain(Denial::OauthRedirect));
            }
            None
        }
        "refresh_token" => {
            let token = get("refresh_token").ok_or_else(|| Refusal::plain(Denial::OauthRequest))?;
            if oauth.is_revoked(token, now.unix) {
                return Err(Refusal::plain(Denial::TokenRevoked));
            }
            Some(token)
        }
        _ => None,
    };
    // Last, so that nothing that comes before uses a proof up.
    let holder = match oauth.dpop {
        Some(demand) => binding::holder(policy, route, facts, demand, now)?,
        None => None,
    };
    let (holder, receipt) = holder.unzip();
    let begun = oauth.begin(refresh, holder.as_deref(), now.unix).map_err(|refused| match refused {
        Refused::Reused(ended) => {
            oauth.end_line(&ended, now.unix);
            Refusal::plain(Denial::OauthRefreshReused)
        }
        Refused::UnderWay => Refusal { retry_after: Some(1), ..Refusal::plain(Denial::OauthRefreshBusy) },
        Refused::OtherKey => {
            let denial = if holder.is_some() { Denial::DpopWrongKey } else { Denial::DpopMissing };
            binding::without_key(policy, denial, now)
        }
    });
    begun.map(|exchange| (exchange, receipt))
}

/// Waits until the use of a proof is written down. Before that a grant is worth nothing.
pub async fn written(grant: &mut Grant) -> Result<(), Refusal> {
    let Some(proof) = grant.proof.take() else { return Ok(()) };
    if !proof.is_kept().await {
        return Err(Refusal::plain(Denial::ReplayStore));
    }
    grant.is_judged = true;
    Ok(())
}

/// A form in which nothing stands twice (RFC 6749 section 3.1 and 3.2): of two, which one would the server take? Nor what some servers
/// would take for what is judged here.
fn form(bytes: &[u8]) -> Result<Form<'_>, Refusal> {
    let mut form = Form::new();
    for (name, value) in form_urlencoded::parse(bytes) {
        let is_hidden = || JUDGED.iter().any(|judged| name != *judged && folded(&name) == *judged);
        if is_hidden() || form.insert(name, value).is_some() {
            return Err(Refusal::plain(Denial::OauthRequest));
        }
    }
    // Older readers end a pair there as well (HTML 4.01 appendix B.2.2).
    let has_others = |pair: &[u8]| pair.split(|byte| *byte == b';').skip(1).any(|part| part.contains(&b'='));
    if bytes.split(|byte| *byte == b'&').any(has_others) {
        return Err(Refusal::plain(Denial::OauthRequest));
    }
    Ok(form)
}

/// The name that servers make of one which fold case, or names into variables and arrays.
fn folded(name: &str) -> String {
    let name = name.trim().split(['[', '\0']).next().unwrap_or_default();
    name.to_ascii_lowercase().replace([' ', '.'], "_")
}

fn is_form(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut kinds = headers.get_all(header::CONTENT_TYPE).iter();
    let kind = kinds.next().filter(|_| kinds.next().is_none()).and_then(|kind| kind.to_str().ok());
    let mut parts = kind.unwrap_or_default().split(';').map(str::trim);
    let is_form = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/x-www-form-urlencoded"))
            // By another one servers would read other names (RFC 6749 appendix B has UTF-8).
            && parts.all(is_utf8);
    // A coded form would be read by the server and not here.
    if is_form && !headers.contains_key(header::CONTENT_ENCODING) {
        Ok(())
    } else {
        Err(Refusal::plain(Denial::OauthRequest))
    }
}

/// Whether a parameter of `Content-Type` leaves the form as it is read here.
fn is_utf8(parameter: &str) -> bool {
    let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
    !name.trim().eq_ignore_ascii_case("charset")
        || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
}

/// The client's id of HTTP Basic (RFC 6749 section 2.3.1), if it comes that way.
fn basic(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let read = || {
        let (scheme, rest) = value.to_str().ok()?.split_once(' ')?;
        let decoded = STANDARD.decode(rest.trim()).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
        let text = String::from_utf8(decoded).ok()?;
        let id = text.split_once(':')?.0;
        Some(form_urlencoded::parse(id.as_bytes()).next()?.0.into_owned())
    };
    match (read(), values.next()) {
        (Some(id), None) => Ok(Some(id)),
        _ => Err(Refusal::plain(Denial::OauthRequest)),
    }
}

fn not_allowed(methods: &'static str) -> Refusal {
    Refusal::plain(Denial::MethodNotAllowed).with(Some((header::ALLOW, HeaderValue::from_static(methods))))
}
