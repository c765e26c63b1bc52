//! Reloading: reads the file and everything it names, and takes over all of it or nothing.
//!
//! What is fixed for a process's life stays as it was and is named; a wrong file changes nothing, and log, metrics and
//! `status` say so until a good one comes.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tracing::{error, info, warn};

use super::{devices, facts, files::Seen, notify, pins, running::Running};
use crate::{
    bans::ledger::{Input, Settings},
    clock,
    config::{self, Config},
    control::{answer::Facts, wire::Reloaded},
    log,
    policy::Policy,
};

impl Running {
    /// Reloads on behalf of `by`; the error is for people.
    pub(super) async fn reload(&mut self, by: &str) -> Result<Reloaded, String> {
        notify::reloading();
        let result = self.take_over().await.map_err(|error| {
            pins::note(&error, &self.metrics);
            format!("{error:#}")
        });
        let label = if result.is_ok() { "applied" } else { "refused" };
        self.metrics.reloads.with_label_values(&[label]).inc();
        match &result {
            Ok(done) if done.needs_restart.is_empty() => info!(by, "reloaded"),
            Ok(done) => warn!(by, needs_restart = done.needs_restart.join(" "), "reloaded, in part"),
            Err(error) => error!(by, error, "reload refused, everything stays as it was"),
        }
        let (tokens, rehearsed) = (facts::tokens(&self.policy.load()), facts::rehearsed(&self.config));
        let (samples, listed) = (facts::samples(&self.config), facts::listed(&self.config));
        let persistence = facts::persistence(&self.config, self.kernel.beginning());
        facts::show_persistence(&persistence, &self.metrics);
        if result.is_ok() {
            self.reopen();
            facts::certificates(&self.policy.load(), &self.metrics, clock::unix_now());
            pins::warn_of(&self.policy.load(), clock::unix_now());
            devices::warn_of(&self.policy.load(), clock::unix_now());
        }
        let at = clock::instant_now();
        self.facts.rcu(|facts| Facts {
            tokens: tokens.clone(),
            persistence: persistence.clone(),
            rehearsed: rehearsed.clone(),
            samples: samples.clone(),
            listed: listed.clone(),
            last_reload: Some((at, result.clone())),
            // A reload reads every file, so what was refused before is settled.
            files: if result.is_ok() { None } else { facts.files.clone() },
            ..(**facts).clone()
        });
        match &result {
            Ok(_) => notify::ready(&self.status),
            Err(_) => notify::ready(&format!("{}; the last reload was refused, see the log", self.status)),
        }
        result
    }

    async fn take_over(&mut self) -> Result<Reloaded> {
        let (path, old, policy) = (self.path.clone(), self.config.clone(), self.policy.load_full());
        // Files may lie on slow disks: not on the threads that serve.
        let reading = tokio::task::spawn_blocking(move || -> Result<(Config, Policy, Seen, Vec<String>)> {
            let new = config::load(&path)?;
            let (settled, needs_restart) = config::settle(&old, new);
            let seen = Seen::of(&settled);
            let policy = policy.reload(&settled)?;
            Ok((settled, policy, seen, needs_restart))
        });
        let (config, policy, seen, needs_restart) = reading.await.context("reading the configuration")??;
        let filter = log::filter(&config.log)?;
        // The only step that can still fail comes before the first that has an effect.
        self.kernel.apply(&config.kernel).context("applying the kernel settings")?;
        pins::remember(&policy, &config, &self.metrics).await;
        self.policy.store(Arc::new(policy));
        self.read.store(Arc::new(seen));
        self.metrics.files_refused.set(0);
        let listed = self.bans.change(Input::Reconfigure(Settings::of(&config))).await?;
        if let Some(error) = listed.kernel_error {
            warn!(error, "the kernel refused a part of kernel.allow; trying again");
        }
        self.log.apply(filter)?;
        self.config = config;
        Ok(Reloaded { needs_restart })
    }
}
