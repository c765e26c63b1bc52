//! Proofs of DPoP at the token endpoint of an authorization server behind (RFC 9449 section 5): refresh tokens belong to the key that
//! they were given to.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Result;
use enforcer::{
    checks::{
        Now, Refusal, admit,
        facts::{Client, ClientAddr, RequestFacts, Target},
        oauth as endpoint,
        token::KnownTokens,
    },
    clock::KernelTime,
    config::{Binding, RateLimit},
    control::{
        revocation,
        wire::{Named, TokenCommand},
    },
    policy::{Policy, refreshes::Given},
    revoked::{Kind, Mark, Revoked, keeping},
};
use enforcer_tests::{
    edge::{NAME, Site},
    tokens::SigningKey,
};
use http::{HeaderMap, Method};
use serde_json::json;

use super::{
    admit::NOW,
    oauth,
    revocation::gauges,
    till::{Draft, bare, unique},
};

const URL: &str = "https://api.example.com/token";

struct Counter {
    policy: Policy,
    site: Site,
    /// Its time.
    now: u64,
}

impl Counter {
    /// Its process began at `began`.
    fn new(dpop: Option<Binding>, rotates: bool, began: u64, store: Option<&Path>) -> Result<Self> {
        let mut site = Site::new("127.0.0.1:9".parse()?)?;
        let [_, mut token] = oauth::routes();
        let rules = token.oauth.as_mut().unwrap();
        (rules.dpop, rules.rotation) = (dpop, rotates.then_some(Duration::from_secs(3_600)));
        site.config.routes.push(token);
        site.config.replay.store = store.map(Path::to_owned);
        Ok(Self { policy: Policy::load_at(&site.config, began)?, site, now: NOW })
    }

    /// What a form gets; what its server gives for it is `next`.
    async fn ask(&self, form: &str, proofs: &[&str], next: Option<&str>) -> Result<(), Refusal> {
        let client = Client::at(ClientAddr::new("192.0.2.7".parse().unwrap()));
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        for proof in proofs {
            headers.append("dpop", proof.parse().unwrap());
        }
        let facts = RequestFacts {
            client: &client,
            address: client.address,
            method: &Method::POST,
            path: "/token".into(),
            named: Some(NAME),
            authority: Some(NAME),
            target: Target { path: "/token", query: None },
            headers: &headers,
            is_early: false,
            is_banned: false,
            upgrades: false,
        };
        let now = Now { monotonic: KernelTime(self.now * 1_000_000_000), unix: self.now };
        let mut grant = admit(&self.policy, &facts, now, &mut KnownTokens::new(0))?;
        endpoint::judge(&self.policy, &mut grant, &facts, None, form.as_bytes(), now)?;
        assert_eq!(grant.upstream().is_some(), proofs.is_empty(), "nowhere before the use is written down");
        endpoint::written(&mut grant).await?;
        assert!(grant.upstream().is_some());
        if let Some(exchange) = grant.take_exchange() {
            let refresh = next.map(|next| self.mark(next));
            exchange.end(Given::Tokens { refresh, access: None }, self.now).unwrap();
        }
        Ok(())
    }

    fn mark(&self, token: &str) -> Mark {
        self.policy.revoked().marker().mark(Kind::Token, token.as_bytes())
    }

    async fn code(&self, form: &str, proofs: &[&str], next: Option<&str>) -> &'static str {
        self.ask(form, proofs, next).await.err().map_or("", |refusal| refusal.denial.code())
    }
}

fn draft(key: &SigningKey) -> Draft {
    Draft {
        header: json!({"typ": "dpop+jwt", "alg": key.alg(), "jwk": bare(key)}),
        claims: json!({"jti": unique(), "htm": "POST", "htu": URL, "iat": NOW}),
    }
}

fn proof(key: &SigningKey) -> String {
    draft(key).sign(key)
}

fn code() -> String {
    format!("grant_type=authorization_code&client_id=app&code=c0de&code_verifier={}", "v".repeat(43))
}

