//! What the tables of the program cost beside the simple ones that they stand for: each a small program that chooses a key and looks it up,
//! in maps as large as those of a full enforcer.

use anyhow::Result;

use super::{
    measure::{Effort, Line},
    report::Row,
};
use crate::bpf::{Code, Keys, Map, Program, XDP_PASS};

/// Bans, and sources that owe.
const SOURCES: u32 = 1 << 20;
/// Buckets of a table with room for both, four to a line of the cache, twice.
const BUCKETS: u32 = 1 << 19;
/// Flows that await a hello.
const FLOWS: u32 = 1 << 16;
/// Flows to a bucket.
const PER_BUCKET: u32 = 8;
/// Bytes in a line of the cache.
const LINE: u32 = 64;
/// Words of the bitmap that stands in front of the trie.
const WORDS: u32 = 1 << 18;

/// Measures each design, net of what choosing a key costs.
pub(super) fn rows(effort: &Effort, frame: &[u8], cpu: usize, prefixes: u32) -> Result<Vec<Row>> {
    let hash = Map::hash(SOURCES)?;
    let buckets = Map::array(BUCKETS, LINE)?;
    // Every other /24 of the lower quarter of the upper half; what is looked up is anywhere in that half.
    let trie = Map::trie((0..prefixes).map(|number| 1 << 31 | number << 9))?;
    let bits = Map::array(WORDS, 8)?;
    let flows = Map::array(FLOWS / PER_BUCKET, LINE)?;
    let lru = Map::lru(FLOWS)?;
    let program = |mask: u32, keys, then: &dyn Fn(&mut Code) -> &mut Code| {
        let mut code = Code::default();
        code.next_key(keys, mask);
        then(&mut code);
        Program::load(code.constant(XDP_PASS))
    };
    let random = |mask, then: &dyn Fn(&mut Code) -> &mut Code| program(mask, Keys::Random, then);
    let chooses = random(SOURCES - 1, &|code| code)?;
    let designs = [
        (
            "bans: a hash of them, asked first, misses",
            random(SOURCES - 1, &|code| code.absent().look_up(&hash))?,
        ),
        ("bans: in the bucket that is charged anyway", random(BUCKETS - 1, &|code| code.look_up(&buckets))?),
        ("prefixes: the trie, always", random(i32::MAX as u32, &|code| code.look_up_prefix(&trie))?),
        ("prefixes: a bitmap in front of it", random(WORDS - 1, &|code| code.look_up(&bits))?),
        ("flows: a hash that forgets, misses", random(SOURCES - 1, &|code| code.absent().look_up(&lru))?),
        ("flows: the bucket of the flow", random(FLOWS / PER_BUCKET - 1, &|code| code.look_up(&flows))?),
        (
            "flows: a hash that forgets, takes one up",
            program(u32::MAX, Keys::Rising, &|code| code.insert(&lru))?,
        ),
    ];
    designs
        .iter()
        .map(|(name, program)| {
            let line = |program| Line { program, frame, action: Some(XDP_PASS) };
            let [floor, sample] = effort.measure([line(&chooses), line(program)], &[cpu])?;
            Ok(Row::plain(name, true, 1, sample, sample.median - floor.median))
        })
        .collect()
}
