//! What tokens of Google Play are judged by, and the way to whoever asks Google about those that cannot be read here.
//!
//! Requests put a [`Question`] and wait for its answer; `keys::play` takes questions and decides which of them Google hears.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::google::{keys, read};
use crate::{
    attestation::play::{
        self, Cause, Outcome, Risk, Unavailable,
        account::Account,
        budget::Who,
        verdict::{AppAccess, Label, PlayProtect},
    },
    config::{self, PlayRemote},
    policy::Policy,
    secret::Secret,
};

/// What Google's clock may be ahead of ours.
pub const SKEW: Duration = Duration::from_secs(60);
/// Questions that nobody has taken yet. They are taken at once; those that find no room are as those beyond `max_calls`.
const MOST_QUESTIONS: usize = 1_024;
/// What a question waits for its answer beyond the time of a call.
const GRACE: Duration = Duration::from_secs(1);

/// What tokens of Google Play are judged by.
#[derive(Debug)]
pub struct Play {
    /// What opens classic ones; `None`: Google alone does.
    pub keys: Option<play::Keys>,
    /// What is asked of them.
    pub rules: play::Rules,
    /// Seconds for which what they say counts.
    pub lifetime: u64,
    /// By which way Google is asked; `None`: he is not.
    pub remote: Option<Arc<Remote>>,
}

impl Play {
    pub(super) fn load(config: &config::Play, old: Option<&Self>) -> Result<Self> {
        let keys = config.keys.as_deref().map(keys).transpose().context("keys")?;
        let old = old.and_then(|old| old.remote.as_ref());
        let remote = config.remote.as_ref().map(|remote| Remote::load(remote, old)).transpose();
        Ok(Self {
            keys,
            rules: play::Rules {
                packages: config.apps.packages.clone(),
                certificates: config.apps.certificates.clone(),
                min_version: config.apps.min_version,
                labels: words("labels", &config.labels, Label::of_name)?,
                licensed: config.licensed,
                max_age: config.max_age,
                skew: SKEW,
                testing: config.testing,
                risk: Risk {
                    max_activity: config.risk.max_activity,
                    play_protect: words(
                        "refuse_play_protect",
                        &config.risk.play_protect,
                        PlayProtect::of_name,
                    )?,
                    access: words("refuse_app_access", &config.risk.app_access, AppAccess::of_name)?,
                    unevaluated: config.risk.unevaluated,
                },
            },
            lifetime: config.verdict_lifetime.as_secs(),
            remote: remote.context("remote")?,
        })
    }
}

/// Words of Google's.
fn words<T>(key: &str, words: &[String], of_name: fn(&str) -> Option<T>) -> Result<Vec<T>> {
    let read =
        |word: &String| of_name(word).ok_or_else(|| anyhow!("{key}: `{word}` is none of Google's words"));
    words.iter().map(read).collect()
}

/// What somebody wants to know of Google.
#[derive(Debug)]
pub struct Question {
    /// Whose token it is.
    pub package: String,
    /// The token.
    pub token: String,
    /// Who wants to know.
    pub who: Who,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Outcome>,
}

/// A service account, and the questions that are asked in its name.
#[derive(Debug)]
pub struct Remote {
    /// As configured.
    pub config: PlayRemote,
    /// The account.
    pub account: Arc<Account>,
    /// What its file says.
    text: Secret<Vec<u8>>,
    questions: mpsc::Sender<Question>,
    waiting: Mutex<mpsc::Receiver<Question>>,
}

impl Remote {
    /// One that is the same goes on: with its budget, and with the questions under way.
    fn load(config: &PlayRemote, old: Option<&Arc<Self>>) -> Result<Arc<Self>> {
        let text = read(&config.account, super::google::MOST_BYTES).context("account")?;
        if let Some(old) = old.filter(|old| old.config == *config && *old.text.expose() == text) {
            return Ok(Arc::clone(old));
        }
        let account =
            account(&text).with_context(|| config.account.display().to_string()).context("account")?;
        let (questions, waiting) = mpsc::channel(MOST_QUESTIONS);
        Ok(Arc::new(Self {
            config: config.clone(),
            account: Arc::new(account),
            text: Secret::new(text),
            questions,
            waiting: Mutex::new(waiting),
        }))
    }

    /// What Google says of a token, or why he does not. Ends within the time that is configured, and a second.
    pub async fn ask(&self, package: String, token: String, who: Who) -> Outcome {
        let unavailable = |cause, why: &str| {
            Outcome::Unavailable(Unavailable { cause, why: why.to_owned(), retry_after: Some(1) })
        };
        let (answer, answered) = oneshot::channel();
        if self.questions.try_send(Question { package, token, who, answer }).is_err() {
            return unavailable(Cause::Busy, "too many questions wait");
        }
        match tokio::time::timeout(self.config.timeout + GRACE, answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => unavailable(Cause::Slow, "nobody has answered in time"),
        }
    }

    /// The next question; whoever takes it answers it.
    pub async fn next(&self) -> Option<Question> {
        self.waiting.lock().await.recv().await
    }
}

/// No error shows what the file holds.
fn account(text: &[u8]) -> Result<Account> {
    let account = Account::read(text).map_err(anyhow::Error::msg)?;
    let address = account.token_url.parse::<http::Uri>().ok();
    let is_https = address.is_some_and(|address| address.scheme_str() == Some("https"));
    ensure!(is_https, "its `token_uri` is no https address");
    Ok(account)
}

/// Whether a file holds an account.
pub(super) fn check_account(path: &std::path::Path) -> Result<()> {
    let text = read(path, super::google::MOST_BYTES)?;
    account(&text).map(drop).with_context(|| path.display().to_string())
}

impl Policy {
    /// By which way Google is asked about tokens; `None`: he is not.
    pub fn play_remote(&self) -> Option<Arc<Remote>> {
        self.attestation.as_ref()?.play.as_ref()?.remote.clone()
    }
}
