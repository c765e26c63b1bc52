//! What an earlier daemon left in maps that are still pinned: bans, listings, and what sources owe.
//!
//! Called by `Kernel` at the start. Reads the old maps and never writes them: until the new program is in place, the old one
//! judges by them.

use std::{os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::maps::{HashMap, LpmTrie, Map, MapData};
use enforcer_common::{
    ban::{Ban, Listing},
    limiter::{
        bucket_index,
        carry::{Debt, carry, debts},
    },
    maps,
    settings::{Identity, LIMITS, Limit, Settings},
    source::SourceKey,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tracing::warn;

use super::{memory::Words, pins::Found, raw};
use crate::{clock, prefix::Prefix};

/// What a start has found of an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Nothing.
    Fresh,
    /// Maps that it goes on with: bans and limits are as they were.
    TakenOver,
    /// Maps of another size: bans and limits are carried over.
    Migrated,
    /// Maps of a layout that it does not know: what sources owed is forgotten.
    Replaced,
}

impl Beginning {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Fresh, Self::TakenOver, Self::Migrated, Self::Replaced];

    pub(super) const fn of(found: &Found, understood: bool) -> Self {
        match found {
            Found::Nothing => Self::Fresh,
            Found::Same(_) => Self::TakenOver,
            Found::Other(_) if understood => Self::Migrated,
            Found::Other(_) => Self::Replaced,
        }
    }

    /// The name in `status` and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::TakenOver => "taken_over",
            Self::Migrated => "migrated",
            Self::Replaced => "replaced",
        }
    }
}

/// What the kernel's lists hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Banned sources, and until when.
    pub sources: Vec<(Prefix, Ban)>,
    /// Listed prefixes.
    pub prefixes: Vec<(Prefix, Listing)>,
}

/// Tables whose meaning is known, of whichever version. What else that version keeps is not looked at.
pub(super) struct Heritage {
    bans: HashMap<MapData, u64, Ban>,
    listed_v4: LpmTrie<MapData, [u8; 4], Listing>,
    listed_v6: LpmTrie<MapData, [u8; 16], Listing>,
    tables: Tables,
    identity: Identity,
}

/// The tables of what is owed; one that the version does not have is empty.
pub(super) struct Tables {
    /// By limit. The first one holds the exact bans as well.
    limits: [Option<Words>; LIMITS],
    /// Of the further budgets.
    budgets: Option<Words>,
}

impl Tables {
    /// From wherever `map` finds them by name: `None` where it is not.
    pub(super) fn open(map: &dyn Fn(&str) -> Result<Option<Map>>) -> Result<Self> {
        let table = |name| map(name)?.map(|map| Words::of(&map, name)).transpose();
        let [sources, connections, hellos, quic, bytes] = maps::LIMITERS;
        let limits = [table(sources)?, table(connections)?, table(hellos)?, table(quic)?, table(bytes)?];
        Ok(Self { limits, budgets: table(maps::BUDGETS)? })
    }

    /// Every debt of a limit, and every ban.
    fn debts(&self, limit: Limit, now: u64) -> impl Iterator<Item = (SourceKey, Debt)> {
        let all = all_debts(self.limits[limit as usize].as_ref(), now);
        all.filter_map(|(key, debt)| Some((SourceKey::from_number(key)?, debt)))
    }
}

/// Everything that is owed in a table, by key.
fn all_debts(table: Option<&Words>, now: u64) -> impl Iterator<Item = (u64, Debt)> {
    let buckets = (0u32..).map_while(move |index| table?.bucket(index));
    buckets.flat_map(move |bucket| debts(bucket, now).collect::<Vec<_>>())
}

/// What became of the debts of an earlier layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// Sources that owe what they owed, counted by limit.
    pub(super) debts: u64,
    /// Those for which the new tables have no room, or which are cut differently now: they begin anew.
    pub(super) forgotten: u64,
}

impl Heritage {
    /// Opens what is pinned in `directory`.
    pub(super) fn open(directory: &Path) -> Result<Self> {
        let map = |name: &str| pinned(directory, name);
        let table = |name: &str| {
            let there = directory.join(name).exists();
            there.then(|| map(name)).transpose()
        };
        Ok(Self {
            bans: HashMap::try_from(map(maps::BANS)?)?,
            listed_v4: LpmTrie::try_from(map(maps::LISTED_V4)?)?,
            listed_v6: LpmTrie::try_from(map(maps::LISTED_V6)?)?,
            tables: Tables::open(&table)?,
            identity: identity(&map(maps::SETTINGS)?)?,
        })
    }

