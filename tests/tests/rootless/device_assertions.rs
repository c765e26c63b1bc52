//! Assertions of requests without a network: what they are over, and what a restart and a crash make of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{sync::Barrier, time::Duration};

use anyhow::Result;
use enforcer::{
    checks::{
        Now, admit,
        devices::{assertion, client_data},
        facts::{RequestFacts, Target},
        token::KnownTokens,
    },
    clock::KernelTime,
    config::{Assertion, AttestationDemand, OverRisk, Route},
    denial::Denial,
    enrolment::DeviceId,
    policy::Policy,
};
use enforcer_tests::{
    attestation::apple::sha256,
    edge::{self, Site},
    tokens::encode,
};
use http::{HeaderMap, Method};
use serde_json::json;

use super::{
    admit::NOW,
    shop::{PATH, Shop, denial, fields, read},
};

/// Its own route, and another one that takes the time as well.
const TIMED: &str = "/timed/x";

fn asserting(site: &mut Site) {
    let demand = |assertion, group: &str| {
        Some(AttestationDemand { assertion: Some(assertion), group: group.to_owned(), ..edge::demand() })
    };
    let route = |path, demand| Route { attestation: demand, ..edge::route(path, None, &[]) };
    site.config.routes.retain(|route| route.path != "/device/");
    site.config.routes.extend([
        route("/device/", demand(Assertion::Challenge, "orders")),
        route("/timed/", demand(Assertion::Time, "times")),
        Route { name: "plain".to_owned(), ..route("/plain/", Some(edge::demand())) },
    ]);
}

fn shop() -> Result<Shop> {
    let shop = Shop::with(asserting)?;
    shop.enrol(NOW).unwrap();
    Ok(shop)
}

/// What a request is signed over, and where that stands.
#[derive(Clone, Copy)]
enum Over<'a> {
    Challenge(&'a str),
    Time(u64),
}

/// A request to one of the routes.
struct Sent<'a> {
    path: &'a str,
    headers: HeaderMap,
    body: &'a [u8],
    now: u64,
}

impl Shop {
    fn asked(&self, group: &str, device: Option<DeviceId>, now: u64) -> String {
        let mut body = json!({ "purpose": "request", "group": group });
        if let Some(device) = device {
            body["device"] = device.to_string().into();
        }
        let answer = self.post("/.well-known/enforcer/challenge", &HeaderMap::new(), &body, now).unwrap();
        read(&answer)["challenge"].as_str().unwrap().to_owned()
    }

    /// With session and assertion, as app developers are told.
    fn signed<'a>(&self, session: &str, path: &'a str, over: Over<'_>, counter: u32, now: u64) -> Sent<'a> {
        let mut headers = fields(session, &self.proof_of(path, session, now));
        let text = match over {
            Over::Challenge(challenge) => {
                headers.insert("enforcer-challenge", challenge.parse().unwrap());
                challenge.to_owned()
            }
            Over::Time(time) => {
                headers.insert("enforcer-time", time.to_string().parse().unwrap());
                time.to_string()
            }
        };
        let data = client_data(&text, &Method::GET, Target { path, query: None }, b"");
        let made = self.phone.assertion(counter, 0x40, &sha256(data.as_bytes())).unwrap();
        headers.insert("enforcer-assertion", encode(&made).parse().unwrap());
        Sent { path, headers, body: b"", now }
    }

    fn pass(&self, sent: &Sent<'_>) -> Option<Denial> {
        let facts: RequestFacts<'_> = self.facts(&Method::GET, sent.path, &sent.headers);
        let now = Now { monotonic: KernelTime(sent.now * 1_000_000_000), unix: sent.now };
        let mut grant = match admit(&self.policy, &facts, now, &mut KnownTokens::new(0)) {
            Ok(grant) => grant,
            Err(refusal) => return Some(refusal.denial),
        };
        assert!(grant.upstream().is_none(), "nothing is forwarded before it is verified");
        assert_eq!(assertion::most(&grant), Some(1 << 20));
        let judged = assertion::body(&mut grant, &facts, sent.body, sent.now);
        assert_eq!(grant.upstream().is_some(), judged.is_ok());
        denial(judged)
    }
}

