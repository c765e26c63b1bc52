//! What is taken back before its time: by what, of whom, until when, and that no token that a worker knows outlives it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]
#![allow(clippy::wildcard_enum_match_arm, reason = "any other answer ends the test")]

use std::{fs, sync::Arc};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer::{
    checks::{Now, facts::ClientAddr, token::KnownTokens},
    clock::KernelTime,
    config::RevocationClient,
    control::{
        endpoint, revocation,
        wire::{Answer, FailureKind, Named, TokenCommand},
    },
    denial::Denial,
    metrics::Metrics,
    policy::Policy,
    revoked::{FOREVER, Kind, Revoked, Terms, WHENEVER, keeping},
    store::Gauges,
};
use enforcer_tests::{
    edge::{Site, route, token},
    tokens,
};
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};

use super::admit::{Desk, NOW, admit_from};

/// A desk that remembers tokens, as a worker does.
struct Counter {
    desk: Desk,
    known: KnownTokens,
}

impl Counter {
    fn new(change: impl FnOnce(&mut Site)) -> Result<Self> {
        Ok(Self { desk: Desk::with(change)?, known: KnownTokens::new(64) })
    }

    fn ask(&mut self, token: &str, unix: u64) -> Option<Denial> {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let now = Now { monotonic: KernelTime(unix * 1_000_000_000), unix };
        let from = ClientAddr::new("192.0.2.7".parse().unwrap());
        admit_from(&self.desk.policy, from, &Method::GET, "/api/x", &headers, now, &mut self.known)
            .err()
            .map(|refusal| refusal.denial)
    }

    fn tell(&self, command: TokenCommand) -> Result<Answer, enforcer::control::wire::Failure> {
        revocation::carry_out(&self.desk.policy, command, NOW)
    }

    fn mint(&self, change: impl FnOnce(&mut Value)) -> Result<String> {
        let mut claims = self.desk.claims();
        claims["jti"] = json!("id-1");
        claims["sid"] = json!("session-1");
        claims["device_id"] = json!("device-1");
        change(&mut claims);
        self.desk.ec.mint(&claims)
    }
}

fn named(kind: &str, text: &str) -> Named {
    Named { kind: kind.to_owned(), text: text.to_owned(), issuer: None }
}

fn revoke(what: Named) -> TokenCommand {
    TokenCommand::Revoke { what, issued_before: None, whenever: false, seconds: None, forever: false }
}

#[test]
fn a_known_token_does_not_outlive_its_revocation() -> Result<()> {
    let cases = [
        ("jti", "id-1"),
        ("sid", "session-1"),
        ("subject", "subject-1"),
        ("device", "device-1"),
        ("kid", "ec-1"),
        ("every", ""),
    ];
    for (kind, text) in cases {
        let mut counter = Counter::new(|_| ())?;
        let good = counter.mint(|_| ())?;
        assert_eq!(
            (counter.ask(&good, NOW), counter.ask(&good, NOW)),
            (None, None),
            "{kind}: verified, known"
        );
        let wrong = if kind == "every" { named("jti", "another") } else { named(kind, "another") };
        counter.tell(revoke(wrong)).unwrap();
        assert_eq!(counter.ask(&good, NOW), None, "{kind}: another one's");
        counter.tell(revoke(named(kind, text))).unwrap();
        assert_eq!(counter.ask(&good, NOW), Some(Denial::TokenRevoked), "{kind}: the next request");
        assert!(counter.known.is_empty(), "{kind}: forgotten");
        assert_eq!(counter.ask(&good, NOW), Some(Denial::TokenRevoked), "{kind}: verified anew");
        counter.tell(TokenCommand::Restore { what: named(kind, text) }).unwrap();
        assert_eq!(counter.ask(&good, NOW), None, "{kind}: restored");
        let again = counter.tell(TokenCommand::Restore { what: named(kind, text) }).unwrap_err();
        assert_eq!(again.kind, FailureKind::Refused, "{kind}");
    }
    // The token itself, in whatever way it was signed.
    let mut counter = Counter::new(|_| ())?;
    let (good, other) = (counter.mint(|_| ())?, counter.mint(|_| ())?);
    assert_ne!(good, other, "ECDSA signs otherwise each time");
    counter.tell(revoke(named("token", &good))).unwrap();
    assert_eq!(counter.ask(&other, NOW), Some(Denial::TokenRevoked), "the same claims, another signature");
    assert_eq!(counter.ask(&counter.mint(|claims| claims["jti"] = json!("id-2"))?, NOW), None);
    Ok(())
}

