//! Sets of pins, as a part of `status`.

use crate::control::wire::PinsRow;

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