#[test]
fn a_request_is_good_once_with_an_assertion_over_a_challenge_of_its_group() -> Result<()> {
    let shop = shop()?;
    let session = shop.session(1, NOW).unwrap();
    let ask = |group, device, counter| {
        let challenge = shop.asked(group, device, NOW);
        shop.pass(&shop.signed(&session, PATH, Over::Challenge(&challenge), counter, NOW))
    };
    assert_eq!(ask("orders", None, 2), None);
    assert_eq!(ask("orders", Some(shop.id()), 3), None);
    assert_eq!(ask("times", None, 4), Some(Denial::AttestationNonceUnknown), "another group");
    let other = DeviceId::of_key(b"other");
    assert_eq!(ask("orders", Some(other), 5), Some(Denial::AttestationNonceUnknown), "another device");
    assert_eq!(ask("orders", None, 3), Some(Denial::AssertionCounterReplayed));
    assert_eq!(ask("orders", None, 40), None, "gaps are normal");
    // The same once more, and one over a challenge for a session.
    let challenge = shop.asked("orders", None, NOW);
    let sent = shop.signed(&session, PATH, Over::Challenge(&challenge), 41, NOW);
    assert_eq!(shop.pass(&sent), None);
    let mut again = shop.signed(&session, PATH, Over::Challenge(&challenge), 42, NOW);
    assert_eq!(shop.pass(&again), Some(Denial::AttestationNonceReused));
    again = shop.signed(&session, PATH, Over::Challenge(&shop.challenge("session", None, NOW)), 43, NOW);
    assert_eq!(shop.pass(&again), Some(Denial::AttestationNonceUnknown), "for something else");
    let own = shop.asked("orders", None, NOW);
    let body = shop.confirmation();
    let headers = shop.assertion(&own, 44, &body);
    assert_eq!(denial(shop.send_session(&headers, &body, NOW)), Some(Denial::AttestationNonceUnknown));
    Ok(())
}

#[test]
fn what_is_missing_or_said_twice_is_refused_and_uses_nothing_up() -> Result<()> {
    let shop = shop()?;
    let session = shop.session(1, NOW).unwrap();
    let challenge = shop.asked("orders", None, NOW);
    let with = |change: &dyn Fn(&mut HeaderMap)| {
        let mut sent = shop.signed(&session, PATH, Over::Challenge(&challenge), 2, NOW);
        change(&mut sent.headers);
        shop.pass(&sent)
    };
    let missing = Some(Denial::AssertionMissing);
    let request = Some(Denial::AttestationRequest);
    for (name, change, expected) in [
        (
            "no assertion",
            &(|headers: &mut HeaderMap| drop(headers.remove("enforcer-assertion")))
                as &dyn Fn(&mut HeaderMap),
            missing,
        ),
        ("no challenge", &|headers| drop(headers.remove("enforcer-challenge")), missing),
        (
            "the time in its place",
            &|headers| {
                headers.remove("enforcer-challenge");
                headers.insert("enforcer-time", NOW.to_string().parse().unwrap());
            },
            missing,
        ),
        ("both", &|headers| drop(headers.insert("enforcer-time", "1".parse().unwrap())), request),
        (
            "twice",
            &|headers| {
                headers.append("enforcer-assertion", "AA==".parse().unwrap());
            },
            request,
        ),
        ("no base64", &|headers| drop(headers.insert("enforcer-assertion", "?".parse().unwrap())), request),
        (
            "another device",
            &|headers| {
                let other = DeviceId::of_key(b"other").to_string();
                headers.insert("enforcer-device", other.parse().unwrap());
            },
            request,
        ),
    ] {
        assert_eq!(with(change), expected, "{name}");
    }
    let own = shop.id().to_string();
    assert_eq!(with(&|headers| drop(headers.insert("enforcer-device", own.parse().unwrap()))), None);
    // A challenge is only given out for a group that there is, and for nothing else.
    for bad in [
        json!({"purpose": "request"}),
        json!({"purpose": "request", "group": "plain"}),
        json!({"purpose": "request", "group": "nobody's"}),
        json!({"purpose": "request", "group": 1}),
        json!({"purpose": "session", "group": "orders"}),
        json!({"purpose": "enrol", "group": "orders"}),
        json!({"purpose": "enrol", "device": shop.id().to_string()}),
    ] {
        let answer = shop.post("/.well-known/enforcer/challenge", &HeaderMap::new(), &bad, NOW);
        assert_eq!(denial(answer), request, "{bad}");
    }
    Ok(())
}

