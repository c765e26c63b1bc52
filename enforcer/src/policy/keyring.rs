//! The keys of an issuer, and for keys that are fetched: since when they are known, and when they are to be asked for anew.
//!
//! `checks` looks keys up and, where one is missing, asks here what that means; `keys` fetches and brings what it got. Nothing
//! here waits or speaks to anybody.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;
use tokio::sync::{Notify, watch};

use super::{
    issuer::Epoch,
    jwks::{self, VerificationKey},
};
use crate::{
    clock::KernelTime,
    config::{KeySource, RemoteKeys, Token, TokenAlgorithm},
};

/// How long a key that its issuer does not know is not asked for again.
const REFUTED: u64 = 60;
/// Keys of which that is remembered; beyond that, the interval between two fetches alone protects an issuer.
const MOST_REFUTED: usize = 1_024;
/// Longest pause between two attempts while an issuer cannot be reached.
const LONGEST_PAUSE: u64 = 300;

/// One set of keys.
#[derive(Debug)]
pub struct KeySet {
    /// May be none while nothing could be fetched.
    pub keys: Vec<VerificationKey>,
    epoch: Epoch,
    text: Vec<u8>,
}

impl KeySet {
    fn new(text: Vec<u8>, algorithms: &[TokenAlgorithm]) -> Result<Self> {
        Ok(Self { keys: jwks::parse(&text, algorithms)?, epoch: Epoch::begin(), text })
    }

    fn none() -> Self {
        Self { keys: Vec::new(), epoch: Epoch::begin(), text: Vec::new() }
    }

    /// Changes with the keys.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The key that a token's header asks for. Without a key id only if there is no choice.
    pub fn key(&self, kid: Option<&str>, algorithm: TokenAlgorithm) -> Option<&VerificationKey> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
        match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

/// An issuer's keys as they are now.
#[derive(Debug)]
pub struct Keyring {
    set: ArcSwap<KeySet>,
    remote: Option<Remote>,
}

/// Keys that are fetched.
#[derive(Debug)]
struct Remote {
    config: RemoteKeys,
    algorithms: Vec<TokenAlgorithm>,
    state: Mutex<State>,
    /// Counts fetches that have ended, whatever they came to.
    ended: watch::Sender<u64>,
    wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: bool,
    /// Attempts that failed since the last that did not.
    failures: u32,
    attempted: Option<KernelTime>,
    /// When it was last asked because of a token. What is fetched for other reasons does not count: a key that is first used right
    /// after such a fetch is found.
    demanded: Option<KernelTime>,
    /// What tells the set that is known from another one.
    validator: Option<Validator>,
    fetched: Option<KernelTime>,
    /// When the next one is due.
    due: KernelTime,
    error: Option<String>,
    /// Key ids that somebody waits for, and how many of them were there when the fetch under way began: only of those its
    /// answer says something.
    asked: Vec<Box<str>>,
    answered: usize,
    /// Key ids that the issuer does not know, and until when that is believed.
    refuted: HashMap<Box<str>, KernelTime>,
}

impl State {
    fn is_refuted(&self, kid: &str, now: KernelTime) -> bool {
        self.refuted.get(kid).is_some_and(|until| *until > now)
    }

    fn refute(&mut self, kid: Box<str>, now: KernelTime) {
        if self.refuted.len() >= MOST_REFUTED {
            self.refuted.retain(|_, until| *until > now);
        }
        if self.refuted.len() < MOST_REFUTED {
            self.refuted.insert(kid, now.plus_seconds(REFUTED));
        }
    }
}

/// What tells one state of a set from another (RFC 9110 section 8.8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator {
    /// Where it was fetched.
    pub address: String,
    /// Its `ETag`.
    pub tag: HeaderValue,
}

/// What a fetch brought.
#[derive(Debug, Default)]
pub struct Fetched {
    /// The set; `None`: it is the one that is known.
    pub text: Option<Vec<u8>>,
    /// For how long its issuer calls it good.
    pub lifetime: Option<Duration>,
    /// What tells it from others.
    pub validator: Option<Validator>,
}

