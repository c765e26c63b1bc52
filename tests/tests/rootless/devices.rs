//! What devices are given and refused: challenges, enrolment, counters, blocks. No network; a phone that is played, under a root that
//! the test makes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::sync::Barrier;

use anyhow::Result;
use enforcer::{
    attestation::app_attest,
    control::wire,
    denial::Denial,
    enrolment::{DeviceId, session::LENGTH},
    metrics::Metrics,
    policy::Policy,
    store::Gauges,
};
use enforcer_tests::{
    attestation::apple::{Apple, Phone, sha256},
    tokens::SigningKey,
};
use http::HeaderMap;
use serde_json::json;

use super::{
    admit::NOW,
    shop::{APP, PATH, Shop, denial, fields, read},
    till::thumbprint,
};

#[test]
fn a_device_enrols_begins_a_session_and_its_requests_pass() -> Result<()> {
    let shop = Shop::new()?;
    let answer = shop.enrol(NOW).unwrap();
    assert_eq!((answer.status, answer.event, answer.is_public), (201, "enrolled", false));
    assert_eq!(
        read(&answer),
        json!({ "device": shop.id().to_string(), "platform": "ios", "level": "strong" })
    );
    let session = shop.session(1, NOW).unwrap();
    assert_eq!(session.len(), LENGTH);
    for after in [0, 1, 899] {
        assert_eq!(shop.ask(&session, NOW + after), None, "{after}");
    }
    let mut grant = shop.admit(PATH, &fields(&session, &shop.proof(&session, NOW)), NOW).unwrap();
    assert_eq!(grant.device(), Some(shop.id().to_string().as_str()));
    assert!(grant.device_facts().is_none(), "nothing is signed before it goes on");
    grant.tell(NOW).unwrap();
    assert!(grant.device_facts().is_some());
    assert_eq!(shop.ask(&session, NOW + 900), Some(Denial::AttestationStale), "its time is over");
    // A route that asks for nothing tells nothing.
    let mut grant = shop.admit("/public/x", &HeaderMap::new(), NOW).unwrap();
    grant.tell(NOW).unwrap();
    assert!(grant.device().is_none() && grant.device_facts().is_none());
    Ok(())
}

#[test]
fn a_challenge_is_used_up_whatever_comes_of_it() -> Result<()> {
    let shop = Shop::new()?;
    let challenge = shop.challenge("enrol", None, NOW);
    let good = shop.enrolment(&shop.phone, &challenge);
    let mut other = good.clone();
    other["attestation"] = shop.enrolment(&shop.phone, "another")["attestation"].clone();
    assert_eq!(denial(shop.send_enrolment(&other, NOW)), Some(Denial::AttestationNonce));
    assert_eq!(denial(shop.send_enrolment(&good, NOW)), Some(Denial::AttestationNonceReused));
    assert_eq!(shop.policy.attestation().unwrap().enrolment.devices.look().devices, 0);
    // What cannot be read at all has used nothing up.
    let challenge = shop.challenge("enrol", None, NOW);
    let good = shop.enrolment(&shop.phone, &challenge);
    for name in ["provider", "key_id", "attestation"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        assert_eq!(denial(shop.send_enrolment(&body, NOW)), Some(Denial::AttestationRequest), "{name}");
    }
    assert_eq!(denial(shop.send_enrolment(&good, NOW + 119)), None);
    let late = shop.enrolment(&shop.phone, &shop.challenge("enrol", None, NOW + 119));
    assert_eq!(denial(shop.send_enrolment(&late, NOW + 239)), Some(Denial::AttestationNonceStale));
    // Another purpose, another device.
    let session = shop.challenge("session", None, NOW + 239);
    let body = shop.enrolment(&shop.phone, &session);
    assert_eq!(denial(shop.send_enrolment(&body, NOW + 239)), Some(Denial::AttestationNonceUnknown));
    let others = shop.challenge("session", Some(DeviceId::of_key(b"other")), NOW + 239);
    let body = shop.confirmation();
    let headers = shop.assertion(&others, 1, &body);
    assert_eq!(denial(shop.send_session(&headers, &body, NOW + 239)), Some(Denial::AttestationNonceUnknown));
    Ok(())
}

