//! The demo: the whole path at work in two network namespaces, told step by step.
//!
//! Everything is real: XDP on a veth, the daemon, curl, openssl. What a step observes comes from the client's side, from the
//! kernel's and the daemon's counters, or from the server's sockets.

mod bans;
mod packets;
mod requests;
mod screen;

use std::{net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use screen::{Observed, Screen};

use crate::{
    cleanup,
    clients::{Answer, HOST},
    daemon::Daemon,
    netns::{SERVER_V4, WIRE, source_v4},
    process,
    scene::Scene,
    site::{METRICS, Plan},
};

/// New connections per second and at once that one source may open in the demo. Low, so that a short flood shows it.
const CONNECTIONS_PER_SECOND: u32 = 50;
const CONNECTIONS_AT_ONCE: u32 = 100;
/// The path that the demo asks for.
const PATH: &str = "/api/v1/hello";
/// Of the token that `--keep` leaves behind.
const LONG: Duration = Duration::from_secs(12 * 3600);

/// What all acts share.
struct Stage<'a> {
    scene: &'a Scene,
    daemon: &'a Daemon<'a>,
}

/// Tells the story; with `keep`, waits for a signal at its end, which removes everything. Whether all was as expected.
pub fn run(keep: bool) -> bool {
    let mut screen = Screen::new();
    if let Err(error) = story(&mut screen, keep) {
        cleanup::rest_if_interrupted();
        screen.broken(&error);
    }
    screen.finish()
}

fn story(screen: &mut Screen, keep: bool) -> Result<()> {
    screen.chapter("The stage");
    let scene = Scene::new()?;
    let Scene { lab, site, upstream } = &scene;
    screen.note(&format!(
        "Two network namespaces with one wire: the client {} (nine sources: 198.18.N.2 and 2001:db8:N::2), and the server {} \
         ({SERVER_V4}, 2001:db8::1). On the server run an upstream on {} and the daemon, with the program on {WIRE} and \
         this configuration:",
        lab.client.name(),
        lab.server.name(),
        upstream.address
    ));
    let mut plan = Plan::small(upstream.address);
    plan.limits =
        format!("connections = {{ rate = \"{CONNECTIONS_PER_SECOND}/s\", burst = {CONNECTIONS_AT_ONCE} }}\n");
    screen.quote(&site.render(&plan).replace(&format!("{}/", site.dir.display()), ""));
    let mut daemon = scene.daemon(&plan)?;
    let stage = Stage { scene: &scene, daemon: &daemon };
    attached(&stage, screen);
    requests::play(&stage, screen)?;
    packets::play(&stage, screen)?;
    bans::play(&stage, screen)?;
    metrics(&stage, screen)?;
    if keep {
        explain(&stage, screen)?;
        screen.finish();
        loop {
            std::thread::park();
        }
    }
    screen.chapter("The end");
    screen.step(
        "The daemon ends and leaves the wire as it was",
        "SIGTERM",
        "exit status 0, no program on the interface",
        || {
            let status = daemon.stop()?;
            let link = lab.server.ip(&format!("-d link show dev {WIRE}"))?;
            let clean = !link.contains("xdp");
            let program = if clean { "no program" } else { "a program" };
            Ok(Observed::new(status.success() && clean, format!("{status}, {program} on {WIRE}")))
        },
    );
    drop(daemon);
    drop(scene);
    screen.step(
        "Nothing stays behind",
        "namespaces, directory and keys are removed",
        "no namespace and no directory of this run",
        || {
            let left = cleanup::leftovers();
            Ok(Observed::new(left.is_empty(), format!("{} left {}", left.len(), left.join(" "))))
        },
    );
    Ok(())
}

impl Stage<'_> {
    /// A request from source number `source`, by HTTP/2 if nothing else is asked for.
    fn get(&self, source: u8, token: Option<&str>) -> Result<Answer> {
        self.request(source_v4(source).into(), token, &[], Duration::from_secs(10))
    }

    fn request(&self, source: IpAddr, token: Option<&str>, more: &[&str], limit: Duration) -> Result<Answer> {
        let curl = self.scene.get(source, PATH).more(more).within(limit);
        match token {
            Some(token) => curl.token(token).send(),
            None => curl.send(),
        }
    }
}

/// An answer as the story tells it.
fn told(answer: &Answer) -> String {
    let code = answer.code();
    match answer.status {
        0 => format!("no answer ({})", answer.error),
        status if code.is_empty() => format!("{status} over HTTP/{}", answer.version),
        status => format!("{status} over HTTP/{}, code {code}", answer.version),
    }
}

