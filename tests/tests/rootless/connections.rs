//! Whole connections through `decide()` on plain memory, as time goes by: honest clients on bad networks, ports that are used again, and
//! beginnings by SYN cookies.

use enforcer::kernel::model::Model;
use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    verdict::{
        Server,
        Verdict::{self, Drop, Pass},
        decide,
    },
};
use enforcer_tests::{
    packets::*,
    tables::{COOKIE, PROTECTED, State},
};

const MILLISECOND: u64 = 1_000_000;
const NOW: u64 = 1_000_000 * MILLISECOND;
const TLS13: u16 = 0x0304;
const HANDSHAKES: usize = 10_000;
/// Rounds of a handshake, in each of which a client sends what has not been acknowledged: at a loss of one in seven on each way none takes so long.
const ROUNDS: usize = 400;

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        // Knuth's multiplier and increment of MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn lost(&mut self) -> bool {
        self.below(7) == 0
    }
}

fn hello(padding: usize) -> Vec<u8> {
    Hello::legacy(0x0303).with(51, &vec![7; padding]).with(43, &version_list(&[TLS13])).bytes()
}

fn old_hello() -> Vec<u8> {
    Hello::legacy(0x0303).with(51, &[7; 1_263]).with(43, &version_list(&[0x0302])).bytes()
}

/// A frame of a client's port.
fn frame(port: u16, sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = tcp_at(SOURCE_V4.into(), PROTECTED, sequence, flags, data);
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame
}

/// What a server has of one connection.
#[derive(Default)]
struct Received {
    has: Vec<bool>,
    next: usize,
}

impl Received {
    fn take(&mut self, at: usize, length: usize) {
        self.has.resize(self.has.len().max(at + length), false);
        self.has[at..at + length].fill(true);
        while self.has.get(self.next) == Some(&true) {
            self.next += 1;
        }
    }
}

/// One handshake, and the request behind it: `stream` begins with `hello` bytes of a hello. Answers how many frames were dropped, by reason.
fn shake(
    tables: &Model,
    dice: &mut Dice,
    now: &mut u64,
    port: u16,
    stream: &[u8],
    hello: usize,
) -> Vec<Verdict> {
    let start = dice.below(1 << 32) as u32;
    let mut dropped = Vec::new();
    let mut judge = |frame: &[u8], now: u64| {
        tables.set_now(now);
        let verdict = decide(&frame, tables);
        if let Drop(_) = verdict {
            dropped.push(verdict);
        }
        matches!(verdict, Pass(_))
    };
    let (mut connected, mut known) = (None, false);
    tables.serve(Server::Free);
    // What has been acknowledged, and whether the server has answered the hello.
    let (mut acknowledged, mut answered) = (0, false);
    for _ in 0..ROUNDS {
        *now += (200 + dice.below(300)) * MILLISECOND;
        if !known {
            if dice.lost() || !judge(&frame(port, start.wrapping_sub(1), SYN, &[]), *now) || dice.lost() {
                continue;
            }
            tables.serve(Server::Taken);
            let _ = connected.get_or_insert_with(Received::default);
            known = !dice.lost();
            continue;
        }
        let Some(server) = &mut connected else { continue };
        let end = if answered { stream.len() } else { hello };
        let size = [300, 536, 1_220, 1_400, 1_460, 4_000][dice.below(6) as usize];
        let mut sent: Vec<(usize, Vec<u8>)> = match dice.below(12) {
            // A probe of the last segment (RFC 8985 section 7), and one that keeps alive.
            0 if acknowledged < end => {
                let at = end.saturating_sub(size).max(acknowledged);
                vec![(at, stream[at..end].to_vec())]
            }
            1 if acknowledged == 0 => vec![(usize::MAX, vec![dice.below(256) as u8])],
            _ => (acknowledged..end)
                .step_by(size)
                .map(|at| (at, stream[at..end.min(at + size)].to_vec()))
                .collect(),
        };
        if sent.len() > 1 && dice.below(4) == 0 {
            let other = dice.below(sent.len() as u64) as usize;
            sent.swap(0, other);
        }
        for (at, data) in sent {
            let sequence = start.wrapping_add(at as u32);
            // A part may come twice.
            for _ in 0..1 + dice.below(2) {
                if dice.lost() || !judge(&frame(port, sequence, DATA, &data), *now) || dice.lost() {
                    continue;
                }
                if at != usize::MAX {
                    server.take(at, data.len());
                }
            }
        }
        if !dice.lost() {
            acknowledged = server.next;
            answered |= server.next >= hello;
        }
        if acknowledged == stream.len() {
            break;
        }
    }
    assert_eq!(acknowledged, stream.len(), "a handshake does not come to an end, dropped {dropped:?}");
    dropped
}

