//! The validated configuration: what the daemon was told to be, with every default filled in.
//!
//! `File` (what stands in the TOML) becomes `Config` in one step that reports every error at once; nothing
//! downstream validates again. `Config` imports nothing of the daemon: policy and settings are made from it elsewhere.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use enforcer_common::reason::DropReason;

use crate::prefix::Prefix;

mod access_log;
mod attestation;
mod budgets;
mod cors;
mod diff;
mod environment;
mod error;
mod file;
mod filter;
mod graphql;
mod hellos;
mod inspect;
mod integrity;
mod introspection;
mod load;
mod marks;
mod named;
mod oauth;
mod payload;
mod pins;
mod revocation;
mod route;
mod tls;
mod token;
mod upstream;
mod validate;
mod value;

pub use enforcer_common::feature::Feature;

pub use access_log::{AccessFormat, AccessLog, Destination, Query, Refusals, SubjectAs};
pub use attestation::{
    AndroidApps, AndroidKey, AppAttest, Attestation, AttestationDemand, AttestationPaths, BootState,
    Environment, KeySecurity, Level, Platform, Play, UnknownDevices,
};
pub use budgets::{ByteLimit, Everybody, Group, KernelLimits, LimitSet, RateLimit, Tier, WhenFull};
pub use cors::Cors;
pub use diff::settle;
pub use error::{Error, Errors};
pub use filter::log_filter;
pub use graphql::{GraphQl, Meant, Operation, OperationKind};
pub use hellos::{Fingerprint, Hellos, MAX_HELLOS, ServerName};
pub use inspect::{Inspection, Probes, inspect, inspect_text};
pub use integrity::{Binding, Bindings, Dpop, Replay, Signature, SignatureScheme};
pub use introspection::Introspection;
pub use load::{load, parse, pin_directory};
pub use marks::{DEFAULT_TIER, Mark};
pub use oauth::{Endpoint, OAuth};
pub use payload::{Payload, PayloadFormat, PayloadKey};
pub use pins::{Backup, PinDocument, PinEntry, PinSet, PinnedKey, Pins};
pub use revocation::{Revocation, RevocationClient};
pub use route::{HeaderRule, Limit, LimitKey, Route, Unrouted};
pub use tls::{Certificate, Clients, KeyExchange, Listener, Suite, Tls, TlsFile, UnknownName};
pub use token::{Demands, KeySource, RemoteKeys, Token, TokenAlgorithm, TokenType};
pub use upstream::{Ejection, HealthCheck, Upstream, UpstreamProtocol, UpstreamTls};

