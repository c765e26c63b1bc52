//! The file as it stands: which keys there are and of which type, every one of them optional. Read by
//! [`super::load`], judged by [`super::validate`]; holds no default and no rule.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor, value::MapAccessDeserializer},
};
use toml::Spanned;

mod attestation;
mod cors;
mod graphql;
mod integrity;
mod payload;
mod pins;
mod tokens;

use super::value::{
    AddressOrOff, Alternatives, ByteRate, DurationOrOff, Names, Number, Rate, Size, Text, Written as _,
};
use super::{
    AccessFormat, Answers, Binding, Feature, Fingerprint, KeyExchange, LimitKey, LogFormat, Mode, Query,
    Refusal, Refusals, ServerName, SubjectAs, Suite, TlsVersion, TokenAlgorithm, TokenType, Treatment,
    UnknownName, Unrouted, UpstreamProtocol, VerifyChecksums, WhenExpired, WhenFull, tls::ClientCertificates,
};
use crate::prefix::Prefix;
pub(super) use attestation::{
    AndroidKeySection, AppAttestSection, AttestationSection, DemandSection, PlaySection,
};
pub(super) use cors::CorsSection;
pub(super) use graphql::GraphQlSection;
pub(super) use integrity::{DpopSection, ReplaySection, SignatureSection};
pub(super) use payload::{PayloadKeySection, PayloadSection};
pub(super) use pins::{PinDocumentSection, PinSection, PinSetSection, PinsSection};
pub(super) use tokens::{IntrospectionSection, OauthSection, RevocationSection};

/// A value and where it stands, or nothing.
pub(super) type Key<T> = Option<Spanned<T>>;
/// A list whose entries are reported one by one.
pub(super) type List<T> = Key<Vec<Spanned<T>>>;

/// Strings that are reported one by one.
pub(super) type Texts = Vec<Spanned<Text<String>>>;

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) kernel: KernelSection,
    pub(super) listener: Vec<Spanned<ListenerSection>>,
    pub(super) tls: TlsSection,
    pub(super) pins: PinsSection,
    pub(super) upstream: BTreeMap<String, Spanned<UpstreamSection>>,
    pub(super) token: BTreeMap<String, Spanned<TokenSection>>,
    pub(super) dpop: DpopSection,
    pub(super) signature: BTreeMap<String, Spanned<SignatureSection>>,
    pub(super) payload: BTreeMap<String, Spanned<PayloadSection>>,
    pub(super) replay: ReplaySection,
    pub(super) attestation: Key<AttestationSection>,
    pub(super) route: Vec<Spanned<RouteSection>>,
    pub(super) http: HttpSection,
    pub(super) bans: BansSection,
    pub(super) revocation: RevocationSection,
    pub(super) metrics: MetricsSection,
    pub(super) control: ControlSection,
    pub(super) log: LogSection,
    pub(super) access_log: AccessLogSection,
}

/// `[kernel]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct KernelSection {
    pub(super) mode: Key<Mode>,
    pub(super) interfaces: List<Text<String>>,
    pub(super) allow: List<AllowEntry>,
    pub(super) management_ports: List<Number>,
    pub(super) management_from: List<Text<Prefix>>,
    pub(super) tier: BTreeMap<String, Spanned<TierSection>>,
    pub(super) group: BTreeMap<String, Spanned<GroupSection>>,
    pub(super) global: GlobalSection,
    pub(super) protected_ports: List<Number>,
    pub(super) ipv6_prefix: Key<Number>,
    pub(super) minimum_tls: Key<TlsVersion>,
    pub(super) refusal: Key<Refusal>,
    pub(super) verify_checksums: Key<VerifyChecksums>,
    pub(super) answers: Key<Answers>,
    pub(super) strict_connections: Key<bool>,
    pub(super) quic_ports: List<Number>,
    pub(super) quic_versions: List<Number>,
    pub(super) syn_cookies: Key<LimitSection>,
    pub(super) unparsed: UnparsedSection,
    pub(super) hellos: HellosSection,
    pub(super) limits: LimitsSection,
    pub(super) dry_run: List<Text<Feature>>,
    pub(super) events: Key<LimitSection>,
    pub(super) log: Key<bool>,
    pub(super) persist: Key<bool>,
    pub(super) pin_directory: Key<Text<String>>,
    pub(super) lease: Key<Text<DurationOrOff>>,
    pub(super) lease_expired: Key<WhenExpired>,
}