#[test]
fn what_is_not_genuine_does_not_enrol() -> Result<()> {
    let shop = Shop::new()?;
    let send = |phone: &Phone, apple: &Apple| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let challenge = shop.challenge("enrol", None, NOW);
        let object = phone.attest(apple, &sha256(challenge.as_bytes())).unwrap();
        let mut body = shop.enrolment(phone, &challenge);
        body["attestation"] = STANDARD.encode(object).into();
        denial(shop.send_enrolment(&body, NOW))
    };
    let production = app_attest::Environment::Production;
    let development = Phone::new(APP, app_attest::Environment::Development)?;
    let stranger = Phone::new("ABCDE12345.com.example.other", production)?;
    assert_eq!(send(&development, &shop.apple), Some(Denial::AttestationEnvironment));
    assert_eq!(send(&stranger, &shop.apple), Some(Denial::AppNotRecognised));
    assert_eq!(send(&shop.phone, &Apple::new(NOW)?), Some(Denial::AttestationChain));
    assert_eq!(send(&shop.phone, &shop.apple), None);
    // A provider that is not configured is none.
    let without = Shop::with(|site| site.config.attestation.as_mut().unwrap().app_attest = None)?;
    assert_eq!(denial(without.enrol(NOW)), Some(Denial::AttestationRequest));
    Ok(())
}

#[test]
fn a_counter_is_shown_once_and_gaps_are_normal() -> Result<()> {
    let shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    for (counter, expected) in [
        (0, Some(Denial::AssertionCounterReplayed)),
        (1, None),
        (1, Some(Denial::AssertionCounterReplayed)),
        (40, None),
        (39, Some(Denial::AssertionCounterReplayed)),
        (41, None),
    ] {
        assert_eq!(denial(shop.session(counter, NOW)), expected, "{counter}");
    }
    // The same assertion once more: its challenge has gone before its counter is looked at.
    let (body, challenge) = (shop.confirmation(), shop.challenge("session", None, NOW));
    let headers = shop.assertion(&challenge, 42, &body);
    assert_eq!(denial(shop.send_session(&headers, &body, NOW)), None);
    assert_eq!(denial(shop.send_session(&headers, &body, NOW)), Some(Denial::AttestationNonceReused));
    // What was signed is this body and no other one: nobody else's key gets in.
    let challenge = shop.challenge("session", None, NOW);
    let headers = shop.assertion(&challenge, 43, &body);
    let stolen = json!({ "cnf": { "jkt": thumbprint(&SigningKey::p256("thief")?) } });
    assert_eq!(denial(shop.send_session(&headers, &stolen, NOW)), Some(Denial::AssertionBadSignature));
    Ok(())
}

