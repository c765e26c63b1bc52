//! Keys that an issuer publishes: a live one rotates them under load, is down, is asked for what it has not, and is hostile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::Result;
use enforcer::{
    clock::KernelTime,
    config::KeySource,
    policy::keyring::{Fetched, Keyring, Missing},
};
use enforcer_tests::{
    edge::{ISSUER, token},
    issuer::{LiveIssuer, Manner},
    tokens::{self, SigningKey},
};
use http::StatusCode;

use super::issuing::{Issuing, ask, code};

async fn scene(keys: &[&SigningKey], change: impl FnOnce(&mut KeySource)) -> Result<Issuing> {
    Issuing::new(keys, |site, issuer| {
        let mut source = issuer.source(false)?;
        change(&mut source);
        site.config.tokens.get_mut("main").unwrap().keys = source;
        Ok(())
    })
    .await
}

fn fetched(keys: &[&SigningKey]) -> Result<Fetched> {
    Ok(Fetched { text: Some(tokens::jwks(keys).into_bytes()), ..Fetched::default() })
}

fn every(seconds: u64) -> impl FnOnce(&mut KeySource) {
    move |source| {
        if let KeySource::Remote(remote) = source {
            remote.interval = Duration::from_secs(seconds);
        }
    }
}

fn mint(key: &SigningKey) -> Result<String> {
    key.mint(&tokens::claims(ISSUER, "api", "read", enforcer::clock::unix_now()))
}

#[tokio::test]
async fn the_first_request_waits_for_the_first_keys() -> Result<()> {
    let key = SigningKey::p256("one")?;
    let scene = scene(&[&key], |_| ()).await?;
    let token = mint(&key)?;
    for mut client in scene.edge.clients().await? {
        assert_eq!(ask(&mut client, &token).await?.status(), StatusCode::OK);
    }
    assert_eq!(scene.issuer.asked(), 1);
    Ok(())
}

#[tokio::test]
async fn keys_are_found_by_discovery() -> Result<()> {
    let key = SigningKey::rsa("one")?;
    let scene = Issuing::new(&[&key], |site, issuer| {
        let mut found = token(&issuer.name(), "unused".into());
        found.keys = issuer.source(true)?;
        site.config.tokens.insert("main".to_owned(), found);
        Ok(())
    })
    .await?;
    let now = enforcer::clock::unix_now();
    let good = key.mint(&tokens::claims(&scene.issuer.name(), "api", "read", now))?;
    let mut client = scene.edge.http1().await?;
    assert_eq!(ask(&mut client, &good).await?.status(), StatusCode::OK);
    Ok(())
}

/// The issuer changes its key from one moment to the next, again and again, and whoever holds the newest token is let in.
#[tokio::test]
async fn keys_rotate_under_load_without_a_false_refusal() -> Result<()> {
    // Every change comes later than the interval allows.
    let first = SigningKey::p256("key-0")?;
    let scene = scene(&[&first], every(0)).await?;
    let mut clients = scene.edge.clients().await?;
    let mut kept = vec![first];
    let mut served = 0;
    for n in 1..=5 {
        let next = SigningKey::p256(&format!("key-{n}"))?;
        let old = mint(kept.last().unwrap())?;
        kept.push(next);
        let newest: Vec<&SigningKey> = kept.iter().rev().take(2).collect();
        scene.issuer.publish(&newest);
        let new = mint(kept.last().unwrap())?;
        for round in 0..20 {
            for client in &mut clients {
                for token in [&old, &new] {
                    let status = ask(client, token).await?.status();
                    assert_eq!(status, StatusCode::OK, "key {n}, round {round}");
                    served += 1;
                }
            }
        }
    }
    assert_eq!(served, 5 * 20 * 2 * 2);
    // What the issuer has taken back is good no longer, however well it was known.
    let withdrawn = mint(&kept[0])?;
    let (status, code) = code(ask(&mut clients[0], &withdrawn).await?).await?;
    assert_eq!((status, code.as_str()), (401, "token_unknown_key"));
    Ok(())
}

