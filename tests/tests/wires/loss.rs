//! A bad wire: packets get lost and overtake each other. Good clients are served all the same, bad ones never.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use enforcer_tests::{
    clients::{self, Handshake},
    netns::{WIRE, source_v4},
    process,
    scene::Scene,
};

use crate::Ran;

/// One in thirty packets is lost, one in four overtakes the others: on both directions, so that handshakes meet it.
const BAD: &str = "delay 10ms 5ms reorder 25% 50% loss 3%";
/// Half a second there and back, and one packet in thirty lost: what mobile networks are at their worst.
const FAR: &str = "delay 250ms loss 3%";
/// A lost SYN alone costs a second (RFC 6298 section 2).
const PATIENCE: Duration = Duration::from_secs(120);

/// Makes both directions bad; the reason why not, if this kernel cannot.
fn spoil(scene: &Scene, how: &str) -> Result<Option<Ran>> {
    for netns in [&scene.lab.client, &scene.lab.server] {
        let mut tc = netns.command("tc");
        tc.args(["qdisc", "add", "dev", WIRE, "root", "netem"]).args(how.split(' '));
        let done = process::run(&mut tc, Duration::from_secs(20))?;
        if ["kind is unknown", "No such file"].iter().any(|words| done.stderr.contains(words)) {
            return Ok(Some(Ran::NotHere("this kernel has no netem".to_owned())));
        }
        done.success("tc")?;
    }
    Ok(None)
}

/// Limits are at their defaults, and nothing breaks.
pub(crate) fn half_a_second_away() -> Result<Ran> {
    let scene = Scene::new()?;
    if let Some(not_here) = spoil(&scene, FAR)? {
        return Ok(not_here);
    }
    let daemon = scene.daemon(&scene.plan())?;
    let token = scene.site.token("read")?;
    for number in 0..8 {
        let answer = scene.get(source_v4(1), "/api/v1/stream/40").token(&token).within(PATIENCE).send()?;
        ensure!(answer.status == 200, "request {number}: {answer:?}");
    }
    let scrape = daemon.scrape()?;
    for stage in ["handshake", "head", "body", "write"] {
        let cut = scrape.sum("enforcer_time_limits_total", &[("stage", stage)]);
        ensure!(cut == 0, "{cut} cut at {stage}");
    }
    Ok(Ran::Passed)
}

pub(crate) fn requests_and_refusals() -> Result<Ran> {
    let scene = Scene::new()?;
    if let Some(not_here) = spoil(&scene, BAD)? {
        return Ok(not_here);
    }
    let daemon = scene.daemon(&scene.plan())?;
    let token = scene.site.token("read")?;
    for number in 0..12 {
        let answer = scene.get(source_v4(1), "/api/v1/x").token(&token).within(PATIENCE).send()?;
        ensure!(answer.status == 200, "request {number}: {answer:?}");
    }
    let before = daemon.scrape()?.packets("tls_version");
    for _ in 0..2 {
        let old =
            clients::openssl(&scene.lab.client, source_v4(2).into(), "-tls1_1", Duration::from_secs(5))?;
        if let Handshake::Done(version) = old {
            bail!("{version} was served");
        }
    }
    let after = daemon.scrape()?.packets("tls_version");
    ensure!(after > before, "no hello of TLS 1.1 was refused by the program");
    Ok(Ran::Passed)
}
