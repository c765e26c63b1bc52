//! Why a packet passed or was dropped. Numbers index the counter map and appear in captures: they are never reused.

macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $label:literal;)+ }) => {
        $(#[$meta])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[doc = $doc])+ $variant = $number,)+ }

        impl $name {
            /// Every reason, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name in metrics, logs and command output.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// One sentence for people.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }

            /// The reason with this number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }

            /// The index of its counter.
            #[inline(always)]
            pub const fn number(self) -> u32 { self as u32 }
        }
    };
}

/// The first drop reason's number.
pub const FIRST_DROP: u32 = 64;
/// Numbers that reasons can have.
const NUMBERS: u32 = 128;
/// Counters of one interface: one per number, then one per drop reason for packets that passed although they would have been
/// dropped.
pub const COUNTERS: u32 = NUMBERS + NUMBERS - FIRST_DROP;

/// Where the map holds the counter with this number of the interface in this slot, see
/// [`crate::settings::Settings::slot`].
#[inline(always)]
pub const fn counter(slot: u32, number: u32) -> u32 {
    slot * COUNTERS + number
}

reasons! {
    /// Why a packet passed: 0 to 63.
    PassReason {
        /// The daemon has not written settings that this program understands: nothing is judged (fails open, counted).
        NoSettings = 0, "no_settings";
        /// ARP, LACP, LLDP or EAPOL: the link itself needs it.
        LinkControl = 1, "link_control";
        /// Neither IPv4 nor IPv6.
        NotIp = 2, "not_ip";
        /// IPv6 neighbour discovery from this link (hop limit 255).
        NeighbourDiscovery = 3, "neighbour_discovery";
        /// The source is on the allow list, perhaps for this port alone.
        Allowed = 4, "allowed";
        /// Would have been dropped, but goes to a management port.
        Management = 5, "management";
        /// A later fragment: its ports are in the first one.
        Fragment = 6, "fragment";
        /// Within the source's limits, no hello to look at.
        Clean = 7, "clean";
        /// A ClientHello that offers an acceptable version.
        HelloAccepted = 8, "hello_accepted";
        /// Part of a ClientHello whose rest is awaited.
        HelloIncomplete = 9, "hello_incomplete";
        /// The daemon has stayed away for longer than its lease: nothing is judged, or nothing but bans (fails open, as configured).
        LeaseExpired = 10, "lease_expired";
        /// Cannot be parsed, and the configuration says that such packets pass.
        Unparsed = 11, "unparsed";
        /// A later packet of a connection whose hello was refused, turned into the reset that ends the server's socket.
        ServerReset = 12, "server_reset";
        /// A refused hello whose version was made unacceptable to the server, which answers it itself.
        HelloPoisoned = 13, "hello_poisoned";
        /// Of a connection whose hello cannot be followed, since the flow table has no room: the daemon judges it.
        HelloUnfollowed = 17, "hello_unfollowed";
        /// A QUIC Initial datagram of a known version within the source's limits.
        QuicInitial = 14, "quic_initial";
        /// A SYN above the global budget for which the kernel makes no cookie: it has no listener there, or still room for the SYN.
        CookieDeclined = 16, "cookie_declined";
        /// Clean, but a limiter had no slot for its source: it passes at the expense of what those without one share.
        LimiterShared = 18, "limiter_shared";
    }
}

impl DropReason {
    /// Its bit in [`crate::settings::Settings::dry_run`] and [`crate::settings::Settings::tolerated`].
    #[inline(always)]
    pub const fn bit(self) -> u64 {
        1 << ((self as u32 - FIRST_DROP) & 63)
    }

    /// The index of the counter of packets that passed in a dry run although they would have been dropped.
    #[inline(always)]
    pub const fn dry_number(self) -> u32 {
        self as u32 - FIRST_DROP + NUMBERS
    }
}

