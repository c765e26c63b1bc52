//! How proofs of DPoP (RFC 9449) are judged, and the nonces that are given out for them.
//!
//! A nonce (section 8) is a number of its time and a MAC over it, so that nothing is remembered for one: everybody gets the same,
//! nobody can tell the next. Its key is drawn at the start and lives in memory alone: a nonce shows that a proof was made for
//! this process, and since it began.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac, rand};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;

use crate::{
    clock::KernelTime,
    config::{self, TokenAlgorithm},
};

/// Bytes of a MAC that a nonce has.
const TAG: usize = 16;

/// What proofs are judged by.
#[derive(Debug)]
pub struct Dpop {
    /// What they may be signed with.
    pub algorithms: Vec<TokenAlgorithm>,
    /// Seconds since `iat`, at most.
    pub max_age: u64,
    /// Seconds by which `iat` may be ahead.
    pub leeway: u64,
    /// Whether each needs a nonce.
    pub needs_nonce: bool,
    /// `algs` of a challenge.
    pub algs: String,
    nonces: Arc<Nonces>,
    /// Nanoseconds for which one nonce is given out.
    period: u64,
}

/// The key of nonces.
#[derive(Debug)]
struct Nonces(hmac::Key);

/// What a nonce in a proof is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// The one that is given out now.
    Current,
    /// The one before: good still, and its client is told the current one.
    Previous,
    /// None that is taken.
    Unknown,
}

impl Dpop {
    /// With the nonces of `old`, if there is one.
    pub fn new(config: &config::Dpop, old: Option<&Self>) -> Result<Self> {
        let nonces = match old {
            Some(old) => Arc::clone(&old.nonces),
            None => {
                let mut secret = [0; 32];
                rand::fill(&mut secret).map_err(|_| anyhow!("no randomness for the key of DPoP nonces"))?;
                Arc::new(Nonces(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
            }
        };
        let names: Vec<&str> = config.algorithms.iter().map(|algorithm| algorithm.name()).collect();
        Ok(Self {
            algorithms: config.algorithms.clone(),
            max_age: config.max_age.as_secs(),
            leeway: config.leeway.as_secs(),
            needs_nonce: config.nonce,
            algs: names.join(" "),
            nonces,
            period: u64::try_from(config.nonce_lifetime.as_nanos()).unwrap_or(u64::MAX).max(1),
        })
    }

    /// The nonce to give out at `now`.
    pub fn nonce(&self, now: KernelTime) -> HeaderValue {
        // base64url is always a header value.
        HeaderValue::try_from(self.nonces.of(now.0 / self.period)).unwrap_or(HeaderValue::from_static(""))
    }

    /// What the nonce of a proof is at `now`.
    pub fn judge_nonce(&self, nonce: &str, now: KernelTime) -> Nonce {
        let is =
            |period| verify_slices_are_equal(self.nonces.of(period).as_bytes(), nonce.as_bytes()).is_ok();
        let current = now.0 / self.period;
        match current {
            _ if is(current) => Nonce::Current,
            1.. if is(current - 1) => Nonce::Previous,
            _ => Nonce::Unknown,
        }
    }
}

impl Nonces {
    fn of(&self, period: u64) -> String {
        let period = period.to_be_bytes();
        let tag = hmac::sign(&self.0, &period);
        URL_SAFE_NO_PAD.encode([&period, &tag.as_ref()[..TAG]].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn dpop(old: Option<&Dpop>) -> Dpop {
        let config = config::Dpop {
            algorithms: vec![TokenAlgorithm::Es256],
            max_age: Duration::from_secs(60),
            leeway: Duration::from_secs(5),
            nonce: true,
            nonce_lifetime: Duration::from_secs(300),
        };
        Dpop::new(&config, old).unwrap()
    }

    #[test]
    fn a_nonce_rotates_and_ends_with_the_process() {
        let dpop = dpop(None);
        let at = |seconds: u64| KernelTime(seconds * 1_000_000_000);
        let nonce = dpop.nonce(at(3_000));
        let nonce = nonce.to_str().unwrap();
        for (seconds, expected) in [
            (3_000, Nonce::Current),
            (3_299, Nonce::Current),
            (3_300, Nonce::Previous),
            (3_599, Nonce::Previous),
            (3_600, Nonce::Unknown),
            (2_999, Nonce::Unknown),
        ] {
            assert_eq!(dpop.judge_nonce(nonce, at(seconds)), expected, "{seconds}");
        }
        assert_eq!(self::dpop(Some(&dpop)).judge_nonce(nonce, at(3_000)), Nonce::Current, "after a reload");
        assert_eq!(self::dpop(None).judge_nonce(nonce, at(3_000)), Nonce::Unknown, "after a restart");
        for other in ["", "x", &nonce[1..], &nonce.to_ascii_lowercase()] {
            assert_eq!(dpop.judge_nonce(other, at(3_000)), Nonce::Unknown, "{other}");
        }
    }
}
