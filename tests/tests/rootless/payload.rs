//! Encrypted bodies from end to end: servers get them in the clear, apps get their answers encrypted, and whatever is wrong is one refusal
//! that tells nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::{
    denial::Denial,
    sealed::{
        jwe::{self, Alg},
        keys::Public,
    },
};
use enforcer_tests::{
    edge::{Client, Edge, Site},
    origin::Origin,
    payload::{App, FORMS, Form, KIND, MOST, Order, Sent, add},
};
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::bodies::within;

pub(super) struct House {
    pub(super) edge: Edge,
    pub(super) origin: Origin,
    pub(super) keys: [Public; 2],
}

impl House {
    pub(super) async fn new(change: impl FnOnce(&mut Site)) -> Result<Self> {
        let origin = Origin::start().await?;
        let mut site = Site::new(origin.address)?;
        let keys = add(&mut site)?;
        change(&mut site);
        Ok(Self { edge: site.start()?, origin, keys })
    }

    /// Apps that know a key of each curve.
    pub(super) fn apps(&self) -> [App; 2] {
        [App::new(&self.keys[0]), App::new(&self.keys[1])]
    }

    pub(super) fn app(&self, curve: enforcer::sealed::keys::Curve) -> App {
        App::new(self.keys.iter().find(|key| key.curve() == curve).unwrap())
    }

    pub(super) fn refused(&self, cause: &str) -> u64 {
        self.edge.metrics.payload.refused.with_label_values(&["app", cause]).get()
    }
}

/// Status and code of a refusal, or what was in the answer.
pub(super) async fn send(client: &mut Client, sent: &Sent) -> Result<(u16, String)> {
    let response = within(client.send(sent.request()?)).await??;
    if response.status().is_success() {
        let (answered, _) = sent.open(response).await?;
        return Ok((answered.status, String::from_utf8(answered.body)?));
    }
    let status = response.status().as_u16();
    let said: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    Ok((status, said["code"].as_str().unwrap_or_default().to_owned()))
}

pub(super) fn refused() -> (u16, String) {
    (400, "payload_refused".to_owned())
}

/// A refusal as it comes, but for what is of this one request, and of this second.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen(u16, Vec<(String, String)>, String);

async fn seen(client: &mut Client, sent: &Sent) -> Result<Seen> {
    normal(within(client.send(sent.request()?)).await??).await
}

async fn normal(response: Response<Incoming>) -> Result<Seen> {
    let (head, body) = response.into_parts();
    let body = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
    let id = serde_json::from_str::<Value>(&body)?["request_id"].as_str().unwrap().to_owned();
    let headers = head.headers.iter().filter(|(name, _)| *name != "date");
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    Ok(Seen(head.status.as_u16(), headers.collect(), body.replace(&id, "ID")))
}

