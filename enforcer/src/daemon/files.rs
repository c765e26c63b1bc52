//! Files that change under the daemon: certificates, keys, authorities, revocations, ticket keys, key sets. A new one is taken
//! over by itself; a bad one changes nothing, and holds up no other.
//!
//! They are looked at once a second by stat(2), through every symbolic link. Notifications by inotify(7) would be no
//! better: they follow an inode, so a file that is replaced by rename(2), or by the swap of a link above it as Kubernetes
//! mounts secrets, needs a watch on every folder of the path, and network file systems send none at all. A dozen files cost
//! some microseconds. The file that lists what is revoked is looked at more often: what stands there is meant to hold at once.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Error, Result};
use arc_swap::ArcSwap;
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tracing::{error, info};

use super::{devices, facts, pins, running::Running};
use crate::{clock, config::Config, control::answer::Facts};

/// Between two looks. What changed must look the same twice, so that a certificate and its key, which are written one after
/// the other, are both there.
const LOOK: Duration = Duration::from_secs(1);

/// The same for `revocation.file`: twice as long, and the time that it takes to read, until what it says is in force.
const QUICK_LOOK: Duration = Duration::from_millis(25);

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
pub(super) struct Seen {
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// The one among them that is looked at more often.
    quick: Option<PathBuf>,
}

impl Seen {
    /// As they are now.
    pub(super) fn of(config: &Config) -> Self {
        let files = config.files().into_iter().map(|path| (path.to_owned(), Stamp::of(path))).collect();
        Self { files, quick: config.revocation.file.clone() }
    }

    fn again(&self) -> Self {
        let files = self.files.iter().map(|(path, _)| (path.clone(), Stamp::of(path))).collect();
        Self { files, quick: self.quick.clone() }
    }

    fn differing(&self, other: &Self) -> Vec<PathBuf> {
        let pairs = self.files.iter().zip(&other.files).filter(|(a, b)| a != b);
        pairs.map(|((path, _), _)| path.clone()).collect()
    }

    fn stamp(&self, path: &Path) -> Option<Stamp> {
        self.files.iter().find(|(known, _)| known == path).and_then(|(_, stamp)| *stamp)
    }

    /// The same but for one file, which was read in this state.
    fn with(&self, path: &Path, stamp: Option<Stamp>) -> Self {
        let mut seen = self.clone();
        for (known, old) in &mut seen.files {
            if known == path {
                *old = stamp;
            }
        }
        seen
    }
}

/// Looks until it is aborted, and tells of every change against what was `read` last: once, as soon as it is over.
pub(super) async fn watch(read: Arc<ArcSwap<Seen>>, changes: mpsc::Sender<Vec<PathBuf>>) {
    watch_every(LOOK, read, changes).await;
}

