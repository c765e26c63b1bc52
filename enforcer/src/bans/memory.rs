//! What of the ledger outlives the daemon, and how it is written down: bans, operators' allowances and tiers, and how often a
//! source was banned before.
//!
//! The ledger says what to save ([`Save`]); the ban task hands it to the store; at the start the daemon reads it back. Ends
//! are kept twice: in the kernel's time, which is exact while the machine runs, and by the calendar for after that.
//! Nothing here reads a clock or a file.

use serde::{Deserialize, Serialize};

use super::record::{Ban, Cause, FOREVER, Text, Tiered};
use crate::{
    clock::{Calendar, KernelTime},
    denial::Denial,
    prefix::Prefix,
    store::{Change, Table},
};

/// The tables in the store.
pub const BANS: Table = "bans";
/// See [`BANS`].
pub const ALLOWANCES: Table = "allowances";
/// See [`BANS`].
pub const TIERS: Table = "tiers";
/// See [`BANS`].
pub const HISTORIES: Table = "histories";
/// Under [`BOOT`]: in which run of the machine the kernel's times in the other tables were taken.
pub const META: Table = "meta";
const BOOT: &str = "boot";

/// Something to remember, or to forget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Save {
    /// A ban began, changed, or is over.
    Ban(Prefix, Option<Ban>),
    /// An operator's allowance.
    Allowance(Prefix, Option<Allowed>),
    /// An operator's word on a tier.
    Tier(Prefix, Option<Tiered>),
    /// The earlier bans of a source.
    History(Prefix, Option<History>),
}

/// What is remembered of an operator's allowance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Why.
    pub reason: Text,
    /// Since when.
    pub since: KernelTime,
}

/// What is remembered of a source that was banned for offences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Bans so far, each soon after the one before.
    pub strikes: u8,
    /// End of the last one.
    pub last_end: KernelTime,
    /// The last offence.
    pub last: Denial,
}

/// Everything that was remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bans, some of which may be over.
    pub bans: Vec<Ban>,
    /// Operators' allowances.
    pub allowances: Vec<(Prefix, Allowed)>,
    /// Operators' words on tiers.
    pub tiers: Vec<(Prefix, Tiered)>,
    /// Earlier bans by source.
    pub histories: Vec<(Prefix, History)>,
    /// Entries that could not be understood; they are forgotten.
    pub unreadable: usize,
}

