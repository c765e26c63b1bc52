//! Rules for the daemon itself: `[http]`, `[bans]`, `[metrics]`, `[control]`, `[log]`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    LimitRules, Rules, answers, integrity,
    tls::{MOST_PROXIES, both_take},
};
use crate::config::{
    Bans, Control, ForwardedBy, Http, Listener, Log, LogFormat, Metrics, RateLimit, Unrouted,
    file::{BansSection, ControlSection, HttpSection, LogSection, MetricsSection},
    log_filter,
    named::Named,
};

/// A Unix socket's path, without the zero at its end (unix(7)).
const LONGEST_SOCKET: usize = 107;
/// `bans.store` unless told otherwise: in what the service manager makes (`StateDirectory` of the packaged unit).
const BAN_STORE: &str = "/var/lib/enforcer/bans.redb";
/// Far more than any client has a use for; a flood of them is thousands of times as much.
const CONTROL_FRAMES: LimitRules = LimitRules {
    default: RateLimit { events: 100, period: Duration::from_secs(1), burst: 1_000 },
    may_be_off: true,
    least_burst: 100,
};
const HOUR_MS: u64 = 3_600_000;

pub(super) fn http(section: &HttpSection, listeners: &[Listener], rules: &mut Rules<'_, '_>) -> Http {
    let mut rules = rules.section("http");
    let u32_of = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let connections = rules.number("max_connections", &section.max_connections, 20_000, 1..=10_000_000);
    let per_source = rules.number(
        "max_connections_per_source",
        &section.max_connections_per_source,
        1_000,
        0..=10_000_000,
    );
    // hyper keeps at least 8 KiB for a head.
    let header = rules.size("max_header_bytes", &section.max_header_bytes, 32 << 10, 8 << 10..=1 << 20);
    let fields = rules.number("max_header_fields", &section.max_header_fields, 100, 10..=1_000);
    let workers = rules.number("workers", &section.workers, 0, 0..=1_024);
    let tokens = rules.number("token_cache", &section.token_cache, 65_536, 0..=16_777_216);
    let seconds = Duration::from_secs;
    Http {
        strict_transport_security: strict_transport_security(section, &mut rules),
        response_headers: answers::headers(section, &mut rules),
        redirect: answers::redirect(section, listeners, &mut rules),
        max_connections: u32_of(connections),
        max_connections_per_source: u32_of(per_source),
        max_header_bytes: u32_of(header),
        control_frames: rules.limit("control_frames", &section.control_frames, CONTROL_FRAMES),
        body_timeout: rules.duration("body_timeout", &section.body_timeout, seconds(30), 100..=HOUR_MS),
        min_body_rate: rules.size("min_body_rate", &section.min_body_rate, 64, 0..=1 << 20),
        write_timeout: rules.duration("write_timeout", &section.write_timeout, seconds(60), 100..=HOUR_MS),
        trusted_proxies: rules.prefixes("trusted_proxies", &section.trusted_proxies, MOST_PROXIES),
        forwarded_by: section.forwarded_by.as_ref().map_or(ForwardedBy::XForwardedFor, |by| *by.get_ref()),
        forwarded_origin: integrity::forwarded_origin(section, &mut rules),
        max_header_fields: u16::try_from(fields).unwrap_or(u16::MAX),
        max_body_bytes: rules.size("max_body_bytes", &section.max_body_bytes, 10 << 20, 0..=1 << 50),
        max_held_bytes: rules.size("max_held_bytes", &section.max_held_bytes, 256 << 20, 1 << 20..=1 << 50),
        header_timeout: rules.duration("header_timeout", &section.header_timeout, seconds(15), 100..=300_000),
        idle_timeout: rules.duration("idle_timeout", &section.idle_timeout, seconds(75), 100..=24 * HOUR_MS),
        drain_timeout: rules.duration("drain_timeout", &section.drain_timeout, seconds(20), 0..=HOUR_MS),
        max_sources: rules.slots(&section.max_sources, 65_536),
        max_delayed: u32_of(rules.number("max_delayed", &section.max_delayed, 1_000, 0..=1_000_000)),
        ratelimit_headers: section.ratelimit_headers.as_ref().is_none_or(|told| *told.get_ref()),
        tokens_in_query: section.tokens_in_query.as_ref().is_some_and(|allowed| *allowed.get_ref()),
        unrouted: section.default.as_ref().map_or(Unrouted::NotFound, |default| *default.get_ref()),
        token_cache: u32_of(tokens),
        workers: usize::try_from(workers).unwrap_or(0),
    }
}

fn strict_transport_security(section: &HttpSection, rules: &mut Rules<'_, '_>) -> Option<String> {
    let Some(value) = &section.strict_transport_security else { return Some("max-age=31536000".to_owned()) };
    let text = &value.get_ref().0;
    if text.is_empty() {
        return None;
    }
    // RFC 6797 section 6.1: directives between semicolons, max-age is required and a number, perhaps in quotes.
    let age = text.split(';').find_map(|directive| {
        let (name, age) = directive.split_once('=')?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| age.trim().trim_matches('"'))
    });
    let good_age = age.is_some_and(|age| !age.is_empty() && age.bytes().all(|b| b.is_ascii_digit()));
    if !good_age || !text.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        let problem = format!("`{}` is no valid header", text.escape_debug());
        let remedy = "write it like \"max-age=31536000; includeSubDomains\", or \"\" to send none";
        rules.refuse(value.span(), "strict_transport_security", problem, remedy);
    }
    Some(text.clone())
}

