//! What tells a proxy between an app and here from the app: the fingerprints that its hellos have, and what apps at the same source have
//! reported. `checks::suspicion` asks it for routes that want to know; nobody else pays for it.
//!
//! Counts outlive a reload. They are in memory alone: a report is worth an hour.

pub mod reports;
mod seen;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Result, anyhow};

use crate::config::{self, Ja4Pattern, Platform, Signal, SuspicionDemand};
use reports::Reports;
pub use seen::{Seen, Sight};

/// `[suspicion]`, with what was seen.
#[derive(Debug)]
pub struct Suspicion {
    /// As configured.
    pub config: config::Suspicion,
    /// What reports have said; `None`: none are taken.
    pub reports: Option<Arc<Reports>>,
    apps: BTreeMap<String, Arc<App>>,
    state: Arc<State>,
}

/// What the hellos of an app look like.
#[derive(Debug)]
pub struct App {
    /// As configured.
    pub name: String,
    config: config::App,
    /// Requests of each pattern.
    fits: Box<[AtomicU64]>,
}

/// What outlives a reload.
#[derive(Debug, Default)]
struct State {
    /// Requests that a signal spoke against, by [`Signal::ALL`].
    signals: [AtomicU64; 4],
    /// By the route's name.
    routes: Mutex<BTreeMap<Box<str>, Arc<Results>>>,
    /// Fingerprints that fitted no app of their route.
    strangers: Mutex<Seen>,
}

/// How many requests of a route came to what.
#[derive(Debug, Default)]
pub struct Results([AtomicU64; 4]);

impl Results {
    /// The labels that count them.
    pub const NAMES: [&'static str; 4] = ["clean", "suspected", "would_refuse", "refused"];

    /// With their labels.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.0.iter().map(|count| count.load(Relaxed)))
    }
}

/// What speaks against a request, and what it comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// 0 to 100.
    pub points: u8,
    /// One bit for each of [`Signal::ALL`].
    signals: u8,
}

impl Score {
    /// With one more signal.
    pub fn add(&mut self, signal: Signal, weight: u8) {
        self.points = self.points.saturating_add(weight).min(100);
        self.signals |= 1 << signal as u8;
    }

    /// What it is made of.
    pub fn signals(self) -> impl Iterator<Item = Signal> {
        Signal::ALL.into_iter().filter(move |signal| self.signals & 1 << *signal as u8 != 0)
    }

    /// The names of that.
    pub fn names(self) -> Vec<&'static str> {
        self.signals().map(Signal::name).collect()
    }
}

/// What a route makes of it.
#[derive(Debug)]
pub struct Demand {
    /// As configured.
    pub config: SuspicionDemand,
    /// By this.
    pub by: Arc<Suspicion>,
    apps: Vec<Arc<App>>,
    results: Arc<Results>,
}

impl Suspicion {
    /// As a configuration has it, if it has.
    pub(super) fn load(config: &config::Config, old: Option<&Arc<Self>>) -> Option<Arc<Self>> {
        let max_sources = config.http.max_sources;
        config.suspicion.as_ref().map(|section| Arc::new(Self::new(section, max_sources, old)))
    }

    /// `max_sources` may report at once; what `old` has counted goes on.
    pub fn new(config: &config::Suspicion, max_sources: u32, old: Option<&Arc<Self>>) -> Self {
        let app = |(name, config): (&String, &config::App)| {
            let kept = old.and_then(|old| old.apps.get(name)).filter(|kept| kept.config == *config);
            let fits = || config.ja4.iter().map(|_| AtomicU64::new(0)).collect();
            let new = || Arc::new(App { name: name.clone(), config: config.clone(), fits: fits() });
            (name.clone(), kept.map_or_else(new, Arc::clone))
        };
        let reports = config.reports.as_ref().map(|reports| {
            let kept = old.and_then(|old| old.reports.as_ref());
            let kept = kept.filter(|kept| kept.serves(reports, max_sources));
            kept.map_or_else(|| Arc::new(Reports::new(reports, max_sources)), Arc::clone)
        });
        Self {
            config: config.clone(),
            reports,
            apps: config.apps.iter().map(app).collect(),
            state: old.map(|old| Arc::clone(&old.state)).unwrap_or_default(),
        }
    }

