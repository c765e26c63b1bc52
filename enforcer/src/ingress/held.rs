//! Requests that are judged by their bodies: holds them while they are, in the order in which checks come. Called by `request`.
//!
//! What is signed, hashed and shown to Google is the body as it was sent; only then it is opened, and its document judged.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::request;

use super::{access::Entry, connection::Connection, devices, payload, worker::Worker};
use crate::{
    checks::{self, Grant, Now, Refusal, facts::RequestFacts, payload::Sealing, signature},
    clock,
    denial::Denial,
    policy::signature::Signers,
    upstream::{ClientBody, Room},
};

/// Time for the body of a request that is judged by it, which is small.
const TIME: Duration = Duration::from_secs(30);
/// Bytes a second that one has to come with on the whole, besides that time, which may be longer.
const RATE: u64 = 16 << 10;

/// Has the body of a request judged as far as its route asks for that. Gives it back as it is to go on, with what its answer is to be
/// encrypted by. `most_held`: bytes that all such bodies together may take.
pub(super) async fn judge(
    worker: &Worker,
    connection: &Connection,
    grant: &mut Grant,
    head: &mut request::Parts,
    (mut body, most_held): (ClientBody, u64),
    line: Option<&mut Entry>,
) -> Result<(ClientBody, Option<Sealing>), Refusal> {
    let route = Arc::clone(grant.route());
    let room = || Room::new(&worker.shared.held, most_held);
    // Each on the heap: most requests take none of these ways, and should not have to carry the room for them.
    if let Some(signers) = &route.signers {
        body = Box::pin(signed(grant, body, signers, room())).await?;
    }
    devices::assertion::count(worker, grant);
    if let Some(most) = checks::devices::assertion::most(grant) {
        let held = (body, room(), most);
        body = Box::pin(devices::assertion::hold(worker, connection, grant, head, held)).await?;
    }
    if route.attestation.as_ref().is_some_and(|demand| demand.config.play.is_some()) {
        let held = (body, room());
        body = Box::pin(devices::play::vouch(worker, connection, grant, head, held, line)).await?;
    }
    let mut sealing = None;
    if route.payload.is_some() {
        (body, sealing) = Box::pin(payload::open(worker, grant, head, body, room())).await?;
    }
    let most = match (&route.graphql, &route.oauth) {
        (None, None) => return Ok((body, sealing)),
        (Some(graphql), _) => (graphql.config.max_body_bytes, Denial::GraphqlTooLarge),
        (None, Some(_)) => (checks::oauth::MOST_BYTES, Denial::OauthRequest),
    };
    let body = Box::pin(document(worker, connection, grant, head, (body, room()), most)).await?;
    Ok((body, sealing))
}

/// Reads a body of at most `most` bytes, and keeps it to be forwarded as it came. `beyond`: what is said of a longer one.
///
/// # Errors
///
/// `beyond`, [`Denial::RequestTimeout`], and what reading it meets.
pub(super) async fn whole(
    body: ClientBody,
    room: Room,
    most: u64,
    beyond: Denial,
) -> Result<(Bytes, ClientBody), Refusal> {
    let patience = TIME + Duration::from_secs(most / RATE);
    let read = match tokio::time::timeout(patience, body.read_whole(most, room)).await {
        Ok(Ok(Some(read))) => Ok(read),
        Ok(Ok(None)) => Err(beyond),
        Ok(Err(denial)) => Err(denial),
        Err(_) => Err(Denial::RequestTimeout),
    };
    read.map_err(Refusal::plain)
}

/// Holds a signed request's body against its signature.
async fn signed(
    grant: &mut Grant,
    body: ClientBody,
    signers: &Signers,
    room: Room,
) -> Result<ClientBody, Refusal> {
    let verify = async {
        let (most, beyond) = (signature::most(grant, signers), signature::beyond(grant));
        let (bytes, body) = whole(body, room, most, beyond).await?;
        signature::body(grant, &bytes).await?;
        Ok(body)
    };
    let verified = verify.await;
    verified.map_err(|refusal: Refusal| {
        let route = Arc::clone(grant.route());
        refusal.at(&route, std::mem::take(&mut grant.standing))
    })
}

/// Has the document in a body judged.
async fn document(
    worker: &Worker,
    connection: &Connection,
    grant: &mut Grant,
    head: &request::Parts,
    (body, room): (ClientBody, Room),
    (most, beyond): (u64, Denial),
) -> Result<ClientBody, Refusal> {
    let judged = whole(body, room, most, beyond).await.and_then(|(bytes, body)| {
        let facts = RequestFacts::read(&connection.client, grant.source(), head).map_err(Refusal::plain)?;
        let now = Now { monotonic: clock::kernel_now(), unix: clock::unix_now() };
        checks::graphql::judge(grant, &facts, facts.target.query, &bytes, now.monotonic)?;
        checks::oauth::judge(&worker.shared.policy.load(), grant, &facts, facts.target.query, &bytes, now)?;
        Ok(body)
    });
    let judged = match judged {
        Ok(body) => checks::oauth::written(grant).await.map(|()| body),
        refused => refused,
    };
    judged.map_err(|refusal| {
        let route = Arc::clone(grant.route());
        // What was judged says itself what limits made of it.
        if refusal.route.is_some() {
            refusal
        } else {
            refusal.at(&route, std::mem::take(&mut grant.standing))
        }
    })
}