    /// Where the old program finds a source.
    pub(super) const fn seed(&self) -> u64 {
        self.identity.seed
    }

    /// Everything that is listed. Ends of bans are as they were written: some may be over.
    pub(super) fn held(&self) -> Result<Held> {
        let mut held = Held::default();
        for (key, debt) in self.tables.debts(Limit::Packets, clock::kernel_now().0) {
            if let Debt::Banned(until) = debt {
                held.sources.push((Prefix::of_key(key, self.identity.v6_mask), Ban { until }));
            }
        }
        for entry in self.bans.iter() {
            let (key, ban) = entry.context("reading the bans of an earlier daemon")?;
            if let Some(key) = SourceKey::from_number(key) {
                held.sources.push((Prefix::of_key(key, self.identity.v6_mask), ban));
            }
        }
        for entry in self.listed_v4.iter() {
            let (key, listing) = entry.context("reading the prefixes of an earlier daemon")?;
            let net = Ipv4Net::new(key.data().into(), u8::try_from(key.prefix_len())?)?;
            held.prefixes.push((Prefix::from(IpNet::V4(net)), listing));
        }
        for entry in self.listed_v6.iter() {
            let (key, listing) = entry.context("reading the prefixes of an earlier daemon")?;
            let net = Ipv6Net::new(key.data().into(), u8::try_from(key.prefix_len())?)?;
            held.prefixes.push((Prefix::from(IpNet::V6(net)), listing));
        }
        Ok(held)
    }

    /// Makes sources owe in the tables of a new program what they owe in the old ones. To be called before the new one is in
    /// place and again after that: what was charged in between counts as well.
    pub(super) fn carry(&self, tables: &Tables, settings: &Settings) -> Carried {
        let mut carried = Carried::default();
        let now = clock::kernel_now().0;
        let same_cut = self.identity.v6_mask == settings.v6_mask;
        let mut owe = |table: Option<&Words>, mask: u32, key: u64, tat: u64, known: bool| {
            let bucket = table.and_then(|table| table.bucket(bucket_index(key, settings.seed, mask)));
            let kept = known && bucket.is_some_and(|bucket| carry(bucket, key, tat, now));
            carried.debts += u64::from(kept);
            carried.forgotten += u64::from(!kept);
        };
        for limit in Limit::ALL {
            for (key, debt) in self.tables.debts(limit, now) {
                // Bans are the ledger's to write.
                let Debt::Owes(tat) = debt else { continue };
                let table = tables.limits[limit as usize].as_ref();
                owe(table, settings.mask(limit), key.get(), tat, same_cut || key.is_v4());
            }
        }
        // Their keys hang on the seed, and tell nothing of the source.
        let known = same_cut && self.identity.seed == settings.seed;
        for (key, debt) in all_debts(self.tables.budgets.as_ref(), now) {
            if let Debt::Owes(tat) = debt {
                owe(tables.budgets.as_ref(), settings.budget_mask(), key, tat, known);
            }
        }
        carried
    }
}

/// The old maps, if this version knows what they mean. Where it does not, the program is replaced all the same.
pub(super) fn inherit(found: &Found) -> Option<Heritage> {
    let layer = match found {
        Found::Nothing => return None,
        Found::Same(layer) | Found::Other(layer) => layer,
    };
    let opened = if layer.is_known() {
        Heritage::open(&layer.directory)
    } else {
        Err(anyhow!("this version does not know the layout {}", layer.name()))
    };
    opened
        .inspect_err(|error| {
            let reason = format!("{error:#}");
            warn!(
                reason,
                "what an earlier daemon left cannot be carried over: what sources owe is forgotten"
            );
        })
        .ok()
}

/// How the settings begin, however long they are.
fn identity(settings: &Map) -> Result<Identity> {
    let Map::Array(data) = settings else { bail!("the settings of an earlier daemon are no array") };
    let size = data.info()?.value_size() as usize;
    let bytes =
        raw::first_value(data.fd().as_fd(), size).context("reading the settings of an earlier daemon")?;
    let field =
        |at: usize| bytes.get(at..at + 8).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)));
    let short = "the settings of an earlier daemon are too short";
    let (head, v6_mask, seed) =
        (field(0).context(short)?, field(8).context(short)?, field(16).context(short)?);
    Ok(Identity { abi: head as u32, flags: (head >> 32) as u32, v6_mask, seed })
}

fn pinned(directory: &Path, name: &str) -> Result<Map> {
    let opened = MapData::from_pin(directory.join(name)).and_then(Map::from_map_data);
    opened.with_context(|| format!("opening the map {name} of an earlier daemon"))
}
