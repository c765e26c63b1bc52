//! Which module of the daemon may import which. The direction of data is the direction of reading: what is judged
//! never knows its judge.

use std::path::{Component, Path};

use super::{File, Finding};

/// Values that everybody uses and that use nobody.
const FOUNDATION: [&str; 7] = ["clock", "decimal", "fault", "prefix", "random", "secret", "strict_json"];

/// Module, and what it may import besides itself and the foundation.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("decimal", &[]),
    ("fault", &[]),
    ("prefix", &[]),
    ("random", &[]),
    ("secret", &[]),
    ("strict_json", &[]),
    // What drivers do to frames, as sysfs and ethtool tell it.
    ("device", &[]),
    ("config", &["device", "pins"]),
    ("denial", &[]),
    // What a pin is, and which keys apps can bear; files and clocks are elsewhere.
    ("pins", &[]),
    // Judges what devices send, and knows neither requests nor configuration.
    ("attestation", &["denial"]),
    // Opens and seals bodies, and knows neither requests nor configuration.
    ("sealed", &[]),
    ("log", &["config"]),
    // What is taken back is kept by marks; who says so is elsewhere.
    ("revoked", &["store"]),
    // What is remembered of devices outlives a reload, too.
    ("enrolment", &["config", "replay", "store"]),
    // What may be used once outlives a reload, as limits do.
    ("policy", &["attestation", "config", "denial", "enrolment", "pins", "replay", "revoked", "sealed"]),
    ("checks", &["attestation", "config", "denial", "enrolment", "policy", "replay", "revoked", "sealed"]),
    // What a request is forwarded with is a `Grant`, which only `checks` can make.
    ("upstream", &["checks", "config", "denial", "policy"]),
    // Settings for the program are made from the configuration.
    ("kernel", &["config", "device"]),
    // Kernel counters and the state of servers are read at scrape; the table of refusals names the labels.
    ("metrics", &["kernel", "denial", "log", "pins", "policy"]),
    // Keeps bytes and does not know whose.
    ("store", &[]),
    ("replay", &["store"]),
    ("bans", &["config", "denial", "kernel", "metrics", "store"]),
    // Keys come over the network, and go where the policy has room for them.
    ("keys", &["attestation", "config", "denial", "metrics", "policy"]),
    // Instants are written as captures have them.
    ("access_log", &["capture", "config", "log", "metrics"]),
    (
        "ingress",
        &[
            "access_log",
            "agreement",
            "bans",
            "capture",
            "checks",
            "config",
            "denial",
            "log",
            "metrics",
            "policy",
            "revoked",
            "upstream",
        ],
    ),
    // Holds the program's judgement against that of the TLS stack.
    ("agreement", &["config", "kernel", "log", "metrics", "policy"]),
    // Frames as people see them: the command line writes and reads captures.
    ("capture", &[]),
    // Operators ask what becomes of a token, and take tokens back.
    (
        "control",
        &[
            "bans",
            "capture",
            "checks",
            "config",
            "denial",
            "enrolment",
            "kernel",
            "metrics",
            "policy",
            "revoked",
        ],
    ),
    ("cli", &["attestation", "capture", "config", "control", "denial", "kernel", "pins"]),
];

/// Put the rest together; the first imports everything, and nobody imports it but `main`.
const TOP: [&str; 3] = ["daemon", "lib", "main"];

/// The crate that loads programs, and the only place of the daemon that may name it.
const LOADER: &str = "aya";
const LOADING: &str = "kernel";

