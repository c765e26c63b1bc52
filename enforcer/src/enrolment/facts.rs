//! What servers are told of the device that a request comes from: a short-lived JWT (RFC 7519) by ES256, so that a server can tell
//! what comes from here from what somebody else put in its way. The public key is published as a JWK set (RFC 7517).

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use serde_json::json;

use super::{DeviceId, Standing, device::Point};
use crate::random;

/// The most bytes of a key's file.
const MOST_BYTES: u64 = 16 << 10;

/// A key to sign with.
struct Key {
    pair: EcdsaKeyPair,
    /// The header of everything that is signed with it, as it is sent.
    header: String,
    /// Its public part as a JWK.
    jwk: serde_json::Value,
    is_own: bool,
}

/// What signs facts.
pub struct Facts {
    key: Arc<Key>,
    /// The JWK set: its public part, and those of the keys before and after it.
    published: Arc<str>,
    issuer: String,
    /// `aud` of everything; `None`: whatever is told with the facts.
    audience: Option<String>,
    lifetime: u64,
}

impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

/// What is told.
#[derive(Debug)]
pub struct Told<'a> {
    /// Of which device.
    pub device: DeviceId,
    /// What it is.
    pub standing: &'a Standing,
    /// Seconds since it showed that.
    pub age: u64,
    /// Whether its risk metric is above what its route takes, and the route takes it nevertheless.
    pub over_risk: bool,
    /// What Google Play says of it, where the route asks.
    pub play: Option<Said>,
    /// What speaks for somebody in the middle of its connection, 0 to 100, and by which signals; `None`: nobody looked.
    pub suspicion: Option<(u8, Vec<&'static str>)>,
    /// Whom: the upstream's name.
    pub upstream: &'a str,
}

/// What Google Play has said of a device, seconds ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Of this very request.
    Fresh,
    /// Of one before, which the route takes for this one, too.
    Recent(u64),
    /// The same, because Google cannot be asked now.
    Cached(u64),
    /// Nothing: Google cannot be asked now, and the route lets such requests pass.
    Unavailable,
}

impl Said {
    /// As servers are told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Recent(_) => "recent",
            Self::Cached(_) => "cached",
            Self::Unavailable => "unavailable",
        }
    }

    const fn age(self) -> Option<u64> {
        match self {
            Self::Fresh => Some(0),
            Self::Recent(age) | Self::Cached(age) => Some(age),
            Self::Unavailable => None,
        }
    }
}

/// How facts are signed.
#[derive(Clone, Copy, Debug)]
pub struct Signing<'a> {
    /// The file with the key (PKCS#8 or SEC1 in PEM form, P-256); `None`: one that nobody else has, which a reload keeps.
    pub key: Option<&'a Path>,
    /// Files with keys that are published beside it.
    pub previous: &'a [PathBuf],
    /// `iss`.
    pub issuer: &'a str,
    /// `aud`; `None`: the name of the upstream.
    pub audience: Option<&'a str>,
    /// How long they are good, in seconds.
    pub lifetime: u64,
}

