//! Whose connection and whose request it is where something of the operator's own stands in between: load balancers that speak the
//! PROXY protocol, and proxies that set `X-Forwarded-For`. Nobody else is believed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::{
    bans::{
        banned::Banned,
        projection::{Place, Write},
    },
    config::{self, AllowedPort, Feature, ForwardedBy},
    denial::Denial,
};
use enforcer_common::ban::{FOREVER, Listing};
use enforcer_tests::{
    edge::{Edge, NAME, Site},
    frames::{self, END_HEADERS, END_STREAM, frame, kind::HEADERS, preface, request},
    witness::Witness,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::bodies::{eventually, within};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.18.0.1 40000 443\r\n";

/// A header of version 2 for a client of this last byte, with something behind the addresses.
fn v2(last: u8) -> Vec<u8> {
    let addresses = [203, 0, 113, last, 198, 18, 0, 1, 156, 64, 1, 187];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10".as_slice(), &addresses, &[4, 0, 1, 0]].concat()
}

/// One request on a connection that begins with `header`, and the whole answer; nothing if there is none.
async fn ask(edge: &Edge, header: &[u8], fields: &str) -> Result<String> {
    let mut stream = TcpStream::connect(edge.address).await?;
    stream.write_all(header).await?;
    let mut answer = Vec::new();
    if let Ok(mut stream) = within(edge.tls_over(stream, NAME, &["http/1.1"])).await? {
        let request = format!("GET /public/x HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let _ = within(stream.read_to_end(&mut answer)).await?;
    }
    Ok(String::from_utf8(answer)?)
}

fn from(witness: &Witness) -> Vec<String> {
    let seen = witness.take();
    seen.iter().map(|request| request.values("x-forwarded-for").join(" ")).collect()
}

#[tokio::test]
async fn a_load_balancer_says_whose_connection_it_is() -> Result<()> {
    let witness = Witness::start().await?;
    let mut site = Site::new(witness.address)?;
    site.config.listeners[0].proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    site.config.http.max_connections_per_source = 1;
    let mut edge = site.start()?;
    for header in [V1, &v2(7)] {
        assert!(ask(&edge, header, "").await?.starts_with("HTTP/1.1 200"));
        assert_eq!(from(&witness), ["203.0.113.7"]);
        eventually(|| edge.metrics.connections_open.get() == 0).await?;
    }
    // Itself, to see whether somebody is here.
    assert!(ask(&edge, b"PROXY UNKNOWN\r\n", "").await?.starts_with("HTTP/1.1 200"));
    assert_eq!(from(&witness), ["127.0.0.1"]);
    // Its clients' offences are theirs, and each has connections of its own.
    assert!(ask(&edge, &v2(8), "a b: c\r\n").await?.starts_with("HTTP/1.1 400"));
    let offence = within(edge.offences.recv()).await?.unwrap();
    assert_eq!(
        (offence.source.to_string().as_str(), offence.denial),
        ("203.0.113.8", Denial::RequestMalformed)
    );
    eventually(|| edge.metrics.connections_open.get() == 0).await?;
    let mut open = Vec::new();
    for last in [1, 2, 1] {
        let mut stream = TcpStream::connect(edge.address).await?;
        stream.write_all(&v2(last)).await?;
        open.push(within(edge.tls_over(stream, NAME, &["http/1.1"])).await?);
    }
    assert_eq!(open.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(edge.metrics.connections.with_label_values(&["connection_limit"]).get(), 1);
    Ok(())
}

#[tokio::test]
async fn a_load_balancer_that_does_not_say_it_is_not_served() -> Result<()> {
    let witness = Witness::start().await?;
    let mut site = Site::new(witness.address)?;
    site.config.listeners[0].proxy_protocol_from = vec!["127.0.0.1".parse().unwrap()];
    let mut edge = site.start()?;
    for header in [&b""[..], b"PROXY TCP4 203.0.113.7\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
        assert_eq!(ask(&edge, header, "").await?, "");
    }
    assert_eq!(edge.metrics.connections.with_label_values(&["proxy_header"]).get(), 3);
    assert!(edge.offences.try_recv().is_err() && from(&witness).is_empty());
    Ok(())
}

#[tokio::test]
async fn whoever_is_no_load_balancer_cannot_choose_his_address() -> Result<()> {
    let witness = Witness::start().await?;
    let mut site = Site::new(witness.address)?;
    site.config.listeners[0].proxy_protocol_from = vec!["198.18.0.0/24".parse().unwrap()];
    let mut edge = site.start()?;
    assert_eq!(ask(&edge, V1, "").await?, "");
    let offence = within(edge.offences.recv()).await?.unwrap();
    assert_eq!((offence.source.to_string().as_str(), offence.denial), ("127.0.0.1", Denial::TlsHandshake));
    let forged = "x-forwarded-for: 203.0.113.7\r\nforwarded: for=203.0.113.7\r\nx-real-ip: 203.0.113.7\r\n";
    assert!(ask(&edge, b"", forged).await?.starts_with("HTTP/1.1 200"));
    let seen = witness.take();
    assert_eq!(seen[0].values("x-forwarded-for"), ["127.0.0.1"]);
    assert!(seen[0].values("forwarded").is_empty() && seen[0].values("x-real-ip").is_empty());
    Ok(())
}

#[tokio::test]
async fn a_trusted_proxy_says_whose_request_it_is() -> Result<()> {
    let witness = Witness::start().await?;
    for (by, field) in
        [(ForwardedBy::XForwardedFor, "x-forwarded-for: "), (ForwardedBy::Forwarded, "forwarded: for=")]
    {
        let mut site = Site::new(witness.address)?;
        site.config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        site.config.http.forwarded_by = by;
        let mut edge = site.start()?;
        // What the client sent itself stands before.
        let fields = format!("{field}192.0.2.66\r\n{field}203.0.113.7\r\nx-forwarded-host: evil.example\r\n");
        assert!(ask(&edge, b"", &fields).await?.starts_with("HTTP/1.1 200"));
        let seen = witness.take();
        assert_eq!(seen[0].values("x-forwarded-for"), ["203.0.113.7"]);
        assert_eq!(seen[0].values("x-forwarded-host"), [NAME]);
        assert!(seen[0].values("forwarded").is_empty());
        // An offence in a request is its client's; one in the connection is the proxy's, and bans nobody.
        let misdirected = format!("{field}203.0.113.7\r\ncontent-length: 0\r\n");
        let answer = ask(&edge, b"", &misdirected.replace("content-length: 0", "host: a")).await?;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        let offence = within(edge.offences.recv()).await?.unwrap();
        assert_eq!(
            (offence.source.to_string().as_str(), offence.denial),
            ("203.0.113.7", Denial::RequestMalformed)
        );
        assert!(ask(&edge, b"", "a b: c\r\n").await?.starts_with("HTTP/1.1 400"));
        assert_eq!(edge.metrics.offences_of_proxies.get(), 1);
        assert_eq!(edge.metrics.denials.with_label_values(&["request_malformed"]).get(), 2);
        assert!(edge.offences.try_recv().is_err());
    }
    Ok(())
}

/// Bans a source, or lifts its ban, as the ban task does.
pub(super) fn ban(banned: &Banned, source: &str, until: Option<u64>) {
    let key = source.parse::<enforcer::prefix::Prefix>().unwrap().source_key(64).unwrap();
    banned.apply(&[Write { place: Place::Source(key), listing: until.map(Listing::banned) }]);
}

#[tokio::test]
async fn a_banned_client_behind_a_load_balancer_does_not_get_to_its_handshake() -> Result<()> {
    let witness = Witness::start().await?;
    let mut site = Site::new(witness.address)?;
    site.config.listeners[0].proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    let mut edge = site.start()?;
    ban(&edge.banned, "203.0.113.7", Some(FOREVER));
    assert_eq!(ask(&edge, V1, "").await?, "");
    assert_eq!(edge.metrics.connections.with_label_values(&["banned"]).get(), 1);
    assert!(ask(&edge, &v2(8), "").await?.starts_with("HTTP/1.1 200"), "others are served");
    ban(&edge.banned, "203.0.113.7", None);
    assert!(ask(&edge, V1, "").await?.starts_with("HTTP/1.1 200"));
    assert_eq!(from(&witness).len(), 2);
    assert!(edge.offences.try_recv().is_err(), "to be banned is no offence");
    Ok(())
}

#[tokio::test]
async fn a_banned_client_behind_a_load_balancer_does_not_keep_its_connection() -> Result<()> {
    let witness = Witness::start().await?;
    let mut site = Site::new(witness.address)?;
    site.config.listeners[0].proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
    let edge = site.start()?;
    let mut stream = TcpStream::connect(edge.address).await?;
    stream.write_all(V1).await?;
    let mut client = within(edge.tls_over(stream, NAME, &["h2"])).await??;
    let get = |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &request("GET", "/public/x"));
    client.write_all(&[preface(), get(1)].concat()).await?;
    let (mut statuses, mut goodbyes) = (Vec::new(), Vec::new());
    while let Some(frame) = within(frames::next(&mut client)).await?? {
        if let Some(status) = frame.status() {
            if statuses.is_empty() {
                ban(&edge.banned, "203.0.113.7", Some(FOREVER));
                client.write_all(&get(3)).await?;
            }
            statuses.push(status);
        }
        goodbyes.extend(frame.reason());
    }
    assert_eq!(statuses, [200, 403]);
    assert!(!goodbyes.is_empty() && goodbyes.iter().all(|reason| *reason == "NO_ERROR"), "{goodbyes:?}");
    eventually(|| edge.metrics.connections_open.get() == 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_ban_holds_for_the_next_request_of_whoever_it_is_behind_a_proxy() -> Result<()> {
    let witness = Witness::start().await?;
    let mut site = Site::new(witness.address)?;
    site.config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let edge = site.start()?;
    for mut client in edge.clients().await? {
        let mut get = async |source: &str| -> Result<(u16, bool, String)> {
            let request = http::Request::get("/public/x").header("x-forwarded-for", source);
            let body = http_body_util::BodyExt::boxed(http_body_util::Empty::new());
            let answer = within(client.send(request.body(body)?)).await??;
            let (status, closes) = (answer.status().as_u16(), answer.headers().contains_key("connection"));
            let body = http_body_util::BodyExt::collect(answer.into_body()).await?.to_bytes();
            Ok((status, closes, String::from_utf8_lossy(&body).into_owned()))
        };
        assert_eq!(get("203.0.113.7").await?.0, 200);
        ban(&edge.banned, "203.0.113.7", Some(FOREVER));
        let (status, closes, body) = get("203.0.113.7").await?;
        assert!(status == 403 && body.contains("\"code\":\"banned\""), "{status} {body}");
        assert!(!closes, "the connection is the proxy's");
        assert_eq!(get("203.0.113.8").await?.0, 200);
        ban(&edge.banned, "203.0.113.7", Some(1));
        assert_eq!(get("203.0.113.7").await?.0, 200, "a ban that has ended");
        ban(&edge.banned, "203.0.113.7", None);
    }
    assert_eq!(edge.metrics.denials.with_label_values(&["banned"]).get(), 2);
    Ok(())
}

/// Lets this machine through to one port.
fn open_port(kernel: &mut config::Kernel, port: u16) {
    kernel.allow_ports = vec![AllowedPort { source: "127.0.0.0/8".parse().unwrap(), port }];
}

#[tokio::test]
async fn a_ban_ends_where_the_kernel_would_let_it_end() -> Result<()> {
    let witness = Witness::start().await?;
    type Change = fn(&mut config::Kernel);
    let changes: [(Change, u16); 6] = [
        (|_| (), 403),
        (|kernel| kernel.dry_run = vec![Feature::Bans], 200),
        (|kernel| kernel.management_ports = vec![0], 200),
        (
            |kernel| {
                kernel.management_ports = vec![0];
                kernel.management_from = vec!["192.0.2.0/24".parse().unwrap()];
            },
            403,
        ),
        (|kernel| open_port(kernel, 0), 200),
        (|kernel| open_port(kernel, 1), 403),
    ];
    for (number, (change, expected)) in changes.iter().enumerate() {
        let mut site = Site::new(witness.address)?;
        change(&mut site.config.kernel);
        let edge = site.start()?;
        let mut client = edge.http1().await?;
        // Its own client, for there is no kernel part.
        ban(&edge.banned, "127.0.0.1", Some(FOREVER));
        let body = http_body_util::BodyExt::boxed(http_body_util::Empty::new());
        let answer = within(client.send(http::Request::get("/public/x").body(body)?)).await??;
        assert_eq!(answer.status(), *expected, "{number}");
        assert_eq!(answer.headers().contains_key("connection"), *expected == 403, "{number}");
        assert_eq!(edge.http1().await.is_ok(), *expected == 200, "{number}");
    }
    Ok(())
}

#[tokio::test]
async fn an_id_is_believed_of_a_trusted_proxy_alone_and_only_if_it_is_one() -> Result<()> {
    let witness = Witness::start().await?;
    let long = "a".repeat(129);
    for trusted in [true, false] {
        let mut site = Site::new(witness.address)?;
        if trusted {
            site.config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        }
        let edge = site.start()?;
        for (id, is_good) in [
            ("4bf92f35-77b3_4da6.a3ce~929d:0e0e+4736/x=@", true),
            (&long[1..], true),
            (long.as_str(), false),
            ("", false),
            ("a b", false),
            ("a\"b", false),
            ("a\\b", false),
            ("caf\u{e9}", false),
            ("one\r\nx-request-id: two", false),
        ] {
            assert!(ask(&edge, b"", &format!("x-request-id: {id}\r\n")).await?.starts_with("HTTP/1.1 200"));
            let seen = witness.take();
            let [got] = seen[0].values("x-request-id")[..] else { anyhow::bail!("{seen:?}") };
            if trusted && is_good {
                assert_eq!(got, id);
            } else {
                assert!(got.len() == 32 && got.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}: {got}");
            }
        }
        // It is the one of problem documents, too.
        let refused = ask(&edge, b"", "x-request-id: here-1\r\ncontent-length: 99999999\r\n").await?;
        assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
        assert_eq!(refused.contains("\"request_id\":\"here-1\""), trusted, "{refused}");
    }
    Ok(())
}
