//! Asking Google about tokens: as it should be, and with a Google that is busy, down, slow, or somebody else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use enforcer::{
    attestation::play::{
        self, Expected, Rules,
        account::Account,
        budget::{Quota, Who},
    },
    clock,
    denial::Denial,
    keys::play::{Cause, Config, Decoder, Outcome},
    metrics::Metrics,
};
use enforcer_tests::{
    attestation::google::{
        Bound, CERTIFICATE, PACKAGE,
        server::{LiveGoogle, Part},
        verdict,
    },
    issuer::Manner,
};
use serde_json::json;

const TOKEN: &str = "CoYBARdBODlw.an_opaque-token";
const HASH: &str = "poClwrw7FVcNATfQLj_HjoTDOYiEbJxjLjhgkMRZHf4";

fn now() -> u64 {
    clock::unix_now() * 1_000
}

async fn google() -> Result<LiveGoogle> {
    let google = LiveGoogle::start().await?;
    google.say(TOKEN, verdict(Bound::RequestHash(HASH), now()));
    Ok(google)
}

fn decoder(google: &LiveGoogle, change: impl FnOnce(&mut Config)) -> Result<Decoder> {
    let mut config = google.config()?;
    change(&mut config);
    Decoder::new(config, google.account()?, Metrics::new()?)
}

async fn ask(decoder: &Decoder) -> Outcome {
    decoder.decode(PACKAGE, TOKEN, Who::New).await
}

fn cause(outcome: &Outcome) -> Option<Cause> {
    match outcome {
        Outcome::Unavailable(unavailable) => Some(unavailable.cause),
        Outcome::Verdict(_) | Outcome::Foreign(_) => None,
    }
}

/// Looks again and again, for half a minute at most.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), looking).await.is_ok(), "{what}");
}

fn answer(status: u16, fields: &str, body: &str) -> Option<Manner> {
    Some(Manner::Answer(status, fields.to_owned(), body.as_bytes().to_vec()))
}

#[tokio::test]
async fn a_standard_token_comes_to_a_verdict_and_foreign_ones_are_refused() -> Result<()> {
    let google = google().await?;
    let decoder = decoder(&google, |_| ())?;
    let Outcome::Verdict(found) = ask(&decoder).await else { panic!("{:?}", google.complaints()) };
    let rules = Rules {
        packages: vec![PACKAGE.to_owned()],
        certificates: vec![CERTIFICATE],
        min_version: 0,
        labels: Vec::new(),
        licensed: true,
        max_age: Duration::from_secs(900),
        skew: Duration::from_secs(300),
        testing: false,
        risk: play::Risk::default(),
    };
    assert!(play::judge(&found, &rules, &Expected::RequestHash(HASH), now(), &mut |_, _| ()).is_ok());
    let other = decoder.decode(PACKAGE, "another-token", Who::New).await;
    let Outcome::Foreign(refused) = other else { panic!("{other:?}") };
    assert_eq!(refused.denial, Denial::AttestationMalformed);
    assert_eq!((google.asked(Part::Account), google.asked(Part::Decode)), (1, 2), "one token for both");
    assert_eq!(cause(&decoder.decode("com.example.other", TOKEN, Who::New).await), Some(Cause::Account));
    // What is none is not asked about: neither a token nor a package that would be another address.
    for (package, token) in [
        ("", TOKEN),
        ("com.example.app/../x", TOKEN),
        ("com.example.app:deviceRecall", TOKEN),
        (PACKAGE, ""),
        (PACKAGE, "a\"b"),
        (PACKAGE, "a b"),
    ] {
        assert!(
            matches!(decoder.decode(package, token, Who::New).await, Outcome::Foreign(_)),
            "{package} {token}"
        );
    }
    assert!(matches!(decoder.decode(PACKAGE, &"a".repeat(20_000), Who::New).await, Outcome::Foreign(_)));
    assert_eq!(google.asked(Part::Decode), 3);
    Ok(())
}

