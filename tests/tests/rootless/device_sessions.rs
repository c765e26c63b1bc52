//! Sessions of devices: what they are bound to, what routes ask of them, and where they come from. No network, as before.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{fs, time::Duration};

use anyhow::Result;
use enforcer::{
    checks::{
        Now,
        devices::{self, Endpoint},
        facts::{Identity, RequestFacts},
    },
    clock::KernelTime,
    config::{Environment, Level, LimitKey, Platform, RateLimit, UnknownDevices},
    denial::Denial,
    policy::Policy,
    revoked::{FOREVER, Kind, Terms, WHENEVER},
};
use enforcer_tests::{
    edge::{self, NAME, Site},
    tokens::{SigningKey, encode},
};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;

use super::{
    admit::NOW,
    shop::{PATH, Shop, denial, fields, read},
    till::{ath, bare, unique},
};

#[test]
fn a_session_is_worth_nothing_without_what_it_is_bound_to() -> Result<()> {
    let mut shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let code = |headers: &HeaderMap| shop.admit(PATH, headers, NOW).err().map(|one| one.denial);
    let proof = shop.proof(&session, NOW);
    assert_eq!(code(&HeaderMap::new()), Some(Denial::AttestationMissing));
    assert_eq!(code(&fields("nonsense", &proof)), Some(Denial::AttestationSession));
    let mut alone = fields(&session, &proof);
    alone.remove("enforcer-proof");
    assert_eq!(code(&alone), Some(Denial::DpopMissing));
    // A proof for something else does not count, wherever it stands.
    alone.insert("dpop", HeaderValue::from_str(&proof)?);
    assert_eq!(code(&alone), Some(Denial::DpopMissing));
    let mut twice = fields(&session, &proof);
    twice.append("enforcer-session", HeaderValue::from_str(&session)?);
    assert_eq!(code(&twice), Some(Denial::AttestationRequest));
    assert_eq!(code(&fields(&session, &shop.proof("another", NOW))), Some(Denial::DpopWrongToken));
    assert_eq!(code(&fields(&session, &proof)), None);
    assert_eq!(code(&fields(&session, &proof)), Some(Denial::DpopReplayed));
    let refusal = shop.admit(PATH, &HeaderMap::new(), NOW).unwrap_err();
    assert_eq!(refusal.challenge.unwrap(), "Attestation realm=\"enforcer\"");
    let other = SigningKey::p256("other")?;
    let own = std::mem::replace(&mut shop.key, other);
    assert_eq!(shop.ask(&session, NOW), Some(Denial::DpopWrongKey));
    shop.key = own;
    // To a client certificate: only of this connection, and only over such.
    let identity = |byte: u8| Identity {
        thumbprint: encode(&[byte; 32]).into(),
        subject: "CN=phone".into(),
        names: Box::default(),
    };
    let body = json!({ "cnf": { "x5t#S256": encode(&[1; 32]) } });
    let begin = |shop: &Shop, counter| {
        let headers = shop.assertion(&shop.challenge("session", None, NOW), counter, &body);
        shop.send_session(&headers, &body, NOW)
    };
    assert_eq!(denial(begin(&shop, 2)), Some(Denial::CertificateMissing));
    shop.client.identity = Some(Box::new(identity(2)));
    assert_eq!(denial(begin(&shop, 2)), Some(Denial::CertificateMismatch));
    shop.client.identity = Some(Box::new(identity(1)));
    let session = read(&begin(&shop, 2).unwrap())["session"].as_str().unwrap().to_owned();
    let mut headers = HeaderMap::new();
    headers.insert("enforcer-session", session.parse()?);
    assert!(shop.admit(PATH, &headers, NOW).is_ok(), "no proof is needed");
    shop.client.identity = Some(Box::new(identity(2)));
    assert_eq!(shop.admit(PATH, &headers, NOW).unwrap_err().denial, Denial::CertificateMismatch);
    shop.client.identity = None;
    assert_eq!(shop.admit(PATH, &headers, NOW).unwrap_err().denial, Denial::CertificateMissing);
    for body in [
        json!({}),
        json!({"cnf": {}}),
        json!({"cnf": {"jkt": "x"}}),
        json!({"cnf": {"kid": encode(&[1; 32])}}),
    ] {
        let headers = shop.assertion(&shop.challenge("session", None, NOW), 3, &body);
        assert_eq!(
            denial(shop.send_session(&headers, &body, NOW)),
            Some(Denial::AttestationRequest),
            "{body}"
        );
    }
    Ok(())
}