#[test]
fn what_goes_on_gets_new_tokens() -> Result<()> {
    for (kind, text) in [("subject", "subject-1"), ("device", "device-1"), ("every", "")] {
        let mut counter = Counter::new(|_| ())?;
        let issued = |at: u64| {
            move |claims: &mut Value| {
                claims["iat"] = json!(at);
                claims["nbf"] = json!(at);
            }
        };
        let (old, now, new) =
            (counter.mint(issued(NOW - 9))?, counter.mint(issued(NOW))?, counter.mint(issued(NOW + 1))?);
        let silent = counter.mint(|claims| drop(claims.as_object_mut().unwrap().remove("iat")))?;
        counter.tell(revoke(named(kind, text))).unwrap();
        assert_eq!(counter.ask(&old, NOW), Some(Denial::TokenRevoked), "{kind}");
        assert_eq!(counter.ask(&now, NOW), Some(Denial::TokenRevoked), "{kind}: of the same second");
        assert_eq!(counter.ask(&new, NOW), None, "{kind}: who logs in again is in again");
        assert_eq!(
            counter.ask(&silent, NOW),
            Some(Denial::TokenRevoked),
            "{kind}: who knows when it was issued"
        );
        // A second word only ever widens the first.
        counter
            .tell(TokenCommand::Revoke {
                what: named(kind, text),
                issued_before: Some(NOW - 100),
                whenever: false,
                seconds: Some(1),
                forever: false,
            })
            .unwrap();
        assert_eq!(counter.ask(&old, NOW + 10), Some(Denial::TokenRevoked), "{kind}");
        counter
            .tell(TokenCommand::Revoke {
                what: named(kind, text),
                issued_before: None,
                whenever: true,
                seconds: None,
                forever: false,
            })
            .unwrap();
        assert_eq!(counter.ask(&new, NOW), Some(Denial::TokenRevoked), "{kind}: whenever");
    }
    Ok(())
}

#[test]
fn an_issuer_answers_for_its_own() -> Result<()> {
    let mut counter = Counter::new(|site| {
        let keys = site.config.tokens["main"].keys.file().unwrap().to_owned();
        site.config.tokens.insert("other".to_owned(), token("https://other.example/", keys));
        site.config.routes[1] = route("/api/", Some("main"), &["read"]);
        site.config.routes[1].tokens.push("other".to_owned());
    })?;
    let main = counter.mint(|_| ())?;
    let other = counter.mint(|claims| claims["iss"] = json!("https://other.example/"))?;
    let of = |issuer: &str| Named { issuer: Some(issuer.to_owned()), ..named("jti", "id-1") };
    counter.tell(revoke(of("other"))).unwrap();
    assert_eq!((counter.ask(&main, NOW), counter.ask(&other, NOW)), (None, Some(Denial::TokenRevoked)));
    let found = |what| match counter.tell(TokenCommand::Revoked { what: Some(what) }).unwrap() {
        Answer::Revoked(row) => row.found.unwrap().is_revoked,
        other => panic!("{other:?}"),
    };
    assert_eq!((found(of("other")), found(of("main")), found(named("jti", "id-1"))), (true, false, false));
    counter.tell(revoke(named("jti", "id-1"))).unwrap();
    assert_eq!(counter.ask(&main, NOW), Some(Denial::TokenRevoked), "of every issuer");
    let refused = counter.tell(revoke(of("nobody"))).unwrap_err();
    assert!(refused.message.contains("there are: main, other"), "{}", refused.message);
    for bad in [named("email", "x"), named("jti", ""), named("every", "x")] {
        assert_eq!(counter.tell(revoke(bad)).unwrap_err().kind, FailureKind::Refused);
    }
    Ok(())
}

