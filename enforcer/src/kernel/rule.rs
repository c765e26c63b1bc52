//! Which key of the configuration, or which entry of a list, a verdict hangs on, in words. Pure.

use enforcer_common::{
    gcra::Rate,
    settings::{Limit, Settings, flag, refusal},
};

use super::Reason;
use crate::prefix::Prefix;

/// What a verdict was found from.
#[derive(Clone, Copy, Debug)]
pub struct Grounds<'a> {
    /// The settings.
    pub settings: &'a Settings,
    /// The packet's destination port.
    pub port: Option<u16>,
    /// The entry of the lists that holds for its source.
    pub entry: Option<Prefix>,
    /// The tier of its source, by number and name.
    pub tier: (u8, &'a str),
    /// The group of the port by name; empty if it is in none.
    pub group: &'a str,
}

const MINIMUM_TLS: &str = "kernel.minimum_tls";

fn minimum_tls(settings: &Settings) -> String {
    match settings.minimum_tls {
        0x0303 => format!("{MINIMUM_TLS} is \"1.2\""),
        0x0304 => format!("{MINIMUM_TLS} is \"1.3\""),
        _ => MINIMUM_TLS.to_owned(),
    }
}

/// The rule behind a reason; empty where no rule could have changed the verdict.
pub fn rule(reason: Reason, grounds: Grounds<'_>) -> String {
    let key = match reason {
        Reason::Pass(reason) => reason.key(),
        Reason::Drop(reason) | Reason::WouldDrop(reason) => reason.key(),
    };
    let Grounds { settings, port, entry, tier, group } = grounds;
    let limit = |limit: Limit| {
        let rate = spell(limit, settings.limit(limit, tier.0));
        if tier.0 == 0 {
            format!("{key} is {rate}")
        } else {
            format!("kernel.tier.{}.{} is {rate}", tier.1, limit.label())
        }
    };
    match key {
        MINIMUM_TLS => minimum_tls(settings),
        // A hello was refused before, for its version unless it was none.
        "kernel.refusal" => {
            let how = match settings.refusal {
                refusal::ALERT => "alert",
                refusal::RESET => "reset",
                refusal::POISON => "poison",
                _ => "drop",
            };
            // Or for a list, where there is one.
            let lists = if settings.flags & flag::HELLO_LISTS == 0 { "" } else { ", or kernel.hellos" };
            format!("{}{lists}, {key} is \"{how}\"", minimum_tls(settings))
        }
        "kernel.limits.packets" => limit(Limit::Packets),
        "kernel.limits.connections" => limit(Limit::Connections),
        "kernel.limits.hellos" => limit(Limit::Hellos),
        "kernel.limits.quic" => limit(Limit::Quic),
        "kernel.limits.bytes" => limit(Limit::Bytes),
        "kernel.syn_cookies" => format!("{key} is {}", spell(Limit::Connections, settings.syn_budget)),
        "kernel.limits.when_full" if settings.flags & flag::SHARE_WHEN_FULL != 0 => {
            format!("{key} is \"share\"")
        }
        "kernel.limits.when_full" if settings.flags & flag::DROP_WHEN_FULL != 0 => {
            format!("{key} is \"drop\"")
        }
        "kernel.limits.when_full" => format!("{key} is \"pass\""),
        "kernel.group" => {
            port.map_or_else(|| key.to_owned(), |port| format!("{key}.{group}.ports has {port}"))
        }
        "kernel.protected_ports" | "kernel.management_ports" | "kernel.quic_ports" => {
            port.map_or_else(|| key.to_owned(), |port| format!("{key} has {port}"))
        }
        "kernel.allow" => entry.map_or_else(|| key.to_owned(), |prefix| format!("{prefix} is allowed")),
        "bans" => entry.map_or_else(|| "a ban".to_owned(), |prefix| format!("{prefix} is banned")),
        _ => key.to_owned(),
    }
}

/// A rate as it would be written.
fn spell(limit: Limit, rate: Rate) -> String {
    if !rate.is_limited() {
        return "off".to_owned();
    }
    if limit == Limit::Bytes {
        let bytes = |nanos: u64| nanos.saturating_mul(limit.unit()) / rate.increment;
        return format!("{} bytes/s, burst {} bytes", bytes(1_000_000_000), bytes(rate.tolerance));
    }
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (60_000_000_000, "m"), (3_600_000_000_000, "h")];
    let (period, unit) = UNITS.into_iter().find(|(period, _)| *period >= rate.increment).unwrap_or(UNITS[2]);
    format!("{}/{unit}, burst {}", period / rate.increment, rate.tolerance / rate.increment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_common::reason::{DropReason, PassReason};

    #[test]
    fn a_rule_names_its_key_and_value() {
        let mut settings = Settings::PERMISSIVE;
        settings.limits[0][Limit::Packets as usize] = Rate::per_second(20, 30);
        settings.limits[1][Limit::Hellos as usize] = Rate::per_second(3, 3);
        let entry = "198.18.0.0/15".parse().ok();
        let grounds =
            Grounds { settings: &settings, port: Some(443), entry, tier: (0, "default"), group: "web" };
        let small = Grounds { tier: (1, "small"), ..grounds };
        assert_eq!(
            rule(Reason::Drop(DropReason::HelloLimit), small),
            "kernel.tier.small.hellos is 3/s, burst 3"
        );
        let said = |reason| rule(reason, grounds);
        assert_eq!(said(Reason::Drop(DropReason::TlsVersion)), "kernel.minimum_tls is \"1.2\"");
        let refused = "kernel.minimum_tls is \"1.2\", kernel.refusal is \"alert\"";
        for reason in [
            Reason::Drop(DropReason::RefusedConnection),
            Reason::Pass(PassReason::ServerReset),
            Reason::Pass(PassReason::HelloPoisoned),
        ] {
            assert_eq!(said(reason), refused);
        }
        assert_eq!(
            said(Reason::WouldDrop(DropReason::PacketLimit)),
            "kernel.limits.packets is 20/s, burst 30"
        );
        assert_eq!(said(Reason::Drop(DropReason::BannedPrefix)), "198.18.0.0/15 is banned");
        assert_eq!(said(Reason::Drop(DropReason::TcpFragment)), "kernel.protected_ports has 443");
        assert_eq!(said(Reason::Drop(DropReason::GroupLimit)), "kernel.group.web.ports has 443");
        let mut weighed = settings;
        weighed.limits[0][Limit::Bytes as usize] = Rate::bytes_per_second(2_048, 65_536);
        let grounds = Grounds { settings: &weighed, ..grounds };
        assert_eq!(
            rule(Reason::Drop(DropReason::ByteLimit), grounds),
            "kernel.limits.bytes is 2048 bytes/s, burst 65536 bytes"
        );
        assert_eq!(said(Reason::Pass(PassReason::Clean)), "");
        assert_eq!(spell(Limit::Packets, Rate::new(1, 3_600_000_000_000, 1)), "1/h, burst 1");
    }
}
