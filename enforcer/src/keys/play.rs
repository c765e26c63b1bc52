//! Asks Google what a token says (`decodeIntegrityToken`): the only way for tokens of standard requests.
//!
//! In the name of a service account, whose token is fetched once for all calls and kept until shortly before it ends. Calls are bounded in
//! time, size, number at once and number a day; whoever does not answer is left alone for a while. What does not come to a verdict is an
//! [`Unavailable`] that says why, and nothing follows from that here: what it means is declared by the route.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{
    HeaderMap, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER},
};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::fetch;
use crate::{
    attestation::{
        Refused,
        play::{
            account::Account,
            breaker::{Breaker, Ended, Leave},
            budget::{Budget, Quota, Who},
            token,
            verdict::Verdict,
        },
    },
    clock::{self, KernelTime},
    denial::Denial,
    metrics::Metrics,
    secret::Secret,
    strict_json,
};

mod tend;

pub use crate::attestation::play::{Cause, Outcome, Unavailable};
pub(super) use tend::{Tended, look_after};

/// Where Google is.
pub const API: &str = "https://playintegrity.googleapis.com";
/// Bytes of an answer, at most.
const MOST_BYTES: usize = 64 << 10;
/// How long roots are believed that were read.
const ROOTS: Duration = Duration::from_secs(600);
/// An access token is fetched anew so long before it ends.
const AHEAD: u64 = 60;
/// For how long an access token is good whose end is not said (RFC 6749 section 5.1 lets it be), in seconds.
const UNSAID: u64 = 300;

/// How Google is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where: [`API`], or what stands in for it.
    pub api: Uri,
    /// Where the account's tokens are; [default: what its key file says].
    pub token_url: Option<Uri>,
    /// Roots for both, in PEM; [default: those of the system].
    pub authorities: Option<PathBuf>,
    /// Whether both may be at addresses that are not public.
    pub private_addresses: bool,
    /// For one call, the account's token included.
    pub timeout: Duration,
    /// Calls at once.
    pub max_calls: u32,
    /// Calls a day.
    pub quota: Quota,
}

struct Grant {
    token: Arc<Secret<String>>,
    until: KernelTime,
}

struct State {
    breaker: Breaker,
    budget: Budget,
}

/// Asks Google for one service account.
pub struct Decoder {
    config: Config,
    token_url: Uri,
    account: Arc<Account>,
    state: Mutex<State>,
    /// Held while it is fetched, so that it is fetched once.
    grant: tokio::sync::Mutex<Option<Grant>>,
    tls: Mutex<Option<(Arc<ClientConfig>, KernelTime)>>,
    calls: AtomicU32,
    metrics: Metrics,
    was_good: AtomicBool,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("config", &self.config)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

/// A call under way. However it ends, even by being given up, the breaker is told.
struct Call<'a> {
    decoder: &'a Decoder,
    leave: Leave,
    ended: Ended,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.decoder.state().breaker.end(self.leave, self.ended, clock::kernel_now());
        self.decoder.calls.fetch_sub(1, Relaxed);
    }
}

impl Decoder {
    /// Asks as `config` says, in the name of `account`.
    pub fn new(config: Config, account: impl Into<Arc<Account>>, metrics: Metrics) -> Result<Self> {
        let account = account.into();
        let token_url = match &config.token_url {
            Some(address) => address.clone(),
            None => account.token_url.parse().context("`token_uri` of the service account is no address")?,
        };
        for (name, address) in [("the API", &config.api), ("the account's tokens", &token_url)] {
            let https = address.scheme_str() == Some("https") && address.host().is_some();
            ensure!(https, "the address of {name} is not https: {address}");
        }
        let state = State { breaker: Breaker::default(), budget: Budget::new(config.quota) };
        Ok(Self {
            config,
            token_url,
            account,
            state: Mutex::new(state),
            grant: tokio::sync::Mutex::new(None),
            tls: Mutex::new(None),
            calls: AtomicU32::new(0),
            metrics,
            was_good: AtomicBool::new(true),
        })
    }

    /// Whom it asks, and how.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Calls that are under way.
    pub fn under_way(&self) -> u32 {
        self.calls.load(Relaxed)
    }

    /// Calls that a new device could have made at once, and whether Google is left alone.
    pub fn condition(&self) -> (u64, bool) {
        let state = self.state();
        (state.budget.left(clock::kernel_now()), state.breaker.is_open())
    }

