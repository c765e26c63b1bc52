//! The embedded store: named tables of keys and bytes in one file, which survive the daemon and the machine.
//!
//! Whoever owns a table says what its bytes mean; here they are only kept. Writing never waits: changes are gathered, and a
//! thread of its own commits whatever has come together. It never runs on the request path.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use prometheus::{IntCounter, IntGauge};
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageError,
    TableDefinition, TableError,
};
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::{clock, fault};

/// Pages that are kept in memory, bytes: the daemon reads the file once, at its start.
const CACHE: usize = 2 << 20;

/// Between two commits: each of them waits for the disk, and a flood of offences must not keep it busy.
const PAUSE: Duration = Duration::from_millis(100);

/// More changes than this are many: they are still coming in, and written together once no more do.
const MANY: usize = 10_000;

/// How often is looked whether more have come, at most: what holds must be written down some time.
const LOOKS: usize = 20;

/// Batches that wait for a disk that fails, at most: more are made one, in which each key has its newest value only.
const BATCHES: usize = 256;

/// Between two attempts after one that failed.
const AGAIN: Duration = Duration::from_secs(1);

/// A table, by its name in the file.
pub type Table = &'static str;

/// One change: the new value of a key, or its removal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// Which.
    pub key: String,
    /// What shall be there; `None`: nothing.
    pub value: Option<Vec<u8>>,
}

/// What the store says of itself.
#[derive(Clone, Debug)]
pub struct Gauges {
    /// Changes that have not reached the file yet.
    pub pending: IntGauge,
    /// Attempts to write that failed.
    pub errors: IntCounter,
}

/// Changes in their order, told anew at each attempt to write them.
type Batch = Box<dyn Fn() -> Vec<Change> + Send>;

#[derive(Default)]
struct Inbox {
    batches: Vec<Batch>,
    /// Changes in them.
    pending: usize,
    /// Whoever waits until what is pending is in the file.
    waiting: Vec<oneshot::Sender<()>>,
    closed: bool,
}

/// The same changes as one batch, in which each key has its newest value only; and how many those are.
fn merged(batches: Vec<Batch>) -> (Batch, usize) {
    let newest: BTreeMap<(Table, String), Option<Vec<u8>>> = batches
        .iter()
        .flat_map(|batch| batch())
        .map(|change| ((change.table, change.key), change.value))
        .collect();
    let count = newest.len();
    let batch = move || {
        let change = |((table, key), value): (&(Table, String), &Option<Vec<u8>>)| Change {
            table,
            key: key.clone(),
            value: value.clone(),
        };
        newest.iter().map(change).collect()
    };
    (Box::new(batch), count)
}

struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    gauges: Gauges,
    path: PathBuf,
}

/// A store that is open. Dropping it writes what is pending.
pub struct Store {
    shared: Arc<Shared>,
    /// Until the thread has it.
    database: Option<Database>,
    writer: Option<JoinHandle<()>>,
}

/// What opening a store came to.
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Where the file has been put that could not be understood.
    pub set_aside: Option<PathBuf>,
}

/// Opens the store at `path`, which `key` of the configuration names, or makes it. A file that is broken is renamed, so that a new one can take its place: a daemon
/// that does not start would protect nobody.
pub fn open(key: &str, path: &Path, gauges: Gauges) -> Result<Opened> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| explain(key, path, &error))?;
    }
    let (database, set_aside) = match database(path) {
        Ok(database) => (database, None),
        Err(problem) if is_broken(&problem) => {
            let aside = aside(path)?;
            error!(
                file = %path.display(), moved_to = %aside.display(), error = %problem,
                "the store cannot be read: it was set aside, and a new one begins"
            );
            (database(path).map_err(|error| refuse(key, path, error))?, Some(aside))
        }
        Err(problem) => return Err(refuse(key, path, problem)),
    };
    let shared = Shared { inbox: Mutex::default(), wake: Condvar::new(), gauges, path: path.to_owned() };
    let store = Store { shared: Arc::new(shared), database: Some(database), writer: None };
    Ok(Opened { store, set_aside })
}

impl Store {
    /// Everything in a table; before the first [`Store::write`].
    pub fn read(&self, table: Table) -> Result<Vec<(String, Vec<u8>)>> {
        let mut rows = Vec::new();
        self.each(table, |key, value| rows.push((key.to_owned(), value.to_vec())))?;
        Ok(rows)
    }

    /// The same one by one, for tables that are large.
    pub fn each(&self, table: Table, mut see: impl FnMut(&str, &[u8])) -> Result<()> {
        let context = || format!("reading {} from {}", table, self.shared.path.display());
        let Some(database) = &self.database else {
            return Err(anyhow!("read too late")).with_context(context);
        };
        let read = database.begin_read().with_context(context)?;
        let rows = match read.open_table(definition(table)) {
            Ok(rows) => rows,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(error).with_context(context),
        };
        for row in rows.iter().with_context(context)? {
            let (key, value) = row.with_context(context)?;
            see(key.value(), value.value());
        }
        Ok(())
    }

