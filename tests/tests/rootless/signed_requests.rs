//! Signed requests from end to end: nothing unverified reaches the server, one signature is good once, also for two that race and
//! across a restart, and keys are read anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use bytes::Bytes;
use enforcer::clock::unix_now;
use enforcer_tests::{
    edge::{Client, Edge, Site},
    origin::Origin,
    signing::{Signable, Signer, nonce},
    tokens::SigningKey,
};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use super::{
    bodies::{Unannounced, within},
    signers::{ALL, add, order, parameters},
};

struct House {
    edge: Edge,
    origin: Origin,
    secret: Signer,
    p256: Signer,
}

impl House {
    async fn new() -> Result<Self> {
        let origin = Origin::start().await?;
        let mut site = Site::new(origin.address)?;
        let (secret, p256) = (Signer::secret()?, Signer::Pair(SigningKey::p256("p256")?));
        let ed25519 = Signer::Pair(SigningKey::ed25519("ed25519")?);
        add(&mut site, [("secret", &secret), ("p256", &p256), ("ed25519", &ed25519)], None)?;
        site.config.replay.store = Some(site.dir.path().join("replay.redb"));
        Ok(Self { edge: site.start()?, origin, secret, p256 })
    }

    /// A signed order to `/signed/echo` or `/lines/echo`.
    fn order(&self, way: &str) -> Result<Signable> {
        let mut request = order(&format!("/{way}/echo"));
        match (way, &self.secret) {
            ("lines", Signer::Secret(secret)) => request.sign_lines("secret", secret, unix_now(), &nonce()),
            _ => request.sign_message("sig", &ALL, &parameters("p256", unix_now()), &self.p256)?,
        }
        Ok(request)
    }
}

/// Sends it; status, and the code of a refusal or else the body that came back.
async fn send(client: &mut Client, request: &Signable, announced: bool) -> Result<(u16, String)> {
    let mut builder = Request::builder().method(request.method).uri(request.target());
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    let body = Full::new(Bytes::from(request.body.clone()));
    let body = if announced { body.boxed() } else { Unannounced(body).boxed() };
    let response = within(client.send(builder.body(body)?)).await??;
    let status = response.status().as_u16();
    let text = String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?;
    let code =
        serde_json::from_str::<Value>(&text).ok().and_then(|said| said["code"].as_str().map(str::to_owned));
    Ok((status, code.unwrap_or(text)))
}

fn said(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[tokio::test]
async fn nothing_unverified_reaches_the_server() -> Result<()> {
    let house = House::new().await?;
    for way in ["signed", "lines"] {
        for announced in [true, false] {
            for mut client in house.edge.clients().await? {
                let before = house.origin.requests();
                let mut changed = house.order(way)?;
                changed.body = b"{\"n\":2}".to_vec();
                assert_eq!(send(&mut client, &changed, announced).await?, said(400, "digest_mismatch"));
                let mut long = house.order(way)?;
                long.body = vec![b'x'; 1_001];
                assert_eq!(send(&mut client, &long, announced).await?, said(413, "body_too_large"));
                let mut moved = house.order(way)?;
                moved.query = Some("a=1&b=3".to_owned());
                assert_eq!(send(&mut client, &moved, announced).await?, said(401, "signature_bad"));
                let plain = order(&format!("/{way}/echo"));
                assert_eq!(send(&mut client, &plain, announced).await?, said(401, "signature_missing"));
                assert_eq!(house.origin.requests(), before, "{way}");
                let good = house.order(way)?;
                assert_eq!(send(&mut client, &good, announced).await?, said(200, "{\"n\":1}"), "{way}");
                assert_eq!(house.origin.requests(), before + 1);
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn of_two_that_race_with_one_signature_one_gets_through() -> Result<()> {
    let house = House::new().await?;
    for way in ["signed", "lines"] {
        for round in 0..10 {
            let request = house.order(way)?;
            let [mut one, mut two] = house.edge.clients().await?;
            let before = house.origin.requests();
            let (one, two) =
                tokio::join!(send(&mut one, &request, true), send(&mut two, &request, round % 2 == 0));
            let mut outcomes = [one?, two?];
            outcomes.sort();
            assert_eq!(outcomes, [said(200, "{\"n\":1}"), said(401, "signature_replayed")], "{way}");
            assert_eq!(house.origin.requests(), before + 1);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_signature_is_good_once_across_a_restart_and_a_crash() -> Result<()> {
    let house = House::new().await?;
    let request = house.order("signed")?;
    assert_eq!(send(&mut house.edge.http1().await?, &request, true).await?.0, 200);
    let store = house.edge.site.config.replay.store.clone().unwrap();
    // What a crash at this moment would leave.
    let crashed = store.with_file_name("crashed.redb");
    std::fs::copy(&store, &crashed)?;
    let mut site = house.edge.stop().await;
    for store in [store, crashed] {
        site.config.replay.store = Some(store);
        let edge = site.start()?;
        let outcome = send(&mut edge.http1().await?, &request, true).await?;
        assert_eq!(outcome, said(401, "signature_replayed"));
        let mut fresh = order("/signed/echo");
        fresh.sign_message("sig", &ALL, &parameters("p256", unix_now()), &house.p256)?;
        assert_eq!(send(&mut edge.http1().await?, &fresh, true).await?.0, 200);
        site = edge.stop().await;
    }
    // Without a store nothing counts that may have been used before.
    site.config.replay.store = None;
    let edge = site.start()?;
    let mut fresh = order("/signed/echo");
    fresh.sign_message("sig", &ALL, &parameters("p256", unix_now()), &house.p256)?;
    assert_eq!(send(&mut edge.http1().await?, &fresh, true).await?, said(401, "signature_stale"));
    Ok(())
}

#[tokio::test]
async fn keys_are_read_anew_and_old_ones_end() -> Result<()> {
    let house = House::new().await?;
    let edge = &house.edge;
    let file = edge.site.config.signatures["signed"].keys["p256"].clone();
    let early = house.order("signed")?;
    let next = Signer::Pair(SigningKey::p256("p256")?);
    std::fs::write(&file, next.file()?)?;
    assert!(edge.site.config.files().contains(&file.as_path()), "looked at for changes");
    edge.policy.store(edge.policy.load().reload(&edge.site.config)?.into());
    let mut client = edge.http1().await?;
    assert_eq!(send(&mut client, &early, true).await?, said(401, "signature_bad"));
    let mut request = order("/signed/echo");
    request.sign_message("sig", &ALL, &parameters("p256", unix_now()), &next)?;
    assert_eq!(send(&mut client, &request, true).await?.0, 200);
    assert_eq!(send(&mut client, &request, true).await?, said(401, "signature_replayed"));
    edge.policy.store(edge.policy.load().reload(&edge.site.config)?.into());
    assert_eq!(send(&mut client, &request, true).await?, said(401, "signature_replayed"), "after a reload");
    for (text, says) in [
        ("c2hvcnQ=", "neither the base64 of 32 to 1024 bytes nor PEM"),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no public key"),
    ] {
        std::fs::write(&file, text)?;
        let error = format!("{:#}", edge.policy.load().reload(&edge.site.config).unwrap_err());
        assert!(error.contains(says) && error.contains("signature.signed: key p256"), "{error}");
    }
    Ok(())
}
