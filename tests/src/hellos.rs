//! ClientHellos of many makes: what `openssl s_client` and rustls send when they are asked to, and what nobody sends.
//!
//! Everything is made when a test runs. Each has a name, for the test's report.

use std::{
    io::Read as _,
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, RootCertStore, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    version::{TLS12, TLS13},
};

use crate::{
    packets::{Hello, record, version_list},
    poll, process,
};

/// For one program.
const PATIENCE: Duration = Duration::from_secs(20);

/// A hello and where it comes from.
pub type Named = (String, Vec<u8>);

/// Sets of options of `openssl s_client`. Debian's offers TLS 1.0 and 1.1 only at its lowest security level.
const OPENSSL: [&str; 18] = [
    "-tls1 -cipher DEFAULT@SECLEVEL=0",
    "-tls1_1 -cipher DEFAULT@SECLEVEL=0",
    "-tls1_2",
    "-tls1_3",
    "",
    "-no_tls1_3",
    "-no_tls1_2 -cipher DEFAULT@SECLEVEL=0",
    "-no_tls1_3 -no_tls1_2 -cipher DEFAULT@SECLEVEL=0",
    "-min_protocol TLSv1 -max_protocol TLSv1.3 -cipher DEFAULT@SECLEVEL=0",
    "-min_protocol TLSv1 -max_protocol TLSv1.1 -cipher DEFAULT@SECLEVEL=0",
    "-noservername -tls1_2",
    "-servername api.example.com -alpn h2,http/1.1",
    "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256",
    "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
    "-groups P-256",
    "-status",
    "-tls1_2 -no_ticket -legacy_renegotiation",
    "-maxfraglen 512",
];

/// What `openssl s_client` sends first for each set of options.
pub fn openssl() -> Result<Vec<Named>> {
    OPENSSL.iter().map(|words| Ok((format!("openssl {words}"), sent_by_openssl(words)?))).collect()
}

/// What it sends for these options, asking for a name.
pub fn openssl_of(words: &str) -> Result<Named> {
    let words = format!("-servername api.example.com {words}");
    Ok((format!("openssl {words}"), sent_by_openssl(&words)?))
}

fn sent_by_openssl(words: &str) -> Result<Vec<u8>> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &listener.local_addr()?.to_string()]);
    command.args(words.split_whitespace()).stdin(Stdio::null());
    let mut client = process::start(&mut command)?;
    listener.set_nonblocking(true)?;
    let mut stream = poll::until("a connection", PATIENCE, || match listener.accept() {
        Ok((stream, _)) => Ok(Some(stream)),
        Err(_) if client.has_ended()? => bail!("openssl s_client {words} does not connect"),
        Err(_) => Ok(None),
    })?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(poll::stretched(PATIENCE)))?;
    let mut hello = vec![0; 5];
    let read = stream.read_exact(&mut hello).and_then(|()| {
        let length = usize::from(u16::from_be_bytes([hello[3], hello[4]]));
        hello.resize(5 + length, 0);
        stream.read_exact(&mut hello[5..])
    });
    drop(stream);
    let finished = client.finish(PATIENCE)?;
    read.with_context(|| format!("openssl s_client {words} sent no hello: {}", finished.stderr))?;
    Ok(hello)
}

/// What rustls clients of different configuration send first.
pub fn rustls() -> Result<Vec<Named>> {
    let all = aws_lc_rs::default_provider().kx_groups;
    let classical: Vec<_> =
        all.iter().copied().filter(|group| group.name() != NamedGroup::X25519MLKEM768).collect();
    let quantum = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    let mut hellos = Vec::new();
    for (versions, names) in [(&[&TLS12][..], "1.2"), (&[&TLS13], "1.3"), (&[&TLS12, &TLS13], "1.2 and 1.3")]
    {
        for (groups, kind) in
            [(&all, "all groups"), (&classical, "classical groups"), (&quantum, "a quantum group")]
        {
            if kind == "a quantum group" && names == "1.2" {
                // Nothing could be agreed upon.
                continue;
            }
            for (alpn, size) in
                [(&[][..], None), (&["h2", "http/1.1"], None), (&["h2"], Some(64)), (&[], Some(600))]
            {
                let bytes = sent_by_rustls(versions, groups, alpn, size)?;
                hellos.push((format!("rustls {names}, {kind}, {alpn:?}, records of {size:?}"), bytes));
            }
        }
    }
    Ok(hellos)
}

fn sent_by_rustls(
    versions: &[&'static SupportedProtocolVersion],
    groups: &[&'static dyn SupportedKxGroup],
    alpn: &[&str],
    size: Option<usize>,
) -> Result<Vec<u8>> {
    let provider = CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.max_fragment_size = size;
    let mut connection = ClientConnection::new(Arc::new(config), "api.example.com".try_into()?)?;
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes)?;
    }
    Ok(bytes)
}

/// A hello in which rustls finds nothing wrong but perhaps its versions.
pub fn plain(legacy: u16) -> Hello {
    Hello { record: 0x0301, legacy, session: 0, suites: 2, extensions: Some(vec![(13, vec![0, 2, 4, 3])]) }
}

