//! Headers of JWE that say what they may not say, though whoever wrote them knew how to encrypt.

use serde_json::{Map, Value, json};

use super::*;

/// The JSON of a good header, with changes.
pub(super) fn text(epk: &Public, both: &Both, change: impl FnOnce(&mut Map<String, Value>)) -> String {
    let mut header = json!({
        "alg": "ECDH-ES", "enc": "A256GCM", "epk": epk.to_jwk(), "kid": both.id, "method": PLACE.method,
        "path": PLACE.path, "iat": MADE, "jti": ID, "rpk": both.app.public().to_jwk(), "cty": KIND,
    });
    change(header.as_object_mut().unwrap());
    header.to_string()
}

struct Forger {
    both: Both,
    own: Private,
}

impl Forger {
    fn open(&self, header: &str) -> Result<Opened, Refused> {
        let (server, plain) = (&self.both.server, [&ECHO[..], b"body"].concat());
        let sealed = jwe::encrypt_from(jwe::Alg::Direct, &self.own, server, header.as_bytes(), plain);
        jwe::open(&sealed.unwrap(), &self.both.keys, PLACE, MOST)
    }

    fn good(&self) -> String {
        text(self.own.public(), &self.both, |_| ())
    }

    /// With one member changed, or taken away.
    fn with(&self, name: &str, value: Option<Value>) -> Result<Opened, Refused> {
        self.open(&text(self.own.public(), &self.both, |header| {
            match value {
                Some(value) => header.insert(name.to_owned(), value),
                None => header.remove(name),
            };
        }))
    }
}

fn forgers() -> impl Iterator<Item = Forger> {
    CURVES.into_iter().map(|curve| Forger { both: Both::new(curve), own: Private::generate(curve).unwrap() })
}

#[test]
fn members_are_exactly_those_that_are_known() {
    for forger in forgers() {
        is_what_was_sent(&forger.open(&forger.good()).unwrap(), &forger.both, b"body");
        assert_eq!(forger.with("cty", None).unwrap().kind, "");
        for name in ["alg", "enc", "epk", "kid", "method", "path", "iat", "jti", "rpk"] {
            assert_eq!(forger.with(name, None).err(), Some(Refused), "without {name}");
            for value in [Value::Null, json!([]), json!({}), json!(""), json!(-1), json!(1.5), json!(true)] {
                assert_eq!(forger.with(name, Some(value.clone())).err(), Some(Refused), "{name}: {value}");
            }
        }
        let others = [
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("zip", json!("DEF")),
            ("zip", Value::Null),
            ("b64", json!(false)),
            ("jwk", json!({})),
            ("jku", json!("https://localhost/keys")),
            ("x5c", json!([])),
            ("p2c", json!(2_147_483_648_u32)),
            ("p2s", json!("AAAA")),
            ("apu", json!("QWxpY2U")),
            ("iv", json!("AAAA")),
            ("tag", json!("AAAA")),
            ("cty", json!("JWT")),
            ("cty", json!("")),
            ("cty", json!("text/html\nx")),
            ("cty", json!(" application/grpc")),
            ("cty", json!("text/html ")),
            ("cty", json!(format!("text/{}", "x".repeat(123)))),
            ("status", json!(200)),
            ("typ", json!("JWE")),
        ];
        for (name, value) in others {
            assert_eq!(forger.with(name, Some(value)).err(), Some(Refused), "with {name}");
        }
    }
}

#[test]
fn values_are_those_of_the_request() {
    for forger in forgers() {
        let both = &forger.both;
        for alg in ["none", "dir", "A256KW", "A256GCMKW", "RSA1_5", "RSA-OAEP", "PBES2-HS256+A128KW"] {
            assert_eq!(forger.with("alg", Some(json!(alg))).err(), Some(Refused), "{alg}");
        }
        for alg in ["ecdh-es", "ECDH-ES ", "ECDH-ES+A128KW", "ECDH-ES+A256KW"] {
            assert_eq!(forger.with("alg", Some(json!(alg))).err(), Some(Refused), "{alg}");
        }
        for enc in ["A128GCM", "A192GCM", "A128CBC-HS256", "A256CBC-HS512", "a256gcm"] {
            assert_eq!(forger.with("enc", Some(json!(enc))).err(), Some(Refused), "{enc}");
        }
        for (name, value) in [
            ("kid", json!("unknown")),
            ("kid", json!(both.keys.0[1].0)),
            ("method", json!("GET")),
            ("path", json!("/v1/transfers?x")),
            ("jti", json!("fifteen-letters")),
            ("jti", json!("x".repeat(65))),
            ("iat", json!("1800000000")),
            ("iat", json!(1.8e9)),
        ] {
            assert_eq!(forger.with(name, Some(value.clone())).err(), Some(Refused), "{name}: {value}");
        }
        // The key itself by its other name is another header, and good.
        assert_eq!(forger.with("kid", Some(json!("twin"))).unwrap().key, "twin");
        assert_eq!(forger.with("jti", Some(json!("x".repeat(16)))).unwrap().once, [b'x'; 16]);
        // White space means nothing in JSON, and is not endless: 4,096 characters of base64 are 3,072 bytes.
        let good = forger.good();
        let padded = |length: usize| format!("{}{good}", " ".repeat(length - good.len()));
        assert!(forger.open(&padded(3_072)).is_ok());
        assert_eq!(forger.open(&padded(3_073)).err(), Some(Refused));
        let long = Place { path: &"x".repeat(5_000), ..PLACE };
        assert_eq!(both.jwe(jwe::Alg::Direct).seal(long, b"body"), Err(Refused));
    }
}

