//! What becomes of refresh tokens, and of those who bring them.

use super::*;

const NOW: u64 = 1_800_000_000;

fn mark(token: &str) -> Mark {
    Marker::of_secret(&[7; 32]).mark(Kind::Token, token.as_bytes())
}

fn asked(token: &str) -> Asked<'_> {
    Asked { token: Some(mark(token)), key: None, rotates: true, lasts: 3_600 }
}

fn given<'a>(refresh: impl Into<Option<&'a str>>) -> Given {
    Given::Tokens { refresh: refresh.into().map(mark), access: None }
}

/// It is dead, and that was known.
fn reused() -> Refused {
    Refused::Reused(Ended::default())
}

/// These were good until now.
fn ended<const N: usize>(refresh: [&str; N]) -> Refused {
    Refused::Reused(Ended { access: Vec::new(), refresh: refresh.map(mark).to_vec() })
}

#[test]
fn a_token_that_comes_back_ends_its_line_and_no_other() {
    let refreshes = Refreshes::new(100).unwrap();
    let access = |n: u8| Marker::of_secret(&[n; 32]).mark(Kind::Token, b"access");
    let step = |from: &str, to: &str, n: u8| {
        let exchange = refreshes.begin(asked(from), NOW).unwrap();
        exchange.end(Given::Tokens { refresh: Some(mark(to)), access: Some(access(n)) }, NOW)
    };
    for (from, to, n) in [("a", "b", 1), ("b", "c", 2), ("c", "d", 3), ("x", "y", 9)] {
        assert_eq!(step(from, to, n), Ok(true));
    }
    // The second, long exchanged: what came of it is over, with its access tokens.
    let ended = Ended { access: vec![access(1), access(2), access(3)], refresh: vec![mark("d")] };
    assert_eq!(refreshes.begin(asked("b"), NOW).err(), Some(Refused::Reused(ended)));
    for token in ["a", "b", "c", "d"] {
        assert_eq!(refreshes.begin(asked(token), NOW).err(), Some(reused()), "{token}");
    }
    assert_eq!(step("y", "z", 9), Ok(true), "another line");
}

#[test]
fn what_a_dead_line_is_given_meanwhile_is_dead() {
    let refreshes = Refreshes::new(100).unwrap();
    refreshes.begin(asked("a"), NOW).unwrap().end(given("b"), NOW).unwrap();
    let thief = refreshes.begin(asked("b"), NOW).unwrap();
    assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(ended(["b"])));
    assert_eq!(thief.end(given("c"), NOW), Err(ended(["c"])));
    assert_eq!(refreshes.begin(asked("c"), NOW).err(), Some(reused()));
}

#[test]
fn of_two_that_race_one_is_under_way_and_the_other_waits_for_it() {
    let refreshes = Refreshes::new(100).unwrap();
    let first = refreshes.begin(asked("a"), NOW).unwrap();
    assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(Refused::UnderWay));
    // It came to nothing: as good as before.
    drop(first);
    assert!(refreshes.is_empty());
    let second = refreshes.begin(asked("a"), NOW).unwrap();
    assert_eq!(second.end(given("b"), NOW), Ok(true));
    assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(ended(["b"])));
}

#[test]
fn a_token_for_which_there_is_no_other_stays_good() {
    let refreshes = Refreshes::new(100).unwrap();
    for answer in [given(None), given("a")] {
        for _ in 0..2 {
            assert_eq!(refreshes.begin(asked("a"), NOW).unwrap().end(answer, NOW), Ok(true));
        }
    }
    // What cannot be read may have been another one.
    refreshes.begin(asked("a"), NOW).unwrap().end(Given::Unknown, NOW).unwrap();
    assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(reused()));
}

#[test]
fn a_token_is_bound_to_the_key_that_it_was_given_to() {
    let refreshes = Refreshes::new(100).unwrap();
    for rotates in [true, false] {
        let by = |token: Option<&'static str>, key: Option<&'static str>| {
            let token = token.map(mark);
            refreshes.begin(Asked { token, key, rotates, lasts: 3_600 }, NOW)
        };
        // A code that was exchanged with a proof.
        by(None, Some("k1")).unwrap().end(given("a"), NOW).unwrap();
        for key in [None, Some("k2")] {
            assert_eq!(by(Some("a"), key).err(), Some(Refused::OtherKey));
        }
        let next = if rotates { "b" } else { "a" };
        by(Some("a"), Some("k1")).unwrap().end(given(next), NOW).unwrap();
        assert_eq!(by(Some(next), Some("k2")).err(), Some(Refused::OtherKey));
        by(Some(next), Some("k1")).unwrap().end(given(next), NOW).unwrap();
        // One that nobody knows is its first key's.
        by(Some("old"), Some("k1")).unwrap().end(given("old"), NOW).unwrap();
        assert_eq!(by(Some("old"), Some("k2")).err(), Some(Refused::OtherKey));
        refreshes.sweep(NOW + 3_600);
        assert!(refreshes.is_empty());
    }
}

