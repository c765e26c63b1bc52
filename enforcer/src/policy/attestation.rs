//! What devices are judged by: endpoints, the secrets of sessions, the key of facts, whose apps may enrol. `checks::devices` asks it.

mod google;

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow};

use super::limiter::RequestLimiter;
use crate::{
    attestation::app_attest::{self, AppId, Distribution, chain::Roots},
    config,
    enrolment::{Challenges, Enrolment, Registry, facts::Facts, session::Sessions},
};

pub use google::{AndroidKey, Play};

/// `[attestation]` with its files.
#[derive(Debug)]
pub struct Attestation {
    /// As configured.
    pub config: config::Attestation,
    /// What is remembered; the same for every policy of a daemon.
    pub enrolment: Arc<Enrolment>,
    /// Who has asked how often.
    pub limiter: Arc<RequestLimiter>,
    /// What makes and reads sessions.
    pub sessions: Arc<Sessions>,
    /// What signs facts for servers.
    pub facts: Facts,
    /// Whose apps may enrol by App Attest; `None`: nobody's.
    pub app_attest: Option<AppAttest>,
    /// Whose apps may enrol by keys of Android's hardware; `None`: nobody's.
    pub android_key: Option<AndroidKey>,
    /// Whose apps may enrol by what Google Play says; `None`: nobody's.
    pub play: Option<Play>,
}

/// What App Attest is judged by.
#[derive(Debug)]
pub struct AppAttest {
    /// The apps.
    pub apps: Vec<AppId>,
    /// The one environment that is accepted.
    pub environment: app_attest::Environment,
    /// The same as configured.
    pub configured: config::Environment,
    /// How the app may have come to the device.
    pub distribution: Distribution,
    /// Instead of Apple's.
    other_roots: Option<Roots>,
}

impl AppAttest {
    fn load(config: &config::AppAttest) -> Result<Self> {
        let app = |text: &String| text.parse::<AppId>().map_err(|why| anyhow!("apps: `{text}`: {why}"));
        let mut categories = Vec::new();
        for text in &config.categories {
            categories.push(text.parse().map_err(|why| anyhow!("categories: `{text}`: {why}"))?);
        }
        let minimum = config.minimum_version.as_ref();
        let minimum =
            minimum.map(|text| text.parse().map_err(|why| anyhow!("minimum_version: `{text}`: {why}")));
        let other_roots = match &config.root {
            None => None,
            Some(path) => Some(roots(path).context("root")?),
        };
        Ok(Self {
            apps: config.apps.iter().map(app).collect::<Result<_>>()?,
            environment: match config.environment {
                config::Environment::Production => app_attest::Environment::Production,
                config::Environment::Development => app_attest::Environment::Development,
            },
            configured: config.environment,
            distribution: Distribution {
                categories,
                minimum_version: minimum.transpose()?,
                required: config.require_distribution,
            },
            other_roots,
        })
    }

    /// Whose attestations are believed.
    pub fn roots(&self) -> &Roots {
        self.other_roots.as_ref().unwrap_or_else(|| Roots::app_attest())
    }

    /// Whether that is Apple.
    pub const fn is_genuine(&self) -> bool {
        self.other_roots.is_none()
    }
}

fn roots(path: &Path) -> Result<Roots> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Roots::from_pem(&text).map_err(|why| anyhow!("{}: {why}", path.display()))
}

/// What a route asks for of devices, and by what they are judged.
#[derive(Debug)]
pub struct Demand {
    /// As configured.
    pub config: config::AttestationDemand,
    /// By this.
    pub by: Arc<Attestation>,
}

impl Attestation {
    /// Reads every file; `began`: when the process did, seconds since 1970.
    pub fn load(
        config: &config::Attestation,
        max_sources: u32,
        began: u64,
        old: Option<&Arc<Self>>,
    ) -> Result<Self> {
        let enrolment = match old {
            Some(old) => Arc::clone(&old.enrolment),
            None => Arc::new(Enrolment {
                challenges: Challenges::new(config.max_challenges, began)?,
                devices: Registry::new(config.max_devices),
            }),
        };
        let kept = old.map(|old| &old.limiter).filter(|kept| kept.serves(config.limit, max_sources));
        let limiter = kept.cloned();
        let sessions = Sessions::load(config.session_keys.as_deref(), old.map(|old| &old.sessions))
            .context("session_keys")?;
        let facts = Facts::load(
            config.facts_key.as_deref(),
            &config.facts_issuer,
            config.facts_lifetime.as_secs(),
            old.map(|old| &old.facts),
        );
        Ok(Self {
            enrolment,
            limiter: limiter.unwrap_or_else(|| Arc::new(RequestLimiter::new(config.limit, max_sources))),
            sessions,
            facts: facts.context("facts_key")?,
            app_attest: config.app_attest.as_ref().map(AppAttest::load).transpose().context("app_attest")?,
            android_key: config
                .android_key
                .as_ref()
                .map(AndroidKey::load)
                .transpose()
                .context("android_key")?,
            play: config.play.as_ref().map(Play::load).transpose().context("play")?,
            config: config.clone(),
        })
    }
}

/// What is wrong with a file that is named here, for `enforcer check`.
pub fn problem(kind: config::TlsFile, path: &Path) -> Result<()> {
    match kind {
        config::TlsFile::SessionKeys => Sessions::from_file(path).map(drop),
        config::TlsFile::FactsKey => Facts::check(path),
        config::TlsFile::AttestationRoot => roots(path).map(drop),
        config::TlsFile::AndroidRoots => google::roots(path).map(drop),
        config::TlsFile::AndroidRevocations => google::revocations(path).map(drop),
        config::TlsFile::PlayKeys => google::keys(path).map(drop),
        config::TlsFile::OcspResponse
        | config::TlsFile::ClientAuthorities
        | config::TlsFile::RevocationList
        | config::TlsFile::TicketKeys
        | config::TlsFile::ServerAuthorities
        | config::TlsFile::PayloadKey
        | config::TlsFile::SignatureKey(_) => Ok(()),
    }
}
