//! What a reason belongs to: the features that an operator can rehearse, and the key of the configuration that decided.
//!
//! The configuration turns names into masks of reasons by it, and whoever explains a verdict names the key. Every new
//! reason takes its place here.

use crate::reason::{DropReason, PassReason};

/// A part of the data plane that can be under a dry run by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Feature {
    /// Frames and packets that cannot be parsed, and frames that are not IP.
    Parsing,
    /// Fragments that would hide TCP ports.
    Fragments,
    /// Banned sources and prefixes.
    Bans,
    /// Limits of every kind, full tables included.
    Limits,
    /// ClientHellos, and TCP data to protected ports.
    Tls,
    /// SYN cookies.
    SynCookies,
    /// The form of datagrams to QUIC ports.
    Quic,
    /// Lists of server names.
    HelloNames,
    /// The list of fingerprints of ClientHellos.
    HelloFingerprints,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 9] = [
        Self::Parsing,
        Self::Fragments,
        Self::Bans,
        Self::Limits,
        Self::Tls,
        Self::SynCookies,
        Self::Quic,
        Self::HelloNames,
        Self::HelloFingerprints,
    ];

    /// The stable name in configuration and command output.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Parsing => "parsing",
            Self::Fragments => "fragments",
            Self::Bans => "bans",
            Self::Limits => "limits",
            Self::Tls => "tls",
            Self::SynCookies => "syn_cookies",
            Self::Quic => "quic",
            Self::HelloNames => "hello_names",
            Self::HelloFingerprints => "hello_fingerprints",
        }
    }

    /// Its reasons, as [`DropReason::bit`].
    pub fn reasons(self) -> u64 {
        let own = DropReason::ALL.iter().filter(|reason| reason.feature() == self);
        own.fold(0, |mask, reason| mask | reason.bit())
    }
}

impl DropReason {
    /// What it belongs to.
    pub const fn feature(self) -> Feature {
        match self {
            Self::Truncated
            | Self::VlanDepth
            | Self::MalformedIpv4
            | Self::MalformedIpv6
            | Self::ExtensionDepth
            | Self::MalformedTcp
            | Self::MalformedUdp
            | Self::NotIpRefused => Feature::Parsing,
            Self::TcpFragment => Feature::Fragments,
            Self::Banned | Self::BannedPrefix => Feature::Bans,
            Self::PacketLimit
            | Self::ConnectionLimit
            | Self::HelloLimit
            | Self::QuicLimit
            | Self::ByteLimit
            | Self::SiteLimit
            | Self::NetworkLimit
            | Self::GroupLimit
            | Self::GlobalLimit
            | Self::LimiterFull => Feature::Limits,
            Self::SynCookie => Feature::SynCookies,
            Self::QuicShort | Self::QuicVersion | Self::NotQuic => Feature::Quic,
            Self::HelloName | Self::HelloUnlisted => Feature::HelloNames,
            Self::HelloFingerprint => Feature::HelloFingerprints,
            Self::TlsVersion
            | Self::MalformedHello
            | Self::HelloAhead
            | Self::HelloChanged
            | Self::HelloUnusual
            | Self::SynDisputed
            | Self::NotHello
            | Self::RefusedConnection
            | Self::BadChecksum
            | Self::UnknownConnection => Feature::Tls,
        }
    }

    /// The key of the configuration that the verdict hangs on; empty where none could have changed it.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Truncated
            | Self::VlanDepth
            | Self::MalformedIpv4
            | Self::MalformedIpv6
            | Self::ExtensionDepth
            | Self::MalformedTcp
            | Self::MalformedUdp
            | Self::NotIpRefused => "kernel.unparsed",
            Self::TcpFragment
            | Self::MalformedHello
            | Self::HelloAhead
            | Self::HelloChanged
            | Self::HelloUnusual
            | Self::SynDisputed
            | Self::NotHello => "kernel.protected_ports",
            Self::RefusedConnection => "kernel.refusal",
            Self::BadChecksum => "kernel.verify_checksums",
            Self::UnknownConnection => "kernel.strict_connections",
            Self::Banned | Self::BannedPrefix => "bans",
            Self::PacketLimit => "kernel.limits.packets",
            Self::ConnectionLimit => "kernel.limits.connections",
            Self::HelloLimit => "kernel.limits.hellos",
            Self::QuicLimit => "kernel.limits.quic",
            Self::ByteLimit => "kernel.limits.bytes",
            Self::SiteLimit => "kernel.limits.ipv6_56",
            Self::NetworkLimit => "kernel.limits.ipv6_48",
            Self::GroupLimit => "kernel.group",
            Self::GlobalLimit => "kernel.global",
            Self::LimiterFull => "kernel.limits.when_full",
            Self::SynCookie => "kernel.syn_cookies",
            Self::QuicVersion => "kernel.quic_versions",
            Self::QuicShort | Self::NotQuic => "kernel.quic_ports",
            Self::TlsVersion => "kernel.minimum_tls",
            Self::HelloName => "kernel.hellos.refuse_names",
            Self::HelloUnlisted => "kernel.hellos.only_names",
            Self::HelloFingerprint => "kernel.hellos.refuse_fingerprints",
        }
    }
}

impl PassReason {
    /// As [`DropReason::key`].
    pub const fn key(self) -> &'static str {
        match self {
            Self::NoSettings
            | Self::LinkControl
            | Self::NeighbourDiscovery
            | Self::Fragment
            | Self::Clean
            | Self::LeaseExpired => "",
            Self::NotIp | Self::Unparsed => "kernel.unparsed",
            Self::QuicInitial => "kernel.quic_ports",
            Self::CookieDeclined => "kernel.syn_cookies",
            Self::LimiterShared => "kernel.limits.when_full",
            Self::Allowed => "kernel.allow",
            Self::Management => "kernel.management_ports",
            Self::HelloAccepted | Self::HelloIncomplete => "kernel.minimum_tls",
            Self::ServerReset | Self::HelloPoisoned => "kernel.refusal",
            Self::HelloUnfollowed => "kernel.strict_connections",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_can_be_rehearsed_and_none_twice() {
        let masks = Feature::ALL.map(Feature::reasons);
        assert!(masks.iter().all(|mask| *mask != 0), "a feature without a reason");
        let all = DropReason::ALL.iter().fold(0, |mask, reason| mask | reason.bit());
        assert_eq!(masks.iter().fold(0, |mask, one| mask | one), all);
        assert_eq!(masks.iter().map(|mask| mask.count_ones()).sum::<u32>(), all.count_ones());
    }
}
