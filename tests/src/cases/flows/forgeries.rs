//! Segments that somebody forges who has not seen the connection, and those that a client sends so that its hello is taken for
//! something else.

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    settings::refusal,
    verdict::Verdict::{Drop, Pass},
};

use super::{TLS10, at_flags, dated, flow, modern, part};
use crate::{
    cases::{Case, sequence},
    packets::*,
    tables::State,
};

/// Application data.
const DATA_RECORD: &[u8] = &[0x17, 3, 3, 0, 9, 1, 2];

pub(super) fn cases() -> Vec<Case> {
    [forged(), hidden(), beginnings()].concat()
}

/// A victim's segments pass.
fn forged() -> Vec<Case> {
    let bad = || Hello::legacy(TLS10).bytes();
    let mut cases = vec![
        flow(
            "a forged SYN 100,000 bytes in front of an established connection's data",
            vec![(part(100_000, DATA_RECORD), Pass(Clean))],
        ),
        flow(
            "a forged SYN 100,000 bytes behind an established connection's data",
            vec![(part(-100_000, DATA_RECORD), Pass(Clean))],
        ),
        sequence(
            "a forged beginning of a hello, then an established connection's data",
            vec![
                (part(0, &bad()[..20]), Pass(HelloIncomplete)),
                (part(20, &bad()[20..]), Drop(TlsVersion)),
                (part(5_000, DATA_RECORD), Pass(Clean)),
                (part(100_000, DATA_RECORD), Pass(Clean)),
            ],
        ),
    ];
    let modes = [
        ("alert", refusal::ALERT, Drop(TlsVersion)),
        ("reset", refusal::RESET, Drop(TlsVersion)),
        ("drop", refusal::DROP, Drop(TlsVersion)),
        ("poison", refusal::POISON, Pass(HelloPoisoned)),
    ];
    for (name, mode, verdict) in modes {
        let state = State::default().set(|settings| settings.refusal = mode);
        let later = |at| {
            [
                (part(at, DATA_RECORD), Pass(Clean)),
                (at_flags(at + 7, ACK, &[]), Pass(Clean)),
                (part(at + 7, DATA_RECORD), Pass(Clean)),
            ]
        };
        let near = [vec![(part(0, &bad()), verdict)], later(5_000).to_vec()].concat();
        let far = [vec![(part(0, &bad()), verdict)], later(100_000).to_vec()].concat();
        cases.push(
            sequence(&format!("{name}: a forged old hello near an established connection's data"), near)
                .with(state.clone()),
        );
        cases.push(
            flow(&format!("{name}: a forged SYN and old hello, then an established connection's data"), far)
                .with(state),
        );
    }
    cases
}

