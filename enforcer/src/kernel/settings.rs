//! Settings for the program, made from the configuration. Called at the start and at every reload, and by `explain`;
//! looks at nothing else.

use std::time::Duration;

use enforcer_common::{
    port::{PORTS, Port, door},
    settings::{ABI, INTERFACES, QUIC_VERSIONS, SHARED_SLOT, Settings, flag, refusal},
    source::v6_mask,
};

use super::{
    program::{FLOW_BUCKETS, Sizes},
    rates::{Rates, rate},
};
use crate::{
    clock,
    config::{self, Answers, Refusal, Treatment, VerifyChecksums, WhenExpired, WhenFull},
};

/// What the devices allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Means {
    /// Whether the program sends frames of its own.
    pub(super) answers: bool,
    /// Where checksums are verified.
    pub(super) checksums: Verified,
}

/// On which interfaces checksums are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verified {
    /// On every one.
    Everywhere,
    /// On those with these indices.
    On(Vec<u32>),
}

impl Verified {
    /// The same by slot, as the program wants it, if interfaces with these indices have the slots. The last slot is that of whatever has no
    /// other, of which nothing is known.
    pub(super) fn mask(&self, interfaces: &[u32; INTERFACES]) -> u8 {
        let Self::On(indices) = self else { return u8::MAX };
        let own = interfaces
            .iter()
            .zip(0..SHARED_SLOT)
            .filter(|(index, _)| **index != 0 && indices.contains(index));
        own.fold(0, |mask, (_, slot)| mask | 1 << slot)
    }
}

impl Means {
    /// As far as the configuration alone tells, whatever the machine: checksums are verified only if it says so.
    pub(super) fn of(config: &config::Kernel) -> Self {
        Self {
            answers: config.answers != Answers::Off,
            checksums: match config.verify_checksums {
                VerifyChecksums::On => Verified::Everywhere,
                VerifyChecksums::Auto | VerifyChecksums::Off => Verified::On(Vec::new()),
            },
        }
    }
}

/// The settings that `config` asks for. `seed` comes from the system's generator and stays the same until the daemon
/// ends; the flags of the prefix tries are left clear.
pub(super) fn settings(config: &config::Kernel, sizes: Sizes, seed: u64, means: &Means) -> Settings {
    let syn_budget = rate(config.syn_cookies.as_ref().filter(|_| means.answers));
    let when_full = match config.limits.when_full {
        WhenFull::Share => flag::SHARE_WHEN_FULL,
        WhenFull::Drop => flag::DROP_WHEN_FULL,
        WhenFull::Pass => 0,
    };
    let clock = if syn_budget.needs_fine_clock() { flag::FINE_CLOCK } else { 0 };
    let not_ip = match config.unparsed.not_ip {
        Treatment::Drop => flag::DROP_NOT_IP,
        Treatment::Pass => 0,
    };
    let nowhere = Verified::On(Vec::new());
    let verify = if means.checksums == nowhere { 0 } else { flag::VERIFY_CHECKSUMS };
    let strict = if config.strict_connections { flag::STRICT_CONNECTIONS } else { 0 };
    let expired = match config.lease_expired {
        WhenExpired::Bans => flag::BANS_WITHOUT_LEASE,
        WhenExpired::Pass => 0,
    };
    let hellos = if config.hellos.is_empty() { 0 } else { flag::HELLO_LISTS };
    let only_names = if config.hellos.only_names.is_empty() { 0 } else { flag::ONLY_NAMES };
    let mut quic_versions = [0; QUIC_VERSIONS];
    for (place, version) in quic_versions.iter_mut().zip(&config.quic_versions) {
        *place = *version;
    }
    let mut settings = Settings {
        abi: ABI,
        flags: when_full | clock | not_ip | verify | strict | expired | hellos | only_names,
        v6_mask: v6_mask(config.ipv6_prefix),
        seed,
        source_mask: sizes.source_buckets() - 1,
        bucket_mask: sizes.buckets() - 1,
        // As on the wire (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).
        minimum_tls: config.minimum_tls.number(),
        refusal: match config.refusal {
            Refusal::Alert | Refusal::Reset | Refusal::Poison if !means.answers => refusal::DROP,
            Refusal::Alert => refusal::ALERT,
            Refusal::Reset => refusal::RESET,
            Refusal::Poison => refusal::POISON,
            Refusal::Drop => refusal::DROP,
        },
        // No interface has a slot yet.
        verified: means.checksums.mask(&[0; INTERFACES]),
        flow_mask: FLOW_BUCKETS - 1,
        dry_run: config.dry_run.iter().fold(0, |mask, feature| mask | feature.reasons()),
        tolerated: config.unparsed.passed.iter().fold(0, |mask, reason| mask | reason.bit()),
        events: rate(config.events.as_ref()),
        syn_budget,
        quic_versions,
        ..Settings::PERMISSIVE
    };
    Rates::of(config).put(&mut settings);
    settings
}

