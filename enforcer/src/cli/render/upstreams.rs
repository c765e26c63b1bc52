//! The servers behind, as a part of `status`.

use crate::{
    cli::table::{Align, grouped, table},
    control::wire::UpstreamRow,
};

/// A table of servers.
pub(super) fn upstreams(rows: &[UpstreamRow]) -> String {
    let columns = [
        ("upstream", Align::Left),
        ("server", Align::Left),
        ("state", Align::Left),
        ("requests", Align::Right),
        ("connections", Align::Right),
        ("rests", Align::Right),
        ("repeated", Align::Right),
    ];
    let row = |row: &UpstreamRow| {
        let numbers = [row.requests.into(), row.connections.into(), row.ejections, row.retries].map(grouped);
        let texts = [row.upstream.clone(), row.server.clone(), row.state.clone()];
        texts.into_iter().chain(numbers).collect()
    };
    table(&columns, &rows.iter().map(row).collect::<Vec<_>>())
}
