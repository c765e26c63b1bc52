//! The pin document as it is served: signed once, and again when half of its time is over.
//!
//! Time is cut into slots of half a lifetime, and a document says that it was made at the beginning of its slot. So it depends on the
//! configuration and the clock alone: nodes that have the same configuration tell the same, and so does one before and after a start.

mod memory;

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderValue;

use super::Set;
use crate::{
    config::PinDocument,
    pins::document::{Entry, Signer, Told},
    policy::tls,
};

/// Seconds for which caches may keep it at most, so that a new one is seen soon.
const FRESH: u64 = 3_600;

/// What apps are told of pins.
#[derive(Debug)]
pub struct Document {
    /// Where it is served.
    pub path: String,
    signer: Signer,
    version: u64,
    lifetime: u64,
    entries: Vec<Entry>,
    signed: ArcSwap<Signed>,
}

/// One document, as it goes out.
#[derive(Debug)]
pub struct Signed {
    /// A JWS in compact form.
    pub body: Bytes,
    /// `ETag`: a hash of what is signed. A weak one, since each signature is another one.
    pub etag: HeaderValue,
    /// `Cache-Control`.
    pub kept: HeaderValue,
    /// When its slot began, seconds since 1970.
    slot: u64,
}

impl Document {
    /// Of `sets`, signed at `now`. What did not change goes on as it is; what changed needs a larger version, since apps take no older
    /// document than they have.
    pub(in crate::policy) fn load(
        config: &PinDocument,
        sets: &[Set],
        now: u64,
        old: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>> {
        let key = tls::private_key(&config.key)?;
        let signer = Signer::new(&key)
            .with_context(|| format!("{} holds no private key of P-256", config.key.display()))?;
        let entry = |set: &Set| Entry {
            hosts: set.hosts.iter().map(ToString::to_string).collect(),
            pins: set.pins.iter().map(Told::from).collect(),
        };
        let entries: Vec<Entry> = sets.iter().map(entry).collect();
        let (path, version, lifetime) = (config.path.clone(), config.version, config.lifetime.as_secs());
        if let Some(old) = old {
            let is_same = entries == old.entries;
            if version < old.version || (version == old.version && !is_same) {
                bail!(
                    "pins.document.version: the pins are others than those of version {}, and apps take no other document of version {version}: write {} or more",
                    old.version,
                    old.version + 1
                );
            }
            let kept = (&old.path, old.version, old.lifetime, old.signer.id());
            if is_same && kept == (&path, version, lifetime, signer.id()) {
                return Ok(Arc::clone(old));
            }
        }
        let signed = sign(&signer, version, &entries, now, lifetime).context("cannot sign")?;
        Ok(Arc::new(Self { path, signer, version, lifetime, entries, signed: ArcSwap::from_pointee(signed) }))
    }

    /// One that holds for half of its lifetime yet, at least; if none can be signed, the last one.
    pub fn current(&self, now: u64) -> Arc<Signed> {
        let last = self.signed.load_full();
        if last.slot == slot(now, self.lifetime) {
            return last;
        }
        match sign(&self.signer, self.version, &self.entries, now, self.lifetime) {
            Some(signed) => {
                let signed = Arc::new(signed);
                // Of two workers that sign at once the last one stays; both documents are good.
                self.signed.store(Arc::clone(&signed));
                signed
            }
            None => last,
        }
    }
}

fn sign(signer: &Signer, version: u64, entries: &[Entry], now: u64, lifetime: u64) -> Option<Signed> {
    let slot = slot(now, lifetime);
    let body = signer.sign(version, entries, slot, lifetime)?;
    let (signed, _) = body.rsplit_once('.')?;
    let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, signed.as_bytes()).as_ref());
    let kept = format!("public, max-age={}", FRESH.min(lifetime / 2));
    Some(Signed {
        body: Bytes::from(body),
        etag: HeaderValue::try_from(format!("W/\"{hash}\"")).ok()?,
        kept: HeaderValue::try_from(kept).ok()?,
        slot,
    })
}

/// The beginning of the slot that `now` is in.
fn slot(now: u64, lifetime: u64) -> u64 {
    now - now % (lifetime / 2).max(1)
}
