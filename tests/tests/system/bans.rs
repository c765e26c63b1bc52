//! Bans on the wire: who is dropped, who is not, and since when.

use std::{
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, anyhow};
use enforcer_tests::{
    clients,
    clients::Answer,
    daemon::Daemon,
    eventually,
    netns::{SERVER_V4, source_v4, source_v6},
    poll, process,
    scene::Scene,
    upstream::PIECE,
};

/// After this without an answer a client is taken to be cut off.
const SILENCE: Duration = Duration::from_millis(1500);
const PATH: &str = "/api/v1/x";

fn ask(scene: &Scene, source: impl Into<IpAddr>) -> Result<Answer> {
    scene.get(source, PATH).token(&scene.site.token("read")?).send()
}

/// Whether `source` is cut off: no answer, packets dropped under `reason`, and no connection at the daemon.
fn cut_off(scene: &Scene, daemon: &Daemon<'_>, source: impl Into<IpAddr>, reason: &str) -> Result<()> {
    let source = source.into();
    let before = daemon.scrape()?;
    let answer = scene.get(source, PATH).token(&scene.site.token("read")?).within(SILENCE).send()?;
    let after = daemon.scrape()?;
    assert_eq!((answer.status, answer.exit), (0, Some(28)), "{source}: {answer:?}");
    assert!(after.packets(reason) > before.packets(reason), "{source}: no packet counted as {reason}");
    assert_eq!(after.connections(), before.connections(), "{source}: the daemon saw a connection");
    Ok(())
}

#[test]
fn one_address_of_each_family_until_it_is_lifted() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    for (banned, other, reason) in [
        (IpAddr::from(source_v4(2)), IpAddr::from(source_v4(3)), "banned"),
        // By hand a single IPv6 address is banned alone, not with its source, which is the whole /64.
        (source_v6(2).into(), source_v6(3).into(), "banned_prefix"),
    ] {
        assert_eq!(ask(&scene, banned)?.status, 200);
        daemon.say(&["ban", "add", &banned.to_string()])?;
        let listed = daemon.ask(&["ban", "list"])?.to_string();
        assert!(listed.contains(&banned.to_string()), "{listed}");
        cut_off(&scene, &daemon, banned, reason)?;
        assert_eq!(ask(&scene, other)?.status, 200);
        daemon.say(&["ban", "del", &banned.to_string()])?;
        assert_eq!(ask(&scene, banned)?.status, 200);
    }
    Ok(())
}

#[test]
fn a_prefix_of_each_family() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    for (prefix, inside, outside) in [
        ("198.18.4.0/24", IpAddr::from(source_v4(4)), IpAddr::from(source_v4(5))),
        ("2001:db8:4::/48", source_v6(4).into(), source_v6(5).into()),
    ] {
        daemon.say(&["ban", "add", prefix])?;
        cut_off(&scene, &daemon, inside, "banned_prefix")?;
        assert_eq!(ask(&scene, outside)?.status, 200);
        daemon.say(&["ban", "del", prefix])?;
        assert_eq!(ask(&scene, inside)?.status, 200);
    }
    Ok(())
}

#[test]
fn a_ban_ends_by_itself() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let source = source_v4(2);
    daemon.say(&["ban", "add", &source.to_string(), "--for", "3s"])?;
    let token = scene.site.token("read")?;
    poll::until("the end of a ban of 3 s", Duration::from_secs(20), || {
        let answer = scene.get(source, PATH).token(&token).within(Duration::from_millis(300)).send()?;
        Ok((answer.status == 200).then_some(()))
    })?;
    assert!(daemon.scrape()?.packets("banned") > 0, "the ban never held");
    eventually!(10, "the ban to leave the list", {
        !daemon.ask(&["ban", "list"])?.to_string().contains(&source.to_string())
    })
}