#[test]
fn a_route_says_which_devices_it_takes_and_how_fresh() -> Result<()> {
    let shop = Shop::with(|site| {
        let route = |path: &str, change: &dyn Fn(&mut enforcer::config::AttestationDemand)| {
            let mut demand = edge::demand();
            change(&mut demand);
            enforcer::config::Route { attestation: Some(demand), ..edge::route(path, None, &[]) }
        };
        site.config.routes.push(route("/fresh/", &|demand| demand.max_age = Duration::from_secs(60)));
        site.config.routes.push(route("/strong/", &|demand| demand.level = Level::Strong));
        site.config.routes.push(route("/android/", &|demand| demand.platforms = vec![Platform::Android]));
        let mut limited = route("/limited/", &|demand| demand.platforms = vec![Platform::Ios]);
        let rate = RateLimit { events: 1, period: Duration::from_secs(60), burst: 1 };
        limited.limits = vec![enforcer::config::Limit {
            name: "device".to_owned(),
            key: LimitKey::Device,
            rate,
            delay: None,
            dry_run: false,
        }];
        site.config.routes.push(limited);
    })?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let ask = |path: &str, now: u64| {
        let header = json!({"typ": "dpop+jwt", "alg": shop.key.alg(), "jwk": bare(&shop.key)});
        let url = format!("https://{NAME}{path}");
        let claims = json!({"jti": unique(), "htm": "GET", "htu": url, "iat": now, "ath": ath(&session)});
        let proof = shop.key.mint_raw(&header.to_string(), &claims.to_string()).unwrap();
        shop.admit(path, &fields(&session, &proof), now).err().map(|refusal| refusal.denial)
    };
    assert_eq!(ask("/fresh/x", NOW + 60), None);
    assert_eq!(ask("/fresh/x", NOW + 61), Some(Denial::AttestationStale));
    assert_eq!(ask("/strong/x", NOW), None);
    assert_eq!(ask("/android/x", NOW), Some(Denial::AttestationPlatform));
    let outcomes = [(); 3].map(|()| ask("/limited/x", NOW));
    assert_eq!(outcomes, [None, None, Some(Denial::RateLimited)], "counted by the device");
    // Whoever revokes a device means its sessions, too.
    let revoked = shop.policy.revoked();
    let mark = revoked.marker().mark(Kind::Device, shop.id().to_string().as_bytes());
    revoked.revoke(mark, Terms { until: FOREVER, before: WHENEVER }, NOW).unwrap();
    assert_eq!(ask("/strong/x", NOW), Some(Denial::DeviceBlocked));
    revoked.restore(mark, NOW);
    assert_eq!(ask("/strong/x", NOW), None);
    Ok(())
}

#[test]
fn a_fleet_shares_sessions_by_their_secrets() -> Result<()> {
    let shared = |how: UnknownDevices| {
        move |site: &mut Site| {
            let path = site.dir.path().join("sessions.key");
            fs::write(&path, format!("{}\n", "QUFB".repeat(16))).unwrap();
            let attestation = site.config.attestation.as_mut().unwrap();
            (attestation.session_keys, attestation.unknown_devices) = (Some(path), how);
        }
    };
    let one = Shop::with(shared(UnknownDevices::Refuse))?;
    one.enrol(NOW).unwrap();
    let session = one.session(1, NOW).unwrap();
    let at = |other: &mut Shop| {
        other.key = SigningKey::p256("spare").unwrap();
        let headers = fields(&session, &one.proof(&session, NOW));
        let mut grant = other.admit(PATH, &headers, NOW).map_err(|one| one.denial)?;
        grant.tell(NOW).map(|()| grant.device_facts().is_some())
    };
    assert_eq!(at(&mut Shop::with(shared(UnknownDevices::Refuse))?), Err(Denial::DeviceUnknown));
    assert_eq!(at(&mut Shop::with(shared(UnknownDevices::BySession))?), Ok(true));
    assert_eq!(at(&mut Shop::new()?), Err(Denial::AttestationSession), "other secrets");
    Ok(())
}