#[test]
fn an_entry_ends_with_what_it_means() -> Result<()> {
    let mut counter = Counter::new(|site| {
        site.config.tokens.get_mut("main").unwrap().max_lifetime = std::time::Duration::from_secs(1_000);
    })?;
    counter.tell(revoke(named("jti", "id-1"))).unwrap();
    let found = |kind: &str, text: &str| {
        let what = Some(named(kind, text));
        match counter.tell(TokenCommand::Revoked { what }).unwrap() {
            Answer::Revoked(row) => row.found.unwrap().remaining_seconds,
            other => panic!("{other:?}"),
        }
    };
    // A token that a clock ahead of ours by the leeway issued a moment ago, until it is past the leeway.
    assert_eq!(found("jti", "id-1"), Some(1_000 + 2 * 60 + 1));
    counter.tell(revoke(named("kid", "ec-1"))).unwrap();
    assert_eq!(found("kid", "ec-1"), None, "whoever has the key may go on signing");
    let good = counter.mint(|claims| claims["exp"] = json!(NOW + 1_000))?;
    counter.tell(TokenCommand::Restore { what: named("kid", "ec-1") }).unwrap();
    assert_eq!(counter.ask(&good, NOW + 1_059), Some(Denial::TokenRevoked));
    assert_eq!(counter.ask(&good, NOW + 1_060), Some(Denial::TokenExpired), "before the entry ends");
    let revoked = counter.desk.policy.revoked();
    revoked.sweep(NOW + 1_120);
    assert_eq!(revoked.look().entries, 1);
    revoked.sweep(NOW + 1_121);
    assert_eq!(revoked.look().entries, 0, "it takes no room any more");
    Ok(())
}

#[test]
fn a_full_table_refuses_loudly_and_forgets_nothing() -> Result<()> {
    let mut counter = Counter::new(|site| site.config.revocation.max_entries = 3)?;
    let good = counter.mint(|_| ())?;
    counter.tell(revoke(named("jti", "id-1"))).unwrap();
    for text in ["a", "b"] {
        counter.tell(revoke(named("sid", text))).unwrap();
    }
    let full = counter.tell(revoke(named("sid", "c"))).unwrap_err();
    assert!(full.message.starts_with("NOT REVOKED: all 3 entries"), "{}", full.message);
    counter.tell(revoke(named("sid", "b"))).unwrap();
    assert_eq!(counter.ask(&good, NOW), Some(Denial::TokenRevoked), "what is in there stays");
    let look = counter.desk.policy.revoked().look();
    assert_eq!((look.entries, look.most, look.refused), (3, 3, 1));
    counter.tell(TokenCommand::Restore { what: named("sid", "a") }).unwrap();
    counter.tell(revoke(named("sid", "c"))).unwrap();
    assert_eq!(counter.tell(revoke(named("sid", "d"))).unwrap_err().kind, FailureKind::Refused);
    Ok(())
}

/// A million entries: what they take, that each is found, and that nothing else is.
#[test]
fn a_million_entries_take_little_room() -> Result<()> {
    let most = 1_000_000;
    let revoked = Revoked::new(most)?;
    let mark = |n: usize| revoked.marker().mark(Kind::Id, &n.to_le_bytes());
    let terms = Terms { until: FOREVER, before: WHENEVER };
    for n in 0..most {
        assert_eq!(revoked.revoke(mark(n), terms, NOW), Ok(()), "{n}");
    }
    assert!(revoked.revoke(mark(most), terms, NOW).is_err());
    let look = revoked.look();
    let each = look.bytes / most;
    eprintln!("{} bytes for {} entries: {each} each", look.bytes, look.entries);
    assert_eq!((look.entries, each), (most, 32));
    for n in (0..most).step_by(997) {
        assert_eq!(revoked.terms(mark(n), NOW).0, Some(terms), "{n}");
        assert_eq!(revoked.terms(mark(most + n), NOW).0, None, "{n}");
    }
    Ok(())
}

