//! The two long answers: `status` and `why`.

use super::{
    counters::{counters, traffic},
    pins::pins,
    revoked::summary,
    upstreams::upstreams,
};
use crate::{
    cli::table::{Align, bytes, grouped, pairs, table},
    control::{
        span::{human, remaining},
        wire::{BanRow, CountRow, FilesRow, HelloRow, PersistenceRow, ReloadRow, Status, TokenRow, Why},
    },
    kernel::{LimitState, Practice},
};

/// Nanoseconds in the unit that fits a wait.
fn wait(ns: u64) -> String {
    match ns {
        0 => "none".to_owned(),
        1..1_000_000_000 => format!("{} ms", ns.div_ceil(1_000_000)),
        _ => human(ns.div_ceil(1_000_000_000)),
    }
}

/// An issuer with its keys, and what is wrong with them.
fn issuer(token: &TokenRow) -> String {
    let keys = count(token.keys as u64, "key", "keys");
    let age = token.age_seconds.map(|age| format!(", fetched {} ago", human(age))).unwrap_or_default();
    let error = token.error.as_ref().map(|error| format!("; CANNOT BE FETCHED: {error}")).unwrap_or_default();
    format!("{} {} ({keys}{age}{error})", token.name, token.issuer)
}

/// What is in force of `kernel.refusal`, `kernel.syn_cookies` and `kernel.verify_checksums`.
fn refusals(practice: &Practice) -> String {
    if practice.refusal.is_empty() {
        return "none".to_owned();
    }
    let cookies = match (practice.syn_cookies, practice.tcp_syncookies.as_str()) {
        (false, _) => "no SYN cookies",
        (true, "0") => "NO SYN COOKIES (net.ipv4.tcp_syncookies is 0)",
        (true, "1") => {
            "SYN cookies above the budget, once a listener's queue is full (net.ipv4.tcp_syncookies is 1)"
        }
        (true, _) => "SYN cookies above the budget (net.ipv4.tcp_syncookies is 2)",
    };
    format!("{}; {cookies}; checksums {}", practice.refusal, practice.verification())
}

/// What is limited.
fn budgets(practice: &Practice) -> String {
    if practice.budgets.is_empty() {
        "each source".to_owned()
    } else {
        format!("each source; {}", practice.budgets.join("; "))
    }
}