#[test]
fn endpoints_have_their_methods_and_limits_and_are_not_for_everybody() -> Result<()> {
    let rate = RateLimit { events: 60, period: Duration::from_secs(60), burst: 4 };
    let shop = Shop::with(|site| site.config.attestation.as_mut().unwrap().limit = rate)?;
    let ask = |method: &Method, path: &str, change: &dyn Fn(&mut RequestFacts<'_>)| {
        let headers = HeaderMap::new();
        let mut facts = shop.facts(method, path, &headers);
        change(&mut facts);
        let now = Now { monotonic: KernelTime(NOW * 1_000_000_000), unix: NOW };
        let endpoint = devices::endpoint(&shop.policy, &facts, now);
        endpoint.map(|outcome| outcome.map_err(|refusal| (refusal.denial, refusal.retry_after)))
    };
    let path = "/.well-known/enforcer/challenge";
    let plain = |_: &mut RequestFacts<'_>| ();
    assert_eq!(ask(&Method::GET, path, &plain), Some(Err((Denial::MethodNotAllowed, None))));
    assert_eq!(ask(&Method::POST, path, &|facts| facts.is_banned = true), Some(Err((Denial::Banned, None))));
    assert_eq!(ask(&Method::POST, path, &|facts| facts.is_early = true), Some(Err((Denial::TooEarly, None))));
    assert_eq!(ask(&Method::POST, "/.well-known/enforcer/other", &plain), None);
    let keys = "/.well-known/enforcer/keys";
    assert_eq!(ask(&Method::POST, keys, &plain), Some(Err((Denial::MethodNotAllowed, None))));
    for _ in 0..5 {
        assert_eq!(ask(&Method::POST, path, &plain), Some(Ok(Endpoint::Challenge)));
    }
    assert_eq!(ask(&Method::POST, path, &plain), Some(Err((Denial::RateLimited, Some(1)))));
    let enrol = "/.well-known/enforcer/enrol";
    assert_eq!(ask(&Method::POST, enrol, &plain), Some(Err((Denial::RateLimited, Some(1)))), "one budget");
    assert_eq!(ask(&Method::GET, keys, &plain), Some(Ok(Endpoint::Keys)), "servers need them");
    let none = Policy::load(&Site::new("127.0.0.1:9".parse()?)?.config)?;
    let headers = HeaderMap::new();
    let now = Now { monotonic: KernelTime(0), unix: NOW };
    assert!(devices::endpoint(&none, &shop.facts(&Method::POST, path, &headers), now).is_none());
    for bad in [
        "",
        "[]",
        "{}",
        "{\"purpose\":1}",
        "{\"purpose\":\"x\"}",
        "{\"purpose\":\"enrol\",\"purpose\":\"enrol\"}",
    ] {
        let facts = shop.facts(&Method::POST, path, &headers);
        let answer = devices::answer(&shop.policy, Endpoint::Challenge, &facts, bad.as_bytes(), now);
        assert_eq!(denial(answer), Some(Denial::AttestationRequest), "{bad}");
    }
    Ok(())
}

#[test]
fn a_reload_keeps_devices_challenges_and_sessions_and_what_it_takes_away_counts_no_longer() -> Result<()> {
    let mut shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let challenge = shop.challenge("session", None, NOW);
    let mut config = shop.site.config.clone();
    config.attestation.as_mut().unwrap().session_lifetime = Duration::from_secs(60);
    shop.policy = shop.policy.reload(&config)?;
    assert_eq!(shop.ask(&session, NOW), None);
    let body = shop.confirmation();
    let headers = shop.assertion(&challenge, 2, &body);
    assert_eq!(denial(shop.send_session(&headers, &body, NOW)), None);
    let app_attest = config.attestation.as_mut().unwrap().app_attest.as_mut().unwrap();
    app_attest.environment = Environment::Development;
    shop.policy = shop.policy.reload(&config)?;
    assert_eq!(denial(shop.session(3, NOW)), Some(Denial::DeviceUnknown), "of an environment that is gone");
    Ok(())
}
