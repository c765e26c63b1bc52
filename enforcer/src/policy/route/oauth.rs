//! An endpoint of the authorization server behind: who its clients are, and which refresh tokens are used up.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    config::{self, Endpoint},
    policy::limiter::RequestLimiter,
    revoked::{FOREVER, Kind, Mark, Revoked, Terms, WHENEVER},
};

/// What is demanded there.
#[derive(Debug)]
pub struct OAuth {
    /// Which one.
    pub endpoint: Endpoint,
    /// Redirect URIs by client; none: any client.
    pub clients: BTreeMap<String, Vec<String>>,
    /// Grant types that are served.
    pub grants: Vec<String>,
    /// Requests by client.
    pub client_limiter: Option<RequestLimiter>,
    rotation: Option<Duration>,
    /// Refresh tokens that were exchanged for others.
    used: Arc<Revoked>,
    /// Tokens that were taken back.
    revoked: Arc<Revoked>,
}

impl OAuth {
    /// The state of its limit begins anew with every policy.
    pub fn new(config: &config::OAuth, max_keys: u32, used: &Arc<Revoked>, revoked: &Arc<Revoked>) -> Self {
        Self {
            endpoint: config.endpoint,
            clients: config.clients.clone(),
            grants: config.grants.clone(),
            client_limiter: config.client_limit.map(|rate| RequestLimiter::new(rate, max_keys)),
            rotation: config.rotation,
            used: Arc::clone(used),
            revoked: Arc::clone(revoked),
        }
    }

    /// What a refresh token is remembered by, where its server gives another one for it.
    pub fn refresh_mark(&self, token: &str) -> Option<Mark> {
        self.rotation.map(|_| self.used.marker().mark(Kind::Token, token.as_bytes()))
    }

    /// Whether it was used up.
    pub fn is_used(&self, refresh: Mark, now: u64) -> bool {
        self.used.terms(refresh, now).0.is_some()
    }

    /// Whether it was revoked.
    pub fn is_revoked(&self, token: &str, now: u64) -> bool {
        let mark =
            self.revoked.marker().mark(Kind::Token, crate::revoked::mark::token_body(token.as_bytes()));
        let (own, listed) = self.revoked.terms(mark, now);
        own.is_some() || listed.is_some()
    }

    /// It is used up from now on; whether there was room to remember that.
    pub fn spend(&self, refresh: Mark, now: u64) -> bool {
        let until = now.saturating_add(self.rotation.unwrap_or_default().as_secs());
        let until = u32::try_from(until).unwrap_or(FOREVER).min(FOREVER - 1);
        self.used.revoke(refresh, Terms { until, before: WHENEVER }, now).is_ok()
    }
}
