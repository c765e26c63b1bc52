//! Sections of a configuration that takes devices of Android.

use std::{path::PathBuf, time::Duration};

use enforcer::config;

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
        keys,
        licensed: true,
        max_age: Duration::from_secs(120),
        verdict_lifetime: Duration::from_secs(86_400),
    }
}
