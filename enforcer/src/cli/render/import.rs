//! The account of an import, as people read it.

use super::super::{import::Imported, table::grouped};
use crate::control::{bulk::Order, wire::Many};

/// What was done, what of it needs to be known, and what was refused.
pub(in crate::cli) fn imported(imported: &Imported, order: &Order) -> String {
    let many = &imported.many;
    let text = match order {
        Order::Ban { .. } => format!(
            "banned: {} (new: {}, replaced: {})\n",
            grouped(many.banned + many.replaced),
            grouped(many.banned),
            grouped(many.replaced)
        ),
        Order::Lift => format!("bans lifted: {}\n", grouped(many.lifted)),
    };
    text + &remarks(many, imported.skipped)
}

/// The answer for a single part.
pub(super) fn answered(many: &Many) -> String {
    let changed = grouped(many.banned + many.replaced + many.lifted);
    format!("bans changed: {changed}\n") + &remarks(many, 0)
}

fn remarks(many: &Many, skipped: u64) -> String {
    let mut text = String::new();
    for (count, what) in [
        (many.ineffective, "have no effect while a prefix around them is allowed"),
        (many.not_banned, "had no ban of their own"),
        (many.repeated, "named more than once"),
        (skipped, "lines skipped that cannot be read"),
    ] {
        if count > 0 {
            text.push_str(&format!("  note: {what}: {}\n", grouped(count)));
        }
    }
    for remark in &many.remarks {
        text.push_str(&format!("  note: {remark}\n"));
    }
    for row in &many.refused {
        let count = grouped(row.count);
        text.push_str(&format!("refused: {count} ({}), first {}: {}\n", row.kind, row.first, row.message));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::wire::RefusedRow;

    #[test]
    fn every_number_is_told_and_zeros_are_not() {
        let many = Many {
            banned: 19_990,
            replaced: 5,
            ineffective: 3,
            repeated: 2,
            refused: vec![RefusedRow {
                kind: "full".into(),
                count: 7,
                first: "198.18.0.9".parse().unwrap(),
                message: "there are 20000 bans already".into(),
            }],
            remarks: vec!["so".into()],
            ..Many::default()
        };
        let order = Order::Ban {
            seconds: None,
            forever: true,
            reason: String::new(),
            force: false,
            own_address: None,
        };
        assert_eq!(
            imported(&Imported { many, skipped: 1 }, &order),
            "banned: 19,995 (new: 19,990, replaced: 5)\n\
             \x20 note: have no effect while a prefix around them is allowed: 3\n\
             \x20 note: named more than once: 2\n\
             \x20 note: lines skipped that cannot be read: 1\n\
             \x20 note: so\n\
             refused: 7 (full), first 198.18.0.9: there are 20000 bans already\n"
        );
        let many = Many { lifted: 4, not_banned: 1, ..Many::default() };
        let text = imported(&Imported { many, skipped: 0 }, &Order::Lift);
        assert_eq!(text, "bans lifted: 4\n  note: had no ban of their own: 1\n");
    }
}
