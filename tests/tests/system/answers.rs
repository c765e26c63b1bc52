//! The four ways to refuse a ClientHello, on a real wire with real clients: who hears what, in which order, and that the server keeps no
//! socket; and how the program's judgement is held against that of TLS.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use enforcer_tests::{
    clients::{self, Handshake},
    eventually,
    netns::{Lab, source_v4, source_v6},
    packets::{FIN, RST},
    process,
    recorder::{Recorder, Segment},
    scene::Scene,
    site::Plan,
};

use super::hellos::sockets;

/// For clients that are answered.
const PATIENCE: Duration = Duration::from_secs(20);
/// For one that is not: it has repeated its hello by then, which ends the server's socket (RFC 6298 section 2: a first time after a second
/// at most).
const SILENCE: Duration = Duration::from_secs(3);

/// Content types of TLS records (RFC 8446 section 5.1).
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;

/// One refused handshake as the client's end of the wire saw it.
struct Seen {
    shake: Handshake,
    segments: Vec<Segment>,
    client: IpAddr,
}

impl Seen {
    fn by(scene: &Scene, client: IpAddr, version: &str, limit: Duration) -> Result<Self> {
        let recorder = Recorder::open(&scene.lab.client)?;
        let shake = clients::openssl(&scene.lab.client, client, version, limit)?;
        eventually!(6, format!("no socket for {version} from {client}"), sockets(&scene.lab.server)? == 0)?;
        Ok(Self { shake, segments: recorder.take()?, client })
    }

    /// Where the first segment of an end stands that is as asked for.
    fn find(&self, from: IpAddr, what: impl Fn(&Segment) -> bool) -> Option<usize> {
        self.segments.iter().position(|segment| segment.from == from && what(segment))
    }

    /// How often the hello was sent before this place.
    fn hellos(&self, end: usize) -> usize {
        let mine = |segment: &&Segment| segment.from == self.client && begins(segment, HANDSHAKE);
        self.segments[..end].iter().filter(mine).count()
    }

    /// Where the server's answer stands, and how long after the hello it came.
    fn answer(&self, what: impl Fn(&Segment) -> bool) -> Result<(usize, Duration)> {
        let server = Lab::server_address(self.client);
        let hello =
            self.find(self.client, |segment| begins(segment, HANDSHAKE)).context("no hello was sent")?;
        let answer = self.find(server, what).with_context(|| format!("no answer: {:?}", self.segments))?;
        ensure!(answer > hello, "the answer came before the hello");
        Ok((answer, self.segments[answer].at.saturating_sub(self.segments[hello].at)))
    }
}

fn begins(segment: &Segment, content: u8) -> bool {
    segment.data.first() == Some(&content)
}

/// Clients of old versions, by both families.
fn old_clients() -> impl Iterator<Item = (IpAddr, &'static str)> {
    let both = |version| [(IpAddr::from(source_v4(1)), version), (source_v6(1).into(), version)];
    ["-tls1", "-tls1_1"].into_iter().flat_map(both)
}

/// Clients of new versions are served whatever becomes of the others.
fn new_clients_are_served(scene: &Scene) -> Result<()> {
    let token = scene.site.token("read")?;
    for source in [IpAddr::from(source_v4(2)), source_v6(2).into()] {
        for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let shake = clients::openssl(&scene.lab.client, source, version, PATIENCE)?;
            ensure!(shake == Handshake::Done(name.to_owned()), "{version} from {source}: {shake:?}");
        }
        let answer = scene.get(source, "/api/v1/x").token(&token).send()?;
        ensure!(answer.status == 200, "{source}: {answer:?}");
    }
    Ok(())
}

#[test]
fn by_alert_the_client_hears_before_it_repeats_itself() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let daemon = scene.daemon(&scene.plan())?;
    let mut refused = 0;
    for (client, version) in old_clients() {
        let seen = Seen::by(&scene, client, version, PATIENCE)?;
        let Handshake::Refused(said) = &seen.shake else {
            panic!("{version} from {client}: {:?}", seen.shake)
        };
        assert!(said.contains("alert protocol version"), "{version} from {client}: {said}");
        let (answer, took) = seen.answer(|segment| begins(segment, ALERT))?;
        println!("alert to {version} from {client} after {} us", took.as_micros());
        assert_eq!(seen.hellos(answer), 1, "the hello was repeated before the alert came");
        let alert = &seen.segments[answer];
        assert_eq!(
            (&alert.data[3..], alert.flags & FIN),
            (&[0, 2, 2, 70][..], FIN),
            "{version} from {client}"
        );
        refused += 1;
    }
    new_clients_are_served(&scene)?;
    // What was refused was rightly refused, and what was not was rightly not.
    let compared = || Ok::<_, anyhow::Error>(daemon.scrape()?.sum("enforcer_hellos_compared_total", &[]));
    eventually!(10, "the comparison of refused hellos", compared()? >= refused)?;
    let counted = daemon.scrape()?;
    assert_eq!(counted.sum("enforcer_hello_disagreements_total", &[]), 0, "{}", counted.text);
    Ok(())
}