/// `"192.0.2.0/24"`, or `{ source = "192.0.2.0/24", port = 443 }`
#[derive(Debug)]
pub(super) enum AllowEntry {
    Source(Prefix),
    Port(AllowedPortSection),
}

impl<'de> Deserialize<'de> for AllowEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = AllowEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, or a table with `source` and `port`", Prefix::EXPECTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<AllowEntry, E> {
                Prefix::read(text).map(AllowEntry::Source).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AllowEntry, A::Error> {
                AllowedPortSection::deserialize(MapAccessDeserializer::new(map)).map(AllowEntry::Port)
            }
        }
        deserializer.deserialize_any(EntryVisitor)
    }
}

/// `{ source = "192.0.2.0/24", port = 443 }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AllowedPortSection {
    pub(super) source: Key<Text<Prefix>>,
    pub(super) port: Key<Number>,
}

/// `[kernel.tier.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TierSection {
    pub(super) prefixes: List<Text<Prefix>>,
    pub(super) packets: Key<LimitSection>,
    pub(super) connections: Key<LimitSection>,
    pub(super) hellos: Key<LimitSection>,
    pub(super) quic: Key<LimitSection>,
    pub(super) bytes: Key<BytesSection>,
}

/// `[kernel.group.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GroupSection {
    pub(super) ports: List<Number>,
    pub(super) packets: Key<LimitSection>,
    pub(super) connections: Key<LimitSection>,
    pub(super) hellos: Key<LimitSection>,
    pub(super) quic: Key<LimitSection>,
    pub(super) bytes: Key<BytesSection>,
}

/// `[kernel.global]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GlobalSection {
    pub(super) packets: Key<LimitSection>,
    pub(super) connections: Key<LimitSection>,
    pub(super) hellos: Key<LimitSection>,
    pub(super) quic: Key<LimitSection>,
    pub(super) bytes: Key<BytesSection>,
    pub(super) shares: Key<Number>,
}

/// The limits of a section that has one of each kind.
#[derive(Clone, Copy)]
pub(super) struct SetKeys<'a> {
    pub(super) packets: &'a Key<LimitSection>,
    pub(super) connections: &'a Key<LimitSection>,
    pub(super) hellos: &'a Key<LimitSection>,
    pub(super) quic: &'a Key<LimitSection>,
    pub(super) bytes: &'a Key<BytesSection>,
}

/// serde cannot both flatten a section and refuse unknown keys of it.
macro_rules! set_keys {
    ($($section:ident),*) => {$(
        impl $section {
            pub(super) const fn keys(&self) -> SetKeys<'_> {
                let Self { packets, connections, hellos, quic, bytes, .. } = self;
                SetKeys { packets, connections, hellos, quic, bytes }
            }
        }
    )*};
}
set_keys!(TierSection, GroupSection, GlobalSection);

/// `[kernel.limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitsSection {
    pub(super) packets: Key<LimitSection>,
    pub(super) connections: Key<LimitSection>,
    pub(super) hellos: Key<LimitSection>,
    pub(super) quic: Key<LimitSection>,
    pub(super) bytes: Key<BytesSection>,
    pub(super) ipv6_56: Key<Number>,
    pub(super) ipv6_48: Key<Number>,
    pub(super) when_full: Key<WhenFull>,
    pub(super) max_sources: Key<Number>,
}

/// `[kernel.unparsed]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UnparsedSection {
    pub(super) not_ip: Key<Treatment>,
    pub(super) truncated: Key<Treatment>,
    pub(super) vlan_depth: Key<Treatment>,
    pub(super) malformed_ipv4: Key<Treatment>,
    pub(super) malformed_ipv6: Key<Treatment>,
    pub(super) extension_depth: Key<Treatment>,
    pub(super) malformed_tcp: Key<Treatment>,
    pub(super) malformed_udp: Key<Treatment>,
}

/// `[kernel.hellos]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HellosSection {
    pub(super) refuse_names: List<Text<ServerName>>,
    pub(super) only_names: List<Text<ServerName>>,
    pub(super) refuse_fingerprints: List<Text<Fingerprint>>,
}

/// `{ rate = "10MiB/s", burst = "20MiB" }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BytesSection {
    pub(super) rate: Key<Text<ByteRate>>,
    pub(super) burst: Key<Size>,
}

