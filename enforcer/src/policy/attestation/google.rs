//! What devices of Android are judged by: rules, roots, what is revoked; and how files with keys are read.

use std::{fs, path::Path, time::UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::{
    attestation::{
        android_key::{
            self,
            description::{Boot, Security},
            revocation::{self, Revocations},
            roots::Roots,
        },
        play,
    },
    config::{self, BootState, KeySecurity},
};

/// The most bytes of keys and of roots.
pub(super) const MOST_BYTES: u64 = 64 << 10;

/// What keys of Android's hardware are judged by.
#[derive(Debug)]
pub struct AndroidKey {
    /// What is asked of them.
    pub rules: android_key::Rules,
    /// Whose certificates are believed.
    pub roots: Roots,
    /// What Google has revoked, as far as that is known.
    pub revoked: Option<Revocations>,
    /// When that file was written, seconds since 1970; `None`: there is none.
    pub listed: Option<u64>,
    /// Whether a token of Google Play has to come beside them.
    pub require_play: bool,
}

impl AndroidKey {
    pub(super) fn load(config: &config::AndroidKey) -> Result<Self> {
        let roots = match &config.root {
            None => Roots::google().map_err(anyhow::Error::msg)?,
            Some(path) => roots(path).context("root")?,
        };
        let revoked = config.revocations.as_deref().map(revocations).transpose().context("revocations")?;
        Ok(Self {
            rules: android_key::Rules {
                packages: config.apps.packages.clone(),
                certificates: config.apps.certificates.clone(),
                min_version: config.apps.min_version,
                security: match config.security {
                    KeySecurity::TrustedEnvironment => Security::TrustedEnvironment,
                    KeySecurity::StrongBox => Security::StrongBox,
                },
                boot: match config.boot {
                    BootState::Verified => Boot::Verified,
                    BootState::SelfSigned => Boot::SelfSigned,
                },
                boot_keys: config.boot_keys.clone(),
                locked: true,
                min_patch: config.min_patch,
                signs: true,
                expired_factory: config.expired_factory,
            },
            roots,
            revoked,
            listed: config.revocations.as_deref().map(written),
            require_play: config.require_play,
        })
    }
}

pub(super) fn roots(path: &Path) -> Result<Roots> {
    Roots::from_pem(&read(path, MOST_BYTES)?).map_err(|why| anyhow!("{}: {why}", path.display()))
}

pub(super) fn revocations(path: &Path) -> Result<Revocations> {
    let bytes = read(path, revocation::MOST as u64)?;
    Revocations::read(&bytes).map_err(|why| anyhow!("{}: {why}", path.display()))
}

/// When a file was written, seconds since 1970; 0 where nobody knows, which is long ago.
fn written(path: &Path) -> u64 {
    let at = fs::metadata(path).and_then(|seen| seen.modified()).ok();
    at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs())
}

/// No error shows what the file holds.
pub(super) fn keys(path: &Path) -> Result<play::Keys> {
    let text = String::from_utf8(read(path, MOST_BYTES)?).ok();
    let text = text.ok_or_else(|| anyhow!("{}: not UTF-8", path.display()))?;
    play::Keys::from_toml(&text).map_err(|why| anyhow!("{}: {why}", path.display()))
}

pub(super) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let context = || format!("cannot read {}", path.display());
    let length = fs::metadata(path).with_context(context)?.len();
    ensure!(length <= most, "{}: {length} bytes, more than {most}", path.display());
    fs::read(path).with_context(context)
}