    /// Has `changes` written soon; the newest of a key counts.
    pub fn write(&mut self, changes: impl IntoIterator<Item = Change>) {
        let changes: Vec<Change> = changes.into_iter().collect();
        self.write_later(changes.len(), move || changes.clone());
    }

    /// The same for `count` changes that are put into words by the thread that writes them, once more for each attempt.
    pub fn write_later(&mut self, count: usize, changes: impl Fn() -> Vec<Change> + Send + 'static) {
        self.hand_over(count, Box::new(changes), None);
    }

    /// The same at once, for whoever must not go on before; what is received then says that it is in the file, an error that it
    /// could not be written.
    pub fn write_now(&mut self, changes: impl IntoIterator<Item = Change>) -> oneshot::Receiver<()> {
        let (written, waits) = oneshot::channel();
        let changes: Vec<Change> = changes.into_iter().collect();
        self.hand_over(changes.len(), Box::new(move || changes.clone()), Some(written));
        waits
    }

    fn hand_over(&mut self, count: usize, batch: Batch, written: Option<oneshot::Sender<()>>) {
        if count == 0 {
            return;
        }
        let mut inbox = lock(&self.shared.inbox);
        inbox.waiting.extend(written);
        inbox.batches.push(batch);
        inbox.pending += count;
        self.shared.tell(inbox.pending);
        drop(inbox);
        self.shared.wake.notify_one();
        if let Some(database) = self.database.take() {
            let shared = Arc::clone(&self.shared);
            self.writer = Some(thread::spawn(move || run(&shared, database)));
        }
    }
}

impl Shared {
    fn tell(&self, pending: usize) {
        self.gauges.pending.set(i64::try_from(pending).unwrap_or(i64::MAX));
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        lock(&self.shared.inbox).closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            // A panic there has been reported already.
            let _ = writer.join();
        }
    }
}

/// The thread: commits what is pending until the store is closed and nothing is.
fn run(shared: &Shared, database: Database) {
    let mut open = Some(database);
    let mut failing = false;
    loop {
        let mut inbox = lock(&shared.inbox);
        while inbox.batches.is_empty() && !inbox.closed {
            inbox = shared.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner);
        }
        let mut inbox = gathered(shared, inbox);
        let batches = std::mem::take(&mut inbox.batches);
        let count = std::mem::take(&mut inbox.pending);
        let waiting = std::mem::take(&mut inbox.waiting);
        let closed = inbox.closed;
        drop(inbox);
        if batches.is_empty() {
            return;
        }
        let written = commit(shared, &mut open, &batches);
        if written.is_ok() {
            // Whoever has gone away has not waited for it.
            for waits in waiting {
                let _ = waits.send(());
            }
        }
        // Outside the lock, because of many it takes some time.
        let (batches, count) = if written.is_err() && batches.len() > BATCHES {
            let (batch, count) = merged(batches);
            (vec![batch], count)
        } else {
            (batches, count)
        };
        let mut inbox = lock(&shared.inbox);
        match &written {
            Ok(()) if failing => info!(file = %shared.path.display(), "the store is written again"),
            Ok(()) => {}
            Err(problem) => {
                shared.gauges.errors.inc();
                if !failing || closed {
                    error!(
                        file = %shared.path.display(), error = format!("{problem:#}"), changes = count,
                        "the store cannot be written; trying on"
                    );
                }
                // What has come in since is newer.
                inbox.batches.splice(0..0, batches);
                inbox.pending += count;
            }
        }
        failing = written.is_err();
        shared.tell(inbox.pending);
        if failing && closed {
            return;
        }
        if !closed {
            // Woken early only by the end, and by whoever waits while the disk does its work.
            let pause = if failing { AGAIN } else { PAUSE };
            let until = |inbox: &mut Inbox| !inbox.closed && (failing || inbox.waiting.is_empty());
            drop(shared.wake.wait_timeout_while(inbox, pause, until));
        }
    }
}

/// Waits while very many changes are coming in: one transaction costs less than several, and leaves the processor to whoever makes
/// the changes.
fn gathered<'a>(shared: &'a Shared, mut inbox: MutexGuard<'a, Inbox>) -> MutexGuard<'a, Inbox> {
    let mut before = 0;
    for _ in 0..LOOKS {
        let pending = inbox.pending;
        if pending < MANY || pending == before || inbox.closed || !inbox.waiting.is_empty() {
            break;
        }
        before = pending;
        let waited = shared.wake.wait_timeout_while(inbox, PAUSE, |inbox| !inbox.closed);
        inbox = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    inbox
}

/// One transaction. After an error the file is opened anew: redb does not go on after a failure of the disk.
fn commit(shared: &Shared, open: &mut Option<Database>, batches: &[Batch]) -> Result<()> {
    let opened = match open.take() {
        Some(database) => database,
        None => database(&shared.path)?,
    };
    let transaction = opened.begin_write()?;
    for batch in batches {
        let mut changes = batch();
        // In the order of the file: neighbours share a page. Of one key the last stays the last.
        changes.sort_by(|one, next| (one.table, &one.key).cmp(&(next.table, &next.key)));
        for of_one_table in changes.chunk_by(|one, next| one.table == next.table) {
            let [Change { table, .. }, ..] = of_one_table else { continue };
            let mut rows = transaction.open_table(definition(table))?;
            for Change { key, value, .. } in of_one_table {
                match value {
                    Some(value) => drop(rows.insert(key.as_str(), value.as_slice())?),
                    None => drop(rows.remove(key.as_str())?),
                }
            }
        }
    }
    transaction.commit()?;
    *open = Some(opened);
    Ok(())
}

const fn definition(table: Table) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(table)
}

