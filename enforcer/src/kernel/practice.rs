//! What of the configuration can be done on the devices that there are: whether the program sends frames, and whether it verifies
//! checksums.
//!
//! Called by `plane` when the settings are written, and every second to see whether devices have changed. Decides; changes nothing.
//! In doubt frames are sent and checksums are left alone: both are how a kernel without this program behaves.

use super::{
    Attachment,
    settings::{Means, Verified},
};
use crate::{
    config::{self, Answers, LimitSet, Refusal, VerifyChecksums},
    device::Device,
};

/// What is in force, as `status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Practice {
    /// How hellos are refused: `alert`, `reset`, `poison` or `drop`.
    pub refusal: String,
    /// Whether SYN cookies are sent above the budget.
    pub syn_cookies: bool,
    /// `net.ipv4.tcp_syncookies`, on which it depends too.
    #[serde(default)]
    pub tcp_syncookies: String,
    /// Whether segments with a ClientHello need a right checksum, on some interface at least.
    pub checksums: bool,
    /// Interfaces of which that does not hold.
    #[serde(default)]
    pub unverified: Vec<String>,
    /// What is not as configured or may fail, and why.
    pub remarks: Vec<String>,
    /// What is limited besides the packets, connections, hellos and QUIC of each source, in words.
    #[serde(default)]
    pub budgets: Vec<String>,
    /// The tiers by name, in the order of their numbers.
    #[serde(default)]
    pub tiers: Vec<String>,
    /// The same of groups of ports.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl Practice {
    /// Where checksums are verified, in words.
    pub fn verification(&self) -> String {
        match (self.checksums, self.unverified.is_empty()) {
            (false, _) => "not verified".to_owned(),
            (true, true) => "verified".to_owned(),
            (true, false) => format!("verified, but not on {}", self.unverified.join(", ")),
        }
    }

    /// The name of a tier.
    pub fn tier(&self, number: u8) -> &str {
        let named = usize::from(number).checked_sub(1).and_then(|at| self.tiers.get(at));
        named.map_or(config::DEFAULT_TIER, String::as_str)
    }

    /// The name of a group of ports; empty for none.
    pub fn group(&self, number: u32) -> &str {
        let named = (number as usize).checked_sub(1).and_then(|at| self.groups.get(at));
        named.map_or("", String::as_str)
    }
}

/// Looks at the devices of the configuration. `attachments` is empty before anything is attached.
pub(super) fn look(config: &config::Kernel, attachments: &[Attachment]) -> (Means, Practice) {
    let devices = config.interfaces.iter().map(|name| {
        let attached = attachments.iter().find(|one| one.interface == *name && one.is_attached());
        let (mode, index) = attached.map_or(("", 0), |one| (one.mode.as_str(), one.index));
        Seen { name, mode, index, device: Device::look(name) }
    });
    decide(config, &devices.collect::<Vec<_>>())
}

/// An interface.
struct Seen<'a> {
    name: &'a str,
    /// How the program is attached to it; empty: it is not.
    mode: &'a str,
    /// 0 if it is not attached.
    index: u32,
    device: Device,
}

impl Seen<'_> {
    /// Whether frames that come by it have their checksums when the program sees them.
    fn brings_checksums(&self) -> bool {
        self.mode == "native" && self.device.wired
    }
}

