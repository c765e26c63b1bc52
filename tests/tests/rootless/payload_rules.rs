//! Encrypted bodies beside the other things that a route can ask for: signatures, documents, plain bodies, bounds of answers; and their
//! keys, which are published, changed under load and withdrawn.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use anyhow::Result;
use bytes::Bytes;
use enforcer::{
    clock::unix_now,
    config::PayloadKey,
    sealed::{hpke, jwe::Alg, keys::Curve},
};
use enforcer_tests::{
    edge::route,
    payload::{App, FORMS, Form, MOST, Order, section, write_key},
    signing::{Signable, Signer, content_digest},
    tokens::SigningKey,
};
use http::Request;
use http_body_util::{BodyExt as _, Empty, Full};
use serde_json::Value;

use super::{
    bodies::{eventually, within},
    payload::{House, refused, send},
    signers::{ALL, add, order, parameters},
};

const JWE: Form = Form::Jwe(Alg::Direct);

#[tokio::test]
async fn answers_that_cannot_be_encrypted_do_not_come_in_the_clear() -> Result<()> {
    let house = House::new(|_| ()).await?;
    for mut client in house.edge.clients().await? {
        for (form, curve) in FORMS {
            let app = house.app(curve);
            let most = format!("/sealed/produce/{MOST}");
            let sent = app.seal(&Order::bare(form, "GET", &most))?;
            let response = within(client.send(sent.request()?)).await??;
            assert_eq!(sent.open(response).await?.0.body.len() as u64, MOST, "{form:?}");
            let beyond = format!("/sealed/produce/{}", MOST + 1);
            let failed = |code: &str| (502, code.to_owned());
            let sent = app.seal(&Order::bare(form, "GET", &beyond))?;
            assert_eq!(send(&mut client, &sent).await?, failed("payload_answer"), "{form:?}");
            let coded = Order {
                kind: "application/x-www-form-urlencoded",
                ..Order::post(form, "/sealed/token", b"coding=gzip")
            };
            assert_eq!(send(&mut client, &app.seal(&coded)?).await?, failed("payload_answer"), "{form:?}");
            // What the gateway says itself is in the clear, and nobody takes it for the server's.
            let sent = app.seal(&Order::bare(form, "GET", "/sealed/break"))?;
            assert_eq!(send(&mut client, &sent).await?, failed("upstream_protocol"), "{form:?}");
        }
    }
    let answers = &house.edge.metrics.payload.answers;
    for result in ["encrypted", "too_large", "coded"] {
        assert_eq!(answers.with_label_values(&["app", result]).get(), 16, "{result}");
    }
    assert_eq!(house.edge.metrics.held_bytes.get(), 0, "what was held is given back");
    Ok(())
}

/// It is longer than what it was made of.
#[tokio::test]
async fn answers_have_room_for_what_is_encrypted_of_them() -> Result<()> {
    let house = House::new(|site| site.config.http.max_held_bytes = 6_000).await?;
    for mut client in house.edge.clients().await? {
        for form in [JWE, Form::Layout] {
            let app = house.app(Curve::P256);
            for (length, status) in [(5_000, 503), (1_000, 200)] {
                let path = format!("/sealed/produce/{length}");
                let sent = app.seal(&Order::bare(form, "GET", &path))?;
                let (found, said) = send(&mut client, &sent).await?;
                assert_eq!(found, status, "{form:?} {length}");
                assert_eq!(said == "overloaded", status == 503, "{form:?} {length}: {said}");
            }
        }
    }
    let refused = house.edge.metrics.payload.answers.with_label_values(&["app", "no_room"]).get();
    assert_eq!(refused, 4);
    eventually(|| house.edge.metrics.held_bytes.get() == 0).await
}

