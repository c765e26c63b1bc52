//! ClientHellos on a real wire: refused ones are answered and leave no socket, allowed ones get through however they are cut.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use enforcer_tests::{
    clients::{self, HOST, Handshake},
    eventually,
    keepalive::offer,
    netns::{Lab, Netns, SERVER_V4, SERVER_V6, WIRE, assert_inside, source_v4, source_v6},
    packets::{DATA, Hello, SYN, tcp_at, with_checksum},
    poll,
    scene::Scene,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use rustls::{ClientConnection, Stream};

const PATIENCE: Duration = Duration::from_secs(20);
/// Handshakes with a hello in many segments; `ENFORCER_HANDSHAKES` asks for fewer, where a CPU is emulated.
const HANDSHAKES: usize = 10_000;
/// Fewer bytes than any hello has.
const SEGMENT: u32 = 300;

/// Handshakes on a wire that loses segments.
const LOSSY_HANDSHAKES: usize = 1_000;
/// One in so many segments is lost, in each direction.
const LOSS: u64 = 40;
/// So many shake hands at once: whoever lost a segment waits for it.
const CLIENTS: usize = 24;
/// Segments that were lost several times take long, and so does a CPU that others use.
const LOSSY_PATIENCE: Duration = Duration::from_secs(120);

/// States of sockets (include/net/tcp_states.h): those that wait for nothing but time, and listeners.
const IDLE: [&str; 2] = ["06", "0A"];

/// Sockets of the server at its protected port that somebody has to end.
pub(super) fn sockets(server: &Netns) -> Result<usize> {
    let tables = server.enter(|| {
        let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        Ok(read("tcp")? + &read("tcp6")?)
    })?;
    let mine = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().unwrap_or_default();
        let state = words.nth(1).unwrap_or_default();
        local.ends_with(":01BB") && !IDLE.contains(&state)
    };
    Ok(tables.lines().filter(mine).count())
}

#[test]
fn a_refused_client_gets_an_alert_and_the_server_keeps_no_socket() -> Result<()> {
    let scene = Scene::new()?;
    let lab = &scene.lab;
    let _link = lab.hear_answers()?;
    let daemon = scene.daemon(&scene.plan())?;
    for source in [IpAddr::from(source_v4(1)), source_v6(1).into()] {
        for version in ["-tls1", "-tls1_1"] {
            let shake = clients::openssl(&lab.client, source, version, PATIENCE)?;
            let Handshake::Refused(said) = &shake else { panic!("{version} from {source}: {shake:?}") };
            assert!(said.contains("alert protocol version"), "{version} from {source}: {said}");
            eventually!(5, format!("no socket for {version} from {source}"), sockets(&lab.server)? == 0)?;
        }
        for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let shake = clients::openssl(&lab.client, source, version, PATIENCE)?;
            assert_eq!(shake, Handshake::Done(name.to_owned()));
        }
    }
    let counted = daemon.scrape()?;
    assert!(counted.packets("tls_version") >= 4);
    assert!(counted.packets("server_reset") >= 4);
    Ok(())
}

/// The hello arrives, and then nothing: neither an acknowledgement of the alert nor the hello again.
#[test]
fn a_silent_client_leaves_no_socket() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let source: IpAddr = source_v4(1).into();
    let server = SocketAddr::new(Lab::server_address(source), 443);
    let hello = Hello::legacy(0x0301).bytes();
    let stream = scene.lab.client.enter(|| {
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(&hello)?;
        Ok(stream)
    })?;
    scene.lab.client.ip(&format!("link set {WIRE} down"))?;
    assert!(daemon.scrape()?.packets("tls_version") >= 1);
    // Long before the daemon's own time limit for handshakes.
    eventually!(6, "the end of the server's socket", sockets(&scene.lab.server)? == 0)?;
    drop(stream);
    Ok(())
}

