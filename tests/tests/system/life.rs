//! Enforcement outlives the daemon: killed, restarted and upgraded under traffic, nothing leaks and nobody loses.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use enforcer::clock;
use enforcer_tests::{
    bpffs, cleanup, clients,
    daemon::{self, Daemon},
    eventually,
    flood::{Flood, Segment},
    netns::{Lab, WIRE, source_v4},
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
/// One that is not, and no client's either.
const GOOD: &str = "198.18.88.8";

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
        sources: 1,
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
    eventually!(10, "the ban to be written down", daemon.scrape()?.sum("enforcer_store_pending", &[]) == 0)?;
    kill(daemon)?;
    assert!(program(&scene.lab)?.contains("prog/xdp "), "the program went with the daemon");

    let tap = Tap::open(&scene.lab.server)?;
    let banned = flood(BANNED, 500, 5_000)?.send(&scene.lab.client)?;
    Flood { count: 50, ..limited }.send(&scene.lab.client)?;
    let clean = flood(GOOD, 5, 1_000)?.send(&scene.lab.client)?;
    eventually!(10, "the clean source's packets", tap.seen(GOOD.parse()?)? == u64::from(clean.packets))?;
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

/// What became of a source's packets.
#[derive(Debug)]
struct Traffic {
    sent: u64,
    arrived: u64,
}

/// Runs `change` while a banned source and a good one send; what became of either.
fn under_traffic(scene: &Scene, change: impl FnOnce() -> Result<()>) -> Result<[Traffic; 2]> {
    let tap = Tap::open(&scene.lab.server)?;
    let banned = flood(BANNED, 40_000, 5_000)?;
    let good = Flood { segment: Segment::Ack, count: 16_000, per_second: Some(2_000), ..flood(GOOD, 1, 1)? };
    let client = &scene.lab.client;
    let sent = thread::scope(|scope| {
        let floods = [&banned, &good].map(|flood| scope.spawn(|| flood.send(client)));
        change()?;
        let sent = floods.map(|flood| flood.join().map_err(|_| anyhow!("a flood panicked")));
        anyhow::Ok(sent)
    })?;
    let [banned, good] = sent;
    let [banned, good] = [u64::from(banned??.packets), u64::from(good??.packets)];
    // Both come by one wire, so that the banned ones have been judged when the last good one is there.
    let arrived = |text: &str| anyhow::Ok(tap.seen(text.parse()?)?);
    let _ = eventually!(5, "the last packet", arrived(GOOD)? == good);
    Ok([Traffic { sent: banned, arrived: arrived(BANNED)? }, Traffic { sent: good, arrived: arrived(GOOD)? }])
}

/// Daemon after daemon, each killed, with `plans` in turn.
fn replaced_under_traffic(plans: impl Fn(&Scene, usize) -> Plan, beginning: &str) -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&plans(&scene, 0))?;
    daemon.say(&["ban", "add", BANNED, "--forever"])?;
    let before = link(&scene)?;
    let mut ends = vec![daemon];
    let [banned, good] = under_traffic(&scene, || {
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
    assert_eq!(banned.arrived, 0, "leaked: {banned:?}");
    // `sent` already leaves out what the wire itself had no room for; that is counted a little later than it happens.
    assert_eq!(good.arrived, good.sent, "lost: {good:?}");
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

#[test]
fn detach_takes_everything_away_and_not_from_under_a_daemon() -> Result<()> {
    let scene = Scene::new()?;
    let mut daemon = scene.daemon(&plan(&scene))?;
    let refused = detach(&scene, &[])?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("is running") && refused.stderr.contains("--force"), "{refused:?}");
    assert!(daemon.stop()?.success());
    assert!(daemon.log().contains("stay in force without the daemon"), "{}", daemon.log());
    assert!(program(&scene.lab)?.contains("prog/xdp "), "SIGTERM keeps the program");

    // As the package does it: the configuration knows the directory.
    let mut command = scene.lab.server.command(&daemon::binary()?.display().to_string());
    command.arg("detach").arg("--config").arg(scene.site.config());
    let done = process::run(&mut command, Duration::from_secs(20))?;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("detached from 1 interface"), "{done:?}");
    assert_eq!(program(&scene.lab)?, "");
    let place = scene.site.pins();
    assert_eq!(bpffs::names(place.parent().context("a parent")?)?, Vec::<String>::new());
    let again = detach(&scene, &["--json"])?;
    let told: Value = serde_json::from_str(&again.stdout)?;
    assert_eq!((again.code, &told["interfaces"]), (Some(0), &0.into()), "{again:?}");

    let daemon = scene.daemon(&plan(&scene))?;
    assert_eq!(daemon.ask(&["status"])?["persistence"]["beginning"], "fresh");
    assert_eq!(detach(&scene, &["--force"])?.code, Some(0));
    eventually!(10, "the loss to show", daemon.metrics_get("/readyz")?.0 == 503)?;
    let (_, told) = daemon.metrics_get("/readyz")?;
    assert!(told.contains("detached by an operator"), "{told}");
    assert_eq!(daemon.ask(&["status"])?["interfaces"][0]["mode"], "detached by an operator");
    assert_eq!(program(&scene.lab)?, "");
    assert!(!daemon.log().contains("cannot attach again"), "{}", daemon.log());
    Ok(())
}

