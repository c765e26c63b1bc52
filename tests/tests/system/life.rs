//! Enforcement outlives the daemon: killed, restarted and upgraded under traffic, nothing leaks and nobody loses.

use std::{fs, net::IpAddr, process::Command, thread, time::Duration};

use anyhow::{Context, Result, anyhow};
use enforcer_tests::{
    daemon::{self, Daemon},
    eventually,
    flood::{Flood, Segment, Sent},
    netns::Lab,
    process,
    scene::Scene,
    site::Plan,
    tap::Tap,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::attach::program;

/// The source that is banned in these tests: an address that no client has, so that what arrives from it is the flood's.
const BANNED: &str = "198.18.66.6";

fn plan(scene: &Scene) -> Plan {
    Plan { persist: true, ..scene.plan() }
}

/// The id of the link that is pinned for the wire.
fn link(scene: &Scene) -> Result<Value> {
    let pin = fs::read_dir(scene.site.pins())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("link-")))
        .context("no link is pinned")?;
    let mut command = Command::new("bpftool");
    command.args(["-j", "link", "show", "pinned"]).arg(pin);
    let said = process::run(&mut command, Duration::from_secs(10))?.success("bpftool link show")?;
    let link: Value = serde_json::from_str(&said)?;
    Ok(link.get(0).cloned().unwrap_or(link))
}

fn kill(mut daemon: Daemon<'_>) -> Result<()> {
    daemon.signal(Signal::SIGKILL)?;
    daemon.wait()?;
    Ok(())
}

fn flood(from: &str, count: u32, per_second: u32) -> Result<Flood> {
    let from: IpAddr = from.parse()?;
    Ok(Flood {
        segment: Segment::Syn,
        from,
        to: Lab::server_address(from),
        port: 443,
        count,
        per_second: Some(per_second),
    })
}

fn detach(scene: &Scene, more: &[&str]) -> Result<process::Finished> {
    let mut command = scene.lab.server.command(&daemon::binary()?.display().to_string());
    command.arg("detach").arg("--pin-directory").arg(scene.site.pins()).args(more);
    process::run(&mut command, Duration::from_secs(20))
}

#[test]
fn a_ban_and_a_limit_hold_while_the_daemon_is_dead() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = plan(&scene);
    plan.limits = "connections = { rate = \"1/h\", burst = 5 }\n".to_owned();
    let daemon = scene.daemon(&plan)?;
    daemon.say(&["ban", "add", BANNED, "--for", "1h", "--reason", "scraper"])?;
    let limited = flood("198.18.77.7", 3, 1_000)?;
    limited.send(&scene.lab.client)?;
    kill(daemon)?;
    assert!(program(&scene.lab)?.contains("prog/xdp "), "the program went with the daemon");

    let tap = Tap::open(&scene.lab.server)?;
    let banned = flood(BANNED, 500, 5_000)?.send(&scene.lab.client)?;
    Flood { count: 50, ..limited }.send(&scene.lab.client)?;
    let clean = flood("198.18.88.8", 5, 1_000)?.send(&scene.lab.client)?;
    eventually!(
        10,
        "the clean source's packets",
        tap.seen("198.18.88.8".parse()?)? == u64::from(clean.packets)
    )?;
    assert_eq!(tap.seen(BANNED.parse()?)?, 0, "of {} banned packets", banned.packets);
    assert_eq!(tap.seen("198.18.77.7".parse()?)?, 2, "three of five connections were made before");

    let daemon = scene.daemon(&plan)?;
    assert!(daemon.scrape()?.packets("banned") >= u64::from(banned.packets), "counted without the daemon");
    let bans = daemon.ask(&["ban", "list"])?;
    assert_eq!((&bans[0]["prefix"], &bans[0]["cause"]), (&BANNED.into(), &"scraper".into()), "{bans}");
    let status = daemon.ask(&["status"])?;
    assert_eq!(status["persistence"]["beginning"], "taken_over", "{status}");
    let why = daemon.ask(&["why", "198.18.77.7"])?;
    assert_eq!(why["explanation"]["reason"], "connection_limit", "{why}");
    daemon.say(&["ban", "del", BANNED])?;
    assert_eq!(daemon.ask(&["why", BANNED])?["explanation"]["verdict"], "pass");
    Ok(())
}