#[test]
fn an_assertion_is_of_this_request_and_of_the_sessions_device() -> Result<()> {
    let mut shop = shop()?;
    let session = shop.session(1, NOW).unwrap();
    let sign = |shop: &Shop, counter| {
        let challenge = shop.asked("orders", None, NOW);
        shop.signed(&session, PATH, Over::Challenge(&challenge), counter, NOW)
    };
    let bad = Some(Denial::AssertionBadSignature);
    assert_eq!(shop.pass(&Sent { body: b"{}", ..sign(&shop, 2) }), bad, "another body");
    let elsewhere = "/device/y";
    let mut moved = sign(&shop, 3);
    moved.path = elsewhere;
    moved.headers.insert("enforcer-proof", shop.proof_of(elsewhere, &session, NOW).parse()?);
    assert_eq!(shop.pass(&moved), bad, "another path");
    // Over another challenge than the one that is shown.
    let mut other = sign(&shop, 4);
    other.headers.insert("enforcer-challenge", shop.asked("orders", None, NOW).parse()?);
    assert_eq!(shop.pass(&other), bad);
    // By a phone that has enrolled as well, in the session of this one.
    let own = std::mem::replace(
        &mut shop.phone,
        enforcer_tests::attestation::apple::Phone::new(
            super::shop::APP,
            enforcer::attestation::app_attest::Environment::Production,
        )?,
    );
    shop.enrol(NOW).unwrap();
    assert_eq!(shop.pass(&sign(&shop, 5)), bad, "of another device");
    shop.phone = own;
    assert_eq!(shop.pass(&sign(&shop, 6)), None);
    Ok(())
}

#[test]
fn a_time_is_of_now_and_of_this_process() -> Result<()> {
    let mut shop = shop()?;
    let session = shop.session(1, NOW).unwrap();
    let mut counter = 1;
    let mut ask = |shop: &Shop, session: &str, time: u64, now: u64| {
        counter += 1;
        shop.pass(&shop.signed(session, TIMED, Over::Time(time), counter, now))
    };
    let stale = Some(Denial::AssertionStale);
    for (time, expected) in [
        (NOW, None),
        (NOW - 59, None),
        (NOW - 60, stale),
        (NOW + 10, None),
        (NOW + 11, stale),
        (NOW * 1_000, stale),
        (0, stale),
    ] {
        assert_eq!(ask(&shop, &session, time, NOW), expected, "{time}");
    }
    let mut odd = shop.signed(&session, TIMED, Over::Time(NOW), 90, NOW);
    for text in ["+1800000000", "", "1800000000.0", "0x1", "99999999999999999999", "1800000000 "] {
        odd.headers.insert("enforcer-time", text.parse()?);
        odd.headers.insert("enforcer-proof", shop.proof_of(TIMED, &session, NOW).parse()?);
        assert_eq!(shop.pass(&odd), Some(Denial::AttestationRequest), "{text}");
    }
    // The same assertion again is the same counter; a challenge is taken as well.
    let sent = shop.signed(&session, TIMED, Over::Time(NOW), 91, NOW);
    assert_eq!(shop.pass(&sent), None);
    let mut again = shop.signed(&session, TIMED, Over::Time(NOW), 91, NOW);
    assert_eq!(shop.pass(&again), Some(Denial::AssertionCounterReplayed));
    let challenge = shop.asked("times", None, NOW);
    assert_eq!(shop.pass(&shop.signed(&session, TIMED, Over::Challenge(&challenge), 92, NOW)), None);

    // A crash that lost counters: the device is known as it was when it enrolled, and the process began at NOW + 5. Some minutes later,
    // so that proofs need no nonce any more.
    let known = shop.policy.attestation().unwrap().enrolment.devices.find(shop.id()).unwrap();
    assert_eq!(known.counter, 92);
    let lost = enforcer::enrolment::Device { counter: 1, ..known };
    let mut config = shop.site.config.clone();
    config.attestation.as_mut().unwrap().assertion_window = Duration::from_secs(600);
    shop.policy = Policy::load_at(&config, NOW + 5)?;
    shop.policy.attestation().unwrap().enrolment.devices.enrol(shop.id(), lost).unwrap();
    let now = NOW + 405;
    let session = shop.session(2, now).unwrap();
    for (time, expected) in [(NOW, stale), (NOW + 10, stale), (NOW + 15, stale), (NOW + 16, None)] {
        again = shop.signed(&session, TIMED, Over::Time(time), 93, now);
        assert_eq!(shop.pass(&again), expected, "{time}: used before, perhaps");
    }
    Ok(())
}

