//! Clients that sign, and a policy that judges them; for the tests of signed requests.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::{
    checks::{
        Now, admit,
        facts::{Client, ClientAddr, RequestFacts, Target},
        signature,
        token::KnownTokens,
    },
    clock::KernelTime,
    config::{self, SignatureScheme},
    denial::Denial,
    policy::Policy,
};
use enforcer_tests::{
    edge::{NAME, Site, route},
    signing::{Signable, Signer, content_digest, nonce},
    tokens::SigningKey,
};
use http::{HeaderMap, Method};

use super::admit::NOW;

/// Clients, and the policy that knows their keys.
pub(super) struct Clients {
    policy: Policy,
    pub(super) secret: Signer,
    pub(super) p256: Signer,
    pub(super) ed25519: Signer,
}

/// Makes routes `/signed/` (RFC 9421) and `/lines/` (HMAC), public but for that.
pub(super) fn add(site: &mut Site, signers: [(&str, &Signer); 3], tag: Option<&str>) -> Result<()> {
    let mut keys = std::collections::BTreeMap::new();
    for (id, signer) in signers {
        let path = site.dir.path().join(format!("{id}.key"));
        std::fs::write(&path, signer.file()?)?;
        keys.insert(id.to_owned(), path);
    }
    let secret = keys.iter().filter(|(id, _)| *id == "secret").map(|(id, path)| (id.clone(), path.clone()));
    let message = config::Signature {
        scheme: SignatureScheme::Message,
        keys: keys.clone(),
        window: std::time::Duration::from_secs(300),
        max_body_bytes: 1_000,
        components: ["@method", "@authority", "@path", "@query"].map(str::to_owned).to_vec(),
        tag: tag.map(str::to_owned),
    };
    let lines = config::Signature {
        scheme: SignatureScheme::Hmac,
        keys: secret.collect(),
        tag: None,
        ..message.clone()
    };
    for (name, signature) in [("signed", message), ("lines", lines)] {
        site.config.signatures.insert(name.to_owned(), signature);
        let mut route = route(&format!("/{name}/"), None, &[]);
        route.signature = Some(name.to_owned());
        site.config.routes.push(route);
    }
    Ok(())
}

impl Clients {
    pub(super) fn new(tag: Option<&str>) -> Result<Self> {
        let (secret, p256) = (Signer::secret()?, Signer::Pair(SigningKey::p256("p256")?));
        Self::of(tag, secret, p256, Signer::Pair(SigningKey::ed25519("ed25519")?))
    }

    /// Clients that are these.
    pub(super) fn of(tag: Option<&str>, secret: Signer, p256: Signer, ed25519: Signer) -> Result<Self> {
        let mut site = Site::new("127.0.0.1:9".parse()?)?;
        add(&mut site, [("secret", &secret), ("p256", &p256), ("ed25519", &ed25519)], tag)?;
        // It began long ago, so that nothing of before is in doubt.
        let policy = Policy::load_at(&site.config, NOW - 86_400)?;
        Ok(Self { policy, secret, p256, ed25519 })
    }

    pub(super) fn secret(&self) -> &[u8] {
        let Signer::Secret(secret) = &self.secret else { unreachable!() };
        secret
    }

    /// What becomes of a request, with its body.
    pub(super) async fn judge(&self, request: &Signable) -> Option<Denial> {
        let client = Client::at(ClientAddr::new("192.0.2.7".parse().unwrap()));
        let method: Method = request.method.parse().unwrap();
        let facts = RequestFacts {
            client: &client,
            address: client.address,
            method: &method,
            path: request.path.as_str().into(),
            named: Some(NAME),
            authority: Some(&request.authority),
            target: Target { path: &request.path, query: request.query.as_deref() },
            headers: &request.headers,
            is_early: false,
            is_banned: false,
            upgrades: false,
        };
        let now = Now { monotonic: KernelTime(NOW), unix: NOW };
        let mut grant = match admit(&self.policy, &facts, now, &mut KnownTokens::new(0)) {
            Ok(grant) => grant,
            Err(refusal) => return Some(refusal.denial),
        };
        assert!(grant.upstream().is_none(), "nowhere before its body was verified");
        let signers = grant.route().signers.clone().unwrap();
        if request.body.len() as u64 > signature::most(&grant, &signers) {
            return Some(signature::beyond(&grant));
        }
        let outcome = signature::body(&mut grant, &request.body).await;
        assert_eq!(outcome.is_ok(), grant.upstream().is_some());
        outcome.err().map(|refusal| refusal.denial)
    }
}

/// A request that is not signed yet.
pub(super) fn order(path: &str) -> Signable {
    let mut request = Signable {
        method: "POST",
        authority: NAME.to_owned(),
        path: path.to_owned(),
        query: Some("a=1&b=2".to_owned()),
        headers: HeaderMap::new(),
        body: b"{\"n\":1}".to_vec(),
    };
    request.set("content-digest", &content_digest(b"{\"n\":1}"));
    request
}

/// What has to be covered, and the body.
pub(super) const ALL: [&str; 5] =
    [r#""@method""#, r#""@authority""#, r#""@path""#, r#""@query""#, r#""content-digest""#];

/// The parameters of a good signature.
pub(super) fn parameters(key: &str, at: u64) -> String {
    format!(";created={at};keyid=\"{key}\";nonce=\"{}\"", nonce())
}

/// Judges every case, and tells of all that are wrong.
pub(super) async fn all(clients: &Clients, cases: Vec<(&str, Signable, Option<Denial>)>) {
    let mut wrong = Vec::new();
    for (name, request, expected) in cases {
        let got = clients.judge(&request).await;
        if got != expected {
            wrong.push(format!("{name}: expected {expected:?}, got {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
