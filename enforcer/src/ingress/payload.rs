//! Encrypted bodies: reads one whole and has it opened before anything else looks at it, and has its answer encrypted. What the server
//! behind gets, and says, is in the clear.

use std::{sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response,
    header::{
        ACCEPT_ENCODING, ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE, TRAILER, TRANSFER_ENCODING,
    },
    request,
};

use super::worker::Worker;
use crate::{
    checks::{
        Grant, Refusal,
        payload::{self, Cause, KEY, Outcome, SEALED, SESSION, Sealing, TIME},
    },
    clock,
    config::PayloadFormat,
    denial::Denial,
    log::Seldom,
    policy::payload::Payload,
    upstream::{AnswerBody, ClientBody, Room, Unread, Whole},
};

/// Time for a body, besides that for its bytes.
const TIME_TO_READ: Duration = Duration::from_secs(30);
/// Bytes a second that it has to come with on the whole, besides that time.
const RATE: u64 = 16 << 10;

/// Fields that tell of a body as it was sent: what the server gets is another one.
static OF_THE_WIRE: [HeaderName; 10] = [
    SEALED,
    KEY,
    SESSION,
    TIME,
    TRANSFER_ENCODING,
    TRAILER,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Fields that ask for an answer that could not be encrypted as one: coded, or in parts.
static ASKING: [HeaderName; 3] = [ACCEPT_ENCODING, RANGE, IF_RANGE];

/// Fields that tell of an answer in the clear.
static OF_THE_CLEAR: [HeaderName; 10] = [
    CONTENT_RANGE,
    ACCEPT_RANGES,
    ETAG,
    LAST_MODIFIED,
    TRAILER,
    TRANSFER_ENCODING,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Reads the body of a request whose route has encrypted ones, and gives back what goes on, with what encrypts the answer; the head is
/// made to tell of that.
pub(super) async fn open(
    worker: &Worker,
    grant: &mut Grant,
    head: &mut request::Parts,
    body: ClientBody,
    room: Room,
) -> Result<(ClientBody, Option<Sealing>), Refusal> {
    let Some(payload) = grant.route().payload.clone() else { return Ok((body, None)) };
    let most = payload.most_encrypted();
    let patience = TIME_TO_READ + Duration::from_secs(most / RATE);
    let opened = match tokio::time::timeout(patience, body.read(most, room)).await {
        Ok(Ok(Some(whole))) => unlock(worker, grant, head, whole).await,
        Ok(Ok(None)) => Err(Cause::TooLarge),
        Ok(Err(denial)) => return Err(at(grant, denial)),
        Err(_) => return Err(at(grant, Denial::RequestTimeout)),
    };
    opened.map_err(|cause| {
        note(worker, grant, &payload, cause);
        Refusal { is_forgiven: !cause.is_offence(), ..at(grant, Denial::PayloadRefused) }
    })
}

fn at(grant: &mut Grant, denial: Denial) -> Refusal {
    let route = Arc::clone(grant.route());
    Refusal::plain(denial).at(&route, std::mem::take(&mut grant.standing))
}

/// Operators learn why; nobody else does.
fn note(worker: &Worker, grant: &Grant, payload: &Payload, cause: Cause) {
    // Apart, so that nobody outside can have the one fall silent by the other.
    static OURS: Seldom = Seldom::new();
    static THEIRS: Seldom = Seldom::new();
    let metrics = &worker.shared.metrics.payload;
    metrics.refused.with_label_values(&[&*payload.name, cause.name()]).inc();
    let is_ours = matches!(cause, Cause::ReplayFull | Cause::ReplayStore);
    let spoken = if is_ours { &OURS } else { &THEIRS };
    if !spoken.may_speak(clock::unix_now()) {
        return;
    }
    let (source, route, cause) = (grant.source().get(), &*grant.route().name, cause.name());
    if is_ours {
        tracing::error!(%source, route, payload = &*payload.name, cause, "payload refused: its use cannot be remembered");
    } else {
        tracing::info!(%source, route, payload = &*payload.name, cause, "payload refused");
    }
}

async fn unlock(
    worker: &Worker,
    grant: &mut Grant,
    head: &mut request::Parts,
    whole: Whole,
) -> Result<(ClientBody, Option<Sealing>), Cause> {
    let outcome = {
        let policy = worker.shared.policy.load();
        payload::open(&policy, grant, head, whole.bytes(), clock::unix_now())?
    };
    let Outcome::Opened(opened) = outcome else { return Ok((whole.kept().1, None)) };
    let (content, kind, sealing) = payload::used(grant, *opened).await?;
    dress(&mut head.headers, &head.method, content.len(), kind);
    let labels = [&*sealing.payload.name, sealing.format.name(), &*sealing.key];
    worker.shared.metrics.payload.opened.with_label_values(&labels).inc();
    Ok((whole.replaced(content), Some(sealing)))
}

/// Makes a head that of the content.
fn dress(headers: &mut HeaderMap, method: &Method, length: usize, kind: HeaderValue) {
    for name in OF_THE_WIRE.iter().chain(&ASKING).chain([&CONTENT_TYPE, &CONTENT_LENGTH]) {
        headers.remove(name);
    }
    if length > 0 {
        headers.insert(CONTENT_TYPE, kind);
    }
    // RFC 9110 section 8.6: methods that are about a body say that there is none.
    if length > 0 || [Method::POST, Method::PUT, Method::PATCH].contains(method) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// Encrypts an answer for whoever has sent the request.
pub(super) async fn seal(
    worker: &Worker,
    sealing: Sealing,
    response: Response<AnswerBody>,
    mut room: Room,
) -> Result<Response<AnswerBody>, Denial> {
    let (mut head, body) = response.into_parts();
    let kind = head.headers.get(CONTENT_TYPE).map_or(Some(""), |kind| kind.to_str().ok()).map(str::to_owned);
    let is_coded = head.headers.get_all(CONTENT_ENCODING).iter().any(|coding| coding != "identity");
    let is_bodiless = sealing.is_bodiless(head.status);
    let made = match kind {
        Some(_) | None if is_coded => Err((Denial::PayloadAnswer, "coded")),
        None => Err((Denial::PayloadAnswer, "content_type")),
        Some(kind) if is_bodiless => {
            // Nothing comes, but the connection has to be seen to its end.
            drop(body.take(0, &mut room).await);
            sealing
                .field(head.status, &kind)
                .map(|field| (Some(field), Vec::new()))
                .ok_or((Denial::PayloadAnswer, "failed"))
        }
        Some(kind) => match body.take(sealing.payload.config.max_answer_bytes, &mut room).await {
            Ok(content) => match sealing.seal(head.status, &kind, &content) {
                None => Err((Denial::PayloadAnswer, "failed")),
                // What is encrypted is longer, and may wait for its client.
                Some(sealed) if !room.take(sealed.len().saturating_sub(content.len()) as u64) => {
                    Err((Denial::Overloaded, "no_room"))
                }
                Some(sealed) => Ok((None, sealed)),
            },
            Err(Unread::TooLong) => Err((Denial::PayloadAnswer, "too_large")),
            Err(Unread::NoRoom) => Err((Denial::Overloaded, "no_room")),
            Err(Unread::Broken) => Err((Denial::UpstreamProtocol, "broken")),
        },
    };
    let result = made.as_ref().map_or_else(|(_, why)| *why, |_| "encrypted");
    worker.shared.metrics.payload.answers.with_label_values(&[&*sealing.payload.name, result]).inc();
    let (field, content) = made.map_err(|(denial, _)| denial)?;
    let headers = &mut head.headers;
    for name in OF_THE_CLEAR.iter().chain([&CONTENT_ENCODING, &CONTENT_LENGTH, &SEALED, &KEY]) {
        headers.remove(name);
    }
    // It is for one request, and good for nobody else.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(field) = field {
        headers.insert(SEALED, field);
    } else {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(content.len()));
    }
    match sealing.kind() {
        Some(kind) if !is_bodiless => {
            headers.insert(CONTENT_TYPE, kind);
        }
        _ => {}
    }
    if sealing.format == PayloadFormat::Layout
        && let Ok(key) = HeaderValue::try_from(&sealing.key)
    {
        headers.insert(KEY, key);
    }
    Ok(Response::from_parts(head, AnswerBody::made(content, room)))
}
