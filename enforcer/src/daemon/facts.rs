//! What `status` and metrics tell of the daemon's own make-up: listeners, issuers, the ends of certificates.

use std::{net::SocketAddr, sync::Arc};

use tracing::warn;

use crate::{
    clock,
    config::{Config, Mode},
    control::{
        answer::Facts,
        wire::{CountRow, PersistenceRow, TokenRow},
    },
    kernel::Beginning,
    metrics::Metrics,
    policy::{Policy, issuer::Issuer, keyring::Condition},
};

/// The port that `why` asks about when there is no listener.
const HTTPS: u16 = 443;

/// The facts of a daemon with the limits of `config` that listens on `addresses`, and on `metrics` for Prometheus.
pub(super) fn facts(
    config: &Config,
    policy: &Policy,
    beginning: Beginning,
    addresses: &[SocketAddr],
    metrics: Option<SocketAddr>,
) -> Facts {
    Facts {
        kernel_mode: mode(config.kernel.mode),
        persistence: persistence(config, beginning),
        listeners: addresses.iter().map(SocketAddr::to_string).collect(),
        metrics: metrics.map(|address| address.to_string()),
        max_connections: config.http.max_connections,
        port: addresses.first().map_or(HTTPS, SocketAddr::port),
        tokens: tokens(policy),
        rehearsed: rehearsed(config),
        listed: listed(config),
        samples: samples(config),
        draining: false,
        last_reload: None,
        files: None,
    }
}

/// Shows until when certificates are valid, and warns of those that are not: they are served nevertheless, because a
/// daemon that stops for them would serve nobody at all.
pub(super) fn certificates(policy: &Policy, metrics: &Metrics, now: u64) {
    metrics.certificate_expiry.reset();
    metrics.staple_expiry.reset();
    metrics.crl_expiry.reset();
    for (route, host) in policy.hosts_without_certificate() {
        warn!(route, host, "no certificate is for this host of the route: no client gets there");
    }
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    for (listener, end) in policy.list_ends() {
        metrics.crl_expiry.with_label_values(&[&listener.to_string()]).set(end);
        if end < now {
            warn!(%listener, "A REVOCATION LIST HAS RUN OUT: every client certificate is refused");
        }
    }
    for (listener, expiry) in policy.expiries() {
        let address = listener.to_string();
        // RSA and ECDSA stand side by side under one name: the end that comes first counts.
        let gauge = metrics.certificate_expiry.with_label_values(&[&address, &expiry.name]);
        gauge.set(if gauge.get() == 0 { expiry.unix } else { gauge.get().min(expiry.unix) });
        if expiry.unix < now {
            warn!(%listener, name = expiry.name, "THE CERTIFICATE HAS EXPIRED: clients refuse it");
        }
        if let Some(end) = expiry.staple {
            let gauge = metrics.staple_expiry.with_label_values(&[&address, &expiry.name]);
            gauge.set(if gauge.get() == 0 { end } else { gauge.get().min(end) });
            if end < now {
                warn!(%listener, name = expiry.name, "the OCSP response has run out: it is not stapled");
            }
        }
    }
}

/// What becomes of the program without the daemon.
pub(super) fn persistence(config: &Config, beginning: Beginning) -> PersistenceRow {
    let kernel = &config.kernel;
    let pinned = kernel.persist && kernel.mode != Mode::Off;
    PersistenceRow {
        store: config.bans.store.as_ref().map(|path| path.display().to_string()),
        pinned: pinned.then(|| kernel.pin_directory.display().to_string()),
        lease_seconds: kernel.lease.map(|lease| lease.as_secs()),
        beginning: beginning.label().to_owned(),
    }
}

/// Shows it to Prometheus.
pub(super) fn show_persistence(row: &PersistenceRow, metrics: &Metrics) {
    metrics.kernel_pinned.set(i64::from(row.pinned.is_some()));
    metrics.kernel_lease.set(row.lease_seconds.and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0));
    for how in Beginning::ALL {
        let is = how.label() == row.beginning;
        metrics.kernel_beginning.with_label_values(&[how.label()]).set(i64::from(is));
    }
}

/// Issuers with their keys, as they are now.
pub(super) fn tokens(policy: &Policy) -> Vec<TokenRow> {
    let now = clock::kernel_now();
    let row = |issuer: &Arc<Issuer>| {
        let Condition { keys, age, error, .. } = issuer.keyring().condition(now);
        TokenRow { name: issuer.name.clone(), issuer: issuer.issuer.clone(), keys, age_seconds: age, error }
    };
    policy.issuers().map(row).collect()
}

/// How much each list of `[kernel.hellos]` has, if it has anything.
pub(super) fn listed(config: &Config) -> Vec<CountRow> {
    let hellos = &config.kernel.hellos;
    let lists = [
        ("refuse_names", hellos.refuse_names.len()),
        ("only_names", hellos.only_names.len()),
        ("refuse_fingerprints", hellos.refuse_fingerprints.len()),
    ];
    let row = |(name, count): (&str, usize)| CountRow { name: name.to_owned(), count: count as u64 };
    lists.into_iter().filter(|(_, count)| *count > 0).map(row).collect()
}

/// What is only rehearsed, by name.
pub(super) fn rehearsed(config: &Config) -> Vec<String> {
    config.kernel.dry_run.iter().map(|feature| feature.label().to_owned()).collect()
}

/// How many refused packets are shown at most.
pub(super) fn samples(config: &Config) -> Option<String> {
    config.kernel.events.map(|rate| {
        let unit = match rate.period.as_secs() {
            1 => "second",
            60 => "minute",
            _ => "hour",
        };
        format!("at most {} a {unit} and CPU, {} at once", rate.events, rate.burst)
    })
}

const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "native",
        Mode::NativeOrGeneric => "native-or-generic",
        Mode::Generic => "generic",
        Mode::Off => "off",
    }
}
