//! Encrypted bodies as inputs: raw ones in each form, and headers and contents that are encrypted with the right keys.

use std::sync::LazyLock;

use anyhow::{Result, anyhow};
use enforcer::sealed::{
    Keys, Place, hpke, jwe,
    keys::{Curve, Private, Public},
    layout,
};
use serde_json::{Value, json};

const PLACE: Place<'static> = Place { method: "POST", path: "/v1/transfers" };
const MADE: u64 = 1_800_000_000;
const ID: &str = "request-0123456789";
const KEY: &str = "key-1";
const MOST: usize = 1_024;
const ECHO: [u8; jwe::ECHO] = [8; jwe::ECHO];

struct Desk {
    keys: Keys,
    server: Public,
    app: Private,
}

/// With keys of this process: none is kept.
static DESK: LazyLock<Option<Desk>> = LazyLock::new(|| desk().ok());

fn desk() -> Result<Desk> {
    let key = || Private::generate(Curve::X25519).map_err(|_| anyhow!("no key"));
    let own = key()?;
    let server = own.public().clone();
    let keys = Keys::new(vec![(KEY.to_owned(), own)]).map_err(anyhow::Error::msg)?;
    Ok(Desk { keys, server, app: key()? })
}

/// What was opened: in which form, and how long what was in it is.
pub type Found = (&'static str, usize);

/// What becomes of an input: `None` where it is refused. The first byte says how it is read.
#[allow(clippy::panic, reason = "a fuzz target reports by it")]
pub fn judge(input: &[u8]) -> Option<Found> {
    let desk = DESK.as_ref()?;
    let (kind, rest) = input.split_first()?;
    let app = desk.app.public();
    let beside = layout::Beside { key: KEY, app: app.bytes(), made: MADE, kind: "" };
    match kind % 6 {
        // Nobody knows by chance how to encrypt.
        0 => {
            let all = [
                jwe::open(rest, &desk.keys, PLACE, MOST).is_err(),
                hpke::open(rest, &desk.keys, PLACE, MOST).is_err(),
                layout::open(rest, beside, &desk.keys, PLACE, MOST).is_err(),
                layout::open(rest, layout::Beside { app: rest, ..beside }, &desk.keys, PLACE, MOST).is_err(),
            ];
            assert!(!all.contains(&false), "{all:?}: {}", String::from_utf8_lossy(rest));
            None
        }
        // A header of JWE, in which `$EPK` stands for a key that belongs to it.
        1 | 2 => {
            let alg = if kind % 6 == 1 { jwe::Alg::Direct } else { jwe::Alg::Wrapped };
            let header = std::str::from_utf8(rest).ok()?;
            let plain = [&ECHO[..], b"body"].concat();
            let sealed = jwe::seal_as(alg, &desk.server, header, &plain).ok()?;
            let opened = jwe::open(&sealed, &desk.keys, PLACE, MOST).ok()?;
            assert!(opened.body == b"body" && says(header, alg), "accepted: {header}");
            Some(("jwe", opened.kind.len()))
        }
        3 => {
            let (length, content) = rest.split_first()?;
            let (media, body) = content.split_at_checked((*length).into())?;
            let media = std::str::from_utf8(media).ok()?;
            let request = hpke::Request {
                to: &desk.server,
                key: KEY,
                made: MADE,
                once: [7; hpke::ONCE],
                answer_to: app,
                kind: media,
            };
            let opened = hpke::open(&request.seal(PLACE, body).ok()?, &desk.keys, PLACE, MOST).ok()?;
            assert!(opened.body == body && opened.kind == media && opened.made == MADE && body.len() <= MOST);
            Some(("hpke", opened.kind.len()))
        }
        4 => {
            let session = layout::Session::of_app(&desk.app, &desk.server, KEY).ok()?;
            let (sealed, _) = layout::request(&session, PLACE, (KEY, MADE, ""), rest).ok()?;
            let opened = layout::open(&sealed, beside, &desk.keys, PLACE, MOST).ok()?;
            assert!(opened.body == rest && rest.len() <= MOST);
            Some(("layout", 0))
        }
        // A good body with some bytes changed is none.
        _ => {
            let request = jwe::Request {
                alg: jwe::Alg::Direct,
                to: &desk.server,
                key: KEY,
                made: MADE,
                id: ID,
                answer_to: app,
                kind: "",
                echo: ECHO,
            };
            let good = request.seal(PLACE, b"body").ok()?;
            let mut changed = good.clone();
            for change in rest.as_chunks::<3>().0 {
                let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % changed.len();
                changed[at] = change[2];
            }
            let opened = jwe::open(&changed, &desk.keys, PLACE, MOST);
            assert_eq!(opened.is_ok(), changed == good, "{}", String::from_utf8_lossy(&changed));
            opened.ok().map(|opened| ("jwe", opened.kind.len()))
        }
    }
}

/// A simpler reading than the one that is tested: what an accepted header has to say.
fn says(header: &str, alg: jwe::Alg) -> bool {
    let Ok(Value::Object(said)) = serde_json::from_str::<Value>(&header.replace("$EPK", "0")) else {
        return false;
    };
    let known = ["alg", "enc", "epk", "kid", "method", "path", "iat", "jti", "rpk", "cty"];
    let is = |name: &str, value: &str| said.get(name).and_then(Value::as_str) == Some(value);
    said.keys().all(|name| known.contains(&name.as_str()))
        && is("alg", alg.name())
        && is("enc", "A256GCM")
        && is("kid", KEY)
        && is("method", PLACE.method)
        && is("path", PLACE.path)
        && said.get("iat").is_some_and(Value::is_u64)
        && said.get("jti").and_then(Value::as_str).is_some_and(|id| (16..=64).contains(&id.len()))
}

/// Good ones, and what attackers would send.
pub fn seeds() -> Vec<Vec<u8>> {
    // A public key of this form, of nobody; what stands for the one that fits is not kept.
    let other = json!({"kty": "OKP", "crv": "X25519", "x": "CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"});
    let good = json!({
        "alg": "ECDH-ES", "enc": "A256GCM", "epk": "$EPK", "kid": KEY, "method": PLACE.method, "path": PLACE.path,
        "iat": MADE, "jti": ID, "rpk": other, "cty": "application/json",
    });
    let good = good.to_string().replace("\"$EPK\"", "$EPK");
    let wrapped = good.replace("ECDH-ES", "ECDH-ES+A256KW");
    let mut seeds: Vec<Vec<u8>> = vec![[&[1], good.as_bytes()].concat(), [&[2], wrapped.as_bytes()].concat()];
    for (from, to) in [
        ("\"cty\":\"application/json\",", ""),
        ("\"cty\":\"application/json\"", "\"cty\":\"JWT\""),
        ("\"cty\":\"application/json\"", "\"zip\":\"DEF\""),
        ("\"cty\":\"application/json\"", "\"crit\":[\"exp\"]"),
        ("\"cty\":\"application/json\"", "\"status\":200"),
        ("ECDH-ES", "none"),
        ("A256GCM", "A128CBC-HS256"),
        (KEY, "key-2"),
        ("POST", "GET"),
        ("\"iat\":", "\"iat\":-"),
        ("\"jti\":", "\"jti\":1,\"jti\":"),
        ("$EPK", "null"),
        ("X25519", "P-256"),
    ] {
        seeds.push([&[1], good.replace(from, to).as_bytes()].concat());
    }
    for raw in [
        &b""[..],
        b"a.b.c.d.e",
        b"....",
        b"eyJhbGciOiJFQ0RILUVTIn0..AAAAAAAAAAAAAAAA..AAAAAAAAAAAAAAAAAAAAAA",
        b"\x01\x05key-1AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==",
    ] {
        seeds.push([&[0], raw].concat());
    }
    seeds.push(b"\x03\x10application/json{}".to_vec());
    seeds.push(b"\x03\x00".to_vec());
    seeds.push(b"\x03\x04text{}".to_vec());
    seeds.push([&[3, 0][..], &[b'x'; MOST + 1]].concat());
    seeds.push(b"\x04{}".to_vec());
    seeds.push([&[4][..], &[b'x'; MOST + 1]].concat());
    seeds.push(vec![5]);
    seeds.push(vec![5, 9, 0, b'A']);
    seeds
}
