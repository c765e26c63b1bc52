//! SYN cookies on a real wire: who has an address of his own gets through a flood of those who have none.

use std::{fs, net::IpAddr, time::Duration};

use anyhow::{Context, Result};
use enforcer_tests::{
    clients::{self, Handshake},
    flood::{Flood, Segment},
    netns::{Lab, source_v4, source_v6},
    scene::Scene,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Of each family, half before the handshake and half beside it.
const FLOOD: u32 = 400;

/// Connections that the server's network stack has made of cookies, by whomever they were sent.
fn made_of_cookies(lab: &Lab) -> Result<u64> {
    let text = lab.server.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/netstat")?))?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (lines.next().context("names")?, lines.next().context("values")?);
    let at = names.split(' ').position(|name| name == "SyncookiesRecv").context("no such counter")?;
    Ok(values.split(' ').nth(at).context("a value")?.parse()?)
}

#[test]
fn a_handshake_gets_through_a_flood_by_a_cookie() -> Result<()> {
    let scene = Scene::new()?;
    let lab = &scene.lab;
    lab.server.enter(|| Ok(fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2")?))?;
    let _link = lab.hear_answers()?;
    let mut plan = scene.plan();
    plan.kernel += "syn_cookies = { rate = \"1/h\", burst = 1 }\n";
    let daemon = scene.daemon(&plan)?;

    let cases: [(IpAddr, IpAddr); 2] =
        [(source_v4(1).into(), "198.18.77.7".parse()?), (source_v6(1).into(), "2001:db8:77::7".parse()?)];
    let mut all = 0;
    for (client, spoofed) in cases {
        let flood = |count| Flood {
            segment: Segment::Syn,
            from: spoofed,
            sources: 1,
            to: Lab::server_address(client),
            port: 443,
            count,
            per_second: Some(2_000),
        };
        let before = made_of_cookies(lab)?;
        // The first SYN of all may go to the network stack as it is. It also makes the neighbours known to each other: until
        // then a flood would be lost on its way.
        let shake = clients::openssl(&lab.client, client, "-tls1_3", PATIENCE)?;
        assert_eq!(shake, Handshake::Done("TLSv1.3".to_owned()), "{client}");
        let mut sent = u64::from(flood(FLOOD / 2).send(&lab.client)?.packets);
        let beside = std::thread::scope(|scope| {
            let beside = scope.spawn(|| flood(FLOOD / 2).send(&lab.client));
            let shake = clients::openssl(&lab.client, client, "-tls1_3", PATIENCE)?;
            assert_eq!(shake, Handshake::Done("TLSv1.3".to_owned()), "{client}");
            // Whose connection is known from its cookie gets an answer.
            let shake = clients::openssl(&lab.client, client, "-tls1", PATIENCE)?;
            let told = matches!(&shake, Handshake::Refused(said) if said.contains("alert protocol version"));
            assert!(told, "{client}: {shake:?}");
            beside.join().unwrap()
        })?;
        // That of the old client too.
        sent += u64::from(beside.packets) + 1;
        let counted = daemon.scrape()?;
        // Every SYN but the one, both of the client's own included.
        all += sent + 2;
        assert!(counted.packets("syn_cookie") >= all - 1, "{all} SYNs:\n{}", counted.text);
        assert_eq!(counted.packets("cookie_declined"), 0);
        assert!(made_of_cookies(lab)? > before, "{client}");
    }
    Ok(())
}

/// With tcp_syncookies = 1 the kernel makes none while the listener has room; with 0 never. The SYN passes then.
#[test]
fn where_the_kernel_makes_no_cookie_the_client_gets_through_all_the_same() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.kernel += "syn_cookies = { rate = \"1/h\", burst = 1 }\n";
    let daemon = scene.daemon(&plan)?;
    for setting in ["1", "0"] {
        scene.lab.server.enter(|| Ok(fs::write("/proc/sys/net/ipv4/tcp_syncookies", setting)?))?;
        let before = daemon.scrape()?.packets("cookie_declined");
        for _ in 0..2 {
            let shake = clients::openssl(&scene.lab.client, source_v4(1).into(), "-tls1_3", PATIENCE)?;
            assert_eq!(shake, Handshake::Done("TLSv1.3".to_owned()), "{setting}");
        }
        assert!(daemon.scrape()?.packets("cookie_declined") > before, "{setting}");
    }
    assert_eq!(daemon.scrape()?.packets("syn_cookie"), 0);
    Ok(())
}