/// Sends a SYN and an old hello from somebody's ends, which only their addresses and ports are known of.
fn forge(scene: &Scene, ends: SocketAddrV4) -> Result<()> {
    scene.lab.client.enter(|| {
        assert_inside()?;
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        let to = SockaddrIn::from(SocketAddrV4::new(SERVER_V4, 0));
        for (sequence, flags, data) in [(7, SYN, Vec::new()), (8, DATA, Hello::legacy(0x0301).bytes())] {
            let mut frame = tcp_at(IpAddr::V4(*ends.ip()), 443, sequence, flags, &data);
            frame[30..34].copy_from_slice(&SERVER_V4.octets());
            frame[34..36].copy_from_slice(&ends.port().to_be_bytes());
            sendto(raw.as_raw_fd(), &with_checksum(frame)[14..], &to, MsgFlags::empty())?;
        }
        Ok(())
    })
}

/// Listening sockets at the protected port.
fn listeners(server: &Netns) -> Result<usize> {
    let tables = server.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/tcp")?))?;
    let listens = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.get(1).is_some_and(|local| local.ends_with(":01BB")) && words.get(3) == Some(&"0A")
    };
    Ok(tables.lines().filter(listens).count())
}

/// Whoever forges two packets with the ends of a connection has neither it ended nor, where there is none, the listener.
#[test]
fn forged_hellos_end_no_socket() -> Result<()> {
    let scene = Scene::new()?;
    let daemon = scene.daemon(&scene.plan())?;
    let server = SocketAddr::new(Lab::server_address(source_v4(1).into()), 443);
    let config = offer(&scene.site.ca(), Vec::new())?;
    let (mut victim, mut tls, ends) = scene.lab.client.enter(|| {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(poll::stretched(PATIENCE)))?;
        let mut tls = ClientConnection::new(Arc::clone(&config), HOST.try_into()?)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let SocketAddr::V4(ends) = stream.local_addr()? else {
            anyhow::bail!("an address of another family")
        };
        Ok((stream, tls, ends))
    })?;
    let listening = listeners(&scene.lab.server)?;
    forge(&scene, ends)?;
    // Nobody has this port.
    forge(&scene, SocketAddrV4::new(*ends.ip(), 9))?;
    let refused = || Ok::<_, anyhow::Error>(daemon.scrape()?.packets("tls_version"));
    eventually!(5, "two refused hellos", refused()? == 2)?;
    // A silent client's socket is ended, and it was refused last.
    let hello = Hello::legacy(0x0301).bytes();
    let silent = scene.lab.client.enter(|| {
        let mut stream = TcpStream::connect(server)?;
        stream.write_all(&hello)?;
        Ok(stream)
    })?;
    scene.lab.client.ip(&format!("link set {WIRE} down"))?;
    assert_eq!(refused()?, 3);
    assert_eq!(sockets(&scene.lab.server)?, 2);
    eventually!(6, "the end of the silent client's socket", sockets(&scene.lab.server)? == 1)?;
    assert_eq!(listeners(&scene.lab.server)?, listening);
    drop(silent);
    scene.lab.client.ip(&format!("link set {WIRE} up"))?;
    scene.lab.client.enter(|| {
        let mut stream = Stream::new(&mut tls, &mut victim);
        write!(stream, "GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        anyhow::ensure!(answer.starts_with(b"HTTP/1.1 "), "{answer:?}");
        Ok(())
    })
}

/// Has clients send segments of no more than [`SEGMENT`] bytes: what the server announces is what they may send.
fn short_segments(lab: &Lab) -> Result<()> {
    for family in ["-4", "-6"] {
        let routes = lab.server.ip(&format!("{family} route show dev {WIRE}"))?;
        for route in routes.lines().filter(|route| !route.starts_with("fe80")) {
            lab.server.ip(&format!("{family} route change {route} dev {WIRE} advmss {SEGMENT}"))?;
        }
    }
    Ok(())
}

/// Handshakes to make: so many, or as many as are asked for.
fn asked_for(usual: usize) -> Result<usize> {
    let asked = std::env::var("ENFORCER_HANDSHAKES").ok();
    Ok(asked.map_or(Ok(usual), |count| count.parse())?)
}

