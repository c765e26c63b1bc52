//! Limits on the wire: a flood passes no faster than configured, and hurts nobody else.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Result, anyhow};
use enforcer_tests::{
    eventually,
    flood::{Flood, Segment},
    netns::{Lab, source_v4, source_v6},
    scene::Scene,
};

const PER_SECOND: u32 = 100;
const AT_ONCE: u32 = 200;

/// Floods from `from` with the limit `limit`, while `other` asks for pages. What passes must keep within the limit.
fn flood(limit: &str, segment: Segment, reason: &str, from: IpAddr, other: IpAddr) -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.limits = format!("{limit} = {{ rate = \"{PER_SECOND}/s\", burst = {AT_ONCE} }}\n");
    let daemon = scene.daemon(&plan)?;
    let token = scene.site.token("read")?;
    let ask = || scene.get(other, "/api/v1/x").token(&token).within(Duration::from_secs(5)).send();
    // Also makes the neighbours known to each other before the flood begins.
    assert_eq!(ask()?.status, 200);
    let flood = Flood {
        segment,
        from,
        sources: 1,
        to: Lab::server_address(from),
        port: 443,
        count: 10_000,
        per_second: Some(10_000),
    };
    let (sent, answers) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood.send(&scene.lab.client));
        let mut answers = Vec::new();
        // The packets limit counts the other source's packets as well, so it asks only a few times.
        while !flood.is_finished() && answers.len() < 3 {
            answers.push(ask());
        }
        (flood.join(), answers)
    });
    let sent = sent.map_err(|_| anyhow!("the flood panicked"))??;
    for answer in answers {
        let answer = answer?;
        assert_eq!(answer.status, 200, "{other} is not the flooder: {answer:?}");
    }
    // One more for the clock's tick, by which the window may seem longer to the program.
    let most = u64::from(AT_ONCE) + (sent.took.as_secs_f64() * f64::from(PER_SECOND)).ceil() as u64 + 1;
    eventually!(5, format!("drops for {reason}: at most {most} of {} may pass", sent.packets), {
        let dropped = daemon.scrape()?.packets(reason);
        assert!(dropped <= u64::from(sent.packets) - u64::from(AT_ONCE), "{dropped} dropped: too many");
        u64::from(sent.packets) - dropped <= most
    })
}

#[test]
fn new_connections_of_one_ipv4_address() -> Result<()> {
    flood("connections", Segment::Syn, "connection_limit", "198.18.77.7".parse()?, source_v4(1).into())
}

#[test]
fn new_connections_of_one_ipv6_prefix() -> Result<()> {
    flood("connections", Segment::Syn, "connection_limit", "2001:db8:77::7".parse()?, source_v6(1).into())
}

#[test]
fn packets_of_one_address() -> Result<()> {
    flood("packets", Segment::Ack, "packet_limit", "198.18.77.8".parse()?, source_v4(1).into())
}

#[test]
fn hellos_of_one_address() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.limits = "hellos = { rate = \"1/h\", burst = 3 }\n".to_owned();
    let daemon = scene.daemon(&plan)?;
    let token = scene.site.token("read")?;
    let ask = |source: u8, patience| {
        scene.get(source_v4(source), "/api/v1/x").token(&token).within(Duration::from_secs(patience)).send()
    };
    for _ in 0..3 {
        assert_eq!(ask(1, 10)?.status, 200);
    }
    let answer = ask(1, 2)?;
    assert_eq!((answer.status, answer.exit), (0, Some(28)), "{answer:?}");
    assert!(daemon.scrape()?.packets("hello_limit") > 0);
    assert_eq!(ask(2, 10)?.status, 200, "another source");
    Ok(())
}

#[test]
fn why_tells_the_state_of_a_limit() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.limits = "connections = { rate = \"1/m\", burst = 3 }\n".to_owned();
    let daemon = scene.daemon(&plan)?;
    let from: IpAddr = "198.18.77.9".parse()?;
    let flood = Flood {
        segment: Segment::Syn,
        from,
        sources: 1,
        to: Lab::server_address(from),
        port: 443,
        count: 5,
        per_second: None,
    };
    flood.send(&scene.lab.client)?;
    eventually!(5, "two SYNs over the limit", daemon.scrape()?.packets("connection_limit") == 2)?;
    let why = daemon.ask(&["why", &from.to_string()])?;
    assert_eq!(why["explanation"]["reason"], "connection_limit", "{why}");
    let limits = why["explanation"]["limits"].as_array().cloned().unwrap_or_default();
    let state = limits.iter().find(|limit| limit["limit"] == "connections");
    let state = state.ok_or_else(|| anyhow!("no such limit in {why}"))?;
    assert_eq!((&state["remaining"], &state["burst"]), (&0.into(), &3.into()));
    assert!(state["wait_ns"].as_u64() > Some(0), "{why}");
    Ok(())
}
