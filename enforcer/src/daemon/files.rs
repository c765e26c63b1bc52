//! Files that change under the daemon: certificates, keys, authorities, revocations, ticket keys, key sets. A new one is taken
//! over by itself; a bad one changes nothing.
//!
//! They are looked at once a second by stat(2), through every symbolic link. Notifications by inotify(7) would be no
//! better: they follow an inode, so a file that is replaced by rename(2), or by the swap of a link above it as Kubernetes
//! mounts secrets, needs a watch on every folder of the path, and network file systems send none at all. A dozen files cost
//! some microseconds.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tracing::{error, info};

use super::{facts, pins, running::Running};
use crate::{clock, config::Config, control::answer::Facts, policy::Policy};

/// Between two looks. What changed must look the same twice, so that a certificate and its key, which are written one after
/// the other, are both there.
const LOOK: Duration = Duration::from_secs(1);

/// What tells a file from another of the same name: device, inode, size, and the times of its last change in nanoseconds.
/// The inode's own time cannot be set back by whoever writes the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let seen = fs::metadata(path).ok()?;
        Some(Self {
            device: seen.dev(),
            inode: seen.ino(),
            size: seen.size(),
            written: (seen.mtime(), seen.mtime_nsec()),
            changed: (seen.ctime(), seen.ctime_nsec()),
        })
    }
}

/// Files as they were at one time; `None` where there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(Vec<(PathBuf, Option<Stamp>)>);

impl Seen {
    /// As they are now.
    pub(super) fn of(config: &Config) -> Self {
        Self(config.files().into_iter().map(|path| (path.to_owned(), Stamp::of(path))).collect())
    }

    fn again(&self) -> Self {
        Self(self.0.iter().map(|(path, _)| (path.clone(), Stamp::of(path))).collect())
    }

    fn differing(&self, other: &Self) -> Vec<String> {
        let pairs = self.0.iter().zip(&other.0).filter(|(a, b)| a != b);
        pairs.map(|((path, _), _)| path.display().to_string()).collect()
    }
}

/// Looks until it is aborted, and tells of every change against what was `read` last: once, as soon as it is over.
pub(super) async fn watch(read: Arc<ArcSwap<Seen>>, changes: mpsc::Sender<Vec<String>>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Seen::default();
    loop {
        ticks.tick().await;
        let base = read.load_full();
        let looking = Arc::clone(&base);
        // A disk that does not answer holds up this task and nothing else.
        let Ok(now) = tokio::task::spawn_blocking(move || looking.again()).await else { return };
        let settled = now == before;
        before = now;
        // While one change waits to be taken over, the next one is seen again later.
        if settled && before != *base && changes.send(before.differing(&base)).await.is_err() {
            return;
        }
    }
}

impl Running {
    /// Reads all files again, for the configuration in force.
    pub(super) async fn renew(&mut self, changed: &[String]) {
        let result = self.read_again().await.map_err(|error| {
            pins::note(&error, &self.metrics);
            format!("{error:#}")
        });
        let files = changed.join(" ");
        let label = match &result {
            Ok(()) => {
                facts::certificates(&self.policy.load(), &self.metrics, clock::unix_now());
                pins::warn_of(&self.policy.load(), clock::unix_now());
                info!(files, "files changed, taken over");
                "applied"
            }
            Err(error) => {
                error!(files, error, "files changed and are refused, what was read before stays in force");
                "refused"
            }
        };
        self.metrics.renewals.with_label_values(&[label]).inc();
        self.metrics.files_refused.set(result.is_err().into());
        let tokens = facts::tokens(&self.policy.load());
        let at = clock::instant_now();
        self.facts.rcu(|facts| Facts {
            tokens: tokens.clone(),
            files: Some((at, result.clone())),
            ..(**facts).clone()
        });
    }

    async fn read_again(&self) -> Result<()> {
        let (config, policy) = (self.config.clone(), self.policy.load_full());
        let reading = tokio::task::spawn_blocking(move || {
            // Before they are read: what changes meanwhile is noticed afterwards.
            let seen = Seen::of(&config);
            (seen, policy.reload(&config))
        });
        let (seen, policy): (Seen, Result<Policy>) = reading.await.context("reading the files")?;
        // A bad file is not tried again until it changes again.
        self.read.store(Arc::new(seen));
        self.policy.store(Arc::new(policy?));
        Ok(())
    }
}
