//! The packet counters, as parts of `status` and `why`.

use crate::{
    cli::table::{Align, bytes, grouped, table},
    control::wire::{CounterRow, TrafficRow},
};

/// What passed and what did not, by interface.
pub(super) fn traffic(rows: &[TrafficRow]) -> String {
    let mut columns = vec![
        ("interface", Align::Left),
        ("passed", Align::Right),
        ("bytes", Align::Right),
        ("dropped", Align::Right),
        ("bytes", Align::Right),
    ];
    let rehearsed = rows.iter().any(|row| row.would_drop > 0);
    if rehearsed {
        columns.push(("would drop", Align::Right));
    }
    let row = |row: &TrafficRow| {
        let mut cells = vec![
            row.interface.clone(),
            grouped(row.passed),
            bytes(row.passed_bytes),
            grouped(row.dropped),
            bytes(row.dropped_bytes),
        ];
        cells.extend(rehearsed.then(|| grouped(row.would_drop)));
        cells
    };
    table(&columns, &rows.iter().map(row).collect::<Vec<_>>())
}

/// Counters by reason; by interface too if there are several.
pub(super) fn counters(heading: &str, rows: &[CounterRow]) -> String {
    let several = rows.iter().any(|row| row.interface != rows[0].interface);
    let mut columns = vec![(heading, Align::Left)];
    columns.extend(several.then_some(("interface", Align::Left)));
    columns.extend([("packets", Align::Right), ("bytes", Align::Right)]);
    let row = |row: &CounterRow| {
        let mut cells = vec![row.reason.clone()];
        cells.extend(several.then(|| row.interface.clone()));
        cells.extend([grouped(row.packets), bytes(row.bytes)]);
        cells
    };
    table(&columns, &rows.iter().map(row).collect::<Vec<_>>())
}
