//! `explain`: runs the program's own decision on every packet of a capture, on tables made from a configuration.
//!
//! Time is the capture's, so limits behave as they would have. Nothing is asked of a daemon or of the kernel.

use std::{collections::BTreeMap, fs, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use enforcer_common::{
    ban::{Ban, FOREVER},
    settings::TIERS,
    verdict::{Tables as _, decide},
};

use super::{
    args::Explain,
    exit::{self, Exit},
    output,
    render::packet::{self, Paint},
    table::{Align, bytes, grouped, table},
};
use crate::{
    capture::{
        file::{Capture, Captured},
        moment,
        sight::{self, Asked, Frame, Sight},
    },
    config::{self, Hellos, Kernel, ServerName},
    kernel::{Grounds, Reason, model::Model, rule},
    prefix::Prefix,
};

/// What holds without a configuration: the defaults, and what they cannot do without.
const DEFAULTS: &str = r#"
[kernel]
mode = "off"
[[listener]]
address = "[::]:443"
certificates = [{ chain = "none", key = "none" }]
"#;

/// Why a verdict is unknown.
const CUT: &str = "cut";

/// A packet of a capture, judged.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Judged {
    /// Its number in the capture, from 1.
    pub number: u64,
    /// When it was captured, RFC 3339 in UTC.
    pub time: String,
    /// The same in nanoseconds since 1970.
    pub time_ns: u64,
    /// `pass` or `drop`; `unknown` if that depends on what the capture does not have.
    pub verdict: &'static str,
    /// The reason's label; `cut` of a packet whose verdict is unknown.
    pub reason: &'static str,
    /// What in the configuration or in the lists decided; empty where nothing there could have.
    pub rule: String,
    /// Reasons for which it would have been dropped but for a dry run.
    pub would_drop: Vec<&'static str>,
    /// Who to whom, and the ClientHello in it.
    #[serde(flatten)]
    pub sight: Sight,
    /// Length of the frame in bytes.
    pub length: usize,
    /// How many of these are in the capture.
    pub captured: usize,
}

/// Packets by verdict and reason.
type Summary = BTreeMap<(&'static str, &'static str), (u64, u64)>;

/// Judges a capture.
pub fn explain(verb: &Explain, json: bool) -> Exit {
    let path = verb.config.as_deref();
    let read = path.map_or_else(|| config::parse(DEFAULTS, Path::new("defaults")), config::load);
    let kernel = match read {
        Ok(config) => config.kernel,
        Err(errors) => {
            output::problems(&errors.0);
            return exit::CONFIGURATION;
        }
    };
    let paint = Paint::new(output::shows_colours());
    let mut summary = Summary::new();
    // Whether anybody still reads the lines; the summary is made in any case.
    let mut open = json || verb.quiet || output::one_of_many(&packet::explain_heading());
    let ended = judge_all(&kernel, verb, |row| {
        let mut count = |verdict, reason| {
            let (packets, bytes) = summary.entry((verdict, reason)).or_default();
            *packets += 1;
            *bytes += row.length as u64;
        };
        count(row.verdict, row.reason);
        row.would_drop.iter().for_each(|reason| count("would_drop", reason));
        if open && !verb.quiet {
            open =
                if json { output::json_line(row) } else { output::one_of_many(&packet::judged(row, paint)) };
        }
    });
    conclude(&summary, json);
    match ended {
        Ok(()) => exit::OK,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            exit::FAILED
        }
    }
}

/// Judges every packet of the capture that is asked for, and shows each; ends with an error where the capture does.
pub fn judge_all(kernel: &Kernel, verb: &Explain, mut show: impl FnMut(&Judged)) -> Result<()> {
    let mut judge = Judge::new(kernel, verb)?;
    let mut capture = Capture::open(&verb.pcap)?;
    let mut number = 0;
    while let Some(captured) = capture.next_packet().with_context(|| format!("{}", verb.pcap.display()))? {
        number += 1;
        let sight = sight::look(Frame { bytes: &captured.bytes, length: captured.length });
        if verb.to.is_none_or(|prefix| sight.destination.is_some_and(|address| prefix.contains(address))) {
            show(&judge.judge(number, &captured, sight));
        }
    }
    Ok(())
}

/// The tables, and the time that has come.
struct Judge {
    model: Model,
    now: u64,
    v6_length: u8,
    /// Names by number.
    tiers: Vec<String>,
    groups: Vec<String>,
    hellos: Hellos,
}

impl Judge {
    fn new(kernel: &Kernel, verb: &Explain) -> Result<Self> {
        let tiers = (0..TIERS as u8).map(|number| kernel.tier_name(number).to_owned()).collect();
        let mut judge = Self {
            model: Model::of(kernel),
            now: 0,
            v6_length: kernel.ipv6_prefix,
            tiers,
            groups: kernel.groups.keys().cloned().collect(),
            hellos: kernel.hellos.clone(),
        };
        if let Some(path) = &verb.bans {
            let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
            for prefix in bans(&text).with_context(|| format!("{}", path.display()))? {
                // An allowance is stronger than any ban inside it; the ledger writes it so too.
                if kernel.allow.iter().any(|allowed| allowed.covers(&prefix)) {
                    continue;
                }
                match prefix.source_key(judge.v6_length) {
                    Some(source) => judge.model.set_ban(source, Ban { until: FOREVER }),
                    None => judge.model.ban_prefix(prefix, FOREVER),
                }
            }
        }
        Ok(judge)
    }

