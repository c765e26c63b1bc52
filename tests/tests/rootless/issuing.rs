//! An edge whose issuer lives: its keys are fetched, and it is asked about tokens. For the tests of both.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::Arc;

use anyhow::Result;
use enforcer::{keys, policy::keyring::Keyring};
use enforcer_tests::{
    edge::{Client, Edge, Outgoing, Site},
    issuer::LiveIssuer,
    origin::Origin,
    tokens::SigningKey,
};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use tokio::task::JoinSet;

/// It ends with this.
pub(super) struct Issuing {
    pub(super) edge: Edge,
    pub(super) issuer: LiveIssuer,
    _origin: Origin,
    _tending: JoinSet<()>,
}

impl Issuing {
    /// An issuer that publishes these keys, and a site that was changed for it.
    pub(super) async fn new(
        keys: &[&SigningKey],
        change: impl FnOnce(&mut Site, &LiveIssuer) -> Result<()>,
    ) -> Result<Self> {
        let origin = Origin::start().await?;
        let issuer = LiveIssuer::start(keys).await?;
        let mut site = Site::new(origin.address)?;
        change(&mut site, &issuer)?;
        let edge = site.start()?;
        let mut tending = JoinSet::new();
        tending.spawn(keys::tend(Arc::clone(&edge.policy), edge.metrics.clone()));
        Ok(Self { edge, issuer, _origin: origin, _tending: tending })
    }

    pub(super) fn keyring(&self) -> Arc<Keyring> {
        let policy = self.edge.policy.load();
        Arc::clone(policy.issuers().next().unwrap().keyring())
    }
}

/// A request with a token.
pub(super) async fn ask(client: &mut Client, token: &str) -> Result<Response<Incoming>> {
    let empty: Outgoing = Empty::new().boxed();
    let request = Request::get("/api/x").header("authorization", format!("Bearer {token}"));
    client.send(request.body(empty)?).await
}

/// Status and code of an answer; the code is empty where there is none.
pub(super) async fn code(response: Response<Incoming>) -> Result<(u16, String)> {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?.to_bytes();
    let document: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok((status, document["code"].as_str().unwrap_or_default().to_owned()))
}