impl Facts {
    /// With the key of a file, or one that is drawn here.
    pub fn load(signing: Signing<'_>, old: Option<&Self>) -> Result<Self> {
        let key = match (signing.key, old) {
            (Some(path), _) => Arc::new(Key::read(path)?),
            (None, Some(old)) if old.key.is_own => Arc::clone(&old.key),
            (None, _) => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
                    .map_err(|_| anyhow!("no randomness for the key of facts"))?;
                Arc::new(Key::new(pair, true)?)
            }
        };
        let mut keys = vec![key.jwk.clone()];
        for path in signing.previous {
            let jwk = Key::read(path)?.jwk;
            // A key that is named twice is published once: sets with two keys of one name are refused.
            if !keys.contains(&jwk) {
                keys.push(jwk);
            }
        }
        Ok(Self {
            key,
            published: json!({ "keys": keys }).to_string().into(),
            issuer: signing.issuer.to_owned(),
            audience: signing.audience.map(str::to_owned),
            lifetime: signing.lifetime,
        })
    }

    /// Whether a file holds such a key.
    pub fn check(path: &Path) -> Result<()> {
        Key::read(path).map(drop)
    }

    /// The JWK set.
    pub fn published(&self) -> &Arc<str> {
        &self.published
    }

    /// The value of the field that servers get; `None` if it cannot be signed. No two have one `jti`.
    pub fn sign(&self, told: &Told<'_>, now: u64) -> Option<HeaderValue> {
        let Standing { platform, level, origin, risk } = told.standing;
        let mut claims = json!({
            "iss": self.issuer,
            "sub": told.device.to_string(),
            "aud": self.audience.as_deref().unwrap_or(told.upstream),
            "jti": URL_SAFE_NO_PAD.encode(random::bytes::<16>()?),
            "iat": now,
            "exp": now.saturating_add(self.lifetime),
            "platform": platform.name(),
            "level": level.name(),
            "age": told.age,
        });
        if let Some((provider, environment, app)) = origin {
            claims["provider"] = provider.name().into();
            claims["environment"] = environment.name().into();
            claims["app"] = (**app).into();
        }
        if let Some((score, signals)) = &told.suspicion {
            claims["suspicion"] = json!({ "score": score, "signals": signals });
        }
        if let Some(risk) = risk {
            claims["risk"] = (*risk).into();
        }
        if told.over_risk {
            claims["over_risk"] = true.into();
        }
        if let Some(said) = told.play {
            claims["play"] = json!({ "verdict": said.name() });
            if let Some(age) = said.age() {
                claims["play"]["age"] = age.into();
            }
        }
        let mut text = format!("{}.{}", self.key.header, URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.pair.sign(&SystemRandom::new(), text.as_bytes()).ok()?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        HeaderValue::try_from(text).ok()
    }
}

impl Key {
    fn read(path: &Path) -> Result<Self> {
        let context = || format!("cannot read the key {}", path.display());
        let length = std::fs::metadata(path).with_context(context)?.len();
        if length > MOST_BYTES {
            return Err(anyhow!("it is too long to hold one key")).with_context(context);
        }
        let key = PrivateKeyDer::from_pem_file(path).with_context(context)?;
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        #[allow(clippy::wildcard_enum_match_arm, reason = "kinds of keys are open-ended")]
        let pair = match &key {
            PrivateKeyDer::Pkcs8(key) => EcdsaKeyPair::from_pkcs8(algorithm, key.secret_pkcs8_der()).ok(),
            PrivateKeyDer::Sec1(key) => {
                EcdsaKeyPair::from_private_key_der(algorithm, key.secret_sec1_der()).ok()
            }
            _ => None,
        };
        let pair = pair.ok_or_else(|| anyhow!("holds no private key of P-256")).with_context(context)?;
        Self::new(pair, false)
    }