/// A moment, in both times.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Stamp {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    unix_ms: u64,
    /// `CLOCK_MONOTONIC` of the machine's run in [`META`], nanoseconds.
    kernel_ns: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct BanRecord {
    /// The denial's code, for a ban by offences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denial: Option<String>,
    /// The operator's reason, for one by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    since: Stamp,
    /// Absent: by hand only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Stamp>,
    offences: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct AllowanceRecord {
    reason: String,
    since: Stamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct TierRecord {
    tier: String,
    reason: String,
    since: Stamp,
}

#[derive(Debug, Serialize, Deserialize)]
struct HistoryRecord {
    bans: u8,
    last_end: Stamp,
    denial: String,
}

/// Translates between records and the ledger's own values, at one moment.
#[derive(Debug)]
pub struct Scribe<'a> {
    calendar: &'a Calendar,
    /// Whether the kernel's times in the records are of this run of the machine.
    same_boot: bool,
}

impl<'a> Scribe<'a> {
    /// For writing: stamps are of this run of the machine.
    pub const fn new(calendar: &'a Calendar) -> Self {
        Self { calendar, same_boot: true }
    }

    /// What is to be written for `save`.
    pub fn change(&self, save: &Save) -> Change {
        let (table, prefix, value) = match save {
            Save::Ban(prefix, ban) => (BANS, prefix, ban.as_ref().map(|ban| json(&self.ban_record(ban)))),
            Save::Allowance(prefix, allowed) => {
                let record = |allowed: &Allowed| AllowanceRecord {
                    reason: allowed.reason.as_str().to_owned(),
                    since: self.stamp(allowed.since),
                };
                (ALLOWANCES, prefix, allowed.as_ref().map(|allowed| json(&record(allowed))))
            }
            Save::Tier(prefix, tiered) => {
                let record = |tiered: &Tiered| TierRecord {
                    tier: tiered.tier.as_str().to_owned(),
                    reason: tiered.reason.as_str().to_owned(),
                    since: self.stamp(tiered.since),
                };
                (TIERS, prefix, tiered.as_ref().map(|tiered| json(&record(tiered))))
            }
            Save::History(prefix, history) => {
                let record = |history: &History| HistoryRecord {
                    bans: history.strikes,
                    last_end: self.stamp(history.last_end),
                    denial: history.last.code().to_owned(),
                };
                (HISTORIES, prefix, history.as_ref().map(|history| json(&record(history))))
            }
        };
        Change { table, key: prefix.spelled(), value }
    }

    /// The note of this run of the machine, to be written before anything else.
    pub fn boot(&self) -> Change {
        Change { table: META, key: BOOT.to_owned(), value: Some(self.calendar.boot.clone().into_bytes()) }
    }

    fn ban_record(&self, ban: &Ban) -> BanRecord {
        let (denial, reason) = match &ban.cause {
            Cause::Offence(denial) => (Some(denial.code().to_owned()), None),
            Cause::Operator(text) => (None, Some(text.as_str().to_owned())),
            Cause::Kept => (None, None),
        };
        let until = (ban.until != FOREVER).then(|| self.stamp(ban.until));
        BanRecord { denial, reason, since: self.stamp(ban.since), until, offences: ban.offences }
    }

    fn stamp(&self, time: KernelTime) -> Stamp {
        Stamp { unix_ms: self.calendar.unix_ms(time), kernel_ns: time.0 }
    }

    /// When something that began at `since` ends. By the calendar it never lasts longer than it was meant to, however
    /// wrong the clock is after a start of the machine.
    fn end(&self, since: Stamp, until: Stamp) -> KernelTime {
        if self.same_boot {
            return KernelTime(until.kernel_ns);
        }
        let whole = until.unix_ms.saturating_sub(since.unix_ms);
        let left = until.unix_ms.saturating_sub(self.calendar.now_unix_ms).min(whole);
        KernelTime(self.calendar.now.0.saturating_add(left.saturating_mul(1_000_000)))
    }

    fn moment(&self, stamp: Stamp) -> KernelTime {
        if self.same_boot { KernelTime(stamp.kernel_ns) } else { self.calendar.kernel(stamp.unix_ms) }
    }
}

/// The rows of each table, as the store has them.
#[derive(Debug, Default)]
pub struct Rows {
    /// [`BANS`]
    pub bans: Vec<(String, Vec<u8>)>,
    /// [`ALLOWANCES`]
    pub allowances: Vec<(String, Vec<u8>)>,
    /// [`TIERS`]
    pub tiers: Vec<(String, Vec<u8>)>,
    /// [`HISTORIES`]
    pub histories: Vec<(String, Vec<u8>)>,
    /// [`META`]
    pub meta: Vec<(String, Vec<u8>)>,
}

impl Rows {
    /// Whether they were written in this run of the machine.
    pub fn is_of(&self, calendar: &Calendar) -> bool {
        let boot = self.meta.iter().find(|(key, _)| key == BOOT).map(|(_, value)| value.as_slice());
        boot == Some(calendar.boot.as_bytes())
    }
}

/// Understands what was written, now or in an earlier run of the machine.
pub fn recall(rows: &Rows, calendar: &Calendar) -> Memory {
    let scribe = Scribe { calendar, same_boot: rows.is_of(calendar) };
    let mut memory = Memory::default();
    for row in &rows.bans {
        match read::<BanRecord>(row) {
            Some((prefix, record)) => memory.bans.push(scribe.recall_ban(prefix, &record)),
            None => memory.unreadable += 1,
        }
    }
    for row in &rows.allowances {
        match read::<AllowanceRecord>(row) {
            Some((prefix, record)) => {
                let allowed =
                    Allowed { reason: Text::new(&record.reason), since: scribe.moment(record.since) };
                memory.allowances.push((prefix, allowed));
            }
            None => memory.unreadable += 1,
        }
    }
    for row in &rows.tiers {
        match read::<TierRecord>(row) {
            Some((prefix, record)) => {
                let (tier, reason) = (Text::new(&record.tier), Text::new(&record.reason));
                memory.tiers.push((prefix, Tiered { tier, reason, since: scribe.moment(record.since) }));
            }
            None => memory.unreadable += 1,
        }
    }
    for row in &rows.histories {
        let read = read::<HistoryRecord>(row)
            .and_then(|(prefix, record)| Some((prefix, Denial::from_code(&record.denial)?, record)));
        match read {
            Some((prefix, last, record)) => {
                let history =
                    History { strikes: record.bans, last_end: scribe.moment(record.last_end), last };
                memory.histories.push((prefix, history));
            }
            None => memory.unreadable += 1,
        }
    }
    memory
}

impl Scribe<'_> {
    fn recall_ban(&self, prefix: Prefix, record: &BanRecord) -> Ban {
        let cause = match (&record.denial, &record.reason) {
            // A code of a newer version leaves a ban without its cause, but a ban.
            (Some(code), _) => Denial::from_code(code).map_or(Cause::Kept, Cause::Offence),
            (None, Some(reason)) => Cause::Operator(Text::new(reason)),
            (None, None) => Cause::Kept,
        };
        let until = record.until.map_or(FOREVER, |until| self.end(record.since, until));
        Ban { prefix, cause, since: self.moment(record.since), until, offences: record.offences }
    }
}

