//! There and back again in each form, and what becomes of a body that was changed on its way.

use super::*;

const ALGS: [jwe::Alg; 2] = [jwe::Alg::Direct, jwe::Alg::Wrapped];

fn bodies() -> [Vec<u8>; 4] {
    [vec![], b"{}".to_vec(), (0..=255).collect(), vec![0xaa; MOST]]
}

#[test]
fn jwe_goes_there_and_back() {
    for (curve, alg) in CURVES.into_iter().flat_map(|curve| ALGS.map(|alg| (curve, alg))) {
        let both = Both::new(curve);
        for body in bodies() {
            let sealed = both.jwe(alg).seal(PLACE, &body).unwrap();
            let opened = jwe::open(&sealed, &both.keys, PLACE, MOST).unwrap();
            is_what_was_sent(&opened, &both, &body);
            assert_eq!(opened.once, ID.as_bytes());
            let answer = opened.reply.seal(HEAD, &body).unwrap();
            let back = |app: &Private, place, key: &str, id: &str| {
                body_of(jwe::open_answer(&answer, app, place, (key, id, &ECHO), MOST))
            };
            assert_eq!(back(&both.app, PLACE, &both.id, ID).unwrap(), body);
            let other = Place { path: "/v1/other", ..PLACE };
            let stranger = Private::generate(curve).unwrap();
            assert_eq!(back(&both.app, other, &both.id, ID), Err(Refused));
            assert_eq!(back(&both.app, PLACE, "twin", ID), Err(Refused));
            assert_eq!(back(&both.app, PLACE, &both.id, "request-0123456780"), Err(Refused));
            assert_eq!(back(&stranger, PLACE, &both.id, ID), Err(Refused));
            // What is for one direction is nothing in the other.
            assert_eq!(jwe::open(&answer, &both.keys, PLACE, MOST).err(), Some(Refused));
            let own = Private::from_raw(curve, both.keys.find(&both.id).unwrap().raw()).unwrap();
            let as_answer = jwe::open_answer(&sealed, &own, PLACE, (&both.id, ID, &ECHO), MOST);
            assert_eq!(as_answer.err(), Some(Refused));
        }
    }
}

/// The header of a request is read by everybody who sees it, and has the key for the answer.
#[test]
fn who_saw_a_request_alone_makes_no_answer_to_it() {
    for (curve, alg) in CURVES.into_iter().flat_map(|curve| ALGS.map(|alg| (curve, alg))) {
        let both = Both::new(curve);
        let sealed = both.jwe(alg).seal(PLACE, b"body").unwrap();
        let parts: Vec<&[u8]> = sealed.split(|byte| *byte == b'.').collect();
        let header: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
        let to = Public::from_jwk(&serde_json::from_value(header["rpk"].clone()).unwrap()).unwrap();
        let id = header["jti"].as_str().unwrap();
        let ciphertext = URL_SAFE_NO_PAD.decode(parts[3]).unwrap();
        let forge = |echo: &[u8; jwe::ECHO]| {
            let answer = jwe::answer(alg, &to, PLACE, (&both.id, id, echo), HEAD, b"forged").unwrap();
            body_of(jwe::open_answer(&answer, &both.app, PLACE, (&both.id, id, &ECHO), MOST))
        };
        assert_eq!(forge(&[0; jwe::ECHO]), Err(Refused));
        assert_eq!(forge(ciphertext.first_chunk().unwrap()), Err(Refused));
        assert_eq!(forge(&ECHO).unwrap(), b"forged", "it is this alone that is missing");
    }
}

