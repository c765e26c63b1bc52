//! What is common to all three forms, and what is wrong in all of them.

mod forms;
mod headers;
mod vectors;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    Answered, Head, Keys, Opened, Place, Refused, hpke, jwe,
    keys::{Curve, Private, Public},
    layout,
};

const CURVES: [Curve; 2] = [Curve::P256, Curve::X25519];
const PLACE: Place<'static> = Place { method: "POST", path: "/v1/transfers" };
const MADE: u64 = 1_800_000_000;
const ID: &str = "request-0123456789";
const ONCE: [u8; hpke::ONCE] = *b"0123456789abcdef";
const ECHO: [u8; jwe::ECHO] = *b"0123456789abcdef0123456789abcdef";
const MOST: usize = 4096;
const KIND: &str = "application/json; charset=utf-8";
const HEAD: Head<'static> = Head { status: 201, kind: KIND };

/// Points of X25519 that lead to zero whatever they are multiplied with (RFC 7748 section 6.1).
const LOW_ORDER: [&str; 7] = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap()).collect()
}

fn b64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// Public keys that are none: off the curve, the point zero, a coordinate beyond the field; of low order.
fn bad_points() -> Vec<Public> {
    let mut off = Private::generate(Curve::P256).unwrap().public().bytes().to_vec();
    off[64] ^= 1;
    let zero = [&[4][..], &[0; 64]].concat();
    let beyond = [&[4][..], &[0xff; 64]].concat();
    let p256 = [off, zero, beyond].into_iter().map(|bytes| Public::new(Curve::P256, &bytes).unwrap());
    p256.chain(LOW_ORDER.map(|bytes| Public::new(Curve::X25519, &hex(bytes)).unwrap())).collect()
}

/// One server with a current key and one that it had before, and an app.
struct Both {
    keys: Keys,
    server: Public,
    id: String,
    app: Private,
}

impl Both {
    fn new(curve: Curve) -> Self {
        let (now, before) = (Private::generate(curve).unwrap(), Private::generate(curve).unwrap());
        // The same key under two ids, so that the id alone is what differs.
        let twin = Private::from_raw(curve, now.raw()).unwrap();
        let (server, id) = (now.public().clone(), now.public().thumbprint());
        let before_id = before.public().thumbprint();
        let keys = vec![(id.clone(), now), (before_id, before), ("twin".to_owned(), twin)];
        Self { keys: Keys::new(keys).unwrap(), server, id, app: Private::generate(curve).unwrap() }
    }

    fn jwe(&self, alg: jwe::Alg) -> jwe::Request<'_> {
        jwe::Request {
            alg,
            to: &self.server,
            key: &self.id,
            made: MADE,
            id: ID,
            answer_to: self.app.public(),
            kind: KIND,
            echo: ECHO,
        }
    }

    fn hpke(&self) -> hpke::Request<'_> {
        hpke::Request {
            to: &self.server,
            key: &self.id,
            made: MADE,
            once: ONCE,
            answer_to: self.app.public(),
            kind: KIND,
        }
    }

    fn session(&self) -> layout::Session {
        layout::Session::of_app(&self.app, &self.server, &self.id).unwrap()
    }

    fn beside(&self) -> layout::Beside<'_> {
        layout::Beside { key: &self.id, app: self.app.public().bytes(), made: MADE, kind: KIND }
    }
}

#[test]
fn keys_that_are_no_points_are_refused_wherever_they_stand() {
    let bad = bad_points();
    assert_eq!(bad.len(), 10);
    for point in bad {
        let own = Private::generate(point.curve()).unwrap();
        assert_eq!(own.agree(&point).err(), Some(Refused));
        let both = Both::new(point.curve());
        // As the key that is new for a body. What is encrypted under zeros, which is what low order comes to, must not open either.
        let header = headers::text(&point, &both, |_| ());
        for alg in [jwe::Alg::Direct, jwe::Alg::Wrapped] {
            let header = header.replace("ECDH-ES", alg.name());
            let forged = forge_with_zeros(alg, &header);
            assert_eq!(jwe::open(&forged, &both.keys, PLACE, MOST).err(), Some(Refused));
        }
        let id = both.id.as_bytes();
        let head = [&[1, u8::try_from(id.len()).unwrap()], id].concat();
        let forged = [&head, point.bytes(), &[7; 100]].concat();
        assert_eq!(hpke::open(&forged, &both.keys, PLACE, MOST).err(), Some(Refused));
        let beside = layout::Beside { app: point.bytes(), ..both.beside() };
        let (body, _) = layout::request(&both.session(), PLACE, (&both.id, MADE, KIND), b"x").unwrap();
        assert_eq!(layout::open(&body, beside, &both.keys, PLACE, MOST).err(), Some(Refused));
        // As the key for the answer.
        let request = jwe::Request { answer_to: &point, ..both.jwe(jwe::Alg::Wrapped) };
        let sealed = request.seal(PLACE, b"x").unwrap();
        let opened = jwe::open(&sealed, &both.keys, PLACE, MOST).unwrap();
        assert_eq!(opened.reply.seal(HEAD, b"answer"), Err(Refused));
        let request = hpke::Request { answer_to: &point, ..both.hpke() };
        let opened = hpke::open(&request.seal(PLACE, b"x").unwrap(), &both.keys, PLACE, MOST).unwrap();
        assert_eq!(opened.reply.seal(HEAD, b"answer"), Err(Refused));
    }
}

