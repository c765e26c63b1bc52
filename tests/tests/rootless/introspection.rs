//! Tokens that say nothing themselves: who is asked about them, how often, and what its answer is worth (RFC 7662).
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::Result;
use enforcer::{
    clock::{self, KernelTime},
    config::{Introspection, KeySource, Token},
    control::revocation,
    policy::introspection::{Answer, Introspector, Look, Unfit},
    revoked::{FOREVER, Kind, Terms, WHENEVER, mark::token_body},
};
use enforcer_tests::{
    edge::{AUDIENCE, Client, ISSUER, NAME, Outgoing, Site},
    issuer::{LiveIssuer, Manner},
    tokens::{self, SigningKey},
};
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use serde_json::{Value, json};

use super::{
    issuing::{Issuing, ask, code},
    till::{ath, bare, thumbprint, unique},
};

/// An edge in front of which tokens come that only their issuer understands.
struct Scene {
    issuing: Issuing,
    key: SigningKey,
}

impl std::ops::Deref for Scene {
    type Target = Issuing;

    fn deref(&self) -> &Issuing {
        &self.issuing
    }
}

impl Scene {
    async fn new(change: impl FnOnce(&mut Token)) -> Result<Self> {
        let key = SigningKey::p256("key-1")?;
        let set_up = |site: &mut Site, issuer: &LiveIssuer| {
            let secret = site.dir.path().join("introspect.secret");
            std::fs::write(&secret, "s:cret and more\n")?;
            std::fs::write(site.dir.path().join("jwks.json"), tokens::jwks(&[&key]))?;
            let main = site.config.tokens.get_mut("main").unwrap();
            main.introspection = Some(issuer.introspection(secret)?);
            change(main);
            Ok(())
        };
        let issuing = Issuing::new(&[&key], set_up).await?;
        Ok(Self { issuing, key })
    }

    /// Status and code of a request with a token.
    async fn ask(&self, client: &mut Client, token: &str) -> Result<(u16, String)> {
        code(ask(client, token).await?).await
    }
}

fn active() -> Value {
    let now = clock::unix_now();
    json!({
        "active": true, "iss": ISSUER, "aud": AUDIENCE, "sub": "subject-1", "scope": "read other",
        "token_type": "Bearer", "iat": now, "exp": now + 600,
    })
}

fn but(name: &str, value: Value) -> Value {
    let mut answer = active();
    if value.is_null() {
        answer.as_object_mut().unwrap().remove(name);
    } else {
        answer[name] = value;
    }
    answer
}

#[tokio::test]
async fn an_issuer_is_asked_once_and_its_answer_judged_as_claims_are() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    scene.issuer.say("good~1", active());
    for mut client in scene.edge.clients().await? {
        for _ in 0..3 {
            assert_eq!(scene.ask(&mut client, "good~1").await?.0, 200);
        }
        let inactive = (401, "token_inactive".to_owned());
        assert_eq!(scene.ask(&mut client, "bad~1").await?, inactive);
        assert_eq!(scene.ask(&mut client, "bad~1").await?, inactive);
    }
    assert_eq!(scene.issuer.introspected(), 2, "once for each token");
    // "edge 1" and "s:cret and more", form-encoded, with a colon between.
    assert_eq!(scene.issuer.authorization(), "Basic ZWRnZSsxOnMlM0FjcmV0K2FuZCttb3Jl");
    let now = clock::unix_now();
    let mut client = scene.edge.http1().await?;
    for (name, answer, code) in [
        ("no issuer", but("iss", Value::Null), ""),
        ("another issuer", but("iss", json!("https://other.example/")), "token_wrong_issuer"),
        ("no audience", but("aud", Value::Null), "token_claims"),
        ("another audience", but("aud", json!(["other"])), "token_wrong_audience"),
        ("several audiences", but("aud", json!(["other", AUDIENCE])), ""),
        ("no scope", but("scope", Value::Null), "scope_missing"),
        ("a scope that contains it", but("scope", json!("read_all")), "scope_missing"),
        ("has ended", but("exp", json!(now - 1)), "token_inactive"),
        ("no end", but("exp", Value::Null), ""),
        ("an end in words", but("exp", json!("soon")), "issuer_unavailable"),
        ("not yet", but("nbf", json!(now + 3_600)), "token_not_yet_valid"),
        ("too long a life", but("exp", json!(now + 90_000)), "token_claims"),
        ("bound to a key", but("cnf", json!({"jkt": "A".repeat(43)})), "dpop_missing"),
        ("bound to no key", but("cnf", json!({"jkt": "x"})), "token_claims"),
        ("bound to a certificate", but("cnf", json!({"x5t#S256": "A".repeat(43)})), "certificate_missing"),
        ("bound to something else", but("cnf", json!({"kid": "x"})), "token_confirmation"),
        ("bound by its type", but("token_type", json!("DPoP")), "token_confirmation"),
        ("of another type", but("token_type", json!("mac")), "token_claims"),
    ] {
        let token = format!("case-{}", name.replace(' ', "-"));
        scene.issuer.say(&token, answer);
        // After an answer that cannot be used nobody is asked for a second.
        let asked = scene.issuer.introspected();
        let got = loop {
            let got = scene.ask(&mut client, &token).await?;
            if scene.issuer.introspected() > asked {
                break got;
            }
        };
        assert_eq!(got.1, code, "{name}: {got:?}");
    }
    for bad in ["with space", "quote\"", "umlaut-%C3%A4", "="] {
        assert_eq!(scene.ask(&mut client, bad).await?.1, "token_malformed", "{bad}");
    }
    Ok(())
}

