//! Whether the machine has what a file names: interfaces, files, keys that fit, free addresses. Called by `enforcer
//! check`, also for a file with other errors; reads files, changes nothing.

use std::{fs, io, net::SocketAddr, path::Path};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    SignatureScheme, TlsFile,
    error::Collector,
    inspect::{Probes, is_folder},
    named::{Named, Place},
};
use crate::device::Device;

mod certificate;

/// What the service manager makes before the start (`RuntimeDirectory` of the packaged unit).
const RUNTIME_FOLDER: &str = "/run/enforcer";

/// Looks at everything that the collector holds as named, and adds what is amiss.
pub(super) fn look(collector: &mut Collector<'_>, probes: &Probes) {
    let named = std::mem::take(&mut collector.named);
    let present = nix::net::if_::if_nameindex()
        .map(|list| list.iter().map(|entry| entry.name().to_string_lossy().into_owned()).collect::<Vec<_>>());
    let held = named.iter().find_map(|(_, named)| match named {
        Named::Socket(path) => Some((probes.held)(path)),
        Named::Interface(_)
        | Named::SynCookies
        | Named::Answers(_)
        | Named::Certificate { .. }
        | Named::TlsFile(..)
        | Named::KeySet(..)
        | Named::Group(_)
        | Named::Address(_) => None,
    });
    let held = held.unwrap_or_default();
    for (place, named) in &named {
        match named {
            Named::Interface(name) => interface(collector, place, name, present.as_deref().ok()),
            Named::SynCookies => syn_cookies(collector, place),
            Named::Answers(interfaces) => answers(collector, place, interfaces),
            Named::Certificate { chain, key } => {
                certificate::look(collector, place, chain.as_ref(), key.as_ref());
            }
            Named::TlsFile(path, kind) => {
                if let Some(problem) = (probes.tls_file)(*kind, path) {
                    refuse(collector, place, problem, tls_remedy(*kind));
                } else if *kind == TlsFile::TicketKeys && is_open(path) {
                    let problem = format!("{}: every user of this machine may read it", path.display());
                    warn(
                        collector,
                        place,
                        problem,
                        "chmod 0640: whoever has the keys can read resumed sessions",
                    );
                } else if matches!(kind, TlsFile::SignatureKey(_)) && is_open(path) && !is_public_key(path) {
                    let problem = format!("{}: every user of this machine may read it", path.display());
                    warn(collector, place, problem, "chmod 0640: whoever has the secret can sign requests");
                } else if matches!(kind, TlsFile::SessionKeys | TlsFile::FactsKey | TlsFile::PlayKeys)
                    && is_open(path)
                {
                    let problem = format!("{}: every user of this machine may read it", path.display());
                    warn(collector, place, problem, "chmod 0640: whoever has it can pass for any device");
                } else if *kind == TlsFile::PayloadKey && is_open(path) {
                    let problem = format!("{}: every user of this machine may read it", path.display());
                    warn(collector, place, problem, "chmod 0640: whoever has it can read encrypted bodies");
                }
            }
            Named::KeySet(path, algorithms) => {
                for problem in (probes.key_set)(path, algorithms) {
                    let remedy = "put the issuer's JWK set with its public keys there (RFC 7517 section 5)";
                    refuse(collector, place, problem, remedy);
                }
            }
            Named::Group(name) => {
                if !matches!(nix::unistd::Group::from_name(name), Ok(Some(_))) {
                    let remedy = "make it with `groupadd --system`, or name another";
                    refuse(collector, place, format!("there is no group `{name}`"), remedy);
                }
            }
            Named::Address(address) => free(collector, place, *address, &held),
            Named::Socket(path) => socket(collector, place, path),
        }
    }
}

/// Whether everybody may read a file.
fn is_open(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn is_public_key(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains("-----BEGIN PUBLIC KEY-----"))
}

const fn tls_remedy(kind: TlsFile) -> &'static str {
    match kind {
        TlsFile::OcspResponse => "fetch it anew, for example with `openssl ocsp -respout`",
        TlsFile::ClientAuthorities => "name a PEM file with the roots that clients' certificates come from",
        TlsFile::ServerAuthorities => {
            "name a PEM file with the roots that the servers' certificates come from"
        }
        TlsFile::RevocationList => "name a certificate revocation list, PEM or DER",
        TlsFile::TicketKeys => "write one key per line, made by `openssl rand -base64 48`",
        TlsFile::SessionKeys => "write one secret per line, made by `openssl rand -base64 48`",
        TlsFile::FactsKey => "make it with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`",
        TlsFile::AttestationRoot => "name a PEM file with one certificate, or remove the key to take Apple's",
        TlsFile::AndroidRoots => "name a PEM file with certificates, or remove the key to take Google's",
        TlsFile::AndroidRevocations => "fetch it anew from https://android.googleapis.com/attestation/status",
        TlsFile::PlayKeys => {
            "write `decryption_key` and `verification_key` as the Play Console shows them (TOML)"
        }
        TlsFile::PayloadKey => "make it with `openssl genpkey -algorithm X25519`",
        TlsFile::SignatureKey(SignatureScheme::Hmac) => {
            "write a secret into it, made by `openssl rand -base64 48`"
        }
        TlsFile::SignatureKey(SignatureScheme::Message) => {
            "put a public key there (PEM, P-256 or Ed25519), or a secret made by `openssl rand -base64 48`"
        }
    }
}