#[tokio::test]
async fn servers_get_bodies_in_the_clear_and_apps_get_answers_encrypted() -> Result<()> {
    let house = House::new(|_| ()).await?;
    let long = vec![b'x'; MOST as usize];
    for mut client in house.edge.clients().await? {
        for (form, curve) in FORMS {
            let app = house.app(curve);
            for body in [&b"{\"amount\":\"100 \xe2\x82\xac\"}"[..], b"", &long] {
                let sent = app.seal(&Order::post(form, "/sealed/echo", body))?;
                let response = within(client.send(sent.request()?)).await??;
                let (answered, headers) = sent.open(response).await?;
                assert_eq!((answered.status, &*answered.body), (200, body), "{form:?} {curve:?}");
                assert_eq!(headers["cache-control"], "no-store");
                // What went over the wire is not what was meant.
                assert!(body.is_empty() || !sent.body.windows(body.len()).any(|part| part == body));
            }
            // A query is neither encrypted nor bound, and goes on.
            let mut sent = app.seal(&Order::post(form, "/sealed/what", b"{\"n\":1}"))?;
            sent.path.push_str("?page=2");
            for (name, value) in [
                ("accept-encoding", "gzip"),
                ("range", "bytes=0-1"),
                ("x-device", "7"),
                ("content-digest", "sha-256=:AAAA:"),
            ] {
                sent.headers.push((name, value.to_owned()));
            }
            let response = within(client.send(sent.request()?)).await??;
            let (answered, headers) = sent.open(response).await?;
            let said: Value = serde_json::from_slice(&answered.body)?;
            assert_eq!(
                (said["method"].as_str(), said["target"].as_str()),
                (Some("POST"), Some("/sealed/what?page=2"))
            );
            let fields = said["headers"].as_array().unwrap();
            let field = |name: &str| {
                fields.iter().find(|field| field[0] == name).map(|field| field[1].as_str().unwrap())
            };
            assert_eq!(
                (field("content-type"), field("content-length"), field("x-device")),
                (Some(KIND), Some("7"), Some("7"))
            );
            for gone in [
                "accept-encoding",
                "range",
                "content-digest",
                "payload-key",
                "payload-session",
                "payload-time",
                "transfer-encoding",
            ] {
                assert_eq!(field(gone), None, "{form:?}: {gone}");
            }
            // What is no body goes in the clear.
            assert_eq!(headers["x-kept"], "yes");
            // Another media type, and none.
            for (kind, expected) in
                [("application/merge-patch+json; v=1", "application/merge-patch+json; v=1"), ("", KIND)]
            {
                let order = Order { kind, method: "PUT", ..Order::post(form, "/sealed/what", b"{}") };
                let sent = app.seal(&order)?;
                let (_, said) = send(&mut client, &sent).await?;
                assert!(said.contains(&format!("[\"content-type\",\"{expected}\"]")), "{form:?}: {said}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn requests_and_answers_without_a_body_are_bound_by_a_field() -> Result<()> {
    let house = House::new(|_| ()).await?;
    for mut client in house.edge.clients().await? {
        for (form, curve) in FORMS {
            let app = house.app(curve);
            for (method, path, status, is_empty) in [
                ("GET", "/sealed/what", 200, false),
                ("DELETE", "/sealed/what", 200, false),
                ("HEAD", "/sealed/what", 200, true),
                ("GET", "/sealed/empty", 204, true),
                ("POST", "/sealed/empty", 204, true),
                ("GET", "/sealed/status/304", 304, true),
                ("GET", "/sealed/status/404", 404, false),
            ] {
                let sent = app.seal(&Order::bare(form, method, path))?;
                let response = within(client.send(sent.request()?)).await??;
                assert_eq!(
                    response.headers().contains_key("payload-sealed"),
                    is_empty,
                    "{form:?} {method} {path}"
                );
                let (answered, _) = sent.open(response).await?;
                assert_eq!(answered.status, status, "{form:?} {method} {path}");
                let said: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
                assert_eq!(said["method"], if is_empty { Value::Null } else { json!(method) });
                let text = said.to_string();
                assert!(!text.contains("payload-sealed") && !text.contains("content-type"), "{text}");
                // The same once more is a replay.
                assert_eq!(
                    within(client.send(sent.request()?)).await??.status(),
                    400,
                    "{form:?} {method} {path}"
                );
            }
            // A body that comes encrypted has its 204 encrypted as well.
            let sent = app.seal(&Order::post(form, "/sealed/empty", b"{}"))?;
            let response = within(client.send(sent.request()?)).await??;
            assert_eq!(sent.open(response).await?.0.status, 204);
        }
    }
    Ok(())
}

/// Everything that can be wrong with a request of one form, by the cause that operators are told.
fn wrong(app: &App, stranger: &App, form: Form) -> Result<Vec<(&'static str, String, Sent)>> {
    let path = "/sealed/echo";
    let order = Order::post(form, path, b"{\"amount\":100}");
    let good = || app.seal(&order);
    let bare = || app.seal(&Order::bare(form, "POST", path));
    let mut all: Vec<(&'static str, String, Sent)> = Vec::new();
    let mut put = |cause, what: &str, sent: Sent| all.push((cause, what.to_owned(), sent));
    let with = |mut sent: Sent, change: &dyn Fn(&mut Sent)| {
        change(&mut sent);
        sent
    };
    put(
        "plain",
        "plain",
        with(good()?, &|sent| {
            sent.headers = vec![("content-type", KIND.to_owned())];
            sent.body = b"{\"amount\":100}".to_vec();
        }),
    );
    put(
        "plain",
        "nothing",
        with(good()?, &|sent| {
            sent.headers.clear();
            sent.body.clear();
        }),
    );
    put(
        "unopened",
        "cut off",
        with(good()?, &|sent| {
            sent.body.pop();
        }),
    );
    put("unopened", "empty", with(good()?, &|sent| sent.body.clear()));
    put("unopened", "another method", with(good()?, &|sent| sent.method = "PUT".to_owned()));
    put("unopened", "another path", with(good()?, &|sent| sent.path = "/sealed/what".to_owned()));
    let length = good()?.body.len();
    for at in (0..length).step_by(length / 23) {
        let sent = with(good()?, &|sent| sent.body[at] = if sent.body[at] == b'A' { b'B' } else { b'A' });
        put("", &format!("byte {at}"), sent);
    }
    let twin = App { key: app.key.clone(), ..stranger.clone() };
    put("unopened", "another key under its id", twin.seal(&order)?);
    put("unknown_key", "an unknown key", stranger.seal(&order)?);
    put("stale", "old", app.seal(&Order { made: order.made - 200, ..order })?);
    put("stale", "of the future", app.seal(&Order { made: order.made + 100, ..order })?);
    put("stale", "of no time", app.seal(&Order { made: u64::MAX, ..order })?);
    let long = vec![b'x'; MOST as usize + 1];
    put("unopened", "a byte too long", app.seal(&Order { body: &long, ..order })?);
    let longer = vec![b'x'; MOST as usize * 2];
    put("too_large", "far too long", app.seal(&Order { body: &longer, ..order })?);
    put("content", "a call of gRPC", app.seal(&Order { kind: "Application/gRPC+proto", ..order })?);
    put("content", "a body in the field", app.seal(&Order { in_field: true, kind: "", ..order })?);
    put("form", "coded", with(good()?, &|sent| sent.headers.push(("content-encoding", "gzip".to_owned()))));
    put("form", "field and body", with(bare()?, &|sent| sent.body = b"x".to_vec()));
    put("form", "field twice", with(bare()?, &|sent| sent.headers.push(("payload-sealed", "a".to_owned()))));
    put(
        "",
        "field of another",
        with(bare()?, &|sent| {
            for (name, value) in &mut sent.headers {
                if *name == "payload-sealed" {
                    value.insert(0, '.');
                }
            }
        }),
    );
    if let Form::Jwe(alg) = form {
        let header = json!({
            "alg": alg.name(), "enc": "A256GCM", "epk": "$EPK", "kid": app.key, "method": "POST", "path": path,
            "iat": order.made, "jti": "0123456789abcdef", "rpk": {
                "kty": "OKP", "crv": "X25519", "x": "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            },
        });
        let header = header.to_string().replace("\"$EPK\"", "$EPK");
        let spaced = header.replace("\"jti\"", "\"cty\":\" application/grpc\",\"jti\"");
        for (what, header, length) in [
            ("nothing to repeat", header, jwe::ECHO - 1),
            ("a type that a server reads without its space", spaced, jwe::ECHO),
        ] {
            let body = jwe::seal_as(alg, &app.server, &header, &vec![7; length]).unwrap();
            put("unopened", what, with(good()?, &|sent| sent.body.clone_from(&body)));
        }
    }
    if form == Form::Layout {
        for name in ["payload-key", "payload-session", "payload-time"] {
            // Without the session it is not even one of these.
            let cause = if name == "payload-session" { "plain" } else { "form" };
            put(cause, name, with(good()?, &|sent| sent.headers.retain(|(other, _)| *other != name)));
            put("form", name, with(good()?, &|sent| sent.headers.push((name, "1".to_owned()))));
        }
        let change = |name: &'static str, value: String| {
            Ok::<_, anyhow::Error>(with(good()?, &|sent| {
                sent.headers.retain(|(other, _)| *other != name);
                sent.headers.push((name, value.clone()));
            }))
        };
        put("unopened", "another time", change("payload-time", (order.made + 1).to_string())?);
        put("form", "no time", change("payload-time", format!("+{}", order.made))?);
        put("unopened", "another session", change("payload-session", "AAAA".to_owned())?);
        put("unknown_key", "no such key", change("payload-key", "none".to_owned())?);
        put("unopened", "another type", change("content-type", "text/html".to_owned())?);
    }
    Ok(all)
}

#[tokio::test]
async fn whatever_is_wrong_is_one_refusal() -> Result<()> {
    let house = House::new(|_| ()).await?;
    let other = House::new(|_| ()).await?;
    let mut first = [None, None];
    for (form, curve) in FORMS {
        let (app, stranger) = (house.app(curve), other.app(curve));
        for (client, first) in house.edge.clients().await?.iter_mut().zip(&mut first) {
            for (cause, what, sent) in wrong(&app, &stranger, form)? {
                let before = house.refused(cause);
                let seen = seen(client, &sent).await?;
                let expected = first.get_or_insert_with(|| seen.clone());
                assert_eq!(&seen, expected, "{form:?} {curve:?}: {what}");
                assert!(
                    cause.is_empty() || house.refused(cause) == before + 1,
                    "{form:?}: {what} is no {cause}"
                );
            }
            let good = app.seal(&Order::post(form, "/sealed/sink", b"four"))?;
            assert_eq!(send(client, &good).await?, (200, "4".to_owned()), "{form:?} {curve:?}");
            assert_eq!(Some(seen(client, &good).await?), *first, "{form:?} {curve:?}: a replay");
        }
    }
    assert_eq!(house.origin.requests(), FORMS.len() * 2, "nothing that was refused reached the server");
    let Seen(status, headers, body) = first[0].clone().unwrap();
    assert_eq!(status, 400);
    assert!(body.contains("\"code\":\"payload_refused\"") && !body.contains("server_time"), "{body}");
    assert!(headers.iter().all(|(name, _)| !name.starts_with("payload")), "{headers:?}");
    Ok(())
}

/// A phone whose clock is wrong is no attacker, and neither is one that comes when there is no room.
#[tokio::test]
async fn what_no_attacker_has_to_do_with_counts_towards_no_ban() -> Result<()> {
    let mut house = House::new(|site| site.config.replay.max_entries = 1).await?;
    let other = House::new(|_| ()).await?;
    let mut first = None;
    for (form, curve) in FORMS {
        let (app, stranger) = (house.app(curve), other.app(curve));
        for (cause, _, sent) in wrong(&app, &stranger, form)? {
            for client in &mut house.edge.clients().await? {
                let seen = seen(client, &sent).await?;
                assert_eq!(&seen.2, &first.get_or_insert_with(|| seen.clone()).2);
                let reported = std::iter::from_fn(|| house.edge.offences.try_recv().ok());
                let reported: Vec<Denial> = reported.map(|offence| offence.denial).collect();
                let expected: &[Denial] = if cause == "stale" { &[] } else { &[Denial::PayloadRefused] };
                assert_eq!(reported, expected, "{form:?}: {cause}");
            }
        }
    }
    // A set of one has one place in each of 64 parts.
    let mut client = house.edge.http2().await?;
    while house.refused("replay_full") == 0 {
        let sent = house.apps()[0].seal(&Order::post(Form::Hpke, "/sealed/echo", b"{}"))?;
        send(&mut client, &sent).await?;
    }
    assert!(house.edge.offences.try_recv().is_err());
    let denied = house.edge.metrics.denials.with_label_values(&["payload_refused"]).get();
    assert!(denied > house.refused("stale"), "every refusal is counted");
    Ok(())
}

#[tokio::test]
async fn of_two_that_race_with_one_body_one_gets_through() -> Result<()> {
    let house = House::new(|_| ()).await?;
    for (form, curve) in FORMS {
        for round in 0..5 {
            let order = Order::post(form, "/sealed/echo", b"{}");
            let order = if round % 2 == 0 { order } else { Order::bare(form, "POST", "/sealed/echo") };
            let sent = house.app(curve).seal(&order)?;
            let [mut one, mut two] = house.edge.clients().await?;
            let before = house.origin.requests();
            let (one, two) = tokio::join!(send(&mut one, &sent), send(&mut two, &sent));
            let mut outcomes = [one?, two?];
            outcomes.sort();
            let body = if round % 2 == 0 { "{}" } else { "" };
            assert_eq!(outcomes, [(200, body.to_owned()), refused()], "{form:?}");
            assert_eq!(house.origin.requests(), before + 1);
        }
    }
    assert_eq!(house.refused("replayed"), 5 * FORMS.len() as u64);
    Ok(())
}

#[tokio::test]
async fn a_body_is_good_once_across_a_restart_and_without_room_for_its_use_never() -> Result<()> {
    let house = House::new(|_| ()).await?;
    let app = house.apps()[0].clone();
    let form = Form::Jwe(Alg::Wrapped);
    let sent = app.seal(&Order::post(form, "/sealed/echo", b"{}"))?;
    assert_eq!(send(&mut house.edge.http1().await?, &sent).await?.0, 200);
    let mut site = house.edge.stop().await;
    for (max_entries, is_full) in [(1 << 16, false), (1, true)] {
        site.config.replay.max_entries = max_entries;
        let edge = site.start()?;
        let mut client = edge.http1().await?;
        let replayed = seen(&mut client, &sent).await?;
        // A set of one has one place in each of 64 parts.
        let mut outcomes = Vec::new();
        for _ in 0..if is_full { 200 } else { 1 } {
            let fresh = app.seal(&Order::post(form, "/sealed/echo", b"{}"))?;
            let response = within(client.send(fresh.request()?)).await??;
            outcomes.push(response.status().as_u16());
            if response.status() == 400 {
                assert_eq!(normal(response).await?, replayed, "full is refused as used is");
            } else {
                fresh.open(response).await?;
            }
        }
        assert_eq!(outcomes.contains(&400), is_full, "{outcomes:?}");
        let full = edge.metrics.payload.refused.with_label_values(&["app", "replay_full"]).get();
        assert_eq!(full > 0, is_full);
        site = edge.stop().await;
    }
    // Without a store nothing counts that may have been used before.
    site.config.replay = enforcer::config::Replay { max_entries: 1 << 16, store: None };
    let edge = site.start()?;
    let fresh = app.seal(&Order::post(form, "/sealed/echo", b"{}"))?;
    assert_eq!(send(&mut edge.http1().await?, &fresh).await?, refused());
    Ok(())
}
