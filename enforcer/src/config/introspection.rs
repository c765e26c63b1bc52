//! `introspection` of `[token.NAME]`: who is asked about tokens that say nothing themselves (RFC 7662).

use std::{path::PathBuf, time::Duration};

/// An authorization server that is asked about tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Introspection {
    /// `url`, https.
    pub address: http::Uri,
    /// `client_id`
    pub client_id: String,
    /// `secret_file`: its first line is the client's secret.
    pub secret: PathBuf,
    /// `authorities`: PEM file with the roots that the server's certificate comes from. Default: those of the system.
    pub authorities: Option<PathBuf>,
    /// `private_addresses`: whether the server may have an address that is not public. Default false.
    pub private_addresses: bool,
    /// `timeout` of a call, default 2 s.
    pub timeout: Duration,
    /// `cache`: how long a good token is not asked about again, default 1 min; never beyond its `exp`.
    pub positive: Duration,
    /// `negative_cache`: the same of one that is not active, default 10 s.
    pub negative: Duration,
    /// `max_entries`: answers that are remembered, default 65,536.
    pub max_entries: u32,
    /// `max_calls`: calls at once, default 64.
    pub max_calls: u32,
    /// `without_audience`: whether a token may be good whose answer names no audience. Default false.
    pub without_audience: bool,
}
