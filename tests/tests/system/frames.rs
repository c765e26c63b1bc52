//! Frames that are larger than usual: jumbo frames in several parts, and packets of many segments that the network stack has put
//! together.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use enforcer_tests::{
    clients,
    daemon::Daemon,
    keepalive::{KeepAlive, offer},
    netns::{Lab, Netns, WIRE, source_v4, source_v6},
    packets::{Hello, version_list},
    poll,
    scene::Scene,
};

const PATIENCE: Duration = Duration::from_secs(20);
const PATH: &str = "/api/v1/x";
/// More than the linear part of any frame has (a page less its headroom), and less than a jumbo frame.
const LONG: usize = 6_000;
/// What is uploaded: many packets of whatever size.
const CONTENT: usize = 4 << 20;

fn sources() -> [IpAddr; 2] {
    [source_v4(1).into(), source_v6(1).into()]
}

/// A ClientHello whose only list of versions stands behind [`LONG`] bytes of padding.
fn late_versions(versions: &[u16]) -> Vec<u8> {
    let hello = Hello { extensions: Some(vec![]), ..Hello::legacy(0x0303) };
    hello.with(21, &[0; LONG]).with(43, &version_list(versions)).bytes()
}

/// Sends a hello in one piece, and answers what comes back first.
fn answer(lab: &Lab, source: IpAddr, hello: &[u8]) -> Result<Vec<u8>> {
    let server = SocketAddr::new(Lab::server_address(source), 443);
    let mut stream: TcpStream = clients::connect(&lab.client, source, server, PATIENCE)?;
    stream.set_read_timeout(Some(poll::stretched(PATIENCE)))?;
    stream.write_all(hello)?;
    let mut heard = [0; 7];
    let count = stream.read(&mut heard).context("nothing came back")?;
    Ok(heard[..count].to_vec())
}

/// Real handshakes with hellos of [`LONG`] bytes, which name their protocols in front of their versions or behind, by chance;
/// and on each connection a request.
fn long_hellos_are_served(scene: &Scene, count: usize) -> Result<()> {
    let mut protocols: Vec<Vec<u8>> = (0..LONG / 8).map(|n| format!("x/{n:05}").into_bytes()).collect();
    protocols.push(b"http/1.1".to_vec());
    let config = offer(&scene.site.ca(), protocols)?;
    let token = scene.site.token("read")?;
    for source in sources() {
        for number in 0..count {
            let mut client = KeepAlive::connect(&scene.lab.client, source, &config)?;
            let status = client.ask(&token, PATH, &[]).with_context(|| format!("{source}, {number}"))?;
            assert_eq!(status, 200, "{source}, {number}");
        }
    }
    Ok(())
}

fn counted(daemon: &Daemon<'_>, reason: &str) -> Result<(u64, u64)> {
    let scrape = daemon.scrape()?;
    let labels = [("reason", reason)];
    Ok((
        scrape.sum("enforcer_kernel_packets_total", &labels),
        scrape.sum("enforcer_kernel_bytes_total", &labels),
    ))
}

fn each_side(lab: &Lab, words: &str) -> Result<()> {
    lab.client.ip(&format!("link set dev {WIRE} {words}"))?;
    lab.server.ip(&format!("link set dev {WIRE} {words}")).map(drop)
}

#[test]
fn a_hello_behind_the_linear_part_of_a_jumbo_frame_is_judged() -> Result<()> {
    let scene = Scene::new()?;
    each_side(&scene.lab, "mtu 9000")?;
    let _link = scene.lab.hear_answers()?;
    let daemon = scene.daemon(&scene.plan())?;
    assert_eq!(daemon.ask(&["status"])?["interfaces"][0]["mode"], "native");
    long_hellos_are_served(&scene, 4)?;
    let before = counted(&daemon, "hello_accepted")?.0;
    assert_eq!(before, 8);
    for source in sources() {
        // Of TLS 1.1 at most, whatever its first bytes say: protocol_version, fatal (RFC 8446 section 6).
        let heard = answer(&scene.lab, source, &late_versions(&[0x0302, 0x0301]))?;
        assert_eq!(heard, [21, 3, 3, 0, 2, 2, 70], "{source}");
        // This one reaches the server, which finds nothing else in it that it needs.
        let heard = answer(&scene.lab, source, &late_versions(&[0x0304]))?;
        assert!(heard.len() == 7 && heard[0] == 21 && heard[6] != 70, "{source}: {heard:?}");
    }
    assert_eq!(counted(&daemon, "hello_accepted")?.0, before + 2);
    assert!(counted(&daemon, "tls_version")?.0 >= 2);
    // Every hello was one packet.
    assert_eq!(counted(&daemon, "hello_incomplete")?.0, 0);
    Ok(())
}

