//! Between what is revoked and the store: reads at the start what was kept, and hands over what is to be kept.
//!
//! The file holds the secret of the marks, the marks and their terms: neither tokens nor names.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, Result};
use tracing::warn;

use super::{
    Journal, Revoked,
    mark::{Mark, Marker, SECRET},
    table::Terms,
};
use crate::store::{self, Change, Gauges, Store, Table};

/// Marks and what is said of them.
const REVOKED: Table = "revoked";
/// What holds for all of them.
const META: Table = "revoked-meta";
/// The row of [`META`] with the secret.
const SECRET_ROW: &str = "secret";

/// What was kept.
#[derive(Debug)]
pub struct Kept {
    /// Ready for use.
    pub revoked: Arc<Revoked>,
    /// Entries for which there is no room any more.
    pub without_room: usize,
    /// Whether the file could not be understood: nobody knows what was revoked.
    pub is_lost: bool,
}

/// Writes changes down.
struct Ledger {
    store: Store,
}

impl Journal for Ledger {
    fn write(&mut self, mark: Mark, terms: Option<Terms>) {
        let value = terms.map(|terms| terms.packed().to_le_bytes().to_vec());
        self.store.write([Change { table: REVOKED, key: mark.text(), value }]);
    }
}

/// Opens the store at `path`, or makes it, and reads what is in there and holds at `now`.
pub fn begin(path: &Path, most: usize, gauges: Gauges, now: u64) -> Result<Kept> {
    let opened = store::open("revocation.store", path, gauges)?;
    let mut store = opened.store;
    let mut secret: Option<[u8; SECRET]> = None;
    store.each(META, |key, value| {
        if key == SECRET_ROW {
            secret = value.try_into().ok();
        }
    })?;
    let mut entries: Vec<(Mark, Terms)> = Vec::new();
    let (mut stale, mut unreadable) = (Vec::new(), 0_usize);
    store.each(REVOKED, |key, value| {
        let terms = value.try_into().ok().map(u64::from_le_bytes).and_then(Terms::unpacked);
        match (Mark::of_text(key), terms) {
            (Some(mark), Some(terms)) if terms.holds(now) => entries.push((mark, terms)),
            (Some(_), Some(_)) => stale.push(key.to_owned()),
            (_, _) => unreadable += 1,
        }
    })?;
    // Entries without the secret that they were made with would mean nothing.
    let is_lost = opened.set_aside.is_some() || unreadable > 0 || (secret.is_none() && !entries.is_empty());
    let marker = match &secret {
        Some(secret) => Marker::of_secret(secret),
        None => {
            let (marker, fresh) = Marker::fresh().context("revocation.store")?;
            let value = Some(fresh.to_vec());
            store.write([Change { table: META, key: SECRET_ROW.to_owned(), value }]);
            marker
        }
    };
    store.write(stale.into_iter().map(|key| Change { table: REVOKED, key, value: None }));
    let revoked = Revoked::with(marker, most, Some(Box::new(Ledger { store })));
    let mut without_room = 0;
    for (mark, terms) in entries {
        without_room += usize::from(revoked.learn(mark, terms, now).is_err());
    }
    if unreadable > 0 {
        warn!(entries = unreadable, "entries of revocation.store cannot be understood");
    }
    Ok(Kept { revoked: Arc::new(revoked), without_room, is_lost })
}
