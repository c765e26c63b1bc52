//! Tokens that a worker has verified, so that a client pays for its token's signature once and not with every request.
//!
//! An entry is good on the footing alone that it was verified on. Another key set, another rule, another policy is another one,
//! so that nothing has to be told to forget, and a token that was verified while the keys were changed counts under those
//! that verified it. Only tokens that are good get in, so that nobody can wash out those of others by inventing some.

use std::{
    cell::Cell,
    hash::{BuildHasherDefault, Hash, Hasher},
    sync::Arc,
};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::{UnitWeighter, unsync::Cache};

use super::{Claims, MAX_TOKEN};
use crate::policy::issuer::{Footing, Issuer};

/// SHA-256 of a token as it was sent: who finds two tokens of one digest could forge certificates as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest([u8; 32]);

impl Digest {
    /// `None` for what is too long to be a token.
    pub(super) fn of(token: &[u8]) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        digest(&SHA256, token).as_ref().try_into().ok().map(Self)
    }
}

impl Digest {
    /// Its bytes.
    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A digest needs no further hashing.
impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// Takes eight bytes of a digest as they are.
#[derive(Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// What is remembered of a token.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub footing: Footing,
    pub claims: Arc<Claims>,
    /// The generation of revocations by which it was not revoked.
    pub clean: Cell<u64>,
}

/// One worker's verified tokens.
pub struct KnownTokens {
    cache: Cache<Digest, Known, UnitWeighter, BuildHasherDefault<Taken>>,
    remembers: bool,
}

impl KnownTokens {
    /// Room for so many; the least used ones give way. 0: nothing is remembered.
    pub fn new(most: usize) -> Self {
        // It grows as it fills: most workers never see as many tokens as they may remember.
        let begin = most.min(256);
        let cache =
            Cache::with(begin, most as u64, UnitWeighter, BuildHasherDefault::default(), Default::default());
        Self { cache, remembers: most > 0 }
    }

    pub(super) const fn remembers(&self) -> bool {
        self.remembers
    }

    /// A token that was verified by what one of `issuers` is now, and by which generation of revocations it was not revoked. Its
    /// times are not judged.
    pub(super) fn find<'i>(
        &self,
        digest: &Digest,
        issuers: &'i [Arc<Issuer>],
    ) -> Option<(&'i Issuer, Arc<Claims>, u64)> {
        let known = self.cache.get(digest)?;
        let issuer = issuers.iter().find(|issuer| issuer.stands_on(known.footing))?;
        Some((issuer, Arc::clone(&known.claims), known.clean.get()))
    }

    /// It is not revoked by this generation either.
    pub(super) fn clear(&self, digest: &Digest, generation: u64) {
        if let Some(known) = self.cache.get(digest) {
            known.clean.set(generation);
        }
    }

    pub(super) fn learn(&mut self, digest: Digest, known: Known) {
        self.cache.insert(digest, known);
    }

    pub(super) fn forget(&mut self, digest: &Digest) {
        self.cache.remove(digest);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }
}