/// Everything that a configuration file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[kernel]`
    pub kernel: Kernel,
    /// `[[listener]]`, at least one.
    pub listeners: Vec<Listener>,
    /// `[tls]`
    pub tls: Tls,
    /// `[pins]`
    pub pins: Pins,
    /// `[upstream.NAME]`
    pub upstreams: BTreeMap<String, Upstream>,
    /// `[token.NAME]`
    pub tokens: BTreeMap<String, Token>,
    /// `[dpop]`
    pub dpop: Dpop,
    /// `[signature.NAME]`
    pub signatures: BTreeMap<String, Signature>,
    /// `[payload.NAME]`
    pub payloads: BTreeMap<String, Payload>,
    /// `[replay]`
    pub replay: Replay,
    /// `[attestation]`; none: there are no such endpoints.
    pub attestation: Option<Attestation>,
    /// `[[route]]`, in the order of the file.
    pub routes: Vec<Route>,
    /// `[http]`
    pub http: Http,
    /// `[bans]`
    pub bans: Bans,
    /// `[revocation]`
    pub revocation: Revocation,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[control]`
    pub control: Control,
    /// `[log]`
    pub log: Log,
    /// `[access_log]`
    pub access_log: AccessLog,
}

/// Prefixes that `[kernel]` names at most, in `allow`, `management_from` and tiers together: the kernel's tables have room for them
/// beside the bans.
pub const MAX_ALLOW: usize = 4_096;

/// Where and how packets are judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// `mode`, default `native`.
    pub mode: Mode,
    /// `interfaces`; empty only with `mode = "off"`.
    pub interfaces: Vec<String>,
    /// `allow`: sources that no ban and no limit stops. Default: none.
    pub allow: Vec<Prefix>,
    /// Entries of `allow` with a `port`: the source is let through to that port alone.
    pub allow_ports: Vec<AllowedPort>,
    /// `management_ports`: TCP ports that stay reachable for banned and limited sources. Default `[22]`.
    pub management_ports: Vec<u16>,
    /// `management_from`: whom they stay reachable for; none (default): everybody.
    pub management_from: Vec<Prefix>,
    /// `[kernel.tier.NAME]`
    pub tiers: BTreeMap<String, Tier>,
    /// `[kernel.group.NAME]`
    pub groups: BTreeMap<String, Group>,
    /// `[kernel.global]`
    pub everybody: Everybody,
    /// `protected_ports`: TCP ports whose ClientHellos are judged. Default: the listeners' ports.
    pub protected_ports: Vec<u16>,
    /// `ipv6_prefix`: bits of an IPv6 address that make a source, 32 to 64. Default 64.
    pub ipv6_prefix: u8,
    /// `minimum_tls`: `"1.2"` (default) or `"1.3"`.
    pub minimum_tls: TlsVersion,
    /// `refusal`: how a refused ClientHello is answered. Default `"alert"`.
    pub refusal: Refusal,
    /// `[kernel.hellos]`
    pub hellos: Hellos,
    /// `verify_checksums`: whether segments with a ClientHello need a right TCP checksum. Default `"auto"`.
    pub verify_checksums: VerifyChecksums,
    /// `answers`: whether frames that the program sends itself may be used. Default `"auto"`.
    pub answers: Answers,
    /// `strict_connections`: whether a ClientHello is dropped that cannot be followed to its end. Default false.
    pub strict_connections: bool,
    /// `quic_ports`: UDP ports where QUIC is served and nothing else. Default: none.
    pub quic_ports: Vec<u16>,
    /// `quic_versions`: QUIC versions that are served, as on the wire. Default: 1 and 2.
    pub quic_versions: Vec<u32>,
    /// `syn_cookies`: SYNs to protected ports that the network stack gets as they are, default 10,000/s with a burst of 20,000.
    pub syn_cookies: Option<RateLimit>,
    /// `[kernel.unparsed]`
    pub unparsed: Unparsed,
    /// `[kernel.limits]`
    pub limits: KernelLimits,
    /// `dry_run`: what is only rehearsed: such packets are counted and pass. Default: nothing.
    pub dry_run: Vec<Feature>,
    /// `events`: how many refused packets are shown as samples, per CPU, default 100/s with a burst of 200.
    pub events: Option<RateLimit>,
    /// `log`: forward the program's diagnostics to the daemon's log. Default false.
    pub log: bool,
    /// `persist`: the program and its maps are pinned and outlive the daemon. Default true.
    pub persist: bool,
    /// `pin_directory`: on a bpffs, for the pins of one daemon. Default `/sys/fs/bpf/enforcer`.
    pub pin_directory: PathBuf,
    /// `lease`: how long the program judges without word from a healthy daemon; none (`"off"`, default): for ever.
    pub lease: Option<Duration>,
    /// `lease_expired`: what it does then, `"pass"` (default) or `"bans"`.
    pub lease_expired: WhenExpired,
}

/// A source and a port of this machine, over TCP and UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowedPort {
    /// `source`
    pub source: Prefix,
    /// `port`
    pub port: u16,
}

/// `kernel.pin_directory` unless told otherwise: systemd mounts a bpffs at `/sys/fs/bpf`.
pub const PIN_DIRECTORY: &str = "/sys/fs/bpf/enforcer";

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// `native`: in the driver, or the daemon does not start.
    Native,
    /// `native-or-generic`: in the driver if it can, else in the generic hook; `status` says which.
    NativeOrGeneric,
    /// `generic`: after the kernel has made its buffer; slow, but works on every interface.
    Generic,
    /// `off`: no packet is judged; bans hold for connections and requests alone. For development.
    Off,
}

/// TLS versions that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Deserialize)]
pub enum TlsVersion {
    /// `"1.2"`, RFC 5246.
    #[serde(rename = "1.2")]
    Tls12,
    /// `"1.3"`, RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

impl TlsVersion {
    /// As on the wire (RFC 8446 section 4.2.1).
    pub const fn number(self) -> u16 {
        match self {
            Self::Tls12 => 0x0303,
            Self::Tls13 => 0x0304,
        }
    }
}

/// How a refused ClientHello is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refusal {
    /// The client is sent a TLS alert and the end of the connection.
    Alert,
    /// Server and client are sent a reset.
    Reset,
    /// The server is made to refuse by itself, where that is possible; else as [`Refusal::Reset`].
    Poison,
    /// The client is told nothing.
    Drop,
}

/// Whether TCP checksums are verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyChecksums {
    /// If every interface is one of hardware, and the program is in its driver.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// Whether the program sends frames of its own: alerts, resets, SYN cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answers {
    /// Unless they would leave without the VLAN tag of those that they answer.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// What the program does once its lease is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenExpired {
    /// Everything passes.
    Pass,
    /// Bans go on, and everything else passes.
    Bans,
}

/// What happens to a packet that cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Treatment {
    /// `"drop"`
    Drop,
    /// `"pass"`
    Pass,
}

/// What happens to frames and packets that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unparsed {
    /// `not_ip`: frames that are neither IP nor needed by the link itself, default `"pass"`.
    pub not_ip: Treatment,
    /// The reasons of all other keys, which have their names, for which packets pass. Default: none.
    pub passed: Vec<DropReason>,
}

/// The field in which proxies say for whom they speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedBy {
    /// `X-Forwarded-For`, a list of addresses.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// Limits and headers of all HTTP connections.
#[derive(Clone, Debug, PartialEq)]
pub struct Http {
    /// `strict_transport_security`, default `max-age=31536000`; `""` switches it off.
    pub strict_transport_security: Option<String>,
    /// `response_headers`: fields that an answer gets unless the upstream set them itself. By default
    /// `Content-Security-Policy` and `X-Content-Type-Options`.
    pub response_headers: BTreeMap<String, String>,
    /// `redirect`: addresses on which plain HTTP is answered, with a redirect to https and nothing else. Default: none.
    pub redirect: Vec<SocketAddr>,
    /// `max_connections` over all listeners, default 20,000.
    pub max_connections: u32,
    /// `max_connections_per_source`, default 1,000; 0 means no cap.
    pub max_connections_per_source: u32,
    /// `max_header_bytes`, default 32 KiB.
    pub max_header_bytes: u32,
    /// `control_frames`: frames of HTTP/2 that carry neither a request nor a body, per connection; default 100/s with a burst
    /// of 1,000.
    pub control_frames: Option<RateLimit>,
    /// `body_timeout`: between two pieces of a request's body, default 30 s.
    pub body_timeout: Duration,
    /// `min_body_rate`: bytes a second of a request's body, on the whole and after `body_timeout`; default 64, 0 means any.
    pub min_body_rate: u64,
    /// `write_timeout`: until a client takes something of an answer, default 60 s.
    pub write_timeout: Duration,
    /// `trusted_proxies`: whose word counts on whose request it is. Default: nobody's.
    pub trusted_proxies: Vec<Prefix>,
    /// `forwarded_by`: the field in which they say it, default `x-forwarded-for`.
    pub forwarded_by: ForwardedBy,
    /// `forwarded_origin`: whether they also say which address the client asked for. Default false.
    pub forwarded_origin: bool,
    /// `max_header_fields`, default 100.
    pub max_header_fields: u16,
    /// `max_body_bytes`, default 10 MiB; 0 means no bound.
    pub max_body_bytes: u64,
    /// `max_held_bytes`: of bodies that are held to be judged, all together, default 256 MiB.
    pub max_held_bytes: u64,
    /// `header_timeout`: from the first byte (or the last response) to the end of the head, default 15 s.
    pub header_timeout: Duration,
    /// `idle_timeout` of client connections, default 75 s.
    pub idle_timeout: Duration,
    /// `drain_timeout`: how long SIGTERM waits for requests under way, default 20 s.
    pub drain_timeout: Duration,
    /// `max_sources`: keys that each limit of a route knows at once, power of two. Default 65,536.
    pub max_sources: u32,
    /// `max_delayed`: requests that wait for a limit at once, default 1,000.
    pub max_delayed: u32,
    /// `ratelimit_headers`: whether answers tell what is left of a route's limits. Default true.
    pub ratelimit_headers: bool,
    /// `tokens_in_query`: whether requests may carry tokens in their query. Default false.
    pub tokens_in_query: bool,
    /// `default`: what a request meets that no route is for, default `"not-found"`.
    pub unrouted: Unrouted,
    /// `token_cache`: verified tokens that each worker remembers, default 65,536; 0: none.
    pub token_cache: u32,
    /// `workers`: threads; 0 (default) means one per CPU.
    pub workers: usize,
}

impl Http {
    /// Whether `source` is a proxy that is believed what it says of requests.
    pub fn trusts(&self, source: IpAddr) -> bool {
        Prefix::any_contains(&self.trusted_proxies, source)
    }
}

/// How offences become bans.
#[derive(Clone, Debug, PartialEq)]
pub struct Bans {
    /// `threshold`: score at which a source is banned, default 100; the weights are in the reference of refusals.
    pub threshold: u32,
    /// `window`: a score of `threshold` fades within it, default 60 s.
    pub window: Duration,
    /// `duration` of the first ban, default 10 min; each further one within a day lasts twice as long.
    pub duration: Duration,
    /// `max_duration`, default 24 h.
    pub max_duration: Duration,
    /// `max_entries`: bans that are kept at most, default 1,100,000, a million sources and all the prefixes that the tables hold. Reached: further ones are refused, loudly.
    pub max_entries: u32,
    /// `dry_run`: report what would be banned, ban nothing. Default false.
    pub dry_run: bool,
    /// `store`: the file that bans and operators' allowances are kept in, default `/var/lib/enforcer/bans.redb`; none
    /// (`"off"`): they end with the machine at the latest.
    pub store: Option<PathBuf>,
}

/// The Prometheus listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics {
    /// `address`, default `127.0.0.1:9464`; `"off"` switches it off.
    pub address: Option<SocketAddr>,
}

/// The control socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// `socket`, default `/run/enforcer/control.sock`.
    pub socket: PathBuf,
    /// `group` that may use it besides root; default: none.
    pub group: Option<String>,
}

/// The daemon's log, on standard error.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// `level`: a `tracing` filter, default `info`.
    pub level: String,
    /// `format`: `text` (default) or `json`.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people and the journal.
    Text,
    /// One object per line.
    Json,
}