#[tokio::test]
async fn plain_bodies_pass_where_the_operator_says_so() -> Result<()> {
    let house = House::new(|site| {
        let app = site.config.payloads["app"].clone();
        let open = enforcer::config::Payload {
            plain: true,
            keys_path: "/keys".to_owned(),
            formats: vec![enforcer::config::PayloadFormat::Jwe],
            ..app
        };
        site.config.payloads.insert("open".to_owned(), open);
        let mut route = route("/open/", None, &[]);
        route.payload = Some("open".to_owned());
        site.config.routes.push(route);
    })
    .await?;
    let app = house.app(Curve::P256);
    for mut client in house.edge.clients().await? {
        let plain = Request::post("/open/echo").header("content-type", "application/json");
        let response = client.send(plain.body(Full::new(Bytes::from_static(b"{}")).boxed())?).await?;
        assert_eq!((response.status().as_u16(), response.headers().get("payload-key")), (200, None));
        assert_eq!(response.into_body().collect().await?.to_bytes(), "{}");
        let bare = client.send(Request::get("/open/what").body(Empty::new().boxed())?).await?;
        assert_eq!(bare.status(), 200);
        bare.into_body().collect().await?;
        // What is encrypted is opened there as well, and in the forms of the section alone.
        assert_eq!(
            send(&mut client, &app.seal(&Order::post(JWE, "/open/echo", b"{}"))?).await?,
            (200, "{}".to_owned())
        );
        for form in [Form::Hpke, Form::Layout] {
            assert_eq!(
                send(&mut client, &app.seal(&Order::post(form, "/open/echo", b"{}"))?).await?,
                refused()
            );
        }
        let mut changed = app.seal(&Order::post(JWE, "/open/echo", b"{}"))?;
        changed.body[0] = b'f';
        assert_eq!(send(&mut client, &changed).await?, refused());
    }
    Ok(())
}

/// A signature, and the digest that it covers, are of what was sent: whoever signs need not have the key of the encryption.
#[tokio::test]
async fn signatures_are_over_what_was_sent() -> Result<()> {
    let signer = Signer::Pair(SigningKey::p256("p256")?);
    let (secret, other) = (Signer::secret()?, Signer::Pair(SigningKey::ed25519("ed25519")?));
    let house = House::new(|site| {
        add(site, [("secret", &secret), ("p256", &signer), ("ed25519", &other)], None).unwrap();
        for route in &mut site.config.routes {
            if route.signature.is_some() {
                route.payload = Some("app".to_owned());
            }
        }
        for signature in site.config.signatures.values_mut() {
            signature.max_body_bytes = 10_000;
        }
    })
    .await?;
    let app = house.app(Curve::P256);
    for mut client in house.edge.clients().await? {
        for form in [JWE, Form::Hpke, Form::Layout] {
            let mut sent = app.seal(&Order::post(form, "/signed/echo", b"{\"n\":1}"))?;
            let mut request: Signable = order("/signed/echo");
            request.query = None;
            request.body.clone_from(&sent.body);
            request.set("content-digest", &content_digest(&sent.body));
            request.sign_message("sig", &ALL, &parameters("p256", unix_now()), &signer)?;
            for name in ["content-digest", "signature", "signature-input"] {
                sent.headers.push((name, request.headers[name].to_str()?.to_owned()));
            }
            let good = std::mem::take(&mut sent.body);
            sent.body = [&good[..], b"A"].concat();
            let before = house.origin.requests();
            assert_eq!(send(&mut client, &sent).await?, (400, "digest_mismatch".to_owned()), "{form:?}");
            assert_eq!(house.origin.requests(), before);
            // That one used the signature up.
            let mut again = order("/signed/echo");
            again.query = None;
            again.body.clone_from(&good);
            again.set("content-digest", &content_digest(&good));
            again.sign_message("sig", &ALL, &parameters("p256", unix_now()), &signer)?;
            for (name, value) in &mut sent.headers {
                if let Some(fresh) = again.headers.get(*name).filter(|_| *name != "content-type") {
                    fresh.to_str()?.clone_into(value);
                }
            }
            sent.body = good;
            assert_eq!(send(&mut client, &sent).await?, (200, "{\"n\":1}".to_owned()), "{form:?}");
        }
    }
    Ok(())
}

/// What was verified and is opened then has one room: it is not held twice for that.
#[tokio::test]
async fn a_signed_body_is_opened_in_the_room_that_it_has() -> Result<()> {
    let signer = Signer::Pair(SigningKey::p256("p256")?);
    let (secret, other) = (Signer::secret()?, Signer::Pair(SigningKey::ed25519("ed25519")?));
    let house = House::new(|site| {
        add(site, [("secret", &secret), ("p256", &signer), ("ed25519", &other)], None).unwrap();
        site.config.http.max_held_bytes = 36_000;
        for route in site.config.routes.iter_mut().filter(|route| route.signature.is_some()) {
            route.payload = Some("app".to_owned());
        }
        for signature in site.config.signatures.values_mut() {
            signature.max_body_bytes = 36_000;
        }
    })
    .await?;
    let app = house.app(Curve::P256);
    for mut client in house.edge.clients().await? {
        for form in [JWE, Form::Hpke, Form::Layout] {
            let mut sent = app.seal(&Order::post(form, "/signed/sink", &[b'x'; 20_000]))?;
            let mut request: Signable = order("/signed/sink");
            request.query = None;
            request.body.clone_from(&sent.body);
            request.set("content-digest", &content_digest(&sent.body));
            request.sign_message("sig", &ALL, &parameters("p256", unix_now()), &signer)?;
            for name in ["content-digest", "signature", "signature-input"] {
                sent.headers.push((name, request.headers[name].to_str()?.to_owned()));
            }
            assert_eq!(send(&mut client, &sent).await?, (200, "20000".to_owned()), "{form:?}");
            eventually(|| house.edge.metrics.held_bytes.get() == 0).await?;
        }
    }
    Ok(())
}

