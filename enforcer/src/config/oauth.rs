//! `oauth` of a route: what is demanded of requests to an authorization server behind (RFC 6749, RFC 7636, RFC 9700).

use std::{collections::BTreeMap, time::Duration};

use super::RateLimit;

/// An endpoint of the upstream's authorization server.
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth {
    /// `endpoint`
    pub endpoint: Endpoint,
    /// `clients`: their ids, and the redirect URIs of each, which are compared byte for byte.
    pub clients: BTreeMap<String, Vec<String>>,
    /// `grants`: grant types that are served, default `authorization_code` and `refresh_token`.
    pub grants: Vec<String>,
    /// `client_limit`: requests by client id. Default: no limit.
    pub client_limit: Option<RateLimit>,
    /// `refresh_rotation`: how long a refresh token is remembered that was exchanged for another one; none (`"off"`, default): the server
    /// does not give others.
    pub rotation: Option<Duration>,
}

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Endpoint {
    /// `"authorization"` (RFC 6749 section 3.1).
    Authorization,
    /// `"token"` (RFC 6749 section 3.2).
    Token,
}