/// Versions as they are listed, or not.
const LISTS: [Option<&[u16]>; 17] = [
    None,
    Some(&[]),
    Some(&[0x0304]),
    Some(&[0x0303]),
    Some(&[0x0304, 0x0303]),
    Some(&[0x0302, 0x0301, 0x0300]),
    Some(&[0x0301, 0x0303]),
    Some(&[0x0302, 0x0304]),
    Some(&[0x7a7a, 0x0304, 0x0303]),
    Some(&[0x7a7a, 0x0302]),
    Some(&[0x0a0a]),
    Some(&[0x0305]),
    Some(&[0x0305, 0x0304]),
    Some(&[0x0302, 0x7f1c]),
    Some(&[0xfefd]),
    Some(&[0x0200, 0x0002, 0xffff]),
    Some(&[0x0301; 127]),
];

/// Hellos, and what is none, that no client sends.
pub fn made_up() -> Vec<Named> {
    let mut all = Vec::new();
    for legacy in [0x0002, 0x0200, 0x0300, 0x0301, 0x0302, 0x0303, 0x0304, 0x0305, 0x0403, 0xfefd, 0xffff] {
        for list in LISTS {
            let hello = plain(legacy);
            let hello = match list {
                Some(list) => hello.with(43, &version_list(list)),
                None => hello,
            };
            all.push((format!("legacy {legacy:04x}, listed {list:04x?}"), hello.bytes()));
        }
        let bare = Hello { extensions: None, ..plain(legacy) };
        all.push((format!("legacy {legacy:04x}, no extensions"), bare.bytes()));
    }
    let good = plain(0x0303).with(43, &version_list(&[0x0304, 0x0303]));
    let old = plain(0x0303).with(43, &version_list(&[0x0302]));
    for (name, hello) in [("good", &good), ("old", &old)] {
        let message = hello.message();
        for version in [0x0300, 0x0301, 0x0303, 0x0304, 0x03ff, 0x0203, 0x0400] {
            all.push((format!("{name}, record {version:04x}"), record(version, &message)));
        }
        for size in [1, 3, 4, 5, 40] {
            let records: Vec<u8> = message.chunks(size).flat_map(|part| record(0x0303, part)).collect();
            all.push((format!("{name}, records of {size}"), records));
        }
        let whole = record(0x0301, &message);
        for (what, front) in [
            ("an empty record", record(0x0301, &[])),
            ("a change of cipher", vec![20, 3, 3, 0, 1, 1]),
            ("a warning", vec![21, 3, 3, 0, 2, 1, 90]),
            ("application data", vec![23, 3, 3, 0, 1, 7]),
            ("a HelloRequest", record(0x0301, &[0, 0, 0, 0])),
            ("a line end", vec![b'\n']),
        ] {
            all.push((format!("{name} behind {what}"), [front, whole.clone()].concat()));
        }
        let between =
            [record(0x0301, &message[..9]), vec![21, 3, 3, 0, 2, 1, 90], record(0x0301, &message[9..])];
        all.push((format!("{name} around a warning"), between.concat()));
        let empty = [record(0x0301, &message[..9]), record(0x0301, &[]), record(0x0301, &message[9..])];
        all.push((format!("{name} around an empty record"), empty.concat()));
        all.push((format!("{name} and more behind it"), [whole.clone(), vec![23, 3, 3, 0, 1, 7]].concat()));
        all.push((
            format!("{name}, twice in a record"),
            record(0x0301, &[message.clone(), message.clone()].concat()),
        ));
        let twice = hello.clone().with(43, &version_list(&[0x0301]));
        all.push((format!("{name}, a second list"), twice.bytes()));
        let long = hello.clone().with(21, &vec![0; 15_000]);
        all.push((format!("{name}, 15,000 bytes of padding"), long.bytes()));
        let longest = (0..4).fold(plain(0x0303), |hello, _| hello.with(21, &vec![0; 16_000])).message();
        let parts: Vec<u8> = longest.chunks(16_000).flat_map(|part| record(0x0303, part)).collect();
        all.push((format!("{name}, 64,000 bytes"), parts));
        let many = (0..60).fold(plain(0x0303), |hello, number| hello.with(0x5500 + number, &[]));
        let list = hello.extensions.iter().flatten().rev().take(1);
        let many = list.fold(many, |many, (kind, content)| many.with(*kind, content));
        all.push((format!("{name}, its list behind 60 extensions"), many.bytes()));
        let mut padded = hello.clone();
        padded.extensions.get_or_insert_default().insert(0, (21, vec![0; 4_000]));
        let padded = padded.message();
        let tiny: Vec<u8> = padded.chunks(1).flat_map(|part| record(0x0303, part)).collect();
        all.push((format!("{name}, 4,000 records"), tiny));
    }
    let message = |length: u32| [vec![1], length.to_be_bytes()[1..].to_vec(), vec![3, 3]].concat();
    for length in [0, 1, 2, 0xffff, 0x1_0000, 0xff_ffff] {
        all.push((format!("a message of {length} bytes begins"), record(0x0301, &message(length))));
    }
    for (name, bytes) in [
        ("nothing", &b""[..]),
        ("SSL 2", b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x01\x00\x80\x03\x00\x80\x07\x00\xc0"),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: api.example.com\r\n\r\n"),
        ("HTTP/2 in clear", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("PROXY", b"PROXY TCP4 198.18.0.7 198.18.0.1 50000 443\r\n"),
        ("a ServerHello", b"\x16\x03\x03\x00\x04\x02\x00\x00\x00"),
        ("zeros", &[0; 64]),
    ] {
        all.push((name.to_owned(), bytes.to_vec()));
    }
    all
}

/// All of them.
pub fn all() -> Result<Vec<Named>> {
    Ok([openssl()?, rustls()?, made_up()].concat())
}
