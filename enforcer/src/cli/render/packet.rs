//! Packets as lines: one for each, aligned as far as addresses allow, since nobody knows how many will come.

use crate::{
    capture::{moment, sight::Sight},
    cli::explain::Judged,
    control::wire::EventRow,
};

/// Whether verdicts are coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Paint(bool);

impl Paint {
    /// Never.
    pub const fn plain() -> Self {
        Self(false)
    }

    /// If `colours`.
    pub const fn new(colours: bool) -> Self {
        Self(colours)
    }

    /// A verdict, so wide that what follows is aligned.
    fn verdict(self, verdict: &str) -> String {
        let padded = format!("{verdict:<10}");
        let colour = match verdict {
            "drop" => "31",
            "would_drop" | "unknown" => "33",
            _ => "32",
        };
        if self.0 { format!("\x1b[{colour}m{padded}\x1b[0m") } else { padded }
    }
}

/// Above the lines of `events`.
pub fn events_heading() -> String {
    line(["TIME", "INTERFACE", "VERDICT   ", "REASON", "FROM", "TO", "LENGTH", "WHAT"])
}

/// A sample.
pub fn event(row: &EventRow, paint: Paint) -> String {
    line([
        &moment::clock(row.time_ns),
        &row.interface,
        &paint.verdict(&row.verdict),
        &row.reason,
        &row.sight.from(),
        &row.sight.to(),
        &row.length.to_string(),
        &what(&row.sight, row.captured, row.length),
    ])
}

/// What a packet is, and whether there is all of it.
fn what(sight: &Sight, captured: usize, length: usize) -> String {
    let cut = if captured < length { format!(" (cut to {captured} bytes)") } else { String::new() };
    sight.what() + &cut
}

/// Samples that did not come in time.
pub fn lost(count: u64) -> String {
    format!("-- {count} more were not read in time --\n")
}

fn line([time, interface, verdict, reason, from, to, length, what]: [&str; 8]) -> String {
    format!(
        "{time:<15}  {interface:<9}  {verdict}  {reason:<19}  {from:<21}  {to:<21}  {length:>6}  {what}\n"
    )
}

/// Above the lines of `explain`.
pub fn explain_heading() -> String {
    judged_line(["#", "TIME", "VERDICT   ", "REASON", "FROM", "TO", "LENGTH", "WHAT"], "RULE")
}

/// A packet of a capture, judged.
pub fn judged(row: &Judged, paint: Paint) -> String {
    let mut rule = row.rule.clone();
    if !row.would_drop.is_empty() {
        let gap = if rule.is_empty() { "" } else { "; " };
        rule.push_str(&format!("{gap}would drop: {}", row.would_drop.join(", ")));
    }
    let cells = [
        &row.number.to_string(),
        &moment::clock(row.time_ns),
        &paint.verdict(row.verdict),
        row.reason,
        &row.sight.from(),
        &row.sight.to(),
        &row.length.to_string(),
        &what(&row.sight, row.captured, row.length),
    ];
    judged_line(cells, &rule)
}

fn judged_line([number, time, verdict, reason, from, to, length, what]: [&str; 8], rule: &str) -> String {
    let line = format!(
        "{number:>6}  {time:<15}  {verdict}  {reason:<19}  {from:<21}  {to:<21}  {length:>6}  {what:<26}  {rule}"
    );
    format!("{}\n", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::hello::Hello;

    fn row() -> EventRow {
        EventRow {
            time: moment::timestamp(1_700_000_000_123_456_000),
            time_ns: 1_700_000_000_123_456_000,
            interface: "eth0".into(),
            cpu: 1,
            verdict: "drop".into(),
            reason: "tls_version".into(),
            sight: Sight {
                protocol: "tcp".into(),
                source: "198.18.0.7".parse().ok(),
                source_port: Some(50_000),
                destination: "198.19.0.1".parse().ok(),
                port: Some(443),
                flags: "PA".into(),
                hello: Some(Hello {
                    versions: vec!["TLS 1.0".into()],
                    server_name: Some("api.example.com".into()),
                    fingerprint: None,
                    complete: true,
                }),
            },
            length: 219,
            captured: 219,
            frame: None,
        }
    }

    #[test]
    fn samples_line_up_under_their_heading() {
        assert_eq!(
            events_heading() + &event(&row(), Paint::plain()),
            "TIME             INTERFACE  VERDICT     REASON               FROM                   TO                     LENGTH  WHAT\n\
             22:13:20.123456  eth0       drop        tls_version          198.18.0.7:50000       198.19.0.1:443            219  tcp [PA] hello TLS 1.0 for api.example.com\n"
        );
        assert!(event(&row(), Paint::new(true)).contains("\x1b[31mdrop      \x1b[0m"));
    }
}
