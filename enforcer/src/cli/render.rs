//! Answers as people read them. Pure: text in memory, the terminal is elsewhere.

mod counters;
mod detail;
mod devices;
mod import;
pub mod packet;
mod pins;
mod revoked;
mod upstreams;

pub(super) use import::imported;
use packet::Paint;

use super::table::{Align, grouped, table};
use crate::control::{
    span::{human, remaining},
    wire::{AllowanceRow, Answer, BanRow, Done, Reloaded, TierRow},
};

/// Any answer.
pub fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => detail::status(status),
        Answer::Why(why) => detail::why(why),
        Answer::Revoked(row) => revoked::revoked(row),
        Answer::Judged(row) => revoked::judged(row),
        Answer::Devices(page) => devices::devices(page),
        Answer::Device(row) => devices::device(row),
        Answer::Seen(row) => pins::seen(row),
        Answer::Done(row) => done(row),
        Answer::Many(many) => import::answered(many),
        Answer::Bans(rows) => bans(rows),
        Answer::Allowances(rows) => allowances(rows),
        Answer::Tiers(rows) => tiers(rows),
        Answer::Reloaded(row) => reloaded(row),
        Answer::Metrics(text) => text.clone(),
        Answer::Watching(watching) => format!("watching: {}\n", watching.budget),
        Answer::Event(row) => packet::event(row, Paint::plain()),
        Answer::Lost(count) => packet::lost(*count),
    }
}

fn done(done: &Done) -> String {
    let mut text = format!("{}\n", done.message);
    for remark in &done.remarks {
        text.push_str(&format!("  note: {remark}\n"));
    }
    text
}

fn reloaded(reloaded: &Reloaded) -> String {
    let mut text = "the configuration is applied\n".to_owned();
    for key in &reloaded.needs_restart {
        text.push_str(&format!("  note: {key} takes effect with the next restart\n"));
    }
    text
}

fn bans(rows: &[BanRow]) -> String {
    if rows.is_empty() {
        return "nobody is banned\n".to_owned();
    }
    let columns = [
        ("prefix", Align::Left),
        ("origin", Align::Left),
        ("remaining", Align::Right),
        ("age", Align::Right),
        ("offences", Align::Right),
        ("cause", Align::Left),
    ];
    let row = |row: &BanRow| {
        let cause = if row.cause.is_empty() { "-" } else { &row.cause };
        let cause = match &row.shadowed_by {
            Some(allowed) => format!("{cause} (no effect: {allowed} is allowed)"),
            None => cause.to_owned(),
        };
        let remaining = row.remaining_seconds.map_or_else(|| "forever".to_owned(), remaining);
        vec![
            row.prefix.to_string(),
            row.origin.clone(),
            remaining,
            human(row.age_seconds),
            grouped(row.offences.into()),
            cause,
        ]
    };
    table(&columns, &rows.iter().map(row).collect::<Vec<_>>())
}

fn allowances(rows: &[AllowanceRow]) -> String {
    if rows.is_empty() {
        return "nobody is exempt\n".to_owned();
    }
    let columns =
        [("prefix", Align::Left), ("origin", Align::Left), ("age", Align::Right), ("reason", Align::Left)];
    let row = |row: &AllowanceRow| {
        vec![row.prefix.to_string(), row.origin.clone(), human(row.age_seconds), row.reason.clone()]
    };
    table(&columns, &rows.iter().map(row).collect::<Vec<_>>())
}

fn tiers(rows: &[TierRow]) -> String {
    if rows.is_empty() {
        return "nobody is in a tier\n".to_owned();
    }
    let columns = [
        ("prefix", Align::Left),
        ("tier", Align::Left),
        ("origin", Align::Left),
        ("age", Align::Right),
        ("reason", Align::Left),
    ];
    let row = |row: &TierRow| {
        let tier = if row.holds { row.tier.clone() } else { format!("{} (no effect)", row.tier) };
        let age = row.age_seconds.map_or_else(|| "-".to_owned(), human);
        vec![row.prefix.to_string(), tier, row.origin.clone(), age, row.reason.clone()]
    };
    table(&columns, &rows.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_are_a_table() {
        let row = |prefix: &str, origin: &str, cause: &str, remaining, shadow: Option<&str>| BanRow {
            prefix: prefix.parse().unwrap(),
            origin: origin.into(),
            cause: cause.into(),
            age_seconds: 19,
            remaining_seconds: remaining,
            offences: 20,
            shadowed_by: shadow.map(|text| text.parse().unwrap()),
        };
        let rows = vec![
            row("198.18.0.2", "offence", "token_missing", Some(581), None),
            row("198.18.0.3", "operator", "", Some(86_399), None),
            row("2001:db8:7::/48", "operator", "scraper", None, Some("2001:db8::/32")),
        ];
        assert_eq!(
            answer(&Answer::Bans(rows)),
            "PREFIX           ORIGIN    REMAINING  AGE  OFFENCES  CAUSE\n\
             198.18.0.2       offence      9m 41s  19s        20  token_missing\n\
             198.18.0.3       operator         1d  19s        20  -\n\
             2001:db8:7::/48  operator    forever  19s        20  scraper (no effect: 2001:db8::/32 is allowed)\n"
        );
        assert_eq!(answer(&Answer::Bans(Vec::new())), "nobody is banned\n");
    }

    #[test]
    fn changes_come_with_their_remarks() {
        let done = Done {
            message: "198.18.0.2 is banned: 10m remaining".into(),
            remarks: vec!["so".into()],
            ban: None,
        };
        assert_eq!(answer(&Answer::Done(done)), "198.18.0.2 is banned: 10m remaining\n  note: so\n");
        let reloaded = Reloaded { needs_restart: vec!["kernel.interfaces".into()] };
        assert_eq!(
            answer(&Answer::Reloaded(reloaded)),
            "the configuration is applied\n  note: kernel.interfaces takes effect with the next restart\n"
        );
    }
}