    /// What a route makes of it, by the name that counts.
    fn demand(self: &Arc<Self>, config: &SuspicionDemand, route: &str) -> Result<Demand> {
        let app =
            |name: &String| self.apps.get(name).cloned().ok_or_else(|| anyhow!("no [suspicion.app.{name}]"));
        let apps = config.apps.iter().map(app).collect::<Result<_>>()?;
        let mut routes = self.state.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let results = Arc::clone(routes.entry(route.into()).or_default());
        Ok(Demand { config: config.clone(), by: Arc::clone(self), apps, results })
    }

    /// What a signal weighs.
    pub fn weight(&self, signal: Signal) -> u8 {
        self.config.weights.get(signal as usize).copied().unwrap_or(0)
    }

    /// Requests that each signal spoke against.
    pub fn signals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Signal::ALL
            .into_iter()
            .map(Signal::name)
            .zip(self.state.signals.iter().map(|count| count.load(Relaxed)))
    }

    /// What the requests of each route came to, by its name.
    pub fn routes(&self) -> Vec<(Box<str>, Arc<Results>)> {
        let routes = self.state.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.iter().map(|(name, results)| (name.clone(), Arc::clone(results))).collect()
    }

    /// Every declared pattern with its app and the requests that it has fitted.
    pub fn declared(&self) -> impl Iterator<Item = (&App, &Ja4Pattern, u64)> {
        self.apps.values().flat_map(|app| {
            app.config
                .ja4
                .iter()
                .zip(&app.fits)
                .map(|(pattern, count)| (&**app, pattern, count.load(Relaxed)))
        })
    }

    /// Fingerprints that fitted no app of their route, the most frequent ones first.
    pub fn strangers(&self) -> Vec<Sight> {
        self.state.strangers.lock().unwrap_or_else(PoisonError::into_inner).all()
    }
}

/// What a route makes of it, if it says something of it.
pub(super) fn of_route(route: &config::Route, by: Option<&Arc<Suspicion>>) -> Result<Option<Demand>> {
    let Some(demand) = &route.suspicion else { return Ok(None) };
    let by = by.ok_or_else(|| anyhow!("`suspicion` without the section"))?;
    by.demand(demand, &route.name).map(Some)
}

impl App {
    /// Of which kind its devices are, if that is declared.
    pub const fn platform(&self) -> Option<Platform> {
        self.config.platform
    }

    fn fits(&self, ja4: &str) -> Option<&AtomicU64> {
        let found = self.config.ja4.iter().position(|pattern| pattern.fits(ja4))?;
        self.fits.get(found)
    }
}

impl Demand {
    /// Whether a fingerprint is one of those that are expected of devices of a kind, where that is known. `None`: nothing is.
    pub fn expects(&self, ja4: &str, platform: Option<Platform>) -> Option<bool> {
        let mut apps = self.meant(platform).peekable();
        apps.peek()?;
        Some(apps.any(|app| app.fits(ja4).is_some()))
    }

    /// Whether anything is expected of devices of a kind.
    pub fn expects_any(&self, platform: Option<Platform>) -> bool {
        self.meant(platform).next().is_some()
    }

    fn meant(&self, platform: Option<Platform>) -> impl Iterator<Item = &Arc<App>> {
        let is_meant = move |app: &&Arc<App>| match (app.platform(), platform) {
            (Some(declared), Some(known)) => declared == known,
            _ => true,
        };
        self.apps.iter().filter(is_meant)
    }

    /// Whether a score is too much.
    pub fn refuses(&self, score: Score) -> bool {
        self.config.refuse_above.is_some_and(|above| score.points > above)
    }

    /// Counts a request.
    pub fn count(&self, score: Score, ja4: Option<&str>, now: u64) {
        let result = match (score.points, self.refuses(score), self.config.dry_run) {
            (0, false, _) => 0,
            (_, false, _) => 1,
            (_, true, true) => 2,
            (_, true, false) => 3,
        };
        for (number, count) in self.results.0.iter().enumerate() {
            if number == result {
                count.fetch_add(1, Relaxed);
            }
        }
        for signal in score.signals() {
            if let Some(count) = self.by.state.signals.get(signal as usize) {
                count.fetch_add(1, Relaxed);
            }
        }
        let Some(ja4) = ja4.filter(|_| !self.apps.is_empty()) else { return };
        match self.apps.iter().find_map(|app| app.fits(ja4)) {
            Some(count) => drop(count.fetch_add(1, Relaxed)),
            // Of two workers that meet here one leaves it out: it is statistics.
            None => {
                if let Ok(mut seen) = self.by.state.strangers.try_lock() {
                    seen.note(ja4, now);
                }
            }
        }
    }
}