pub(super) fn status(status: &Status) -> String {
    let head = format!(
        "enforcer {} is {}: pid {}, up {}, {} resident\n\n",
        status.version,
        status.state,
        status.pid,
        human(status.uptime_seconds),
        bytes(status.resident_bytes)
    );
    let interfaces: Vec<String> =
        status.interfaces.iter().map(|one| format!("{} ({})", one.interface, one.mode)).collect();
    let lists = match status.pending_writes {
        0 => format!("{}, all in the kernel", count(status.list_entries as u64, "entry", "entries")),
        pending => format!(
            "{}, {} still to reach the kernel",
            count(status.list_entries as u64, "entry", "entries"),
            count(pending as u64, "change", "changes")
        ),
    };
    let tokens: Vec<String> = status.tokens.iter().map(issuer).collect();
    let bans: Vec<String> =
        status.bans.iter().map(|row| format!("{} by {}", grouped(row.count), row.name)).collect();
    let dry = if status.dry_run { " (dry run: offences ban nobody)" } else { "" };
    let kernel = if interfaces.is_empty() {
        format!("mode {}: attached nowhere, no packet is judged", status.kernel_mode)
    } else {
        format!("mode {}: {}", status.kernel_mode, interfaces.join(", "))
    };
    let rehearsed = match status.rehearsed.as_slice() {
        [] => "nothing: every refusal is enforced".to_owned(),
        names => format!("{} (kernel.dry_run: counted, NOT DROPPED)", names.join(", ")),
    };
    let mut text = head;
    let practice = &status.practice;
    text.push_str(&pairs(&[
        ("kernel", kernel),
        ("refusals", refusals(practice)),
        ("budgets", budgets(practice)),
        ("without", persistence(&status.persistence)),
        ("hellos", hellos(&status.hellos, &status.listed)),
        ("rehearsed", rehearsed),
        ("lists", lists),
        ("listeners", or_none(status.listeners.join(", "))),
        ("clients", format!("at most {}", count(status.max_connections.into(), "connection", "connections"))),
        ("metrics", status.metrics.clone().unwrap_or_else(|| "off".to_owned())),
        ("tokens", or_none(tokens.join(", "))),
        ("revoked", summary(&status.revocations)),
        ("bans", format!("{}{dry}", bans.join(", "))),
        ("store", status.persistence.store.clone().unwrap_or_else(|| "off".to_owned())),
        ("files", status.files.as_ref().map_or_else(|| "as they were read".to_owned(), files)),
        ("reload", status.last_reload.as_ref().map_or_else(|| "none since the start".to_owned(), reload)),
    ]));
    for remark in &practice.remarks {
        text.push_str(&format!("\nNOTE: {remark}"));
    }
    if !practice.remarks.is_empty() {
        text.push('\n');
    }
    text.push_str(&pins(&status.pins));
    if !status.upstreams.is_empty() {
        text.push('\n');
        text.push_str(&upstreams(&status.upstreams));
    }
    if !status.traffic.is_empty() {
        text.push('\n');
        text.push_str(&traffic(&status.traffic));
    }
    for (heading, rows) in [("dropped packets", &status.drops), ("would drop", &status.would_drops)] {
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&counters(heading, rows));
        }
    }
    if !status.denials.is_empty() {
        let columns = [("refused requests", Align::Left), ("count", Align::Right)];
        let rows: Vec<_> =
            status.denials.iter().map(|row| vec![row.name.clone(), grouped(row.count)]).collect();
        text.push('\n');
        text.push_str(&table(&columns, &rows));
    }
    text
}

