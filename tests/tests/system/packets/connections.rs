//! What the program asks the kernel about connections: whether a cookie comes back, and whether the server has one.

use std::net::IpAddr;

use enforcer_common::{
    reason::{DropReason::*, PassReason::*},
    verdict::Verdict::{self, Drop, Pass},
};
use enforcer_tests::{eventually, tables::UNHEARD};

use super::*;

/// An old hello in two segments.
fn parts() -> [Vec<u8>; 2] {
    let hello = Hello::legacy(0x0303).with(51, &[7; 1_263]).with(43, &version_list(&[0x0302])).bytes();
    let (head, tail) = hello.split_at(900);
    [head.to_vec(), tail.to_vec()]
}

/// With this acknowledgement.
fn acknowledging(mut frame: Vec<u8>, number: u32) -> Vec<u8> {
    let at = sequence_of(&frame) + 4;
    frame[at..at + 4].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn a_connection_that_begins_with_a_cookie_of_the_kernel_s_is_known() {
    beside_a_listener(|| {
        let mut loaded = Loaded::new();
        let [head, tail] = parts();
        for source in [IpAddr::from(SOURCE_V4), SOURCE_V6.into()] {
            loaded.fill(&State::default().syns_spent());
            let judge = |frame: &[u8]| loaded.judge(frame).unwrap();
            let verdict = |frame: &[u8]| -> Verdict { judge(frame).0 };
            let at = |sequence, flags, data: &[u8]| tcp_at(source, PROTECTED, sequence, flags, data);
            let (found, _, answer) = judge(&at(7, SYN, &[]));
            assert_eq!(found, Drop(SynCookie));
            let answer = answer.unwrap();
            let cookie = answer.as_slice().u32(sequence_of(&answer)).unwrap();
            let returned = |number| acknowledging(at(8, ACK, &[]), number);
            assert_eq!(verdict(&returned(cookie.wrapping_add(77))), Pass(Clean));
            assert_eq!(verdict(&at(908, DATA, &tail)), Pass(Clean), "nobody has begun here");
            assert_eq!(verdict(&returned(cookie.wrapping_add(1))), Pass(Clean));
            assert_eq!(verdict(&at(908, DATA, &tail)), Drop(HelloAhead), "{source}");
            assert_eq!(verdict(&at(8, DATA, &head)), Pass(HelloIncomplete));
            assert_eq!(verdict(&at(908, DATA, &tail)), Drop(TlsVersion));
        }
    });
}

/// Frames of a test run do not get to the listener: so it has no connection, and a third SYN begins one as soon as the others are half a
/// second old.
#[test]
fn a_port_is_held_back_no_longer_than_the_server_holds_it() {
    beside_a_listener(|| {
        let mut loaded = Loaded::new();
        for source in [IpAddr::from(SOURCE_V4), SOURCE_V6.into()] {
            loaded.fill(&State::default());
            let judge = |sequence, port| loaded.judge(&tcp_at(source, port, sequence, SYN, &[])).unwrap().0;
            for port in [PROTECTED, UNHEARD] {
                assert_eq!(judge(1_000_000, port), Pass(Clean));
                assert_eq!(judge(2_000_000, port), Pass(Clean));
            }
            eventually!(5, "a third SYN", judge(3_000_000, PROTECTED) == Pass(Clean)).unwrap();
            assert_eq!(judge(3_000_000, UNHEARD), Drop(SynDisputed), "nothing is known of the server");
        }
    });
}
