//! An edge whose Android devices bring a token of Google Play with each request, and a Google that answers as a test wants.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use enforcer::{
    checks::{
        devices::{client_data, key_hash},
        facts::Target,
    },
    clock,
    config::{self, PlayDemand, PlayRemote, PlayUnavailable},
    keys,
};
use enforcer_tests::{
    attestation::google::{Bound, server::LiveGoogle, site, verdict},
    edge::{self, Client, Edge, Outgoing, Site},
    origin::Origin,
    tokens::encode,
};
use http::Method;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{
    android_app::{World, begin, enrol, id},
    device_app::{Answer, Held, read},
    shop::furnish,
    till::unique,
};

/// What routes declare for when Google cannot be asked.
pub(super) const LADDER: [(&str, PlayUnavailable); 3] = [
    ("/deny/x", PlayUnavailable::Deny),
    ("/flag/x", PlayUnavailable::AllowAndFlag),
    ("/cached/x", PlayUnavailable::Cached(Duration::from_secs(3_600))),
];

pub(super) struct Scene {
    pub(super) edge: Edge,
    pub(super) world: World,
    pub(super) origin: Origin,
    _tending: JoinSet<()>,
}

/// What a request brings.
pub(super) struct Brought {
    pub(super) token: Option<String>,
    pub(super) nonce: Option<String>,
}

impl Scene {
    pub(super) async fn new(google: &LiveGoogle, change: impl FnOnce(&mut Site)) -> Result<Self> {
        let origin = Origin::start().await?;
        let mut site = Site::new(origin.address)?;
        furnish(&mut site, clock::unix_now())?;
        let remote = site::remote(google, site.dir.path())?;
        let world = World::furnish(&mut site, |by| by.play.as_mut().unwrap().remote = Some(remote))?;
        for (path, unavailable) in LADDER {
            let play = Some(site::play_demand(unavailable));
            let demand = config::AttestationDemand { play, ..edge::demand() };
            let prefix = path.trim_end_matches('x');
            let route = config::Route { attestation: Some(demand), ..edge::route(prefix, None, &[]) };
            site.config.routes.push(route);
        }
        site.config.replay.store = Some(site.dir.path().join("replay.redb"));
        change(&mut site);
        let edge = site.start()?;
        let mut tending = JoinSet::new();
        tending.spawn(keys::tend(Arc::clone(&edge.policy), edge.metrics.clone()));
        Ok(Self { edge, world, origin, _tending: tending })
    }

    /// A device with a session, of which Google has said nothing.
    pub(super) async fn device(&self, client: &mut Client) -> Result<Held> {
        let (answer, mut held) = enrol(client, &self.world).await?;
        assert_eq!(answer.status, 201, "{}", answer.body);
        assert_eq!(begin(client, &mut held).await?.status, 200);
        Ok(held)
    }

    pub(super) fn counted(&self, path: &str, result: &str) -> u64 {
        let route = path.trim_end_matches('x');
        self.edge.metrics.play.requests.with_label_values(&[route, result]).get()
    }
}

/// A token for this request, of which Google says so with these labels.
pub(super) fn bring(
    google: &LiveGoogle,
    app: &Held,
    (method, path): (&str, &str),
    body: &[u8],
    change: &dyn Fn(&mut Value),
) -> Brought {
    let (token, nonce) = (format!("token-{}", unique()), format!("nonce-of-a-request-{}", unique()));
    let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let challenge = key_hash(&nonce, id(&app.key));
    let data = client_data(&challenge, &method, Target { path, query }, body);
    let hash = encode(digest(&SHA256, data.as_bytes()).as_ref());
    let mut said = verdict(Bound::RequestHash(&hash), clock::unix_now() * 1_000);
    change(&mut said);
    google.say(&token, said);
    Brought { token: Some(token), nonce: Some(nonce) }
}

pub(super) async fn send(
    client: &mut Client,
    app: &Held,
    to: (&str, &str),
    body: &[u8],
    brought: &Brought,
) -> Result<Answer> {
    let answer = send_once(client, app, to, body, brought).await?;
    // Proofs come before tokens, and so use none up.
    if app.learn(&answer)? { send_once(client, app, to, body, brought).await } else { Ok(answer) }
}

async fn send_once(
    client: &mut Client,
    app: &Held,
    (method, path): (&str, &str),
    body: &[u8],
    brought: &Brought,
) -> Result<Answer> {
    let without_query = path.split_once('?').map_or(path, |(path, _)| path);
    let mut request = app.head(method, without_query)?.uri(path);
    if let Some(token) = &brought.token {
        request = request.header("enforcer-integrity-token", token);
    }
    if let Some(nonce) = &brought.nonce {
        request = request.header("enforcer-nonce", nonce);
    }
    let body: Outgoing = Full::new(Bytes::copy_from_slice(body)).boxed();
    read(client.send(request.body(body)?).await?).await
}

/// A good request.
pub(super) async fn ask(client: &mut Client, google: &LiveGoogle, app: &Held, path: &str) -> Result<Answer> {
    send(client, app, ("GET", path), b"", &bring(google, app, ("GET", path), b"", &|_| ())).await
}

pub(super) fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

/// Has a route's `play` changed.
pub(super) fn play_of<'s>(site: &'s mut Site, path: &str) -> &'s mut PlayDemand {
    let prefix = path.trim_end_matches('x');
    let route = site.config.routes.iter_mut().find(|route| route.path == prefix).unwrap();
    route.attestation.as_mut().unwrap().play.as_mut().unwrap()
}

pub(super) fn remote_of(site: &mut Site) -> &mut PlayRemote {
    site.config.attestation.as_mut().unwrap().play.as_mut().unwrap().remote.as_mut().unwrap()
}