/// RFC 9449 section 6.2: the answer says which key.
#[tokio::test]
async fn a_token_that_is_bound_to_a_key_is_good_with_a_proof_of_it() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let (own, other) = (SigningKey::p256("own")?, SigningKey::p256("other")?);
    let mut answer = but("cnf", json!({"jkt": thumbprint(&own)}));
    answer["token_type"] = json!("DPoP");
    scene.issuer.say("bound", answer);
    let mut client = scene.edge.http1().await?;
    let prove = |key: &SigningKey, nonce: &str| {
        let mut claims = json!({
            "jti": unique(), "htm": "GET", "htu": format!("https://{NAME}/api/x"), "iat": clock::unix_now(),
            "ath": ath("bound"),
        });
        if !nonce.is_empty() {
            claims["nonce"] = json!(nonce);
        }
        let header = json!({"typ": "dpop+jwt", "alg": key.alg(), "jwk": bare(key)});
        key.mint_raw(&header.to_string(), &claims.to_string()).unwrap()
    };
    let mut ask = async |proof: String| -> Result<(u16, String, String)> {
        let empty: Outgoing = Empty::new().boxed();
        let request = Request::get("/api/x").header("authorization", "DPoP bound").header("dpop", proof);
        let response = client.send(request.body(empty)?).await?;
        let nonce = response.headers().get("dpop-nonce").map_or("", |nonce| nonce.to_str().unwrap());
        let nonce = nonce.to_owned();
        let (status, code) = code(response).await?;
        Ok((status, code, nonce))
    };
    // The process has just begun, so that it asks for a nonce.
    let (_, code, nonce) = ask(prove(&own, "")).await?;
    assert_eq!(code, "dpop_nonce");
    assert_eq!(ask(prove(&other, &nonce)).await?.1, "dpop_wrong_key");
    let good = prove(&own, &nonce);
    assert_eq!(ask(good.clone()).await?.0, 200);
    assert_eq!(ask(good).await?.1, "dpop_replayed");
    assert_eq!(scene.issuer.introspected(), 1);
    Ok(())
}

#[tokio::test]
async fn a_signed_token_is_not_asked_about_unless_there_are_no_keys() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let mut client = scene.edge.http1().await?;
    let signed = scene.key.mint(&tokens::claims(ISSUER, AUDIENCE, "read", clock::unix_now()))?;
    assert_eq!(scene.ask(&mut client, &signed).await?.0, 200);
    assert_eq!(scene.issuer.introspected(), 0);
    let scene = Scene::new(|token| token.keys = KeySource::None).await?;
    let mut client = scene.edge.http1().await?;
    assert_eq!(scene.ask(&mut client, &signed).await?.1, "token_inactive");
    scene.issuer.say("another", active());
    assert_eq!(scene.ask(&mut client, "another").await?.0, 200);
    Ok(())
}