fn refresh(token: &str) -> String {
    format!("grant_type=refresh_token&client_id=app&refresh_token={token}")
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_by_the_key_that_it_was_given_to() -> Result<()> {
    let (own, other) = (SigningKey::p256("own")?, SigningKey::p256("other")?);
    for (demand, rotates) in [
        (Binding::Required, true),
        (Binding::Required, false),
        (Binding::Optional, true),
        (Binding::Optional, false),
    ] {
        let counter = Counter::new(Some(demand), rotates, NOW - 86_400, None)?;
        assert_eq!(counter.code(&code(), &[&proof(&own)], Some("a")).await, "");
        assert_eq!(counter.code(&refresh("a"), &[&proof(&other)], Some("x")).await, "dpop_wrong_key");
        assert_eq!(counter.code(&refresh("a"), &[], Some("x")).await, "dpop_missing");
        let next = if rotates { "b" } else { "a" };
        assert_eq!(counter.code(&refresh("a"), &[&proof(&own)], Some(next)).await, "");
        assert_eq!(counter.code(&refresh(next), &[&proof(&other)], Some("x")).await, "dpop_wrong_key");
        assert_eq!(counter.code(&refresh(next), &[&proof(&own)], Some(next)).await, "");
        let without = if demand == Binding::Required { "dpop_missing" } else { "" };
        assert_eq!(counter.code(&code(), &[], Some("y")).await, without, "{demand:?}");
    }
    // Where nothing is said of it proofs are the server's business alone.
    let counter = Counter::new(None, true, NOW - 86_400, None)?;
    assert_eq!(counter.code(&refresh("a"), &[], Some("b")).await, "");
    Ok(())
}

#[tokio::test]
async fn proofs_at_the_token_endpoint_are_judged_and_good_once() -> Result<()> {
    let key = SigningKey::p256("own")?;
    let counter = Counter::new(Some(Binding::Required), true, NOW - 86_400, None)?;
    let good = proof(&key);
    assert_eq!(counter.code(&code(), &[&good], None).await, "");
    assert_eq!(counter.code(&code(), &[&good], None).await, "dpop_replayed");
    let (one, two) = (proof(&key), proof(&key));
    assert_eq!(counter.code(&code(), &[&one, &two], None).await, "dpop_malformed");
    for (name, value, expected) in [
        ("htm", json!("GET"), "dpop_wrong_request"),
        ("htu", json!("https://api.example.com/other"), "dpop_wrong_request"),
        ("htu", json!("https://evil.example/token"), "dpop_wrong_request"),
        ("iat", json!(NOW - 1_000), "dpop_stale"),
        ("iat", json!(NOW + 1_000), "dpop_stale"),
        ("jti", json!(""), "dpop_malformed"),
        // Its nonce is the server's.
        ("nonce", json!("of-the-server"), ""),
    ] {
        let proof = draft(&key).claim(name, value.clone()).sign(&key);
        assert_eq!(counter.code(&code(), &[&proof], None).await, expected, "{name} {value}");
    }
    let signed_by_another = draft(&key).sign(&SigningKey::p256("other")?);
    let refusal = counter.ask(&code(), &[&signed_by_another], None).await.unwrap_err();
    assert_eq!(refusal.denial.code(), "dpop_bad_signature");
    let challenge = refusal.challenge.unwrap();
    assert_eq!(challenge, "DPoP error=\"invalid_dpop_proof\", algs=\"ES256 EdDSA\"");
    Ok(())
}

/// With a store a proof is not good once more after a restart; without one, what may have been used before the start is refused.
#[tokio::test]
async fn a_proof_at_the_token_endpoint_is_good_once_across_a_restart() -> Result<()> {
    let key = SigningKey::p256("own")?;
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("replay.redb");
    let good = proof(&key);
    let counter = Counter::new(Some(Binding::Required), true, NOW - 86_400, Some(&store))?;
    keep(&counter, &store)?;
    assert_eq!(counter.code(&code(), &[&good], None).await, "");
    drop(counter);
    let next = Counter::new(Some(Binding::Required), true, NOW, Some(&store))?;
    keep(&next, &store)?;
    assert_eq!(next.code(&code(), &[&good], None).await, "dpop_replayed");
    assert_eq!(next.code(&code(), &[&proof(&key)], None).await, "");
    let without = Counter::new(Some(Binding::Required), true, NOW, None)?;
    assert_eq!(without.code(&code(), &[&proof(&key)], None).await, "dpop_stale");
    Ok(())
}

fn keep(counter: &Counter, store: &Path) -> Result<()> {
    counter.policy.replay().keep(store, gauges(), NOW)
}

/// The thief has the newest token of a line whose older one the victim brings: it stays dead when the line is forgotten here, for the
/// server behind has never heard of it.
#[tokio::test]
async fn a_dead_line_stays_dead_when_it_is_forgotten() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("revocations.redb");
    let dead = async |counter: &Counter| {
        assert_eq!(counter.code(&refresh("a"), &[], Some("b")).await, "");
        assert_eq!(counter.code(&refresh("a"), &[], Some("x")).await, "oauth_refresh_reused");
        assert_eq!(counter.code(&refresh("b"), &[], Some("c")).await, "token_revoked");
    };
    // Its entries run out.
    let mut counter = Counter::new(None, true, NOW - 86_400, None)?;
    dead(&counter).await;
    counter.now = NOW + 400 * 86_400;
    assert_eq!(counter.code(&refresh("b"), &[], Some("c")).await, "token_revoked");
    assert_eq!(counter.code(&refresh("other"), &[], Some("c")).await, "", "time has passed for them");
    assert_eq!(counter.policy.refreshed().len(), 2);

    // A restart, with what is in the store and nothing else.
    let mut counter = Counter::new(None, true, NOW - 86_400, None)?;
    let revoked = || -> Result<Arc<Revoked>> { Ok(keeping::begin(&store, 100, gauges(), NOW)?.revoked) };
    counter.policy = Policy::load_with(&counter.site.config, revoked()?)?;
    dead(&counter).await;
    let Counter { policy, site, .. } = counter;
    drop(policy);
    let policy = Policy::load_with(&site.config, revoked()?)?;
    let counter = Counter { policy, site, now: NOW };
    assert!(counter.policy.refreshed().is_empty());
    assert_eq!(counter.code(&refresh("b"), &[], Some("c")).await, "token_revoked");
    assert_eq!(counter.code(&refresh("other"), &[], Some("c")).await, "");
    Ok(())
}

