//! What an authorization server has said of tokens that say nothing themselves (RFC 7662), and what it is to be asked.
//!
//! `checks` looks answers up and, where there is none, asks here; `keys` makes the calls and brings the answers. Nothing here waits
//! or speaks to anybody. Bounded: answers by number and time, calls by number; beyond that requests are refused.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io::Read as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use quick_cache::unsync::Cache;
use serde_json::{Map, Value};
use tokio::sync::{Notify, watch};

use super::keyring::Pending;
use crate::strict_json;
use crate::{clock::KernelTime, config::Introspection, secret::Secret};

/// After a call without an answer, and some whose answers are of no use, nobody is asked for so long, so that a server that is down is not asked by every request.
const REST: Duration = Duration::from_secs(1);

/// Answers in a row that cannot be used, after which it is the server and not the tokens: whoever knows a token that its server stumbles
/// over must not be able to shut everybody out with it.
const STUMBLES: u32 = 3;

/// The server has answered, and not with 200.
#[derive(Debug)]
pub struct Unfit(pub http::StatusCode);

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "answered {}", self.0)
    }
}

impl std::error::Error for Unfit {}

/// SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// What is known of a token.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is good, and the server says this of it.
    Active(Arc<Map<String, Value>>),
    /// It is not, or never was.
    Inactive,
}

/// What a look came to.
#[derive(Debug)]
pub enum Look {
    /// It is known.
    Known(Answer),
    /// The server is being asked.
    Pending(Pending),
    /// It cannot be asked now: it failed a moment ago, or too many calls are under way.
    Unavailable,
}

/// Answers about tokens that are not active: one for so many that are.
const INACTIVE: u32 = 8;

/// What is to be asked.
#[derive(Debug)]
pub struct Call {
    /// Of which token.
    pub digest: TokenDigest,
    /// The token.
    pub token: Secret<String>,
}

#[derive(Clone)]
struct Entry {
    answer: Answer,
    until: KernelTime,
}

struct State {
    cache: Cache<TokenDigest, Entry>,
    /// What is not active, apart: anybody can make up tokens, and must not push out what is.
    inactive: Cache<TokenDigest, Entry>,
    /// Calls under way, and who waits for them.
    calls: HashMap<TokenDigest, watch::Sender<u64>>,
    queue: VecDeque<Call>,
    rests_until: KernelTime,
    stumbles: u32,
}

/// One server.
pub struct Introspector {
    /// Where it is, and how it is asked.
    pub config: Introspection,
    /// The client's secret.
    pub secret: Secret<String>,
    state: Mutex<State>,
    wanted: Notify,
}

impl std::fmt::Debug for Introspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Introspector").field("address", &self.config.address).finish_non_exhaustive()
    }
}

impl Introspector {
    /// Reads the secret.
    pub fn load(config: &Introspection) -> Result<Self> {
        let path = &config.secret;
        let context = || format!("introspection.secret_file {}", path.display());
        let mut text = String::new();
        File::open(path).and_then(|file| file.take(4_096).read_to_string(&mut text)).with_context(context)?;
        let secret = text.lines().next().unwrap_or_default().trim();
        ensure!(!secret.is_empty(), "introspection.secret_file {}: the first line is empty", path.display());
        let state = State {
            cache: Cache::new(config.max_entries as usize),
            inactive: Cache::new(config.max_entries.div_ceil(INACTIVE) as usize),
            calls: HashMap::new(),
            queue: VecDeque::new(),
            rests_until: KernelTime(0),
            stumbles: 0,
        };
        Ok(Self {
            config: config.clone(),
            secret: Secret::new(secret.to_owned()),
            state: Mutex::new(state),
            wanted: Notify::new(),
        })
    }

    /// Whether it asks as `other` does.
    pub fn is_as(&self, other: &Self) -> bool {
        self.config == other.config && self.secret.expose() == other.secret.expose()
    }

    /// What is known of a token; where that is nothing, its server is asked, once for all who want to know. `first`: the request has not
    /// waited yet.
    pub fn look(&self, digest: &TokenDigest, token: &str, first: bool, now: KernelTime) -> Look {
        let mut state = self.state();
        let State { cache, inactive, .. } = &mut *state;
        for known in [cache, inactive] {
            if let Some(entry) = known.get(digest).filter(|entry| entry.until > now) {
                return Look::Known(entry.answer.clone());
            }
        }
        if !first {
            return Look::Unavailable;
        }
        if let Some(call) = state.calls.get(digest) {
            return Look::Pending(Pending::of(call.subscribe()));
        }
        if state.rests_until > now || state.calls.len() >= self.config.max_calls as usize {
            return Look::Unavailable;
        }
        let (sender, receiver) = watch::channel(0);
        state.calls.insert(*digest, sender);
        state.queue.push_back(Call { digest: *digest, token: Secret::new(token.to_owned()) });
        self.wanted.notify_one();
        Look::Pending(Pending::of(receiver))
    }

    /// What is to be asked next; waits for it.
    pub async fn next(&self) -> Call {
        loop {
            let next = self.state().queue.pop_front();
            match next {
                Some(call) => return call,
                None => self.wanted.notified().await,
            }
        }
    }

    /// A call has ended with an answer, or in vain. Says whether the token is good.
    pub fn end(
        &self,
        digest: &TokenDigest,
        answer: Result<Vec<u8>>,
        now: KernelTime,
        unix: u64,
    ) -> Result<bool> {
        let was_answered = answer.as_ref().map_or_else(|error| error.is::<Unfit>(), |_| true);
        let read = answer.and_then(|text| self.read(&text, unix));
        let mut state = self.state();
        // Whoever waits is woken by the end of what it waits for, after this lock.
        let call = state.calls.remove(digest);
        let outcome = match read {
            Ok((answer, lifetime)) => {
                state.rests_until = KernelTime(0);
                state.stumbles = 0;
                let is_active = matches!(answer, Answer::Active(_));
                let State { cache, inactive, .. } = &mut *state;
                let cache = if is_active { cache } else { inactive };
                cache.insert(*digest, Entry { answer, until: now.plus(lifetime) });
                Ok(is_active)
            }
            Err(error) => {
                state.stumbles = state.stumbles.saturating_add(1);
                if !was_answered || state.stumbles >= STUMBLES {
                    state.rests_until = now.plus(REST);
                }
                Err(error)
            }
        };
        drop(state);
        drop(call);
        outcome
    }

    /// RFC 7662 section 2.2, and for how long it is believed.
    fn read(&self, text: &[u8], unix: u64) -> Result<(Answer, Duration)> {
        let object = strict_json::object(text).context("not a JSON object, or one with a member twice")?;
        match object.get("active") {
            Some(Value::Bool(true)) => {
                let left = match object.get("exp") {
                    None => None,
                    Some(exp) => Some(exp.as_u64().context("`exp` is no number of seconds")?),
                };
                match left.map(|exp| exp.saturating_sub(unix)) {
                    Some(0) => Ok((Answer::Inactive, self.config.negative)),
                    left => {
                        let left = left.map_or(self.config.positive, Duration::from_secs);
                        Ok((Answer::Active(Arc::new(object)), left.min(self.config.positive)))
                    }
                }
            }
            Some(Value::Bool(false)) => Ok((Answer::Inactive, self.config.negative)),
            _ => anyhow::bail!("no `active` that is true or false"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