#[tokio::test]
async fn what_is_revoked_is_refused_whatever_its_issuer_says() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let mut client = scene.edge.http1().await?;
    for token in ["one", "two", "three"] {
        scene.issuer.say(token, but("sub", json!(format!("subject-{token}"))));
    }
    let (good, revoked) = ((200, String::new()), (401, "token_revoked".to_owned()));
    for token in ["one", "two"] {
        assert_eq!(scene.ask(&mut client, token).await?, good);
    }
    let list = |kind: Kind, text: &[u8]| {
        let policy = scene.edge.policy.load();
        let mark = policy.revoked().marker().mark(kind, text);
        policy.revoked().revoke(mark, Terms { until: FOREVER, before: WHENEVER }, clock::unix_now()).unwrap();
    };
    list(Kind::Token, token_body(b"one"));
    list(Kind::Token, b"three");
    assert_eq!(scene.ask(&mut client, "one").await?, revoked, "known or not");
    assert_eq!(scene.ask(&mut client, "three").await?, revoked);
    assert_eq!(scene.issuer.introspected(), 2, "nobody is asked about what is revoked");
    assert_eq!(scene.ask(&mut client, "two").await?, good);
    list(Kind::Subject, b"subject-two");
    assert_eq!(scene.ask(&mut client, "two").await?, revoked);
    Ok(())
}

#[tokio::test]
async fn hostile_and_slow_servers_let_nobody_in_and_take_nobody_with_them() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let mut client = scene.edge.http1().await?;
    scene.issuer.say("known", active());
    assert_eq!(scene.ask(&mut client, "known").await?.0, 200);
    let good = active().to_string();
    let twice = good.replacen('{', "{\"active\":false,", 1);
    let words = good.replace("\"active\":true", "\"active\":\"true\"");
    let redirect = format!("Location: https://{}/introspect\r\n", scene.issuer.address);
    for (name, manner) in [
        ("hangs up", Manner::HangUp),
        ("an error with an answer", Manner::Answer(500, String::new(), good.clone().into_bytes())),
        ("a redirect", Manner::Answer(307, redirect, good.clone().into_bytes())),
        ("not JSON", Manner::Answer(200, String::new(), b"active".to_vec())),
        ("a member twice", Manner::Answer(200, String::new(), twice.into_bytes())),
        ("active in words", Manner::Answer(200, String::new(), words.into_bytes())),
        ("no end", Manner::Flood),
        ("one byte at a time", Manner::Drip),
        ("silence", Manner::Silence),
    ] {
        scene.issuer.behave(manner);
        let asked = scene.issuer.introspected();
        let token = format!("new-{}", name.replace(' ', "-"));
        while scene.issuer.introspected() == asked {
            assert_eq!(
                scene.ask(&mut client, &token).await?,
                (503, "issuer_unavailable".to_owned()),
                "{name}"
            );
        }
        assert_eq!(scene.ask(&mut client, "known").await?.0, 200, "{name}");
    }
    scene.issuer.publish(&[]);
    scene.issuer.say("after", active());
    while scene.ask(&mut client, "after").await?.0 != 200 {}
    let failed = scene.edge.metrics.introspections.with_label_values(&["main", "failed"]).get();
    assert!(failed >= 9, "{failed}");
    Ok(())
}

#[tokio::test]
async fn private_addresses_are_not_asked_unless_allowed() -> Result<()> {
    let scene = Scene::new(|token| token.introspection.as_mut().unwrap().private_addresses = false).await?;
    let mut client = scene.edge.http1().await?;
    scene.issuer.say("good", active());
    assert_eq!(scene.ask(&mut client, "good").await?, (503, "issuer_unavailable".to_owned()));
    assert_eq!(scene.issuer.introspected(), 0);
    assert_eq!(scene.edge.metrics.introspections.with_label_values(&["main", "failed"]).get(), 1);
    Ok(())
}

