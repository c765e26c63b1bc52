//! A daemon that cannot start says so in one clear line, and leaves nothing behind.

use std::net::{SocketAddr, TcpListener};

use anyhow::Result;
use enforcer_tests::{
    daemon::{self, Daemon},
    netns::{SERVER_V4, WIRE},
    scene::Scene,
    site::{METRICS, Plan, Site},
};

use super::attach::program;

/// It failed.
const FAILED: i32 = 1;
/// A permission is missing (EX_NOPERM of sysexits.h).
const PERMISSION: i32 = 77;
/// The configuration, or something that it names, is wrong (EX_CONFIG).
const CONFIGURATION: i32 = 78;

/// Starts the daemon with `plan`; it must end by itself, with `code` and one line that has all of `words`.
fn refuses(scene: &Scene, plan: &Plan, code: i32, words: &[&str]) -> Result<()> {
    scene.site.write(plan)?;
    ends(&scene.site, Daemon::launch(&scene.lab.server, &scene.site)?, code, words)?;
    assert_eq!(program(&scene.lab)?, "", "something is attached");
    Ok(())
}

fn ends(site: &Site, mut daemon: Daemon<'_>, code: i32, words: &[&str]) -> Result<()> {
    let status = daemon.wait()?;
    let log = daemon.log();
    assert_eq!(status.code(), Some(code), "{status}: {log}");
    assert_eq!(log.lines().count(), 1, "not exactly one line:\n{log}");
    assert!(words.iter().all(|word| log.contains(word)), "not all of {words:?} in: {log}");
    assert!(!site.socket().exists(), "the control socket stays behind");
    Ok(())
}

#[test]
fn an_interface_that_does_not_exist() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.kernel = "interfaces = [\"eth0\", \"absent0\"]\n".to_owned();
    refuses(&scene, &plan, CONFIGURATION, &["absent0"])
}

#[test]
fn a_port_in_use() -> Result<()> {
    let scene = Scene::new()?;
    let address = SocketAddr::new(SERVER_V4.into(), 443);
    let _holder = scene.lab.server.enter(|| Ok(TcpListener::bind(address)?))?;
    refuses(&scene, &scene.plan(), FAILED, &["[::]:443", "another program listens"])
}

#[test]
fn a_metrics_port_in_use() -> Result<()> {
    let scene = Scene::new()?;
    let address: SocketAddr = METRICS.parse()?;
    let _holder = scene.lab.server.enter(|| Ok(TcpListener::bind(address)?))?;
    refuses(&scene, &scene.plan(), FAILED, &[METRICS, "another program listens", "ss -ltnp"])
}

#[test]
fn a_key_that_cannot_be_read() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.certificate.1 = "absent.key".to_owned();
    refuses(&scene, &plan, CONFIGURATION, &["absent.key", "no such file"])
}

#[test]
fn a_key_that_belongs_to_another_certificate() -> Result<()> {
    let scene = Scene::new()?;
    scene.site.issue("other")?;
    let mut plan = scene.plan();
    plan.certificate.1 = "other.key".to_owned();
    refuses(&scene, &plan, CONFIGURATION, &["other.key", "does not belong", "api.pem"])
}

#[test]
fn an_unknown_key_in_the_configuration() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.kernel += "interface = \"eth0\"\n";
    refuses(&scene, &plan, CONFIGURATION, &["kernel", "interface"])
}

#[test]
fn a_group_that_does_not_exist() -> Result<()> {
    let scene = Scene::new()?;
    let good = scene.site.render(&scene.plan());
    let bad = good.replace("[control]\n", "[control]\ngroup = \"absent-group\"\n");
    std::fs::write(scene.site.config(), bad)?;
    let daemon = Daemon::launch(&scene.lab.server, &scene.site)?;
    ends(&scene.site, daemon, CONFIGURATION, &["absent-group", "groupadd"])
}

#[test]
fn a_control_folder_that_cannot_be_made() -> Result<()> {
    let scene = Scene::new()?;
    let socket = scene.site.socket().display().to_string();
    let bad = scene.site.render(&scene.plan()).replace(&socket, "/proc/absent/control.sock");
    std::fs::write(scene.site.config(), bad)?;
    let daemon = Daemon::launch(&scene.lab.server, &scene.site)?;
    ends(&scene.site, daemon, FAILED, &["/proc/absent", "control.socket", "name a path under /run"])
}

/// Root without a single capability: what is left of it in a container.
#[test]
fn no_privilege() -> Result<()> {
    for (listener, words) in [("[::]:443", "CAP_NET_BIND_SERVICE"), ("[::]:8443", "CAP_BPF")] {
        let scene = Scene::new()?;
        let mut plan = scene.plan();
        plan.listener = listener.to_owned();
        scene.site.write(&plan)?;
        let mut command = scene.lab.server.command("setpriv");
        command.args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]);
        command.arg(daemon::binary()?).args(["run", "-c"]).arg(scene.site.config());
        let daemon = Daemon::launch_as(&scene.lab.server, &scene.site, &mut command)?;
        ends(&scene.site, daemon, PERMISSION, &[words])?;
        assert_eq!(program(&scene.lab)?, "");
    }
    Ok(())
}

#[test]
fn an_interface_that_somebody_else_holds_and_nothing_stays_half_attached() -> Result<()> {
    let scene = Scene::new()?;
    let server = &scene.lab.server;
    server.ip("link add second0 type veth peer name second1")?;
    let mut plan = scene.plan();
    plan.kernel = "interfaces = [\"second0\"]\n".to_owned();
    let first = scene.daemon(&plan)?;
    let held = server.ip("-d link show dev second0")?;
    assert!(held.contains("prog/xdp"), "{held}");

    plan.kernel = format!("interfaces = [\"{WIRE}\", \"second0\"]\n");
    plan.listener = "[::]:8443".to_owned();
    plan.metrics = "127.0.0.1:9465".to_owned();
    let site = Site::new()?;
    site.write(&plan)?;
    ends(&site, Daemon::launch(server, &site)?, FAILED, &["second0", "already", "bpftool link"])?;
    assert_eq!(program(&scene.lab)?, "", "the first of the two interfaces is still attached");
    assert_eq!(server.ip("-d link show dev second0")?, held, "the holder lost its place");
    assert!(first.is_ready());
    Ok(())
}