pub(super) fn why(why: &Why) -> String {
    let explanation = &why.explanation;
    let source = match explanation.tier.as_str() {
        "" | "default" => explanation.source.clone(),
        tier => format!("{}, in the tier {tier}", explanation.source),
    };
    let mut lines = vec![
        ("verdict", format!("{}: {}", explanation.verdict, explanation.reason)),
        ("meaning", explanation.description.clone()),
        ("rule", or_none(explanation.rule.clone())),
        ("source", source),
    ];
    if !explanation.would_drop.is_empty() {
        let reasons = explanation.would_drop.join(", ");
        lines.push(("would drop", format!("{reasons} (kernel.dry_run: counted, NOT DROPPED)")));
    }
    if let Some(row) = &why.ban {
        lines.push(("ban", ban(row)));
    }
    if let Some(row) = &why.allowance {
        let reason = if row.reason.is_empty() { String::new() } else { format!(": {}", row.reason) };
        lines.push((
            "allowed",
            format!("{} by {} since {}{reason}", row.prefix, row.origin, human(row.age_seconds)),
        ));
    }
    if let Some(row) = &why.score {
        lines.push((
            "score",
            format!(
                "{} of {} points; {}, last {}; {} within a day",
                row.points,
                row.threshold,
                count(row.offences.into(), "offence", "offences"),
                row.last,
                count(row.bans.into(), "ban", "bans")
            ),
        ));
    }
    if let Some(row) = &why.counter {
        let packets = count(row.packets, "packet", "packets");
        lines.push(("counted", format!("{packets}, {} of all sources for this reason", bytes(row.bytes))));
    }
    let mut text = format!("{}\n\n{}", why.sentence, pairs(&lines));
    if why.ban.is_some() && explanation.verdict == "drop" {
        text.push_str("\nBans come before limits: none of these packets is charged to one.\n");
    } else if !explanation.limits.is_empty() {
        let columns = [
            ("limit", Align::Left),
            ("at once now", Align::Right),
            ("burst", Align::Right),
            ("wait", Align::Right),
        ];
        let row = |row: &LimitState| {
            if row.limited {
                vec![row.limit.clone(), grouped(row.remaining), grouped(row.burst), wait(row.wait_ns)]
            } else {
                vec![row.limit.clone(), "off".to_owned(), String::new(), String::new()]
            }
        };
        text.push('\n');
        text.push_str(&table(&columns, &explanation.limits.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

/// Whether the program and the TLS stack agree.
fn hellos(row: &HelloRow, listed: &[CountRow]) -> String {
    let compared = format!("{} refused and compared with what TLS says", grouped(row.compared));
    let false_drops = match row.false_drops {
        0 => "none wrongly".to_owned(),
        number => format!("{} WRONGLY", grouped(number)),
    };
    let missed = match row.missed {
        0 => String::new(),
        number => format!("; {} of an old version got as far as TLS", grouped(number)),
    };
    let lists: Vec<String> =
        listed.iter().map(|list| format!("{} by {}", grouped(list.count), list.name)).collect();
    let listed = if lists.is_empty() { String::new() } else { format!("; listed: {}", lists.join(", ")) };
    format!("{compared}, {false_drops}{missed}{listed}")
}

/// Goes on from the label "without".
fn persistence(row: &PersistenceRow) -> String {
    let Some(pinned) = &row.pinned else { return "the daemon no packet is judged".to_owned() };
    let lease =
        row.lease_seconds.map_or_else(String::new, |seconds| format!(", for {} (lease)", human(seconds)));
    let beginning = match row.beginning.as_str() {
        "taken_over" => ", taken over from an earlier daemon",
        "migrated" => ", bans and limits carried over from an earlier layout",
        "replaced" => {
            ", in place of a layout that this version does not know: what sources owed is forgotten"
        }
        _ => "",
    };
    format!("the daemon the program judges on{lease}; pinned in {pinned}{beginning}")
}

fn ban(row: &BanRow) -> String {
    let remaining = match row.remaining_seconds {
        Some(seconds) => format!("{} remaining", remaining(seconds)),
        None => "until it is lifted".to_owned(),
    };
    let cause = if row.cause.is_empty() { String::new() } else { format!(" ({})", row.cause) };
    let offences = count(row.offences.into(), "offence", "offences");
    format!(
        "{} by {}{cause}, since {}, {remaining}, {offences}",
        row.prefix,
        row.origin,
        human(row.age_seconds)
    )
}

fn reload(row: &ReloadRow) -> String {
    let ago = human(row.age_seconds);
    match (&row.error, row.needs_restart.as_slice()) {
        (Some(error), _) => format!("{ago} ago, refused, the state from before is kept: {error}"),
        (None, []) => format!("{ago} ago, applied"),
        (None, keys) => format!("{ago} ago, applied; these need a restart: {}", keys.join(", ")),
    }
}

fn files(row: &FilesRow) -> String {
    let ago = human(row.age_seconds);
    match &row.error {
        Some(error) => {
            format!("changed {ago} ago, refused, those from before are in force: {error}")
        }
        None => format!("changed {ago} ago, taken over"),
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}

fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        control::wire::{CountRow, CounterRow, RevokedRow, ScoreRow, TrafficRow, UpstreamRow},
        kernel::{Attachment, Explanation},
    };

    #[test]
    fn status_is_one_page() {
        let row = |reason: &str, interface: &str, packets, bytes| CounterRow {
            reason: reason.into(),
            interface: interface.into(),
            packets,
            bytes,
        };
        let shown = status(&Status {
            version: "0.1.0".into(),
            pid: 4711,
            state: "running".into(),
            uptime_seconds: 7_500,
            resident_bytes: 21_300_000,
            kernel_mode: "native".into(),
            persistence: PersistenceRow {
                pinned: Some("/sys/fs/bpf/enforcer".into()),
                store: Some("/var/lib/enforcer/bans.redb".into()),
                lease_seconds: Some(60),
                beginning: "taken_over".into(),
            },
            interfaces: vec![Attachment { interface: "eth0".into(), index: 2, mode: "native".into() }],
            practice: Practice {
                refusal: "alert".into(),
                syn_cookies: true,
                tcp_syncookies: "1".into(),
                checksums: true,
                unverified: vec!["v0".into()],
                remarks: vec!["eth0 is odd".into()],
                budgets: vec!["tiers: partners".into(), "each IPv6 /48: 64 times a source".into()],
                tiers: vec!["partners".into()],
                groups: vec![],
            },
            list_entries: 1_204,
            pending_writes: 0,
            listeners: vec!["[::]:443".into()],
            metrics: Some("127.0.0.1:9464".into()),
            max_connections: 20_000,
            tokens: vec![TokenRow {
                name: "main".into(),
                issuer: "https://id.example.com/".into(),
                keys: 2,
                age_seconds: Some(90),
                error: None,
            }],
            revocations: RevokedRow {
                entries: 1_003,
                listed: 2,
                most: 1_000_000,
                bytes: 48_000,
                is_kept: true,
                ..RevokedRow::default()
            },
            upstreams: vec![UpstreamRow {
                upstream: "api".into(),
                server: "https://10.0.0.1:8443".into(),
                state: "resting".into(),
                requests: 3,
                connections: 2,
                ejections: 1,
                retries: 4_000,
            }],
            pins: Vec::new(),
            bans: vec![
                CountRow { name: "offence".into(), count: 1_200 },
                CountRow { name: "operator".into(), count: 3 },
            ],
            dry_run: false,
            rehearsed: vec!["limits".into()],
            traffic: vec![TrafficRow {
                interface: "eth0".into(),
                passed: 2_000_000,
                passed_bytes: 900_000_000,
                dropped: 1_234_579,
                dropped_bytes: 74_076_420,
                would_drop: 7,
                would_drop_bytes: 420,
            }],
            drops: vec![row("banned", "eth0", 1_234_567, 74_074_020), row("tls_version", "eth0", 12, 2_400)],
            would_drops: vec![row("packet_limit", "eth0", 4, 240), row("packet_limit", "eth1", 3, 180)],
            denials: vec![CountRow { name: "token_missing".into(), count: 20 }],
            hellos: HelloRow { compared: 1_200, false_drops: 0, missed: 3 },
            listed: vec![CountRow { name: "refuse_names".into(), count: 1_400 }],
            files: Some(crate::control::wire::FilesRow { age_seconds: 60, error: None }),
            last_reload: Some(ReloadRow {
                age_seconds: 300,
                error: None,
                needs_restart: vec!["kernel.mode".into()],
            }),
        });
        assert_eq!(
            shown,
            "enforcer 0.1.0 is running: pid 4711, up 2h 5m, 21.3 MB resident\n\
             \n\
             kernel     mode native: eth0 (native)\n\
             refusals   alert; SYN cookies above the budget, once a listener's queue is full (net.ipv4.tcp_syncookies is 1); checksums verified, but not on v0\n\
             budgets    each source; tiers: partners; each IPv6 /48: 64 times a source\n\
             without    the daemon the program judges on, for 1m (lease); pinned in /sys/fs/bpf/enforcer, taken over from an earlier daemon\n\
             hellos     1,200 refused and compared with what TLS says, none wrongly; 3 of an old version got as far as TLS; listed: 1,400 by refuse_names\n\
             rehearsed  limits (kernel.dry_run: counted, NOT DROPPED)\n\
             lists      1,204 entries, all in the kernel\n\
             listeners  [::]:443\n\
             clients    at most 20,000 connections\n\
             metrics    127.0.0.1:9464\n\
             tokens     main https://id.example.com/ (2 keys, fetched 1m 30s ago)\n\
             revoked    1,003 of 1,000,000, 2 by file, 48.0 kB\n\
             bans       1,200 by offence, 3 by operator\n\
             store      /var/lib/enforcer/bans.redb\n\
             files      changed 1m ago, taken over\n\
             reload     5m ago, applied; these need a restart: kernel.mode\n\
             \n\
             NOTE: eth0 is odd\n\
             \n\
             UPSTREAM  SERVER                 STATE    REQUESTS  CONNECTIONS  RESTS  REPEATED\n\
             api       https://10.0.0.1:8443  resting         3            2      1     4,000\n\
             \n\
             INTERFACE     PASSED     BYTES    DROPPED    BYTES  WOULD DROP\n\
             eth0       2,000,000  900.0 MB  1,234,579  74.1 MB           7\n\
             \n\
             DROPPED PACKETS    PACKETS    BYTES\n\
             banned           1,234,567  74.1 MB\n\
             tls_version             12   2.4 kB\n\
             \n\
             WOULD DROP    INTERFACE  PACKETS  BYTES\n\
             packet_limit  eth0             4  240 B\n\
             packet_limit  eth1             3  180 B\n\
             \n\
             REFUSED REQUESTS  COUNT\n\
             token_missing        20\n"
        );
    }

    #[test]
    fn why_begins_with_one_sentence() {
        let limit = |name: &str, limited, remaining, wait_ns| LimitState {
            limit: name.into(),
            limited,
            remaining,
            burst: 1_000,
            wait_ns,
        };
        let mut told = Why {
            address: "198.18.0.2".parse().unwrap(),
            port: 443,
            protocol: crate::kernel::Protocol::Tcp,
            sentence: "198.18.0.2 is banned for 9m 41s more: its packets are dropped (banned)".into(),
            explanation: Explanation {
                verdict: "drop".into(),
                reason: "banned".into(),
                description: "The source is banned.".into(),
                rule: "198.18.0.2 is banned by offence".into(),
                would_drop: Vec::new(),
                source: "198.18.0.2".into(),
                tier: String::new(),
                limits: vec![
                    limit("packets", false, 0, 0),
                    limit("connections", true, 993, 0),
                    limit("hellos", true, 0, 4_999_000),
                ],
            },
            ban: Some(BanRow {
                prefix: "198.18.0.2".parse().unwrap(),
                origin: "offence".into(),
                cause: "token_bad_signature".into(),
                age_seconds: 19,
                remaining_seconds: Some(581),
                offences: 4,
                shadowed_by: None,
            }),
            allowance: None,
            score: Some(ScoreRow {
                points: 0,
                threshold: 100,
                offences: 0,
                bans: 1,
                last: "token_missing".into(),
            }),
            counter: Some(CounterRow {
                reason: "banned".into(),
                interface: String::new(),
                packets: 1,
                bytes: 74,
            }),
        };
        assert_eq!(
            why(&told),
            "198.18.0.2 is banned for 9m 41s more: its packets are dropped (banned)\n\
             \n\
             verdict  drop: banned\n\
             meaning  The source is banned.\n\
             rule     198.18.0.2 is banned by offence\n\
             source   198.18.0.2\n\
             ban      198.18.0.2 by offence (token_bad_signature), since 19s, 9m 41s remaining, 4 offences\n\
             score    0 of 100 points; 0 offences, last token_missing; 1 ban within a day\n\
             counted  1 packet, 74 B of all sources for this reason\n\
             \n\
             Bans come before limits: none of these packets is charged to one.\n"
        );
        told.ban = None;
        assert!(why(&told).ends_with(
            "\n\
                 LIMIT        AT ONCE NOW  BURST  WAIT\n\
                 packets              off\n\
                 connections          993  1,000  none\n\
                 hellos                 0  1,000  5 ms\n"
        ));
    }
}
