//! Lists of server names and fingerprints on a real wire: refused by the program, and by the daemon where the program has let the hello through.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use enforcer_tests::{
    clients::{self, HOST, Handshake},
    daemon::Daemon,
    eventually,
    netns::{source_v4, source_v6},
    scene::Scene,
    site::Plan,
};
use serde_json::Value;

use super::hellos::sockets;

const PATIENCE: Duration = Duration::from_secs(20);
/// A name that the certificate does not have; a listener serves it all the same.
const REFUSED: &str = "www.shop.test";

fn listing(scene: &Scene, kernel: &str, lists: &str) -> Plan {
    let mut plan = scene.plan();
    plan.kernel += kernel;
    plan.more = format!("[kernel.hellos]\n{lists}\n");
    plan
}

fn ask(scene: &Scene, source: impl Into<IpAddr>, name: &str, version: &str) -> Result<Handshake> {
    clients::openssl_asking(&scene.lab.client, source.into(), name, version, PATIENCE)
}

fn is_served(shake: &Handshake) -> bool {
    matches!(shake, Handshake::Done(_))
}

fn is_told(shake: &Handshake, what: &str) -> bool {
    matches!(shake, Handshake::Refused(said) if said.contains(what))
}

/// How many packets would have been dropped for this reason.
fn would_drop(daemon: &Daemon<'_>, reason: &str) -> Result<u64> {
    Ok(daemon.scrape()?.sum("enforcer_kernel_would_drop_packets_total", &[("reason", reason)]))
}

#[test]
fn a_listed_name_gets_an_alert_and_the_server_keeps_no_socket() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let daemon = scene.daemon(&listing(&scene, "", "refuse_names = [\"*.shop.test\"]"))?;
    for source in [IpAddr::from(source_v4(1)), source_v6(1).into()] {
        for version in ["-tls1_2", "-tls1_3"] {
            let shake = ask(&scene, source, "WWW.Shop.test", version)?;
            assert!(is_told(&shake, "unrecognized name"), "{version} from {source}: {shake:?}");
            eventually!(
                5,
                format!("no socket for {version} from {source}"),
                sockets(&scene.lab.server)? == 0
            )?;
            for name in [HOST, "shop.test"] {
                let shake = ask(&scene, source, name, version)?;
                assert!(is_served(&shake), "{name}, {version} from {source}: {shake:?}");
            }
        }
    }
    let counted = daemon.scrape()?;
    assert!(counted.packets("hello_name") >= 4 && counted.packets("server_reset") >= 4, "{}", counted.text);
    assert_eq!(counted.denials("tls_refused_name"), 0, "the program was first");
    Ok(())
}

#[test]
fn a_dry_run_spares_and_counts_and_reloads_change_the_lists() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let refuse = format!("refuse_names = [\"{REFUSED}\"]");
    let daemon = scene.daemon(&listing(&scene, "dry_run = [\"hello_names\"]\n", &refuse))?;
    let source = source_v4(1);
    let attached = || -> Result<Value> { Ok(daemon.ask(&["status"])?["interfaces"].clone()) };
    let before = attached()?;
    assert!(is_served(&ask(&scene, source, REFUSED, "-tls1_3")?));
    assert_eq!(would_drop(&daemon, "hello_name")?, 1);
    let rehearsed = |code: &str| -> Result<u64> {
        Ok(daemon.scrape()?.sum("enforcer_hellos_would_refuse_total", &[("code", code)]))
    };
    assert_eq!(rehearsed("tls_refused_name")?, 1);

    let reload = |plan: &Plan| -> Result<()> {
        scene.site.write(plan)?;
        daemon.say(&["reload"]).map(drop)
    };
    reload(&listing(&scene, "", &refuse))?;
    let shake = ask(&scene, source, REFUSED, "-tls1_3")?;
    assert!(is_told(&shake, "unrecognized name"), "{shake:?}");
    reload(&listing(&scene, "", &format!("only_names = [\"{REFUSED}\"]")))?;
    assert!(is_served(&ask(&scene, source, REFUSED, "-tls1_3")?));
    let shake = ask(&scene, source, HOST, "-tls1_3")?;
    assert!(is_told(&shake, "unrecognized name"), "{shake:?}");
    assert!(daemon.scrape()?.packets("hello_unlisted") >= 1);
    reload(&scene.plan())?;
    for name in [REFUSED, HOST] {
        assert!(is_served(&ask(&scene, source, name, "-tls1_2")?), "{name}");
    }
    assert_eq!(attached()?, before, "nothing was attached anew");
    Ok(())
}

#[test]
fn a_fingerprint_from_the_log_can_be_refused() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let log = scene.site.dir.join("access.log");
    let logged = format!("[access_log]\ndestination = \"{}\"\n", log.display());
    let mut plan = scene.plan();
    plan.more = logged.clone();
    let daemon = scene.daemon(&plan)?;
    let token = scene.site.token("read")?;
    let get = || scene.get(source_v4(1), "/api/v1/x").token(&token).within(PATIENCE).send();
    assert_eq!(get()?.status, 200);
    let mut line = String::new();
    eventually!(10, "a line of the access log", {
        line = fs::read_to_string(&log).unwrap_or_default();
        line.ends_with('\n')
    })?;
    let row: Value = serde_json::from_str(line.lines().next().context("no line")?)?;
    let print = row["fingerprint"].as_str().ok_or_else(|| anyhow!("no fingerprint: {row}"))?;
    plan.more = format!("{logged}\n[kernel.hellos]\nrefuse_fingerprints = [\"{print}\"]\n");
    scene.site.write(&plan)?;
    daemon.say(&["reload"])?;
    let refused = get()?;
    assert_eq!((refused.status, refused.exit), (0, Some(35)), "{refused:?}");
    // Its hello goes over several segments with a post-quantum key share, and not without.
    assert!(daemon.scrape()?.packets("hello_fingerprint") >= 1);
    assert!(is_served(&ask(&scene, source_v4(1), HOST, "-tls1_2")?), "another client");
    Ok(())
}

/// The program does not look at that port; the daemon serves it.
#[test]
fn what_the_program_lets_through_is_refused_at_the_handshake() -> Result<()> {
    let scene = Scene::new()?;
    let refuse = format!("refuse_names = [\"{REFUSED}\"]");
    let daemon = scene.daemon(&listing(&scene, "protected_ports = [8443]\n", &refuse))?;
    let shake = ask(&scene, source_v4(1), REFUSED, "-tls1_3")?;
    assert!(is_told(&shake, "unrecognized name"), "{shake:?}");
    assert!(is_served(&ask(&scene, source_v4(1), HOST, "-tls1_3")?));
    let counted = daemon.scrape()?;
    assert_eq!((counted.packets("hello_name"), counted.denials("tls_refused_name")), (0, 1));
    Ok(())
}
