//! Rules for `[kernel]`: what the program is attached to and what it is told.

use std::{
    path::{Component, PathBuf},
    time::Duration,
};

use enforcer_common::{quic, reason::DropReason, settings::QUIC_VERSIONS};

use super::{LimitRules, Rules, entries, hellos, limits, lists};
use crate::config::{
    Answers, Kernel, Mode, PIN_DIRECTORY, RateLimit, Refusal, TlsVersion, Treatment, Unparsed,
    VerifyChecksums, WhenExpired,
    file::{KernelSection, Key, List, UnparsedSection},
    named::Named,
    value::{Number, spell_duration},
};

/// Shortest lease, milliseconds: a daemon that is busy for some seconds must not lose its enforcement.
const LEAST_LEASE_MS: u64 = 5_000;

/// The kernel keeps names in 16 bytes with a zero at the end (`IFNAMSIZ`, linux/if.h).
const LONGEST_INTERFACE: usize = 15;

pub(super) fn kernel(section: &KernelSection, listeners: &[u16], rules: &mut Rules<'_, '_>) -> Kernel {
    let mut rules = rules.section("kernel");
    let mode = section.mode.as_ref().map_or(Mode::Native, |mode| *mode.get_ref());
    let management_ports = match &section.management_ports {
        None => vec![22],
        Some(_) => ports("management_ports", &section.management_ports, &mut rules),
    };
    let protected_ports = match &section.protected_ports {
        None => listening(listeners),
        Some(_) => ports("protected_ports", &section.protected_ports, &mut rules),
    };
    for port in protected_ports.iter().filter(|port| management_ports.contains(port)) {
        let span = section.management_ports.as_ref().map_or(rules.span.clone(), |list| list.span());
        let problem = format!("{port} is protected and exempt at once");
        rules.refuse(
            span,
            "management_ports",
            problem,
            "take it out of `management_ports`, or list `protected_ports` without it",
        );
    }
    let lists = lists::lists(section, &mut rules);
    let bits = rules.number("ipv6_prefix", &section.ipv6_prefix, 64, 32..=64);
    let ipv6_prefix = u8::try_from(bits).unwrap_or(64);
    let limits = limits::limits(&section.limits, ipv6_prefix, &mut rules);
    rules.distinct(
        "dry_run",
        entries(&section.dry_run).map(|entry| (entry.span(), entry.get_ref().0.label())),
    );
    let samples = LimitRules { default: RateLimit::per_second(100, 200), may_be_off: true, least_burst: 1 };
    let syns = LimitRules { default: RateLimit::per_second(10_000, 20_000), ..samples };
    let syn_cookies = rules.limit("syn_cookies", &section.syn_cookies, syns);
    if mode != Mode::Off && syn_cookies.is_some() {
        let span = section.syn_cookies.as_ref().map_or(rules.span.clone(), |key| key.span());
        rules.name_outside("syn_cookies", span, Named::SynCookies);
    }
    let answers = section.answers.as_ref().map_or(Answers::Auto, |answers| *answers.get_ref());
    let interfaces = interfaces(section, mode, &mut rules);
    let refusal = section.refusal.as_ref().map_or(Refusal::Alert, |refusal| *refusal.get_ref());
    if mode != Mode::Off && answers == Answers::Auto && (refusal != Refusal::Drop || syn_cookies.is_some()) {
        let span = section.answers.as_ref().map_or(rules.span.clone(), |key| key.span());
        rules.name_outside("answers", span, Named::Answers(interfaces.clone()));
    }
    Kernel {
        mode,
        interfaces,
        allow: lists.allow,
        allow_ports: lists.allow_ports,
        management_ports,
        management_from: lists.management_from,
        tiers: lists::tiers(section, limits.set(), ipv6_prefix, &mut rules),
        groups: limits::groups(&section.group, &mut rules),
        everybody: limits::everybody(&section.global, &mut rules),
        protected_ports,
        ipv6_prefix,
        minimum_tls: section.minimum_tls.as_ref().map_or(TlsVersion::Tls12, |tls| *tls.get_ref()),
        refusal,
        hellos: hellos::hellos(&section.hellos, &mut rules),
        verify_checksums: section
            .verify_checksums
            .as_ref()
            .map_or(VerifyChecksums::Auto, |verify| *verify.get_ref()),
        answers,
        strict_connections: section.strict_connections.as_ref().is_some_and(|strict| *strict.get_ref()),
        quic_ports: ports("quic_ports", &section.quic_ports, &mut rules),
        quic_versions: quic_versions(&section.quic_versions, &mut rules),
        syn_cookies,
        unparsed: unparsed(&section.unparsed),
        limits,
        dry_run: entries(&section.dry_run).map(|feature| feature.get_ref().0).collect(),
        events: rules.limit("events", &section.events, samples),
        log: section.log.as_ref().is_some_and(|log| *log.get_ref()),
        persist: section.persist.as_ref().is_none_or(|persist| *persist.get_ref()),
        pin_directory: pin_directory(section, &mut rules),
        lease: lease(section, &mut rules),
        lease_expired: section.lease_expired.as_ref().map_or(WhenExpired::Pass, |choice| *choice.get_ref()),
    }
}

