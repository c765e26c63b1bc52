//! The `[kernel]` section that tests and benchmarks begin with; they change the keys that they are about.

use std::collections::BTreeMap;

use enforcer::config::{
    Answers, Everybody, Hellos, Kernel, KernelLimits, LimitSet, Mode, Refusal, TlsVersion, Treatment,
    Unparsed, VerifyChecksums, WhenExpired, WhenFull,
};
use enforcer_common::quic;

/// Native, TLS on 443, SSH as management, no interface and no limit.
pub fn plain() -> Kernel {
    Kernel {
        mode: Mode::Native,
        interfaces: Vec::new(),
        allow: Vec::new(),
        allow_ports: Vec::new(),
        management_ports: vec![22],
        management_from: Vec::new(),
        tiers: BTreeMap::new(),
        groups: BTreeMap::new(),
        everybody: Everybody { limits: LimitSet::OFF, shares: 100 },
        protected_ports: vec![443],
        ipv6_prefix: 64,
        minimum_tls: TlsVersion::Tls12,
        refusal: Refusal::Alert,
        hellos: Hellos::default(),
        verify_checksums: VerifyChecksums::Off,
        answers: Answers::Auto,
        strict_connections: false,
        quic_ports: Vec::new(),
        quic_versions: vec![quic::VERSION_1, quic::VERSION_2],
        syn_cookies: None,
        unparsed: Unparsed { not_ip: Treatment::Pass, passed: Vec::new() },
        limits: KernelLimits {
            packets: None,
            connections: None,
            hellos: None,
            quic: None,
            bytes: None,
            ipv6_56: 0,
            ipv6_48: 0,
            when_full: WhenFull::Drop,
            max_sources: 1024,
        },
        dry_run: Vec::new(),
        events: None,
        log: false,
        persist: false,
        // Not even what a daemon of this machine has pinned is looked at.
        pin_directory: "/nowhere".into(),
        lease: None,
        lease_expired: WhenExpired::Pass,
    }
}
