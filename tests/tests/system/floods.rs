//! Floods from more sources than the tables have room for.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::Result;
use enforcer_tests::{
    clients::Answer,
    flood::{Flood, Segment},
    keepalive::{KeepAlive, offer},
    netns::{Lab, source_v4, source_v6},
    scene::Scene,
    scrape::Scrape,
};

const PATH: &str = "/api/v1/x";
/// Invented sources: ten times what the smallest tables hold.
const SOURCES: u32 = 40_000;
/// Requests on each connection after the flood.
const AFTER: u32 = 20;

/// What a flood of invented sources has come to.
struct Outcome {
    sent: u32,
    /// Requests of the known clients, all of which were served.
    asked: u32,
    counted: Scrape,
    /// What one met who came afterwards, and is not known.
    stranger: Answer,
}

/// Two clients that are connected go on with their requests while others come in such numbers that every table is full: whoever sends a packet
/// owes something for ten seconds. `limits` is written below `[kernel.limits]`.
fn flood(scene: &Scene, limits: &str) -> Result<Outcome> {
    let (client, server) = (&scene.lab.client, &scene.lab.server);
    // Nobody asks for the neighbours of the flood; its answers go to the client's host, which drops them.
    server.ip(&format!("route add 198.19.0.0/16 via {}", source_v4(1)))?;
    server.ip(&format!("-6 route add 2001:db8:8000::/33 via {}", source_v6(1)))?;
    let mut plan = scene.plan();
    plan.limits = format!("max_sources = 1024\npackets = {{ rate = \"6/m\", burst = 100000 }}\n{limits}");
    plan.more = "[bans]\nmax_entries = 1\n".to_owned();
    let daemon = scene.daemon(&plan)?;
    let token = scene.site.token("read")?;
    let config = offer(&scene.site.ca(), vec![b"http/1.1".to_vec()])?;
    let invented: [(IpAddr, IpAddr); 2] =
        [(source_v4(1).into(), "198.19.0.0".parse()?), (source_v6(1).into(), "2001:db8:8000::".parse()?)];
    let mut clients = Vec::new();
    for (source, _) in invented {
        let mut one = KeepAlive::connect(client, source, &config)?;
        assert_eq!(one.ask(&token, PATH, &[])?, 200, "{source}");
        clients.push((source, one));
    }
    let done = AtomicBool::new(false);
    let (sent, asked) = thread::scope(|scope| -> Result<(u32, u32)> {
        let flood = scope.spawn(|| -> Result<u32> {
            let mut sent = 0;
            for (known, from) in invented {
                let to = Lab::server_address(known);
                for (segment, count) in [(Segment::Syn, 4_000), (Segment::Ack, SOURCES)] {
                    let flood =
                        Flood { segment, from, sources: SOURCES, to, port: 443, count, per_second: None };
                    sent += flood.send(client)?.packets;
                }
            }
            done.store(true, Ordering::SeqCst);
            Ok(sent)
        });
        let mut asked = 0;
        let mut after = 0;
        while after < AFTER {
            after += u32::from(done.load(Ordering::SeqCst) || flood.is_finished());
            for (source, one) in &mut clients {
                assert_eq!(one.ask(&token, PATH, &[])?, 200, "{source}, after {asked}");
                asked += 1;
            }
        }
        Ok((flood.join().unwrap()?, asked))
    })?;
    let stranger = scene.get(source_v4(2), PATH).token(&token).within(Duration::from_millis(1_500)).send()?;
    Ok(Outcome { sent, asked, counted: daemon.scrape()?, stranger })
}

/// A client that is known keeps its own slot, and what it is used for.
#[test]
fn established_clients_are_served_while_all_tables_are_full() -> Result<()> {
    let scene = Scene::new()?;
    let limits = "connections = { rate = \"1/m\", burst = 5 }\nwhen_full = \"drop\"\n";
    let Outcome { sent, asked, counted, stranger } = flood(&scene, limits)?;
    assert!(sent > SOURCES && asked > 2 * AFTER, "{sent} packets, {asked} requests");
    // No slot for most of them, and from now on for nobody who is not known.
    assert!(counted.packets("limiter_full") > u64::from(SOURCES), "{}", counted.text);
    assert_eq!(counted.packets("limiter_shared"), 0);
    assert_eq!((stranger.status, stranger.exit), (0, Some(28)), "{stranger:?}");
    Ok(())
}

/// By default those without a slot share budgets: what they send together is bounded, known clients go on as before, and who is new is still
/// let in, as long as anything is left.
#[test]
fn full_tables_are_shared_by_default_and_known_clients_notice_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let Outcome { sent, asked, counted, stranger } = flood(&scene, "connections = { rate = \"off\" }\n")?;
    assert!(sent > SOURCES && asked > 2 * AFTER, "{sent} packets, {asked} requests");
    assert!(counted.packets("limiter_shared") > u64::from(SOURCES), "{}", counted.text);
    assert_eq!(counted.packets("limiter_full"), 0, "{}", counted.text);
    assert_eq!(stranger.status, 200, "{stranger:?}");
    Ok(())
}

/// The same with budgets of which nothing is left: of new connections each bucket's sources may open five together.
#[test]
fn what_is_shared_has_an_end_and_known_clients_notice_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let limits = "connections = { rate = \"1/m\", burst = 5 }\n";
    let Outcome { asked, counted, .. } = flood(&scene, limits)?;
    assert!(asked > 2 * AFTER, "{asked} requests");
    assert!(counted.packets("limiter_shared") > u64::from(SOURCES), "{}", counted.text);
    // 8,000 SYNs to 1,024 slots, and five for each of the buckets.
    assert!(counted.packets("limiter_full") > 1_000, "{}", counted.text);
    Ok(())
}
