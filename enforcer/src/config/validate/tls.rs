//! Rules for TLS: `[[listener]]` and `[tls]`.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use toml::Spanned;

use super::{Rules, entries};
use crate::config::{
    Certificate, Clients, KeyExchange, Listener, Mode, Suite, Tls, TlsFile, UnknownName,
    file::{CertificateSection, File, List, ListenerSection, TlsSection},
    named::Named,
    tls::ClientCertificates,
    value::Text,
};

const ADDRESS: &str = "write an address and a port, like \"[::]:443\"";
const CERTIFICATES: &str = "write certificates = [{ chain = \"api.pem\", key = \"api.key\" }]";
const AUTHORITIES: &str = "name the PEM file with the roots that clients' certificates come from";
const HOUR_MS: u64 = 3_600_000;
/// RFC 8446 section 4.6.1 allows tickets seven days.
const LONGEST_TICKET_MS: u64 = 7 * 24 * HOUR_MS;
/// Lists of revoked certificates of one listener; all are kept in memory.
const MOST_CRLS: usize = 64;
/// Prefixes of load balancers or of proxies; each is compared with each connection.
pub(super) const MOST_PROXIES: usize = 64;

pub(super) fn listeners(file: &File, rules: &mut Rules<'_, '_>) -> Vec<Listener> {
    if file.listener.is_empty() {
        rules.missing("listener", "add a [[listener]] with an address and certificates");
    }
    let mut seen = HashMap::new();
    let mut listeners = Vec::new();
    for (i, listener) in file.listener.iter().enumerate() {
        let mut rules = rules.within(format!("listener[{i}]"), listener.span());
        let section = listener.get_ref();
        if section.address.is_none() {
            rules.missing("address", ADDRESS);
        }
        rules.not_empty("certificates", &section.certificates, CERTIFICATES);
        if let Some(address) = &section.address
            && let Some(first) = seen.insert(address.get_ref().0, i)
        {
            let problem = format!("listener[{first}] has this address already");
            rules.refuse(
                address.span(),
                "address",
                problem,
                "merge the two, certificates are chosen by server name",
            );
        }
        let certificates = entries(&section.certificates)
            .enumerate()
            .map(|(c, certificate)| {
                let prefix = format!("listener[{i}].certificates[{c}]");
                certificate_of(certificate, &mut rules.within(prefix, certificate.span()))
            })
            .collect();
        let clients = clients(section, &mut rules);
        let handshake_timeout = rules.duration(
            "handshake_timeout",
            &section.handshake_timeout,
            Duration::from_secs(10),
            100..=300_000,
        );
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        if let Some(address) = &section.address {
            overlap(address, &listeners, &mut rules);
            rules.name_outside("address", address.span(), Named::Address(address.get_ref().0));
        }
        let address = section.address.as_ref().map_or(nowhere, |address| address.get_ref().0);
        let unknown_name = section.unknown_name.as_ref().map_or(UnknownName::Default, |name| *name.get_ref());
        let early_data = early_data(section, file, clients.is_some(), &mut rules);
        let proxy_protocol_from =
            rules.prefixes("proxy_protocol_from", &section.proxy_protocol_from, MOST_PROXIES);
        listeners.push(Listener {
            address,
            certificates,
            unknown_name,
            clients,
            handshake_timeout,
            proxy_protocol_from,
            early_data,
        });
    }
    listeners
}

/// Early data needs sessions that are used once, which tickets of shared keys cannot be: another node would not know.
fn early_data(section: &ListenerSection, file: &File, has_clients: bool, rules: &mut Rules<'_, '_>) -> bool {
    let Some(value) = section.early_data.as_ref().filter(|value| *value.get_ref()) else { return false };
    let unused = file.tls.ticket_lifetime.as_ref().is_some_and(|time| time.get_ref().0.is_zero());
    let (problem, remedy) = if file.tls.ticket_keys.is_some() {
        (
            "does not go with tls.ticket_keys: early data is safe from replay only where a session is used once, on the node that began it",
            "remove one of the two",
        )
    } else if unused {
        ("without effect: with tls.ticket_lifetime = \"0s\" no session is resumed", "remove one of the two")
    } else if has_clients {
        (
            "does not go with client_certificates: a request would be believed to be its device's before the handshake shows that it is",
            "remove it here, or give such clients a listener of their own",
        )
    } else {
        return true;
    };
    rules.refuse(value.span(), "early_data", problem, remedy);
    true
}

fn certificate_of(certificate: &Spanned<CertificateSection>, rules: &mut Rules<'_, '_>) -> Certificate {
    let section = certificate.get_ref();
    let chain = rules.file("chain", &section.chain, "name the PEM file with the chain, leaf first");
    let key = rules.file("key", &section.key, "name the PEM file with the private key");
    let named = Named::Certificate {
        chain: rules.named_file("chain", &section.chain),
        key: rules.named_file("key", &section.key),
    };
    rules.name_outside("", certificate.span(), named);
    let remedy = "name the file with the OCSP response, or remove the key";
    let ocsp = section.ocsp.as_ref().map(|_| rules.file("ocsp", &section.ocsp, remedy));
    if let Some((place, path)) = rules.named_file("ocsp", &section.ocsp) {
        rules.errors.named.push((place, Named::TlsFile(path, TlsFile::OcspResponse)));
    }
    Certificate { chain, key, ocsp }
}