/// Time is an argument here: what is remembered, for how long, and how many calls there are at once.
#[tokio::test]
async fn answers_are_believed_no_longer_than_stated_and_calls_are_bounded() -> Result<()> {
    let issuer = LiveIssuer::start(&[]).await?;
    let folder = tempfile::tempdir()?;
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "secret")?;
    let config =
        Introspection { max_calls: 2, negative: Duration::from_secs(10), ..issuer.introspection(secret)? };
    let introspector = Introspector::load(&config)?;
    let (unix, at) = (1_800_000_000, |seconds: u64| KernelTime(1_000_000_000 * (1_000 + seconds)));
    let digest = |n: u8| [n; 32];
    let is =
        |n: u8, seconds: u64, first: bool| match introspector.look(&digest(n), "token", first, at(seconds)) {
            Look::Known(Answer::Active(_)) => "active",
            Look::Known(Answer::Inactive) => "inactive",
            Look::Pending(_) => "asked",
            Look::Unavailable => "unavailable",
        };
    let say = |n: u8, text: &str, seconds: u64| {
        introspector.end(&digest(n), Ok(text.as_bytes().to_vec()), at(seconds), unix + seconds)
    };
    assert_eq!((is(1, 0, true), is(1, 0, true), is(2, 0, true)), ("asked", "asked", "asked"));
    assert_eq!(is(3, 0, true), "unavailable", "two calls at once, no more");
    assert_eq!(is(1, 0, false), "unavailable", "who has waited does not ask again");
    let next = async || introspector.next().await.digest;
    assert_eq!((next().await, next().await), (digest(1), digest(2)), "one call for each");
    assert!(say(1, &format!(r#"{{"active":true,"exp":{}}}"#, unix + 1_000), 0)?);
    assert!(!say(2, r#"{"active":false}"#, 0)?);
    assert_eq!((is(1, 59, false), is(1, 60, false)), ("active", "unavailable"), "`cache`, not `exp`");
    assert_eq!((is(2, 9, false), is(2, 10, false)), ("inactive", "unavailable"));
    assert_eq!(is(3, 20, true), "asked");
    assert!(say(3, &format!(r#"{{"active":true,"exp":{}}}"#, unix + 25), 20)?);
    assert_eq!((is(3, 24, false), is(3, 25, false)), ("active", "unavailable"), "`exp`, not `cache`");
    assert_eq!(is(4, 30, true), "asked");
    // Whoever has a token over which the server stumbles does not shut out the others.
    let unfit = |n: u8, seconds: u64| {
        let error = Err(Unfit(http::StatusCode::PAYLOAD_TOO_LARGE).into());
        introspector.end(&digest(n), error, at(seconds), unix)
    };
    for _ in 0..2 {
        assert!(unfit(4, 30).is_err());
        assert_eq!(is(4, 30, true), "asked");
        assert!(say(4, "[]", 30).is_err());
        assert_eq!(is(5, 30, true), "asked");
        assert!(!say(5, r#"{"active":false}"#, 20)?);
    }
    for _ in 0..3 {
        assert_eq!(is(4, 30, true), "asked");
        assert!(unfit(4, 30).is_err());
    }
    assert_eq!((is(4, 30, true), is(5, 30, true)), ("unavailable", "unavailable"), "three in a row");
    assert_eq!(is(4, 31, true), "asked");
    assert!(introspector.end(&digest(4), Err(anyhow::anyhow!("no answer")), at(31), unix).is_err());
    assert_eq!(is(5, 31, true), "unavailable", "nobody is there");
    assert_eq!(is(4, 32, true), "asked");
    assert!(!say(4, &format!(r#"{{"active":true,"exp":{}}}"#, unix), 32)?, "it has ended already");
    assert_eq!(is(4, 33, true), "inactive");
    // Room for so many; those that are asked for least give way, and none of what is active to what is not.
    assert!(say(9, r#"{"active":true}"#, 40)?);
    for n in 0..2_000_u32 {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&n.to_le_bytes());
        introspector.end(&digest, Ok(br#"{"active":false}"#.to_vec()), at(40), unix)?;
    }
    let known = (0..2_000_u32).filter(|n| {
        let mut digest = [0; 32];
        digest[..4].copy_from_slice(&n.to_le_bytes());
        matches!(introspector.look(&digest, "token", false, at(40)), Look::Known(_))
    });
    assert!((1..=1_000).contains(&known.count()));
    assert_eq!(is(9, 40, false), "active");
    Ok(())
}

/// Nobody knows when a token ends of which its server need not say it.
#[tokio::test]
async fn revocations_of_what_is_asked_for_do_not_end_by_themselves() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let policy = scene.edge.policy.load();
    let issuer = policy.issuers().next().unwrap();
    for kind in [Kind::Id, Kind::Session, Kind::Token, Kind::Subject] {
        for issuer in [None, Some(issuer.as_ref())] {
            assert_eq!(revocation::end(&policy, kind, issuer, clock::unix_now()), FOREVER, "{kind:?}");
        }
    }
    Ok(())
}