/// What the configuration says of each port, by number.
pub(super) fn ports(config: &config::Kernel) -> Vec<Port> {
    let mut ports = vec![Port::UNKNOWN; PORTS];
    let mut mark = |numbers: &[u16], kind: Port| {
        for number in numbers {
            ports[usize::from(*number)] = ports[usize::from(*number)].with(kind);
        }
    };
    mark(&config.protected_ports, Port::PROTECTED);
    let everybody = config.management_from.is_empty();
    let management = if everybody { Port::MANAGEMENT } else { Port::behind(door::MANAGEMENT) };
    mark(&config.management_ports, management);
    mark(&config.quic_ports, Port::QUIC);
    for (number, group) in (1..).zip(config.groups.values()) {
        mark(&group.ports, Port::in_group(number));
    }
    for (number, door) in config.doors() {
        mark(&[number], Port::behind(door));
    }
    ports
}

/// The end of a lease that is given now; 0: there is none.
pub(super) fn lease_until(lease: Option<Duration>) -> u64 {
    lease.map_or(0, |lease| {
        let nanos = u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX);
        clock::kernel_now().0.saturating_add(nanos)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::{
        AllowedPort, ByteLimit, Everybody, Feature, Group, Kernel, KernelLimits, LimitSet, Mode, RateLimit,
        Tier, TlsVersion, Unparsed,
    };
    use crate::prefix::Prefix;
    use enforcer_common::{
        gcra::Rate,
        reason::DropReason,
        settings::{LIMITS, Limit, TIERS},
    };
    use std::collections::BTreeMap;

    pub(in crate::kernel) fn config() -> Kernel {
        Kernel {
            mode: Mode::Native,
            interfaces: vec!["eth0".into()],
            allow: vec![],
            allow_ports: vec![],
            management_ports: vec![22],
            management_from: vec![],
            tiers: BTreeMap::new(),
            groups: BTreeMap::new(),
            everybody: Everybody { limits: LimitSet::OFF, shares: 100 },
            protected_ports: vec![443, 8443],
            ipv6_prefix: 56,
            minimum_tls: TlsVersion::Tls13,
            refusal: Refusal::Alert,
            hellos: config::Hellos::default(),
            verify_checksums: VerifyChecksums::Off,
            answers: Answers::Auto,
            strict_connections: false,
            limits: KernelLimits {
                packets: None,
                connections: Some(RateLimit { events: 60, period: Duration::from_secs(60), burst: 3 }),
                hellos: None,
                quic: None,
                bytes: None,
                ipv6_56: 0,
                ipv6_48: 0,
                when_full: WhenFull::Drop,
                max_sources: 1000,
            },
            quic_ports: vec![443],
            quic_versions: vec![7],
            syn_cookies: Some(RateLimit { events: 5, period: Duration::from_secs(1), burst: 9 }),
            unparsed: Unparsed { not_ip: Treatment::Drop, passed: vec![DropReason::VlanDepth] },
            dry_run: vec![Feature::Bans],
            events: Some(RateLimit { events: 10, period: Duration::from_secs(1), burst: 2 }),
            log: false,
            persist: true,
            pin_directory: config::PIN_DIRECTORY.into(),
            lease: None,
            lease_expired: WhenExpired::Bans,
        }
    }

    #[test]
    fn every_key_arrives() {
        let made = settings(&config(), Sizes::new(1, 1000), 7, &Means::of(&config()));
        assert_eq!(
            made.limits[0],
            [Rate::UNLIMITED, Rate::per_second(1, 3), Rate::UNLIMITED, Rate::UNLIMITED, Rate::UNLIMITED]
        );
        assert_eq!((made.abi, made.seed, made.bucket_mask, made.minimum_tls), (ABI, 7, 255, 0x0304));
        assert_eq!(made.flags, flag::DROP_WHEN_FULL | flag::DROP_NOT_IP | flag::BANS_WITHOUT_LEASE);
        assert_eq!(made.tolerated, DropReason::VlanDepth.bit());
        assert_eq!((made.syn_budget, made.quic_versions), (Rate::per_second(5, 9), [7, 0, 0, 0]));
        assert_eq!(made.events, Rate::per_second(10, 2));
        assert!(made.is_dry(DropReason::Banned) && !made.is_dry(DropReason::PacketLimit));
        assert_eq!(made.v6_mask, 0xffff_ffff_ffff_ff00);
        let ports = ports(&config());
        assert_eq!(
            (ports[443], ports[8443], ports[22]),
            (Port::PROTECTED.with(Port::QUIC), Port::PROTECTED, Port::MANAGEMENT)
        );
        assert_eq!(ports.iter().filter(|port| **port != Port::UNKNOWN).count(), 3);
    }

    #[test]
    fn doors_and_tiers_have_the_numbers_by_which_prefixes_are_marked() {
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let pair = |source, port| AllowedPort { source: prefix(source), port };
        let tier = |prefixes: &[&str], events| Tier {
            prefixes: prefixes.iter().copied().map(prefix).collect(),
            limits: LimitSet {
                packets: Some(RateLimit { events, period: Duration::from_secs(1), burst: 1 }),
                ..LimitSet::OFF
            },
        };
        let config = Kernel {
            allow_ports: vec![pair("198.18.1.0/24", 8443), pair("198.18.1.0/24", 53)],
            management_from: vec![prefix("198.18.1.0/24"), prefix("198.18.2.0/24")],
            tiers: [("large".into(), tier(&["198.18.2.0/24"], 70)), ("small".into(), tier(&["::/0"], 5))]
                .into(),
            ..config()
        };
        let ports = ports(&config);
        assert!(!ports[22].is(Port::MANAGEMENT) && ports[8443].is(Port::PROTECTED));
        let (ssh, dns, tls) = (ports[22].doors(), ports[53].doors(), ports[8443].doors());
        assert!([ssh, dns, tls].iter().all(|doors| doors.is_power_of_two()) && ssh | dns | tls == 7);
        let marks = config.marks();
        assert_eq!(marks[&prefix("198.18.1.0/24")].doors, ssh | dns | tls);
        let both = marks[&prefix("198.18.2.0/24")];
        assert_eq!((both.doors, both.tier, config.tier("large")), (ssh, Some(1), Some(1)));
        assert_eq!(
            (config.tier_name(2), config.tier_name(0), config.tier("default")),
            ("small", "default", Some(0))
        );
        let sizes = Sizes::new(1, 1000);
        let made = settings(&config, sizes, 7, &Means::of(&config));
        let packets = |tier| made.limit(Limit::Packets, tier);
        assert_eq!(
            [packets(0), packets(1), packets(2)],
            [Rate::UNLIMITED, Rate::per_second(70, 1), Rate::per_second(5, 1)]
        );
        assert_eq!(packets(7), packets(0));
    }

    #[test]
    fn budgets_besides_a_source_s_own_are_multiples_and_parts() {
        let second = |events, burst| Some(RateLimit { events, period: Duration::from_secs(1), burst });
        let mut config = config();
        let sizes = Sizes::new(1, 1000);
        let made = |config: &Kernel| settings(config, sizes, 7, &Means::of(config));
        assert_eq!(made(&config).flags & flag::MORE_BUDGETS, 0);
        config.limits.ipv6_48 = 64;
        config.limits.connections = second(10, 20);
        config.limits.bytes = Some(ByteLimit { rate: 1 << 20, burst: 4 << 20 });
        config.everybody.limits.hellos = second(1_000, 2_000);
        let dns = Group { ports: vec![53, 853], limits: LimitSet { packets: second(5, 7), ..LimitSet::OFF } };
        config.groups = [("dns".to_owned(), dns)].into();
        let settings = made(&config);
        assert_ne!(settings.flags & flag::MORE_BUDGETS, 0);
        let (connections, bytes) = (Limit::Connections as usize, Limit::Bytes as usize);
        assert_eq!(settings.networks[1][3][connections], Rate::per_second(640, 1_280));
        assert_eq!(settings.networks[0], [[Rate::UNLIMITED; LIMITS]; TIERS]);
        assert_eq!(settings.limits[0][bytes], Rate::bytes_per_second(1 << 20, 4 << 20));
        assert_eq!(settings.groups[1][Limit::Packets as usize], Rate::per_second(5, 7));
        let share = settings.shares[Limit::Hellos as usize];
        assert_eq!((share.increment, share.tolerance), (100_000_000, 2_000_000_000), "10/s, 20 at once");
        let ports = ports(&config);
        assert_eq!((ports[53].group(), ports[853].group(), ports[443].group()), (1, 1, 0));
    }

    #[test]
    fn what_the_devices_do_not_allow_is_not_asked_for() {
        let sizes = Sizes::new(1, 1000);
        for refusal in [Refusal::Alert, Refusal::Reset, Refusal::Poison, Refusal::Drop] {
            let config = Kernel { refusal, ..config() };
            let silent =
                settings(&config, sizes, 7, &Means { answers: false, checksums: Verified::Everywhere });
            assert_eq!((silent.refusal, silent.syn_budget), (refusal::DROP, Rate::UNLIMITED));
            assert!(silent.flags & flag::VERIFY_CHECKSUMS != 0);
        }
        let loud =
            settings(&config(), sizes, 7, &Means { answers: true, checksums: Verified::On(Vec::new()) });
        assert_eq!((loud.refusal, loud.flags & flag::VERIFY_CHECKSUMS), (refusal::ALERT, 0));
    }

    #[test]
    fn checksums_are_verified_by_slot() {
        let interfaces = [4, 0, 9, 0, 0, 0, 0, 0];
        assert_eq!(Verified::On(vec![9, 5]).mask(&interfaces), 0b100);
        assert_eq!(Verified::On(vec![4, 9]).mask(&interfaces), 0b101);
        assert_eq!(Verified::On(vec![0]).mask(&interfaces), 0, "an interface that is not there");
        assert_eq!(Verified::Everywhere.mask(&interfaces), u8::MAX);
        let means = Means { answers: true, checksums: Verified::On(vec![9]) };
        let mut settings = settings(&config(), Sizes::new(1, 1000), 7, &means);
        assert!((0..8).all(|slot| !settings.verifies(slot)), "before it is known who has which slot");
        settings.verified = means.checksums.mask(&interfaces);
        assert!((0..8).all(|slot| settings.verifies(slot) == (slot == 2)));
    }

    #[test]
    fn limits_without_a_tick_of_jitter_get_the_fine_clock() {
        let sizes = Sizes::new(1, 1000);
        let flags = |events, burst| {
            let mut config = config();
            config.limits.hellos = Some(RateLimit { events, period: Duration::from_secs(1), burst });
            settings(&config, sizes, 7, &Means::of(&config)).flags
        };
        let others = flag::DROP_WHEN_FULL | flag::DROP_NOT_IP | flag::BANS_WITHOUT_LEASE;
        assert_eq!(flags(20_000, 4), others | flag::FINE_CLOCK);
        assert_eq!(flags(200, 1000), others);
    }
}