#[test]
fn bans_and_allowances_survive_the_kernel_s_tables() -> Result<()> {
    let scene = Scene::new()?;
    let mut daemon = scene.daemon(&scene.plan())?;
    daemon.say(&["ban", "add", BANNED, "--for", "1h", "--reason", "scraper"])?;
    daemon.say(&["ban", "add", "198.18.67.0/24", "--forever"])?;
    daemon.say(&["ban", "add", "198.18.68.8", "--for", "1h"])?;
    daemon.say(&["ban", "del", "198.18.68.8"])?;
    daemon.say(&["allow", "add", "198.18.55.0/24", "--reason", "us"])?;
    for _ in 0..4 {
        scene.get(source_v4(3), "/api/v1/x").token(&scene.site.forged_token()?).send()?;
    }
    eventually!(5, "a ban by offences", daemon.ask(&["ban", "list"])?.as_array().map(Vec::len) == Some(3))?;
    eventually!(5, "everything to be written", daemon.scrape()?.sum("enforcer_store_pending", &[]) == 0)?;
    let (bans, allowed) = (daemon.ask(&["ban", "list"])?, daemon.ask(&["allow", "list"])?);
    assert!(daemon.stop()?.success());
    assert_eq!(program(&scene.lab)?, "", "persist = false");

    let daemon = scene.daemon(&scene.plan())?;
    let again = daemon.ask(&["ban", "list"])?;
    let told = |rows: &Value| {
        let row =
            |row: &Value| format!("{} {} {} {}", row["prefix"], row["origin"], row["cause"], row["offences"]);
        rows.as_array().into_iter().flatten().map(row).collect::<Vec<_>>()
    };
    assert_eq!(told(&again), told(&bans));
    let remaining = again.as_array().into_iter().flatten().find(|row| row["prefix"] == BANNED);
    let remaining = remaining.and_then(|row| row["remaining_seconds"].as_u64());
    assert!(remaining.is_some_and(|seconds| (3_400..=3_600).contains(&seconds)), "{again}");
    assert_eq!(told(&daemon.ask(&["allow", "list"])?), told(&allowed));
    for banned in [BANNED, "198.18.67.7", &source_v4(3).to_string()] {
        assert_eq!(daemon.ask(&["why", banned])?["explanation"]["verdict"], "drop", "{banned}");
    }
    let score = &daemon.ask(&["why", &source_v4(3).to_string()])?["score"];
    assert_eq!(score["bans"], 1, "the next ban lasts twice as long: {score}");
    Ok(())
}