async fn published(house: &House, etag: Option<&str>) -> Result<(u16, http::HeaderMap, Value)> {
    let mut request = Request::get("/.well-known/enforcer/payload-keys");
    if let Some(etag) = etag {
        request = request.header("if-none-match", etag);
    }
    let response = house.edge.http2().await?.send(request.body(Empty::new().boxed())?).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok((head.status.as_u16(), head.headers, serde_json::from_slice(&body).unwrap_or_default()))
}

fn ids(set: &Value) -> Vec<&str> {
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn keys_are_published_and_may_be_kept() -> Result<()> {
    let house = House::new(|_| ()).await?;
    let (status, headers, set) = published(&house, None).await?;
    assert_eq!((status, headers["content-type"].to_str()?), (200, "application/jwk-set+json"));
    assert_eq!(headers["cache-control"], "public, max-age=300");
    assert_eq!(ids(&set), house.keys.each_ref().map(|key| key.thumbprint()));
    for key in set["keys"].as_array().unwrap() {
        assert!(key.get("d").is_none() && key["use"] == "enc", "{key}");
    }
    let etag = headers["etag"].to_str()?;
    assert_eq!(published(&house, Some(etag)).await?.0, 304);
    for mut client in house.edge.clients().await? {
        let path = "/.well-known/enforcer/payload-keys";
        let post = client.send(Request::post(path).body(Empty::new().boxed())?).await?;
        assert_eq!(
            (post.status().as_u16(), &post.headers()["allow"]),
            (405, &http::HeaderValue::from_static("GET, HEAD"))
        );
        post.into_body().collect().await?;
        let head = client.send(Request::head(path).body(Empty::new().boxed())?).await?;
        assert_eq!((head.status().as_u16(), &head.headers()["etag"]), (200, &headers["etag"]));
    }
    assert_eq!(house.origin.requests(), 0);
    Ok(())
}

/// Requests to the old key go on while another one takes its place, until it is withdrawn.
#[tokio::test]
async fn keys_change_under_load_with_an_overlap() -> Result<()> {
    let house = Arc::new(House::new(|_| ()).await?);
    let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = FORMS
        .into_iter()
        .map(|(form, curve)| {
            let (house, done, answered) = (Arc::clone(&house), Arc::clone(&done), Arc::clone(&answered));
            tokio::spawn(async move {
                let app = house.app(curve);
                let mut client = house.edge.http2().await?;
                while !done.load(SeqCst) {
                    let sent = app.seal(&Order::post(form, "/sealed/echo", b"{}"))?;
                    assert_eq!(send(&mut client, &sent).await?, (200, "{}".to_owned()), "{form:?}");
                    answered.fetch_add(1, SeqCst);
                }
                Ok::<_, anyhow::Error>(())
            })
        })
        .collect();
    let more = async |count: usize| {
        let before = answered.load(SeqCst);
        within(async {
            while answered.load(SeqCst) < before + count {
                tokio::task::yield_now().await;
            }
        })
        .await
    };
    more(20).await?;
    let file = |name: &str| house.edge.site.dir.path().join(name);
    let next = [
        write_key(&file("next-p256.pem"), Curve::P256)?,
        write_key(&file("next-x25519.pem"), Curve::X25519)?,
    ];
    let mut config = house.edge.site.config.clone();
    let old = config.payloads["app"].keys.clone();
    let keys = |until: Option<u64>| -> Vec<PayloadKey> {
        let next = ["next-p256.pem", "next-x25519.pem"].map(|name| PayloadKey {
            file: file(name),
            id: None,
            until: None,
        });
        next.into_iter().chain(old.iter().map(|old| PayloadKey { until, ..old.clone() })).collect()
    };
    for _ in 0..10 {
        config.payloads.insert("app".to_owned(), section(keys(Some(unix_now() + 3_600))));
        house.edge.policy.store(house.edge.policy.load().reload(&config)?.into());
        more(5).await?;
    }
    let (_, _, set) = published(&house, None).await?;
    let expected: Vec<String> = next.iter().chain(&house.keys).map(|key| key.thumbprint()).collect();
    assert_eq!(ids(&set), expected, "apps take the first of a curve");
    let mut client = house.edge.http1().await?;
    for server in &next {
        let sent = App::new(server).seal(&Order::post(JWE, "/sealed/echo", b"{}"))?;
        assert_eq!(send(&mut client, &sent).await?.0, 200);
    }
    done.store(true, SeqCst);
    for one in load {
        one.await??;
    }
    // The end has come.
    config.payloads.insert("app".to_owned(), section(keys(Some(unix_now()))));
    house.edge.policy.store(house.edge.policy.load().reload(&config)?.into());
    assert_eq!(ids(&published(&house, None).await?.2), next.each_ref().map(|key| key.thumbprint()));
    for (form, curve) in FORMS {
        let sent = house.app(curve).seal(&Order::post(form, "/sealed/echo", b"{}"))?;
        assert_eq!(send(&mut client, &sent).await?, refused(), "{form:?}");
    }
    assert_eq!(house.refused("unknown_key"), FORMS.len() as u64);
    for (server, opened) in next.iter().zip([1, 1]) {
        let labels = ["app", "jwe", &server.thumbprint()];
        assert_eq!(house.edge.metrics.payload.opened.with_label_values(&labels).get(), opened);
    }
    Ok(())
}

#[tokio::test]
async fn a_file_that_changes_is_taken_over_and_a_bad_one_holds_up_no_other() -> Result<()> {
    let house = House::new(|_| ()).await?;
    let config = &house.edge.site.config;
    let [p256, x25519] = ["p256.pem", "x25519.pem"].map(|name| house.edge.site.dir.path().join(name));
    for file in [&p256, &x25519] {
        assert!(config.files().contains(&file.as_path()), "looked at for changes");
    }
    let next = write_key(&x25519, Curve::X25519)?;
    std::fs::write(&p256, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n")?;
    let (renewed, bad) = house.edge.policy.load().renew(config)?;
    let bad: Vec<String> = bad.iter().map(|error| format!("{error:#}")).collect();
    assert!(
        bad.len() == 1 && bad[0].starts_with("payload.app: keys[0].file: ") && !bad[0].contains("c2Vj"),
        "{bad:?}"
    );
    house.edge.policy.store(renewed.into());
    let mut client = house.edge.http2().await?;
    for (server, is_good) in [(&house.keys[0], true), (&house.keys[1], false), (&next, true)] {
        let sent = App::new(server).seal(&Order::post(Form::Hpke, "/sealed/echo", b"{}"))?;
        assert_eq!(send(&mut client, &sent).await? == refused(), !is_good);
    }
    // Asked for, all of it is good or none.
    let error = house.edge.policy.load().reload(config).unwrap_err();
    assert!(format!("{error:#}").contains("keys[0].file"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn documents_are_judged_as_they_are_meant() -> Result<()> {
    let house = House::new(|site| {
        let graphql = "[[route]]\npath = \"/graph\"\nupstream = \"api\"\npublic = true\ngraphql = { kinds = [\"query\"] }\n";
        let base = include_str!("../../configs/valid/smallest.toml");
        let config = enforcer::config::parse(&format!("{base}\n{graphql}"), std::path::Path::new("x.toml"));
        let mut graph = config.unwrap().routes.pop().unwrap();
        graph.upstream = "api".to_owned();
        graph.payload = Some("app".to_owned());
        site.config.routes.push(graph);
    })
    .await?;
    let app = house.app(Curve::X25519);
    for mut client in house.edge.clients().await? {
        for (document, expected) in
            [("{\"query\":\"{ a }\"}", 200), ("{\"query\":\"mutation { a }\"}", 403), ("no document", 400)]
        {
            for form in [JWE, Form::Hpke, Form::Layout] {
                let sent = app.seal(&Order::post(form, "/graph", document.as_bytes()))?;
                assert_eq!(send(&mut client, &sent).await?.0, expected, "{form:?} {document}");
            }
        }
    }
    assert_eq!(hpke::ONCE, 16);
    Ok(())
}
