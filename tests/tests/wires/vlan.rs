//! VLAN tags, 802.1Q and 802.1ad: what is judged without a tag is judged with one, or two, too.

use anyhow::{Result, bail, ensure};
use enforcer_tests::{
    clients::{self, Handshake},
    netns::{Lab, Netns, SERVER_V4, SERVER_V6, WIRE, source_v4, source_v6},
    process,
    scene::Scene,
};

use std::{net::IpAddr, time::Duration};

use crate::Ran;

const PATIENCE: Duration = Duration::from_secs(60);

/// A tagged device and the protocol of its tag.
struct Tag {
    name: &'static str,
    below: &'static str,
    protocol: &'static str,
}

const CUSTOMER: Tag = Tag { name: "customer", below: WIRE, protocol: "802.1Q" };
const SERVICE: Tag = Tag { name: "service", below: WIRE, protocol: "802.1ad" };
const INNER: Tag = Tag { name: "customer", below: "service", protocol: "802.1Q" };

/// Who puts the tag into the frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The sender: the program sees it.
    Frame,
    /// The device, beside the frame: the program does not see it.
    Aside,
}

pub(crate) fn customer_tags_in_the_frame() -> Result<Ran> {
    judged_behind(&[CUSTOMER], Place::Frame)
}

pub(crate) fn customer_tags_that_the_device_takes_off() -> Result<Ran> {
    judged_behind(&[CUSTOMER], Place::Aside)
}

pub(crate) fn service_and_customer_tags_in_the_frame() -> Result<Ran> {
    judged_behind(&[SERVICE, INNER], Place::Frame)
}

/// Moves both ends of the lab behind these tags.
fn tag(lab: &Lab, tags: &[Tag], place: Place) -> Result<Option<String>> {
    for netns in [&lab.client, &lab.server] {
        if place == Place::Frame
            && let Some(reason) = insert_in_frame(netns)?
        {
            return Ok(Some(reason));
        }
        for Tag { name, below, protocol } in tags {
            let add = format!("link add link {below} name {name} type vlan id 7 protocol {protocol}");
            if let Err(error) = netns.ip(&add) {
                let error = format!("{error:#}");
                if error.contains("Unknown device type") || error.contains("not supported") {
                    return Ok(Some("this kernel has no VLAN devices".to_owned()));
                }
                bail!("{error}");
            }
        }
        netns.ip(&format!("addr flush dev {WIRE}"))?;
        let top = tags.last().map_or(WIRE, |tag| tag.name);
        let addresses: Vec<IpAddr> = if std::ptr::eq(netns, &lab.server) {
            vec![SERVER_V4.into(), SERVER_V6.into()]
        } else {
            vec![source_v4(1).into(), source_v6(1).into(), source_v4(2).into()]
        };
        for address in addresses {
            let length = if address.is_ipv4() { "/15" } else { "/32 nodad" };
            let (length, nodad) = length.split_once(' ').unwrap_or((length, ""));
            netns.ip(&format!("addr add {address}{length} dev {top} {nodad}"))?;
        }
        for Tag { name, .. } in tags {
            netns.ip(&format!("link set {name} up"))?;
        }
    }
    Ok(None)
}

/// Has the kernel write tags into frames, instead of beside them for the device to insert.
fn insert_in_frame(netns: &Netns) -> Result<Option<String>> {
    let mut ethtool = netns.command("ethtool");
    ethtool.args(["-K", WIRE, "txvlan", "off", "tx-vlan-stag-hw-insert", "off"]);
    let done = process::run(&mut ethtool, Duration::from_secs(20))?;
    if done.stderr.contains("No such file") {
        return Ok(Some("there is no ethtool here".to_owned()));
    }
    done.success("ethtool").map(|_| None)
}

fn judged_behind(tags: &[Tag], place: Place) -> Result<Ran> {
    let scene = Scene::new()?;
    if let Some(reason) = tag(&scene.lab, tags, place)? {
        return Ok(Ran::NotHere(reason));
    }
    let daemon = scene.daemon(&scene.plan())?;
    let token = scene.site.token("read")?;
    for source in [IpAddr::from(source_v4(1)), source_v6(1).into()] {
        let answer = scene.get(source, "/api/v1/x").token(&token).within(PATIENCE).send()?;
        ensure!(answer.status == 200, "{source}: {answer:?}");
        let before = daemon.scrape()?.packets("tls_version");
        let old = clients::openssl_start(&scene.lab.client, source, "-tls1_1")?;
        let judged = enforcer_tests::poll::until("a refused hello of TLS 1.1", PATIENCE, || {
            Ok((daemon.scrape()?.packets("tls_version") > before).then_some(()))
        });
        let ended = clients::read_handshake(&old.finish(Duration::from_millis(500))?);
        judged?;
        ensure!(!matches!(ended, Handshake::Done(_)), "{source}: TLS 1.1 was served: {ended:?}");
    }
    let banned = source_v4(2);
    daemon.say(&["ban", "add", &banned.to_string()])?;
    let before = daemon.scrape()?.packets("banned");
    let answer = scene.get(banned, "/api/v1/x").token(&token).within(Duration::from_secs(2)).send()?;
    ensure!(answer.status == 0, "a banned source was answered: {answer:?}");
    ensure!(daemon.scrape()?.packets("banned") > before, "no packet of {banned} was counted as banned");
    Ok(Ran::Passed)
}