    fn new(pair: EcdsaKeyPair, is_own: bool) -> Result<Self> {
        // Uncompressed (SEC 1 section 2.3.3).
        let point: [u8; 65] =
            pair.public_key().as_ref().try_into().context("a point of P-256 has 65 bytes")?;
        let [_, coordinates @ ..] = point;
        let (x, y) = coordinates.split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let kid = URL_SAFE_NO_PAD.encode(Point(point).thumbprint());
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": kid, "alg": "ES256", "use": "sig",
        });
        let header = json!({ "alg": "ES256", "kid": kid, "typ": "JWT" }).to_string();
        Ok(Self { pair, header: URL_SAFE_NO_PAD.encode(header), jwk, is_own })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Environment, Level, Platform, TokenAlgorithm},
        enrolment::Provider,
        policy::jwks,
    };
    use serde_json::Value;

    const NOW: u64 = 1_800_000_000;

    fn told(standing: &Standing) -> Told<'_> {
        let over_risk = standing.risk > Some(9);
        Told {
            device: DeviceId::of_key(b"key"),
            standing,
            age: 7,
            over_risk,
            play: None,
            suspicion: None,
            upstream: "api",
        }
    }

    fn signing() -> Signing<'static> {
        Signing { key: None, previous: &[], issuer: "enforcer", audience: None, lifetime: 60 }
    }

    fn json(part: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn servers_can_verify_what_they_are_told_by_what_is_published() {
        let facts = Facts::load(signing(), None).unwrap();
        let origin = Some((Provider::AppAttest, Environment::Production, "ABCDE12345.com.example".into()));
        let standing = Standing { platform: Platform::Ios, level: Level::Strong, origin, risk: Some(9) };
        let text = facts.sign(&told(&standing), NOW).unwrap();
        let text = text.to_str().unwrap();
        let [header, claims, signature] = text.split('.').collect::<Vec<_>>()[..] else { panic!("{text}") };
        let set: Value = serde_json::from_str(facts.published()).unwrap();
        assert_eq!(json(header)["kid"], set["keys"][0]["kid"]);
        let (key, thumbprint) = jwks::of_proof(
            &json!({ "kty": "EC", "crv": "P-256", "x": set["keys"][0]["x"], "y": set["keys"][0]["y"] }),
            TokenAlgorithm::Es256,
        )
        .unwrap();
        assert_eq!(json(header)["kid"], thumbprint.as_ref() as &str);
        let good = |signed: &str| {
            jsonwebtoken::crypto::verify(
                signature,
                signed.as_bytes(),
                &key.key,
                jsonwebtoken::Algorithm::ES256,
            )
            .unwrap_or(false)
        };
        assert!(good(&format!("{header}.{claims}")) && !good(&format!("{header}.{claims}x")));
        let jti = json(claims)["jti"].clone();
        assert_eq!(URL_SAFE_NO_PAD.decode(jti.as_str().unwrap()).unwrap().len(), 16);
        assert_eq!(
            json(claims),
            json!({
                "iss": "enforcer", "sub": DeviceId::of_key(b"key").to_string(), "iat": NOW, "exp": NOW + 60,
                "aud": "api", "jti": jti,
                "platform": "ios", "level": "strong", "age": 7, "provider": "app-attest",
                "environment": "production", "app": "ABCDE12345.com.example", "risk": 9,
            })
        );
        let again = facts.sign(&told(&standing), NOW).unwrap();
        assert_ne!(json(again.to_str().unwrap().split('.').nth(1).unwrap())["jti"], jti, "each has its own");
        let risky = facts.sign(&told(&Standing { risk: Some(10), ..standing }), NOW).unwrap();
        let claims = json(risky.to_str().unwrap().split('.').nth(1).unwrap());
        assert_eq!((&claims["risk"], &claims["over_risk"]), (&json!(10), &json!(true)));
        let reloaded = Facts::load(Signing { issuer: "other", ..signing() }, Some(&facts)).unwrap();
        assert_eq!(reloaded.published(), facts.published(), "a reload keeps the key");
        let restarted = Facts::load(signing(), None).unwrap();
        assert_ne!(restarted.published(), facts.published());
    }

    #[test]
    fn keys_are_published_before_and_after_they_sign() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
            std::fs::write(&path, key.serialize_pem()).unwrap();
            path
        };
        let (old, new) = (file("old.pem"), file("new.pem"));
        let load = |key: &Path, previous: &[PathBuf]| {
            let signing = Signing { key: Some(key), previous, audience: Some("shop"), ..signing() };
            Facts::load(signing, None).unwrap()
        };
        let kids = |facts: &Facts| -> Vec<Value> {
            let set: Value = serde_json::from_str(facts.published()).unwrap();
            set["keys"].as_array().unwrap().iter().map(|key| key["kid"].clone()).collect()
        };
        let standing = Standing { platform: Platform::Ios, level: Level::Strong, origin: None, risk: None };
        let signed = |facts: &Facts| {
            let text = facts.sign(&told(&standing), NOW).unwrap();
            let (header, rest) = text.to_str().unwrap().split_once('.').unwrap();
            assert_eq!(json(rest.split_once('.').unwrap().0)["aud"], "shop", "whatever the upstream");
            json(header)["kid"].clone()
        };
        // Published, changed over, withdrawn: at each step servers that have the set of the step before know the key that signs.
        let others = [new.clone(), old.clone()];
        let (before, after) = (load(&old, &others), load(&new, &others));
        assert_eq!((kids(&before).len(), signed(&before)), (2, kids(&before)[0].clone()));
        assert_eq!(signed(&after), kids(&before)[1]);
        assert!(kids(&after).contains(&signed(&before)));
        assert_eq!(kids(&load(&new, &[])), [signed(&after)]);
        let missing = [folder.path().join("nothing")];
        assert!(Facts::load(Signing { previous: &missing, ..signing() }, None).is_err());
    }
}
