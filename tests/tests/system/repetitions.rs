//! Clients that repeat parts of their hello, in every way that a network can make them, and in ways that only an attacker would: what the
//! server's application has read decides. A good hello arrives as it is; an old one never does, whatever was sent before it that the
//! server ignored and the program could not know to be ignored.

use std::net::{IpAddr, SocketAddr, TcpListener};

use anyhow::{Context as _, Result, bail, ensure};
use enforcer::{
    config::{self, VerifyChecksums},
    kernel::Kernel,
};
use enforcer_tests::{
    kernel::plain,
    netns::{Lab, WIRE},
    packets::{Hello, version_list},
    segments::{Flaw, Piece, Writer, read_now},
};

const PORT: u16 = 443;
/// Bytes of a segment.
const CUT: usize = 300;
/// What a client sends behind its hello: a record that is not looked at.
const BEHIND: &[u8] = &[0x14, 3, 3, 0, 1, 1];

/// What the application may read.
enum Reads {
    /// This, to the byte.
    All(Vec<u8>),
    /// Less than this, from its beginning.
    LessThan(Vec<u8>),
}

/// A connection, and what comes of it.
struct Step {
    name: &'static str,
    /// Data that comes with the SYN.
    with_syn: Vec<u8>,
    pieces: Vec<Piece>,
    reads: Reads,
}

impl Step {
    fn good(name: &'static str, pieces: Vec<Vec<Piece>>) -> Self {
        Self { name, with_syn: Vec::new(), pieces: pieces.concat(), reads: Reads::All(good()) }
    }

    fn old(name: &'static str, hello: Vec<u8>, pieces: Vec<Vec<Piece>>) -> Self {
        Self { name, with_syn: Vec::new(), pieces: pieces.concat(), reads: Reads::LessThan(hello) }
    }
}

/// A hello with a post-quantum key share, its versions last.
fn hello(versions: &[u16]) -> Vec<u8> {
    Hello::legacy(0x0303).with(51, &[7; 1_200]).with(43, &version_list(versions)).bytes()
}

fn good() -> Vec<u8> {
    hello(&[0x0304, 0x0303])
}

/// As long as the good one, and like it but for its last bytes.
fn old() -> Vec<u8> {
    hello(&[0x0302, 0x0301])
}

/// As long as the good one, and other than it from its first bytes on.
fn old_at_once() -> Vec<u8> {
    let mut hello = good();
    // `legacy_version`, and the extension that would say more becomes one that nobody knows.
    hello[10] = 1;
    let last = hello.len() - 9;
    hello[last..last + 2].copy_from_slice(&[0x7a, 0x7a]);
    hello
}

/// The hello from `from` on, in segments of `length`.
fn cut(hello: &[u8], from: usize, length: usize) -> Vec<Piece> {
    let parts = hello[from..].chunks(length).enumerate();
    parts.map(|(number, data)| Piece::new((from + number * length) as i64, data)).collect()
}

/// One segment.
fn part(hello: &[u8], range: std::ops::Range<usize>) -> Vec<Piece> {
    vec![Piece::new(range.start as i64, &hello[range])]
}

fn whole(hello: &[u8]) -> Vec<Piece> {
    part(hello, 0..hello.len())
}

fn twice(pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.into_iter().flat_map(|piece| [piece.clone(), piece]).collect()
}

fn ignored(pieces: Vec<Piece>, flaw: Flaw) -> Vec<Piece> {
    pieces.into_iter().map(|piece| piece.with(flaw)).collect()
}

fn far(pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.into_iter().map(|piece| Piece { at: piece.at + FAR, ..piece }).collect()
}

/// Where a second SYN begins: beyond every window.
const FAR: i64 = 1 << 24;

