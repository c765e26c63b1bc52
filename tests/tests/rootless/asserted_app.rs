//! An app that signs each of its requests with the key in its phone's hardware, over real TLS to a real edge with a server behind; only
//! Apple is played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use enforcer::{
    checks::{devices::client_data, facts::Target},
    clock,
    config::{Assertion, AttestationDemand, Route},
    control::wire,
};
use enforcer_tests::{
    attestation::apple::{Apple, sha256},
    edge::{self, Client, NAME, Outgoing, Site},
    origin::Origin,
};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;

use super::{
    bodies::{Channel, eventually},
    device_app::{Answer, App, operate, post, read, told},
    shop::furnish,
    till::{ath, bare, unique},
};

/// Bytes of a body at most.
const MOST: u64 = 64 << 10;

/// What a request is signed over: the field, and what stands there.
type Over = (&'static str, String);

/// A request that is signed, to be sent as it is, or not.
#[derive(Clone)]
struct Draft {
    method: Method,
    path: String,
    body: Vec<u8>,
    headers: HeaderMap,
}

impl Draft {
    /// As it was written down for app developers.
    fn signed(app: &mut App, method: Method, path: &str, body: &[u8], (field, over): &Over) -> Result<Self> {
        let (bare_path, query) =
            path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let data = client_data(over, &method, Target { path: bare_path, query }, body);
        let assertion = app.phone.assert(&sha256(data.as_bytes()))?;
        let mut headers = HeaderMap::new();
        headers.insert(*field, over.parse()?);
        headers.insert("enforcer-assertion", STANDARD.encode(assertion).parse()?);
        Ok(Self { method, path: path.to_owned(), body: body.to_vec(), headers })
    }

    /// With the session, and a new proof for it.
    async fn send(&self, app: &App, client: &mut Client) -> Result<Answer> {
        let body: Outgoing = Full::new(Bytes::from(self.body.clone())).boxed();
        read(client.send(self.request(app, body)?).await?).await
    }

    /// The same with a body that comes otherwise.
    fn request(&self, app: &App, body: Outgoing) -> Result<Request<Outgoing>> {
        let bare_path = self.path.split('?').next().unwrap_or_default();
        let header = json!({"typ": "dpop+jwt", "alg": app.held.key.alg(), "jwk": bare(&app.held.key)});
        let claims = json!({
            "jti": unique(), "htm": self.method.as_str(), "htu": format!("https://{NAME}{bare_path}"),
            "iat": clock::unix_now(), "ath": ath(&app.held.session),
        });
        let mut request = Request::builder().method(&self.method).uri(&self.path).body(body)?;
        request.headers_mut().extend(self.headers.clone());
        request.headers_mut().insert("enforcer-session", app.held.session.parse()?);
        let proof = app.held.key.mint_raw(&header.to_string(), &claims.to_string())?;
        request.headers_mut().insert("enforcer-proof", proof.parse()?);
        Ok(request)
    }
}

async fn challenge(client: &mut Client, group: &str) -> Result<Over> {
    let body = json!({ "purpose": "request", "group": group });
    let answer = post(client, "/.well-known/enforcer/challenge", HeaderMap::new(), &body).await?;
    assert_eq!(answer.status, 200, "{}", answer.body);
    Ok(("enforcer-challenge", answer.body["challenge"].as_str().unwrap().to_owned()))
}

fn time() -> Over {
    ("enforcer-time", clock::unix_now().to_string())
}

/// Routes for orders and payments, each with challenges of its own, and for events, which take the time.
fn site(origin: &Origin) -> Result<(Site, Apple)> {
    let mut site = Site::new(origin.address)?;
    let apple = furnish(&mut site, clock::unix_now())?;
    let route = |path: &str, assertion, group: &str| {
        let demand = AttestationDemand {
            assertion: Some(assertion),
            group: group.to_owned(),
            max_body_bytes: MOST,
            ..edge::demand()
        };
        Route { attestation: Some(demand), ..edge::route(path, None, &[]) }
    };
    site.config.routes.extend([
        route("/orders/", Assertion::Challenge, "orders"),
        route("/pay/", Assertion::Challenge, "pay"),
        route("/events/", Assertion::Time, "events"),
    ]);
    Ok((site, apple))
}

async fn enrolled(client: &mut Client, apple: &Apple) -> Result<App> {
    let mut app = App::new()?;
    assert_eq!(app.enrol(client, apple).await?.status, 201);
    assert_eq!(app.begin(client).await?.status, 200);
    Ok(app)
}

#[tokio::test]
async fn an_app_signs_each_request_and_nothing_else_passes() -> Result<()> {
    let origin = Origin::start().await?;
    let (site, apple) = site(&origin)?;
    let edge = site.start_as_of(clock::unix_now() - 86_400)?;
    let mut client = edge.http2().await?;
    let mut app = enrolled(&mut client, &apple).await?;

    // The session alone is not enough here, and one request leads to the next.
    let answer = app.held.get(&mut client, "/orders/1").await?;
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("assertion_missing")));
    assert_eq!(answer.headers["www-authenticate"], "Attestation realm=\"enforcer\"");
    let body = br#"{"item": 7}"#;
    for (method, path, body) in [
        (Method::GET, "/orders/1", &b""[..]),
        (Method::POST, "/orders/new?draft=1&x=%20y", body),
        (Method::PUT, "/orders/a%20b?", &[0xff; 60_000]),
        (Method::DELETE, "/orders/1", b""),
    ] {
        let over = challenge(&mut client, "orders").await?;
        let draft = Draft::signed(&mut app, method, path, body, &over)?;
        let answer = draft.send(&app, &mut client).await?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let told = answer.body["headers"].to_string();
        for name in ["enforcer-assertion", "enforcer-challenge", "enforcer-time", "enforcer-session"] {
            assert!(!told.contains(name), "{name} is nobody else's: {told}");
        }
        assert!(told.contains("enforcer-attested"), "{told}");
    }
    let passed = origin.requests();
    assert_eq!(passed, 4);

    // Whatever is not as it was signed goes no further, and its challenge is gone.
    let over = challenge(&mut client, "orders").await?;
    let good = Draft::signed(&mut app, Method::POST, "/orders/new?draft=1", body, &over)?;
    let bad = ("assertion_bad_signature", 401);
    let unknown = ("attestation_nonce_unknown", 401);
    type Change = fn(&mut Draft);
    let changes: [(&str, Change, (&str, u16)); 8] = [
        ("another body", |draft| draft.body = br#"{"item": 8}"#.to_vec(), bad),
        ("no body", |draft| draft.body.clear(), bad),
        ("another query", |draft| draft.path = "/orders/new?draft=2".into(), bad),
        ("no query", |draft| draft.path = "/orders/new".into(), bad),
        ("another path", |draft| draft.path = "/orders/old?draft=1".into(), bad),
        ("another method", |draft| draft.method = Method::PUT, bad),
        ("too long", |draft| draft.body = vec![b'x'; MOST as usize + 1], ("body_too_large", 413)),
        ("another group", |draft| draft.path = "/pay/new?draft=1".into(), unknown),
    ];
    for (name, change, (code, status)) in changes {
        let over = challenge(&mut client, "orders").await?;
        let mut draft = Draft::signed(&mut app, Method::POST, "/orders/new?draft=1", body, &over)?;
        change(&mut draft);
        let answer = draft.send(&app, &mut client).await?;
        assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{name}");
        if name != "another group" {
            let fresh = Draft::signed(&mut app, Method::POST, "/orders/new?draft=1", body, &over)?;
            let answer = fresh.send(&app, &mut client).await?;
            assert_eq!(answer.body["code"], "attestation_nonce_reused", "{name}");
        }
    }
    assert_eq!(origin.requests(), passed, "nothing of that was forwarded");

    // The first one is overtaken by now, by none that was taken: a counter only counts where all else is well.
    assert_eq!(good.send(&app, &mut client).await?.status, 200);
    assert_eq!(good.send(&app, &mut client).await?.body["code"], "attestation_nonce_reused");
    let own = challenge(&mut client, "pay").await?;
    let draft = Draft::signed(&mut app, Method::POST, "/pay/new", body, &own)?;
    assert_eq!(draft.send(&app, &mut client).await?.status, 200);
    assert_eq!(edge.metrics.attestations.with_label_values(&["assertion"]).get(), 6);
    Ok(())
}

