//! The endpoints of devices: reads what they send, has it judged, and answers.

pub(super) mod assertion;
pub(super) mod play;

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    request,
};

use super::{connection::Connection, worker::Worker};
use crate::{
    checks::{
        Now, Refusal,
        devices::{self, Endpoint, Failed, MOST_BYTES, Refused},
        facts::{ClientAddr, RequestFacts},
    },
    clock,
    denial::Denial,
    log::Seldom,
    upstream::{ClientBody, Room},
};

/// Time for a body, which is small.
const TIME: Duration = Duration::from_secs(30);

/// Whoever sends nonsense shall not fill the log with it: what is left out is counted.
static REFUSED: Seldom = Seldom::new();
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Says at which step an attestation ended, and what was found there.
fn tell(source: ClientAddr, provider: &str, why: &Refused, second: u64) {
    if !REFUSED.may_speak(second) {
        LEFT_OUT.fetch_add(1, Relaxed);
        return;
    }
    let left_out = LEFT_OUT.swap(0, Relaxed);
    let (step, code, why) = (why.step, why.denial.code(), &why.why);
    tracing::info!(source = %source.get(), provider, step, why, code, left_out, "attestation refused");
}

/// Counts at which step it ended, tells the log what was found, and its sender what it may know of that.
fn refused(worker: &Worker, source: ClientAddr, failed: Failed, now: u64) -> Refusal {
    let provider = failed.provider.map_or("none", |provider| provider.name());
    worker.shared.metrics.attestations_refused.with_label_values(&[provider, failed.step()]).inc();
    let Failed { denial, why, retry_after, .. } = failed;
    if let Some(why) = why {
        tell(source, provider, &why, now);
    }
    Refusal { retry_after, ..devices::assertion::refusal(denial, now) }
}

/// What an endpoint answers, and whom it is about.
pub(super) async fn answer(
    worker: &Worker,
    connection: &Connection,
    source: ClientAddr,
    head: &request::Parts,
    endpoint: Endpoint,
    (body, room): (ClientBody, Room),
) -> Result<(Response<Bytes>, Option<Box<str>>), Refusal> {
    let read = match tokio::time::timeout(TIME, body.read_whole(MOST_BYTES, room)).await {
        Ok(Ok(Some((bytes, body)))) => {
            body.discard();
            Ok(bytes)
        }
        Ok(Ok(None)) => Err(Denial::BodyTooLarge),
        Ok(Err(denial)) => Err(denial),
        Err(_) => Err(Denial::RequestTimeout),
    };
    let bytes = read.map_err(Refusal::plain)?;
    let facts = RequestFacts::read(&connection.client, source, head).map_err(Refusal::plain)?;
    let now = Now { monotonic: clock::kernel_now(), unix: clock::unix_now() };
    let judged = devices::answer(&worker.shared.policy.load(), endpoint, &facts, &bytes, now);
    let judged = match judged {
        Err(Failed { pending: Some(pending), provider, .. }) => {
            Box::pin(play::resume(worker, *pending)).await.map_err(|failed| Failed { provider, ..failed })
        }
        judged => judged,
    };
    let answer = judged.map_err(|failed| refused(worker, source, failed, now.unix))?;
    worker.shared.metrics.attestations.with_label_values(&[answer.event]).inc();
    let mut response = Response::new(Bytes::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let kept = if answer.is_public { "public, max-age=300" } else { "no-store" };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(kept));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok((response, answer.device.map(|device| device.to_string().into())))
}