/// One thread revokes while others ask: what was revoked before the question is always found, through every growth.
#[test]
fn readers_miss_nothing_that_was_revoked_before_they_asked() -> Result<()> {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    const ALL: usize = 20_000;
    let revoked = Revoked::new(ALL)?;
    let done = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (revoked, done) = (Arc::clone(&revoked), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut seen = 0;
                while seen < ALL {
                    seen = done.load(SeqCst);
                    for n in [0, seen / 2, seen.saturating_sub(1)].into_iter().filter(|n| *n < seen) {
                        let mark = revoked.marker().mark(Kind::Id, &n.to_le_bytes());
                        assert!(revoked.terms(mark, NOW).0.is_some(), "{n} of {seen}");
                    }
                }
            })
        })
        .collect();
    for n in 0..ALL {
        let mark = revoked.marker().mark(Kind::Id, &n.to_le_bytes());
        revoked.revoke(mark, Terms { until: FOREVER, before: WHENEVER }, NOW).unwrap();
        done.store(n + 1, SeqCst);
    }
    for reader in readers {
        reader.join().unwrap();
    }
    Ok(())
}

pub(super) fn gauges() -> Gauges {
    let metrics = Metrics::new().unwrap();
    Gauges { pending: metrics.revocation_store_pending, errors: metrics.revocation_store_errors }
}

#[test]
fn revocations_survive_a_restart_and_no_name_is_on_the_disk() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("revoked.redb");
    let mut counter = Counter::new(|_| ())?;
    let good = counter.mint(|_| ())?;
    let restart = |counter: &mut Counter, most: usize, now: u64| -> Result<(usize, bool)> {
        // The old one has to let go of the file.
        counter.desk.policy = Policy::load(&counter.desk.site.config)?;
        let kept = keeping::begin(&path, most, gauges(), now)?;
        counter.desk.policy = Policy::load_with(&counter.desk.site.config, kept.revoked)?;
        counter.known = KnownTokens::new(64);
        Ok((kept.without_room, kept.is_lost))
    };
    assert_eq!(restart(&mut counter, 100, NOW)?, (0, false));
    counter.tell(revoke(named("subject", "subject-1"))).unwrap();
    counter.tell(revoke(named("sid", "session-2"))).unwrap();
    counter.tell(revoke(named("sid", "session-3"))).unwrap();
    counter.tell(TokenCommand::Restore { what: named("sid", "session-3") }).unwrap();
    assert_eq!(restart(&mut counter, 100, NOW)?, (0, false));
    assert_eq!(counter.ask(&good, NOW), Some(Denial::TokenRevoked));
    assert_eq!(counter.desk.policy.revoked().look().entries, 2);
    assert!(counter.desk.policy.revoked().look().is_kept);
    assert_eq!(restart(&mut counter, 1, NOW)?, (1, false), "the daemon does not start then");
    assert_eq!(restart(&mut counter, 100, NOW + 2 * 86_400)?, (0, false));
    assert_eq!(counter.desk.policy.revoked().look().entries, 0, "what has ended meanwhile");
    assert_eq!(restart(&mut counter, 100, NOW)?, (0, false));
    assert_eq!(counter.desk.policy.revoked().look().entries, 0, "is not in the file either");
    counter.desk.policy = Policy::load(&counter.desk.site.config)?;
    let bytes = fs::read(&path)?;
    assert!(!bytes.windows(9).any(|window| window == b"subject-1" || window == b"session-2"));
    fs::write(&path, "no store at all, but long enough to be one".repeat(1000))?;
    assert_eq!(restart(&mut counter, 100, NOW)?, (0, true), "then nobody knows what was revoked");
    Ok(())
}

