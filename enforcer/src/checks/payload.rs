//! Whether the body of a request is encrypted as its route asks for, and what is in it; and how its answer is encrypted.
//!
//! Whatever is wrong is one refusal, [`Denial::PayloadRefused`]; its [`Cause`] is for logs and metrics alone, and nothing is judged before
//! all of the body is there. What was opened is used up before anybody acts on it.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE},
    request,
};

use super::{Grant, Now, Refusal, facts::RequestFacts};
use crate::{
    config::PayloadFormat,
    denial::Denial,
    policy::{
        Policy,
        payload::{Edition, Payload},
    },
    replay::{Life, Receipt, Spent, Token},
    sealed::{self, Head, Place, Reply, hpke, jwe, layout},
};

/// The body of a message that has none, encrypted: JWE and the layout as they are, HPKE in base64url.
pub const SEALED: HeaderName = HeaderName::from_static("payload-sealed");
/// Of the layout: id of the server's key.
pub const KEY: HeaderName = HeaderName::from_static("payload-key");
/// Of the layout: the app's public key in base64url.
pub const SESSION: HeaderName = HeaderName::from_static("payload-session");
/// Of the layout: when the body was made, seconds since 1970.
pub const TIME: HeaderName = HeaderName::from_static("payload-time");
/// What an encrypted body is: RFC 7515 section 9.2.1, and of our own.
const JWE: &str = "application/jose";
const HPKE: &str = "application/vnd.enforcer.hpke";

/// Why a body is refused. Nobody outside learns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is not encrypted.
    Plain,
    /// In a form that is not accepted here, or what goes with it is missing or stands twice.
    Form,
    /// Longer than it may be.
    TooLarge,
    /// To a key that there is not, or not any more.
    UnknownKey,
    /// It does not open: another key, another request, changed on the way.
    Unopened,
    /// What is in it may not be there: a body where there can be none, a call of gRPC.
    Content,
    /// Made too long ago, or in the future.
    Stale,
    /// It was used before.
    Replayed,
    /// There is no room to remember that it was used.
    ReplayFull,
    /// It could not be written down that it was used.
    ReplayStore,
}

impl Cause {
    /// As a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Form => "form",
            Self::TooLarge => "too_large",
            Self::UnknownKey => "unknown_key",
            Self::Unopened => "unopened",
            Self::Content => "content",
            Self::Stale => "stale",
            Self::Replayed => "replayed",
            Self::ReplayFull => "replay_full",
            Self::ReplayStore => "replay_store",
        }
    }

    /// Whether it counts towards a ban. Phones have wrong clocks without anybody's fault, and what we cannot remember is ours.
    pub const fn is_offence(self) -> bool {
        !matches!(self, Self::Stale | Self::ReplayFull | Self::ReplayStore)
    }
}

/// What came of a body.
#[derive(Debug)]
pub enum Outcome {
    /// It is not encrypted, and need not be.
    Plain,
    /// It was opened.
    Opened(Box<Opened>),
}

/// What was in a body.
#[derive(Debug)]
pub struct Opened {
    /// For the server behind.
    pub body: Vec<u8>,
    /// What it is.
    pub kind: HeaderValue,
    /// How the answer is encrypted.
    pub sealing: Sealing,
    receipt: Receipt,
}

/// Encrypts the answer to one request.
#[derive(Debug)]
pub struct Sealing {
    /// By which section.
    pub payload: Arc<Payload>,
    /// In which form.
    pub format: PayloadFormat,
    /// Id of the key that the request was encrypted to.
    pub key: String,
    is_head: bool,
    reply: Reply,
}

impl Sealing {
    /// Whether an answer can have no body (RFC 9110 section 6.4.1), so that what is encrypted is told in a field.
    pub fn is_bodiless(&self, status: StatusCode) -> bool {
        use StatusCode as S;
        self.is_head || [S::NO_CONTENT, S::RESET_CONTENT, S::NOT_MODIFIED].contains(&status)
    }

    /// The encrypted body of an answer; `None` if it cannot be made.
    pub fn seal(&self, status: StatusCode, kind: &str, body: &[u8]) -> Option<Vec<u8>> {
        self.reply.seal(Head { status: status.as_u16(), kind }, body).ok()
    }

