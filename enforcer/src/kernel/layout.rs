//! What the maps look like: type, sizes and flags of each, and a name for the whole.
//!
//! Pinned maps are used again only if they are exactly what the object would make anew: aya opens a pin without looking at
//! it. Called by `Kernel::load`; changes nothing.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::MapInfo;
use enforcer_common::{
    maps,
    settings::{ABI, TABLES},
};

/// Maps that belong to one load of the program, besides its constants: its log, and samples for a daemon that reads them now.
const FLEETING: [&str; 2] = ["AYA_LOGS", maps::EVENTS];

/// How the name of every layout begins.
const PREFIX: &str = "layout-";

/// One map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
}

/// Every lasting map, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    shapes: BTreeMap<String, Shape>,
    /// What the keys in them mean beyond their size.
    meaning: u64,
}

impl Layout {
    /// The layout of the maps of `object`, some of which get other numbers of `entries`. `meaning` is whatever else the
    /// content depends on.
    pub(super) fn of(object: &[u8], entries: &[(&str, u32)], meaning: u64) -> Result<Self> {
        let object = aya_obj::Object::parse(object).context("reading the XDP program")?;
        let lasting = object.maps.iter().filter(|(name, _)| is_lasting(name));
        let shape = |(name, map): (&String, &aya_obj::Map)| {
            let given = entries.iter().find(|(other, _)| other == name).map(|(_, number)| *number);
            let shape = Shape {
                kind: map.map_type(),
                key: map.key_size(),
                value: map.value_size(),
                entries: given.unwrap_or(map.max_entries()),
                flags: map.map_flags(),
            };
            (name.clone(), shape)
        };
        Ok(Self { shapes: lasting.map(shape).collect(), meaning })
    }

    /// The names of the maps.
    pub(super) fn maps(&self) -> impl Iterator<Item = &str> {
        self.shapes.keys().map(String::as_str)
    }

    /// `layout-ABI-tTABLES-HASH`: two layouts with one name are the same.
    pub(super) fn name(&self) -> String {
        let mut hash = Fnv::new();
        hash.add(&self.meaning.to_le_bytes());
        for (name, shape) in &self.shapes {
            hash.add(name.as_bytes());
            for number in [shape.kind, shape.key, shape.value, shape.entries, shape.flags] {
                hash.add(&number.to_le_bytes());
            }
        }
        format!("{PREFIX}{ABI}-t{TABLES}-{:016x}", hash.0)
    }

    /// Why what is pinned in `directory` is not this layout.
    pub(super) fn differs(&self, directory: &Path) -> Result<()> {
        self.shapes.iter().try_for_each(|(name, shape)| {
            let info = MapInfo::from_pin(directory.join(name)).with_context(|| format!("no map {name}"))?;
            let found = Shape {
                kind: info.map_type().map(|kind| kind as u32)?,
                key: info.key_size(),
                value: info.value_size(),
                entries: info.max_entries(),
                flags: info.map_flags(),
            };
            if found == *shape {
                Ok(())
            } else {
                Err(anyhow!("the map {name} is {found:?} and not {shape:?}"))
            }
        })
    }
}

/// Whether a map outlives the load that made it.
fn is_lasting(name: &str) -> bool {
    !name.starts_with('.') && !FLEETING.contains(&name)
}

/// The [`ABI`] in the name of a layout; `None` for other names.
pub(super) fn abi(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// The [`TABLES`] in the name of a layout; `None` for other names.
pub(super) fn tables(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').nth(1)?.strip_prefix('t')?.parse().ok()
}

/// FNV-1a: the name must not depend on the compiler's own hash.
struct Fnv(u64);

impl Fnv {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_layouts_apart_and_carries_the_abi() {
        let shape = Shape { kind: 2, key: 4, value: 64, entries: 256, flags: 0 };
        let layout = |shape, meaning| Layout { shapes: [("TABLE".to_owned(), shape)].into(), meaning };
        let name = layout(shape, 64).name();
        assert_eq!(abi(&name), Some(ABI));
        assert_eq!(tables(&name), Some(TABLES));
        assert_eq!([tables("layout-7-0123"), tables("layout-7-t9-0123")], [None, Some(9)]);
        assert!(!name.contains('.'), "bpffs refuses dots");
        assert_ne!(name, layout(Shape { entries: 512, ..shape }, 64).name());
        assert_ne!(name, layout(shape, 56).name());
        assert_eq!([abi("link-3"), abi("layout-x-1"), abi("layout-7-1")], [None, None, Some(7)]);
        assert!(is_lasting("SETTINGS") && !is_lasting(".rodata") && !is_lasting("AYA_LOGS"));
    }
}