async fn watch_every(look: Duration, read: Arc<ArcSwap<Seen>>, changes: mpsc::Sender<Vec<PathBuf>>) {
    let mut ticks = tokio::time::interval(look);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quick_ticks = tokio::time::interval(QUICK_LOOK);
    quick_ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut before, mut quick_before, mut quick_told) = (Seen::default(), None, None);
    loop {
        let quick = read.load().quick.clone();
        tokio::select! {
            _ = ticks.tick() => {}
            _ = quick_ticks.tick(), if quick.is_some() => {
                let Some(path) = quick else { continue };
                let looking = path.clone();
                let Ok(now) = tokio::task::spawn_blocking(move || Stamp::of(&looking)).await else { return };
                let settled = quick_before == Some(now);
                quick_before = Some(now);
                if settled && read.load().stamp(&path) != now && quick_told != Some(now) {
                    quick_told = Some(now);
                    if changes.send(vec![path]).await.is_err() {
                        return;
                    }
                }
                continue;
            }
        }
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
    pub(super) async fn renew(&mut self, changed: &[PathBuf]) {
        let listing = self.config.revocation.file.clone().filter(|file| changed.contains(file));
        let mut bad: Vec<String> = Vec::new();
        let alone = listing.is_some() && changed.len() == 1;
        // What is revoked is so at once, whatever else there is to read, and whatever becomes of that.
        if let Some(file) = listing {
            bad.extend(self.read_revocations(file).await.err().map(|error| format!("{error:#}")));
        }
        // While another one is bad that has to stay visible.
        if !alone || self.metrics.files_refused.get() != 0 {
            let others = self.read_again().await.unwrap_or_else(|error| vec![error]);
            for error in others {
                pins::note(&error, &self.metrics);
                let error = format!("{error:#}");
                if !bad.contains(&error) {
                    bad.push(error);
                }
            }
        }
        // What is good of them is in force.
        facts::certificates(&self.policy.load(), &self.metrics, clock::unix_now());
        let result = if bad.is_empty() { Ok(()) } else { Err(bad.join("; ")) };
        let files: Vec<String> = changed.iter().map(|path| path.display().to_string()).collect();
        let files = files.join(" ");
        let label = match &result {
            Ok(()) => {
                pins::warn_of(&self.policy.load(), clock::unix_now());
                devices::warn_of(&self.policy.load(), clock::unix_now());
                info!(files, "files changed, taken over");
                "applied"
            }
            Err(error) => {
                error!(
                    files,
                    error,
                    "files changed and are refused where they are bad: what was read before stays in force there"
                );
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

    /// What is revoked changes by itself, and is in force at once.
    async fn read_revocations(&self, file: PathBuf) -> Result<()> {
        let (config, policy) = (self.config.clone(), self.policy.load_full());
        let path = file.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let stamp = Stamp::of(&path);
            (stamp, policy.list_revoked(&config))
        });
        let (stamp, result) = reading.await.context("reading the files")?;
        self.read.store(Arc::new(self.read.load().with(&file, stamp)));
        result
    }

    /// Takes over what is good, and gives back what is bad.
    async fn read_again(&self) -> Result<Vec<Error>> {
        let (config, policy) = (self.config.clone(), self.policy.load_full());
        let reading = tokio::task::spawn_blocking(move || {
            // Before they are read: what changes meanwhile is noticed afterwards.
            let seen = Seen::of(&config);
            (seen, policy.renew(&config))
        });
        let (seen, renewed) = reading.await.context("reading the files")?;
        // A bad file is not tried again until it changes again.
        self.read.store(Arc::new(seen));
        let (policy, bad) = renewed?;
        self.policy.store(Arc::new(policy));
        Ok(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside a look that comes once in an hour, so that nothing else can have noticed it.
    #[tokio::test]
    async fn what_is_revoked_is_looked_at_more_often_than_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let (file, other) = (folder.path().join("revoked.jsonl"), folder.path().join("other.pem"));
        fs::write(&file, "").unwrap();
        fs::write(&other, "").unwrap();
        let files = [&file, &other].map(|path| (path.clone(), Stamp::of(path))).to_vec();
        let read = Arc::new(ArcSwap::from_pointee(Seen { files, quick: Some(file.clone()) }));
        let (changes, mut told) = mpsc::channel(1);
        let watching = tokio::spawn(watch_every(Duration::from_secs(3_600), Arc::clone(&read), changes));
        let mut next =
            async || tokio::time::timeout(Duration::from_secs(60), told.recv()).await.unwrap().unwrap();
        // Replaced, as editors do; and written in place.
        fs::write(&other, "changed").unwrap();
        fs::write(folder.path().join("new"), "{\"jti\": \"1\"}").unwrap();
        fs::rename(folder.path().join("new"), &file).unwrap();
        assert_eq!(next().await, [file.as_path()]);
        read.store(Arc::new(read.load().with(&file, Stamp::of(&file))));
        fs::write(&file, "{\"jti\": \"2\"}\n{\"jti\": \"3\"}").unwrap();
        assert_eq!(next().await, [file.as_path()]);
        watching.abort();
    }
}