fn clients(section: &ListenerSection, rules: &mut Rules<'_, '_>) -> Option<Clients> {
    let asked = section.client_certificates.as_ref().map_or(ClientCertificates::Off, |one| *one.get_ref());
    if asked == ClientCertificates::Off {
        // Whoever names authorities means to ask for certificates.
        let idle = [
            ("client_authorities", section.client_authorities.as_ref().map(Spanned::span)),
            ("client_crls", section.client_crls.as_ref().map(Spanned::span)),
        ];
        for (key, span) in idle {
            if let Some(span) = span {
                let remedy =
                    "write client_certificates = \"required\" or \"optional\" beside it, or remove it";
                rules.refuse(span, key, "without effect: no client is asked for a certificate", remedy);
            }
        }
        return None;
    }
    let authorities = rules.file("client_authorities", &section.client_authorities, AUTHORITIES);
    if let Some((place, path)) = rules.named_file("client_authorities", &section.client_authorities) {
        rules.errors.named.push((place, Named::TlsFile(path, TlsFile::ClientAuthorities)));
    }
    let texts = rules.texts("client_crls", &section.client_crls);
    if let Some(list) = section.client_crls.as_ref().filter(|_| texts.len() > MOST_CRLS) {
        let problem = format!("{} entries are too many", texts.len());
        rules.refuse(list.span(), "client_crls", problem, format!("list {MOST_CRLS} at most"));
    }
    for (n, entry) in entries(&section.client_crls).enumerate() {
        let path = rules.folder.join(&entry.get_ref().0);
        let key = format!("client_crls[{n}]");
        rules.name_outside(&key, entry.span(), Named::TlsFile(path, TlsFile::RevocationList));
    }
    let crls: Vec<PathBuf> = texts.iter().map(|text| rules.folder.join(text)).collect();
    Some(Clients { required: asked == ClientCertificates::Required, authorities, crls })
}

pub(super) fn tls(section: &TlsSection, rules: &mut Rules<'_, '_>) -> Tls {
    let mut rules = rules.section("tls");
    let suites = chosen("suites", &section.suites, &[Suite::Aes256Gcm, Suite::ChaCha20Poly1305], &mut rules);
    let groups = [KeyExchange::X25519Mlkem768, KeyExchange::X25519, KeyExchange::P256];
    let key_exchange = chosen("key_exchange", &section.key_exchange, &groups, &mut rules);
    let ticket_keys = section.ticket_keys.as_ref().map(|_| {
        rules.file("ticket_keys", &section.ticket_keys, "name the file with the keys, or remove the key")
    });
    if let Some((place, path)) = rules.named_file("ticket_keys", &section.ticket_keys) {
        rules.errors.named.push((place, Named::TlsFile(path, TlsFile::TicketKeys)));
    }
    let lifetime = rules.duration(
        "ticket_lifetime",
        &section.ticket_lifetime,
        Duration::from_millis(12 * HOUR_MS),
        0..=LONGEST_TICKET_MS,
    );
    if let Some(value) = &section.ticket_lifetime
        && !lifetime.is_zero()
        && lifetime < Duration::from_secs(60)
    {
        rules.refuse(value.span(), "ticket_lifetime", "too short for any use", "write 1m or more, or \"0s\"");
    }
    let sessions =
        rules.number("early_data_sessions", &section.early_data_sessions, 65_536, 1_024..=16_777_216);
    Tls {
        suites,
        key_exchange,
        ticket_keys,
        ticket_lifetime: Some(lifetime).filter(|it| !it.is_zero()),
        early_data_sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
    }
}

/// The entries of a list of choices, each once and one at least; what holds without it.
fn chosen<T: Copy + Eq + Hash>(
    key: &str,
    list: &List<T>,
    without: &[T],
    rules: &mut Rules<'_, '_>,
) -> Vec<T> {
    if list.is_none() {
        return without.to_vec();
    }
    rules.not_empty(key, list, "name one at least, or remove the key");
    let mut kept: Vec<T> = Vec::new();
    for entry in entries(list) {
        if kept.contains(entry.get_ref()) {
            rules.refuse_entry(entry.span(), key, "stands here twice", "remove one");
        } else {
            kept.push(*entry.get_ref());
        }
    }
    kept
}

/// Refuses an address that an earlier listener covers, or that covers it.
fn overlap(address: &Spanned<Text<SocketAddr>>, earlier: &[Listener], rules: &mut Rules<'_, '_>) {
    let mine = address.get_ref().0;
    let other = earlier.iter().position(|other| other.address != mine && both_take(other.address, mine));
    if let Some(i) = other {
        let problem =
            format!("{mine} and listener[{i}], {}, would take the same connections", earlier[i].address);
        let remedy = "keep the wider of the two, or give each its own address or port";
        rules.refuse(address.span(), "address", problem, remedy);
    }
}

/// Whether one connection could belong to both: one port, and one of the two takes every address of the other's kind.
/// `[::]` takes IPv4 too.
pub(super) fn both_take(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |wide: SocketAddr, narrow: SocketAddr| {
        wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    a.port() == b.port() && a.port() != 0 && (a == b || covers(a, b) || covers(b, a))
}

/// A port that the system picks cannot be told to the program beforehand.
pub(super) fn ports(file: &File, mode: Mode, rules: &mut Rules<'_, '_>) {
    for (i, listener) in file.listener.iter().enumerate() {
        if let Some(address) = &listener.get_ref().address
            && address.get_ref().0.port() == 0
            && mode != Mode::Off
        {
            let mut rules = rules.within(format!("listener[{i}]"), listener.span());
            let remedy = "name a port, or write kernel.mode = \"off\" for development";
            rules.refuse(address.span(), "address", "port 0 lets the system pick one", remedy);
        }
    }
}
