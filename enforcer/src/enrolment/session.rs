//! Sessions: what a device gets for having shown what it is, so that its ordinary requests need not show it again.
//!
//! A session is a text that only daemons with its secret can make: a MAC over its device, its times, what the device is, and what
//! it is bound to. Reading one costs about a microsecond, and nothing is remembered of it. It is no secret on its own: whoever has it needs
//! the key, or the client certificate, that it is bound to.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow, bail};
use aws_lc_rs::{hmac, rand};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

use super::DeviceId;
use crate::config::{Level, Platform};

/// The version of the layout; another one is no session.
const VERSION: u8 = 1;
/// Version, device, times, platform, level, binding, thumbprint.
const BODY: usize = 1 + 32 + 8 + 8 + 1 + 1 + 1 + 32;
/// Bytes of the MAC.
const TAG: usize = 32;
/// Characters of a session.
pub const LENGTH: usize = ((BODY + TAG) * 4).div_ceil(3);
/// Secrets of a file at most: the one in force, and those before it.
const MOST_KEYS: usize = 4;
/// Bytes of a secret.
const SECRET: std::ops::RangeInclusive<usize> = 32..=1024;
/// The most bytes of their file.
const MOST_BYTES: u64 = 16 << 10;

/// What the sender of a session has to have, by its SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// A key, by its thumbprint (RFC 7638).
    Key([u8; 32]),
    /// A client certificate (RFC 8705 section 3.1).
    Certificate([u8; 32]),
}

/// What a session says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Whose it is.
    pub device: DeviceId,
    /// When the device showed what it is, seconds since 1970.
    pub issued: u64,
    /// When it ends.
    pub expires: u64,
    /// What the device is.
    pub platform: Platform,
    /// How well that was shown.
    pub level: Level,
    /// What its sender has to have.
    pub binding: Binding,
}