#[test]
fn json_can_be_read_in_one_way() {
    for forger in forgers() {
        let good = forger.good();
        assert!(forger.open(&good).is_ok());
        for name in ["alg", "epk", "kid", "jti", "rpk"] {
            let value: Value = serde_json::from_str(&good).unwrap();
            let member = format!("\"{name}\":{}", value[name]);
            assert!(good.contains(&member), "{member}");
            let twice = good.replace(&member, &format!("{member},{member}"));
            assert_eq!(forger.open(&twice).err(), Some(Refused), "{name} twice");
        }
        let twice = good.replacen("\"crv\":", "\"crv\":\"P-384\",\"crv\":", 1);
        assert_eq!(forger.open(&twice).err(), Some(Refused));
        let value: Value = serde_json::from_str(&good).unwrap();
        let list: Vec<&Value> = ["alg", "enc", "epk", "kid", "method", "path", "iat", "jti", "rpk"]
            .iter()
            .map(|name| &value[*name])
            .collect();
        assert_eq!(forger.open(&serde_json::to_string(&list).unwrap()).err(), Some(Refused));
        for bad in ["", "null", "[]", "{", "\"\"", "1"] {
            assert_eq!(forger.open(bad).err(), Some(Refused), "{bad}");
        }
        assert_eq!(forger.open(&format!("{good}{{}}")).err(), Some(Refused));
        assert_eq!(forger.open(&good[..good.len() - 1]).err(), Some(Refused));
    }
}

#[test]
fn keys_in_headers_are_keys_and_nothing_else() {
    for forger in forgers() {
        for name in ["epk", "rpk"] {
            let own = serde_json::to_value(if name == "epk" {
                forger.own.public().to_jwk()
            } else {
                forger.both.app.public().to_jwk()
            });
            let own = own.unwrap();
            let change = |member: &str, value: Value| {
                let mut key = own.clone();
                key[member] = value;
                forger.with(name, Some(key)).err()
            };
            assert_eq!(change("x", own["x"].clone()), None);
            for (member, value) in [
                ("d", json!("AAAA")),
                ("kid", json!("a")),
                ("alg", json!("ECDH-ES")),
                ("kty", json!("oct")),
                ("kty", json!("RSA")),
                ("crv", json!("P-384")),
                ("crv", json!("Ed25519")),
                ("x", json!("")),
                ("x", json!(format!("{}A", own["x"].as_str().unwrap()))),
                ("x", json!(format!("{}=", own["x"].as_str().unwrap()))),
                ("y", Value::Null),
                ("y", json!("AAAA")),
            ] {
                assert_eq!(change(member, value.clone()), Some(Refused), "{name}.{member}: {value}");
            }
            let list: Vec<&Value> =
                ["kty", "crv", "x", "y"].iter().filter_map(|member| own.get(*member)).collect();
            assert_eq!(forger.with(name, Some(json!(list))).err(), Some(Refused));
        }
        // A point of the other curve is a good key for the answer, and none that could be agreed with.
        let other = match forger.own.public().curve() {
            Curve::P256 => Curve::X25519,
            Curve::X25519 => Curve::P256,
        };
        let other = serde_json::to_value(Private::generate(other).unwrap().public().to_jwk()).unwrap();
        assert_eq!(forger.with("epk", Some(other.clone())).err(), Some(Refused));
        let opened = forger.with("rpk", Some(other)).unwrap();
        assert!(opened.reply.seal(HEAD, b"answer").is_ok());
    }
}