    /// Asks what a token of `package` says. Ends within the time that is configured.
    pub async fn decode(&self, package: &str, token: &str, who: Who) -> Outcome {
        if let Err(refused) = is_asked(package, token) {
            return Outcome::Foreign(refused);
        }
        let outcome = self.call(package, token, who).await;
        self.metrics.play.calls.with_label_values(&[outcome.name()]).inc();
        let good = !matches!(outcome, Outcome::Unavailable(_));
        let before = self.was_good.swap(good, Relaxed);
        match &outcome {
            Outcome::Unavailable(Unavailable { cause, why, .. }) if before => {
                let cause = cause.name();
                warn!(
                    cause,
                    error = why,
                    "Google cannot be asked about tokens: each route does as it declares"
                );
            }
            Outcome::Verdict(_) | Outcome::Foreign(_) if !before => {
                info!("Google can be asked about tokens again");
            }
            Outcome::Verdict(_) | Outcome::Foreign(_) | Outcome::Unavailable(_) => {}
        }
        outcome
    }

    async fn call(&self, package: &str, token: &str, who: Who) -> Outcome {
        let mut call = match self.begin(who) {
            Ok(call) => call,
            Err(unavailable) => return Outcome::Unavailable(unavailable),
        };
        let patience = self.config.timeout;
        let (outcome, ended) = match tokio::time::timeout(patience, self.ask(package, token)).await {
            Ok(told) => told,
            Err(_) => failed(Cause::Slow, format!("no answer within {} ms", patience.as_millis())),
        };
        call.ended = ended;
        outcome
    }