    fn judge(&mut self, number: u64, captured: &Captured, sight: Sight) -> Judged {
        // Captures of several CPUs go back in time by a little; the kernel's clock never does.
        self.now = self.now.max(captured.unix_ns);
        self.model.set_now(self.now);
        let frame = Asked::new(Frame { bytes: &captured.bytes, length: captured.length });
        let reason = Reason::from(decide(&frame, &self.model));
        let would_drop = self.model.take_rehearsed().iter().map(|reason| reason.label()).collect();
        let (verdict, label, rule) = match frame.missed() {
            true => ("unknown", CUT, "what decides was not captured".to_owned()),
            false => (reason.action(), reason.label(), self.rule(reason, &sight)),
        };
        Judged {
            number,
            time: moment::timestamp(captured.unix_ns),
            time_ns: captured.unix_ns,
            verdict,
            reason: label,
            rule,
            would_drop,
            sight,
            length: captured.length,
            captured: captured.bytes.len(),
        }
    }

    fn rule(&self, reason: Reason, sight: &Sight) -> String {
        let Some(settings) = self.model.settings() else { return String::new() };
        let entry = sight.source.and_then(|address| self.entry(reason, address));
        let listing = sight.source.and_then(|address| self.model.listing(address));
        let tier = listing.map_or(0, |(_, listing)| listing.tier);
        let tier = (tier, self.tiers.get(usize::from(tier)).map_or("", String::as_str));
        let group = sight.port.map_or(0, |port| self.model.port(port).group()) as usize;
        let group = group.checked_sub(1).and_then(|at| self.groups.get(at)).map_or("", String::as_str);
        let rule = rule(reason, Grounds { settings, port: sight.port, entry, tier, group });
        self.listed(&rule, sight).unwrap_or(rule)
    }

    /// The entry of `kernel.hellos` that a hello meets, if the packet shows it.
    fn listed(&self, key: &str, sight: &Sight) -> Option<String> {
        let hello = sight.hello.as_ref()?;
        let name = hello.server_name.as_deref().map(ServerName::plain);
        match key {
            "kernel.hellos.refuse_names" => {
                let name = name?;
                let entry = self.hellos.refuse_names.iter().find(|listed| listed.covers(&name))?;
                Some(format!("{key} has {entry}"))
            }
            "kernel.hellos.only_names" => {
                Some(format!("{key} does not have {}", name.as_deref().unwrap_or("a hello without a name")))
            }
            "kernel.hellos.refuse_fingerprints" => {
                hello.fingerprint.as_ref().map(|fingerprint| format!("{key} has {fingerprint}"))
            }
            _ => None,
        }
    }

    /// The entry of the lists that holds for an address.
    fn entry(&self, reason: Reason, address: IpAddr) -> Option<Prefix> {
        if reason.label() == "banned" {
            return Some(Prefix::of_source(address, self.v6_length));
        }
        self.model.listing(address).map(|(prefix, _)| prefix)
    }
}

/// Reads bans: a prefix per line, with comments behind `#`, or the rows that `ban list` gives as JSON.
fn bans(text: &str) -> Result<Vec<Prefix>> {
    #[derive(serde::Deserialize)]
    struct Row {
        prefix: Prefix,
    }
    if text.trim_start().starts_with('[') {
        let rows: Vec<Row> = serde_json::from_str(text).context("not what `ban list` gives as JSON")?;
        return Ok(rows.into_iter().map(|row| row.prefix).collect());
    }
    let lines = (1..).zip(text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()));
    let prefixes = lines.filter(|(_, line)| !line.is_empty());
    prefixes
        .map(|(number, line)| {
            line.parse().map_err(|error: String| anyhow::anyhow!(error).context(format!("line {number}")))
        })
        .collect()
}

fn conclude(summary: &Summary, json: bool) {
    if json {
        let row = |((verdict, reason), (packets, bytes)): (&(&str, &str), &(u64, u64))| serde_json::json!({ "verdict": verdict, "reason": reason, "packets": packets, "bytes": bytes });
        let rows: Vec<_> = summary.iter().map(row).collect();
        let _ = output::json_line(&serde_json::json!({ "summary": rows }));
        return;
    }
    if summary.is_empty() {
        output::answer("no packets\n");
        return;
    }
    let columns = [
        ("verdict", Align::Left),
        ("reason", Align::Left),
        ("packets", Align::Right),
        ("bytes", Align::Right),
    ];
    let row = |((verdict, reason), (packets, size)): (&(&str, &str), &(u64, u64))| {
        vec![(*verdict).to_owned(), (*reason).to_owned(), grouped(*packets), bytes(*size)]
    };
    output::answer("\n");
    output::answer(&table(&columns, &summary.iter().map(row).collect::<Vec<_>>()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_are_read_in_both_forms() {
        let lines = bans("# scrapers\n198.18.0.7\n\n2001:db8::/32 # all of it\n").unwrap();
        let rows =
            bans("[{\"prefix\": \"198.18.0.7\", \"origin\": \"operator\"}, {\"prefix\": \"2001:db8::/32\"}]");
        assert_eq!(lines, rows.unwrap());
        assert_eq!(lines.len(), 2);
        assert!(format!("{:#}", bans("198.18.0.7\nnobody\n").unwrap_err()).starts_with("line 2"));
    }

    #[test]
    fn the_defaults_are_a_configuration() {
        let config = config::parse(DEFAULTS, Path::new("defaults")).unwrap();
        assert_eq!(config.kernel.protected_ports, [443]);
    }
}
