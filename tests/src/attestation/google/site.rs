//! Sections of a configuration that takes devices of Android.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use enforcer::config;

use super::server::LiveGoogle;

/// An app of Android.
pub fn android_apps(package: &str, certificate: [u8; 32]) -> config::AndroidApps {
    config::AndroidApps {
        packages: vec![package.to_owned()],
        certificates: vec![certificate],
        min_version: 0,
    }
}

/// `[attestation.android_key]` for it, with another root than Google's.
pub fn android_key(apps: config::AndroidApps, root: PathBuf) -> config::AndroidKey {
    config::AndroidKey {
        apps,
        security: config::KeySecurity::TrustedEnvironment,
        boot: config::BootState::Verified,
        boot_keys: Vec::new(),
        min_patch: 0,
        expired_factory: false,
        require_play: false,
        revocations: None,
        root: Some(root),
    }
}

/// `[attestation.play]` for it.
pub fn play(apps: config::AndroidApps, keys: PathBuf) -> config::Play {
    config::Play {
        apps,
        keys: Some(keys),
        licensed: true,
        max_age: Duration::from_secs(120),
        verdict_lifetime: Duration::from_secs(86_400),
        labels: vec!["MEETS_DEVICE_INTEGRITY".to_owned()],
        testing: false,
        risk: config::PlayRisk::default(),
        remote: None,
    }
}

/// `[attestation.play.remote]` of this stand-in for Google, whose account's file goes into `dir`.
pub fn remote(google: &LiveGoogle, dir: &Path) -> Result<config::PlayRemote> {
    let account = dir.join("account.json");
    std::fs::write(&account, google.account_file())?;
    Ok(config::PlayRemote {
        account,
        api: format!("https://{}", google.address).parse()?,
        token_url: None,
        authorities: Some(google.authorities()),
        private_addresses: true,
        timeout: Duration::from_secs(20),
        max_calls: 16,
        calls_per_day: 100_000,
        burst: 1_000,
        reserve: 100,
        unavailable: config::PlayUnavailable::Deny,
    })
}

/// `play = {}` of a route's `attestation`, with this for when Google cannot be asked.
pub fn play_demand(unavailable: config::PlayUnavailable) -> config::PlayDemand {
    config::PlayDemand { unavailable, reuse: Duration::ZERO, max_body_bytes: 1 << 20 }
}