/// What a network does to a client that means well.
fn well_meant() -> Vec<Step> {
    let good = good();
    let end = good.len();
    let changed = {
        let mut changed = good[..CUT].to_vec();
        changed[100] ^= 1;
        vec![Piece::new(0, &changed)]
    };
    let goes_on = Step {
        reads: Reads::All([&good, BEHIND].concat()),
        ..Step::good(
            "the whole hello again behind itself, and what follows",
            vec![cut(&good, 0, CUT), whole(&good), cut(&good, 0, 500), vec![Piece::new(end as i64, BEHIND)]],
        )
    };
    vec![
        Step::good("in segments", vec![cut(&good, 0, CUT)]),
        Step::good("each segment twice", vec![twice(cut(&good, 0, CUT))]),
        Step::good(
            "two segments, and from the beginning in longer ones",
            vec![part(&good, 0..CUT), part(&good, CUT..2 * CUT), cut(&good, 0, 500)],
        ),
        Step::good(
            "one long segment, and from inside it in shorter ones",
            vec![part(&good, 0..900), cut(&good, 200, 130)],
        ),
        Step::good(
            "last segment first",
            vec![part(&good, 900..end), part(&good, 0..900), part(&good, 900..end)],
        ),
        Step::good(
            "in reverse, as often as it takes",
            (0..5).map(|_| cut(&good, 0, CUT).into_iter().rev().collect()).collect(),
        ),
        Step::good(
            "a segment repeated with other content, and the rest",
            vec![part(&good, 0..CUT), changed, cut(&good, CUT, CUT)],
        ),
        goes_on,
    ]
}

/// What nobody sends who means well.
fn attacks() -> Vec<Step> {
    let (good, old, at_once) = (good(), old(), old_at_once());
    let end = good.len();
    let tail = 900..end;
    let ignored_whole = || ignored(whole(&good), Flaw::Old);
    let mut steps = vec![
        Step::old("an old hello", old.clone(), vec![whole(&old)]),
        Step::old("an old hello in segments, each twice", old.clone(), vec![twice(cut(&old, 0, CUT))]),
        Step::old(
            "an old hello, from its beginning in other cuts",
            old.clone(),
            vec![part(&old, 0..CUT), part(&old, CUT..2 * CUT), cut(&old, 0, 500), cut(&old, 0, 130)],
        ),
        Step::old(
            "an old hello, last segment first",
            old.clone(),
            vec![part(&old, tail.clone()), part(&old, 0..900), part(&old, tail.clone())],
        ),
        Step::old(
            "the beginning of a good hello that the server ignores, an old one's, and the rest",
            at_once.clone(),
            vec![
                ignored(part(&good, 0..900), Flaw::Old),
                part(&at_once, 0..900),
                part(&at_once, tail.clone()),
                part(&at_once, 0..900),
            ],
        ),
        Step::old(
            "the end of a good hello that the server ignores, and an old one's",
            old.clone(),
            vec![
                part(&old, 0..900),
                ignored(part(&good, tail.clone()), Flaw::Old),
                part(&old, tail.clone()),
                part(&old, tail.clone()),
            ],
        ),
        Step::old(
            "a good hello that the server ignores, and an old one",
            old.clone(),
            vec![ignored_whole(), whole(&old), whole(&old)],
        ),
        Step::old(
            "a good hello that the server ignores, and an old one in segments",
            old.clone(),
            vec![ignored_whole(), cut(&old, 0, CUT), cut(&old, 0, CUT)],
        ),
        Step::old(
            "a good hello that the server ignores, and an old one, last segment first",
            old.clone(),
            vec![ignored_whole(), part(&old, tail.clone()), part(&old, 0..900), part(&old, tail.clone())],
        ),
        Step::old(
            "a good hello that the server ignores, and an old one byte by byte at its beginning",
            old.clone(),
            vec![ignored_whole(), cut(&old[..12], 0, 1), cut(&old, 12, 500)],
        ),
        Step::old(
            "a good hello under an acknowledgement of what was never sent, and an old one, last segment first",
            old.clone(),
            vec![
                ignored(whole(&good), Flaw::Unsent),
                part(&old, tail.clone()),
                part(&old, 0..900),
                part(&old, tail.clone()),
            ],
        ),
        Step::old(
            "a good hello with a wrong checksum, and an old one, last segment first",
            old.clone(),
            vec![
                ignored(whole(&good), Flaw::Checksum),
                part(&old, tail.clone()),
                part(&old, 0..900),
                part(&old, tail.clone()),
            ],
        ),
        Step::old(
            "a good hello at a second SYN, and an old one at the first",
            old.clone(),
            vec![
                vec![Piece::syn(FAR)],
                far(whole(&good)),
                part(&old, tail.clone()),
                part(&old, 0..900),
                part(&old, tail.clone()),
            ],
        ),
    ];
    steps.push(Step {
        with_syn: good.clone(),
        ..Step::old(
            "a good hello in a SYN whose data the server does not take, and an old one, last segment first",
            old.clone(),
            vec![part(&old, tail.clone()), part(&old, 0..900), part(&old, tail)],
        )
    });
    steps
}

