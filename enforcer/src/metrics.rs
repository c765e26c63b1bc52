//! What the daemon counts, and how Prometheus reads it.
//!
//! Own counters live here, created once; kernel counters are read at scrape. Client input is never a label.

pub mod devices;
pub mod http;
pub mod kernel;
pub mod payload;
pub mod pins;
pub mod process;
pub mod revocations;
pub mod upstreams;

use anyhow::Result;
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::denial::Denial;

/// Seconds since a token's issue: below 0 the issuer's clock is ahead of ours, or the client's where it signs for itself.
const TOKEN_AGES: [f64; 12] =
    [-60.0, -30.0, -10.0, -5.0, -1.0, 1.0, 5.0, 30.0, 60.0, 300.0, 3_600.0, 86_400.0];

/// Every metric of the daemon. Fields are cheap handles: clone them into workers.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// What the scrape gathers.
    pub registry: Registry,
    /// `enforcer_connections_total{result}`: `accepted`, or the code of the denial that ended it before HTTP.
    pub connections: IntCounterVec,
    /// `enforcer_tls_handshakes_total{version, key_exchange, resumed}`: what handshakes came to.
    pub handshakes: IntCounterVec,
    /// `enforcer_early_requests_total{result}`: requests that came as early data (0-RTT): `passed`, `refused` (425 from here),
    /// `refused_upstream` (its 425).
    pub early_requests: IntCounterVec,
    /// `enforcer_time_limits_total{stage}`: connections and requests that ended because a client took too long: `handshake`, `head`,
    /// `body`, `write` (it left its answer), `idle`.
    pub time_limits: IntCounterVec,
    /// `enforcer_hello_disagreements_total{kind="false_drop"}`: hellos that the program refused and rustls would have taken.
    pub false_drops: IntCounter,
    /// `enforcer_hello_disagreements_total{kind="missed"}`: hellos that the program should have refused, and that rustls did.
    pub missed_hellos: IntCounter,
    /// `enforcer_hellos_compared_total`: refused hellos that were shown to rustls.
    pub hellos_compared: IntCounter,
    /// `enforcer_hellos_would_refuse_total{code}`: handshakes that the lists of `kernel.hellos` would have refused but for a dry run.
    pub hellos_rehearsed: IntCounterVec,
    /// `enforcer_connections_open`
    pub connections_open: IntGauge,
    /// `enforcer_requests_total{route, status}`: answers by route and status class (`2xx`...).
    pub requests: IntCounterVec,
    /// `enforcer_headers_missing_total{route, header}`: requests without a field that their route requires.
    pub headers_missing: IntCounterVec,
    /// `enforcer_denials_total{code}`
    pub denials: IntCounterVec,
    /// `enforcer_limits_total{route, limit, result}`: requests that limits refused (`refused`, `full`) or delayed (`delayed`), that a dry
    /// run spared that (`would_refuse`, `would_delay`), and that had no key (`no_key`).
    pub limits: IntCounterVec,
    /// `enforcer_held_bytes`: of request bodies that are held to be judged; `http.max_held_bytes` bounds them.
    pub held_bytes: IntGauge,
    /// `enforcer_access_log_lines_total{result}`: `written`, or lost: `queue_full`, `failed`.
    pub access_log_lines: IntCounterVec,
    /// `enforcer_token_age_seconds{route}`: from the issue (`iat`) of a token to its first request.
    pub token_ages: HistogramVec,
    /// `enforcer_token_keys{issuer}`: keys that can verify.
    pub token_keys: IntGaugeVec,
    /// `enforcer_token_keys_age_seconds{issuer}`: since they were fetched; absent for files.
    pub token_keys_age: IntGaugeVec,
    /// `enforcer_token_key_fetches_total{issuer, result}`: `good`, `failed`.
    pub token_key_fetches: IntCounterVec,
    /// `enforcer_introspections_total{issuer, result}`: calls about tokens: `active`, `inactive`, `failed`.
    pub introspections: IntCounterVec,
    /// `enforcer_play_calls_total{result}`: tokens that Google was to be asked about: `verdict`, `foreign`, or why there is no answer.
    pub play_calls: IntCounterVec,
    /// `enforcer_refresh_untracked_total`: refresh tokens that were used, and for which there was no room to remember that.
    pub refresh_untracked: IntCounter,
    /// `enforcer_offences_lost_total`
    pub offences_lost: IntCounter,
    /// `enforcer_offences_of_proxies_total`: offences of proxies that speak for many; they ban nobody.
    pub offences_of_proxies: IntCounter,
    /// `enforcer_bans_active{origin}`: `offence`, `operator`.
    pub bans_active: IntGaugeVec,
    /// `enforcer_bans_total{cause}`: denial code that tipped the score, or `operator`.
    pub bans: IntCounterVec,
    /// `enforcer_bans_withheld_total{why}`: bans that were due but not made: `dry_run`, `full`, `lock_out`.
    pub bans_withheld: IntCounterVec,
    /// `enforcer_offences_untracked_total`: offences of sources for which there was no room for a score.
    pub offences_untracked: IntCounter,
    /// `enforcer_kernel_writes_pending`: list changes that still have to reach the kernel.
    pub kernel_writes_pending: IntGauge,
    /// `enforcer_kernel_write_errors_total`: list changes that the kernel refused; they are tried again.
    pub kernel_write_errors: IntCounter,
    /// `enforcer_store_pending`: changes that have not reached `bans.store` yet.
    pub store_pending: IntGauge,
    /// `enforcer_store_errors_total`: attempts to write `bans.store` that failed; they are made again.
    pub store_errors: IntCounter,
    /// `enforcer_replay_entries`: proofs and signatures that were used and are remembered.
    pub replay_entries: IntGauge,
    /// `enforcer_replay_store_pending`: uses that have not reached `replay.store` yet.
    pub replay_store_pending: IntGauge,
    /// `enforcer_replay_store_errors_total`: attempts to write `replay.store` that failed; what waited for them was refused.
    pub replay_store_errors: IntCounter,
    /// `enforcer_revocation_store_pending`: changes that have not reached `revocation.store` yet.
    pub revocation_store_pending: IntGauge,
    /// `enforcer_revocation_store_errors_total`: attempts to write it that failed; they are made again.
    pub revocation_store_errors: IntCounter,
    /// `enforcer_attestations_total{event}`: what devices were given: `challenge`, `enrolled`, `enrolled_again`, `session`, `keys`.
    pub attestations: IntCounterVec,
    /// `enforcer_device_store_pending`: changes that have not reached `attestation.store` yet.
    pub device_store_pending: IntGauge,
    /// `enforcer_device_store_errors_total`: attempts to write it that failed; they are made again.
    pub device_store_errors: IntCounter,
    /// Encrypted bodies.
    pub payload: payload::Counters,
    /// `enforcer_kernel_pinned`: 1: the program judges without the daemon, too.
    pub kernel_pinned: IntGauge,
    /// `enforcer_kernel_lease_seconds`: how long it does; 0: for ever.
    pub kernel_lease: IntGauge,
    /// `enforcer_kernel_beginning{how}`: 1 for what the start found of an earlier daemon, see [`crate::kernel::Beginning`].
    pub kernel_beginning: IntGaugeVec,
    /// `enforcer_reloads_total{result}`: `applied`, `refused`.
    pub reloads: IntCounterVec,
    /// `enforcer_file_changes_total{result}`: files behind the policy that changed: `applied`, `refused`.
    pub renewals: IntCounterVec,
    /// `enforcer_files_refused`: 1 while files that changed are refused, and what was read before them is in force.
    pub files_refused: IntGauge,
    /// `enforcer_certificate_expiry_timestamp_seconds{listener, name}`: end of each certificate that is served.
    pub certificate_expiry: IntGaugeVec,
    /// `enforcer_ocsp_expiry_timestamp_seconds{listener, name}`: end of each OCSP response that is stapled.
    pub staple_expiry: IntGaugeVec,
    /// `enforcer_pin_guard_refusals_total{set}`: policies that were refused because they would have cut off apps that pin.
    pub pin_guard_refusals: IntCounterVec,
    /// `enforcer_crl_expiry_timestamp_seconds{listener}`: end of the revocation list that runs out first.
    pub crl_expiry: IntGaugeVec,
}