reasons! {
    /// Why a packet was dropped: 64 to 127.
    DropReason {
        /// The frame ends inside a header.
        Truncated = 64, "truncated";
        /// More than two VLAN tags.
        VlanDepth = 65, "vlan_depth";
        /// An IPv4 header that contradicts itself or the frame.
        MalformedIpv4 = 66, "malformed_ipv4";
        /// An IPv6 header that contradicts itself or the frame.
        MalformedIpv6 = 67, "malformed_ipv6";
        /// More IPv6 extension headers than are followed.
        ExtensionDepth = 68, "extension_depth";
        /// A TCP header that contradicts itself or the packet.
        MalformedTcp = 69, "malformed_tcp";
        /// A UDP header that contradicts itself or the packet.
        MalformedUdp = 70, "malformed_udp";
        /// The source is banned.
        Banned = 71, "banned";
        /// The source lies in a banned prefix.
        BannedPrefix = 72, "banned_prefix";
        /// A TCP fragment for a protected port, or one that would hide TCP ports.
        TcpFragment = 73, "tcp_fragment";
        /// More packets than the source may send.
        PacketLimit = 74, "packet_limit";
        /// More new connections (SYN) than the source may open.
        ConnectionLimit = 75, "connection_limit";
        /// More ClientHellos than the source may send.
        HelloLimit = 76, "hello_limit";
        /// The limiter had no slot for the source, and what those without one share is used up, or the configuration says
        /// `when_full = "drop"`.
        LimiterFull = 77, "limiter_full";
        /// A ClientHello that offers no acceptable version.
        TlsVersion = 78, "tls_version";
        /// A TLS record or ClientHello that contradicts itself.
        MalformedHello = 79, "malformed_hello";
        /// Neither IP nor link control, and the configuration says that such frames are dropped.
        NotIpRefused = 80, "not_ip_refused";
        /// Ahead of the part of a ClientHello that has been inspected: the sender repeats it in order.
        HelloAhead = 85, "hello_ahead";
        /// Data to a protected port that begins a connection and is no TLS handshake: SSL 2, plain text.
        NotHello = 86, "not_hello";
        /// A packet of a connection whose hello was refused.
        RefusedConnection = 87, "refused_connection";
        /// A segment with a ClientHello whose checksum, or that of its IPv4 header, is wrong: the server would ignore it.
        BadChecksum = 88, "bad_checksum";
        /// Of a connection whose hello cannot be followed, and the configuration says that such are dropped.
        UnknownConnection = 89, "unknown_connection";
        /// A SYN above the global budget, answered with a SYN cookie.
        SynCookie = 92, "syn_cookie";
        /// A QUIC Initial in a datagram of less than 1200 bytes.
        QuicShort = 93, "quic_short";
        /// A QUIC long header with a version that is not served.
        QuicVersion = 94, "quic_version";
        /// More QUIC packets with long headers than the source may send.
        QuicLimit = 95, "quic_limit";
        /// A datagram to a QUIC port that has neither form of a QUIC packet.
        NotQuic = 96, "not_quic";
        /// More bytes than the source may send.
        ByteLimit = 104, "byte_limit";
        /// More than the /56 around the IPv6 source may send.
        SiteLimit = 105, "ipv6_56_limit";
        /// More than the source may send to this group of ports.
        GroupLimit = 106, "group_limit";
        /// All sources together send more than they may, and this one more than its share of that.
        GlobalLimit = 107, "global_limit";
        /// More than the /48 around the IPv6 source may send.
        NetworkLimit = 108, "ipv6_48_limit";
        /// A ClientHello that asks for a server name which is refused.
        HelloName = 109, "hello_name";
        /// A ClientHello that asks for none of the server names which alone are served.
        HelloUnlisted = 110, "hello_unlisted";
        /// A ClientHello with a fingerprint which is refused.
        HelloFingerprint = 111, "hello_fingerprint";
        /// Comes in place of a part of a ClientHello that has passed, and says something else: the server might take either.
        HelloChanged = 112, "hello_changed";
        /// A SYN with a third number of a connection of which two others are remembered, or that another CPU is at work on.
        SynDisputed = 113, "syn_disputed";
        /// A segment of a ClientHello as no TLS client sends it: servers ignore it, or read something else.
        HelloUnusual = 114, "hello_unusual";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_and_labels_are_unique_and_in_range() {
        let mut labels = HashSet::new();
        let mut numbers = HashSet::new();
        for reason in PassReason::ALL {
            assert!(reason.number() < 64 && numbers.insert(reason.number()) && labels.insert(reason.label()));
        }
        for reason in DropReason::ALL {
            assert!((64..128).contains(&reason.number()));
            assert!((128..COUNTERS).contains(&reason.dry_number()));
            assert!(numbers.insert(reason.number()) && labels.insert(reason.label()));
        }
    }
}