fn read<T: for<'de> Deserialize<'de>>((key, value): &(String, Vec<u8>)) -> Option<(Prefix, T)> {
    Some((key.parse().ok()?, serde_json::from_slice(value).ok()?))
}

/// Records are plain: nothing in them can fail to be written.
fn json(record: &impl Serialize) -> Vec<u8> {
    let written = serde_json::to_vec(record);
    debug_assert!(written.is_ok(), "a record that cannot be written");
    written.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn calendar(boot: &str, kernel_seconds: u64, unix_seconds: u64) -> Calendar {
        Calendar {
            now: KernelTime(kernel_seconds * SECOND),
            now_unix_ms: unix_seconds * 1000,
            boot: boot.to_owned(),
        }
    }

    fn rows(calendar: &Calendar, saves: &[Save]) -> Rows {
        let scribe = Scribe::new(calendar);
        let mut rows = Rows::default();
        for change in saves.iter().map(|save| scribe.change(save)).chain([scribe.boot()]) {
            let table = match change.table {
                BANS => &mut rows.bans,
                ALLOWANCES => &mut rows.allowances,
                TIERS => &mut rows.tiers,
                HISTORIES => &mut rows.histories,
                _ => &mut rows.meta,
            };
            table.extend(change.value.map(|value| (change.key, value)));
        }
        rows
    }

    fn ban(until: KernelTime) -> Ban {
        let prefix: Prefix = "198.18.7.0/24".parse().unwrap();
        let cause = Cause::Operator(Text::new("scraper"));
        Ban { prefix, cause, since: KernelTime(100 * SECOND), until, offences: 3 }
    }

    #[test]
    fn in_one_run_of_the_machine_everything_comes_back_to_the_nanosecond() {
        let begun = calendar("a", 100, 1_000_000);
        let ban = ban(KernelTime(700 * SECOND + 7));
        let allowed = Allowed { reason: Text::new("us"), since: KernelTime(5) };
        let tiered = Tiered { tier: Text::new("large"), reason: Text::new("us"), since: KernelTime(6) };
        let history =
            History { strikes: 2, last_end: KernelTime(9 * SECOND), last: Denial::TokenBadSignature };
        let prefix = ban.prefix;
        let saves = [
            Save::Ban(prefix, Some(ban.clone())),
            Save::Allowance(prefix, Some(allowed.clone())),
            Save::Tier(prefix, Some(tiered.clone())),
            Save::History(prefix, Some(history)),
        ];
        // The calendar was set back by a day meanwhile; nothing depends on it.
        let later = calendar("a", 160, 1_000_000 - 86_400);
        let expected = Memory {
            bans: vec![ban],
            allowances: vec![(prefix, allowed)],
            tiers: vec![(prefix, tiered)],
            histories: vec![(prefix, history)],
            unreadable: 0,
        };
        assert_eq!(recall(&rows(&begun, &saves), &later), expected);
    }

    #[test]
    fn after_a_restart_of_the_machine_the_calendar_counts_and_never_lengthens_a_ban() {
        let begun = calendar("a", 100, 1_000_000);
        let saved = ban(KernelTime(700 * SECOND));
        let rows = rows(&begun, &[Save::Ban(saved.prefix, Some(saved.clone()))]);
        let left = |unix: u64| {
            let recalled = recall(&rows, &calendar("b", 20, unix));
            recalled.bans[0].until.0 / SECOND - 20
        };
        assert_eq!(left(1_000_000 + 90), 510);
        assert_eq!(left(1_000_000 + 9_000), 0, "over");
        assert_eq!(left(0), 600, "a clock that begins in 1970");
        let forever = Save::Ban(saved.prefix, Some(ban(FOREVER)));
        let rows = super::tests::rows(&begun, &[forever]);
        assert_eq!(recall(&rows, &calendar("b", 20, 9_999_999)).bans[0].until, FOREVER);
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_what_is_newer_is_kept_as_a_ban() {
        let calendar = calendar("a", 100, 1_000_000);
        let mut rows = rows(&calendar, &[Save::Ban(ban(FOREVER).prefix, Some(ban(FOREVER)))]);
        rows.bans.push(("198.18.9.0/24".into(), b"{}".to_vec()));
        rows.bans.push(("no prefix".into(), rows.bans[0].1.clone()));
        let text = String::from_utf8(rows.bans[0].1.clone()).unwrap();
        let newer = text.replace("\"reason\":\"scraper\"", "\"denial\":\"of_a_later_version\"");
        rows.bans.push(("198.18.8.0/24".into(), newer.into_bytes()));
        let memory = recall(&rows, &calendar);
        assert_eq!((memory.bans.len(), memory.unreadable), (2, 2));
        assert_eq!(memory.bans[1].cause, Cause::Kept);
    }
}