#[test]
fn hellos_in_many_segments_never_fail() -> Result<()> {
    let handshakes = asked_for(HANDSHAKES)?;
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    // Whoever is over the limit repeats himself, and takes longer.
    plan.limits += "hellos = { rate = \"off\" }\nconnections = { rate = \"off\" }\n";
    let daemon = scene.daemon(&plan)?;
    short_segments(&scene.lab)?;
    let config = offer(&scene.site.ca(), Vec::new())?;
    for source in [IpAddr::from(source_v4(1)), source_v6(1).into()] {
        let server = SocketAddr::new(Lab::server_address(source), 443);
        scene.lab.client.enter(|| {
            for number in 0..handshakes / 2 {
                let mut stream = TcpStream::connect(server)?;
                stream.set_read_timeout(Some(poll::stretched(PATIENCE)))?;
                let mut tls = ClientConnection::new(Arc::clone(&config), HOST.try_into()?)?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut stream)
                        .with_context(|| format!("handshake {number} to {server}"))?;
                }
            }
            Ok(())
        })?;
    }
    let counted = daemon.scrape()?;
    assert!(counted.packets("hello_accepted") >= handshakes as u64);
    assert!(counted.packets("hello_incomplete") >= 2 * handshakes as u64, "hellos were not cut");
    for refused in ["tls_version", "malformed_hello", "not_hello", "refused_connection"] {
        assert_eq!(counted.packets(refused), 0, "{refused}");
    }
    Ok(())
}

/// However hellos are cut and whichever part of them is sent again: real clients that lose segments at random all get through.
#[test]
fn handshakes_on_a_lossy_wire_never_fail() -> Result<()> {
    let handshakes = asked_for(LOSSY_HANDSHAKES)?.min(LOSSY_HANDSHAKES);
    let (lab, between) = Lab::lossy(LOSS, 7)?;
    let scene = Scene::on(lab)?;
    let mut plan = scene.plan();
    plan.limits += "hellos = { rate = \"off\" }\nconnections = { rate = \"off\" }\n";
    // This is about packets, and not about patience.
    plan.handshake_timeout = Duration::from_secs(300);
    let daemon = scene.daemon(&plan)?;
    short_segments(&scene.lab)?;
    let config = offer(&scene.site.ca(), Vec::new())?;
    let next = AtomicUsize::new(0);
    let shake = || {
        scene.lab.client.enter(|| {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= handshakes {
                    return Ok(());
                }
                let source = if number.is_multiple_of(2) { SERVER_V4.into() } else { SERVER_V6.into() };
                let mut stream = TcpStream::connect(SocketAddr::new(source, 443))?;
                stream.set_read_timeout(Some(poll::stretched(LOSSY_PATIENCE)))?;
                let mut tls = ClientConnection::new(Arc::clone(&config), HOST.try_into()?)?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut stream).with_context(|| format!("handshake {number}"))?;
                }
            }
        })
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(shake)).collect();
        clients.into_iter().try_for_each(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
    })?;
    let counted = daemon.scrape()?;
    let (lost, repeated) = (between.lost(), retransmitted(&scene.lab.client)?);
    assert!(lost >= handshakes as u64 / 10 && repeated > 0, "{lost} segments lost, {repeated} sent again");
    assert!(counted.packets("hello_accepted") >= handshakes as u64);
    for refused in ["tls_version", "malformed_hello", "not_hello", "refused_connection"] {
        assert_eq!(counted.packets(refused), 0, "{refused}");
    }
    Ok(())
}

/// Segments that the namespace's TCP has sent again (RFC 4022, tcpRetransSegs).
fn retransmitted(netns: &Netns) -> Result<u64> {
    let table = netns.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/snmp")?))?;
    let lines = table.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let [names, values]: [Vec<&str>; 2] = lines
        .map(|line| line.split(' ').collect())
        .collect::<Vec<Vec<&str>>>()
        .try_into()
        .map_err(|_| anyhow!("no lines of TCP: {table}"))?;
    let value = names.iter().zip(values).find_map(|(name, value)| (*name == "RetransSegs").then_some(value));
    Ok(value.context("no RetransSegs")?.parse()?)
}