/// `{ rate = "5/s", burst = 10 }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitSection {
    pub(super) rate: Key<Text<Rate>>,
    pub(super) burst: Key<Number>,
}

/// `[[listener]]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListenerSection {
    pub(super) address: Key<Text<SocketAddr>>,
    pub(super) certificates: List<CertificateSection>,
    pub(super) unknown_name: Key<UnknownName>,
    pub(super) client_certificates: Key<ClientCertificates>,
    pub(super) client_authorities: Key<Text<String>>,
    pub(super) client_crls: List<Text<String>>,
    pub(super) handshake_timeout: Key<Text<Duration>>,
    pub(super) proxy_protocol_from: List<Text<Prefix>>,
    pub(super) early_data: Key<bool>,
}

/// `{ chain = "...", key = "..." }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct CertificateSection {
    pub(super) chain: Key<Text<String>>,
    pub(super) key: Key<Text<String>>,
    pub(super) ocsp: Key<Text<String>>,
}

/// `[tls]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TlsSection {
    pub(super) suites: List<Suite>,
    pub(super) key_exchange: List<KeyExchange>,
    pub(super) ticket_keys: Key<Text<String>>,
    pub(super) ticket_lifetime: Key<Text<Duration>>,
    pub(super) early_data_sessions: Key<Number>,
}

/// `[upstream.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UpstreamSection {
    pub(super) servers: List<Text<http::Uri>>,
    pub(super) tls: Key<UpstreamTlsSection>,
    pub(super) connect_timeout: Key<Text<Duration>>,
    pub(super) response_timeout: Key<Text<Duration>>,
    pub(super) stream_timeout: Key<Text<Duration>>,
    pub(super) total_timeout: Key<Text<DurationOrOff>>,
    pub(super) upgrade_timeout: Key<Text<Duration>>,
    pub(super) idle_timeout: Key<Text<Duration>>,
    pub(super) max_connections: Key<Number>,
    pub(super) max_pending: Key<Number>,
    pub(super) ejection: Key<EjectionSection>,
    pub(super) health: Key<HealthSection>,
}

/// `tls = { authorities = "...", server_name = "..." }` of an upstream.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct UpstreamTlsSection {
    pub(super) authorities: Key<Text<String>>,
    pub(super) server_name: Key<Text<String>>,
    pub(super) chain: Key<Text<String>>,
    pub(super) key: Key<Text<String>>,
    pub(super) alpn: List<UpstreamProtocol>,
}

/// `ejection = { failures = 5, rest = "5s" }` of an upstream.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EjectionSection {
    pub(super) failures: Key<Number>,
    pub(super) rest: Key<Text<Duration>>,
}

/// `health = { path = "/healthz" }` of an upstream.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HealthSection {
    pub(super) path: Key<Text<String>>,
    pub(super) interval: Key<Text<Duration>>,
    pub(super) timeout: Key<Text<Duration>>,
    pub(super) healthy: Key<Number>,
    pub(super) unhealthy: Key<Number>,
}

/// `[token.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TokenSection {
    pub(super) issuer: Key<Text<String>>,
    pub(super) audience: List<Text<String>>,
    pub(super) jwks: Key<Text<String>>,
    pub(super) jwks_url: Key<Text<String>>,
    pub(super) discovery: Key<bool>,
    pub(super) jwks_authorities: Key<Text<String>>,
    pub(super) jwks_private_addresses: Key<bool>,
    pub(super) jwks_refresh: Key<Text<Duration>>,
    pub(super) jwks_interval: Key<Text<Duration>>,
    pub(super) jwks_max_stale: Key<Text<Duration>>,
    pub(super) algorithms: List<TokenAlgorithm>,
    pub(super) typ: Key<TokenType>,
    pub(super) leeway: Key<Text<Duration>>,
    pub(super) max_lifetime: Key<Text<Duration>>,
    pub(super) device_claim: Key<Text<String>>,
    pub(super) introspection: Key<IntrospectionSection>,
}

