//! A table of what was measured, each line in the unit of its bar.

use super::measure::Sample;

/// What a line is compared with.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// One random hit in a hash of a million entries, on as many CPUs.
    R,
    /// The program that returns the same verdict at once.
    Empty,
    /// Known sources, each packet from another one.
    Known,
    /// The same on one CPU.
    Alone,
    /// xdp-filter with the same packets.
    Filter,
}

impl Unit {
    fn label(self) -> &'static str {
        match self {
            Self::R => "R",
            Self::Empty => "empty",
            Self::Known => "known",
            Self::Alone => "alone",
            Self::Filter => "xdp-filter",
        }
    }
}

/// One line.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Row {
    /// What was sent.
    pub name: String,
    /// Whether each packet came from another source.
    pub random: bool,
    /// CPUs at work.
    pub cpus: usize,
    /// Per packet, everything included.
    pub nanoseconds: Sample,
    /// Per packet, without what choosing the source and calling the program cost.
    pub net: f64,
    /// Against what, and how many times that.
    pub ratio: Option<(Unit, f64)>,
    /// What the ratio may be.
    pub bar: Option<f64>,
    /// Whether it is.
    pub met: Option<bool>,
    /// The share of packets that ended as they should; the others met a full bucket.
    pub expected: f64,
}

impl Row {
    /// A line without a comparison.
    pub fn plain(name: &str, random: bool, cpus: usize, nanoseconds: Sample, net: f64) -> Self {
        let name = name.to_owned();
        Self { name, random, cpus, nanoseconds, net, ratio: None, bar: None, met: None, expected: 1.0 }
    }

    /// Compares it.
    #[must_use]
    pub fn against(mut self, unit: Unit, value: f64, of: f64, bar: Option<f64>) -> Self {
        let ratio = value / of.max(1.0);
        self.ratio = Some((unit, ratio));
        self.bar = bar;
        self.met = bar.map(|bar| ratio <= bar);
        self
    }
}

/// A figure of its own with a bar.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Check {
    /// What was measured, and in what.
    pub name: String,
    /// What came out.
    pub value: f64,
    /// What it may be.
    pub bar: f64,
}

impl Check {
    fn line(&self) -> String {
        let met = word(self.value <= self.bar);
        format!("{}: {:.2}; bar {:.1}: {met}", self.name, self.value, self.bar)
    }
}

/// What tables say of a bar.
fn word(is_met: bool) -> &'static str {
    if is_met { "met" } else { "NOT MET" }
}

/// Everything that was measured.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The lines.
    pub rows: Vec<Row>,
    /// What is no line.
    pub checks: Vec<Check>,
    /// What the reader has to know.
    pub notes: Vec<String>,
}

impl Report {
    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<44} {:>6} {:>4} {:>8} {:>11} {:>8} {:>16} {:>6} {:>7}\n",
            "packet", "keys", "CPUs", "ns", "range", "net ns", "ratio", "bar", ""
        );
        for row in &self.rows {
            let ratio =
                row.ratio.map_or(String::new(), |(unit, ratio)| format!("{ratio:.2} {}", unit.label()));
            let bar = row.bar.map_or(String::new(), |bar| format!("{bar:.1}"));
            let met = row.met.map_or("", word);
            text += &format!(
                "{:<44} {:>6} {:>4} {:>8.0} {:>11} {:>8.0} {:>16} {:>6} {:>7}\n",
                row.name,
                if row.random { "random" } else { "hot" },
                row.cpus,
                row.nanoseconds.median,
                format!("{:.0}..{:.0}", row.nanoseconds.fastest, row.nanoseconds.slowest),
                row.net,
                ratio,
                bar,
                met
            );
        }
        for check in &self.checks {
            text += &format!("\n{}", check.line());
        }
        for note in &self.notes {
            text += &format!("\n{note}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_or_not() {
        let sample = Sample { median: 100.0, fastest: 90.0, slowest: 110.0 };
        let row = Row::plain("x", true, 1, sample, 80.0).against(Unit::R, 80.0, 100.0, Some(0.8));
        assert_eq!((row.ratio, row.met), (Some((Unit::R, 0.8)), Some(true)));
        let row = row.against(Unit::R, 81.0, 100.0, Some(0.8));
        assert_eq!(row.met, Some(false));
        let check = Check { name: "seconds".to_owned(), value: 2.0, bar: 2.0 };
        assert_eq!(check.line(), "seconds: 2.00; bar 2.0: met");
        let report = Report { rows: vec![row], checks: vec![check], notes: vec!["note".to_owned()] };
        assert!(report.table().contains("NOT MET") && report.table().ends_with("2.0: met\nnote"));
    }
}