#[test]
fn a_ban_cuts_open_connections_and_outlives_a_reload() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let source = source_v4(2);
    let token = scene.site.token("read")?;
    let pieces = 400;
    let path = format!("/api/v1/stream/{pieces}");
    let answer = thread::scope(|scope| -> Result<Answer> {
        let long = scene.get(source, &path).token(&token).within(Duration::from_secs(8));
        let request = scope.spawn(move || long.send());
        eventually!(10, "the request to reach the upstream", scene.upstream.requests() == 1)?;
        daemon.say(&["ban", "add", &source.to_string()])?;
        request.join().map_err(|_| anyhow!("panicked"))?
    })?;
    assert_eq!(answer.exit, Some(28), "{}", answer.error);
    assert!(answer.body.len() < pieces * PIECE, "the whole body arrived");
    daemon.say(&["reload"])?;
    cut_off(&scene, &daemon, source, "banned")
}

#[test]
fn an_allowance_overrides_a_ban() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    daemon.say(&["allow", "add", &source_v4(5).to_string()])?;
    daemon.say(&["ban", "add", "198.18.4.0/23"])?;
    daemon.say(&["ban", "add", &source_v4(5).to_string()])?;
    assert_eq!(ask(&scene, source_v4(5))?.status, 200, "allowed");
    cut_off(&scene, &daemon, source_v4(4), "banned_prefix")?;
    daemon.say(&["allow", "del", &source_v4(5).to_string()])?;
    let answer = scene.get(source_v4(5), PATH).within(SILENCE).send()?;
    assert_eq!(answer.status, 0, "no longer allowed, still banned: {answer:?}");
    Ok(())
}

#[test]
fn an_allowance_of_the_configuration_protects_from_one_s_own_offences() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.kernel += "allow = [\"198.18.6.0/24\"]\n";
    let daemon = scene.daemon(&plan)?;
    let forged = scene.site.forged_token()?;
    for _ in 0..12 {
        assert_eq!(scene.get(source_v4(6), PATH).token(&forged).send()?.status, 401);
    }
    assert_eq!(ask(&scene, source_v4(6))?.status, 200);
    assert!(daemon.scrape()?.packets("allowed") > 0);
    Ok(())
}

#[test]
fn a_management_port_stays_open_for_a_banned_source() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let ssh = SocketAddr::new(SERVER_V4.into(), 22);
    let listener = scene.lab.server.enter(|| Ok(TcpListener::bind(ssh)?))?;
    daemon.say(&["ban", "add", &source_v4(2).to_string()])?;
    cut_off(&scene, &daemon, source_v4(2), "banned")?;
    let mut client = clients::connect(&scene.lab.client, source_v4(2).into(), ssh, Duration::from_secs(5))?;
    let (mut server, peer) = listener.accept()?;
    assert_eq!(peer.ip(), IpAddr::from(source_v4(2)));
    client.write_all(b"hello")?;
    let mut heard = [0; 5];
    server.read_exact(&mut heard)?;
    assert_eq!(&heard, b"hello");
    assert!(daemon.scrape()?.packets("management") > 0);
    Ok(())
}

#[test]
fn repeated_offences_end_in_the_kernel_and_why_tells() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    for offender in [IpAddr::from(source_v4(7)), source_v6(7).into()] {
        let forged = scene.site.forged_token()?;
        let mut refused = 0;
        poll::until("a ban", Duration::from_secs(30), || {
            let answer = scene.get(offender, PATH).token(&forged).within(SILENCE).send()?;
            assert!(answer.status == 401 || answer.status == 0, "{answer:?}");
            refused += usize::from(answer.status == 401);
            let listed = answer.status == 0 && !daemon.ask(&["ban", "list"])?.to_string().eq("[]");
            Ok(listed.then_some(()))
        })?;
        // 25 points each, banned at 100; a few may be under way when the ban comes.
        assert!((4..=8).contains(&refused), "{refused} times 401");
        cut_off(&scene, &daemon, offender, "banned")?;
        let why = daemon.ask(&["why", &offender.to_string()])?;
        assert_eq!(why["explanation"]["verdict"], "drop", "{why}");
        assert_eq!(why["explanation"]["reason"], "banned", "{why}");
        assert_eq!(
            (&why["ban"]["origin"], &why["ban"]["cause"]),
            (&"offence".into(), &"token_bad_signature".into())
        );
        let remaining = why["ban"]["remaining_seconds"].as_u64().unwrap_or_default();
        assert!((1..=600).contains(&remaining), "{why}");
        assert!(daemon.say(&["why", &offender.to_string()])?.contains("token_bad_signature"));
        daemon.say(&["ban", "del", why["ban"]["prefix"].as_str().unwrap_or_default()])?;
        assert_eq!(ask(&scene, offender)?.status, 200);
    }
    assert_eq!(daemon.scrape()?.sum("enforcer_bans_total", &[("cause", "token_bad_signature")]), 2);
    Ok(())
}