    /// Room for a call: at once, with a Google that answers, and for the day.
    fn begin(&self, who: Who) -> Result<Call<'_>, Unavailable> {
        let unavailable =
            |cause, why: &str, retry_after| Unavailable { cause, why: why.to_owned(), retry_after };
        let room = self
            .calls
            .fetch_update(Relaxed, Relaxed, |calls| (calls < self.config.max_calls).then_some(calls + 1));
        if room.is_err() {
            return Err(unavailable(Cause::Busy, "too many calls are under way", Some(1)));
        }
        let now = clock::kernel_now();
        let mut state = self.state();
        let admitted = match state.breaker.admit(now) {
            Ok(leave) => state.budget.take(who, now).map(|()| leave).map_err(|wait| {
                state.breaker.cancel(leave);
                unavailable(
                    Cause::Budget,
                    "the calls of the day are spread, and none is left now",
                    Some(wait),
                )
            }),
            Err(wait) => Err(unavailable(
                Cause::Resting,
                "Google has not answered lately, and is left alone",
                Some(wait),
            )),
        };
        drop(state);
        match admitted {
            Ok(leave) => Ok(Call { decoder: self, leave, ended: Ended::Failed }),
            Err(unavailable) => {
                self.calls.fetch_sub(1, Relaxed);
                Err(unavailable)
            }
        }
    }

    async fn ask(&self, package: &str, token: &str) -> (Outcome, Ended) {
        let grant = match self.grant().await {
            Ok(grant) => grant,
            Err(told) => return told,
        };
        let body = json!({"integrityToken": token}).to_string();
        let base = self.config.api.path().trim_end_matches('/');
        let path = format!("{base}/v1/{package}:decodeIntegrityToken");
        let authorization = format!("Bearer {}", grant.expose());
        let sent = self.post(&self.config.api, &path, "application/json", Some(&authorization), body).await;
        let (status, headers, body) = match sent {
            Ok(answer) => answer,
            Err(error) => return failed(Cause::Unreachable, format!("{error:#}")),
        };
        let told = answer(status, &headers, &body, package);
        if status == StatusCode::UNAUTHORIZED {
            // It may have been withdrawn before its time: the next call fetches another one.
            self.grant.lock().await.take_if(|kept| Arc::ptr_eq(&kept.token, &grant));
        }
        told
    }

    /// The account's token; fetched by one call, for which others wait.
    async fn grant(&self) -> Result<Arc<Secret<String>>, (Outcome, Ended)> {
        let mut kept = self.grant.lock().await;
        if let Some(grant) = kept.as_ref().filter(|grant| grant.until > clock::kernel_now()) {
            return Ok(Arc::clone(&grant.token));
        }
        let address = self.token_url.to_string();
        let assertion = self.account.assertion(&address, clock::unix_now());
        let assertion = assertion.map_err(|why| failed(Cause::Account, why))?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
            .append_pair("assertion", assertion.expose())
            .finish();
        let path = self.token_url.path_and_query().map_or("/", |path| path.as_str());
        let sent = self.post(&self.token_url, path, "application/x-www-form-urlencoded", None, form).await;
        let (status, headers, body) =
            sent.map_err(|error| failed(Cause::Unreachable, format!("{error:#} (the account's token)")))?;
        let why = |what: &str| format!("{what} (the account's token at {address})");
        match status.as_u16() {
            200 => {}
            429 => return Err(rest(&headers, why("429"))),
            500..=599 => return Err(failed(Cause::Server, why(status.as_str()))),
            _ => return Err(failed(Cause::Account, why(status.as_str()))),
        }
        let (token, seconds) =
            granted(&body).ok_or_else(|| failed(Cause::Garbage, why("no bearer token")))?;
        let token = Arc::new(token);
        let until = clock::kernel_now().plus_seconds(seconds.saturating_sub(AHEAD));
        *kept = Some(Grant { token: Arc::clone(&token), until });
        Ok(token)
    }

    async fn post(
        &self,
        address: &Uri,
        path: &str,
        kind: &str,
        authorization: Option<&str>,
        body: String,
    ) -> Result<(StatusCode, HeaderMap, Bytes)> {
        let tls = self.tls().await?;
        let allow = (self.config.private_addresses, "private_addresses");
        let mut fields = vec![(ACCEPT, "application/json"), (CONTENT_TYPE, kind)];
        fields.extend(authorization.map(|authorization| (AUTHORIZATION, authorization)));
        fetch::post((address, path), &tls, allow, &fields, body, MOST_BYTES).await
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>> {
        let now = clock::kernel_now();
        if let Some((tls, until)) = &*lock(&self.tls)
            && *until > now
        {
            return Ok(Arc::clone(tls));
        }
        let tls = fetch::tls(self.config.authorities.clone()).await?;
        *lock(&self.tls) = Some((Arc::clone(&tls), now.plus(ROOTS)));
        Ok(tls)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// What needs no call: no token at all, or a package that would be another address.
fn is_asked(package: &str, token: &str) -> Result<(), Refused> {
    let refused = |why: &str| Err(Refused::new(Denial::AttestationMalformed, "form", why));
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_';
    if package.is_empty() || package.len() > 255 || !package.bytes().all(is_name) {
        return refused("the package is no name of an Android app");
    }
    // Opaque, but never more than base64url and dots.
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=+/".contains(&byte);
    if token.is_empty() || token.len() > token::MOST || !token.bytes().all(is_token) {
        return refused("it is no token");
    }
    Ok(())
}

fn failed(cause: Cause, why: impl Into<String>) -> (Outcome, Ended) {
    (Outcome::Unavailable(Unavailable { cause, why: why.into(), retry_after: None }), Ended::Failed)
}

/// 429: as long as it wishes, within limits.
fn rest(headers: &HeaderMap, why: String) -> (Outcome, Ended) {
    let wish = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let unavailable = Unavailable { cause: Cause::Quota, why, retry_after: wish };
    (Outcome::Unavailable(unavailable), Ended::Refused(wish.map(Duration::from_secs)))
}

fn answer(status: StatusCode, headers: &HeaderMap, body: &[u8], package: &str) -> (Outcome, Ended) {
    match status.as_u16() {
        200 => {}
        400 => {
            let why = "Google does not know it, or not as a token of this app";
            return (
                Outcome::Foreign(Refused::new(Denial::AttestationMalformed, "google", why)),
                Ended::Answered,
            );
        }
        401 | 403 | 404 => {
            let why = format!(
                "{status}: the account may not ask for {package}, or the app is not linked to its project"
            );
            return failed(Cause::Account, why);
        }
        429 => return rest(headers, "429: Google's quota is used up".to_owned()),
        500..=599 => return failed(Cause::Server, status.to_string()),
        300..=399 => return failed(Cause::Garbage, format!("{status}, and no redirect is followed")),
        _ => return failed(Cause::Garbage, status.to_string()),
    }
    let object = strict_json::object(body);
    let payload = object.as_ref().and_then(|object| object.get("tokenPayloadExternal")?.as_object());
    let Some(payload) = payload else {
        return failed(Cause::Garbage, "200 without a tokenPayloadExternal, or with a member twice");
    };
    match Verdict::of(payload) {
        Ok(verdict) => (Outcome::Verdict(Box::new(verdict)), Ended::Answered),
        Err(refused) => failed(Cause::Garbage, format!("200 with a verdict that is none: {}", refused.why)),
    }
}

/// RFC 6749 section 5.1: the token, and for how many seconds it is good.
fn granted(body: &[u8]) -> Option<(Secret<String>, u64)> {
    let object = strict_json::object(body)?;
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let token = text("access_token")
        .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))?;
    if !text("token_type")?.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let seconds = match object.get("expires_in") {
        None => UNSAID,
        Some(seconds) => seconds.as_u64()?,
    };
    Some((Secret::new(token.to_owned()), seconds))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