#[tokio::test]
async fn a_flood_of_unknown_keys_asks_once() -> Result<()> {
    let key = SigningKey::p256("one")?;
    let scene = scene(&[&key], |_| ()).await?;
    let mut client = scene.edge.http2().await?;
    assert_eq!(ask(&mut client, &mint(&key)?).await?.status(), StatusCode::OK);
    for n in 0..200 {
        let stranger = key.mint_raw(
            &serde_json::json!({"alg": "ES256", "kid": format!("invented-{n}")}).to_string(),
            &tokens::claims(ISSUER, "api", "read", enforcer::clock::unix_now()).to_string(),
        )?;
        let (status, code) = code(ask(&mut client, &stranger).await?).await?;
        assert_eq!((status, code.as_str()), (401, "token_unknown_key"), "{n}");
    }
    assert_eq!(
        scene.issuer.asked(),
        2,
        "once to begin with, and once in an hour, which is this test's interval"
    );
    Ok(())
}

#[tokio::test]
async fn an_issuer_that_is_down_takes_nobody_with_it() -> Result<()> {
    let (key, next) = (SigningKey::p256("one")?, SigningKey::p256("two")?);
    let scene = scene(&[&key], every(0)).await?;
    let mut client = scene.edge.http1().await?;
    let good = mint(&key)?;
    assert_eq!(ask(&mut client, &good).await?.status(), StatusCode::OK);
    scene.issuer.behave(Manner::HangUp);
    let unknown = mint(&next)?;
    let (status, code) = code(ask(&mut client, &unknown).await?).await?;
    assert_eq!((status, code.as_str()), (503, "issuer_unavailable"));
    assert_eq!(ask(&mut client, &good).await?.status(), StatusCode::OK, "known keys hold on");
    assert!(scene.keyring().condition(enforcer::clock::kernel_now()).error.is_some());
    scene.issuer.publish(&[&key, &next]);
    assert_eq!(
        ask(&mut client, &unknown).await?.status(),
        StatusCode::OK,
        "and new ones come when it is back"
    );
    Ok(())
}