/// Runs `change` while a banned source floods and a good one asks for pages; what came of both.
fn under_traffic(scene: &Scene, change: impl FnOnce() -> Result<()>) -> Result<(u64, Sent)> {
    let tap = Tap::open(&scene.lab.server)?;
    let flood = flood(BANNED, 40_000, 8_000)?;
    let sent = thread::scope(|scope| {
        let flood = scope.spawn(|| flood.send(&scene.lab.client));
        change()?;
        flood.join().map_err(|_| anyhow!("the flood panicked"))?
    })?;
    Ok((tap.seen(BANNED.parse()?)?, sent))
}

/// Daemon after daemon, each killed, with `plans` in turn.
fn replaced_under_traffic(plans: impl Fn(&Scene, usize) -> Plan, beginning: &str) -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&plans(&scene, 0))?;
    daemon.say(&["ban", "add", BANNED, "--forever"])?;
    let before = link(&scene)?;
    let mut ends = vec![daemon];
    let (leaked, sent) = under_traffic(&scene, || {
        for round in 1..=3 {
            for daemon in ends.drain(..) {
                kill(daemon)?;
            }
            let daemon = scene.daemon(&plans(&scene, round))?;
            assert_eq!(daemon.ask(&["status"])?["persistence"]["beginning"], beginning, "{}", daemon.log());
            ends.push(daemon);
        }
        Ok(())
    })?;
    assert_eq!(leaked, 0, "of {} banned packets", sent.packets);
    let after = link(&scene)?;
    assert_eq!(before["id"], after["id"], "the link was made anew");
    assert_ne!(before["prog_id"], after["prog_id"], "the program was not replaced");
    Ok(())
}

#[test]
fn a_restart_replaces_the_program_and_leaks_nothing() -> Result<()> {
    replaced_under_traffic(|scene, _| plan(scene), "taken_over")
}

#[test]
fn an_upgrade_to_another_layout_leaks_nothing_and_forgets_nothing() -> Result<()> {
    let sized = |scene: &Scene, round: usize| {
        let mut plan = plan(scene);
        plan.limits = format!("max_sources = {}\n", 2_048 << (round % 2));
        plan
    };
    replaced_under_traffic(sized, "migrated")?;

    let scene = Scene::new()?;
    let limits = |slots: u32| {
        let mut plan = plan(&scene);
        plan.limits = format!("connections = {{ rate = \"1/h\", burst = 5 }}\nmax_sources = {slots}\n");
        plan
    };
    let daemon = scene.daemon(&limits(2_048))?;
    daemon.say(&["ban", "add", BANNED, "--forever", "--reason", "scraper"])?;
    daemon.say(&["ban", "add", "2001:db8:66::/48", "--for", "1h"])?;
    daemon.say(&["allow", "add", "198.18.55.0/24", "--reason", "us"])?;
    let limited = flood("198.18.77.7", 3, 1_000)?;
    limited.send(&scene.lab.client)?;
    eventually!(5, "the limit to be charged", {
        let why = daemon.ask(&["why", "198.18.77.7"])?;
        connections(&why)["remaining"] == 2
    })?;
    // Without the store only the kernel knows, and nobody knows why.
    kill(daemon)?;
    fs::remove_file(scene.site.store())?;
    let daemon = scene.daemon(&limits(8_192))?;
    let bans = daemon.ask(&["ban", "list"])?;
    let kept: Vec<_> =
        bans.as_array().into_iter().flatten().map(|row| (&row["prefix"], &row["cause"])).collect();
    let cause = Value::from("kept from the kernel's tables");
    assert_eq!(kept, [(&BANNED.into(), &cause), (&"2001:db8:66::/48".into(), &cause)], "{bans}");
    assert_eq!(connections(&daemon.ask(&["why", "198.18.77.7"])?)["remaining"], 2, "{}", daemon.log());
    assert_eq!(daemon.ask(&["allow", "list"])?, Value::Array(Vec::new()), "an allowance nobody knows of");
    Ok(())
}

fn connections(why: &Value) -> Value {
    let limits = why["explanation"]["limits"].as_array().cloned().unwrap_or_default();
    limits.into_iter().find(|limit| limit["limit"] == "connections").unwrap_or_default()
}
