//! `[revocation]`: where it is kept what was taken back, and who else may say so.

use std::path::PathBuf;

/// What is revoked, and by whom.
#[derive(Clone, Debug, PartialEq)]
pub struct Revocation {
    /// `store`: the file that revocations are kept in; none (`"off"`): they end with the daemon. Default: `revocations.redb` beside
    /// `bans.store`, and none where there is none.
    pub store: Option<PathBuf>,
    /// `max_entries`: default 1,000,000. Reached: further ones are refused, loudly.
    pub max_entries: u32,
    /// `max_refresh_tokens`: refresh tokens that are remembered as used up, default 1,000,000.
    pub max_refresh_tokens: u32,
    /// `file`: what is revoked as long as it stands there. Default: none.
    pub file: Option<PathBuf>,
    /// `client_id` and `secret_file`: who may revoke tokens by `POST /revoke` on the metrics listener (RFC 7009). Default: nobody.
    pub client: Option<RevocationClient>,
}

/// An authorization server that says what it has revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationClient {
    /// `client_id`
    pub id: String,
    /// `secret_file`: its first line is the secret.
    pub secret: PathBuf,
}

impl Default for Revocation {
    fn default() -> Self {
        Self {
            store: Some("/var/lib/enforcer/revocations.redb".into()),
            max_entries: 1_000_000,
            max_refresh_tokens: 1_000_000,
            file: None,
            client: None,
        }
    }
}