fn decide(config: &config::Kernel, devices: &[Seen<'_>]) -> (Means, Practice) {
    let mut remarks = Vec::new();
    let tagged: Vec<_> = devices.iter().filter(|seen| !seen.device.untagged.is_empty()).collect();
    let answers = match config.answers {
        Answers::Auto => tagged.is_empty(),
        Answers::On => true,
        Answers::Off => false,
    };
    let would_send = config.refusal != Refusal::Drop || config.syn_cookies.is_some();
    for Seen { name, device, .. } in tagged.iter().filter(|_| would_send && config.answers != Answers::Off) {
        let vlans = device.untagged.join(", ");
        remarks.push(if answers {
            format!("{name} takes off the VLAN tags of {vlans}: clients there get no alert and no SYN cookie, because kernel.answers is \"on\"")
        } else {
            format!("{name} takes off the VLAN tags of {vlans}: the program sends nothing, so hellos are refused by \"drop\" and no SYN cookies are sent (kernel.answers)")
        });
    }
    if answers && would_send {
        for Seen { name, mode, device, .. } in devices {
            if device.veth {
                remarks.push(format!("{name} is a veth: what the program sends is lost unless the other end has an XDP program too"));
            } else if *mode == "generic" {
                remarks.push(format!("{name} is attached in generic mode: what the program sends may be lost when the device is busy"));
            }
        }
    }
    let attached = devices.iter().filter(|seen| !seen.mode.is_empty());
    let (with, without): (Vec<_>, Vec<_>) = attached.partition(|seen| seen.brings_checksums());
    let verified = match config.verify_checksums {
        VerifyChecksums::On => Verified::Everywhere,
        VerifyChecksums::Off => Verified::On(Vec::new()),
        VerifyChecksums::Auto => Verified::On(with.iter().map(|seen| seen.index).collect()),
    };
    let checksums = verified != Verified::On(Vec::new());
    let unverified = match &verified {
        Verified::On(indices) if !indices.is_empty() => {
            without.iter().map(|seen| seen.name.to_owned()).collect()
        }
        Verified::On(_) | Verified::Everywhere => Vec::new(),
    };
    let refusal = match config.refusal {
        Refusal::Alert if answers => "alert",
        Refusal::Reset if answers => "reset",
        Refusal::Poison if answers => "poison",
        Refusal::Alert | Refusal::Reset | Refusal::Poison | Refusal::Drop => "drop",
    };
    let practice = Practice {
        refusal: refusal.to_owned(),
        syn_cookies: answers && config.syn_cookies.is_some(),
        tcp_syncookies: String::new(),
        checksums,
        unverified,
        remarks,
        budgets: budgets(config),
        tiers: config.tiers.keys().cloned().collect(),
        groups: config.groups.keys().cloned().collect(),
    };
    (Means { answers, checksums: verified }, practice)
}

/// What is limited besides what every source is.
fn budgets(config: &config::Kernel) -> Vec<String> {
    let names = |names: Vec<&str>| names.join(", ");
    let mut budgets = Vec::new();
    if config.limits.bytes.is_some() {
        budgets.push("bytes of each source".to_owned());
    }
    for (length, factor) in [(56, config.limits.ipv6_56), (48, config.limits.ipv6_48)] {
        if factor > 0 {
            budgets.push(format!("each IPv6 /{length}: {factor} times a source"));
        }
    }
    if !config.tiers.is_empty() {
        budgets.push(format!("tiers: {}", names(config.tiers.keys().map(String::as_str).collect())));
    }
    if !config.groups.is_empty() {
        budgets
            .push(format!("groups of ports: {}", names(config.groups.keys().map(String::as_str).collect())));
    }
    let LimitSet { packets, connections, hellos, quic, bytes } = config.everybody.limits;
    let together = [
        ("packets", packets.is_some()),
        ("connections", connections.is_some()),
        ("hellos", hellos.is_some()),
        ("quic", quic.is_some()),
        ("bytes", bytes.is_some()),
    ];
    let together: Vec<&str> = together.into_iter().filter(|(_, some)| *some).map(|(name, _)| name).collect();
    if !together.is_empty() {
        budgets.push(format!("everybody together: {}", names(together)));
    }
    budgets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::settings::tests::config;

    fn wire() -> Device {
        Device { wired: true, ..Device::default() }
    }

    fn seen<'a>(name: &'a str, mode: &'a str, index: u32, device: Device) -> Seen<'a> {
        Seen { name, mode, index, device }
    }

    #[test]
    fn nothing_is_sent_where_tags_are_taken_off() {
        let mut config = config();
        config.answers = Answers::Auto;
        let tagged = Device { untagged: vec!["eth1.7".into()], ..wire() };
        let devices = [seen("eth0", "native", 2, wire()), seen("eth1", "native", 3, tagged)];
        let (means, practice) = decide(&config, &devices);
        assert!(!means.answers && !practice.syn_cookies);
        assert_eq!(practice.refusal, "drop");
        assert!(practice.remarks.len() == 1 && practice.remarks[0].contains("eth1.7"), "{practice:?}");
        // The operator insists, and is told what that means.
        config.answers = Answers::On;
        let (means, practice) = decide(&config, &devices);
        assert!(means.answers && practice.syn_cookies && practice.remarks[0].contains("\"on\""));
        assert_eq!(practice.refusal, "alert");
        config.answers = Answers::Off;
        let (means, practice) = decide(&config, &devices[..1]);
        assert!(!means.answers && practice.remarks.is_empty());
        config.answers = Answers::Auto;
        let (means, practice) = decide(&config, &devices[..1]);
        assert!(means.answers && practice.remarks.is_empty());
    }

    #[test]
    fn frames_that_may_be_lost_are_told_of() {
        let mut config = config();
        config.answers = Answers::Auto;
        let veth = Device { veth: true, ..Device::default() };
        let said = |config: &config::Kernel| {
            let devices = [seen("v0", "native", 2, veth.clone()), seen("eth0", "generic", 3, wire())];
            decide(config, &devices).1.remarks
        };
        let remarks = said(&config);
        assert!(remarks[0].contains("v0 is a veth") && remarks[1].contains("generic"), "{remarks:?}");
        (config.refusal, config.syn_cookies) = (Refusal::Drop, None);
        assert!(said(&config).is_empty());
    }

    /// By what was attached, not by what might have been.
    #[test]
    fn checksums_are_verified_in_the_driver_of_a_wire() {
        let mut config = config();
        config.verify_checksums = VerifyChecksums::Auto;
        config.mode = config::Mode::NativeOrGeneric;
        let verifies =
            |config: &_, mode, device| decide(config, &[seen("eth0", mode, 2, device)]).0.checksums;
        let (eth0, nowhere) = (Verified::On(vec![2]), Verified::On(vec![]));
        assert_eq!(verifies(&config, "native", wire()), eth0);
        assert_eq!(verifies(&config, "generic", wire()), nowhere);
        assert_eq!(verifies(&config, "native", Device::default()), nowhere);
        assert_eq!(verifies(&config, "", wire()), nowhere);
        config.verify_checksums = VerifyChecksums::On;
        assert_eq!(verifies(&config, "generic", Device::default()), Verified::Everywhere);
        config.verify_checksums = VerifyChecksums::Off;
        assert_eq!(verifies(&config, "native", wire()), nowhere);
    }

    #[test]
    fn an_interface_without_checksums_costs_the_others_nothing() {
        let mut config = config();
        config.verify_checksums = VerifyChecksums::Auto;
        let others = [seen("v0", "native", 3, Device::default()), seen("eth1", "generic", 4, wire())];
        let devices: Vec<_> = others.into_iter().chain([seen("eth0", "native", 2, wire())]).collect();
        let (means, practice) = decide(&config, &devices);
        assert_eq!(means.checksums, Verified::On(vec![2]));
        assert_eq!(practice.verification(), "verified, but not on v0, eth1");
        let (means, practice) = decide(&config, &devices[..2]);
        assert_eq!(
            (means.checksums, practice.verification()),
            (Verified::On(vec![]), "not verified".to_owned())
        );
        assert_eq!(decide(&config, &devices[2..]).1.verification(), "verified");
        config.verify_checksums = VerifyChecksums::On;
        assert_eq!(decide(&config, &devices).1.verification(), "verified");
    }
}
