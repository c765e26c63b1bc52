//! The harness itself: what it makes works, and goes away.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::Result;
use enforcer_tests::{
    cleanup, clients, eventually,
    flood::{Flood, Segment},
    netns::{Lab, SERVER_V4, SERVER_V6, source_v4, source_v6},
    process, scrape,
    upstream::Upstream,
};

#[test]
fn both_families_cross_the_wire_and_nothing_stays() -> Result<()> {
    let lab = Lab::new()?;
    let names = [lab.client.name().to_owned(), lab.server.name().to_owned()];
    for (source, server) in
        [(IpAddr::from(source_v4(3)), IpAddr::from(SERVER_V4)), (source_v6(3).into(), SERVER_V6.into())]
    {
        let listener = lab.server.enter(|| Ok(TcpListener::bind(SocketAddr::new(server, 0))?))?;
        let stream = clients::connect(&lab.client, source, listener.local_addr()?, Duration::from_secs(5))?;
        let (_, peer) = listener.accept()?;
        assert_eq!(peer, stream.local_addr()?);
        assert_eq!(peer.ip(), source);
    }
    drop(lab);
    let left = cleanup::leftovers();
    assert!(names.iter().all(|name| !left.contains(name)), "{left:?}");
    Ok(())
}

#[test]
fn the_upstream_answers_with_what_arrived() -> Result<()> {
    let lab = Lab::new()?;
    let upstream = Upstream::start(&lab.server)?;
    let (status, body) = scrape::get(&lab.server, upstream.address, "/a/b?c=d")?;
    let echo: serde_json::Value = serde_json::from_str(&body)?;
    assert_eq!((status, &echo["path"], &echo["query"]), (200, &"/a/b".into(), &"c=d".into()));
    let address = upstream.address;
    let streamed = lab.server.enter(|| {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET /stream/3 HTTP/1.0\r\n\r\n")?;
        let mut all = String::new();
        stream.read_to_string(&mut all)?;
        Ok(all)
    })?;
    assert_eq!(streamed.matches('x').count(), 3 * enforcer_tests::upstream::PIECE);
    assert_eq!(upstream.requests(), 2);
    Ok(())
}

#[test]
fn a_flood_arrives_with_the_source_it_claims() -> Result<()> {
    let lab = Lab::new()?;
    for (from, to) in
        [("198.18.77.7".parse()?, SERVER_V4.into()), ("2001:db8:77::7".parse()?, SERVER_V6.into())]
    {
        let listener = lab.server.enter(|| Ok(TcpListener::bind(SocketAddr::new(to, 0))?))?;
        let port = listener.local_addr()?.port();
        let flood = Flood { segment: Segment::Syn, from, sources: 1, to, port, count: 50, per_second: None };
        assert_eq!(flood.send(&lab.client)?.packets, 50);
        eventually!(10, format!("half-open connections from {from}"), {
            let mut sockets = lab.server.command("ss");
            let sockets = process::run(sockets.args(["-Htn", "state", "syn-recv"]), Duration::from_secs(5))?;
            sockets.stdout.contains(&from.to_string())
        })?;
    }
    Ok(())
}
