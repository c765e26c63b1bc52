//! Where apps report that a pin did not fit: reads what they send, has it counted, and answers that it came.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CACHE_CONTROL, request};

use super::{connection::Connection, worker::Worker};
use crate::{
    checks::{
        Now, Refusal,
        facts::{ClientAddr, RequestFacts},
        reports::{self, MOST_BYTES},
    },
    clock,
    denial::Denial,
    upstream::{ClientBody, Room},
};

/// Time for a body, which is small.
const TIME: Duration = Duration::from_secs(30);

/// The same answer to each that can be read: whoever sends one learns nothing by it.
pub(super) async fn answer(
    worker: &Worker,
    connection: &Connection,
    source: ClientAddr,
    head: &request::Parts,
    (body, room): (ClientBody, Room),
) -> Result<Response<Bytes>, Refusal> {
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
    let noted = reports::take(&worker.shared.policy.load(), &facts, &bytes, now).map_err(Refusal::plain)?;
    tracing::debug!(source = %source.get(), ?noted, "pin report");
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