fn attached(stage: &Stage<'_>, screen: &mut Screen) {
    screen.step(
        "The program is in the driver",
        "enforcer status",
        &format!("attached to {WIRE} in native mode"),
        || {
            let status = stage.daemon.ask(&["status"])?.to_string();
            let link = stage.scene.lab.server.ip(&format!("-d link show dev {WIRE}"))?;
            let in_kernel = link.lines().find(|line| line.contains("prog/xdp")).unwrap_or("no program");
            let good = status.contains("\"native\"") && in_kernel.contains("prog/xdp");
            let mode = if status.contains("\"native\"") { "native" } else { "not native" };
            Ok(Observed::new(good, format!("status says {mode}; ip link says:{in_kernel}")))
        },
    );
}

fn metrics(stage: &Stage<'_>, screen: &mut Screen) -> Result<()> {
    screen.chapter("What the operator sees");
    let scrape = stage.daemon.scrape()?;
    screen.step(
        "A page of metrics",
        &format!("GET http://{METRICS}/metrics"),
        "counters of the kernel and of the daemon, in the Prometheus text format",
        || {
            let packets = scrape.sum("enforcer_kernel_packets_total", &[]);
            let (connections, bans) = (scrape.connections(), scrape.sum("enforcer_bans_total", &[]));
            let good = packets > 0 && connections > 0 && bans > 0;
            Ok(Observed::new(good, format!("{packets} packets, {connections} connections, {bans} bans")))
        },
    );
    let samples = scrape.text.lines().filter(|line| !line.starts_with('#') && !line.ends_with(" 0"));
    screen.quote(&samples.collect::<Vec<_>>().join("\n"));
    screen.note("\nAnd `enforcer status`:");
    screen.quote(&stage.daemon.say(&["status"])?);
    Ok(())
}

fn explain(stage: &Stage<'_>, screen: &Screen) -> Result<()> {
    let Scene { lab, site, .. } = stage.scene;
    let daemon = stage.daemon;
    let token = site.dir.join("token");
    std::fs::write(&token, site.long_token("read", LONG)?).context("cannot write the token")?;
    let enforcer = format!("{} --socket {}", daemon.binary().display(), site.socket().display());
    let (client, server, source) = (lab.client.name(), lab.server.name(), source_v4(1));
    screen.chapter("Explore");
    let lines = [
        "Everything stays up until you press Ctrl-C here. In another terminal, as root:".to_owned(),
        String::new(),
        "# a good request; other sources are 198.18.2.2 to 198.18.9.2".to_owned(),
        format!("ip netns exec {client} curl -i --cacert {} \\", site.ca().display()),
        format!("  --resolve {HOST}:443:{SERVER_V4} --interface {source} \\"),
        format!("  -H \"authorization: Bearer $(cat {})\" https://{HOST}{PATH}", token.display()),
        String::new(),
        "# the operator's side".to_owned(),
        format!("{enforcer} status"),
        format!("{enforcer} ban add 198.18.9.2"),
        format!("{enforcer} why 198.18.9.2"),
        format!("{enforcer} ban list"),
        format!("ip netns exec {server} curl -s http://{METRICS}/metrics"),
        format!("ip -n {server} -d link show dev {WIRE}"),
        format!("less {}", site.dir.join("daemon.log").display()),
        String::new(),
        "# the configuration; change it, then:".to_owned(),
        format!("{enforcer} reload    # {}", site.config().display()),
        String::new(),
        "# to remove everything: Ctrl-C here, or".to_owned(),
        format!("kill {}", std::process::id()),
    ];
    screen.plain(&lines.join("\n"));
    Ok(())
}

/// What the server's TCP knows about connections from `source` on the listener's port: bytes received on each.
fn server_sockets(stage: &Stage<'_>, source: IpAddr) -> Result<Vec<u64>> {
    let mut ss = stage.scene.lab.server.command("ss");
    let listed = process::run(ss.args(["-HtniO", "sport = :443"]), Duration::from_secs(5))?.success("ss")?;
    let theirs = listed
        .lines()
        .filter(|line| line.contains(&format!("{source}]:")) || line.contains(&format!("{source}:")));
    Ok(theirs
        .map(|line| {
            let received = line.split_whitespace().find_map(|word| word.strip_prefix("bytes_received:"));
            received.and_then(|bytes| bytes.parse().ok()).unwrap_or(0)
        })
        .collect())
}
