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
/// A lost SYN alone costs a second (RFC 6298 section 2).
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn requests_and_refusals() -> Result<Ran> {
    let scene = Scene::new()?;
    for netns in [&scene.lab.client, &scene.lab.server] {
        let mut tc = netns.command("tc");
        tc.args(["qdisc", "add", "dev", WIRE, "root", "netem"]).args(BAD.split(' '));
        let done = process::run(&mut tc, Duration::from_secs(20))?;
        if ["kind is unknown", "No such file"].iter().any(|words| done.stderr.contains(words)) {
            return Ok(Ran::NotHere("this kernel has no netem".to_owned()));
        }
        done.success("tc")?;
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
