//! An endpoint of the authorization server behind: who its clients are, and what is known of refresh tokens.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    config::{self, Binding, Endpoint},
    policy::{
        limiter::RequestLimiter,
        refreshes::{Asked, Ended, Exchange, Refreshes, Refused},
    },
    revoked::{FOREVER, Kind, Mark, Revoked, Terms, WHENEVER, mark::token_body},
};

/// For how long a refresh token's key is remembered where tokens do not rotate.
const BOUND: Duration = Duration::from_secs(30 * 86_400);
/// Seconds that access tokens live where no issuer says so.
const LIFETIME: u64 = 86_400;

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
    pub client_limiter: Option<Arc<RequestLimiter>>,
    /// Whether clients prove that they have a key; `None`: what they show is not looked at.
    pub dpop: Option<Binding>,
    rotation: Option<Duration>,
    refreshes: Arc<Refreshes>,
    /// Tokens that were taken back.
    revoked: Arc<Revoked>,
    /// Seconds that access tokens live, at most.
    longest: u64,
    /// The same of refresh tokens; `None`: nobody knows.
    pub refresh_lifetime: Option<u64>,
}

impl OAuth {
    /// With the state that `old` has of its limit.
    pub fn new(
        config: &config::OAuth,
        max_keys: u32,
        (refreshes, revoked, longest): (&Arc<Refreshes>, &Arc<Revoked>, Option<u64>),
        old: Option<&Self>,
    ) -> Self {
        let kept = old.and_then(|old| old.client_limiter.as_ref());
        let limiter = |rate| match kept.filter(|kept| kept.serves(rate, max_keys)) {
            Some(kept) => Arc::clone(kept),
            None => Arc::new(RequestLimiter::new(rate, max_keys)),
        };
        Self {
            endpoint: config.endpoint,
            clients: config.clients.clone(),
            grants: config.grants.clone(),
            client_limiter: config.client_limit.map(limiter),
            dpop: config.dpop,
            rotation: config.rotation,
            refreshes: Arc::clone(refreshes),
            revoked: Arc::clone(revoked),
            longest: longest.unwrap_or(LIFETIME),
            refresh_lifetime: config.refresh_lifetime.map(|time| time.as_secs()),
        }
    }

    /// An exchange begins, of a refresh token or for the first one, by whoever has proved to have this key; `None` where nothing of it
    /// is to be remembered.
    pub fn begin(
        &self,
        token: Option<&str>,
        key: Option<&str>,
        now: u64,
    ) -> Result<Option<Exchange>, Refused> {
        if self.dpop.is_none() && (self.rotation.is_none() || token.is_none()) || token.or(key).is_none() {
            return Ok(None);
        }
        let lasts = self.rotation.unwrap_or(BOUND).as_secs();
        let token = token.map(|token| self.mark(token));
        let asked = Asked { token, key, rotates: self.rotation.is_some(), lasts };
        self.refreshes.begin(asked, now).map(Some)
    }

    /// Whether it was revoked.
    pub fn is_revoked(&self, token: &str, now: u64) -> bool {
        let (own, listed) = self.revoked.terms(self.mark(token), now);
        own.is_some() || listed.is_some()
    }

    /// What an access or refresh token can be revoked by.
    pub fn mark(&self, token: &str) -> Mark {
        self.revoked.marker().mark(Kind::Token, token_body(token.as_bytes()))
    }

    /// Revokes what is good of a line of which it is not known who has it, for as long as it may be good. Whoever has an account can end
    /// lines as often as he likes, so they have half of the room only; what finds none is counted.
    pub fn end_line(&self, ended: &Ended, now: u64) {
        let end = |seconds: u64| {
            let until = now.saturating_add(seconds).saturating_add(1);
            u32::try_from(until).unwrap_or(FOREVER).min(FOREVER - 1)
        };
        let refresh = self.refresh_lifetime.map_or(FOREVER, end);
        for (marks, until) in [(&ended.refresh, refresh), (&ended.access, end(self.longest))] {
            for mark in marks {
                let _ = self.revoked.revoke_for_users(*mark, Terms { until, before: WHENEVER }, now);
            }
        }
    }
}