/// A client's old hello is found.
fn hidden() -> Vec<Case> {
    let bad = dated();
    let incomplete = Pass(HelloIncomplete);
    let second_syn = || (at_flags(999, SYN, &[]), Pass(Clean));
    vec![
        flow(
            "an old hello in front of where a second SYN begins",
            vec![second_syn(), (part(0, &Hello::legacy(TLS10).bytes()), Drop(TlsVersion))],
        ),
        flow(
            "an old hello in two segments in front of where a second SYN begins",
            vec![
                second_syn(),
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "an old hello with data far away in between",
            vec![
                (part(0, &bad[..900]), incomplete),
                (part(1 << 24, DATA_RECORD), Pass(Clean)),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "an old hello with the beginning of another far away in between",
            vec![
                (part(0, &bad[..900]), incomplete),
                (part(1 << 24, &modern()[..900]), Drop(HelloAhead)),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
        flow(
            "a refused hello's second segment after data far away",
            vec![
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(TlsVersion)),
                (part(1 << 24, DATA_RECORD), Pass(Clean)),
                (part(1 << 24, &modern()[..900]), Drop(HelloAhead)),
                (part(900, &bad[900..]), Pass(ServerReset)),
                (part(900, &bad[900..]), Drop(RefusedConnection)),
            ],
        ),
        sequence(
            "an old hello's second segment again, without a SYN",
            vec![
                (part(0, &bad[..900]), incomplete),
                (part(900, &bad[900..]), Drop(TlsVersion)),
                (part(900, &bad[900..]), Drop(TlsVersion)),
                (part(0, &bad), Drop(TlsVersion)),
                (part(900, &bad[900..]), Drop(TlsVersion)),
            ],
        ),
    ]
}

/// An old hello with a whole good one 200 bytes behind its beginning.
pub(super) fn nested() -> Vec<u8> {
    let inside = Hello::offering(&[0x0304]).bytes();
    let before = Hello::legacy(0x0303).with(51, &inside).with(43, &version_list(&[0x0302])).bytes();
    // The list of one version takes 7 bytes behind it.
    let at = before.len() - 7 - inside.len();
    let padding = vec![0; 200 - at - 4];
    let hello = Hello::legacy(0x0303).with(21, &padding).with(51, &inside);
    let nested = hello.with(43, &version_list(&[0x0302])).bytes();
    assert_eq!(nested[200..][..inside.len()], inside);
    nested
}

/// Second SYNs far away: the server answers them with no more than a challenge, and its connection goes on.
fn beginnings() -> Vec<Case> {
    const FAR: i64 = 1 << 20;
    let (good, bad) = (modern(), dated());
    let incomplete = Pass(HelloIncomplete);
    let syn = |at| (at_flags(at - 1, SYN, &[]), Pass(Clean));
    let third = |at| (at_flags(at - 1, SYN, &[]), Drop(SynDisputed));
    let head = |verdict| (part(0, &bad[..900]), verdict);
    let tail = |verdict| (part(900, &bad[900..]), verdict);
    vec![
        flow(
            "an old hello's second segment first, after a second SYN far away",
            vec![syn(FAR), tail(Drop(HelloAhead)), head(incomplete), tail(Drop(TlsVersion))],
        ),
        flow(
            "an old hello with a second SYN far away in between",
            vec![head(incomplete), syn(FAR), tail(Drop(TlsVersion))],
        ),
        flow(
            "an old hello after a good one at a second SYN",
            vec![
                syn(FAR),
                (part(FAR, &good), Pass(HelloAccepted)),
                tail(Drop(HelloAhead)),
                head(incomplete),
                tail(Drop(TlsVersion)),
            ],
        ),
        flow(
            "an old hello while one at a second SYN goes on",
            vec![
                syn(FAR),
                (part(FAR, &good[..900]), incomplete),
                tail(Drop(HelloAhead)),
                head(incomplete),
                (part(FAR + 900, &good[900..]), Pass(HelloAccepted)),
                tail(Drop(TlsVersion)),
            ],
        ),
        flow(
            "a good hello in two segments with a forged SYN and a forged part of a hello in between",
            vec![
                (part(0, &good[..900]), incomplete),
                syn(FAR),
                (part(FAR, &bad[..900]), incomplete),
                (part(900, &good[900..]), Pass(HelloAccepted)),
                (part(good.len() as i64, DATA_RECORD), Pass(Clean)),
            ],
        ),
        flow(
            "a good hello in three segments with forged ones in between, one of them old",
            vec![
                (part(0, &good[..500]), incomplete),
                syn(FAR),
                (part(FAR, &bad), Drop(TlsVersion)),
                (part(500, &good[500..900]), incomplete),
                (part(FAR, &good), Pass(HelloAccepted)),
                (part(450, &good[450..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "the beginning of an old hello, a good one at a second SYN, and a good one in place of the first",
            vec![
                head(incomplete),
                syn(FAR),
                (part(FAR, &good[..900]), incomplete),
                (part(0, &good), Drop(HelloChanged)),
                tail(Drop(TlsVersion)),
            ],
        ),
        flow(
            "the same with the good one at the second SYN accepted",
            vec![
                head(incomplete),
                syn(FAR),
                (part(FAR, &good), Pass(HelloAccepted)),
                (part(0, &good), Drop(HelloChanged)),
                tail(Drop(TlsVersion)),
            ],
        ),
        flow(
            "a third SYN does not reach the server as long as two beginnings are remembered",
            vec![
                syn(FAR),
                third(2 * FAR),
                syn(FAR),
                syn(0),
                (part(0, &good[..900]), incomplete),
                third(2 * FAR),
                (part(FAR, &good), Pass(HelloAccepted)),
                third(2 * FAR),
                (part(900, &good[900..]), Pass(HelloAccepted)),
                third(2 * FAR),
                tail(Drop(HelloChanged)),
                (part(good.len() as i64, DATA_RECORD), Pass(Clean)),
            ],
        ),
        flow(
            "an old hello in which a good one begins at an earlier SYN, the real one between two others",
            vec![
                syn(-200),
                third(FAR),
                (part(-200, &nested()), Drop(TlsVersion)),
                (part(-201, &[&[0][..], &nested()].concat()), Drop(HelloAhead)),
                (part(-200, &nested()[..200]), incomplete),
                (part(0, &nested()[200..]), Drop(HelloAhead)),
            ],
        ),
        flow(
            "an old hello in front of the only SYN that is known, in which a good one begins there",
            vec![(part(-200, &nested()), Drop(HelloAhead)), (part(0, &good), Pass(HelloAccepted))],
        ),
        flow(
            "an old hello's second segment first, after the beginning of another without a SYN",
            vec![
                (part(FAR, &good[..900]), Drop(HelloAhead)),
                tail(Drop(HelloAhead)),
                head(incomplete),
                tail(Drop(TlsVersion)),
            ],
        ),
        flow(
            "an old hello inside one that began at an earlier SYN",
            vec![syn(700), (part(0, &good[..600]), incomplete), (part(600, &good[600..]), Drop(HelloAhead))],
        ),
        flow(
            "a good hello in two segments with a forged SYN in front of it, and its data",
            vec![
                syn(FAR),
                (part(FAR, &good[..900]), incomplete),
                (part(FAR + 900, &good[900..]), Pass(HelloAccepted)),
                (part(FAR + good.len() as i64, DATA_RECORD), Pass(Clean)),
            ],
        ),
        flow(
            "a good hello in two segments with forged SYNs before and in between, and its data",
            vec![
                syn(FAR),
                (part(0, &good[..900]), incomplete),
                third(2 * FAR),
                (part(900, &good[900..]), Pass(HelloAccepted)),
                (part(good.len() as i64, DATA_RECORD), Pass(Clean)),
            ],
        ),
        flow(
            "a new connection from the port of one whose hello broke off",
            vec![
                (part(0, &good[..900]), incomplete),
                syn(FAR),
                (part(FAR, &good[..900]), incomplete),
                (part(FAR + 900, &good[900..]), Pass(HelloAccepted)),
            ],
        ),
        flow(
            "three forged SYNs, then an established connection's data",
            vec![syn(FAR), third(2 * FAR), third(3 * FAR), (part(5 * FAR, DATA_RECORD), Pass(Clean))],
        ),
    ]
}
