//! What is said of revoked tokens, by operators and to them.

use serde::{Deserialize, Serialize};

/// What can be asked about tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenCommand {
    /// Refuse tokens before their time.
    Revoke {
        /// Which.
        what: Named,
        /// Those that were issued before this second since 1970. Absent: those issued so far where what is named goes on (subject,
        /// device, every), any otherwise.
        #[serde(default)]
        issued_before: Option<u64>,
        /// Whenever they were issued.
        #[serde(default)]
        whenever: bool,
        /// How long; absent: as long as the issuer's tokens may live, for a key until it is restored.
        #[serde(default)]
        seconds: Option<u64>,
        /// Until it is restored.
        #[serde(default)]
        forever: bool,
    },
    /// Take that back.
    Restore {
        /// Which.
        what: Named,
    },
    /// How many there are, and whether this is one of them.
    Revoked {
        /// Which.
        #[serde(default)]
        what: Option<Named>,
    },
    /// What a request with this token would meet now.
    Judge {
        /// The token.
        token: String,
    },
}

/// What of a token is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// `jti`, `sid`, `subject`, `device`, `kid`, `token` or `every`.
    pub kind: String,
    /// Its value; empty for `every`.
    #[serde(default)]
    pub text: String,
    /// The NAME of [token.NAME]; absent: of every issuer.
    #[serde(default)]
    pub issuer: Option<String>,
}

/// What is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedRow {
    /// Entries of operators and of the authorization server.
    pub entries: usize,
    /// Entries of `revocation.file`.
    pub listed: usize,
    /// Room for entries.
    pub most: usize,
    /// Bytes that they take in memory.
    pub bytes: usize,
    /// Revocations that were refused for want of room.
    pub refused: u64,
    /// Whether they outlive the daemon.
    pub is_kept: bool,
    /// What holds for what was asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<FoundRow>,
}

/// One revocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundRow {
    /// Whether it is revoked.
    pub is_revoked: bool,
    /// Whether the file says so.
    pub is_listed: bool,
    /// Only tokens that were issued before this second since 1970; absent: whenever they were.
    pub issued_before: Option<u64>,
    /// Seconds until it ends; absent: never by itself.
    pub remaining_seconds: Option<u64>,
}

/// What a request with a token would meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedRow {
    /// The code of its refusal; absent: none.
    pub refused: Option<String>,
    /// By what it is revoked.
    pub revoked_by: Option<String>,
}
