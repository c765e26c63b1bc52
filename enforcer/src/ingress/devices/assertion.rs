//! Requests with an assertion: holds their bodies until it is verified.

use std::sync::Arc;

use http::request;

use super::refused;
use crate::{
    checks::{Grant, Refusal, devices::assertion, facts::RequestFacts},
    clock,
    denial::Denial,
    ingress::{connection::Connection, held, worker::Worker},
    upstream::{ClientBody, Room},
};

/// Counts what its device was taken in spite of.
pub(in crate::ingress) fn count(worker: &Worker, grant: &Grant) {
    if grant.is_over_risk() {
        worker.shared.metrics.attestations.with_label_values(&["over_risk"]).inc();
    }
}

/// Reads the body of a request that its device has signed, so many bytes at most, and holds both against the assertion; gives it back
/// as it came.
pub(in crate::ingress) async fn hold(
    worker: &Worker,
    connection: &Connection,
    grant: &mut Grant,
    head: &request::Parts,
    held: (ClientBody, Room, u64),
) -> Result<ClientBody, Refusal> {
    let verified = verify(worker, connection, grant, head, held).await;
    if verified.is_ok() {
        worker.shared.metrics.attestations.with_label_values(&["assertion"]).inc();
    }
    verified.map_err(|refusal| {
        let route = Arc::clone(grant.route());
        refusal.at(&route, std::mem::take(&mut grant.standing))
    })
}

async fn verify(
    worker: &Worker,
    connection: &Connection,
    grant: &mut Grant,
    head: &request::Parts,
    (body, room, most): (ClientBody, Room, u64),
) -> Result<ClientBody, Refusal> {
    let (bytes, body) = held::whole(body, room, most, Denial::BodyTooLarge).await?;
    let facts = RequestFacts::read(&connection.client, grant.source(), head).map_err(Refusal::plain)?;
    let (source, now) = (grant.source(), clock::unix_now());
    let judged = assertion::body(grant, &facts, &bytes, now);
    judged.map_err(|failed| refused(worker, source, failed, now))?;
    Ok(body)
}