/// A phone may take its time with a body, and what the server is told of the device counts from when it is told.
#[tokio::test]
async fn servers_are_told_of_a_device_when_the_body_has_come() -> Result<()> {
    let origin = Origin::start().await?;
    let (mut site, apple) = site(&origin)?;
    site.config.attestation.as_mut().unwrap().facts_lifetime = std::time::Duration::from_secs(5);
    let edge = site.start_as_of(clock::unix_now() - 86_400)?;
    for mut client in edge.clients().await? {
        let mut app = enrolled(&mut client, &apple).await?;
        let over = challenge(&mut client, "orders").await?;
        let draft = Draft::signed(&mut app, Method::POST, "/orders/new", b"in two parts", &over)?;
        let (sender, body) = Channel::open();
        let request = draft.request(&app, body)?;
        let rest = async {
            sender.send(Bytes::from_static(b"in two")).await?;
            // What is held is of a request that was admitted; then the second of that is over.
            eventually(|| edge.metrics.held_bytes.get() > 0).await?;
            let admitted = clock::unix_now();
            eventually(|| clock::unix_now() > admitted).await?;
            let after = clock::unix_now();
            sender.send(Bytes::from_static(b" parts")).await?;
            drop(sender);
            anyhow::Ok(after)
        };
        let (response, after) = tokio::try_join!(client.send(request), rest)?;
        let answer = read(response).await?;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let facts = told(&mut client, &answer).await?;
        let iat = facts["iat"].as_u64().unwrap();
        assert!(iat >= after, "{facts}");
        assert_eq!(facts["exp"], iat + 5);
        eventually(|| edge.metrics.held_bytes.get() == 0).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_app_makes_a_thousand_signed_requests_and_comes_back_after_everything() -> Result<()> {
    let origin = Origin::start().await?;
    let (site, apple) = site(&origin)?;
    let edge = site.start_as_of(clock::unix_now() - 86_400)?;
    let mut client = edge.http2().await?;
    let mut app = enrolled(&mut client, &apple).await?;
    for number in 0..1_000 {
        let body = format!("{{\"number\": {number}}}");
        let draft = Draft::signed(&mut app, Method::POST, "/events/x?a=1", body.as_bytes(), &time())?;
        let answer = draft.send(&app, &mut client).await?;
        assert_eq!(answer.status, 200, "{number}: {}", answer.body);
    }
    assert_eq!(origin.requests(), 1_000);
    let wire::Answer::Device(row) = operate(&edge, wire::DeviceCommand::Show { device: app.device() }) else {
        panic!("no device")
    };
    assert_eq!(row.counter, app.phone.counter, "each was taken");

    // Sent twice; then the system has used some counters up; then one is overtaken by a later one.
    let draft = Draft::signed(&mut app, Method::GET, "/events/x", b"", &time())?;
    assert_eq!(draft.send(&app, &mut client).await?.status, 200);
    let answer = draft.send(&app, &mut client).await?;
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("assertion_counter_replayed")));
    app.phone.counter += 25;
    let early = Draft::signed(&mut app, Method::GET, "/events/1", b"", &time())?;
    let late = Draft::signed(&mut app, Method::GET, "/events/2", b"", &time())?;
    assert_eq!(late.send(&app, &mut client).await?.status, 200);
    assert_eq!(early.send(&app, &mut client).await?.body["code"], "assertion_counter_replayed");
    // A clock that is wrong, which the answer tells.
    let wrong = ("enforcer-time", (clock::unix_now() - 3_600).to_string());
    let answer =
        Draft::signed(&mut app, Method::GET, "/events/x", b"", &wrong)?.send(&app, &mut client).await?;
    assert_eq!((answer.status, &answer.body["code"]), (401, &json!("assertion_stale")));
    assert!(answer.body["server_time"].as_u64().is_some_and(|time| time.abs_diff(clock::unix_now()) < 60));

    // Installed anew; the old key is no longer the session's.
    let old = std::mem::replace(&mut app, enrolled(&mut client, &apple).await?);
    assert_ne!(app.device(), old.device());
    let draft = Draft::signed(&mut app, Method::GET, "/events/x", b"", &time())?;
    assert_eq!(draft.send(&old, &mut client).await?.body["code"], "assertion_bad_signature");
    assert_eq!(draft.send(&app, &mut client).await?.status, 200);

    // Blocked, and let in again.
    operate(&edge, wire::DeviceCommand::Block { device: app.device(), reason: String::new() });
    let draft = Draft::signed(&mut app, Method::GET, "/events/x", b"", &time())?;
    assert_eq!(draft.send(&app, &mut client).await?.body["code"], "device_blocked");
    operate(&edge, wire::DeviceCommand::Unblock { device: app.device() });
    assert_eq!(draft.send(&app, &mut client).await?.status, 200, "it was not used by that");
    Ok(())
}

