//! Takes to Google what devices have brought, and goes on with the answer. What waits holds no policy; how many wait is bounded where
//! Google is asked.

use std::sync::Arc;

use http::request;

use super::tell;
use crate::{
    checks::{
        Grant, Refusal,
        devices::{
            Answer, Failed,
            play::{self, Pending, request as judged},
        },
        facts::RequestFacts,
    },
    clock,
    denial::Denial,
    ingress::{access::Entry, connection::Connection, held, worker::Worker},
    upstream::{ClientBody, Room},
};

/// Goes on with what an endpoint has begun.
pub(super) async fn resume(worker: &Worker, pending: Pending) -> Result<Answer, Failed> {
    let asking = pending.question().ask(&worker.shared.policy.load());
    let outcome = asking.await;
    play::resume(&worker.shared.policy.load(), pending, outcome, clock::unix_now())
}

/// Has Google say what the token of a request is worth, whose route asks for that; gives its body back as it came.
pub(in crate::ingress) async fn vouch(
    worker: &Worker,
    connection: &Connection,
    grant: &mut Grant,
    head: &request::Parts,
    (body, room): (ClientBody, Room),
    entry: Option<&mut Entry>,
) -> Result<ClientBody, Refusal> {
    let vouched = match judged::most(grant) {
        None => Ok(body),
        Some(most) => ask(worker, connection, grant, head, (body, room, most)).await,
    };
    let result = match &vouched {
        // What is not of Android has nothing to show.
        Ok(_) => grant.play().map(|said| if said == "unavailable" { "flagged" } else { said }),
        Err(refusal) if refusal.denial == Denial::AttestationUnavailable => Some("denied"),
        Err(_) => Some("refused"),
    };
    if let Some(entry) = entry {
        entry.vouched(result);
    }
    if let Some(result) = result {
        let requests = &worker.shared.metrics.play.requests;
        requests.with_label_values(&[grant.route().name.as_ref(), result]).inc();
    }
    vouched.map_err(|refusal| {
        let route = Arc::clone(grant.route());
        refusal.at(&route, std::mem::take(&mut grant.standing))
    })
}

async fn ask(
    worker: &Worker,
    connection: &Connection,
    grant: &mut Grant,
    head: &request::Parts,
    (body, room, most): (ClientBody, Room, u64),
) -> Result<ClientBody, Refusal> {
    let (bytes, body) = held::whole(body, room, most, Denial::BodyTooLarge).await?;
    let facts = RequestFacts::read(&connection.client, grant.source(), head).map_err(Refusal::plain)?;
    let Some(question) = judged::question(grant, facts.method, facts.target, &bytes).await? else {
        return Ok(body);
    };
    let asking = question.ask(&worker.shared.policy.load());
    let outcome = asking.await;
    let source = grant.source();
    let policy = worker.shared.policy.load();
    judged::judge(&policy, grant, &question, outcome, clock::unix_now(), &mut |refused| {
        tell(source, "play", refused, clock::unix_now());
    })?;
    Ok(body)
}