/// What is encrypted of a JWE begins with bytes that the answer repeats; it cannot be shorter.
#[test]
fn what_a_jwe_begins_with_is_all_there() {
    for (curve, alg) in CURVES.into_iter().flat_map(|curve| ALGS.map(|alg| (curve, alg))) {
        let both = Both::new(curve);
        let own = Private::generate(curve).unwrap();
        let header = super::headers::text(own.public(), &both, |header| {
            header.insert("alg".to_owned(), alg.name().into());
        });
        for length in [0, 1, 31, 32, 33] {
            let sealed =
                jwe::encrypt_from(alg, &own, &both.server, header.as_bytes(), vec![7; length]).unwrap();
            let opened = jwe::open(&sealed, &both.keys, PLACE, MOST).map(|opened| opened.body);
            assert_eq!(opened, length.checked_sub(32).map(|rest| vec![7; rest]).ok_or(Refused));
        }
    }
}

#[test]
fn hpke_goes_there_and_back() {
    for curve in CURVES {
        let both = Both::new(curve);
        for body in bodies() {
            let sealed = both.hpke().seal(PLACE, &body).unwrap();
            let opened = hpke::open(&sealed, &both.keys, PLACE, MOST).unwrap();
            is_what_was_sent(&opened, &both, &body);
            assert_eq!(opened.once, ONCE);
            let answer = opened.reply.seal(HEAD, &body).unwrap();
            let back = |place, key: &str, once| {
                body_of(hpke::open_answer(&answer, &both.app, place, (key, once), MOST))
            };
            assert_eq!(back(PLACE, &both.id, &ONCE).unwrap(), body);
            assert_eq!(back(Place { method: "PUT", ..PLACE }, &both.id, &ONCE), Err(Refused));
            assert_eq!(back(PLACE, "twin", &ONCE), Err(Refused));
            assert_eq!(back(PLACE, &both.id, &[0; 16]), Err(Refused));
            assert_eq!(hpke::open(&answer, &both.keys, PLACE, MOST).err(), Some(Refused));
        }
    }
}

#[test]
fn the_layout_goes_there_and_back() {
    for curve in CURVES {
        let both = Both::new(curve);
        let session = both.session();
        for body in bodies() {
            let (sealed, iv) = layout::request(&session, PLACE, (&both.id, MADE, KIND), &body).unwrap();
            let opened = layout::open(&sealed, both.beside(), &both.keys, PLACE, MOST).unwrap();
            is_what_was_sent(&opened, &both, &body);
            assert_eq!(opened.once, [both.app.public().bytes(), &iv].concat());
            let answer = opened.reply.seal(HEAD, &body).unwrap();
            let back_as = |place, key: &str, iv, head| {
                layout::open_answer(&answer, &session, place, (key, iv), head, MOST)
            };
            let back = |place, key: &str, iv| back_as(place, key, iv, HEAD);
            assert_eq!(back_as(PLACE, &both.id, &iv, Head { status: 200, ..HEAD }), Err(Refused));
            assert_eq!(back_as(PLACE, &both.id, &iv, Head { kind: "", ..HEAD }), Err(Refused));
            assert_eq!(back(PLACE, &both.id, &iv).unwrap(), body);
            assert_eq!(back(Place { path: "/", ..PLACE }, &both.id, &iv), Err(Refused));
            assert_eq!(back(PLACE, "twin", &iv), Err(Refused));
            assert_eq!(back(PLACE, &both.id, &[0; 12]), Err(Refused));
            // Neither direction is the other, and a request's time is the one that it was sealed with.
            let opened = layout::open(&answer, both.beside(), &both.keys, PLACE, MOST);
            assert_eq!(opened.err(), Some(Refused));
            let renamed = layout::Beside { kind: "text/html", ..both.beside() };
            assert_eq!(layout::open(&sealed, renamed, &both.keys, PLACE, MOST).err(), Some(Refused));
            let later = layout::Beside { made: MADE + 1, ..both.beside() };
            assert_eq!(layout::open(&sealed, later, &both.keys, PLACE, MOST).err(), Some(Refused));
            let other = Private::generate(curve).unwrap();
            let other = layout::Beside { app: other.public().bytes(), ..both.beside() };
            assert_eq!(layout::open(&sealed, other, &both.keys, PLACE, MOST).err(), Some(Refused));
        }
    }
}

