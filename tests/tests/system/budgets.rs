//! Tiers, groups of ports, and ports that are open to some: from the configuration and the command line to the packet.

use std::net::IpAddr;

use anyhow::Result;
use enforcer_tests::{
    daemon::Daemon,
    eventually,
    flood::{Flood, Segment},
    netns::Lab,
    scene::Scene,
};

/// Sends SYNs to the listener, and waits until all are counted: so many of them for `reason`.
fn syns(scene: &Scene, daemon: &Daemon, from: &str, count: u32, reason: &str, expected: u64) -> Result<()> {
    let from: IpAddr = from.parse()?;
    let before = daemon.scrape()?.packets(reason);
    let to = Lab::server_address(from);
    let syn = Segment::Syn;
    Flood { segment: syn, from, sources: 1, to, port: 443, count, per_second: None }
        .send(&scene.lab.client)?;
    eventually!(5, format!("{expected} of {count} SYNs from {from} are counted as {reason}"), {
        let counted = daemon.scrape()?.packets(reason) - before;
        assert!(counted <= expected, "{counted} of {count} SYNs from {from} are counted as {reason}");
        counted == expected
    })
}

#[test]
fn tiers_groups_and_open_ports_decide_about_packets() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.kernel += "allow = [{ source = \"198.18.78.0/24\", port = 443 }]\n";
    plan.limits = "connections = { rate = \"1/h\", burst = 10 }\n".to_owned();
    plan.more += "[kernel.tier.small]\nconnections = { rate = \"1/h\", burst = 2 }\n\
         [kernel.group.web]\nports = [443]\nconnections = { rate = \"1/h\", burst = 5 }\n";
    let daemon = scene.daemon(&plan)?;
    syns(&scene, &daemon, "198.18.77.1", 8, "group_limit", 3)?;
    let why = daemon.ask(&["why", "198.18.77.1"])?;
    assert_eq!(why["explanation"]["rule"], "kernel.group.web.ports has 443", "{why}");

    daemon.ask(&["tier", "set", "198.18.77.2", "small", "--reason", "a test"])?;
    syns(&scene, &daemon, "198.18.77.2", 8, "connection_limit", 6)?;
    let why = daemon.ask(&["why", "198.18.77.2"])?;
    assert_eq!(why["explanation"]["tier"], "small", "{why}");
    assert_eq!(why["explanation"]["rule"], "kernel.tier.small.connections is 1/h, burst 2", "{why}");
    let rows = daemon.ask(&["tier", "list"])?;
    assert_eq!((&rows[0]["prefix"], &rows[0]["holds"]), (&"198.18.77.2".into(), &true.into()), "{rows}");
    daemon.ask(&["tier", "del", "198.18.77.2"])?;
    let why = daemon.ask(&["why", "198.18.77.2"])?;
    assert_eq!(why["explanation"]["tier"], "default", "{why}");

    // Neither a limit nor a ban stops whom the port is open to.
    daemon.ask(&["ban", "add", "198.18.78.0/24"])?;
    syns(&scene, &daemon, "198.18.78.1", 30, "allowed", 30)?;
    let why = daemon.ask(&["why", "198.18.78.1", "--port", "444"])?;
    assert_eq!(why["explanation"]["reason"], "banned_prefix", "{why}");
    Ok(())
}