/// A body whose agreed key is taken to be zero.
fn forge_with_zeros(alg: jwe::Alg, header: &str) -> Vec<u8> {
    use aws_lc_rs::{
        aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
        key_wrap::{AES_256, AesKek, KeyWrap as _},
    };
    let derive = |purpose: &str| jwe::concat_kdf(&[0; 32], purpose, b"", b"", 256);
    let (content, wrapped) = match alg {
        jwe::Alg::Direct => (derive("A256GCM"), Vec::new()),
        jwe::Alg::Wrapped => {
            let kek = AesKek::new(&AES_256, &derive(alg.name())).unwrap();
            ([9; 32], kek.wrap(&[9; 32], &mut [0; 40]).unwrap().to_vec())
        }
    };
    let text = URL_SAFE_NO_PAD.encode(header);
    let mut sealed = b"forged".to_vec();
    let tag = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &content).unwrap())
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(text.as_bytes()),
            &mut sealed,
        )
        .unwrap();
    let parts = [&wrapped[..], &[0; 12], &sealed, tag.as_ref()].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{text}.{}", parts.join(".")).into_bytes()
}

#[test]
fn keys_come_from_pem_and_errors_do_not_show_them() {
    use aws_lc_rs::{
        agreement::{ECDH_P256, ECDH_P384, PrivateKey, X25519},
        encoding::{AsBigEndian as _, AsDer as _, Curve25519SeedBin, Pkcs8V1Der},
    };
    use base64::engine::general_purpose::STANDARD;
    let pem = |algorithm| {
        let key = PrivateKey::generate(algorithm).unwrap();
        let der = if algorithm == &X25519 {
            // The library writes none of this curve; this is what `openssl genpkey` writes.
            let seed: Curve25519SeedBin<'_> = key.as_be_bytes().unwrap();
            [&hex("302e020100300506032b656e04220420")[..], seed.as_ref()].concat()
        } else {
            let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
            der.as_ref().to_vec()
        };
        let body = STANDARD.encode(der);
        let public = key.compute_public_key().unwrap();
        (
            format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"),
            public.as_ref().to_vec(),
            body,
        )
    };
    for (algorithm, curve) in [(&ECDH_P256, Curve::P256), (&X25519, Curve::X25519)] {
        let (text, public, _) = pem(algorithm);
        let key = Private::from_pem(text.as_bytes()).unwrap();
        assert_eq!((key.public().curve(), key.public().bytes()), (curve, &public[..]));
        assert!(!format!("{key:?}").contains(&format!("{:?}", key.raw())));
    }
    let (other_curve, _, body) = pem(&ECDH_P384);
    let cut = other_curve.replace(&body, &body[..body.len() - 4]);
    for text in [other_curve.as_str(), &cut, "", "secret"] {
        let error = Private::from_pem(text.as_bytes()).unwrap_err();
        assert!(error.contains("openssl genpkey") && !error.contains(&body[..8]), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn ids_of_keys_are_plain_and_differ() {
    let key = || Private::generate(Curve::X25519).unwrap();
    for id in ["", "a b", "a/b", "ü", &"a".repeat(65)] {
        assert!(Keys::new(vec![(id.to_owned(), key())]).unwrap_err().contains("no key id"), "{id}");
    }
    let twice = vec![("a".to_owned(), key()), ("b".to_owned(), key()), ("a".to_owned(), key())];
    assert_eq!(Keys::new(twice).unwrap_err(), "two keys have the id \"a\"");
    let keys = Keys::new(vec![("a".repeat(64), key()), ("b_-1".to_owned(), key())]).unwrap();
    assert!(keys.find("b_-1").is_ok());
    assert_eq!(keys.find("c").err(), Some(Refused));
}

#[test]
fn public_keys_alone_are_published() {
    for curve in CURVES {
        let both = Both::new(curve);
        let set = both.keys.published();
        assert_eq!(set["keys"].as_array().unwrap().len(), 3);
        let first = set["keys"][0].as_object().unwrap();
        assert_eq!((&first["kid"], &first["use"]), (&both.id.as_str().into(), &"enc".into()));
        assert!(!first.contains_key("d"));
        // The thumbprint is that of the members that make the key, in the order of their names (RFC 7638 section 3).
        let members: std::collections::BTreeMap<_, _> =
            first.iter().filter(|(name, _)| !matches!(name.as_str(), "kid" | "use")).collect();
        let text = serde_json::to_string(&members).unwrap();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        assert_eq!(both.id, URL_SAFE_NO_PAD.encode(digest));
    }
}

fn is_what_was_sent(opened: &Opened, both: &Both, body: &[u8]) {
    assert_eq!((&opened.body[..], opened.made, &opened.key), (body, MADE, &both.id));
    assert_eq!(opened.kind, KIND);
}

/// The body of an answer whose head is the one that was sealed.
fn body_of(answered: Result<Answered, Refused>) -> Result<Vec<u8>, Refused> {
    answered.map(|Answered { status, kind, body }| {
        assert_eq!(Head { status, kind: &kind }, HEAD);
        body
    })
}