#[test]
fn a_store_that_is_broken_is_set_aside_and_the_kernel_s_bans_are_kept() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&plan(&scene))?;
    daemon.say(&["ban", "add", BANNED, "--for", "1h"])?;
    kill(daemon)?;
    fs::write(scene.site.store(), "this is no store".repeat(4_096))?;
    let daemon = scene.daemon(&plan(&scene))?;
    assert!(daemon.log().contains("it was set aside"), "{}", daemon.log());
    let aside = fs::read_dir(&scene.site.dir)?.flatten().map(|entry| entry.file_name());
    assert_eq!(aside.filter(|name| name.to_string_lossy().contains("bans.redb.broken-")).count(), 1);
    assert_eq!(daemon.ask(&["ban", "list"])?[0]["prefix"], BANNED);
    assert_eq!(daemon.ask(&["why", BANNED])?["explanation"]["reason"], "banned");
    Ok(())
}

/// The daemon comes to nothing after it has seen what is pinned; nobody may notice.
#[test]
fn a_restart_that_fails_leaves_everything_as_it_was() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&plan(&scene))?;
    daemon.say(&["ban", "add", BANNED, "--forever"])?;
    kill(daemon)?;
    let place = cleanup::bpffs(&scene.site.dir);
    let (pins, before) = (bpffs::names(&place)?, link(&scene)?);
    let mut plan = plan(&scene);
    plan.kernel = format!("interfaces = [\"{WIRE}\", \"lo\"]\nminimum_tls = \"1.3\"\n");
    for slots in [262_144, 2_048] {
        plan.limits = format!("max_sources = {slots}\n");
        scene.site.write(&plan)?;
        let mut failed = Daemon::launch(&scene.lab.server, &scene.site)?;
        assert_eq!(failed.wait()?.code(), Some(1), "{}", failed.log());
        assert!(failed.log().contains("lo cannot run XDP in its driver"), "{}", failed.log());
        assert_eq!(bpffs::names(&place)?, pins, "{slots}");
        assert_eq!(link(&scene)?, before, "{slots}");
    }
    let tap = Tap::open(&scene.lab.server)?;
    flood(BANNED, 100, 5_000)?.send(&scene.lab.client)?;
    let good = flood(GOOD, 5, 1_000)?.send(&scene.lab.client)?;
    eventually!(10, "the good source's packets", tap.seen(GOOD.parse()?)? == u64::from(good.packets))?;
    assert_eq!(tap.seen(BANNED.parse()?)?, 0);
    let client = clients::openssl_start(&scene.lab.client, source_v4(1).into(), "-tls1_2")?;
    drop(client);
    let daemon = scene.daemon(&self::plan(&scene))?;
    assert_eq!(daemon.scrape()?.packets("tls_version"), 0, "the settings of the failed start were written");
    Ok(())
}

#[test]
fn a_lease_that_nobody_renews_ends_the_enforcement() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = plan(&scene);
    plan.kernel += "lease = \"5s\"\n";
    let daemon = scene.daemon(&plan)?;
    assert_eq!(daemon.ask(&["status"])?["persistence"]["lease_seconds"], 5);
    daemon.say(&["ban", "add", BANNED, "--forever"])?;
    let tap = Tap::open(&scene.lab.server)?;
    let ask = || flood(BANNED, 3, 1_000)?.send(&scene.lab.client);
    let begun = clock::instant_now();
    while begun.elapsed() < Duration::from_secs(7) {
        // Longer than the lease: a healthy daemon renews it.
        ask()?;
    }
    assert_eq!(tap.seen(BANNED.parse()?)?, 0);
    kill(daemon)?;
    ask()?;
    assert_eq!(tap.seen(BANNED.parse()?)?, 0, "the lease holds a while");
    eventually!(10, "the lease to end", {
        ask()?;
        tap.seen(BANNED.parse()?)? > 0
    })?;
    let daemon = scene.daemon(&plan)?;
    assert!(daemon.scrape()?.packets("lease_expired") > 0, "counted");
    let before = tap.seen(BANNED.parse()?)?;
    ask()?;
    assert_eq!(tap.seen(BANNED.parse()?)?, before, "enforced again");
    Ok(())
}

