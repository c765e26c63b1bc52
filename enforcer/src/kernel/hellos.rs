//! What is listed of ClientHellos, as the program finds it: bits by the hashes of names and by fingerprints, see
//! [`enforcer_common::hello::lists`].
//!
//! `plane` writes them before it says in the settings that there are some, and takes off afterwards what is no longer listed: so a reload
//! refuses nothing that neither the old lists nor the new ones refuse.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap as MapOf, Map, MapData};
use enforcer_common::hello::{lists::entry, marks};

use crate::config::{Hellos, ServerName};

/// Everything that is listed. `key` is that of names.
pub fn entries(hellos: &Hellos, key: u64) -> HashMap<u64, u32> {
    let mut entries = HashMap::new();
    let lists = [
        (&hellos.refuse_names, entry::REFUSED, entry::REFUSED_BELOW),
        (&hellos.only_names, entry::SERVED, entry::SERVED_BELOW),
    ];
    for (list, exact, below) in lists {
        for ServerName { name, below: is_below } in list {
            // A name that has no hash was refused where it was read.
            if let Some(hash) = marks::of_name(name.as_bytes(), key) {
                *entries.entry(hash).or_default() |= if *is_below { below } else { exact };
            }
        }
    }
    for fingerprint in &hellos.refuse_fingerprints {
        *entries.entry(fingerprint.0).or_default() |= entry::FINGERPRINT;
    }
    entries
}

/// The map, and the copy that says what is in it.
pub(super) struct HellosMap {
    map: MapOf<MapData, u64, u32>,
    current: HashMap<u64, u32>,
}

impl HellosMap {
    /// The map with what is in it; nothing is written.
    pub(super) fn open(map: Map) -> Result<Self> {
        let map: MapOf<MapData, u64, u32> = MapOf::try_from(map)?;
        let current = map.iter().collect::<Result<_, _>>().context("reading the map of hellos")?;
        Ok(Self { map, current })
    }

    /// Adds what is not there yet.
    pub(super) fn add(&mut self, wanted: &HashMap<u64, u32>) -> Result<()> {
        for (hash, bits) in wanted {
            self.put(*hash, bits | self.current.get(hash).copied().unwrap_or(0))?;
        }
        Ok(())
    }

    /// Takes off what is too much.
    pub(super) fn settle(&mut self, wanted: &HashMap<u64, u32>) -> Result<()> {
        let held: Vec<u64> = self.current.keys().copied().collect();
        for hash in held {
            match wanted.get(&hash) {
                Some(bits) => self.put(hash, *bits)?,
                None => {
                    self.map.remove(&hash).context("writing the map of hellos")?;
                    self.current.remove(&hash);
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, hash: u64, bits: u32) -> Result<()> {
        if self.current.get(&hash) != Some(&bits) {
            self.map.insert(hash, bits, 0).context("writing the map of hellos")?;
            self.current.insert(hash, bits);
        }
        Ok(())
    }
}
