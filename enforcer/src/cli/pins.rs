//! `enforcer pins`: what apps have to know of the keys that are served, in the forms in which they read it. What a configuration comes to
//! is told by the daemon's own code; here it is only shown.

use std::path::Path;

use serde::Serialize;

use super::{
    args::{PinsFor, PinsOf, PinsVerb},
    exit::{self, Exit},
    local::Program,
    output, remote,
    table::{Align, table},
};
use crate::{
    clock, config,
    control::wire::{Command, PinsCommand},
    pins::{
        day,
        formats::{self, Alone, Host},
    },
};

const YEAR: u64 = 365 * 86_400;

/// What a configuration comes to for apps that pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Declared sets.
    pub sets: Vec<SetRow>,
    /// Hosts with their pins; without sets, the names of the certificates with their keys.
    pub hosts: Vec<Host>,
    /// Why a start or a reload would be refused; empty: it would not.
    pub refused: Vec<String>,
}

/// A set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetRow {
    /// As in the configuration.
    pub name: String,
    /// What it is about.
    pub hosts: Vec<String>,
    /// Whether its backup is served.
    pub switched: bool,
    /// In the order of the configuration.
    pub pins: Vec<PinRow>,
    /// What is wrong, or will be.
    pub remarks: Vec<String>,
}

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PinRow {
    /// Base64.
    pub sha256: String,
    /// `serving`, `backup` or `spare`.
    pub role: &'static str,
    /// Seconds since 1970.
    pub published: u64,
    /// From when its key may be served, likewise.
    pub ready: u64,
    /// Whether it may be now.
    pub may_serve: bool,
    /// Whether it is read from a `file`; then its key is not served.
    pub is_read: bool,
}

/// Carries out any of the verbs.
pub fn pins(program: &Program, socket: &Path, verb: PinsVerb, json: bool) -> Exit {
    match verb {
        PinsVerb::Switch { set, back } => {
            remote::tell(socket, Command::Pins(PinsCommand::Switch { set, back }), json)
        }
        PinsVerb::Seen => remote::tell(socket, Command::Pins(PinsCommand::Seen), json),
        PinsVerb::Show(of) => told(program, &of, json, show),
        PinsVerb::Check(of) => told(program, &of, json, check),
        PinsVerb::Json(of) => told(program, &of, true, show),
        PinsVerb::Ios(of) => written(program, &of, formats::ios),
        PinsVerb::Okhttp(of) => written(program, &of, |hosts| Ok(formats::okhttp(hosts))),
        PinsVerb::Android(PinsFor { of, expires }) => {
            let expires = expires.unwrap_or_else(|| at(&of) + YEAR);
            written(program, &of, |hosts| formats::android(hosts, expires))
        }
        PinsVerb::Trustkit(PinsFor { of, expires }) => {
            let expires = expires.unwrap_or_else(|| at(&of) + YEAR);
            written(program, &of, |hosts| formats::trustkit(hosts, expires))
        }
    }
}

fn at(of: &PinsOf) -> u64 {
    of.at.unwrap_or_else(clock::unix_now)
}

fn report(program: &Program, of: &PinsOf) -> Result<Report, Exit> {
    let config = config::load(&of.config).map_err(|errors| {
        output::problems(&errors.0);
        exit::CONFIGURATION
    })?;
    (program.pins)(&config, at(of)).map_err(|error| {
        output::complain(&format!("{error:#}"));
        exit::CONFIGURATION
    })
}

fn told(program: &Program, of: &PinsOf, json: bool, text: fn(&Report) -> String) -> Exit {
    let report = match report(program, of) {
        Ok(report) => report,
        Err(exit) => return exit,
    };
    if json {
        output::json(&report);
    } else {
        output::answer(&text(&report));
    }
    if report.refused.is_empty() { exit::OK } else { exit::FAILED }
}

/// What is written for apps goes into a file; what is to be said besides goes to standard error.
fn written(program: &Program, of: &PinsOf, format: impl Fn(&[Host]) -> Result<String, Alone>) -> Exit {
    let report = match report(program, of) {
        Ok(report) => report,
        Err(exit) => return exit,
    };
    if !report.refused.is_empty() {
        report.refused.iter().for_each(|refused| output::complain(refused));
        return exit::FAILED;
    }
    if report.sets.is_empty() {
        output::remark(
            "NOTE: there is no [pins.set.NAME]: these are the keys that are served now, without a backup",
        );
    }
    match format(&report.hosts) {
        Ok(text) => {
            output::answer(&text);
            exit::OK
        }
        Err(alone) => {
            output::complain(&alone.to_string());
            exit::FAILED
        }
    }
}

fn show(report: &Report) -> String {
    if report.sets.is_empty() {
        let row =
            |host: &Host| host.pins.iter().map(|pin| vec![host.name.clone(), pin.to_string()]).collect();
        let rows: Vec<Vec<String>> = report.hosts.iter().flat_map(|host| -> Vec<_> { row(host) }).collect();
        return table(&[("host", Align::Left), ("sha256", Align::Left)], &rows);
    }
    let columns = [
        ("set", Align::Left),
        ("key", Align::Left),
        ("sha256", Align::Left),
        ("published", Align::Left),
        ("from", Align::Left),
    ];
    let row = |set: &SetRow, pin: &PinRow| {
        let from = match (pin.may_serve, pin.is_read) {
            (true, _) => "now".to_owned(),
            (false, true) => "never: `file`".to_owned(),
            (false, false) => day(pin.ready),
        };
        vec![set.name.clone(), pin.role.to_owned(), pin.sha256.clone(), day(pin.published), from]
    };
    let rows: Vec<Vec<String>> =
        report.sets.iter().flat_map(|set| set.pins.iter().map(|pin| row(set, pin))).collect();
    table(&columns, &rows) + &verdict(report)
}

fn check(report: &Report) -> String {
    let mut text = String::new();
    for set in &report.sets {
        for remark in &set.remarks {
            text += &format!("warning  {}: {remark}\n", set.name);
        }
    }
    if report.sets.is_empty() {
        text += "warning  there is no [pins.set.NAME]: nothing is guarded\n";
    }
    if report.refused.is_empty() {
        text += "good     apps know every key that is served\n";
    }
    text + &verdict(report)
}

fn verdict(report: &Report) -> String {
    report.refused.iter().map(|text| format!("refused  {text}\n")).collect()
}
