//! What is revoked, as people read it.

use crate::{
    cli::table::{bytes, grouped},
    control::{
        span::remaining,
        wire::{JudgedRow, RevokedRow},
    },
};

/// In one line, for `status` too.
pub(super) fn summary(row: &RevokedRow) -> String {
    let kept = if row.is_kept { "" } else { ", FORGOTTEN AT THE END (revocation.store is off)" };
    let refused = match row.refused {
        0 => String::new(),
        refused => format!(", {} NOT IN FORCE: there was no room", grouped(refused)),
    };
    format!(
        "{} of {}, {} by file, {}{kept}{refused}",
        grouped(row.entries as u64),
        grouped(row.most as u64),
        grouped(row.listed as u64),
        bytes(row.bytes as u64)
    )
}

pub(super) fn revoked(row: &RevokedRow) -> String {
    let Some(found) = &row.found else { return format!("revocations: {}\n", summary(row)) };
    if !found.is_revoked {
        return "not revoked\n".to_owned();
    }
    let issued = found.issued_before.map(|at| format!(", tokens issued before {at}")).unwrap_or_default();
    let until = match found.remaining_seconds {
        Some(seconds) => format!("{} remaining", remaining(seconds)),
        None => "until it is restored".to_owned(),
    };
    let listed = if found.is_listed { ", by revocation.file" } else { "" };
    format!("revoked{issued}, {until}{listed}\n")
}

pub(super) fn judged(row: &JudgedRow) -> String {
    match (&row.refused, &row.revoked_by) {
        (Some(code), Some(by)) => format!("refused: {code}, by its {by}\n"),
        (Some(code), None) => format!("refused: {code}\n"),
        (None, _) => "not revoked\n".to_owned(),
    }
}