#[test]
fn of_two_racing_requests_with_one_counter_one_is_admitted() -> Result<()> {
    let shop = shop()?;
    let session = shop.session(1, NOW).unwrap();
    for round in 2..12 {
        let sent: Vec<_> = (0..4)
            .map(|_| {
                let challenge = shop.asked("orders", None, NOW);
                shop.signed(&session, PATH, Over::Challenge(&challenge), round, NOW)
            })
            .collect();
        let barrier = Barrier::new(sent.len());
        let race = |sent: &Sent<'_>| {
            barrier.wait();
            shop.pass(sent)
        };
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = sent.iter().map(|one| scope.spawn(|| race(one))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let won = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        let lost = outcomes.iter().filter(|one| **one == Some(Denial::AssertionCounterReplayed)).count();
        assert_eq!((won, lost), (1, 3), "round {round}: {outcomes:?}");
    }
    Ok(())
}

#[test]
fn a_full_store_of_challenges_refuses_requests() -> Result<()> {
    let shop = Shop::with(|site| {
        asserting(site);
        site.config.attestation.as_mut().unwrap().max_challenges = 1_024;
    })?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let mut full = 0;
    for _ in 0..3_000 {
        let mut headers = fields(&session, &shop.proof(&session, NOW));
        headers.insert("enforcer-challenge", shop.asked("orders", None, NOW).parse()?);
        headers.insert("enforcer-assertion", "AA==".parse()?);
        match shop.pass(&Sent { path: PATH, headers, body: b"", now: NOW }) {
            Some(Denial::ReplayFull) => full += 1,
            other => assert_eq!(other, Some(Denial::AssertionMalformed)),
        }
    }
    assert!(full > 1_000, "fails closed: {full}");
    Ok(())
}

#[test]
fn a_risk_above_what_the_route_takes_is_refused_or_told() -> Result<()> {
    for (most, over, risk, expected, told) in [
        (None, OverRisk::Deny, Some(1_000), None, false),
        (Some(3), OverRisk::Deny, None, None, false),
        (Some(3), OverRisk::Deny, Some(3), None, false),
        (Some(3), OverRisk::Deny, Some(4), Some(Denial::DeviceRisk), false),
        (Some(3), OverRisk::Flag, Some(3), None, false),
        (Some(3), OverRisk::Flag, Some(4), None, true),
    ] {
        let shop = Shop::with(|site| {
            let demand = site.config.routes.iter_mut().find_map(|route| route.attestation.as_mut()).unwrap();
            (demand.max_risk, demand.over_risk) = (most, over);
        })?;
        shop.enrol(NOW).unwrap();
        if let Some(risk) = risk {
            shop.policy.attestation().unwrap().enrolment.devices.assess(shop.id(), risk);
        }
        let session = shop.session(1, NOW).unwrap();
        let outcome = shop.admit(PATH, &fields(&session, &shop.proof(&session, NOW)), NOW);
        let name = format!("{most:?} {over:?} {risk:?}");
        match outcome {
            Ok(grant) => assert_eq!((None, told), (expected, grant.is_over_risk()), "{name}"),
            Err(refusal) => assert_eq!(Some(refusal.denial), expected, "{name}"),
        }
    }
    Ok(())
}