#[tokio::test]
async fn hostile_answers_change_nothing() -> Result<()> {
    let (key, next) = (SigningKey::p256("one")?, SigningKey::p256("two")?);
    let scene = scene(&[&key], every(0)).await?;
    let mut client = scene.edge.http1().await?;
    let (good, unknown) = (mint(&key)?, mint(&next)?);
    assert_eq!(ask(&mut client, &good).await?.status(), StatusCode::OK);
    let set = tokens::jwks(&[&next]);
    let redirect = format!("Location: https://{}/keys\r\n", scene.issuer.address);
    let private = {
        let mut jwk = next.jwk();
        jwk["d"] = "AAAA".into();
        serde_json::json!({"keys": [jwk]}).to_string()
    };
    let many = serde_json::json!({"keys": vec![next.jwk(); 101]}).to_string();
    for (name, manner) in [
        ("redirect", Manner::Answer(302, redirect, set.clone().into_bytes())),
        ("error with a set", Manner::Answer(500, String::new(), set.clone().into_bytes())),
        ("not JSON", Manner::Answer(200, String::new(), b"<html>".to_vec())),
        ("a private key", Manner::Answer(200, String::new(), private.into_bytes())),
        ("too many keys", Manner::Answer(200, String::new(), many.into_bytes())),
        ("no end", Manner::Flood),
        ("no answer", Manner::HangUp),
        // The last one: this fetch is under way for longer than the request waits.
        ("one byte at a time", Manner::Drip),
    ] {
        scene.issuer.behave(manner);
        // The request waits for the fetch, but not longer than is stated.
        let (status, code) = code(ask(&mut client, &unknown).await?).await?;
        assert_eq!((status, code.as_str()), (503, "issuer_unavailable"), "{name}");
        assert_eq!(ask(&mut client, &good).await?.status(), StatusCode::OK, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn private_addresses_are_not_asked_unless_allowed() -> Result<()> {
    let key = SigningKey::p256("one")?;
    let forbid = |source: &mut KeySource| {
        if let KeySource::Remote(remote) = source {
            remote.private_addresses = false;
        }
    };
    let scene = scene(&[&key], forbid).await?;
    let mut client = scene.edge.http1().await?;
    let (status, _) = code(ask(&mut client, &mint(&key)?).await?).await?;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let error = scene.keyring().condition(enforcer::clock::kernel_now()).error.unwrap();
    assert!(error.contains("127.0.0.1 is no public address"), "{error}");
    assert_eq!(scene.issuer.asked(), 0);
    Ok(())
}

/// Time is an argument here: hours pass in no time.
#[tokio::test]
async fn an_issuer_is_asked_no_more_often_than_allowed_and_keys_end() -> Result<()> {
    let issuer = LiveIssuer::start(&[]).await?;
    let mut configured = token(ISSUER, "unused".into());
    configured.keys = issuer.source(false)?;
    if let KeySource::Remote(remote) = &mut configured.keys {
        remote.interval = Duration::from_secs(10);
        remote.max_stale = Duration::from_secs(3600);
    }
    let keyring = Keyring::load(&configured, None)?;
    let at = |seconds: u64| KernelTime(1_000_000_000 * (100_000 + seconds));
    let (key, next) = (SigningKey::p256("one")?, SigningKey::p256("two")?);
    let set = |keys: &[&SigningKey]| fetched(keys);
    let is_asked = |kid: &str, seconds| match keyring.missing(kid, at(seconds)) {
        Missing::Pending(_) => "asked",
        Missing::Unknown => "unknown",
        Missing::Unavailable => "unavailable",
    };
    assert_eq!(is_asked("one", 0), "asked");
    assert_eq!(is_asked("two", 0), "asked", "the same fetch");
    keyring.begin(at(0));
    assert_eq!(is_asked("late", 0), "asked", "but the answer may be older than the question");
    assert!(keyring.end(set(&[&key]), at(0))?);
    assert!(matches!(keyring.still_missing("late", at(1)), Missing::Unavailable));
    assert_eq!((is_asked("two", 1), is_asked("two", 59)), ("unknown", "unknown"), "it was not in there");
    assert!(matches!(keyring.still_missing("two", at(1)), Missing::Unknown));
    assert!(matches!(keyring.still_missing("zero", at(1)), Missing::Unavailable), "nobody was asked for it");
    assert_eq!(is_asked("three", 2), "asked", "it may have come into use since");
    keyring.begin(at(2));
    assert!(!keyring.end(set(&[&key]), at(2))?);
    assert_eq!((is_asked("three", 3), is_asked("four", 11)), ("unknown", "unknown"), "but once an interval");
    assert_eq!(is_asked("four", 12), "asked");
    keyring.begin(at(12));
    assert!(keyring.end(Err(anyhow::anyhow!("down")), at(13)).is_err());
    assert_eq!(is_asked("five", 21), "unavailable");
    assert_eq!(keyring.set().keys.len(), 1, "the keys hold on");
    let before = keyring.set().epoch();
    keyring.begin(at(30));
    assert!(!keyring.end(set(&[&key]), at(30))?, "the same keys");
    assert_eq!(keyring.set().epoch(), before, "so nothing is verified anew");
    assert!(keyring.end(set(&[&key, &next]), at(40))?);
    assert_ne!(keyring.set().epoch(), before);
    assert!(keyring.due() <= at(40 + 900), "asked again before they run out");
    keyring.begin(at(40 + 3599));
    assert!(keyring.end(Err(anyhow::anyhow!("down")), at(40 + 3599)).is_err());
    assert_eq!(keyring.set().keys.len(), 2);
    assert!(keyring.due() <= at(40 + 3600), "looked at when they are too old");
    assert!(keyring.end(Err(anyhow::anyhow!("down")), at(40 + 3600)).is_err());
    assert!(keyring.set().keys.is_empty(), "an hour without a word is too long");
    Ok(())
}

/// Ten minutes without a word from the issuer, in no time: known keys hold on, what is unknown is refused as what nobody can tell, and the
/// issuer is left alone but for a few attempts. When it is back, everything is as it should be.
#[tokio::test]
async fn ten_minutes_without_the_issuer_refuse_nobody_whose_key_is_known() -> Result<()> {
    let issuer = LiveIssuer::start(&[]).await?;
    let mut configured = token(ISSUER, "unused".into());
    configured.keys = issuer.source(false)?;
    if let KeySource::Remote(remote) = &mut configured.keys {
        remote.interval = Duration::from_secs(10);
    }
    let keyring = Keyring::load(&configured, None)?;
    let at = |seconds: u64| KernelTime(1_000_000_000 * (100_000 + seconds));
    let (key, next) = (SigningKey::p256("one")?, SigningKey::p256("two")?);
    keyring.begin(at(0));
    keyring.end(fetched(&[&key]), at(0))?;
    // Down from here on. It is looked in every second whether somebody is due to ask, and every second comes a token of a new key.
    let (down, mut attempts, mut wanted) = (700, 0, false);
    for second in down..down + 600 {
        match keyring.missing("two", at(second)) {
            Missing::Pending(_) => wanted = true,
            Missing::Unavailable => {}
            Missing::Unknown => panic!("nobody can tell, {second}"),
        }
        if wanted || keyring.due() <= at(second) {
            wanted = false;
            attempts += 1;
            keyring.begin(at(second));
            assert!(keyring.end(Err(anyhow::anyhow!("down")), at(second)).is_err());
        }
        assert_eq!(keyring.set().keys.len(), 1, "what is known holds on, {second}");
    }
    assert!((2..=60).contains(&attempts), "{attempts}: at most one in ten seconds");
    // Back: the first token asks, and its key is there.
    let second = down + 610;
    assert!(matches!(keyring.missing("two", at(second)), Missing::Pending(_)));
    keyring.begin(at(second));
    assert!(keyring.end(fetched(&[&key, &next]), at(second))?);
    assert_eq!(keyring.set().keys.len(), 2);
    assert!(keyring.condition(at(second)).error.is_none());
    Ok(())
}

/// A key that comes into use right after a fetch is found at once, and not after the interval.
#[tokio::test]
async fn a_key_that_is_used_right_after_a_fetch_is_found() -> Result<()> {
    let (key, next) = (SigningKey::p256("one")?, SigningKey::p256("two")?);
    let scene = scene(&[&key], |_| ()).await?;
    let mut client = scene.edge.http1().await?;
    assert_eq!(ask(&mut client, &mint(&key)?).await?.status(), StatusCode::OK);
    scene.issuer.publish(&[&key, &next]);
    assert_eq!(ask(&mut client, &mint(&next)?).await?.status(), StatusCode::OK, "the interval is an hour");
    assert_eq!(scene.issuer.asked(), 2);
    Ok(())
}

#[tokio::test]
async fn a_set_that_is_the_same_is_not_sent_again() -> Result<()> {
    let (key, next) = (SigningKey::p256("one")?, SigningKey::p256("two")?);
    let scene = scene(&[&key], every(0)).await?;
    let mut client = scene.edge.http1().await?;
    let set = |keys: &[&SigningKey]| tokens::jwks(keys).into_bytes();
    let good = mint(&key)?;
    assert_eq!(ask(&mut client, &good).await?.status(), StatusCode::OK);
    let stranger = |n: usize| {
        let header = serde_json::json!({"alg": "ES256", "kid": format!("invented-{n}")}).to_string();
        let claims = tokens::claims(ISSUER, "api", "read", enforcer::clock::unix_now()).to_string();
        key.mint_raw(&header, &claims)
    };
    scene.issuer.behave(Manner::Tagged("\"a\"".to_owned(), set(&[&key])));
    // The first answer has the tag, the others are asked for by it.
    for n in 0..3 {
        let epoch = scene.keyring().set().epoch();
        assert_eq!(ask(&mut client, &stranger(n)?).await?.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(scene.issuer.unchanged(), n as u64);
        assert_eq!(scene.keyring().set().epoch(), epoch, "nothing is verified anew");
        assert_eq!(ask(&mut client, &good).await?.status(), StatusCode::OK);
    }
    scene.issuer.behave(Manner::Tagged("\"b\"".to_owned(), set(&[&key, &next])));
    assert_eq!(ask(&mut client, &mint(&next)?).await?.status(), StatusCode::OK);
    assert_eq!(scene.issuer.unchanged(), 2, "it was another one");
    Ok(())
}
