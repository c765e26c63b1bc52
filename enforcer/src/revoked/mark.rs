//! What a token can be known by: keyed hashes of what it says, so that neither memory nor disk holds a name, and nobody can choose
//! where an entry lies.

use anyhow::{Result, anyhow};
use aws_lc_rs::{hmac, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Bytes of the secret that marks are made with.
pub const SECRET: usize = 32;

/// What of a token is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `jti` (RFC 7519 section 4.1.7).
    Id,
    /// `sid`: the session that it was issued in (OpenID Connect Front-Channel Logout 1.0 section 3).
    Session,
    /// `sub`.
    Subject,
    /// The issuer's `device_claim`.
    Device,
    /// The id of the key that signed it.
    Key,
    /// The token itself: what is signed of a JWT, all of an opaque one.
    Token,
    /// Every token.
    Every,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Id, Self::Session, Self::Subject, Self::Device, Self::Key, Self::Token, Self::Every];

    /// The stable name, as on the command line and in files.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Id => "jti",
            Self::Session => "sid",
            Self::Subject => "subject",
            Self::Device => "device",
            Self::Key => "kid",
            Self::Token => "token",
            Self::Every => "every",
        }
    }

    /// The kind of this name.
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.label() == label)
    }

    /// Whether an entry means tokens up to now unless told otherwise: what it names goes on, and gets new tokens.
    pub const fn goes_on(self) -> bool {
        matches!(self, Self::Subject | Self::Device | Self::Every)
    }
}

/// 127 bits of HMAC-SHA-256: among a million entries, a token that was never revoked is taken for one of them with a
/// probability of 2^-107.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark(pub(super) [u64; 2]);

impl Mark {
    /// The same thing, of one issuer only.
    #[must_use]
    pub const fn of(self, issuer: Self) -> Self {
        Self([(self.0[0] ^ issuer.0[0]) | 1, self.0[1] ^ issuer.0[1]])
    }

    /// As it is kept: 32 hexadecimal digits.
    pub fn text(self) -> String {
        format!("{:016x}{:016x}", self.0[0], self.0[1])
    }

    /// The opposite.
    pub fn of_text(text: &str) -> Option<Self> {
        let (first, second) = text.split_at_checked(16).filter(|_| text.len() == 32)?;
        let read = |digits| u64::from_str_radix(digits, 16).ok();
        // The lowest bit tells an entry from an empty slot.
        Some(Self([read(first).filter(|first| first & 1 == 1)?, read(second)?]))
    }
}

/// Makes marks.
pub struct Marker(hmac::Key);

impl Marker {
    /// By a secret of its own, and that secret.
    pub fn fresh() -> Result<(Self, [u8; SECRET])> {
        let mut secret = [0; SECRET];
        rand::fill(&mut secret).map_err(|_| anyhow!("the system gives no random numbers"))?;
        Ok((Self::of_secret(&secret), secret))
    }

    /// By a secret that was kept.
    pub fn of_secret(secret: &[u8; SECRET]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The mark of something.
    pub fn mark(&self, kind: Kind, text: &[u8]) -> Mark {
        self.make(kind.label(), text)
    }

    /// What marks of an issuer's own are told apart by.
    pub fn issuer(&self, iss: &str) -> Mark {
        self.make("issuer", iss.as_bytes())
    }

    fn make(&self, domain: &str, text: &[u8]) -> Mark {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(domain.as_bytes());
        context.update(&[0]);
        context.update(text);
        let tag = context.sign();
        let word = |at: usize| {
            tag.as_ref().get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        Mark([word(0) | 1, word(8)])
    }
}

/// What a token is known by as [`Kind::Token`]: of a JWS in compact form what is signed, because of some algorithms there are several
/// signatures for it; else all of it, for an opaque token may have dots, and its secret behind the last one.
pub fn token_body(token: &[u8]) -> &[u8] {
    let mut dots = token.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at);
    let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else { return token };
    let header = token.get(..first).and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    let is_signed = header.is_some_and(|header| header.trim_ascii_start().starts_with(b"{"));
    token.get(..second).filter(|_| is_signed).unwrap_or(token)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]
    use super::*;

    #[test]
    fn a_jwt_is_known_by_what_is_signed_of_it() {
        for (token, body) in [
            ("eyJhbGciOiJFUzI1NiJ9.b.c", "eyJhbGciOiJFUzI1NiJ9.b"),
            ("eyJhbGciOiJFUzI1NiJ9.b", "eyJhbGciOiJFUzI1NiJ9.b"),
            ("rt.id.secret", "rt.id.secret"),
            ("opaque", "opaque"),
            ("eyJhbGciOiJFUzI1NiJ9.b.c.d", "eyJhbGciOiJFUzI1NiJ9.b.c.d"),
        ] {
            assert_eq!(token_body(token.as_bytes()), body.as_bytes());
        }
    }

    #[test]
    fn marks_tell_kinds_texts_issuers_and_secrets_apart() {
        let (marker, secret) = Marker::fresh().unwrap();
        let mark = marker.mark(Kind::Id, b"a");
        assert_eq!(Marker::of_secret(&secret).mark(Kind::Id, b"a"), mark, "the same after a restart");
        let (one, other) = (marker.issuer("https://a/"), marker.issuer("https://b/"));
        let (stranger, _) = Marker::fresh().unwrap();
        let all = [
            mark,
            marker.mark(Kind::Id, b"b"),
            marker.mark(Kind::Session, b"a"),
            mark.of(one),
            mark.of(other),
            stranger.mark(Kind::Id, b"a"),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|other| one != other), "{i}");
            assert_eq!(Mark::of_text(&one.text()), Some(*one));
        }
        for bad in ["", "0", "00000000000000000000000000000000", "0000000000000001000000000000000g"] {
            assert_eq!(Mark::of_text(bad), None, "{bad}");
        }
    }
}