/// `[[route]]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RouteSection {
    pub(super) name: Key<Text<String>>,
    pub(super) hosts: List<Text<String>>,
    pub(super) path: Key<Text<String>>,
    pub(super) methods: List<Text<String>>,
    pub(super) headers: Key<BTreeMap<String, Spanned<Text<String>>>>,
    pub(super) upstream: Key<Text<String>>,
    pub(super) token: Key<Names>,
    pub(super) public: Key<bool>,
    pub(super) scopes: List<Text<String>>,
    pub(super) upgrade: List<Text<String>>,
    pub(super) required_headers: List<Text<String>>,
    pub(super) any_scope: List<Text<String>>,
    pub(super) method_scopes: Key<BTreeMap<String, Spanned<Texts>>>,
    pub(super) claims: Key<BTreeMap<String, Spanned<Alternatives>>>,
    pub(super) acr: List<Text<String>>,
    pub(super) max_auth_age: Key<Text<Duration>>,
    pub(super) dpop: Key<Binding>,
    pub(super) certificate_bound: Key<Binding>,
    pub(super) signature: Key<Text<String>>,
    pub(super) payload: Key<Text<String>>,
    pub(super) attestation: Key<DemandSection>,
    pub(super) limit: Key<LimitSection>,
    pub(super) limits: List<RouteLimitSection>,
    pub(super) graphql: Key<GraphQlSection>,
    pub(super) oauth: Key<OauthSection>,
    pub(super) early_data: Key<bool>,
    pub(super) cors: Key<CorsSection>,
}

/// `{ key = "subject", rate = "5/s", burst = 10, delay = 5 }`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RouteLimitSection {
    pub(super) name: Key<Text<String>>,
    pub(super) key: Key<Text<LimitKey>>,
    pub(super) rate: Key<Text<Rate>>,
    pub(super) burst: Key<Number>,
    pub(super) delay: Key<Number>,
    pub(super) dry_run: Key<bool>,
}

/// `[http]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HttpSection {
    pub(super) strict_transport_security: Key<Text<String>>,
    pub(super) response_headers: Key<BTreeMap<String, Spanned<Text<String>>>>,
    pub(super) redirect: List<Text<SocketAddr>>,
    pub(super) max_connections: Key<Number>,
    pub(super) max_connections_per_source: Key<Number>,
    pub(super) max_header_bytes: Key<Size>,
    pub(super) max_header_fields: Key<Number>,
    pub(super) trusted_proxies: List<Text<Prefix>>,
    pub(super) forwarded_by: Key<super::ForwardedBy>,
    pub(super) forwarded_origin: Key<bool>,
    pub(super) control_frames: Key<LimitSection>,
    pub(super) body_timeout: Key<Text<Duration>>,
    pub(super) min_body_rate: Key<Size>,
    pub(super) write_timeout: Key<Text<Duration>>,
    pub(super) max_body_bytes: Key<Size>,
    pub(super) max_held_bytes: Key<Size>,
    pub(super) header_timeout: Key<Text<Duration>>,
    pub(super) idle_timeout: Key<Text<Duration>>,
    pub(super) drain_timeout: Key<Text<Duration>>,
    pub(super) max_sources: Key<Number>,
    pub(super) max_delayed: Key<Number>,
    pub(super) ratelimit_headers: Key<bool>,
    pub(super) default: Key<Unrouted>,
    pub(super) tokens_in_query: Key<bool>,
    pub(super) token_cache: Key<Number>,
    pub(super) workers: Key<Number>,
}

/// `[bans]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BansSection {
    pub(super) threshold: Key<Number>,
    pub(super) window: Key<Text<Duration>>,
    pub(super) duration: Key<Text<Duration>>,
    pub(super) max_duration: Key<Text<Duration>>,
    pub(super) max_entries: Key<Number>,
    pub(super) dry_run: Key<bool>,
    pub(super) store: Key<Text<String>>,
}

/// `[metrics]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MetricsSection {
    pub(super) address: Key<Text<AddressOrOff>>,
}

/// `[control]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ControlSection {
    pub(super) socket: Key<Text<String>>,
    pub(super) group: Key<Text<String>>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogSection {
    pub(super) level: Key<Text<String>>,
    pub(super) format: Key<LogFormat>,
}

/// `[access_log]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AccessLogSection {
    pub(super) destination: Key<Text<String>>,
    pub(super) format: Key<AccessFormat>,
    pub(super) sample: Key<Number>,
    pub(super) refusals: Key<Refusals>,
    pub(super) query: Key<Query>,
    pub(super) subject: Key<SubjectAs>,
    pub(super) queue: Key<Number>,
}
