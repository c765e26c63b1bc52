//! Sets of pins, as a part of `status`, and fingerprints of apps.

use super::{Align, grouped, table};
use crate::control::{
    span::human,
    wire::{DeclaredRow, OtherRow, PinsRow, SeenRow},
};

/// A table: what is declared first.
pub(super) fn seen(seen: &SeenRow) -> String {
    let columns =
        [("app", Align::Left), ("ja4", Align::Left), ("requests", Align::Right), ("last", Align::Left)];
    let declared = |row: &DeclaredRow| {
        let platform = row.platform.as_ref().map(|platform| format!(" ({platform})")).unwrap_or_default();
        let last = if row.requests == 0 { "never" } else { "" };
        vec![format!("{}{platform}", row.app), row.ja4.clone(), grouped(row.requests), last.to_owned()]
    };
    let other = |row: &OtherRow| {
        let last = format!("{} ago", human(row.seconds_ago));
        vec!["none".to_owned(), row.ja4.clone(), grouped(row.requests), last]
    };
    let rows: Vec<_> = seen.declared.iter().map(declared).chain(seen.others.iter().map(other)).collect();
    if rows.is_empty() {
        return "no app is declared, and no request came to a route that names one\n".to_owned();
    }
    table(&columns, &rows)
}

/// A line for each set, and its remarks below it; behind an empty line, if there are any.
pub(super) fn pins(rows: &[PinsRow]) -> String {
    let mut text = String::new();
    if !rows.is_empty() {
        text.push('\n');
    }
    for row in rows {
        let by = if row.switched { "BACKUP" } else { "key" };
        text += &format!("pins {} for {}: {by} {}\n", row.set, row.hosts.join(", "), row.serving.join(", "));
        for remark in &row.remarks {
            text += &format!("  note: {remark}\n");
        }
    }
    text
}
