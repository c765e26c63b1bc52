//! What comes after a refusal with a SYN in between: what was refused stays refused, and another connection from the same port is served.

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    settings::refusal,
    verdict::Verdict::{Drop, Pass},
};

use super::{at_flags, dated, flow, forgeries::nested, modern, part};
use crate::{cases::Case, packets::*, tables::State};

const FAR: i64 = 9_000_000;

pub(super) fn cases() -> Vec<Case> {
    let modes = [("alert", refusal::ALERT), ("reset", refusal::RESET), ("drop", refusal::DROP)];
    modes.into_iter().flat_map(|(name, mode)| of(name, mode)).collect()
}

fn of(name: &str, mode: u8) -> Vec<Case> {
    let (good, bad) = (modern(), dated());
    let syn = |at| (at_flags(at - 1, SYN, &[]), Pass(Clean));
    // The first one ends the server's socket, unless the refused hello itself has.
    let ends =
        |at| if mode == refusal::RESET { syn(at) } else { (at_flags(at - 1, SYN, &[]), Pass(ServerReset)) };
    let case = |what: &str, frames| {
        flow(&format!("{name}: {what}"), frames)
            .with(State::default().set(|settings| settings.refusal = mode))
    };
    // At the old numbers: in front, its beginning, all of it, a good one, a later part, and one that only the server had from then.
    let old = |verdict| {
        vec![
            (part(-4, &[&[0; 4], &bad[..9]].concat()), Drop(verdict)),
            (part(900, &bad[900..]), Drop(verdict)),
            (part(0, &bad[..900]), Drop(verdict)),
            (part(0, &bad), Drop(verdict)),
            (part(0, &good), Drop(verdict)),
            (part(0, &nested()), Drop(verdict)),
            (part(700, &bad[700..]), Drop(verdict)),
        ]
    };
    let refused = || vec![(part(0, &bad), Drop(TlsVersion))];
    let begun =
        || vec![(part(0, &bad[..900]), Pass(HelloIncomplete)), (part(900, &bad[900..]), Drop(TlsVersion))];
    let again = |at: i64| {
        vec![
            (part(at, &good[..900]), Pass(HelloIncomplete)),
            (part(at + 900, &good[900..]), Pass(HelloAccepted)),
            (part(at + good.len() as i64, &[0x17, 3, 3, 0, 9]), Pass(Clean)),
        ]
    };
    vec![
        case(
            "a new connection from the same port, and what goes on at the old numbers",
            [refused(), vec![ends(FAR), syn(FAR)], old(HelloAhead), again(FAR), old(RefusedConnection)]
                .concat(),
        ),
        case(
            "a hello inside the refused one, where a SYN says that it begins",
            [
                refused(),
                vec![ends(200), syn(200), (part(200, &nested()[200..]), Drop(HelloAhead))],
                old_inside(),
            ]
            .concat(),
        ),
        case(
            "a whole hello where a refused one broke off, after a SYN",
            [
                begun(),
                vec![
                    ends(FAR),
                    syn(FAR),
                    (part(900, &good), Drop(HelloAhead)),
                    (part(901, &bad[901..]), Drop(HelloAhead)),
                ],
                again(FAR),
            ]
            .concat(),
        ),
        case(
            "a SYN with a third number after a refusal",
            [
                refused(),
                vec![ends(FAR), syn(FAR), (at_flags(2 * FAR, SYN, &[]), Drop(SynDisputed))],
                again(FAR),
            ]
            .concat(),
        ),
    ]
}

/// The outer hello, whole and in parts, when one begins inside it.
fn old_inside() -> Vec<(Vec<u8>, enforcer_common::verdict::Verdict)> {
    let nested = nested();
    vec![
        (part(0, &nested), Drop(HelloAhead)),
        (part(0, &nested[..100]), Drop(HelloAhead)),
        (part(100, &nested[100..]), Drop(HelloAhead)),
    ]
}