/// The program on the server's wire, and an application that listens on a protected port.
struct Server {
    listener: TcpListener,
    _kernel: Kernel,
}

impl Server {
    fn start(lab: &Lab, address: IpAddr) -> Result<Self> {
        lab.server.enter(|| {
            let config = config::Kernel {
                interfaces: vec![WIRE.to_owned()],
                // The client writes the right ones, but for those that are to be ignored.
                verify_checksums: VerifyChecksums::On,
                ..plain()
            };
            let mut kernel = Kernel::load(&config, 16)?;
            kernel.attach()?;
            Ok(Self { listener: TcpListener::bind(SocketAddr::new(address, PORT))?, _kernel: kernel })
        })
    }

    fn judge(&self, writer: &Writer, step: &Step) -> Result<()> {
        let connection = writer.connect(PORT, &step.with_syn)?;
        for piece in &step.pieces {
            writer.send(&connection, piece)?;
        }
        writer.settle()?;
        let read = read_now(&self.listener)?;
        match &step.reads {
            Reads::All(all) => ensure!(
                read == *all,
                "of {} bytes {} arrived, the first {} of them as they were",
                all.len(),
                read.len(),
                read.iter().zip(all).take_while(|(one, other)| one == other).count()
            ),
            Reads::LessThan(old) if read == *old => bail!("the old hello arrived"),
            Reads::LessThan(old) => {
                // Nor did anything else that nobody has sent as a hello.
                ensure!(old.starts_with(&read) || good().starts_with(&read), "a mixture arrived: {read:x?}");
            }
        }
        Ok(())
    }
}

/// Judges all steps in both families, so that a report names all that fail.
fn judge_all(steps: &[Step]) -> Result<()> {
    let mut failed = Vec::new();
    for is_ipv4 in [true, false] {
        let lab = Lab::new()?;
        let writer = Writer::new(&lab, is_ipv4)?;
        let server = Server::start(&lab, Lab::server_address(writer.source()))?;
        for step in steps {
            if let Err(error) = server.judge(&writer, step) {
                failed.push(format!("{} from {}: {error:#}", step.name, writer.source()));
            }
        }
    }
    ensure!(failed.is_empty(), "{} of {} steps:\n{}", failed.len(), 2 * steps.len(), failed.join("\n"));
    Ok(())
}

#[test]
fn what_networks_repeat_arrives_as_it_was() -> Result<()> {
    judge_all(&well_meant())
}

#[test]
fn an_old_hello_never_arrives_whatever_came_before_it() -> Result<()> {
    judge_all(&attacks())
}

/// The same attacks arrive where there is no program: the server does ignore what it is said to ignore, and takes the rest.
#[test]
fn without_the_program_the_old_hellos_arrive() -> Result<()> {
    let lab = Lab::new()?;
    let writer = Writer::new(&lab, true)?;
    let address = SocketAddr::new(Lab::server_address(writer.source()), PORT);
    let listener = lab.server.enter(|| Ok(TcpListener::bind(address)?))?;
    for step in attacks() {
        let Reads::LessThan(old) = &step.reads else { continue };
        let connection = writer.connect(PORT, &step.with_syn)?;
        step.pieces.iter().try_for_each(|piece| writer.send(&connection, piece))?;
        writer.settle()?;
        let read = read_now(&listener).context(step.name)?;
        ensure!(read == *old, "{}: {} bytes arrived, and not the old hello", step.name, read.len());
    }
    Ok(())
}