/// Largest packet that the client's side hands over, in bytes.
fn largest(client: &Netns) -> Result<u64> {
    let shown = client.ip(&format!("-d -j link show dev {WIRE}"))?;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    shown[0]["gso_max_size"].as_u64().context("no gso_max_size")
}

/// Hellos and an upload in packets of many segments; answers the mean bytes of those that went on.
fn serve_super_packets(scene: &Scene, daemon: &Daemon<'_>, source: IpAddr) -> Result<u64> {
    let token = scene.site.token("read")?;
    let config = offer(&scene.site.ca(), vec![b"http/1.1".to_vec()])?;
    let mut client = KeepAlive::connect(&scene.lab.client, source, &config)?;
    assert_eq!(client.ask(&token, PATH, &[])?, 200);
    let before = counted(daemon, "clean")?;
    assert_eq!(client.ask(&token, PATH, &vec![b'x'; CONTENT])?, 200, "{source}");
    let after = counted(daemon, "clean")?;
    let (packets, bytes) = (after.0 - before.0, after.1 - before.1);
    ensure!(bytes > CONTENT as u64, "{source}: {bytes} bytes in {packets} packets were counted");
    Ok(bytes / packets)
}

#[test]
fn packets_of_many_segments_are_judged_as_one_in_generic_mode() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.kernel += "mode = \"generic\"\n";
    plan.limits += "packets = { rate = \"off\" }\n";
    let daemon = scene.daemon(&plan)?;
    long_hellos_are_served(&scene, 4)?;
    assert_eq!(counted(&daemon, "hello_accepted")?.0, 8);
    for source in sources() {
        // The answer to a refusal is a single segment, however many the hello had.
        let heard = answer(&scene.lab, source, &late_versions(&[0x0302]))?;
        assert_eq!(heard, [21, 3, 3, 0, 2, 2, 70], "{source}");
    }
    assert!(counted(&daemon, "tls_version")?.0 >= 2);
    // Ten hellos of five segments each came in fewer packets than that: all but the last one of a hello are incomplete.
    assert!(counted(&daemon, "hello_incomplete")?.0 < 10 * 4);
    for source in sources() {
        let mean = serve_super_packets(&scene, &daemon, source)?;
        assert!(mean > 1_500, "{source}: packets of {mean} bytes are single segments");
    }
    for reason in ["malformed_ipv4", "malformed_ipv6", "malformed_tcp", "truncated"] {
        assert_eq!(counted(&daemon, reason)?.0, 0, "{reason}");
    }
    Ok(())
}

/// Packets of more than 64 KiB, whose length field is 0 (BIG TCP; IPv6 since Linux 5.19, IPv4 since 6.3).
#[test]
fn packets_longer_than_their_length_field_can_say_are_judged_in_generic_mode() -> Result<()> {
    let scene = Scene::new()?;
    each_side(&scene.lab, "gso_max_size 180000 gro_max_size 180000")?;
    ensure!(largest(&scene.lab.client)? == 180_000, "this wire does not take larger packets");
    let mut plan = scene.plan();
    plan.kernel += "mode = \"generic\"\n";
    plan.limits += "packets = { rate = \"off\" }\n";
    let daemon = scene.daemon(&plan)?;
    for source in sources() {
        let mean = serve_super_packets(&scene, &daemon, source)?;
        assert!(mean > 1_500, "{source}: packets of {mean} bytes are single segments");
    }
    for reason in ["malformed_ipv4", "malformed_ipv6", "malformed_tcp", "truncated"] {
        assert_eq!(counted(&daemon, reason)?.0, 0, "{reason}");
    }
    Ok(())
}