/// The secrets of sessions.
pub struct Sessions {
    /// The first one makes them, all of them read them.
    keys: Vec<hmac::Key>,
    is_own: bool,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Sessions {
    /// With the secrets of a file, else with one that nobody else knows, which a reload keeps.
    pub fn load(path: Option<&Path>, old: Option<&Arc<Self>>) -> Result<Arc<Self>> {
        match (path, old) {
            (Some(path), _) => Self::from_file(path).map(Arc::new),
            (None, Some(old)) if old.is_own => Ok(Arc::clone(old)),
            (None, _) => {
                let mut secret = [0; 32];
                rand::fill(&mut secret).map_err(|_| anyhow!("no randomness for the key of sessions"))?;
                Ok(Arc::new(Self { keys: vec![hmac::Key::new(hmac::HMAC_SHA256, &secret)], is_own: true }))
            }
        }
    }

    /// A file: one secret per line, base64 of at least 32 bytes; `#` begins a comment. No error shows what it holds.
    pub fn from_file(path: &Path) -> Result<Self> {
        let read = || -> std::io::Result<Vec<u8>> {
            if std::fs::metadata(path)?.len() > MOST_BYTES {
                return Err(std::io::Error::other("it is too long to hold a few secrets"));
            }
            std::fs::read(path)
        };
        let bytes = read().with_context(|| format!("cannot read the secrets {}", path.display()))?;
        Self::parse(&bytes).with_context(|| path.display().to_string())
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut keys = Vec::new();
        for (number, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let secret = STANDARD.decode(line).ok().filter(|secret| SECRET.contains(&secret.len()));
            let Some(secret) = secret else {
                bail!(
                    "line {} is not the base64 of {} to {} bytes",
                    number + 1,
                    SECRET.start(),
                    SECRET.end()
                );
            };
            keys.push(hmac::Key::new(hmac::HMAC_SHA256, &secret));
        }
        if keys.is_empty() || keys.len() > MOST_KEYS {
            bail!("{} secrets; there must be 1 to {MOST_KEYS}", keys.len());
        }
        Ok(Self { keys, is_own: false })
    }

    /// A session as its device gets it.
    pub fn seal(&self, session: &Session) -> String {
        let mut bytes = Vec::with_capacity(BODY + TAG);
        bytes.push(VERSION);
        bytes.extend_from_slice(session.device.bytes());
        bytes.extend_from_slice(&session.issued.to_be_bytes());
        bytes.extend_from_slice(&session.expires.to_be_bytes());
        bytes.push(match session.platform {
            Platform::Ios => 1,
            Platform::Android => 2,
        });
        bytes.push(match session.level {
            Level::Device => 1,
            Level::Strong => 2,
        });
        let (kind, thumbprint) = match &session.binding {
            Binding::Key(thumbprint) => (1, thumbprint),
            Binding::Certificate(thumbprint) => (2, thumbprint),
        };
        bytes.push(kind);
        bytes.extend_from_slice(thumbprint);
        // There is always a first one.
        if let Some(key) = self.keys.first() {
            bytes.extend_from_slice(sign(key, &bytes).as_ref());
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a session says that was made here, or by another daemon with one of the secrets; its times are not judged.
    pub fn open(&self, text: &[u8]) -> Option<Session> {
        if text.len() != LENGTH {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (body, tag) = bytes.split_at_checked(BODY)?;
        let is_good = |key: &&hmac::Key| {
            aws_lc_rs::constant_time::verify_slices_are_equal(sign(key, body).as_ref(), tag).is_ok()
        };
        self.keys.iter().find(is_good)?;
        let (version, rest) = body.split_first()?;
        let (device, rest) = rest.split_first_chunk::<32>()?;
        let (issued, rest) = rest.split_first_chunk::<8>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let ([platform, level, kind], rest) = rest.split_first_chunk::<3>()?;
        let thumbprint: [u8; 32] = rest.try_into().ok()?;
        if *version != VERSION {
            return None;
        }
        Some(Session {
            device: DeviceId::of_bytes(*device),
            issued: u64::from_be_bytes(*issued),
            expires: u64::from_be_bytes(*expires),
            platform: match platform {
                1 => Platform::Ios,
                2 => Platform::Android,
                _ => return None,
            },
            level: match level {
                1 => Level::Device,
                2 => Level::Strong,
                _ => return None,
            },
            binding: match kind {
                1 => Binding::Key(thumbprint),
                2 => Binding::Certificate(thumbprint),
                _ => return None,
            },
        })
    }
}

fn sign(key: &hmac::Key, body: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(b"enforcer session");
    context.update(body);
    context.sign()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            device: DeviceId::of_key(b"key"),
            issued: 1_800_000_000,
            expires: 1_800_000_900,
            platform: Platform::Ios,
            level: Level::Strong,
            binding: Binding::Key([7; 32]),
        }
    }

    #[test]
    fn a_session_is_read_as_it_was_made_and_nothing_of_it_can_be_changed() {
        let sessions = Sessions::load(None, None).unwrap();
        let android = Session {
            platform: Platform::Android,
            level: Level::Device,
            binding: Binding::Certificate([9; 32]),
            ..session()
        };
        for session in [session(), android] {
            let text = sessions.seal(&session);
            assert_eq!(text.len(), LENGTH);
            assert_eq!(sessions.open(text.as_bytes()), Some(session));
            let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
            for position in 0..bytes.len() {
                let mut forged = bytes.clone();
                forged[position] ^= 1;
                assert_eq!(sessions.open(URL_SAFE_NO_PAD.encode(forged).as_bytes()), None, "{position}");
            }
            for other in [&text[1..], &format!("{text}="), &text.replace(char::is_alphabetic, "/"), ""] {
                assert_eq!(sessions.open(other.as_bytes()), None, "{other}");
            }
        }
    }

    #[test]
    fn a_drawn_secret_survives_a_reload_and_no_restart() {
        let sessions = Sessions::load(None, None).unwrap();
        let text = sessions.seal(&session());
        let reloaded = Sessions::load(None, Some(&sessions)).unwrap();
        assert!(reloaded.open(text.as_bytes()).is_some());
        let restarted = Sessions::load(None, None).unwrap();
        assert!(restarted.open(text.as_bytes()).is_none());
    }

    #[test]
    fn secrets_of_a_file_are_shared_and_replaced_one_after_the_other() {
        let secret = |byte: u8| STANDARD.encode([byte; 32]);
        let old = Sessions::parse(format!("{}\n", secret(1)).as_bytes()).unwrap();
        let both = Sessions::parse(format!("# new\n{}\n\n{}\n", secret(2), secret(1)).as_bytes()).unwrap();
        let new = Sessions::parse(secret(2).as_bytes()).unwrap();
        let (before, after) = (old.seal(&session()), both.seal(&session()));
        assert!(both.open(before.as_bytes()).is_some(), "the one before is read still");
        assert!(new.open(after.as_bytes()).is_some(), "the first one makes them");
        assert!(new.open(before.as_bytes()).is_none() && old.open(after.as_bytes()).is_none());
        for bad in ["", "# nothing", "c2hvcnQ=", "no base64!", &[secret(1).as_str(); 5].join("\n")] {
            let error = format!("{:#}", Sessions::parse(bad.as_bytes()).unwrap_err());
            assert!(error.contains("line") || error.contains("secrets"), "{error}");
            assert!(bad.is_empty() || !error.contains(bad), "{error}");
        }
    }
}