/// What it means that a key is not there.
#[derive(Debug)]
pub enum Missing {
    /// The issuer has none of this name.
    Unknown,
    /// Nobody can tell: the issuer was asked in vain a moment ago.
    Unavailable,
    /// It is being asked.
    Pending(Pending),
}

/// Waits for the end of a fetch.
#[derive(Debug)]
pub struct Pending(watch::Receiver<u64>);

impl Pending {
    /// Of something that is told of here.
    pub(super) const fn of(ended: watch::Receiver<u64>) -> Self {
        Self(ended)
    }

    /// Until a fetch has ended, at most so long.
    pub async fn wait(&mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.0.changed()).await;
    }
}

/// How a keyring is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Keys that can verify.
    pub keys: usize,
    /// Seconds since they were fetched; `None` for a file, and before the first success.
    pub age: Option<u64>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Whether they are fetched at all.
    pub is_remote: bool,
}

impl Keyring {
    /// Reads a file, or begins without keys where they are to be fetched. What did not change since `old` stays.
    pub fn load(token: &Token, old: Option<(&Token, &Arc<Self>)>) -> Result<Arc<Self>> {
        let same = old.filter(|(old, _)| old.keys == token.keys && old.algorithms == token.algorithms);
        match &token.keys {
            KeySource::File(path) => {
                let text = jwks::read(path)?;
                if let Some((_, old)) = same.filter(|(_, old)| old.set.load().text == text) {
                    return Ok(Arc::clone(old));
                }
                let set = KeySet::new(text, &token.algorithms)
                    .with_context(|| format!("JWK set {}", path.display()))?;
                Ok(Arc::new(Self { set: ArcSwap::from_pointee(set), remote: None }))
            }
            KeySource::None => Ok(same.map_or_else(
                || Arc::new(Self { set: ArcSwap::from_pointee(KeySet::none()), remote: None }),
                |(_, old)| Arc::clone(old),
            )),
            KeySource::Remote(config) => Ok(same.map_or_else(
                || {
                    let remote = Remote {
                        config: config.clone(),
                        algorithms: token.algorithms.clone(),
                        state: Mutex::default(),
                        ended: watch::Sender::new(0),
                        wanted: Notify::new(),
                    };
                    Arc::new(Self { set: ArcSwap::from_pointee(KeySet::none()), remote: Some(remote) })
                },
                |(_, old)| Arc::clone(old),
            )),
        }
    }

    /// The keys now.
    pub fn set(&self) -> Guard<Arc<KeySet>> {
        self.set.load()
    }

    /// Where they are fetched.
    pub fn remote(&self) -> Option<&RemoteKeys> {
        self.remote.as_ref().map(|remote| &remote.config)
    }

    /// A token asks for a key that is not there. An issuer is asked once for one key in a while, and because of tokens not more often
    /// than its interval allows, whatever clients invent.
    pub fn missing(&self, kid: &str, now: KernelTime) -> Missing {
        let Some(remote) = &self.remote else { return Missing::Unknown };
        let interval = remote.config.interval;
        let mut state = remote.state();
        let lately = |at: Option<KernelTime>| at.is_some_and(|at| now < at.plus(interval));
        if state.is_refuted(kid, now) {
            return Missing::Unknown;
        }
        if !state.under_way {
            let in_vain = state.failures > 0 || state.fetched.is_none();
            if lately(state.demanded) || (in_vain && lately(state.attempted)) {
                return if in_vain { Missing::Unavailable } else { Missing::Unknown };
            }
            state.demanded = state.attempted.and(Some(now));
            state.under_way = true;
            remote.wanted.notify_one();
        }
        if state.asked.len() < MOST_REFUTED && !state.asked.iter().any(|known| **known == *kid) {
            state.asked.push(kid.into());
        }
        Missing::Pending(Pending(remote.ended.subscribe()))
    }

    /// The same for a token that has waited: nobody is asked again.
    pub fn still_missing(&self, kid: &str, now: KernelTime) -> Missing {
        match &self.remote {
            Some(remote) if !remote.state().is_refuted(kid, now) => Missing::Unavailable,
            Some(_) | None => Missing::Unknown,
        }
    }

