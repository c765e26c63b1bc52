//! What a network device does to frames before a program on it sees them, and to those that the program sends.
//!
//! Called by `kernel` after attaching and by `enforcer check`. Reads sysfs and asks ethtool; changes nothing. What cannot be found
//! out counts as absent.
#![allow(unsafe_code, reason = "libc has no safe call for the ioctl of ethtool")]

use std::{
    fs,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Where the kernel shows the interfaces of this network namespace.
const SYSFS: &str = "/sys/class/net";
/// How many devices may lie above each other: a VLAN on a bridge on a bond has three (`MAX_NEST_DEV` of linux/netdevice.h is 8).
const NESTING: usize = 8;
/// `SIOCETHTOOL` (linux/sockios.h).
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// `ETHTOOL_GDRVINFO` and `ETHTOOL_GFLAGS` (linux/ethtool.h); neither needs a privilege.
const GET_DRIVER: u32 = 0x03;
const GET_FLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN` (linux/ethtool.h): the tag is taken out of a received frame and kept beside it.
const TAKES_TAGS_OFF: u32 = 1 << 8;
/// Bytes of `struct ethtool_drvinfo`, the longest answer asked for, in words.
const ANSWER_WORDS: usize = 196 / 4;

/// What is known of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The VLAN interfaces whose tags are taken off before the program sees a frame: one that it sends leaves without.
    pub untagged: Vec<String>,
    /// Whether every received frame came over a wire, so that its checksums are complete.
    pub wired: bool,
    /// Whether it is one end of a veth pair.
    pub veth: bool,
}

impl Device {
    /// Looks at an interface of this network namespace.
    pub fn look(interface: &str) -> Self {
        look(Path::new(SYSFS), interface, &Ethtool)
    }
}

/// What a driver says of itself.
trait Driver {
    fn takes_tags_off(&self, interface: &str) -> bool;
    fn name(&self, interface: &str) -> String;
}

fn look(sysfs: &Path, interface: &str, driver: &dyn Driver) -> Device {
    let mut lowest = Vec::new();
    leaves(sysfs, interface, NESTING, &mut lowest);
    // A device above may take off what those below leave in.
    let takes = lowest.iter().chain([&interface.to_owned()]).any(|name| driver.takes_tags_off(name));
    let mut untagged = Vec::new();
    if takes {
        vlans(sysfs, interface, NESTING, &mut untagged);
        untagged.sort();
        untagged.dedup();
    }
    // A host hands frames of its other guests to virtio_net with checksums that nobody has computed
    // (VIRTIO_NET_F_GUEST_CSUM, virtio 1.2 section 5.1.3).
    let wired = |name: &String| sysfs.join(name).join("device").exists() && driver.name(name) != "virtio_net";
    Device { untagged, wired: lowest.iter().all(wired), veth: driver.name(interface) == "veth" }
}

/// The interfaces that `side` of this one names: `upper` or `lower`.
fn beside(sysfs: &Path, interface: &str, side: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(sysfs.join(interface)) else { return Vec::new() };
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_prefix(side)?.strip_prefix('_').map(str::to_owned)
    };
    entries.filter_map(|entry| entry.ok().and_then(name)).collect()
}

/// The devices that an interface is made of: itself, or a bond's.
fn leaves(sysfs: &Path, interface: &str, depth: usize, found: &mut Vec<String>) {
    let lower = beside(sysfs, interface, "lower");
    if lower.is_empty() || depth == 0 {
        found.push(interface.to_owned());
        return;
    }
    for name in lower {
        leaves(sysfs, &name, depth - 1, found);
    }
}

/// The VLAN interfaces above an interface, and above those.
fn vlans(sysfs: &Path, interface: &str, depth: usize, found: &mut Vec<String>) {
    if depth == 0 {
        return;
    }
    for name in beside(sysfs, interface, "upper") {
        let about: PathBuf = sysfs.join(&name).join("uevent");
        if fs::read_to_string(about).is_ok_and(|text| text.lines().any(|line| line == "DEVTYPE=vlan")) {
            found.push(name.clone());
        }
        vlans(sysfs, &name, depth - 1, found);
    }
}

/// The drivers of this machine.
struct Ethtool;

impl Driver for Ethtool {
    fn takes_tags_off(&self, interface: &str) -> bool {
        ask(interface, GET_FLAGS).is_some_and(|answer| answer[1] & TAKES_TAGS_OFF != 0)
    }

    fn name(&self, interface: &str) -> String {
        let Some(answer) = ask(interface, GET_DRIVER) else { return String::new() };
        // Behind the command: the driver's name, with zeros to 32 bytes.
        let bytes = answer[1..9].iter().flat_map(|word| word.to_ne_bytes());
        bytes.take_while(|byte| *byte != 0).map(char::from).collect()
    }
}

/// Asks the driver, if there is one that knows the question.
fn ask(interface: &str, command: u32) -> Option<[u32; ANSWER_WORDS]> {
    /// `struct ifreq` (linux/if.h): a name of `IFNAMSIZ` bytes and a union of 24.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        data: *mut u32,
        rest: [u64; 2],
    }
    let mut name = [0; libc::IFNAMSIZ];
    name.get_mut(..interface.len())
        .filter(|_| interface.len() < libc::IFNAMSIZ)?
        .copy_from_slice(interface.as_bytes());
    let asking = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).ok()?;
    let mut answer = [0; ANSWER_WORDS];
    answer[0] = command;
    let mut request = Request { name, data: answer.as_mut_ptr(), rest: [0; 2] };
    // SAFETY: the kernel reads a `struct ifreq` and writes at most `struct ethtool_drvinfo` to `data`, which is that long; both
    // live until the call returns.
    let result = unsafe { libc::ioctl(asking.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    (result == 0).then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which devices take tags off, and the driver of each.
    struct Told(&'static [&'static str], &'static [(&'static str, &'static str)]);

    impl Driver for Told {
        fn takes_tags_off(&self, interface: &str) -> bool {
            self.0.contains(&interface)
        }

        fn name(&self, interface: &str) -> String {
            let found = self.1.iter().find(|(name, _)| *name == interface);
            found.map_or_else(String::new, |(_, driver)| (*driver).to_owned())
        }
    }

    /// A bond of two devices with a bridge on it, and a VLAN on that; a device of a guest; a veth.
    fn sysfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| fs::create_dir_all(root.path().join(path)).unwrap();
        for path in [
            "eth0/device",
            "eth0/upper_bond0",
            "eth1/device",
            "eth1/upper_bond0",
            "bond0/lower_eth0",
            "bond0/lower_eth1",
            "bond0/upper_br0",
            "br0/lower_bond0",
            "br0/upper_br0.7",
            "br0.7/lower_br0",
            "guest0/device",
            "veth0",
        ] {
            make(path);
        }
        fs::write(root.path().join("br0.7/uevent"), "DEVTYPE=vlan\nINTERFACE=br0.7\n").unwrap();
        fs::write(root.path().join("br0/uevent"), "DEVTYPE=bridge\n").unwrap();
        root
    }

    #[test]
    fn vlans_are_found_where_a_device_takes_tags_off() {
        let root = sysfs();
        let untagged = |name, takes| look(root.path(), name, &Told(takes, &[])).untagged;
        assert_eq!(untagged("eth0", &["eth0"]), ["br0.7"]);
        assert_eq!(untagged("bond0", &["eth1"]), ["br0.7"]);
        assert_eq!(untagged("bond0", &["bond0"]), ["br0.7"]);
        assert!(untagged("eth0", &[]).is_empty());
        assert!(untagged("guest0", &["guest0"]).is_empty());
    }

    #[test]
    fn checksums_are_complete_behind_wires_alone() {
        let root = sysfs();
        let told = Told(&[], &[("guest0", "virtio_net"), ("veth0", "veth"), ("eth0", "igb")]);
        let wired = |name| look(root.path(), name, &told).wired;
        assert!(wired("eth0") && wired("bond0") && wired("br0.7"));
        assert!(!wired("guest0") && !wired("veth0") && !wired("none"));
        assert!(look(root.path(), "veth0", &told).veth && !look(root.path(), "eth0", &told).veth);
    }

    #[test]
    fn what_is_not_there_is_no_error() {
        assert_eq!(Device::look("no-such-interface-anywhere"), Device::default());
        assert!(!Device::look("lo").wired);
    }
}