#[test]
fn a_dry_run_bans_nobody() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.more = "[bans]\ndry_run = true\n".to_owned();
    let daemon = scene.daemon(&plan)?;
    let forged = scene.site.forged_token()?;
    for _ in 0..12 {
        assert_eq!(scene.get(source_v4(7), PATH).token(&forged).send()?.status, 401);
    }
    assert_eq!(ask(&scene, source_v4(7))?.status, 200);
    assert_eq!(daemon.scrape()?.packets("banned"), 0);
    Ok(())
}

#[test]
fn a_list_is_banned_and_lifted_while_others_are_served() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("list");
    let name = file.to_str().ok_or_else(|| anyhow!("no text"))?;
    let mut text = "# a list of 20,000\n\n".to_owned();
    for n in 0..19_997u32 {
        text += &format!("{}\n", Ipv4Addr::from(0xc613_0000 + n));
    }
    text += &format!("{} # a client\n{}\n198.18.4.0/24\n", source_v4(2), source_v6(3));

    // A wrong line keeps all of it from being done.
    fs::write(&file, format!("{text}198.18.5.1/24\nnobody\n"))?;
    let refused =
        process::run(&mut daemon.command(&["ban", "add", "--file", name]), Duration::from_secs(20))?;
    assert_eq!(refused.code, Some(1));
    assert_eq!(
        refused.stderr,
        format!(
            "{name}:20003: `198.18.5.1/24` has bits set behind its length; did you mean 198.18.5.0/24?\n\
             {name}:20004: `nobody` is neither an address nor a prefix; write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32\n\
             enforcer: nothing was done: wrong lines in {name}: 2; correct them, or use --skip-invalid\n"
        )
    );
    assert_eq!(ask(&scene, source_v4(2))?.status, 200);

    fs::write(&file, format!("{text}nobody\n{}\n", source_v4(2)))?;
    let done = AtomicBool::new(false);
    let (said, served) = thread::scope(|scope| -> Result<(String, u32)> {
        let clean = scope.spawn(|| -> Result<u32> {
            let mut served = 0;
            while served == 0 || !done.load(Ordering::SeqCst) {
                assert_eq!(ask(&scene, source_v4(6))?.status, 200, "after {served}");
                served += 1;
            }
            Ok(served)
        });
        let words = ["ban", "add", "--file", name, "--skip-invalid", "--for", "1h", "--reason", "list"];
        let said = daemon.say(&words);
        done.store(true, Ordering::SeqCst);
        let served = clean.join().map_err(|_| anyhow!("the clean client was cut off"))??;
        Ok((said?, served))
    })?;
    assert!(served > 0);
    assert_eq!(
        said,
        "banned: 20,000 (new: 20,000, replaced: 0)\n  \
         note: named more than once: 1\n  \
         note: lines skipped that cannot be read: 1\n"
    );
    cut_off(&scene, &daemon, source_v4(2), "banned")?;
    cut_off(&scene, &daemon, source_v6(3), "banned_prefix")?;
    cut_off(&scene, &daemon, source_v4(4), "banned_prefix")?;
    assert_eq!(ask(&scene, source_v4(6))?.status, 200);
    let log = daemon.log();
    assert_eq!(log.matches("bans imported by an operator").count(), 1, "{log}");
    assert_eq!(log.matches("banned by an operator").count(), 0, "{log}");
    assert_eq!(daemon.ask(&["status"])?["list_entries"], 20_000);

    fs::write(&file, format!("{text}198.19.255.1\n"))?;
    assert_eq!(
        daemon.say(&["ban", "del", "--file", name])?,
        "bans lifted: 20,000\n  note: had no ban of their own: 1\n"
    );
    for source in [IpAddr::from(source_v4(2)), source_v6(3).into(), source_v4(4).into()] {
        assert_eq!(ask(&scene, source)?.status, 200, "{source}");
    }
    assert_eq!(daemon.ask(&["status"])?["list_entries"], 0);
    Ok(())
}