#[test]
fn by_reset_both_ends_are_reset() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let mut plan = scene.plan();
    plan.kernel += "refusal = \"reset\"\n";
    let _daemon = scene.daemon(&plan)?;
    for (client, version) in old_clients() {
        let seen = Seen::by(&scene, client, version, PATIENCE)?;
        assert!(matches!(seen.shake, Handshake::Refused(_)), "{version} from {client}: {:?}", seen.shake);
        // Its hello has become the reset of the server's socket; what it sends next is answered with another.
        let (answer, took) = seen.answer(|segment| segment.flags & RST != 0)?;
        println!("reset to {version} from {client} after {} us", took.as_micros());
        assert!(seen.hellos(answer) <= 2, "the hello was repeated, and not answered");
        let server = Lab::server_address(client);
        assert_eq!(seen.find(server, |segment| !segment.data.is_empty()), None, "the server has spoken");
    }
    new_clients_are_served(&scene)
}

#[test]
fn by_poison_the_server_itself_refuses() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = scene.plan();
    plan.kernel += "refusal = \"poison\"\n";
    let daemon = scene.daemon(&plan)?;
    for (client, version) in old_clients() {
        let seen = Seen::by(&scene, client, version, PATIENCE)?;
        assert!(matches!(seen.shake, Handshake::Refused(_)), "{version} from {client}: {:?}", seen.shake);
        let (answer, took) = seen.answer(|segment| begins(segment, ALERT))?;
        println!("the server's own alert to {version} from {client} after {} us", took.as_micros());
        assert_eq!(seen.hellos(answer), 1, "the hello was repeated before the alert came");
    }
    new_clients_are_served(&scene)?;
    let counted = daemon.scrape()?;
    assert_eq!(counted.packets("hello_poisoned"), 4);
    assert_eq!(counted.sum("enforcer_hello_disagreements_total", &[]), 0, "a poisoned hello was not missed");
    Ok(())
}

#[test]
fn by_drop_the_client_hears_nothing() -> Result<()> {
    let scene = Scene::new()?;
    let _link = scene.lab.hear_answers()?;
    let mut plan = scene.plan();
    plan.kernel += "refusal = \"drop\"\n";
    let _daemon = scene.daemon(&plan)?;
    for (client, version) in old_clients() {
        let seen = Seen::by(&scene, client, version, SILENCE)?;
        assert_eq!(seen.shake, Handshake::Unanswered, "{version} from {client}");
        assert!(seen.hellos(seen.segments.len()) >= 2, "the hello was not repeated");
        let server = Lab::server_address(client);
        let spoke = |segment: &Segment| !segment.data.is_empty() || segment.flags & (FIN | RST) != 0;
        assert_eq!(seen.find(server, spoke), None, "the server has spoken");
    }
    new_clients_are_served(&scene)
}

/// An old hello that gets as far as TLS is counted, unless the configuration lets its source do what it likes.
#[test]
fn hellos_that_the_program_lets_through_are_counted_as_missed() -> Result<()> {
    let scene = Scene::new()?;
    let mut plan = Plan { persist: true, ..scene.plan() };
    plan.kernel += &format!("allow = [\"{}\"]\n", source_v4(2));
    let daemon = scene.daemon(&plan)?;
    daemon.say(&["allow", "add", &source_v4(3).to_string()])?;
    let missed = || {
        Ok::<_, anyhow::Error>(
            daemon.scrape()?.sum("enforcer_hello_disagreements_total", &[("kind", "missed")]),
        )
    };
    // Whom the configuration or an operator allows is not judged.
    for client in [source_v4(2), source_v4(3)] {
        let shake = clients::openssl(&scene.lab.client, client.into(), "-tls1", PATIENCE)?;
        ensure!(matches!(shake, Handshake::Refused(_)), "{shake:?}");
    }
    assert_eq!(missed()?, 0, "an allowed source");
    let mut detach = daemon.command(&["detach", "--force", "--pin-directory"]);
    process::run(detach.arg(scene.site.pins()), PATIENCE)?.success("enforcer detach")?;
    for (version, count) in [("-tls1", 1), ("-tls1_1", 2), ("-tls1_3", 2)] {
        let shake = clients::openssl(&scene.lab.client, source_v4(4).into(), version, PATIENCE)?;
        ensure!(matches!(shake, Handshake::Done(_)) == (version == "-tls1_3"), "{shake:?}");
        eventually!(5, format!("{count} missed hellos after {version}"), missed()? == count)?;
    }
    let status = daemon.ask(&["status"])?;
    assert_eq!(status["hellos"]["missed"], 2, "{status}");
    assert!(daemon.say(&["status"])?.contains("2 of an old version got as far as TLS"));
    Ok(())
}
