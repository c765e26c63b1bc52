//! What a reload can change: the one place that knows which keys are fixed while the process lives. Pure; called by the
//! daemon's reload.

use std::collections::BTreeSet;

use super::{Config, Listener};

/// `new` as it can be taken over by a process that began with `old`, and the keys that differ but are fixed: those stay
/// as in `old` until the daemon starts anew. Files that are named (certificates, key sets) are not compared.
pub fn settle(old: &Config, mut new: Config) -> (Config, Vec<String>) {
    let mut pending = Vec::new();
    // Destructured in full: a new key does not compile before somebody has decided on which side it belongs.
    let Config {
        kernel,
        listeners,
        tls: _,
        pins: _,
        upstreams: _,
        tokens: _,
        dpop: _,
        signatures: _,
        payloads: _,
        replay,
        attestation,
        routes: _,
        http,
        bans,
        revocation,
        metrics,
        control,
        log,
        access_log,
    } = old;
    macro_rules! keep {
        ($old:expr, $type:ident, $name:expr, $new:expr, live: [$($live:ident),*], fixed: [$($fixed:ident),*]) => {{
            let super::$type { $($live: _,)* $($fixed,)* } = $old;
            $(if *$fixed != $new.$fixed {
                pending.push(format!("{}.{}", $name, stringify!($fixed)));
                $new.$fixed.clone_from($fixed);
            })*
        }};
    }
    // Bans are kept by source, and another `ipv6_prefix` makes other sources; tables have their size for good.
    keep!(kernel, Kernel, "kernel", new.kernel,
        live: [allow, allow_ports, management_ports, management_from, tiers, groups, everybody, protected_ports, hellos, minimum_tls, refusal, verify_checksums, answers, strict_connections, quic_ports, quic_versions, syn_cookies, unparsed, limits, lease, lease_expired, dry_run, events],
        fixed: [mode, interfaces, ipv6_prefix, log, persist, pin_directory]);
    keep!(&kernel.limits, KernelLimits, "kernel.limits", new.kernel.limits,
        live: [packets, connections, hellos, quic, bytes, ipv6_56, ipv6_48, when_full],
        fixed: [max_sources]);
    if addresses(listeners) != addresses(&new.listeners) {
        pending.push("listener.address".to_owned());
    }
    new.listeners = renewed(listeners, &new.listeners);
    keep!(http, Http, "http", new.http,
        live: [strict_transport_security, response_headers, max_header_bytes, max_header_fields, trusted_proxies, forwarded_by, forwarded_origin, control_frames, body_timeout, min_body_rate, write_timeout, max_body_bytes, max_held_bytes, header_timeout, idle_timeout, drain_timeout, max_delayed, ratelimit_headers, tokens_in_query, unrouted],
        fixed: [redirect, max_connections, max_connections_per_source, max_sources, token_cache, workers]);
    keep!(bans, Bans, "bans", new.bans,
        live: [threshold, window, duration, max_duration, dry_run],
        fixed: [max_entries, store]);
    keep!(replay, Replay, "replay", new.replay, live: [], fixed: [max_entries, store]);
    match (attestation, &mut new.attestation) {
        (Some(old), Some(_new)) => {
            keep!(old, Attestation, "attestation", _new,
                live: [paths, limit, challenge_lifetime, session_lifetime, session_keys, facts_key, facts_issuer, facts_lifetime, forget_after, unknown_devices, app_attest, android_key, play],
                fixed: [max_challenges, store, max_devices]);
        }
        (None, None) => {}
        // Devices are read at the start.
        (old, new) => {
            pending.push("attestation".to_owned());
            new.clone_from(old);
        }
    }
    keep!(revocation, Revocation, "revocation", new.revocation,
        live: [file, client],
        fixed: [store, max_entries, max_refresh_tokens]);
    keep!(metrics, Metrics, "metrics", new.metrics, live: [], fixed: [address]);
    keep!(control, Control, "control", new.control, live: [], fixed: [socket, group]);
    keep!(log, Log, "log", new.log, live: [level], fixed: [format]);
    keep!(access_log, AccessLog, "access_log", new.access_log,
        live: [format, sample, refusals, query, subject],
        fixed: [destination, queue]);
    (new, pending)
}

fn addresses(listeners: &[Listener]) -> BTreeSet<std::net::SocketAddr> {
    listeners.iter().map(|listener| listener.address).collect()
}

/// Addresses are bound once; what is served there may change.
fn renewed(old: &[Listener], new: &[Listener]) -> Vec<Listener> {
    let found = |before: &Listener| new.iter().find(|after| after.address == before.address).cloned();
    old.iter().map(|before| found(before).unwrap_or_else(|| before.clone())).collect()
}
