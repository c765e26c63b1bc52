//! What a configuration of devices leaves open is said, by `enforcer check` and in metrics.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{fs, time::Duration};

use anyhow::Result;
use enforcer::{
    clock, config, daemon,
    metrics::{self, Metrics},
};

use super::{
    android_app::World,
    device_upkeep::{android, list},
    shop::Shop,
};

#[test]
fn what_is_left_open_is_said() -> Result<()> {
    let shop = Shop::with(|site| drop(World::furnish(site, |_| ()).unwrap()))?;
    let remarks = |config: &config::Config| -> Vec<(String, String)> {
        let remarks = daemon::verify(config).unwrap().into_iter();
        remarks.filter(|(key, ..)| key.contains("attestation")).map(|(key, what, _)| (key, what)).collect()
    };
    let of = |config: &config::Config, key: &str| {
        let found = remarks(config).into_iter().find(|(named, _)| named.ends_with(key));
        found.map(|(_, what)| what)
    };
    let mut config = shop.site.config.clone();
    assert!(of(&config, "app_attest.root").unwrap().contains("for tests alone"));
    assert!(of(&config, "android_key.root").unwrap().contains("for tests alone"));
    assert!(of(&config, "android_key.revocations").unwrap().contains("no list"));
    let status = shop.site.dir.path().join("status.json");
    list(&status, "c0ffee")?;
    android(&mut config).revocations = Some(status.clone());
    assert_eq!(of(&config, "android_key.revocations"), None);
    let day = Duration::from_secs(86_400);
    let written =
        |days| fs::File::options().write(true).open(&status)?.set_modified(clock::system_now() - days * day);
    written(6)?;
    assert_eq!(of(&config, "android_key.revocations"), None);
    written(9)?;
    assert!(of(&config, "android_key.revocations").unwrap().contains("9 days old"));
    // Without roots of its own there is nothing to be said of them.
    android(&mut config).root = None;
    config.attestation.as_mut().unwrap().app_attest = None;
    assert_eq!(remarks(&config).len(), 1);
    // The same as metrics.
    let metrics = Metrics::new()?;
    metrics::devices::register(&metrics.registry, shop.policy.reload(&config)?.share())?;
    let text = metrics::http::text(&metrics.registry)?;
    let value = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    assert_eq!(value("enforcer_android_revocations "), Some(1));
    let age = value("enforcer_android_revocations_age_seconds ").unwrap();
    assert!((777_600..778_600).contains(&age), "{age}");
    assert_eq!(value("enforcer_devices_overdue "), Some(0));
    assert!(text.contains("enforcer_devices{status=\"unreadable\"} 0"), "{text}");
    Ok(())
}