/// However segments are lost on their way to the program, and behind it, and acknowledgements on their way back; however they are cut when they
/// come again; from ports that are used again and again.
#[test]
fn honest_clients_on_bad_networks_never_fail() {
    let tables = State::default().tables(NOW);
    let (mut dice, mut now) = (Dice(20), NOW);
    let mut dropped = 0;
    for number in 0..HANDSHAKES {
        let hello = hello([40, 600, 1_263, 40, 600, 1_263, 2_500, 6_000][dice.below(8) as usize]);
        let request = [&[0x17, 3, 3, 1, 0x90][..], &[0x16; 400]].concat();
        let stream = [&hello[..], &request].concat();
        let port = 50_000 + (number % 3) as u16;
        let reasons = shake(&tables, &mut dice, &mut now, port, &stream, hello.len());
        // What is dropped comes too early, and comes again.
        assert!(reasons.iter().all(|verdict| matches!(verdict, Drop(HelloAhead))), "{number}: {reasons:?}");
        dropped += reasons.len();
    }
    assert!(dropped > HANDSHAKES / 10, "segments came out of order {dropped} times");
}

/// Two forged SYNs hold a port back no longer than until the server has been seen to have no connection by it.
#[test]
fn a_port_is_held_back_no_longer_than_the_server_holds_it() {
    let tables = State::default().tables(NOW);
    let at = |milliseconds: u64, frame: Vec<u8>| {
        tables.set_now(NOW + milliseconds * MILLISECOND);
        decide(&&*frame, &tables)
    };
    let syn = |sequence| frame(50_000, sequence, SYN, &[]);
    assert_eq!(at(0, syn(1_000_000)), Pass(Clean));
    assert_eq!(at(1, syn(2_000_000)), Pass(Clean));
    assert_eq!(at(5_000, syn(3_000_000)), Drop(SynDisputed), "nothing is known of the server");
    tables.serve(Server::Taken);
    assert_eq!(at(6_000, syn(3_000_000)), Drop(SynDisputed), "the server would ignore it");
    assert_eq!(at(6_001, syn(2_000_000)), Pass(Clean));
    tables.serve(Server::Free);
    assert_eq!(at(6_002, syn(3_000_000)), Drop(SynDisputed), "the server may not have seen the last one yet");
    assert_eq!(at(8_000, syn(3_000_000)), Pass(Clean));
    let good = hello(1_263);
    let part = |begin: usize, end: usize| frame(50_000, 3_000_001 + begin as u32, DATA, &good[begin..end]);
    assert_eq!(at(8_001, part(0, 900)), Pass(HelloIncomplete));
    assert_eq!(at(8_002, part(900, good.len())), Pass(HelloAccepted));
}

/// What begins with a cookie that comes back is followed like anything else that begins.
#[test]
fn a_connection_that_begins_with_a_cookie_is_known() {
    let tables = State::default().syns_spent().tables(NOW);
    let old = old_hello();
    let acknowledging = |mut frame: Vec<u8>, number: u32| {
        frame[42..46].copy_from_slice(&number.to_be_bytes());
        frame
    };
    let cookie = COOKIE.sequence.wrapping_add(1);
    let judge = |frame: Vec<u8>| decide(&&*frame, &tables);
    let part = |port, begin: usize, end: usize| frame(port, 8 + begin as u32, DATA, &old[begin..end]);
    // Nothing has been answered with one yet.
    assert_eq!(judge(acknowledging(frame(49_999, 8, ACK, &[]), cookie)), Pass(Clean));
    assert_eq!(judge(part(49_999, 900, old.len())), Pass(Clean));
    assert_eq!(judge(frame(50_000, 7, SYN, &[])), Drop(SynCookie));
    assert_eq!(judge(acknowledging(frame(50_000, 8, ACK, &[]), cookie)), Pass(Clean));
    assert_eq!(judge(part(50_000, 900, old.len())), Drop(HelloAhead));
    assert_eq!(judge(part(50_000, 0, 900)), Pass(HelloIncomplete));
    assert_eq!(judge(part(50_000, 900, old.len())), Drop(TlsVersion));
    // The acknowledgement was lost, and comes with the first data.
    assert_eq!(judge(acknowledging(part(50_001, 0, 900), cookie)), Pass(HelloIncomplete));
    assert_eq!(judge(part(50_001, 1_000, old.len())), Drop(HelloAhead));
    assert_eq!(judge(part(50_001, 900, old.len())), Drop(TlsVersion));
    // A beginning that was made up meanwhile does not hide it, wherever it lies.
    assert_eq!(judge(part(50_004, 0, 20)), Pass(HelloIncomplete));
    assert_eq!(judge(acknowledging(frame(50_004, 8, ACK, &[]), cookie)), Pass(Clean));
    assert_eq!(judge(part(50_004, 900, old.len())), Drop(HelloAhead));
    assert_eq!(judge(part(50_004, 0, 900)), Pass(HelloIncomplete));
    assert_eq!(judge(part(50_004, 900, old.len())), Drop(TlsVersion));
    // Of an established connection nobody knows more than before.
    assert_eq!(judge(part(50_002, 900, old.len())), Pass(Clean));
    tables.set_now(NOW + 121_000 * MILLISECOND);
    assert_eq!(judge(acknowledging(frame(50_003, 8, ACK, &[]), cookie)), Pass(Clean));
    assert_eq!(judge(part(50_003, 900, old.len())), Pass(Clean));
}