/// A revocation holds as long as what it means may be good, and that is longer than access tokens are.
#[tokio::test]
async fn a_refresh_token_that_was_revoked_stays_so_for_as_long_as_it_could_be_good() -> Result<()> {
    let days = |days: u64| days * 86_400;
    for lifetime in [None, Some(days(30))] {
        let mut counter = Counter::new(None, true, NOW - 86_400, None)?;
        for route in &mut counter.site.config.routes {
            if let Some(oauth) = &mut route.oauth {
                oauth.refresh_lifetime = lifetime.map(Duration::from_secs);
            }
        }
        counter.policy = counter.policy.reload(&counter.site.config)?;
        let what = Named { kind: "token".to_owned(), text: "operator".to_owned(), issuer: None };
        let revoke = TokenCommand::Revoke {
            what,
            issued_before: None,
            whenever: false,
            seconds: None,
            forever: false,
        };
        revocation::carry_out(&counter.policy, revoke, NOW).unwrap();
        // As by `POST /revoke`.
        let terms = revocation::token_terms(&counter.policy, None, NOW);
        counter.policy.revoked().revoke(counter.mark("server"), terms, NOW).unwrap();
        // One that says itself when it ends.
        let terms = revocation::token_terms(&counter.policy, Some(NOW + days(10)), NOW);
        assert!(u64::from(terms.until) < NOW + days(11), "{lifetime:?}");
        // The newest of a line that died.
        assert_eq!(counter.code(&refresh("a"), &[], Some("line")).await, "");
        assert_eq!(counter.code(&refresh("a"), &[], Some("x")).await, "oauth_refresh_reused");
        for (later, holds) in [(days(29), true), (days(31), lifetime.is_none())] {
            counter.now = NOW + later;
            for token in ["operator", "server", "line"] {
                let expected = if holds { "token_revoked" } else { "" };
                assert_eq!(counter.code(&refresh(token), &[], None).await, expected, "{token} {later}");
            }
        }
    }
    Ok(())
}

/// A file that changes, and every reload, makes a new policy.
#[tokio::test]
async fn what_a_client_has_used_of_its_limit_outlives_a_reload() -> Result<()> {
    let mut counter = Counter::new(None, true, NOW - 86_400, None)?;
    let limit = |counter: &mut Counter, events: u64| -> Result<()> {
        for oauth in counter.site.config.routes.iter_mut().filter_map(|route| route.oauth.as_mut()) {
            oauth.client_limit = Some(RateLimit { events, period: Duration::from_secs(3_600), burst: 0 });
        }
        counter.policy = counter.policy.reload(&counter.site.config)?;
        Ok(())
    };
    limit(&mut counter, 1)?;
    assert_eq!(counter.code(&refresh("a"), &[], None).await, "");
    limit(&mut counter, 1)?;
    assert_eq!(counter.code(&refresh("a"), &[], None).await, "rate_limited");
    limit(&mut counter, 2)?;
    assert_eq!(counter.code(&refresh("a"), &[], None).await, "", "another limit begins anew");
    Ok(())
}