#[test]
fn of_two_racing_assertions_with_one_counter_one_is_admitted() -> Result<()> {
    let shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    let body = shop.confirmation();
    for round in 1..20 {
        let headers: Vec<_> = (0..4)
            .map(|_| shop.assertion(&shop.challenge("session", Some(shop.id()), NOW), round, &body))
            .collect();
        let barrier = Barrier::new(headers.len());
        let race = |headers: &HeaderMap| {
            barrier.wait();
            denial(shop.send_session(headers, &body, NOW))
        };
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = headers.iter().map(|one| scope.spawn(|| race(one))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let won = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        let lost = outcomes.iter().filter(|one| **one == Some(Denial::AssertionCounterReplayed)).count();
        assert_eq!((won, lost), (1, 3), "round {round}: {outcomes:?}");
    }
    Ok(())
}

#[test]
fn a_restart_between_challenge_and_use_costs_a_challenge_and_revives_nothing() -> Result<()> {
    let mut shop = Shop::with(|site| {
        let store = site.dir.path().join("devices.redb");
        site.config.attestation.as_mut().unwrap().store = Some(store);
    })?;
    let metrics = Metrics::new()?;
    let gauges = || Gauges {
        pending: metrics.device_store_pending.clone(),
        errors: metrics.device_store_errors.clone(),
    };
    let path = shop.site.dir.path().join("devices.redb");
    shop.policy.attestation().unwrap().enrolment.devices.keep(&path, gauges())?;
    shop.enrol(NOW).unwrap();
    let body = shop.confirmation();
    let session = shop.session(7, NOW).unwrap();
    let used = shop.assertion(&shop.challenge("session", None, NOW), 8, &body);
    assert_eq!(denial(shop.send_session(&used, &body, NOW)), None);
    let unused = shop.assertion(&shop.challenge("session", None, NOW), 9, &body);
    // As a crash that lost the last counter: the store is read as it was before.
    let config = shop.site.config.clone();
    drop(std::mem::replace(&mut shop.policy, Policy::load_at(&config, NOW - 86_400)?));
    let devices = &shop.policy.attestation().unwrap().enrolment.devices;
    devices.keep(&path, gauges())?;
    assert_eq!(devices.find(shop.id()).unwrap().counter, 8, "an orderly end loses nothing");
    let earlier = enforcer::enrolment::Device { counter: 1, ..devices.find(shop.id()).unwrap() };
    assert!(devices.forget(shop.id()).is_some());
    devices.enrol(shop.id(), earlier).unwrap();
    for (name, headers) in [("used", used), ("unused", unused)] {
        let outcome = denial(shop.send_session(&headers, &body, NOW));
        assert_eq!(outcome, Some(Denial::AttestationNonceUnknown), "{name}");
    }
    assert_eq!(shop.ask(&session, NOW), Some(Denial::AttestationSession), "of the process before");
    let session = shop.session(10, NOW).unwrap();
    assert_eq!(shop.ask(&session, NOW), None);
    Ok(())
}

#[test]
fn a_device_that_is_blocked_is_refused_with_every_session_it_has() -> Result<()> {
    let shop = Shop::new()?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let device = shop.id().to_string();
    let block = wire::DeviceCommand::Block { device: device.clone(), reason: "stolen".to_owned() };
    assert_eq!(shop.ask(&session, NOW), None);
    shop.operate(block).unwrap();
    assert_eq!(shop.ask(&session, NOW), Some(Denial::DeviceBlocked), "the next request");
    assert_eq!(denial(shop.session(2, NOW)), Some(Denial::DeviceBlocked));
    assert_eq!(denial(shop.enrol(NOW)), Some(Denial::DeviceBlocked), "enrolling anew helps nobody");
    let wire::Answer::Devices(page) = shop
        .operate(wire::DeviceCommand::List {
            after: None,
            most: None,
            blocked: true,
            only: wire::DeviceFilter::default(),
        })
        .unwrap()
    else {
        panic!("no page")
    };
    assert_eq!((page.devices, page.blocked, page.rows.len()), (1, 1, 1));
    assert_eq!((page.rows[0].device.as_str(), page.rows[0].reason.as_str()), (device.as_str(), "stolen"));
    shop.operate(wire::DeviceCommand::Unblock { device: device.clone() }).unwrap();
    assert_eq!(shop.ask(&session, NOW), None);
    let wire::Answer::Device(row) =
        shop.operate(wire::DeviceCommand::Show { device: device.clone() }).unwrap()
    else {
        panic!("no device")
    };
    assert_eq!((row.app.as_str(), row.counter, row.blocked_since), (APP, 1, None));
    shop.operate(wire::DeviceCommand::Forget { device: device.clone() }).unwrap();
    assert_eq!(shop.ask(&session, NOW), Some(Denial::DeviceUnknown));
    assert_eq!(denial(shop.session(2, NOW)), Some(Denial::DeviceUnknown), "never taken up by itself");
    for command in [
        wire::DeviceCommand::Unblock { device: device.clone() },
        wire::DeviceCommand::Forget { device },
        wire::DeviceCommand::Show { device: "x".to_owned() },
    ] {
        assert!(shop.operate(command).is_err());
    }
    // It enrols again with the same key.
    assert_eq!(shop.enrol(NOW).unwrap().event, "enrolled");
    assert_eq!(shop.enrol(NOW).unwrap().event, "enrolled_again");
    assert_eq!(shop.ask(&shop.session(2, NOW).unwrap(), NOW), None);
    Ok(())
}

#[test]
fn what_has_no_room_is_refused() -> Result<()> {
    let mut shop = Shop::with(|site| {
        let attestation = site.config.attestation.as_mut().unwrap();
        (attestation.max_devices, attestation.max_challenges) = (1, 1_024);
    })?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    shop.phone = Phone::new(APP, app_attest::Environment::Production)?;
    assert_eq!(denial(shop.enrol(NOW)), Some(Denial::DeviceRegistryFull));
    assert_eq!(shop.ask(&session, NOW), None, "who is known goes on");
    // A flood of challenges costs no memory; one of used ones ends with a refusal.
    let challenges = &shop.policy.attestation().unwrap().enrolment.challenges;
    let before = challenges.spent();
    let given: Vec<String> = (0..3_000).map(|_| shop.challenge("enrol", None, NOW)).collect();
    assert_eq!(challenges.spent(), before);
    let bad = |challenge: &str| {
        json!({
            "provider": "app-attest", "challenge": challenge, "key_id": "AA==", "attestation": "AA==",
        })
    };
    let outcomes: Vec<_> = given.iter().map(|one| denial(shop.send_enrolment(&bad(one), NOW))).collect();
    assert!(outcomes.contains(&Some(Denial::ReplayFull)), "fails closed");
    assert!(outcomes.contains(&Some(Denial::AttestationMalformed)) && challenges.spent() <= 1_024);
    Ok(())
}