    /// The same as the value of [`SEALED`], for an answer without a body.
    pub fn field(&self, status: StatusCode, kind: &str) -> Option<HeaderValue> {
        let sealed = self.seal(status, kind, b"")?;
        let text =
            if self.format == PayloadFormat::Hpke { URL_SAFE_NO_PAD.encode(sealed).into() } else { sealed };
        HeaderValue::try_from(text).ok()
    }

    /// `Content-Type` of the encrypted answer; `None`: that of the answer.
    pub const fn kind(&self) -> Option<HeaderValue> {
        match self.format {
            PayloadFormat::Jwe => Some(HeaderValue::from_static(JWE)),
            PayloadFormat::Hpke => Some(HeaderValue::from_static(HPKE)),
            PayloadFormat::Layout => None,
        }
    }
}

/// What stands in a head of an encrypted body.
struct Sealed<'a> {
    format: PayloadFormat,
    /// In the place of a body.
    field: Option<&'a str>,
    /// As it stands there; empty: nothing.
    kind: &'a str,
}

/// The one value of a field.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Cause> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let is_one = values.next().is_none();
    value.to_str().ok().filter(|_| is_one).map(Some).ok_or(Cause::Form)
}

impl<'a> Sealed<'a> {
    /// `None` where nothing says that a body is encrypted.
    fn read(headers: &'a HeaderMap) -> Result<Option<Self>, Cause> {
        let field = one(headers, &SEALED)?;
        let kind = one(headers, &CONTENT_TYPE)?.unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim_ascii();
        let format = if headers.contains_key(SESSION) {
            PayloadFormat::Layout
        } else if let Some(field) = field {
            // The parts of JWE are divided by dots, and base64url has none.
            if field.contains('.') { PayloadFormat::Jwe } else { PayloadFormat::Hpke }
        } else if essence.eq_ignore_ascii_case(JWE) {
            PayloadFormat::Jwe
        } else if essence.eq_ignore_ascii_case(HPKE) {
            PayloadFormat::Hpke
        } else {
            return Ok(None);
        };
        // What is encrypted is no longer coded, and what is coded inside nobody here could judge.
        if headers.contains_key(CONTENT_ENCODING) {
            Err(Cause::Form)
        } else {
            Ok(Some(Self { format, field, kind }))
        }
    }

    /// Opens it with the keys of `edition`.
    fn open(
        &self,
        head: &request::Parts,
        wire: &[u8],
        edition: &Edition,
        most: usize,
    ) -> Result<sealed::Opened, Cause> {
        let decoded;
        let text = match self.field {
            None => wire,
            Some(_) if !wire.is_empty() => return Err(Cause::Form),
            Some(field) if self.format == PayloadFormat::Hpke => {
                decoded = URL_SAFE_NO_PAD.decode(field).map_err(|_| Cause::Form)?;
                &decoded
            }
            Some(field) => field.as_bytes(),
        };
        let place = Place { method: head.method.as_str(), path: head.uri.path() };
        let keys = &edition.keys;
        let why = |key: Option<&str>| {
            let is_unknown = key.is_some_and(|key| keys.find(key).is_err());
            if is_unknown { Cause::UnknownKey } else { Cause::Unopened }
        };
        match self.format {
            PayloadFormat::Jwe => {
                jwe::open(text, keys, place, most).map_err(|_| why(jwe::key_of(text).ok().as_deref()))
            }
            PayloadFormat::Hpke => {
                hpke::open(text, keys, place, most).map_err(|_| why(hpke::key_of(text).ok()))
            }
            PayloadFormat::Layout => {
                let field = |name| one(&head.headers, &name)?.ok_or(Cause::Form);
                let (key, app, made) = (field(KEY)?, field(SESSION)?, field(TIME)?);
                let app = URL_SAFE_NO_PAD.decode(app).map_err(|_| Cause::Form)?;
                let is_number = made.bytes().all(|byte| byte.is_ascii_digit());
                let made = made.parse().ok().filter(|_| is_number).ok_or(Cause::Form)?;
                let beside = layout::Beside { key, app: &app, made, kind: self.kind };
                layout::open(text, beside, keys, place, most).map_err(|_| why(Some(key)))
            }
        }
    }
}