#[tokio::test]
async fn the_accounts_token_is_fetched_once_and_again_before_it_ends() -> Result<()> {
    let google = google().await?;
    let calls = Arc::new(decoder(&google, |_| ())?);
    let many: Vec<_> = (0..10)
        .map(|_| {
            let calls = Arc::clone(&calls);
            tokio::spawn(async move { ask(&calls).await })
        })
        .collect();
    for call in many {
        assert!(matches!(call.await?, Outcome::Verdict(_)));
    }
    assert_eq!((google.asked(Part::Account), google.asked(Part::Decode)), (1, 10));
    // One that is taken back before its time costs one call.
    google.withdraw();
    assert_eq!(cause(&ask(&calls).await), Some(Cause::Account));
    assert!(matches!(ask(&calls).await, Outcome::Verdict(_)));
    assert_eq!(google.asked(Part::Account), 2);
    // What ends within a minute is good for this call alone.
    google.lasting(60);
    let short = decoder(&google, |_| ())?;
    assert!(matches!(ask(&short).await, Outcome::Verdict(_)));
    assert!(matches!(ask(&short).await, Outcome::Verdict(_)));
    assert_eq!(google.asked(Part::Account), 4);
    assert_eq!(google.complaints(), Vec::<String>::new());
    Ok(())
}

