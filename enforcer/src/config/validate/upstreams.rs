//! Rules for `[upstream.NAME]`.

use std::{collections::BTreeMap, time::Duration};

use toml::Spanned;

use super::{Rules, entries, quote};
use crate::config::{
    Certificate, Ejection, HealthCheck, TlsFile, Upstream, UpstreamTls,
    file::{EjectionSection, File, HealthSection, Key, UpstreamSection, UpstreamTlsSection},
    named::Named,
    value::{DurationOrOff, Text, spell_duration},
};

const SERVERS: &str = "write servers = [\"http://127.0.0.1:9000\"]";
const HOUR_MS: u64 = 3_600_000;

pub(super) fn upstreams(file: &File, rules: &mut Rules<'_, '_>) -> BTreeMap<String, Upstream> {
    let read = |(name, upstream): (&String, &Spanned<_>)| {
        let mut rules = rules.within(format!("upstream.{}", quote(name)), upstream.span());
        rules.name(name);
        (name.clone(), read(upstream.get_ref(), &mut rules))
    };
    file.upstream.iter().map(read).collect()
}

fn read(section: &UpstreamSection, rules: &mut Rules<'_, '_>) -> Upstream {
    rules.not_empty("servers", &section.servers, SERVERS);
    rules.distinct("servers", entries(&section.servers).map(|uri| (uri.span(), &uri.get_ref().0)));
    let servers: Vec<http::Uri> = entries(&section.servers).map(|uri| uri.get_ref().0.clone()).collect();
    let encrypted = servers.iter().any(|server| server.scheme() == Some(&http::uri::Scheme::HTTPS));
    let base = Upstream::of(servers);
    let mut limit = |key, value: &Key<Text<Duration>>, default, least| {
        rules.duration(key, value, default, least..=HOUR_MS)
    };
    let response_timeout = limit("response_timeout", &section.response_timeout, base.response_timeout, 10);
    let stream_timeout = limit("stream_timeout", &section.stream_timeout, base.stream_timeout, 10);
    let idle_timeout = limit("idle_timeout", &section.idle_timeout, base.idle_timeout, 100);
    let connect_timeout =
        rules.duration("connect_timeout", &section.connect_timeout, base.connect_timeout, 10..=300_000);
    let upgrade_timeout =
        rules.duration("upgrade_timeout", &section.upgrade_timeout, base.upgrade_timeout, 100..=24 * HOUR_MS);
    let mut number = |key, value, default: u32, least| {
        let number = rules.number(key, value, u64::from(default), least..=1_000_000);
        u32::try_from(number).unwrap_or(default)
    };
    Upstream {
        max_connections: number("max_connections", &section.max_connections, base.max_connections, 1),
        max_pending: number("max_pending", &section.max_pending, base.max_pending, 0),
        total_timeout: total(&section.total_timeout, rules),
        tls: tls(&section.tls, encrypted, base.tls, rules),
        ejection: ejection(&section.ejection, base.ejection, rules),
        health: section.health.as_ref().map(|health| check(health, rules)),
        servers: base.servers,
        connect_timeout,
        response_timeout,
        stream_timeout,
        upgrade_timeout,
        idle_timeout,
    }
}

fn total(value: &Key<Text<DurationOrOff>>, rules: &mut Rules<'_, '_>) -> Option<Duration> {
    let value = value.as_ref()?;
    let limit = value.get_ref().0.0?;
    let range = Duration::from_millis(10)..=Duration::from_millis(24 * HOUR_MS);
    Some(rules.in_range(value.span(), "total_timeout", limit, &range, |limit| spell_duration(*limit)))
}

fn tls(
    section: &Key<UpstreamTlsSection>,
    encrypted: bool,
    base: UpstreamTls,
    rules: &mut Rules<'_, '_>,
) -> UpstreamTls {
    let Some(value) = section else { return base };
    let section = value.get_ref();
    if !encrypted {
        let remedy = "write https:// before a server that speaks TLS, or remove it";
        rules.refuse(value.span(), "tls", "without effect: no server is spoken to by TLS", remedy);
    }
    let mut rules = rules.within(rules.path("tls"), value.span());
    let remedy = "name the PEM file with the roots that the servers' certificates come from";
    let authorities =
        section.authorities.as_ref().map(|_| rules.file("authorities", &section.authorities, remedy));
    if let Some((place, path)) = rules.named_file("authorities", &section.authorities) {
        rules.errors.named.push((place, Named::TlsFile(path, TlsFile::ServerAuthorities)));
    }
    let remedy = "write the name that the servers' certificates are for";
    let server_name = section.server_name.as_ref().map(|value| {
        let name = rules.text("server_name", &section.server_name, remedy);
        if !name.is_empty() && rustls_pki_types::ServerName::try_from(name.as_str()).is_err() {
            rules.refuse(
                value.span(),
                "server_name",
                format!("`{}` is no name of a server", name.escape_debug()),
                remedy,
            );
        }
        name
    });
    let shown = section.chain.is_some() || section.key.is_some();
    let certificate = shown.then(|| {
        let chain =
            rules.file("chain", &section.chain, "name the PEM file with the chain to show, leaf first");
        let key = rules.file("key", &section.key, "name the PEM file with the private key of `chain`");
        let named = Named::Certificate {
            chain: rules.named_file("chain", &section.chain),
            key: rules.named_file("key", &section.key),
        };
        rules.name_outside("", value.span(), named);
        Certificate { chain, key, ocsp: None }
    });
    let mut alpn = base.alpn;
    if section.alpn.is_some() {
        rules.not_empty("alpn", &section.alpn, "list \"h2\", \"http/1.1\" or both");
        alpn = entries(&section.alpn).map(|one| *one.get_ref()).collect();
        alpn.dedup();
    }
    UpstreamTls { authorities, server_name, certificate, alpn }
}

fn ejection(section: &Key<EjectionSection>, base: Ejection, rules: &mut Rules<'_, '_>) -> Ejection {
    let Some(value) = section else { return base };
    let section = value.get_ref();
    let mut rules = rules.within(rules.path("ejection"), value.span());
    let failures = rules.number("failures", &section.failures, base.failures.into(), 0..=1_000);
    Ejection {
        failures: u32::try_from(failures).unwrap_or(base.failures),
        rest: rules.duration("rest", &section.rest, base.rest, 1_000..=HOUR_MS),
    }
}

fn check(value: &Spanned<HealthSection>, rules: &mut Rules<'_, '_>) -> HealthCheck {
    let section = value.get_ref();
    let mut rules = rules.within(rules.path("health"), value.span());
    let remedy = "write a path like \"/healthz\"";
    let path = rules.text("path", &section.path, remedy);
    let good = path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok();
    if let Some(written) = &section.path
        && !path.is_empty()
        && !good
    {
        let problem = format!("`{}` is no path", path.escape_debug());
        rules.refuse(written.span(), "path", problem, remedy);
    }
    let base = HealthCheck::of(path);
    let mut number = |key, value, default: u32| {
        u32::try_from(rules.number(key, value, u64::from(default), 1..=100)).unwrap_or(default)
    };
    let healthy = number("healthy", &section.healthy, base.healthy);
    let unhealthy = number("unhealthy", &section.unhealthy, base.unhealthy);
    HealthCheck {
        interval: rules.duration("interval", &section.interval, base.interval, 100..=HOUR_MS),
        timeout: rules.duration("timeout", &section.timeout, base.timeout, 10..=300_000),
        healthy,
        unhealthy,
        path: base.path,
    }
}
