//! Bodies that are encrypted besides TLS, from an app to whoever has the server's key, and back to the app: JWE, HPKE, and the layout
//! that apps already use. `policy` reads the keys, `checks` has bodies opened and answers sealed.
//!
//! Knows neither requests nor configuration: what a body is bound to, the time and the keys are arguments. Whatever is wrong with what
//! came is the same error, [`Refused`], to whoever sent it and to whoever reads this: a sender that could tell a wrong key from a
//! changed tag would have an oracle.
//!
//! None of the three tells who sent a body (RFC 9180 section 9.1.1, RFC 7518 section 4.6): anybody may encrypt to a public key. That a
//! body is used once is left to the caller, by [`Opened::made`] and [`Opened::once`], which are authenticated with it.

pub mod hpke;
pub mod jwe;
pub mod keys;
pub mod layout;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use keys::{Private, Public};

use crate::secret::Secret;

/// Why a body was not opened, or not sealed. There is one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the payload is refused")
    }
}

impl std::error::Error for Refused {}

/// The request that a body belongs to; authenticated with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// As in the request line, "POST".
    pub method: &'a str,
    /// As it came, percent-encoding and all, without the query.
    pub path: &'a str,
}

/// The parts, a line each; `None` if one of them has a line end, for two lists would be one text then.
fn lines(parts: &[&str]) -> Result<Vec<u8>, Refused> {
    if parts.iter().any(|part| part.contains(['\n', '\r'])) {
        return Err(Refused);
    }
    Ok(parts.join("\n").into_bytes())
}

/// What an answer is besides its body; authenticated with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The answer's status.
    pub status: u16,
    /// What its body is, as `Content-Type` has it; empty: nobody says.
    pub kind: &'a str,
}

/// An answer, as an app reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// As [`Head::status`].
    pub status: u16,
    /// As [`Head::kind`].
    pub kind: String,
    /// What was sealed.
    pub body: Vec<u8>,
}

/// Characters of what a body is, at most.
pub const MOST_KIND: usize = 127;

/// Nothing, or a media type with its parameters (RFC 9110 section 8.3.1), written in full.
fn is_kind(text: &str) -> bool {
    text.is_empty()
        || text.len() <= MOST_KIND
            && text.contains('/')
            // A server would read it without.
            && text.trim_ascii() == text
            && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
}

/// What was in a body.
#[derive(Debug)]
pub struct Opened {
    /// For the server behind.
    pub body: Vec<u8>,
    /// What it is, as `Content-Type` has it; empty: its sender does not say.
    pub kind: String,
    /// When its sender says that it was made, seconds since 1970.
    pub made: u64,
    /// What tells it from every other one under the same key. The second body of the same is a replay.
    pub once: Vec<u8>,
    /// Id of the key that it was sealed to.
    pub key: String,
    /// How the answer is sealed.
    pub reply: Reply,
}

/// Seals the answer to one body for whoever sent it.
pub struct Reply {
    how: How,
    method: String,
    path: String,
    key: String,
}

enum How {
    Jwe { alg: jwe::Alg, to: Public, id: String, echo: Secret<[u8; jwe::ECHO]> },
    Hpke { to: Public, once: [u8; hpke::ONCE] },
    Layout { secret: layout::SessionKey, iv: [u8; 12] },
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Reply {
    fn new(how: How, place: Place<'_>, key: &str) -> Self {
        Self { how, method: place.method.to_owned(), path: place.path.to_owned(), key: key.to_owned() }
    }

    /// An answer's body, in the form that the request had. An error is one of randomness, of a client's key that is no point, or of a
    /// kind that is none.
    pub fn seal(&self, head: Head<'_>, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let place = Place { method: &self.method, path: &self.path };
        if !is_kind(head.kind) {
            return Err(Refused);
        }
        match &self.how {
            How::Jwe { alg, to, id, echo } => {
                jwe::answer(*alg, to, place, (&self.key, id, echo.expose()), head, body)
            }
            How::Hpke { to, once } => hpke::answer(to, place, (&self.key, once), head, body),
            How::Layout { secret, iv } => layout::answer(secret, place, (&self.key, iv), head, body),
        }
    }
}

/// Keys that bodies may be sealed to, by id: the current one, and those before it that apps may still know.
#[derive(Debug, Default)]
pub struct Keys(Vec<(String, Arc<Private>)>);

impl Keys {
    /// The first is the current one. Ids have 1 to [`MOST_ID`] characters of base64url and differ; the error tells what is wrong.
    pub fn new<K: Into<Arc<Private>>>(keys: Vec<(String, K)>) -> Result<Self, String> {
        for (i, (id, _)) in keys.iter().enumerate() {
            if !is_id(id) {
                return Err(format!(
                    "{id:?} is no key id: it has 1 to {MOST_ID} letters, digits, `-` and `_`"
                ));
            }
            if keys.iter().take(i).any(|(other, _)| other == id) {
                return Err(format!("two keys have the id {id:?}"));
            }
        }
        Ok(Self(keys.into_iter().map(|(id, key)| (id, key.into())).collect()))
    }

    /// The key of an id.
    pub fn find(&self, id: &str) -> Result<&Private, Refused> {
        self.0.iter().find(|(other, _)| other == id).map(|(_, key)| &**key).ok_or(Refused)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What apps are told: a JWK set (RFC 7517 section 5) of public keys, the current one first.
    pub fn published(&self) -> serde_json::Value {
        let keys: Vec<serde_json::Value> =
            self.0.iter().map(|(id, key)| key.public().published(id)).collect();
        serde_json::json!({ "keys": keys })
    }
}

/// Characters of a key's id, at most; the thumbprint of a key (RFC 7638) has 43.
pub const MOST_ID: usize = 64;

/// Whether a key can have this id.
pub fn is_id(text: &str) -> bool {
    (1..=MOST_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