#[tokio::test]
async fn of_two_requests_with_one_counter_that_race_exactly_one_arrives() -> Result<()> {
    let origin = Origin::start().await?;
    let (site, apple) = site(&origin)?;
    let edge = site.start_as_of(clock::unix_now() - 86_400)?;
    let mut client = edge.http2().await?;
    let mut app = enrolled(&mut client, &apple).await?;
    // On two connections, so that two workers may have them.
    let (mut one, mut two) = (edge.http1().await?, edge.http1().await?);
    for round in 0..25 {
        let before = origin.requests();
        let first = Draft::signed(&mut app, Method::POST, "/events/x", b"first", &time())?;
        app.phone.counter -= 1;
        let second = Draft::signed(&mut app, Method::POST, "/events/x", b"second", &time())?;
        let (first, second) = tokio::join!(first.send(&app, &mut one), second.send(&app, &mut two));
        let (first, second) = (first?, second?);
        let mut outcomes = [first.status, second.status];
        outcomes.sort_unstable();
        assert_eq!(outcomes, [200, 401], "round {round}");
        let lost = if first.status == 401 { first } else { second };
        assert_eq!(lost.body["code"], "assertion_counter_replayed");
        assert_eq!(origin.requests(), before + 1, "round {round}");
    }
    Ok(())
}