pub(super) fn bans(section: &BansSection, rules: &mut Rules<'_, '_>) -> Bans {
    let mut rules = rules.section("bans");
    let year = 8_760 * HOUR_MS;
    let duration = rules.duration("duration", &section.duration, Duration::from_secs(600), 1_000..=year);
    let longest =
        rules.duration("max_duration", &section.max_duration, Duration::from_secs(86_400), 1_000..=year);
    if duration > longest {
        let culprit = section.max_duration.as_ref().or(section.duration.as_ref());
        let key = if section.max_duration.is_some() { "max_duration" } else { "duration" };
        let problem = "the first ban would last longer than the longest";
        let span = culprit.map_or(rules.span.clone(), |value| value.span());
        rules.refuse(span, key, problem, "make `max_duration` at least `duration`");
    }
    let threshold = rules.number("threshold", &section.threshold, 100, 1..=1_000_000);
    let entries = rules.number("max_entries", &section.max_entries, 1_100_000, 1..=10_000_000);
    Bans {
        threshold: u32::try_from(threshold).unwrap_or(u32::MAX),
        window: rules.duration("window", &section.window, Duration::from_secs(60), 1_000..=24 * HOUR_MS),
        duration,
        max_duration: longest,
        max_entries: u32::try_from(entries).unwrap_or(u32::MAX),
        dry_run: section.dry_run.as_ref().is_some_and(|dry| *dry.get_ref()),
        store: store(section, &mut rules),
    }
}

fn store(section: &BansSection, rules: &mut Rules<'_, '_>) -> Option<PathBuf> {
    match &section.store {
        None => Some(BAN_STORE.into()),
        Some(value) if value.get_ref().0 == "off" => None,
        Some(_) => Some(rules.file("store", &section.store, "write a path, or \"off\"")),
    }
}

pub(super) fn metrics(
    section: &MetricsSection,
    listeners: &[Listener],
    redirect: &[SocketAddr],
    rules: &mut Rules<'_, '_>,
) -> Metrics {
    let mut rules = rules.section("metrics");
    let address = match &section.address {
        None => Some(SocketAddr::from(([127, 0, 0, 1], 9_464))),
        Some(value) => value.get_ref().0.0,
    };
    let span = section.address.as_ref().map_or(rules.span.clone(), |value| value.span());
    if let Some(address) = address {
        if let Some(i) = listeners.iter().position(|listener| both_take(listener.address, address)) {
            let problem = format!("listener[{i}] has this address");
            rules.refuse(span.clone(), "address", problem, "choose another port");
        }
        if redirect.iter().any(|other| both_take(*other, address)) {
            let problem = "http.redirect has this address";
            rules.refuse(span.clone(), "address", problem, "choose another port");
        }
        if !address.ip().is_loopback() {
            let key = rules.path("address");
            let problem =
                format!("whoever reaches {address} reads the metrics, without TLS and without a token");
            let remedy = "write an address of loopback, or let only the scrapers reach it".to_owned();
            rules.errors.warn(span.clone(), &key, problem, remedy);
        }
        rules.name_outside("address", span, Named::Address(address));
    }
    Metrics { address }
}

pub(super) fn control(section: &ControlSection, rules: &mut Rules<'_, '_>) -> Control {
    let mut rules = rules.section("control");
    let socket = match &section.socket {
        None => PathBuf::from("/run/enforcer/control.sock"),
        Some(value) => {
            let path = rules.file("socket", &section.socket, "name a path, or remove the key");
            let length = path.as_os_str().len();
            if length > LONGEST_SOCKET {
                let problem = format!("{length} bytes are too long for a socket's path");
                rules.refuse(value.span(), "socket", problem, format!("stay within {LONGEST_SOCKET} bytes"));
            }
            path
        }
    };
    let span = section.socket.as_ref().map_or(rules.span.clone(), |value| value.span());
    rules.name_outside("socket", span, Named::Socket(socket.clone()));
    if let Some(group) = &section.group {
        rules.name_outside("group", group.span(), Named::Group(group.get_ref().0.clone()));
    }
    let group = section
        .group
        .as_ref()
        .map(|_| rules.text("group", &section.group, "name a group, or remove the key"));
    Control { socket, group }
}

pub(super) fn log(section: &LogSection, rules: &mut Rules<'_, '_>) -> Log {
    let mut rules = rules.section("log");
    let mut level = "info".to_owned();
    if let Some(value) = &section.level {
        level = rules.text("level", &section.level, "write a filter like \"info\"");
        if let Err(problem) = log_filter(&level)
            && !level.is_empty()
        {
            let remedy = "write off, error, warn, info, debug or trace, or levels per module like \"warn,enforcer::ingress=debug\"";
            rules.refuse(value.span(), "level", problem, remedy);
        }
    }
    Log { level, format: section.format.as_ref().map_or(LogFormat::Text, |format| *format.get_ref()) }
}