/// A body of each form for a place, and what opens it.
type Form<'a> =
    (&'a str, Vec<u8>, Box<dyn Fn(&[u8], Place<'_>, &str, usize) -> Result<Opened, Refused> + 'a>);

fn forms<'a>(both: &'a Both, body: &[u8]) -> Vec<Form<'a>> {
    let as_jwe = |alg| -> Form<'a> {
        let open = |body: &[u8], place: Place<'_>, _: &str, most| jwe::open(body, &both.keys, place, most);
        ("jwe", both.jwe(alg).seal(PLACE, body).unwrap(), Box::new(open))
    };
    let sealed = both.hpke().seal(PLACE, body).unwrap();
    let open = |body: &[u8], place: Place<'_>, _: &str, most| hpke::open(body, &both.keys, place, most);
    let as_hpke: Form<'a> = ("hpke", sealed, Box::new(open));
    let (sealed, _) = layout::request(&both.session(), PLACE, (&both.id, MADE, KIND), body).unwrap();
    let open = |body: &[u8], place: Place<'_>, key: &str, most| {
        let app = both.app.public().bytes();
        layout::open(body, layout::Beside { key, app, made: MADE, kind: KIND }, &both.keys, place, most)
    };
    let as_layout: Form<'a> = ("layout", sealed, Box::new(open));
    vec![as_jwe(jwe::Alg::Direct), as_jwe(jwe::Alg::Wrapped), as_hpke, as_layout]
}

#[test]
fn a_body_that_was_changed_anywhere_is_refused() {
    for curve in CURVES {
        let both = Both::new(curve);
        for (name, sealed, open) in forms(&both, b"{\"amount\":100}") {
            let open = |body: &[u8]| open(body, PLACE, &both.id, MOST).err();
            assert_eq!(open(&sealed), None);
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                // Another letter for a letter, another bit for a byte.
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                if changed == sealed {
                    changed[at] ^= 0x80;
                }
                assert_eq!(open(&changed), Some(Refused), "{name} {curve:?}: byte {at}");
                changed[at] = sealed[at] ^ 1;
                assert_eq!(open(&changed), Some(Refused), "{name} {curve:?}: bit of {at}");
                assert_eq!(open(&sealed[..at]), Some(Refused), "{name} {curve:?}: cut at {at}");
            }
            for more in ["A", "=", ".", "\n", " ", "AAAA", ".AAAA"] {
                let longer = [&sealed, more.as_bytes()].concat();
                assert_eq!(open(&longer), Some(Refused), "{name} {curve:?}: {more:?} behind it");
                let longer = [more.as_bytes(), &sealed].concat();
                assert_eq!(open(&longer), Some(Refused), "{name} {curve:?}: {more:?} before it");
            }
            // A key where there is none to be.
            let with_key = String::from_utf8_lossy(&sealed).replace("..", ".AAAA.").into_bytes();
            if with_key != sealed && name == "jwe" {
                assert_eq!(open(&with_key), Some(Refused), "{curve:?}: with an encrypted key");
            }
            for other in [&b""[..], b"{}", b"....", b"\0", &[0xff; 300], &[b'.'; 5000]] {
                assert_eq!(open(other), Some(Refused), "{name} {curve:?}");
            }
        }
    }
}

