//! A proof of DPoP is good once: for another request, in a race, beside the memory of tokens, across a restart; and nonces.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::Arc;

use anyhow::Result;
use enforcer::{
    checks::{
        Refusal,
        facts::{Client, ClientAddr},
        token::KnownTokens,
    },
    denial::Denial,
    policy::Policy,
};
use enforcer_tests::{edge::NAME, tokens::SigningKey};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::{
    admit::NOW,
    till::{Till, ask_known, thumbprint},
};

#[test]
fn dpop_a_proof_is_good_once_and_for_one_key() -> Result<()> {
    let till = Till::new()?;
    let proof = till.draft().sign(&till.key);
    assert_eq!(till.judge(&proof), None);
    assert_eq!(till.judge(&proof), Some(Denial::DpopReplayed));
    // Signed anew over the same `jti`: ECDSA gives another signature, which is no other proof.
    let id = json!("the-same");
    let draft = till.draft().claim("jti", id.clone());
    assert_eq!(till.judge(&draft.sign(&till.key)), None);
    assert_eq!(till.judge(&draft.sign(&till.key)), Some(Denial::DpopReplayed));
    // A proof that is refused for something else is not used up: nothing of it was believed.
    let draft = till.draft();
    assert_eq!(
        till.judge(&draft.clone().claim("htm", json!("PUT")).sign(&till.key)),
        Some(Denial::DpopWrongRequest)
    );
    assert_eq!(till.judge(&draft.sign(&till.key)), None);
    // Another client may have had the same idea.
    let other = SigningKey::p256("other")?;
    let token = till.desk.ec.mint(&till.desk.claims_but("cnf", json!({"jkt": thumbprint(&other)})))?;
    let second = Till { desk: till.desk, key: other, token };
    assert_eq!(second.judge(&second.draft().claim("jti", id).sign(&second.key)), None);
    Ok(())
}

#[test]
fn dpop_a_known_token_is_proven_each_time() -> Result<()> {
    let till = Till::new()?;
    let client = Client::at(ClientAddr::new("192.0.2.7".parse()?));
    let mut known = KnownTokens::new(16);
    let mut ask = |headers: &HeaderMap| {
        let judged = ask_known(&till.desk.policy, &client, (NAME, "/api/x"), headers, NOW, &mut known);
        judged.err().map(|refusal| refusal.denial)
    };
    let proof = till.draft().sign(&till.key);
    assert_eq!(ask(&till.headers("DPoP", &[&proof])), None);
    assert_eq!(ask(&till.headers("DPoP", &[&proof])), Some(Denial::DpopReplayed));
    assert_eq!(ask(&till.headers("DPoP", &[])), Some(Denial::DpopMissing));
    assert_eq!(ask(&till.headers("Bearer", &[])), Some(Denial::DpopMissing));
    assert_eq!(ask(&till.headers("DPoP", &[&till.draft().sign(&till.key)])), None);
    Ok(())
}

#[test]
fn dpop_nonces_are_asked_for_and_rotate() -> Result<()> {
    let till = Till::with(|site| site.config.dpop.nonce = true)?;
    let ask = |nonce: Option<&HeaderValue>, at: u64| {
        let nonce = nonce.map_or(Value::Null, |nonce| json!(nonce.to_str().unwrap()));
        let proof = till.draft().claim("nonce", nonce).claim("iat", json!(at)).sign(&till.key);
        till.ask_at("/api/x", &till.headers("DPoP", &[&proof]), at)
    };
    let given = |refusal: Refusal| {
        assert_eq!(refusal.denial, Denial::DpopNonce);
        let challenge = refusal.challenge.unwrap();
        assert_eq!(challenge, "DPoP realm=\"main\", error=\"use_dpop_nonce\", algs=\"ES256 EdDSA\"");
        let (name, nonce) = *refusal.field.unwrap();
        assert_eq!(name, "dpop-nonce");
        nonce
    };
    let begin = NOW / 300 * 300;
    let first = given(ask(None, begin).unwrap_err());
    assert_eq!(ask(Some(&first), begin).unwrap(), None, "nothing new to tell");
    assert_eq!(ask(Some(&first), begin).unwrap(), None, "a nonce is good for many proofs");
    let second = ask(Some(&first), begin + 300).unwrap().unwrap();
    assert_ne!(first, second, "the one before is good, and the new one is told");
    assert_eq!(ask(Some(&second), begin + 300).unwrap(), None);
    assert_eq!(given(ask(Some(&HeaderValue::from_static("guess")), begin + 300).unwrap_err()), second);
    given(ask(Some(&first), begin + 600).unwrap_err());
    Ok(())
}

