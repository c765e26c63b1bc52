//! What configurations say of devices unless a test changes it.

use std::time::Duration;

use enforcer::config;

/// `[attestation]` as it is by default, but that nothing is kept, and nobody's limit is reached.
pub fn attestation() -> config::Attestation {
    let base = "/.well-known/enforcer";
    config::Attestation {
        paths: config::AttestationPaths {
            challenge: format!("{base}/challenge"),
            enrol: format!("{base}/enrol"),
            session: format!("{base}/session"),
            keys: format!("{base}/keys"),
        },
        limit: config::RateLimit { events: 10_000, period: Duration::from_secs(1), burst: 10_000 },
        challenge_lifetime: Duration::from_secs(120),
        max_challenges: 1 << 18,
        assertion_window: Duration::from_secs(60),
        session_lifetime: Duration::from_secs(900),
        session_keys: None,
        facts_key: None,
        facts_previous_keys: Vec::new(),
        facts_issuer: "enforcer".to_owned(),
        facts_audience: None,
        facts_lifetime: Duration::from_secs(60),
        store: None,
        max_devices: 1_000_000,
        forget_after: Duration::from_secs(180 * 86_400),
        unknown_devices: config::UnknownDevices::Refuse,
        app_attest: None,
        android_key: None,
        play: None,
    }
}

/// `[attestation.app_attest]` for one app.
pub fn app_attest(app: &str) -> config::AppAttest {
    config::AppAttest {
        apps: vec![app.to_owned()],
        environment: config::Environment::Production,
        categories: Vec::new(),
        minimum_version: None,
        require_distribution: false,
        root: None,
        receipts: None,
    }
}

/// `attestation = {}` of a route.
pub fn demand() -> config::AttestationDemand {
    config::AttestationDemand {
        max_age: Duration::from_secs(900),
        level: config::Level::Device,
        platforms: Vec::new(),
        assertion: None,
        group: "/device/".to_owned(),
        max_body_bytes: 1 << 20,
        max_risk: None,
        over_risk: config::OverRisk::Deny,
        play: None,
    }
}