#[test]
fn a_body_is_of_its_place_and_key() {
    for curve in CURVES {
        let both = Both::new(curve);
        for (name, sealed, open) in forms(&both, b"body") {
            assert!(open(&sealed, PLACE, &both.id, MOST).is_ok());
            for place in [
                Place { method: "PUT", ..PLACE },
                Place { method: "post", ..PLACE },
                Place { path: "/v1/transfers/", ..PLACE },
                Place { path: "/v1/Transfers", ..PLACE },
                Place { path: "/v1/%74ransfers", ..PLACE },
                Place { method: "POST\n/v1", path: "transfers" },
                Place { method: "", path: "" },
            ] {
                assert_eq!(
                    open(&sealed, place, &both.id, MOST).err(),
                    Some(Refused),
                    "{name} {curve:?}: {place:?}"
                );
            }
            // The id is inside of JWE and HPKE; beside the layout.
            if name == "layout" {
                for key in ["twin", "unknown", ""] {
                    assert_eq!(
                        open(&sealed, PLACE, key, MOST).err(),
                        Some(Refused),
                        "{name} {curve:?}: {key}"
                    );
                }
            }
        }
        // The same key by its other name.
        let sealed = both.hpke().seal(PLACE, b"body").unwrap();
        let id = both.id.as_bytes();
        let renamed = [b"\x01\x04twin", &sealed[2 + id.len()..]].concat();
        assert_eq!(hpke::open(&renamed, &both.keys, PLACE, MOST).err(), Some(Refused));
    }
}

#[test]
fn a_body_that_is_too_long_is_refused() {
    for curve in CURVES {
        let both = Both::new(curve);
        for most in [0, 1, 2, 3, 100] {
            for (name, sealed, open) in forms(&both, &vec![b'x'; most]) {
                assert!(open(&sealed, PLACE, &both.id, most).is_ok(), "{name}: {most}");
            }
            for (name, sealed, open) in forms(&both, &vec![b'x'; most + 1]) {
                assert!(open(&sealed, PLACE, &both.id, usize::MAX).is_err() || name != "x");
                assert_eq!(open(&sealed, PLACE, &both.id, most).err(), Some(Refused), "{name}: {most}");
            }
        }
    }
}

#[test]
fn a_key_of_before_opens_until_it_is_withdrawn() {
    for curve in CURVES {
        let (old, new) = (Private::generate(curve).unwrap(), Private::generate(curve).unwrap());
        let (old_id, new_id) = (old.public().thumbprint(), new.public().thumbprint());
        let app = Private::generate(curve).unwrap();
        let to = old.public().clone();
        let request = hpke::Request {
            to: &to,
            key: &old_id,
            made: MADE,
            once: ONCE,
            answer_to: app.public(),
            kind: KIND,
        };
        let sealed = request.seal(PLACE, b"body").unwrap();
        let twin = Private::from_raw(curve, new.raw()).unwrap();
        let overlap = Keys::new(vec![(new_id.clone(), new), (old_id.clone(), old)]).unwrap();
        assert_eq!(hpke::open(&sealed, &overlap, PLACE, MOST).unwrap().key, old_id);
        assert_eq!(overlap.published()["keys"][0]["kid"], new_id.as_str());
        let after = Keys::new(vec![(new_id, twin)]).unwrap();
        assert_eq!(hpke::open(&sealed, &after, PLACE, MOST).err(), Some(Refused));
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Nobody knows by chance how to seal.
    #[test]
    fn whatever_comes_is_refused(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600),
        text in r#"[A-Za-z0-9_=-]{0,40}(\.[A-Za-z0-9_-]{0,60}){0,6}"#,
        header in r#"\{("(alg|enc|epk|kid|iat|jti|rpk)":("[a-zA-Z0-9+-]{0,20}"|\{\}|[0-9]{1,30}|null),?){0,9}\}?"#,
    ) {
        let both = Both::new(Curve::X25519);
        let with_header = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), text);
        let id = both.id.as_bytes();
        let with_id = [&[1, 43], id, &bytes].concat();
        for body in [&bytes[..], text.as_bytes(), with_header.as_bytes(), &with_id] {
            assert_eq!(jwe::open(body, &both.keys, PLACE, MOST).err(), Some(Refused));
            assert_eq!(hpke::open(body, &both.keys, PLACE, MOST).err(), Some(Refused));
            for app in [both.app.public().bytes(), body] {
                let beside = layout::Beside { app, ..both.beside() };
                assert_eq!(layout::open(body, beside, &both.keys, PLACE, MOST).err(), Some(Refused));
            }
        }
    }
}
