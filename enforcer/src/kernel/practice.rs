//! What of the configuration can be done on the devices that there are: whether the program sends frames, and whether it verifies
//! checksums.
//!
//! Called by `plane` when the settings are written, and every second to see whether devices have changed. Decides; changes nothing.
//! In doubt frames are sent and checksums are left alone: both are how a kernel without this program behaves.

use super::{Attachment, settings::Means};
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
    /// Whether segments with a ClientHello need a right checksum.
    pub checksums: bool,
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
        (name.as_str(), attached.map_or("", |one| one.mode.as_str()), Device::look(name))
    });
    decide(config, &devices.collect::<Vec<_>>())
}

/// Interfaces, how the program is attached to them (empty: it is not), and what they are.
fn decide(config: &config::Kernel, devices: &[(&str, &str, Device)]) -> (Means, Practice) {
    let mut remarks = Vec::new();
    let tagged: Vec<_> = devices.iter().filter(|(_, _, device)| !device.untagged.is_empty()).collect();
    let answers = match config.answers {
        Answers::Auto => tagged.is_empty(),
        Answers::On => true,
        Answers::Off => false,
    };
    let would_send = config.refusal != Refusal::Drop || config.syn_cookies.is_some();
    for (name, _, device) in tagged.iter().filter(|_| would_send && config.answers != Answers::Off) {
        let vlans = device.untagged.join(", ");
        remarks.push(if answers {
            format!("{name} takes off the VLAN tags of {vlans}: clients there get no alert and no SYN cookie, because kernel.answers is \"on\"")
        } else {
            format!("{name} takes off the VLAN tags of {vlans}: the program sends nothing, so hellos are refused by \"drop\" and no SYN cookies are sent (kernel.answers)")
        });
    }
    if answers && would_send {
        for (name, mode, device) in devices {
            if device.veth {
                remarks.push(format!("{name} is a veth: what the program sends is lost unless the other end has an XDP program too"));
            } else if *mode == "generic" {
                remarks.push(format!("{name} is attached in generic mode: what the program sends may be lost when the device is busy"));
            }
        }
    }
    let mut attached = devices.iter().filter(|(_, mode, _)| !mode.is_empty()).peekable();
    let checksums = match config.verify_checksums {
        VerifyChecksums::On => true,
        VerifyChecksums::Off => false,
        VerifyChecksums::Auto => {
            attached.peek().is_some() && attached.all(|(_, mode, device)| *mode == "native" && device.wired)
        }
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
        remarks,
        budgets: budgets(config),
        tiers: config.tiers.keys().cloned().collect(),
        groups: config.groups.keys().cloned().collect(),
    };
    (Means { answers, checksums }, practice)
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

    #[test]
    fn nothing_is_sent_where_tags_are_taken_off() {
        let mut config = config();
        config.answers = Answers::Auto;
        let tagged = Device { untagged: vec!["eth1.7".into()], ..wire() };
        let devices = [("eth0", "native", wire()), ("eth1", "native", tagged)];
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
            decide(config, &[("v0", "native", veth.clone()), ("eth0", "generic", wire())]).1.remarks
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
        let verifies = |config: &_, mode, device| decide(config, &[("eth0", mode, device)]).0.checksums;
        assert!(verifies(&config, "native", wire()));
        assert!(!verifies(&config, "generic", wire()));
        assert!(!verifies(&config, "native", Device::default()));
        assert!(!verifies(&config, "", wire()));
        let one_of_two = [("eth0", "native", wire()), ("v0", "native", Device::default())];
        assert!(!decide(&config, &one_of_two).0.checksums);
        config.verify_checksums = VerifyChecksums::On;
        assert!(verifies(&config, "generic", Device::default()));
        config.verify_checksums = VerifyChecksums::Off;
        assert!(!verifies(&config, "native", wire()));
    }
}