#[test]
fn the_lease_holds_while_a_daemon_drains() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = plan(&scene);
    plan.kernel += "lease = \"5s\"\n";
    let mut daemon = scene.daemon(&plan)?;
    daemon.say(&["ban", "add", BANNED, "--forever"])?;
    let tap = Tap::open(&scene.lab.server)?;
    let token = scene.site.token("read")?;
    let answer = thread::scope(|scope| {
        // Longer than the lease.
        let request = scope.spawn(|| scene.get(source_v4(1), "/api/v1/slow/8000").token(&token).send());
        eventually!(10, "the request to reach the upstream", scene.upstream.requests() > 0)?;
        daemon.signal(Signal::SIGTERM)?;
        while !request.is_finished() {
            flood(BANNED, 3, 100)?.send(&scene.lab.client)?;
        }
        request.join().map_err(|_| anyhow!("panicked"))?
    })?;
    assert_eq!(answer.status, 200, "{answer:?}\n{}", daemon.log());
    assert_eq!(tap.seen(BANNED.parse()?)?, 0, "{}", daemon.log());
    assert!(daemon.wait()?.success(), "{}", daemon.log());
    Ok(())
}

/// As the packaged unit has it: a user of its own, four capabilities, and a folder of its own on a file system that is root's.
#[test]
fn a_user_with_the_unit_s_capabilities_takes_over_as_well() -> Result<()> {
    const USER: u32 = 65_534;
    const CAPABILITIES: &str = "+bpf,+perfmon,+net_admin,+net_bind_service";
    let scene = Scene::new()?;
    let site = &scene.site;
    let mut plan = plan(&scene);
    site.write(&plan)?;
    fs::create_dir(site.pins())?;
    // Where the tests were built may be closed to others.
    let binary = site.dir.join("enforcer");
    fs::copy(daemon::binary()?, &binary)?;
    let place = cleanup::bpffs(&site.dir);
    for path in fs::read_dir(&site.dir)?.map(|entry| entry.map(|entry| entry.path())) {
        let path = path?;
        if path != place {
            chown(&path, Some(USER), Some(USER))?;
        }
    }
    chown(&site.dir, Some(USER), Some(USER))?;
    chown(site.pins(), Some(USER), Some(USER))?;
    // systemd binds the folder into a directory that is open; here the way to it is opened instead.
    fs::set_permissions(&place, fs::Permissions::from_mode(0o711))?;
    let start = || -> Result<Daemon<'_>> {
        let mut command = scene.lab.server.command("setpriv");
        let id = USER.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--no-new-privs"]);
        command.args(["--inh-caps", CAPABILITIES, "--ambient-caps", CAPABILITIES]);
        command.args(["--bounding-set", &format!("-all,{CAPABILITIES}")]);
        command.arg(&binary).args(["run", "-c"]).arg(site.config());
        let daemon = Daemon::launch_as(&scene.lab.server, site, &mut command)?;
        eventually!(30, format!("the daemon to be ready: {}", daemon.log()), daemon.is_ready())?;
        Ok(daemon)
    };
    let daemon = start()?;
    daemon.say(&["ban", "add", BANNED, "--forever"])?;
    kill(daemon)?;
    let before = link(&scene)?["id"].clone();
    let daemon = start()?;
    assert_eq!(daemon.ask(&["status"])?["persistence"]["beginning"], "taken_over", "{}", daemon.log());
    assert_eq!(link(&scene)?["id"], before);
    kill(daemon)?;
    plan.limits = "max_sources = 4096\n".to_owned();
    site.write(&plan)?;
    let daemon = start()?;
    assert_eq!(daemon.ask(&["status"])?["persistence"]["beginning"], "migrated", "{}", daemon.log());
    assert_eq!(daemon.ask(&["why", BANNED])?["explanation"]["reason"], "banned");
    assert_eq!(link(&scene)?["id"], before);
    Ok(())
}