    /// Whether somebody asks, or it is time.
    pub fn is_due(&self, now: KernelTime) -> bool {
        self.remote.as_ref().is_some_and(|remote| {
            let state = remote.state();
            state.under_way || state.due <= now
        })
    }

    /// Until when there is nothing to fetch, unless somebody asks before.
    pub fn due(&self) -> KernelTime {
        self.remote.as_ref().map_or(KernelTime(u64::MAX), |remote| remote.state().due)
    }

    /// Until somebody asks for a key.
    pub async fn wanted(&self) {
        match &self.remote {
            Some(remote) => remote.wanted.notified().await,
            None => std::future::pending().await,
        }
    }

    /// What tells the set that is known from others.
    pub fn validator(&self) -> Option<Validator> {
        self.remote.as_ref()?.state().validator.clone()
    }

    /// A fetch begins.
    pub fn begin(&self, now: KernelTime) {
        if let Some(remote) = &self.remote {
            let mut state = remote.state();
            state.under_way = true;
            state.attempted = Some(now);
            state.answered = state.asked.len();
        }
    }

    /// A fetch has ended at `now` with a set, and for how long the issuer calls it good; or with an error, which leaves the keys as
    /// they are until they are too old. Says whether the keys are others now.
    pub fn end(&self, fetched: Result<Fetched>, now: KernelTime) -> Result<bool> {
        let Some(remote) = &self.remote else { return Ok(false) };
        let read = fetched.and_then(|fetched| {
            let known = self.set.load();
            let text = fetched.text.filter(|text| known.text != *text);
            let set = text.map(|text| KeySet::new(text, &remote.algorithms)).transpose()?;
            Ok((set, fetched.lifetime, fetched.validator))
        });
        let mut state = remote.state();
        state.under_way = false;
        let outcome = match read {
            Ok((set, lifetime, validator)) => {
                state.failures = 0;
                state.validator = validator;
                state.fetched = Some(now);
                state.error = None;
                let lifetime = lifetime.unwrap_or(remote.config.refresh);
                // Before they run out, so that nobody waits for it.
                state.due =
                    now.plus(lifetime.clamp(Duration::from_secs(60), Duration::from_secs(86_400)) * 4 / 5);
                let is_new = set.is_some();
                if let Some(set) = set {
                    state.refuted.clear();
                    self.set.store(Arc::new(set));
                }
                let keys = self.set.load();
                let is_known = |kid: &str| keys.keys.iter().any(|key| key.kid.as_deref() == Some(kid));
                let answered = state.answered;
                for kid in std::mem::take(&mut state.asked).into_iter().take(answered) {
                    if !is_known(&kid) {
                        state.refute(kid, now);
                    }
                }
                Ok(is_new)
            }
            Err(error) => {
                state.failures = state.failures.saturating_add(1);
                state.asked.clear();
                state.error = Some(format!("{error:#}"));
                let interval = remote.config.interval.as_secs().max(1);
                let pause =
                    interval.saturating_mul(1 << state.failures.min(10)).min(LONGEST_PAUSE.max(interval));
                state.due = now.plus_seconds(pause);
                let limit = state.fetched.map(|at| at.plus(remote.config.max_stale));
                if limit.is_some_and(|limit| limit <= now) {
                    state.fetched = None;
                    state.validator = None;
                    self.set.store(Arc::new(KeySet::none()));
                } else if let Some(limit) = limit {
                    // Looked at again when they are too old, at the latest.
                    state.due = state.due.min(limit);
                }
                Err(error)
            }
        };
        drop(state);
        remote.ended.send_modify(|count| *count += 1);
        outcome
    }

    /// How it is.
    pub fn condition(&self, now: KernelTime) -> Condition {
        let keys = self.set.load().keys.len();
        let Some(remote) = &self.remote else {
            return Condition { keys, age: None, error: None, is_remote: false };
        };
        let state = remote.state();
        let age = state.fetched.map(|at| now.seconds_from(at));
        Condition { keys, age, error: state.error.clone(), is_remote: true }
    }
}

impl Remote {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
