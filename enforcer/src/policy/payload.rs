//! How bodies are encrypted on the routes that ask for it, and the keys for it: read from files, published while they are good.
//!
//! A key has an end that no reload has to bring about: which keys are good is decided at each use, by *editions*, the sets of keys between
//! one end and the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;

use super::faults::Faults;
use crate::{
    config::{self, PayloadKey},
    sealed::{Keys, keys::Private},
};

/// The most bytes of a key's file.
const MOST_BYTES: u64 = 16 << 10;
/// Bytes that a body has besides its content, at most: a header of JWE, a key, an IV, a tag.
const AROUND: u64 = 8 << 10;

/// One `[payload.NAME]` with its keys.
#[derive(Debug)]
pub struct Payload {
    /// As below `[payload]`.
    pub name: Box<str>,
    /// As configured.
    pub config: config::Payload,
    /// `Cache-Control` of the published keys.
    pub kept: HeaderValue,
    keys: Vec<Key>,
    editions: Vec<Edition>,
}

/// A key that is configured, whether or not it is good yet.
#[derive(Debug)]
struct Key {
    config: PayloadKey,
    private: Arc<Private>,
}

/// The keys that are good at one time.
#[derive(Debug)]
pub struct Edition {
    /// From then on, seconds since 1970.
    from: u64,
    /// All of them, the one that apps are to use first.
    pub keys: Keys,
    /// What is published of them: a JWK set.
    pub body: Bytes,
    /// Tells it from others.
    pub etag: HeaderValue,
}

impl Payload {
    /// Reads every key; of one that is bad, what was read before goes on where `faults` allow it.
    fn load(
        name: &str,
        config: &config::Payload,
        old: Option<&Arc<Self>>,
        faults: &mut Faults,
    ) -> Result<Arc<Self>> {
        let mut keys = Vec::with_capacity(config.keys.len());
        for (i, key) in config.keys.iter().enumerate() {
            let was = old.and_then(|old| old.keys.iter().find(|was| was.config.file == key.file));
            let read = read(&key.file).map(Arc::new).with_context(|| format!("keys[{i}].file"));
            let private = faults.or_kept(read, was.map(|was| Arc::clone(&was.private)))?;
            keys.push(Key { config: key.clone(), private });
        }
        faults.or_kept(Self::of(name, config, keys).map(Arc::new), old.cloned())
    }

    fn of(name: &str, config: &config::Payload, keys: Vec<Key>) -> Result<Self> {
        // A key without an end is the one to use of its curve; a second one would never be withdrawn.
        for (i, key) in keys.iter().enumerate() {
            let curve = key.private.public().curve();
            let before = keys.iter().take(i).position(|other| other.private.public().curve() == curve);
            if let Some(before) = before.filter(|_| key.config.until.is_none()) {
                bail!(
                    "keys[{i}] is of the same curve as keys[{before}], which apps are to use, and has no end: give it `until`"
                );
            }
        }
        let mut starts: BTreeSet<u64> = keys.iter().filter_map(|key| key.config.until).collect();
        starts.insert(0);
        let edition = |from: u64| -> Result<Edition> {
            let good = keys.iter().filter(|key| key.config.until.is_none_or(|until| until > from));
            let named = good.map(|key| {
                let id = key.config.id.clone().unwrap_or_else(|| key.private.public().thumbprint());
                (id, Arc::clone(&key.private))
            });
            let keys = Keys::new(named.collect()).map_err(|problem| anyhow!("keys: {problem}"))?;
            let body = keys.published().to_string();
            let tag = URL_SAFE_NO_PAD.encode(digest(&SHA256, body.as_bytes()));
            Ok(Edition {
                from,
                keys,
                body: Bytes::from(body),
                etag: HeaderValue::try_from(format!("\"{tag}\""))?,
            })
        };
        let editions = starts.into_iter().map(edition).collect::<Result<_>>()?;
        let kept = format!("public, max-age={}", config.keys_max_age.as_secs());
        Ok(Self { name: name.into(), config: config.clone(), kept: kept.try_into()?, keys, editions })
    }

    /// The keys that are good at a time, seconds since 1970.
    pub fn edition(&self, now: u64) -> Option<&Edition> {
        self.editions.iter().rev().find(|edition| edition.from <= now)
    }

    /// Bytes of a body that is encrypted, at most.
    pub fn most_encrypted(&self) -> u64 {
        // Base64 makes four bytes of three.
        self.config.max_body_bytes.div_ceil(3).saturating_mul(4).saturating_add(AROUND)
    }
}

impl super::Policy {
    /// How bodies are encrypted, by section.
    pub fn payloads(&self) -> impl Iterator<Item = &Arc<Payload>> {
        self.payloads.values()
    }
}