/// Opens the body of a request that was admitted, and uses it up; `now` in seconds since 1970. Whoever acts on what was in it calls
/// [`used`] before.
pub fn open(
    policy: &Policy,
    grant: &mut Grant,
    head: &request::Parts,
    wire: &[u8],
    now: u64,
) -> Result<Outcome, Cause> {
    let Some(payload) = grant.route.payload.clone() else { return Ok(Outcome::Plain) };
    let config = &payload.config;
    let Some(sealed) = Sealed::read(&head.headers)? else {
        grant.is_opened = config.plain;
        return if config.plain { Ok(Outcome::Plain) } else { Err(Cause::Plain) };
    };
    if !config.formats.contains(&sealed.format) {
        return Err(Cause::Form);
    }
    let edition = payload.edition(now).ok_or(Cause::UnknownKey)?;
    let most = usize::try_from(config.max_body_bytes).unwrap_or(usize::MAX);
    let sealed::Opened { body, kind, made, once, key, reply } = sealed.open(head, wire, edition, most)?;
    let (window, skew) = (config.window.as_secs(), config.clock_skew.as_secs());
    let end = made.saturating_add(window).saturating_add(skew);
    if made > now.saturating_add(skew) || end < now {
        return Err(Cause::Stale);
    }
    let kind = if kind.is_empty() { &config.content_type } else { &kind };
    let is_call = kind.get(..16).is_some_and(|front| front.eq_ignore_ascii_case("application/grpc"));
    if is_call || sealed.field.is_some() && !body.is_empty() {
        return Err(Cause::Content);
    }
    let kind = HeaderValue::try_from(kind).map_err(|_| Cause::Content)?;
    // Anybody can encrypt to a public key: who has shown nothing else gets no more room than strangers have.
    let by_stranger = grant.claims.is_none() && grant.attested.is_none() && grant.route.signers.is_none();
    let token = Token::of("payload", &[key.as_bytes(), &once]);
    let life = Life { made, ahead: skew, until: end.saturating_add(1), by_stranger };
    let receipt = policy.replay.spend_for_good(token, life, now).map_err(|spent| match spent {
        Spent::Before => Cause::Replayed,
        Spent::Late => Cause::Stale,
        Spent::Full => Cause::ReplayFull,
    })?;
    let is_head = head.method == Method::HEAD;
    let format = sealed.format;
    let sealing = Sealing { payload, format, key, is_head, reply };
    Ok(Outcome::Opened(Box::new(Opened { body, kind, sealing, receipt })))
}

/// Waits until the use of a body is written down. Before that a grant is worth nothing.
pub async fn used(grant: &mut Grant, opened: Opened) -> Result<(Vec<u8>, HeaderValue, Sealing), Cause> {
    let Opened { body, kind, sealing, receipt } = opened;
    if !receipt.is_kept().await {
        return Err(Cause::ReplayStore);
    }
    grant.is_opened = true;
    Ok((body, kind, sealing))
}

/// Public keys, for apps.
#[derive(Debug)]
pub struct Published {
    /// A JWK set.
    pub body: Bytes,
    /// Tells it from others.
    pub etag: HeaderValue,
    /// `Cache-Control`.
    pub kept: HeaderValue,
}

/// The keys of a section, if that is what is asked for. Nobody has to show anything: they are public. Bans hold.
pub fn keys(policy: &Policy, facts: &RequestFacts<'_>, now: Now) -> Option<Result<Published, Refusal>> {
    let payload = policy.payloads().find(|payload| *payload.config.keys_path == *facts.path)?;
    Some(if facts.is_banned {
        Err(Refusal::plain(Denial::Banned))
    } else if *facts.method != Method::GET && *facts.method != Method::HEAD {
        let allow = Some((ALLOW, HeaderValue::from_static("GET, HEAD")));
        Err(Refusal::plain(Denial::MethodNotAllowed).with(allow))
    } else {
        let edition = payload.edition(now.unix)?;
        let Edition { body, etag, .. } = edition;
        Ok(Published { body: body.clone(), etag: etag.clone(), kept: payload.kept.clone() })
    })
}
