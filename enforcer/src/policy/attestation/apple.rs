//! What Apple is asked for newer receipts with.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    attestation::app_attest::{chain::Roots, exchange::Key},
    config,
};

/// `[attestation.app_attest.receipts]` with its files.
#[derive(Debug)]
pub struct Receipts {
    /// As configured.
    pub config: config::Receipts,
    /// The key for DeviceCheck.
    pub key: Arc<Key>,
    /// Instead of Apple's.
    pub(super) roots: Option<Roots>,
}

impl Receipts {
    pub(super) fn load(config: &config::Receipts) -> Result<Self> {
        Ok(Self {
            key: Arc::new(read(&config.key, &config.team, &config.key_id).context("key")?),
            roots: config.root.as_deref().map(super::roots).transpose().context("root")?,
            config: config.clone(),
        })
    }
}

/// What is wrong with the file of a key.
pub(super) fn key(path: &Path) -> Result<()> {
    // Whose it is does not stand in it.
    read(path, "AAAAAAAAAA", "AAAAAAAAAA").map(drop)
}

fn read(path: &Path, team: &str, id: &str) -> Result<Key> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Key::from_pem(team, id, &text).map_err(|why| anyhow!("{}: {why}", path.display()))
}