/// A private key from its file. No error shows what it holds.
pub fn read(path: &Path) -> Result<Private> {
    let bytes = || -> std::io::Result<Vec<u8>> {
        if std::fs::metadata(path)?.len() > MOST_BYTES {
            return Err(std::io::Error::other("it is too long to hold one key"));
        }
        std::fs::read(path)
    };
    let bytes = bytes().with_context(|| format!("cannot read the key {}", path.display()))?;
    Private::from_pem(&bytes).map_err(|problem| anyhow!("{}: {problem}", path.display()))
}

/// Reads every section.
pub(super) fn load(
    sections: &BTreeMap<String, config::Payload>,
    old: Option<&BTreeMap<String, Arc<Payload>>>,
    faults: &mut Faults,
) -> Result<BTreeMap<String, Arc<Payload>>> {
    let load = |(name, section): (&String, &config::Payload)| {
        let old = old.and_then(|old| old.get(name));
        let loaded =
            faults.at(|| format!("payload.{name}"), |faults| Payload::load(name, section, old, faults))?;
        Ok((name.clone(), loaded))
    };
    sections.iter().map(load).collect()
}

/// How bodies of a route are encrypted.
pub(super) fn of_route(
    route: &config::Route,
    payloads: &BTreeMap<String, Arc<Payload>>,
) -> Result<Option<Arc<Payload>>> {
    let Some(name) = &route.payload else { return Ok(None) };
    if !route.upgrade.is_empty() || route.early_data || route.oauth.is_some() {
        bail!("`payload` beside `upgrade`, `early_data` or `oauth`");
    }
    Ok(Some(Arc::clone(payloads.get(name).with_context(|| format!("no [payload.{name}]"))?)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{config::PayloadFormat, sealed::keys::Curve};

    fn key(curve: Curve, until: Option<u64>) -> Key {
        let config = PayloadKey { file: "key.pem".into(), id: None, until };
        Key { config, private: Arc::new(Private::generate(curve).unwrap()) }
    }

    fn payload(keys: Vec<Key>) -> Result<Payload> {
        let config = config::Payload {
            formats: vec![PayloadFormat::Jwe],
            keys: Vec::new(),
            keys_path: "/keys".to_owned(),
            keys_max_age: Duration::from_secs(300),
            max_body_bytes: 1_000,
            max_answer_bytes: 1_000,
            window: Duration::from_secs(120),
            clock_skew: Duration::from_secs(60),
            content_type: "application/json".to_owned(),
            plain: false,
        };
        Payload::of("app", &config, keys)
    }

    #[test]
    fn keys_are_good_and_published_until_their_end() {
        let keys = vec![
            key(Curve::P256, None),
            key(Curve::P256, Some(200)),
            key(Curve::X25519, None),
            key(Curve::P256, Some(100)),
        ];
        let ids: Vec<String> = keys.iter().map(|key| key.private.public().thumbprint()).collect();
        let payload = payload(keys).unwrap();
        for (now, good) in [
            (0, &[0, 1, 2, 3][..]),
            (99, &[0, 1, 2, 3]),
            (100, &[0, 1, 2]),
            (199, &[0, 1, 2]),
            (200, &[0, 2]),
            (u64::MAX, &[0, 2]),
        ] {
            let edition = payload.edition(now).unwrap();
            let published: serde_json::Value = serde_json::from_slice(&edition.body).unwrap();
            let published: Vec<&str> = published["keys"]
                .as_array()
                .unwrap()
                .iter()
                .map(|key| key["kid"].as_str().unwrap())
                .collect();
            let expected: Vec<&str> = good.iter().map(|i| ids[*i].as_str()).collect();
            assert_eq!(published, expected, "at {now}");
            for (i, id) in ids.iter().enumerate() {
                assert_eq!(edition.keys.find(id).is_ok(), good.contains(&i), "key {i} at {now}");
            }
        }
        assert_ne!(payload.edition(0).unwrap().etag, payload.edition(100).unwrap().etag);
    }

    #[test]
    fn a_second_key_of_a_curve_has_an_end() {
        let error = payload(vec![key(Curve::P256, None), key(Curve::X25519, None), key(Curve::P256, None)]);
        assert!(format!("{:#}", error.unwrap_err()).contains("keys[2] is of the same curve as keys[0]"));
        let twice = key(Curve::P256, None);
        let again = Key {
            config: PayloadKey { until: Some(9), ..twice.config.clone() },
            private: Arc::clone(&twice.private),
        };
        assert!(format!("{:#}", payload(vec![twice, again]).unwrap_err()).contains("two keys have the id"));
    }
}