/// Names on a bpffs hold no dots (bpf_lookup in kernel/bpf/inode.c), and relative ones would count from wherever the daemon
/// was started.
fn pin_directory(section: &KernelSection, rules: &mut Rules<'_, '_>) -> PathBuf {
    let Some(value) = &section.pin_directory else { return PIN_DIRECTORY.into() };
    let path = PathBuf::from(&value.get_ref().0);
    let named = path.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    if !path.is_absolute() || !named || path.components().count() < 2 || value.get_ref().0.contains('\0') {
        let problem = format!("`{}` is no absolute path of a directory", path.display());
        let remedy = format!("write one on a bpf file system, like \"{PIN_DIRECTORY}\"");
        rules.refuse(value.span(), "pin_directory", problem, remedy);
    }
    path
}

/// The daemon renews its lease every second and may need [`LEAST_LEASE_MS`] to see that it is not healthy.
fn lease(section: &KernelSection, rules: &mut Rules<'_, '_>) -> Option<Duration> {
    let value = section.lease.as_ref()?;
    let lease = value.get_ref().0.0?;
    let range = Duration::from_millis(LEAST_LEASE_MS)..=Duration::from_secs(365 * 24 * 3_600);
    Some(rules.in_range(value.span(), "lease", lease, &range, |lease| spell_duration(*lease)))
}

fn interfaces(section: &KernelSection, mode: Mode, rules: &mut Rules<'_, '_>) -> Vec<String> {
    if mode != Mode::Off {
        let remedy =
            "list the interfaces to protect, like [\"eth0\"], or write `mode = \"off\"` to judge no packets";
        rules.not_empty("interfaces", &section.interfaces, remedy);
    }
    for entry in entries(&section.interfaces) {
        let name = &entry.get_ref().0;
        let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
        if name.is_empty()
            || name.len() > LONGEST_INTERFACE
            || name.contains(bad)
            || name == "."
            || name == ".."
        {
            let problem = format!("`{name}` cannot be the name of an interface");
            rules.refuse_entry(entry.span(), "interfaces", problem, "`ip link` lists those that exist");
        }
    }
    for (i, entry) in entries(&section.interfaces).enumerate() {
        rules.name_outside(
            &format!("interfaces[{i}]"),
            entry.span(),
            Named::Interface(entry.get_ref().0.clone()),
        );
    }
    let named = entries(&section.interfaces).map(|entry| (entry.span(), entry.get_ref().0.as_str()));
    rules.distinct("interfaces", named);
    entries(&section.interfaces).map(|entry| entry.get_ref().0.clone()).collect()
}

pub(super) fn ports(key: &str, list: &List<Number>, rules: &mut Rules<'_, '_>) -> Vec<u16> {
    let mut ports = Vec::new();
    for entry in entries(list) {
        match u16::try_from(entry.get_ref().0) {
            Ok(port) if port > 0 => ports.push(port),
            _ => {
                let problem = format!("{} is no port", entry.get_ref().0);
                rules.refuse_entry(entry.span(), key, problem, "write 1 to 65535");
            }
        }
    }
    rules.distinct(key, entries(list).map(|entry| (entry.span(), entry.get_ref().0)));
    ports
}

/// Versions 1 and 2 unless others are listed (RFC 9000 section 15, RFC 9369 section 3.1).
fn quic_versions(list: &List<Number>, rules: &mut Rules<'_, '_>) -> Vec<u32> {
    let Some(listed) = list else { return vec![quic::VERSION_1, quic::VERSION_2] };
    if listed.get_ref().is_empty() || listed.get_ref().len() > QUIC_VERSIONS {
        let problem = format!("{} entries", listed.get_ref().len());
        let remedy = format!("list 1 to {QUIC_VERSIONS}, like [1, 0x6b3343cf], or leave the key out");
        rules.refuse(listed.span(), "quic_versions", problem, remedy);
    }
    let mut versions = Vec::new();
    for entry in entries(list) {
        match u32::try_from(entry.get_ref().0) {
            Ok(version) if version != 0 => versions.push(version),
            _ => {
                let problem = format!("{} is no QUIC version", entry.get_ref().0);
                rules.refuse_entry(entry.span(), "quic_versions", problem, "write 1 to 0xffffffff");
            }
        }
    }
    rules.distinct("quic_versions", entries(list).map(|entry| (entry.span(), entry.get_ref().0)));
    versions
}

fn unparsed(section: &UnparsedSection) -> Unparsed {
    let choices = [
        (&section.truncated, DropReason::Truncated),
        (&section.vlan_depth, DropReason::VlanDepth),
        (&section.malformed_ipv4, DropReason::MalformedIpv4),
        (&section.malformed_ipv6, DropReason::MalformedIpv6),
        (&section.extension_depth, DropReason::ExtensionDepth),
        (&section.malformed_tcp, DropReason::MalformedTcp),
        (&section.malformed_udp, DropReason::MalformedUdp),
    ];
    let chosen = |key: &Key<Treatment>, default| key.as_ref().map_or(default, |choice| *choice.get_ref());
    let passed = choices.into_iter().filter(|(key, _)| chosen(key, Treatment::Drop) == Treatment::Pass);
    Unparsed {
        not_ip: chosen(&section.not_ip, Treatment::Pass),
        passed: passed.map(|(_, reason)| reason).collect(),
    }
}

/// The ports of the listeners, each once.
fn listening(listeners: &[u16]) -> Vec<u16> {
    let mut ports: Vec<u16> = listeners.iter().copied().filter(|port| *port != 0).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
