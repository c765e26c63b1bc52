//! Tokens that are bound to a client certificate (RFC 8705 section 3).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use enforcer::{
    checks::facts::{Client, ClientAddr, Identity},
    config::{Binding, Clients},
    denial::Denial,
};
use enforcer_tests::{
    edge::{AUDIENCE, ISSUER, Site},
    origin::Origin,
    pki::Authority,
    tls::{Setup, exchange_with},
    tokens::{claims, encode},
};
use http::HeaderMap;
use rustls::HandshakeKind;
use serde_json::{Value, json};

use super::{
    admit::NOW,
    till::{Till, ask, thumbprint},
};

#[test]
fn mtls_a_bound_token_needs_its_certificate() -> Result<()> {
    let till = Till::with(|site| {
        let mut strict = site.config.routes[1].clone();
        strict.path = "/strict/".to_owned();
        strict.bindings.certificate = Binding::Required;
        site.config.routes.push(strict);
    })?;
    let own = encode(digest(&SHA256, b"a certificate").as_ref());
    let other = encode(digest(&SHA256, b"another one").as_ref());
    let mint = |cnf: Value| till.desk.ec.mint(&till.desk.claims_but("cnf", cnf));
    let bound = mint(json!({"x5t#S256": own}))?;
    let plain = till.desk.ec.mint(&till.desk.claims())?;
    let judge = |path: &str, token: &str, shown: Option<&str>| {
        let mut client = Client::at(ClientAddr::new("192.0.2.7".parse().unwrap()));
        client.identity = shown.map(|thumbprint| {
            Box::new(Identity {
                thumbprint: thumbprint.into(),
                subject: "CN=phone".into(),
                names: Box::default(),
            })
        });
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        // What a field says of a certificate is nobody's proof.
        headers.insert("x-client-cert", own.parse().unwrap());
        headers.insert("client-cert", ":AAAA:".parse().unwrap());
        ask(&till.desk.policy, &client, path, &headers, NOW).err().map(|refusal| refusal.denial)
    };
    for path in ["/api/x", "/strict/x"] {
        assert_eq!(judge(path, &bound, Some(&own)), None, "{path}");
        assert_eq!(judge(path, &bound, None), Some(Denial::CertificateMissing), "{path}");
        assert_eq!(judge(path, &bound, Some(&other)), Some(Denial::CertificateMismatch), "{path}");
    }
    assert_eq!(judge("/api/x", &plain, None), None);
    assert_eq!(judge("/strict/x", &plain, Some(&own)), Some(Denial::CertificateUnbound));
    for (cnf, denial) in [
        (json!({}), Denial::TokenConfirmation),
        (json!({"kid": "x"}), Denial::TokenConfirmation),
        (json!({"jwk": till.key.jwk()}), Denial::TokenConfirmation),
        (json!("x"), Denial::TokenClaims),
        (json!({"x5t#S256": 1}), Denial::TokenClaims),
        (json!({"x5t#S256": ""}), Denial::TokenClaims),
        (json!({"x5t#S256": format!("{own}=")}), Denial::TokenClaims),
        (json!({"jkt": "short"}), Denial::TokenClaims),
    ] {
        assert_eq!(judge("/api/x", &mint(cnf.clone())?, Some(&own)), Some(denial), "{cnf}");
    }
    // Both: the certificate alone is not enough.
    let both = mint(json!({"x5t#S256": own, "jkt": thumbprint(&till.key)}))?;
    assert_eq!(judge("/api/x", &both, Some(&own)), Some(Denial::DpopMissing));
    assert_eq!(judge("/api/x", &both, None), Some(Denial::CertificateMissing));
    Ok(())
}

#[tokio::test]
async fn mtls_a_bound_token_is_held_to_its_connection_and_its_resumption() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let authority = Authority::new("Devices")?;
    let roots = site.dir.path().join("devices.pem");
    std::fs::write(&roots, authority.pem())?;
    site.config.listeners[0].clients =
        Some(Clients { required: false, authorities: roots, crls: Vec::new() });
    let (phone, other) = (authority.issue_client("phone")?, authority.issue_client("other")?);
    let own = encode(digest(&SHA256, &phone.certificate).as_ref());
    let mut claims = claims(ISSUER, AUDIENCE, "read", enforcer::clock::unix_now());
    claims["cnf"] = json!({"x5t#S256": own});
    let token = site.key.mint(&claims)?;
    let edge = site.start()?;
    for old in [false, true] {
        for (identity, status) in [(Some(&phone), 200), (Some(&other), 401), (None, 401)] {
            let client = Setup { identity, old, ..Setup::default() }.client(&edge)?;
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let got = exchange_with(&edge, &client, "/api/x", &token).await?;
                assert_eq!(got, (kind, status), "old: {old}");
            }
        }
    }
    Ok(())
}
