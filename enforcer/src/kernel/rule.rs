//! Which key of the configuration, or which entry of a list, a verdict hangs on, in words. Pure.

use enforcer_common::{
    gcra::Rate,
    settings::{Limit, Settings, flag},
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
}

/// The rule behind a reason; empty where no rule could have changed the verdict.
pub fn rule(reason: Reason, grounds: Grounds<'_>) -> String {
    let key = match reason {
        Reason::Pass(reason) => reason.key(),
        Reason::Drop(reason) | Reason::WouldDrop(reason) => reason.key(),
    };
    let Grounds { settings, port, entry } = grounds;
    let limit = |limit| format!("{key} is {}", spell(settings.limit(limit, 0)));
    match key {
        "kernel.minimum_tls" => match settings.minimum_tls {
            0x0303 => format!("{key} is \"1.2\""),
            0x0304 => format!("{key} is \"1.3\""),
            _ => key.to_owned(),
        },
        "kernel.limits.packets" => limit(Limit::Packets),
        "kernel.limits.connections" => limit(Limit::Connections),
        "kernel.limits.hellos" => limit(Limit::Hellos),
        "kernel.limits.quic" => limit(Limit::Quic),
        "kernel.syn_cookies" => format!("{key} is {}", spell(settings.syn_budget)),
        "kernel.limits.when_full" if settings.flags & flag::DROP_WHEN_FULL != 0 => {
            format!("{key} is \"drop\"")
        }
        "kernel.limits.when_full" => format!("{key} is \"pass\""),
        "kernel.protected_ports" | "kernel.management_ports" | "kernel.quic_ports" => {
            port.map_or_else(|| key.to_owned(), |port| format!("{key} has {port}"))
        }
        "kernel.allow" => entry.map_or_else(|| key.to_owned(), |prefix| format!("{prefix} is allowed")),
        "bans" => entry.map_or_else(|| "a ban".to_owned(), |prefix| format!("{prefix} is banned")),
        _ => key.to_owned(),
    }
}

/// A rate as it would be written.
fn spell(rate: Rate) -> String {
    if !rate.is_limited() {
        return "off".to_owned();
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
        let grounds = Grounds { settings: &settings, port: Some(443), entry: "198.18.0.0/15".parse().ok() };
        let said = |reason| rule(reason, grounds);
        assert_eq!(said(Reason::Drop(DropReason::TlsVersion)), "kernel.minimum_tls is \"1.2\"");
        assert_eq!(
            said(Reason::WouldDrop(DropReason::PacketLimit)),
            "kernel.limits.packets is 20/s, burst 30"
        );
        assert_eq!(said(Reason::Drop(DropReason::BannedPrefix)), "198.18.0.0/15 is banned");
        assert_eq!(said(Reason::Drop(DropReason::TcpFragment)), "kernel.protected_ports has 443");
        assert_eq!(said(Reason::Pass(PassReason::Clean)), "");
        assert_eq!(spell(Rate::new(1, 3_600_000_000_000, 1)), "1/h, burst 1");
    }
}
