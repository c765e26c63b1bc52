//! `oauth` of a route: what is demanded of requests to an authorization server behind (RFC 6749, RFC 7636, RFC 9700).

use std::{collections::BTreeMap, time::Duration};

use super::{Binding, RateLimit};

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
    /// `refresh_lifetime`: how long the server's refresh tokens are good, counted from when they were given out. Default: nobody knows, and
    /// what is revoked of them is so for good.
    pub refresh_lifetime: Option<Duration>,
    /// `dpop`: whether clients of the token endpoint prove that they have a key (RFC 9449 section 5), to which their refresh tokens are bound
    /// from then on. Default: what they show is not looked at.
    pub dpop: Option<Binding>,
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