impl Metrics {
    /// Creates and registers everything.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let counter_vec = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter> {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let connections =
            counter_vec("enforcer_connections_total", "Connections by how they began", &["result"])?;
        let handshakes = counter_vec(
            "enforcer_tls_handshakes_total",
            "Handshakes that succeeded",
            &["version", "key_exchange", "resumed"],
        )?;
        let early_requests =
            counter_vec("enforcer_early_requests_total", "Requests that came as early data", &["result"])?;
        let time_limits = counter_vec(
            "enforcer_time_limits_total",
            "Connections and requests that ended because a client took too long",
            &["stage"],
        )?;
        let disagreements = counter_vec(
            "enforcer_hello_disagreements_total",
            "ClientHellos of which the program and the TLS stack thought differently",
            &["kind"],
        )?;
        let hellos_compared = counter(
            "enforcer_hellos_compared_total",
            "Refused ClientHellos that were shown to the TLS stack",
        )?;
        let hellos_rehearsed = counter_vec(
            "enforcer_hellos_would_refuse_total",
            "Handshakes that a dry run of kernel.hellos has spared",
            &["code"],
        )?;
        let connections_open =
            IntGauge::new("enforcer_connections_open", "Client connections that are open")?;
        registry.register(Box::new(connections_open.clone()))?;
        let requests = counter_vec(
            "enforcer_requests_total",
            "Answers by route and status class",
            &["route", "status"],
        )?;
        let headers_missing = counter_vec(
            "enforcer_headers_missing_total",
            "Requests without a field that their route requires",
            &["route", "header"],
        )?;
        let denials = counter_vec("enforcer_denials_total", "Refused connections and requests", &["code"])?;
        let limits = counter_vec(
            "enforcer_limits_total",
            "What limits of routes did to requests",
            &["route", "limit", "result"],
        )?;
        let access_log_lines =
            counter_vec("enforcer_access_log_lines_total", "Lines of the access log", &["result"])?;
        let issuer_gauge = |name: &str, help: &str| -> Result<IntGaugeVec> {
            let metric = IntGaugeVec::new(Opts::new(name, help), &["issuer"])?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let token_keys = issuer_gauge("enforcer_token_keys", "Keys of an issuer that can verify")?;
        let token_keys_age =
            issuer_gauge("enforcer_token_keys_age_seconds", "Since the keys of an issuer were fetched")?;
        let token_key_fetches = counter_vec(
            "enforcer_token_key_fetches_total",
            "Attempts to fetch the keys of an issuer",
            &["issuer", "result"],
        )?;
        let introspections = counter_vec(
            "enforcer_introspections_total",
            "Calls that asked an issuer about a token",
            &["issuer", "result"],
        )?;
        let play_calls = counter_vec(
            "enforcer_play_calls_total",
            "Tokens of Play Integrity that Google was to be asked about",
            &["result"],
        )?;
        let refresh_untracked = counter(
            "enforcer_refresh_untracked_total",
            "Refresh tokens whose use is not remembered, for want of room",
        )?;
        let options = HistogramOpts::new(
            "enforcer_token_age_seconds",
            "From the issue of a token to its first request; negative: a clock is ahead",
        );
        let token_ages = HistogramVec::new(options.buckets(TOKEN_AGES.to_vec()), &["route"])?;
        registry.register(Box::new(token_ages.clone()))?;
        let offences_lost =
            counter("enforcer_offences_lost_total", "Offences that found the ban task's queue full")?;
        let offences_of_proxies = counter(
            "enforcer_offences_of_proxies_total",
            "Offences of proxies that speak for many: they ban nobody",
        )?;
        let bans_active = IntGaugeVec::new(Opts::new("enforcer_bans_active", "Bans in force"), &["origin"])?;
        registry.register(Box::new(bans_active.clone()))?;
        let bans = counter_vec("enforcer_bans_total", "Bans by what caused them", &["cause"])?;
        let bans_withheld =
            counter_vec("enforcer_bans_withheld_total", "Bans that were due but not made", &["why"])?;
        let offences_untracked =
            counter("enforcer_offences_untracked_total", "Offences for whose source there was no room")?;
        let kernel_writes_pending = IntGauge::new(
            "enforcer_kernel_writes_pending",
            "List changes that still have to reach the kernel",
        )?;
        registry.register(Box::new(kernel_writes_pending.clone()))?;
        let kernel_write_errors =
            counter("enforcer_kernel_write_errors_total", "List changes that the kernel refused")?;
        let store_pending =
            IntGauge::new("enforcer_store_pending", "Changes that have not reached bans.store yet")?;
        registry.register(Box::new(store_pending.clone()))?;
        let store_errors =
            counter("enforcer_store_errors_total", "Attempts to write bans.store that failed")?;
        let gauge = |name: &str, help: &str| -> Result<IntGauge> {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let held_bytes = gauge("enforcer_held_bytes", "Bytes of request bodies that are held to be judged")?;
        let replay_entries =
            gauge("enforcer_replay_entries", "Proofs and signatures that were used and are remembered")?;
        let replay_store_pending =
            gauge("enforcer_replay_store_pending", "Uses that have not reached replay.store yet")?;
        let replay_store_errors =
            counter("enforcer_replay_store_errors_total", "Attempts to write replay.store that failed")?;
        let revocation_store_pending =
            gauge("enforcer_revocation_store_pending", "Changes that have not reached revocation.store yet")?;
        let revocation_store_errors = counter(
            "enforcer_revocation_store_errors_total",
            "Attempts to write revocation.store that failed",
        )?;
        let attestations = counter_vec("enforcer_attestations_total", "What devices were given", &["event"])?;
        let device_store_pending =
            gauge("enforcer_device_store_pending", "Changes that have not reached attestation.store yet")?;
        let device_store_errors =
            counter("enforcer_device_store_errors_total", "Attempts to write attestation.store that failed")?;
        let kernel_pinned = IntGauge::new(
            "enforcer_kernel_pinned",
            "1: the program judges without the daemon, too; 0: it goes with it",
        )?;
        registry.register(Box::new(kernel_pinned.clone()))?;
        let kernel_lease = IntGauge::new(
            "enforcer_kernel_lease_seconds",
            "How long the program judges without the daemon; 0: for ever",
        )?;
        registry.register(Box::new(kernel_lease.clone()))?;
        let kernel_beginning = IntGaugeVec::new(
            Opts::new("enforcer_kernel_beginning", "1 for what the start found of an earlier daemon"),
            &["how"],
        )?;
        registry.register(Box::new(kernel_beginning.clone()))?;
        let reloads = counter_vec("enforcer_reloads_total", "Configuration reloads", &["result"])?;
        let renewals =
            counter_vec("enforcer_file_changes_total", "Changed certificates, keys and lists", &["result"])?;
        let files_refused = IntGauge::new(
            "enforcer_files_refused",
            "Whether files that changed are refused and older ones are in force",
        )?;
        registry.register(Box::new(files_refused.clone()))?;
        let certificate_expiry = IntGaugeVec::new(
            Opts::new("enforcer_certificate_expiry_timestamp_seconds", "When a certificate ends"),
            &["listener", "name"],
        )?;
        registry.register(Box::new(certificate_expiry.clone()))?;
        let staple_expiry = IntGaugeVec::new(
            Opts::new("enforcer_ocsp_expiry_timestamp_seconds", "When a stapled OCSP response ends"),
            &["listener", "name"],
        )?;
        registry.register(Box::new(staple_expiry.clone()))?;
        let pin_guard_refusals = counter_vec(
            "enforcer_pin_guard_refusals_total",
            "Reloads, file changes and switches that would have cut off apps that pin",
            &["set"],
        )?;
        let crl_expiry = IntGaugeVec::new(
            Opts::new("enforcer_crl_expiry_timestamp_seconds", "When a revocation list runs out"),
            &["listener"],
        )?;
        registry.register(Box::new(crl_expiry.clone()))?;
        Ok(Self {
            connections,
            handshakes,
            early_requests,
            time_limits,
            false_drops: disagreements.with_label_values(&["false_drop"]),
            missed_hellos: disagreements.with_label_values(&["missed"]),
            hellos_compared,
            hellos_rehearsed,
            connections_open,
            requests,
            headers_missing,
            denials,
            limits,
            held_bytes,
            access_log_lines,
            token_ages,
            token_keys,
            token_keys_age,
            token_key_fetches,
            introspections,
            play_calls,
            refresh_untracked,
            offences_lost,
            offences_of_proxies,
            bans_active,
            bans,
            bans_withheld,
            offences_untracked,
            kernel_writes_pending,
            kernel_write_errors,
            store_pending,
            store_errors,
            replay_entries,
            replay_store_pending,
            replay_store_errors,
            revocation_store_pending,
            revocation_store_errors,
            attestations,
            device_store_pending,
            device_store_errors,
            payload: payload::Counters::new(&registry)?,
            kernel_pinned,
            kernel_lease,
            kernel_beginning,
            reloads,
            renewals,
            files_refused,
            certificate_expiry,
            staple_expiry,
            pin_guard_refusals,
            crl_expiry,
            registry,
        })
    }

    /// A handshake would have been refused for this.
    pub fn hello_rehearsed(&self, denial: Denial) {
        self.hellos_rehearsed.with_label_values(&[denial.code()]).inc();
    }
}