#[test]
fn who_has_an_old_token_and_not_its_key_ends_no_line() {
    let refreshes = Refreshes::new(100).unwrap();
    let by = |token, key| refreshes.begin(Asked { key, ..asked(token) }, NOW);
    by("a", Some("k1")).unwrap().end(given("b"), NOW).unwrap();
    for key in [None, Some("k2")] {
        assert_eq!(by("a", key).err(), Some(Refused::OtherKey));
    }
    by("b", Some("k1")).unwrap().end(given("c"), NOW).unwrap();
    assert_eq!(by("a", Some("k1")).err(), Some(ended(["c"])), "who has the key can");
    assert_eq!(by("c", Some("k2")).err(), Some(Refused::OtherKey));
    assert_eq!(by("c", Some("k1")).err(), Some(reused()));
}

#[test]
fn room_is_bounded_and_comes_back() {
    let refreshes = Refreshes::new(2).unwrap();
    assert_eq!(refreshes.begin(asked("a"), NOW).unwrap().end(given("b"), NOW), Ok(true));
    assert_eq!(refreshes.begin(asked("c"), NOW).unwrap().end(given("d"), NOW), Ok(false));
    assert_eq!(refreshes.len(), 2);
    assert_eq!(refreshes.begin(asked("a"), NOW).err(), Some(ended(["b"])));
    assert_eq!(refreshes.begin(asked("c"), NOW + 3_600).unwrap().end(given("d"), NOW + 3_600), Ok(true));
    assert_eq!(refreshes.len(), 2);
}

#[test]
fn one_line_does_not_fill_the_memory() {
    let refreshes = Refreshes::new(MOST_IN_LINE + 4).unwrap();
    let step = |from: &str, to: &str| refreshes.begin(asked(from), NOW).unwrap().end(given(to), NOW);
    let name = |n: usize| format!("a{n}");
    let last = 3 * MOST_IN_LINE;
    for n in 0..last {
        assert_eq!(step(&name(n), &name(n + 1)), Ok(true), "{n}");
        assert!(refreshes.len() <= MOST_IN_LINE, "{n}");
    }
    assert_eq!(step("b", "c"), Ok(true), "there is room for others");
    // One that is forgotten is the server's business.
    drop(refreshes.begin(asked(&name(1)), NOW).unwrap());
    // The first one and those before the newest still end the line.
    assert_eq!(refreshes.begin(asked(&name(0)), NOW).err(), Some(ended([&name(last)])));
    for n in [last - MOST_IN_LINE + 2, last - 1, last] {
        assert_eq!(refreshes.begin(asked(&name(n)), NOW).err(), Some(reused()), "{n}");
    }
    assert_eq!(step("c", "d"), Ok(true), "another line");
    refreshes.sweep(NOW + 3_600);
    let state = refreshes.state();
    assert_eq!((state.known.len(), state.ends.len(), state.lines.len()), (0, 0, 0));
}

#[test]
fn exchanges_that_come_to_nothing_leave_nothing_behind() {
    let refreshes = Refreshes::new(100).unwrap();
    let lengths = || {
        let state = refreshes.state();
        (state.known.len(), state.ends.len())
    };
    refreshes.begin(asked("b"), NOW).unwrap().end(given("a"), NOW).unwrap();
    for later in 0..1_000 {
        drop(refreshes.begin(asked("a"), NOW + later).unwrap());
        drop(refreshes.begin(asked("stranger"), NOW + later).unwrap());
    }
    assert_eq!(lengths(), (2, 2));
    // One that goes on is given more time.
    for later in 0..1_000 {
        refreshes.begin(asked("a"), NOW + later).unwrap().end(given("a"), NOW + later).unwrap();
    }
    assert_eq!(lengths(), (2, 2));
    refreshes.sweep(NOW + 999 + 3_600);
    assert_eq!(lengths(), (0, 0));
}