/// Breaches in one file of the daemon; none for files elsewhere.
pub(super) fn directions(file: &File) -> Vec<Finding> {
    let Some(module) = module_of(&file.path) else { return Vec::new() };
    let code = file.text.split("#[cfg(test)]").next().unwrap_or_default();
    let allowed = MAY_IMPORT.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed);
    let mut findings = Vec::new();
    if allowed.is_none() && !TOP.contains(&module) {
        findings.push(
            file.finding(
                1,
                format!("module `{module}` has no place in the import table of tidy; give it one"),
            ),
        );
    }
    for (line, import) in imports(code) {
        let free = import == module || FOUNDATION.contains(&import.as_str()) || TOP.contains(&module);
        let known = MAY_IMPORT.iter().any(|(name, _)| *name == import) || TOP.contains(&import.as_str());
        if known && !free && !allowed.is_some_and(|allowed| allowed.contains(&import.as_str())) {
            findings.push(file.finding(line, format!("`{module}` must not import `{import}`")));
        }
    }
    for (i, line) in code.lines().enumerate() {
        let names_loader =
            words(without_comment(line)).any(|word| word == LOADER || word.starts_with("aya_"));
        if names_loader && module != LOADING {
            findings.push(file.finding(i + 1, format!("only `{LOADING}` names {LOADER}")));
        }
    }
    findings
}

/// The top module that a file of the daemon belongs to.
fn module_of(path: &Path) -> Option<&str> {
    let rest = path.strip_prefix("enforcer/src").ok()?;
    let Component::Normal(first) = rest.components().next()? else { return None };
    Path::new(first).file_stem()?.to_str()
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Top modules named after `crate::`, singly or in braces, with their lines.
fn imports(code: &str) -> Vec<(usize, String)> {
    let code: String = code.lines().map(|line| format!("{}\n", without_comment(line))).collect();
    let mut found = Vec::new();
    for (at, start) in code.match_indices("crate::") {
        let line = |offset: usize| 1 + code.get(..offset).unwrap_or_default().matches('\n').count();
        let begin = at + start.len();
        let rest = code.get(begin..).unwrap_or_default();
        if !rest.starts_with('{') {
            found.extend(words(rest).next().map(|word| (line(begin), word.to_owned())));
            continue;
        }
        let (mut depth, mut expect) = (0, false);
        for (offset, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && matches!(c, '{' | ',') {
                expect = true;
            } else if expect && !c.is_whitespace() {
                let name = rest.get(offset..).and_then(|rest| words(rest).next());
                found.extend(name.map(|word| (line(begin + offset), word.to_owned())));
                expect = false;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let file = File { path: path.into(), text: text.to_owned() };
        directions(&file).iter().map(|finding| format!("{}: {}", finding.line, finding.text)).collect()
    }

    #[test]
    fn imports_are_read_singly_and_in_braces() {
        let code = "use crate::denial::Denial;\n// crate::daemon\nuse crate::{\n    bans::{Offence, Reporter},\n    policy,\n};\nfn f(x: crate::clock::KernelTime) {}\n";
        let expected = [(1, "denial"), (4, "bans"), (5, "policy"), (7, "clock")];
        assert_eq!(imports(code), expected.map(|(line, name)| (line, name.to_owned())));
    }

    #[test]
    fn the_wrong_direction_is_found() {
        assert_eq!(found("enforcer/src/config/load.rs", "use crate::prefix::Prefix;\n"), [""; 0]);
        assert_eq!(
            found("enforcer/src/config/load.rs", "\nuse crate::{prefix, policy::Policy};\n"),
            ["2: `config` must not import `policy`"]
        );
        assert_eq!(
            found("enforcer/src/checks.rs", "use crate::daemon::run;\n"),
            ["1: `checks` must not import `daemon`"]
        );
        assert_eq!(found("enforcer/src/daemon.rs", "use crate::{bans, ingress};\n"), [""; 0]);
        assert_eq!(
            found("enforcer/src/bans.rs", "use aya::maps::HashMap;\n"),
            ["1: only `kernel` names aya"]
        );
        assert_eq!(found("enforcer/src/kernel/program.rs", "use aya::Ebpf;\n"), [""; 0]);
        assert_eq!(found("tests/src/lib.rs", "use aya::Ebpf; use crate::daemon;\n"), [""; 0]);
        assert_eq!(found("enforcer/src/odd.rs", "").len(), 1);
        let tests = "#[cfg(test)]\nmod tests { use crate::daemon; }\n";
        assert_eq!(found("enforcer/src/checks.rs", tests), [""; 0]);
    }
}