#[test]
fn dpop_what_was_made_before_the_start_needs_a_nonce() -> Result<()> {
    let mut till = Till::new()?;
    let old = till.draft().sign(&till.key);
    assert_eq!(till.judge(&old), None);
    // The same files, another process.
    till.desk.policy = Policy::load_at(&till.desk.site.config, NOW)?;
    let refusal = till.ask(&till.headers("DPoP", &[&old])).unwrap_err();
    assert_eq!(refusal.denial, Denial::DpopNonce);
    let nonce = refusal.field.unwrap().1;
    // As its key's owner can, and nobody else.
    let proven = till.draft().claim("nonce", json!(nonce.to_str()?)).sign(&till.key);
    assert_eq!(till.judge(&proven), None);
    assert_eq!(till.judge(&proven), Some(Denial::DpopReplayed));
    // A clock that is ahead as far as it may be makes no difference; what is later was made since.
    let ahead = |seconds: u64| till.draft().claim("iat", json!(NOW + seconds)).sign(&till.key);
    assert_eq!(till.judge(&ahead(60)), Some(Denial::DpopNonce));
    let later = till.ask_at("/api/x", &till.headers("DPoP", &[&ahead(61)]), NOW + 61);
    assert_eq!(later.err().map(|refusal| refusal.denial), None);
    Ok(())
}

#[test]
fn dpop_of_two_that_race_one_wins() -> Result<()> {
    let till = Arc::new(Till::new()?);
    for _ in 0..50 {
        let proof = till.draft().sign(&till.key);
        let start = std::sync::Barrier::new(4);
        let outcomes = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        till.judge(&proof)
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_none()).count(), 1, "{outcomes:?}");
        let replayed = outcomes.iter().filter(|outcome| **outcome == Some(Denial::DpopReplayed)).count();
        assert_eq!(replayed, 3, "{outcomes:?}");
    }
    Ok(())
}

#[test]
fn dpop_a_set_that_is_full_refuses() -> Result<()> {
    let till = Till::with(|site| site.config.replay.max_entries = 1)?;
    let mut outcomes = std::collections::HashSet::new();
    for _ in 0..1_000 {
        outcomes.insert(till.judge(&till.draft().sign(&till.key)));
    }
    assert_eq!(outcomes, [None, Some(Denial::ReplayFull)].into_iter().collect());
    // There is room again once they have run out.
    let later = NOW + 200;
    let proof = till.draft().claim("iat", json!(later)).sign(&till.key);
    assert!(till.ask_at("/api/x", &till.headers("DPoP", &[&proof]), later).is_ok());
    Ok(())
}

#[test]
fn dpop_a_proof_with_one_character_changed_is_none() -> Result<()> {
    let till = Till::new()?;
    let good = till.draft().sign(&till.key);
    for at in 0..good.len() {
        for other in [b'A', b'_', b'.', b'='] {
            let mut changed = good.clone().into_bytes();
            if changed[at] == other {
                continue;
            }
            changed[at] = other;
            let changed = String::from_utf8(changed)?;
            assert!(till.judge(&changed).is_some(), "{changed}");
        }
        assert!(till.judge(&good[..at]).is_some(), "cut at {at}");
    }
    assert_eq!(till.judge(&good), None, "and none of them has used it up");
    Ok(())
}