#[test]
fn a_file_says_what_is_revoked_as_long_as_it_says_so() -> Result<()> {
    let mut counter = Counter::new(|site| {
        let file = site.dir.path().join("revoked.jsonl");
        fs::write(&file, "# nothing yet\n\n").unwrap();
        site.config.revocation.file = Some(file);
    })?;
    let file = counter.desk.site.config.revocation.file.clone().unwrap();
    assert!(counter.desk.site.config.files().contains(&file.as_path()), "it is watched");
    let good = counter.mint(|_| ())?;
    let write = |counter: &mut Counter, text: &str| -> Result<()> {
        fs::write(&file, text)?;
        counter.desk.policy = counter.desk.policy.reload(&counter.desk.site.config)?;
        Ok(())
    };
    assert_eq!(counter.ask(&good, NOW), None);
    for line in [
        r#"{"jti": "id-1"}"#,
        r#"{"sid": "session-1", "issuer": "main"}"#,
        r#"{"kid": "ec-1", "until": 1800000001}"#,
        r#"{"device": "device-1", "issued_before": 1800000001}"#,
        r#"{"every": true, "issued_before": 1800000001}"#,
    ] {
        write(&mut counter, &format!("# why\n{line}\n"))?;
        assert_eq!(counter.ask(&good, NOW), Some(Denial::TokenRevoked), "{line}");
        write(&mut counter, "")?;
        assert_eq!(counter.ask(&good, NOW), None, "{line}, removed");
    }
    write(&mut counter, r#"{"kid": "ec-1", "until": 1800000000}"#)?;
    assert_eq!(counter.ask(&good, NOW), None, "it has ended");
    write(&mut counter, r#"{"jti": "id-1"}"#)?;
    let restored = counter.tell(TokenCommand::Restore { what: named("jti", "id-1") }).unwrap_err();
    assert!(restored.message.contains("take its line out"), "{}", restored.message);
    for (text, says) in [
        ("{", "line 1: not a JSON object"),
        ("\n[]", "line 2: not a JSON object"),
        (r#"{"jti": "a", "jti": "b"}"#, "not a JSON object"),
        (r#"{"jti": "a", "sid": "b"}"#, "more than one of"),
        (r#"{"issuer": "main"}"#, "none of"),
        (r#"{"jti": 1}"#, "`jti` is no text"),
        (r#"{"jti": "a", "issuer": "nobody"}"#, "there is no [token.nobody]"),
        (r#"{"subject": "a"}"#, "goes on"),
        (r#"{"jti": "a", "untill": 1}"#, "`untill` means nothing here"),
        (r#"{"jti": "a", "until": -1}"#, "`until` is no time"),
        (r#"{"every": false, "issued_before": 1}"#, "`every` is true"),
    ] {
        let error = format!("{:#}", write(&mut counter, text).unwrap_err());
        assert!(error.contains(says) && error.contains("revoked.jsonl"), "{text}: {error}");
        assert_eq!(counter.ask(&good, NOW), Some(Denial::TokenRevoked), "{text}: the one before holds");
    }
    Ok(())
}

/// A request for revocation, as an authorization server sends it.
fn post(policy: &Policy, credentials: Option<&str>, kind: &str, body: &str) -> http::Response<()> {
    let mut request = Request::post("/revoke").header("content-type", kind);
    if let Some(credentials) = credentials {
        request = request.header("authorization", format!("Basic {}", STANDARD.encode(credentials)));
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    endpoint::answer(policy, &head, body.as_bytes(), NOW).map(drop)
}

#[test]
fn an_authorization_server_revokes_tokens_with_its_secret_alone() -> Result<()> {
    const FORM: &str = "application/x-www-form-urlencoded";
    let secret = tokens::encode(&random()?);
    let mut counter = Counter::new(|site| {
        let file = site.dir.path().join("revoke.secret");
        fs::write(&file, format!("{secret}\n")).unwrap();
        site.config.revocation.client = Some(RevocationClient { id: "as:1".to_owned(), secret: file });
        site.config.revocation.max_entries = 2;
    })?;
    let good = counter.mint(|_| ())?;
    let body = format!("token={good}&token_type_hint=access_token");
    let right = format!("as%3A1:{secret}");
    let status = |counter: &Counter, credentials: Option<&str>, kind: &str, body: &str| {
        post(&counter.desk.policy, credentials, kind, body).status()
    };
    let twice = format!("{body}&token=x");
    for (credentials, kind, body, expected) in [
        (None, FORM, body.as_str(), StatusCode::UNAUTHORIZED),
        (Some("as%3A1:wrong"), FORM, &body, StatusCode::UNAUTHORIZED),
        (Some(&format!("other:{secret}")), FORM, &body, StatusCode::UNAUTHORIZED),
        (Some(&right), "application/json", &body, StatusCode::BAD_REQUEST),
        (Some(&right), FORM, "token_type_hint=access_token", StatusCode::BAD_REQUEST),
        (Some(&right), FORM, "token=", StatusCode::BAD_REQUEST),
        (Some(&right), FORM, &twice, StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(status(&counter, credentials, kind, body), expected, "{credentials:?} {body}");
    }
    assert_eq!(counter.ask(&good, NOW), None, "nothing of that had an effect");
    assert_eq!(status(&counter, Some(&right), FORM, &body), StatusCode::OK);
    assert_eq!(counter.ask(&good, NOW), Some(Denial::TokenRevoked));
    assert_eq!(status(&counter, Some(&right), FORM, "token=opaque"), StatusCode::OK, "whatever it is");
    let full = post(&counter.desk.policy, Some(&right), FORM, "token=another");
    assert_eq!(full.status(), StatusCode::SERVICE_UNAVAILABLE, "the client has to know");
    assert!(full.headers().contains_key("retry-after"));
    // Its end is the token's.
    counter.desk.policy.revoked().sweep(NOW + 600 + 60 + 1);
    assert_eq!(counter.desk.policy.revoked().look().entries, 1);
    let nobody = Counter::new(|_| ())?;
    assert_eq!(status(&nobody, Some(&right), FORM, &body), StatusCode::NOT_FOUND, "without a client");
    let short = Counter::new(|site| {
        let file = site.dir.path().join("short");
        fs::write(&file, "short").unwrap();
        site.config.revocation.client = Some(RevocationClient { id: "x".to_owned(), secret: file });
    });
    assert!(format!("{:#}", short.err().unwrap()).contains("openssl rand -hex 32"));
    Ok(())
}

fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn the_command_shows_what_the_file_says() -> Result<()> {
    use clap::Parser as _;
    use enforcer::cli::args::{Args, TokenVerb, Verb};
    let counter = Counter::new(|site| {
        let file = site.dir.path().join("revoked.jsonl");
        fs::write(&file, r#"{"jti": "id-2"}"#).unwrap();
        site.config.revocation.file = Some(file);
    })?;
    let at = format!("--at={NOW}");
    let Verb::Token(TokenVerb::Verify(verb)) =
        Args::try_parse_from(["enforcer", "token", "verify", "-", &at]).unwrap().verb
    else {
        panic!("something else")
    };
    let judge = |token: &str| enforcer::daemon::token(&counter.desk.site.config, &verb, token.as_bytes());
    let good = judge(&counter.mint(|_| ())?)?;
    assert!(good.refused.is_none());
    assert!(good.steps.iter().any(|step| step.name == "revocation" && step.found.starts_with("none in")));
    let bad = judge(&counter.mint(|claims| claims["jti"] = json!("id-2"))?)?;
    assert_eq!(bad.refused.unwrap().code, "token_revoked");
    // What the daemon says of it.
    let token = counter.mint(|_| ())?;
    let asked = |counter: &Counter| match counter.tell(TokenCommand::Judge { token: token.clone() }).unwrap()
    {
        Answer::Judged(row) => (row.refused, row.revoked_by),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked(&counter), (None, None));
    counter.tell(revoke(named("device", "device-1"))).unwrap();
    assert_eq!(asked(&counter), (Some("token_revoked".to_owned()), Some("device".to_owned())));
    Ok(())
}

/// Keys that a path leads to.
#[test]
fn the_device_may_lie_deeper() -> Result<()> {
    let mut counter = Counter::new(|site| {
        site.config.tokens.get_mut("main").unwrap().device_claim = "device.id".to_owned();
    })?;
    let good = counter.mint(|claims| claims["device"] = json!({"id": 7}))?;
    assert_eq!(counter.ask(&good, NOW), None);
    counter.tell(revoke(named("device", "7"))).unwrap();
    assert_eq!(counter.ask(&good, NOW), Some(Denial::TokenRevoked));
    Ok(())
}