fn database(path: &Path) -> Result<Database, DatabaseError> {
    Builder::new().set_cache_size(CACHE).create(path)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the library's errors and io::ErrorKind are open-ended")]
fn is_broken(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::UpgradeRequired(_) | DatabaseError::Storage(StorageError::Corrupted(_)) => true,
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData)
        }
        _ => false,
    }
}

/// Renames a file that cannot be understood; the time keeps those apart that broke before.
fn aside(path: &Path) -> Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".broken-{}", clock::unix_now()));
    let aside = PathBuf::from(name);
    fs::rename(path, &aside)
        .with_context(|| format!("{} cannot be read, and not be set aside either", path.display()))?;
    Ok(aside)
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the library's errors are open-ended")]
fn refuse(key: &str, path: &Path, error: DatabaseError) -> anyhow::Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => anyhow!(
            "{key}: another process has {} open: stop that enforcer, or name another file",
            path.display()
        ),
        DatabaseError::Storage(StorageError::Io(error)) => explain(key, path, &error),
        error => anyhow!("{key}: {} cannot be opened: {error}", path.display()),
    }
}

fn explain(key: &str, path: &Path, error: &io::Error) -> anyhow::Error {
    let text = format!(
        "{key}: {} cannot be opened or made: {error}; give its folder to the daemon's user (the packaged unit does), name another file, or set {key} = \"off\"",
        path.display()
    );
    if error.kind() == io::ErrorKind::PermissionDenied { fault::permission(text) } else { anyhow!(text) }
}

fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = "things";

    fn gauges() -> Gauges {
        Gauges {
            pending: IntGauge::new("pending", "x").unwrap(),
            errors: IntCounter::new("errors", "x").unwrap(),
        }
    }

    fn change(key: &str, value: Option<&str>) -> Change {
        Change { table: TABLE, key: key.into(), value: value.map(|text| text.as_bytes().to_vec()) }
    }

    #[test]
    fn what_was_written_is_there_after_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("store.redb");
        let mut opened = open("bans.store", &path, gauges()).unwrap();
        assert!(opened.set_aside.is_none() && opened.store.read(TABLE).unwrap().is_empty());
        opened.store.write([change("a", Some("1")), change("b", Some("2"))]);
        opened.store.write([change("a", None), change("b", Some("3"))]);
        let Err(refused) = open("bans.store", &path, gauges()) else { panic!("opened twice") };
        assert!(refused.to_string().contains("another process"), "{refused}");
        drop(opened);
        let opened = open("bans.store", &path, gauges()).unwrap();
        assert_eq!(opened.store.read(TABLE).unwrap(), [("b".to_owned(), b"3".to_vec())]);
    }

    #[test]
    fn what_waits_for_a_disk_is_bounded_by_its_keys_and_keeps_the_newest() {
        let batch = |round: usize| -> Batch {
            Box::new(move || vec![change("a", Some(&round.to_string())), change("b", None)])
        };
        let (batch, count) = merged((0..1000).map(batch).collect());
        assert_eq!(count, 2);
        assert_eq!(batch(), [change("a", Some("999")), change("b", None)]);
    }

    #[test]
    fn who_waits_is_told_once_it_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        let mut store = open("bans.store", &path, gauges()).unwrap().store;
        for n in 0..3_u8 {
            let key = n.to_string();
            store.write_now([change(&key, Some("x"))]).blocking_recv().unwrap();
            // As it lies there, without the store's help.
            let copy = folder.path().join(format!("copy-{n}.redb"));
            fs::copy(&path, &copy).unwrap();
            let rows = open("bans.store", &copy, gauges()).unwrap().store.read(TABLE).unwrap();
            assert_eq!(rows.len(), usize::from(n) + 1);
        }
    }

    #[test]
    fn a_broken_file_is_set_aside_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.redb");
        fs::write(&path, "no store at all, but long enough to be one".repeat(1000)).unwrap();
        let opened = open("bans.store", &path, gauges()).unwrap();
        let aside = opened.set_aside.unwrap();
        assert!(fs::read_to_string(aside).unwrap().starts_with("no store"));
        assert!(opened.store.read(TABLE).unwrap().is_empty());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let Err(refused) = open("bans.store", &folder.path().join("file/store.redb"), gauges()) else {
            panic!("opened")
        };
        let text = refused.to_string();
        assert!(text.contains("file/store.redb") && text.contains("bans.store = \"off\""), "{text}");
    }
}