/// Answers that are no verdict: what each means.
fn bad_answers() -> Vec<(&'static str, Option<Manner>, Cause)> {
    let twice = r#"{"tokenPayloadExternal":{},"tokenPayloadExternal":{}}"#;
    vec![
        ("401", answer(401, "", "{}"), Cause::Account),
        ("403", answer(403, "", "{}"), Cause::Account),
        ("404", answer(404, "", "{}"), Cause::Account),
        ("429", answer(429, "Retry-After: 7\r\n", "{}"), Cause::Quota),
        ("429 without a time", answer(429, "", "{}"), Cause::Quota),
        ("500", answer(500, "", "{}"), Cause::Server),
        ("503", answer(503, "", "{}"), Cause::Server),
        ("a redirect", answer(302, "Location: https://example.com/\r\n", ""), Cause::Garbage),
        ("no JSON", answer(200, "", "<html>"), Cause::Garbage),
        ("nothing", answer(200, "", ""), Cause::Garbage),
        ("another object", answer(200, "", "{}"), Cause::Garbage),
        ("a member twice", answer(200, "", twice), Cause::Garbage),
        ("an empty verdict", answer(200, "", r#"{"tokenPayloadExternal":{}}"#), Cause::Garbage),
        ("418", answer(418, "", ""), Cause::Garbage),
        ("the end of the connection", Some(Manner::HangUp), Cause::Unreachable),
        ("no end", Some(Manner::Flood), Cause::Unreachable),
        ("silence", Some(Manner::Silence), Cause::Slow),
        ("one byte at a time", Some(Manner::Drip), Cause::Slow),
    ]
}

#[tokio::test]
async fn bad_answers_are_no_verdict_and_say_why() -> Result<()> {
    let google = google().await?;
    for part in [Part::Decode, Part::Account] {
        for (name, manner, expected) in bad_answers() {
            let slow = expected == Cause::Slow;
            let patience = Duration::from_millis(if slow { 300 } else { 20_000 });
            let calls = decoder(&google, |config| config.timeout = patience)?;
            google.behave(part, manner);
            let outcome = ask(&calls).await;
            google.behave(part, None);
            let Outcome::Unavailable(found) = outcome else { panic!("{part:?} {name}: {outcome:?}") };
            // A token endpoint that refuses is about the account whatever else it says.
            let same = found.cause == expected
                || (part == Part::Account && expected == Cause::Garbage && found.cause == Cause::Account);
            assert!(same, "{part:?} {name}: {found:?}");
            assert_eq!(found.refused().denial, Denial::AttestationUnavailable);
            assert_eq!(found.retry_after, (name == "429").then_some(7), "{part:?} {name}");
            assert!(!found.why.contains("BEGIN"), "{found:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn who_does_not_answer_is_left_alone_and_tried_again() -> Result<()> {
    let google = google().await?;
    let calls = decoder(&google, |_| ())?;
    google.behave(Part::Decode, answer(500, "", ""));
    for _ in 0..5 {
        assert_eq!(cause(&ask(&calls).await), Some(Cause::Server));
    }
    assert_eq!(cause(&ask(&calls).await), Some(Cause::Resting));
    assert_eq!(google.asked(Part::Decode), 5, "nobody was asked");
    assert!(calls.condition().1);
    google.behave(Part::Decode, None);
    // Its pause is a second at first: then a call goes through, and what it brings opens the way for all.
    until("Google is asked again", async || matches!(ask(&calls).await, Outcome::Verdict(_))).await;
    assert!(matches!(ask(&calls).await, Outcome::Verdict(_)) && !calls.condition().1);
    // 429 is heard at once.
    google.behave(Part::Decode, answer(429, "Retry-After: 30\r\n", ""));
    assert_eq!(cause(&ask(&calls).await), Some(Cause::Quota));
    let Outcome::Unavailable(resting) = ask(&calls).await else { panic!("it was asked") };
    assert!(
        resting.cause == Cause::Resting && (25..=30).contains(&resting.retry_after.unwrap()),
        "{resting:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_call_that_is_given_up_leaves_nothing_behind() -> Result<()> {
    let google = google().await?;
    let calls = decoder(&google, |config| config.max_calls = 1)?;
    google.behave(Part::Decode, Some(Manner::Silence));
    {
        let call = ask(&calls);
        tokio::pin!(call);
        tokio::select! {
            outcome = &mut call => panic!("{outcome:?}"),
            () = until("it is asked", async || google.asked(Part::Decode) == 1) => {}
        }
        // While it is under way there is no room for another one.
        assert_eq!(cause(&ask(&calls).await), Some(Cause::Busy));
    }
    google.behave(Part::Decode, None);
    assert!(matches!(ask(&calls).await, Outcome::Verdict(_)));
    Ok(())
}

#[tokio::test]
async fn the_budget_is_kept_before_anybody_is_asked() -> Result<()> {
    let google = google().await?;
    let calls = decoder(&google, |config| config.quota = Quota { per_day: 100, burst: 3, reserve: 20 })?;
    for _ in 0..3 {
        assert!(matches!(ask(&calls).await, Outcome::Verdict(_)));
    }
    let Outcome::Unavailable(dry) = ask(&calls).await else { panic!("it was asked") };
    assert!(dry.cause == Cause::Budget && dry.retry_after.is_some_and(|wait| wait > 60), "{dry:?}");
    assert_eq!(google.asked(Part::Decode), 3);
    // A device that is known has the reserve.
    assert!(matches!(calls.decode(PACKAGE, TOKEN, Who::Known).await, Outcome::Verdict(_)));
    assert_eq!(calls.condition().0, 0);
    Ok(())
}

#[tokio::test]
async fn nobody_else_is_taken_for_google() -> Result<()> {
    let (google, other) = (google().await?, google().await?);
    let strange = decoder(&google, |config| config.authorities = Some(other.authorities()))?;
    assert_eq!(cause(&ask(&strange).await), Some(Cause::Unreachable));
    let public = decoder(&google, |config| config.private_addresses = false)?;
    let Outcome::Unavailable(refused) = ask(&public).await else { panic!("it was asked") };
    assert!(refused.why.contains("no public address"), "{refused:?}");
    assert_eq!(google.asked(Part::Account), 0);
    let mut plain = google.config()?;
    plain.api = format!("http://{}", google.address).parse()?;
    assert!(Decoder::new(plain, google.account()?, Metrics::new()?).is_err());
    Ok(())
}

#[tokio::test]
async fn account_files_that_are_none_are_refused_and_never_shown() -> Result<()> {
    let google = google().await?;
    let good = google.account_file();
    assert_eq!(Account::read(good.as_bytes()).unwrap().email, "enforcer@project.iam.gserviceaccount.com");
    let mut user: serde_json::Value = serde_json::from_str(good)?;
    user["type"] = json!("authorized_user");
    let mut key: serde_json::Value = serde_json::from_str(good)?;
    key["private_key"] = json!("-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n");
    for bad in ["", "{}", &good[..good.len() - 9], &user.to_string(), &key.to_string()] {
        let problem = Account::read(bad.as_bytes()).unwrap_err();
        assert!(!problem.contains("c2VjcmV0") && !problem.contains("MII"), "{problem}");
    }
    Ok(())
}