fn refuse(collector: &mut Collector<'_>, place: &Place, problem: String, remedy: &str) {
    collector.add(place.span.clone(), &place.key, problem, remedy.to_owned());
}

fn warn(collector: &mut Collector<'_>, place: &Place, problem: String, remedy: &str) {
    collector.warn(place.span.clone(), &place.key, problem, remedy.to_owned());
}

/// With 0 the kernel makes none. With 1, what Linux begins with, it makes one once a listener's queue is full: that is enough.
fn syn_cookies(collector: &mut Collector<'_>, place: &Place) {
    let setting = fs::read_to_string("/proc/sys/net/ipv4/tcp_syncookies").unwrap_or_default();
    if setting.trim() == "0" {
        let problem =
            "net.ipv4.tcp_syncookies is 0: SYNs above the budget get no cookie, but pass".to_owned();
        let remedy = "`sysctl -w net.ipv4.tcp_syncookies=2` allows cookies at any time, 1 once a listener's queue is full; or write `rate = \"off\"`";
        warn(collector, place, problem, remedy);
    }
}

/// A frame that the program sends would leave without the tag of the one that it answers.
fn answers(collector: &mut Collector<'_>, place: &Place, interfaces: &[String]) {
    for interface in interfaces {
        let untagged = Device::look(interface).untagged;
        if !untagged.is_empty() {
            let problem = format!(
                "{interface} takes off the VLAN tags of {}: hellos are refused by \"drop\", and no SYN cookies are sent",
                untagged.join(", ")
            );
            let remedy = format!(
                "`ethtool -K {interface} rxvlan off` keeps them in the frame; or write \"on\" to send nevertheless, \"off\" to say nothing of it"
            );
            warn(collector, place, problem, &remedy);
        }
    }
}

fn interface(collector: &mut Collector<'_>, place: &Place, name: &str, present: Option<&[String]>) {
    match present {
        None => refuse(collector, place, "interfaces cannot be listed".to_owned(), "run as root"),
        Some(present) if present.iter().any(|known| known == name) => {}
        // A name that cannot be one is reported by the rules.
        Some(_) if collector.knows(&place.key) => {}
        Some(present) => {
            let remedy = format!("there are: {}", present.join(", "));
            refuse(collector, place, format!("there is no interface `{name}`"), &remedy);
        }
    }
}

/// Whether the daemon could listen on `address`. What `held` names, the running daemon listens on itself.
#[allow(clippy::wildcard_enum_match_arm, reason = "io::ErrorKind is open-ended")]
fn free(collector: &mut Collector<'_>, place: &Place, address: SocketAddr, held: &[String]) {
    if address.port() == 0 || held.contains(&address.to_string()) {
        return;
    }
    let Err(error) = bind(address) else { return };
    match error.kind() {
        // No error: a check before a reload must pass, and may be run by a user who may not ask the daemon.
        io::ErrorKind::AddrInUse => {
            let port = address.port();
            let remedy = format!(
                "`ss -ltnp 'sport = :{port}'` shows which; stop it or change the address, unless it is the daemon to be reloaded"
            );
            warn(collector, place, format!("another program listens on {address}"), &remedy);
        }
        io::ErrorKind::AddrNotAvailable => {
            let remedy = "`ip address` lists those that exist";
            refuse(collector, place, format!("no interface of this machine has {}", address.ip()), remedy);
        }
        // This user may lack what the daemon has.
        io::ErrorKind::PermissionDenied => {}
        _ => warn(collector, place, format!("cannot listen on {address}: {error}"), "choose another address"),
    }
}

/// Binds as the daemon does, but never listens: no client can reach this socket.
fn bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // Connections in TIME_WAIT do not count; a listener still does (socket(7)).
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn socket(collector: &mut Collector<'_>, place: &Place, path: &Path) {
    use std::os::unix::fs::FileTypeExt as _;
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket()) {
        let problem = format!("{} exists and is no socket", path.display());
        refuse(collector, place, problem, "remove it, or name another path");
        return;
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    if folder.as_os_str().is_empty() || folder == Path::new(RUNTIME_FOLDER) || is_folder(folder) {
        return;
    }
    let problem = format!("the folder {} is not there; the daemon makes it at its start", folder.display());
    warn(collector, place, problem, "make it beforehand if the daemon's user may not");
}
