//! What others made: RFC 7518, and where they lie beside the project, RFC 7520, Wycheproof and RFC 9180.

use std::path::Path;

use aws_lc_rs::{
    aead::{self, AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};
use rustls::crypto::{
    aws_lc_rs::hpke::{DH_KEM_P256_HKDF_SHA256_AES_128, DH_KEM_X25519_HKDF_SHA256_AES_128},
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey},
};
use serde_json::Value;

use super::*;

fn vectors(name: &str) -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors").join(name);
    let Ok(text) = std::fs::read(path) else {
        println!("not run: there is no {name} beside the project");
        return None;
    };
    Some(serde_json::from_slice(&text).unwrap())
}

fn all<'a>(vectors: &'a Value, list: &str) -> &'a [Value] {
    vectors[list].as_array().unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn private(jwk: &Value) -> Private {
    let curve = if jwk["crv"] == "X25519" { Curve::X25519 } else { Curve::P256 };
    Private::from_raw(curve, &b64(text(jwk, "d"))).unwrap()
}

fn public(jwk: &Value) -> Public {
    let mut jwk = jwk.as_object().unwrap().clone();
    jwk.retain(|name, _| matches!(name.as_str(), "kty" | "crv" | "x" | "y"));
    Public::from_jwk(&serde_json::from_value(Value::Object(jwk)).unwrap()).unwrap()
}

/// RFC 7518 appendix C.
#[test]
fn the_key_of_alice_and_bob() {
    let alice = Private::from_raw(Curve::P256, &b64("0_NxaRPUMQoAJt50Gz8YiTr8gRTwyEaCumd-MToTmIo")).unwrap();
    let bob = Private::from_raw(Curve::P256, &b64("VEmDZpDXXK8p8N0Cndsxs924q6nS1RXFASRl6BfUqdw")).unwrap();
    let x = "gI0GAILBdu7T53akrFmMyGcsF3n5dO7MmwNBHKW5SV0";
    assert_eq!(serde_json::to_value(alice.public().to_jwk()).unwrap()["x"], x);
    for (own, other) in [(&alice, &bob), (&bob, &alice)] {
        let agreed = own.agree(other.public()).unwrap();
        let key = jwe::concat_kdf(agreed.expose(), "A128GCM", b"Alice", b"Bob", 128);
        assert_eq!(URL_SAFE_NO_PAD.encode(&key[..16]), "VqqN6vgjbSBcIijNcacQGg");
    }
}

/// Its agreements on these curves are with other ciphers: what agrees and derives is held against them, and the whole refuses them.
#[test]
fn rfc_7520_and_8037() {
    let Some(vector) = vectors("jose/rfc7520-cookbook/curve25519/ecdh-es.json") else { return };
    let compact = text(&vector["output"], "compact");
    let parts: Vec<&str> = compact.split('.').collect();
    let epk = public(&vector["encrypting_content"]["protected"]["epk"]);
    let agreed = private(&vector["input"]["key"]).agree(&epk).unwrap();
    let key = jwe::concat_kdf(agreed.expose(), "A128GCM", b"", b"", 128);
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key[..16]).unwrap());
    let mut sealed = [b64(parts[3]), b64(parts[4])].concat();
    let iv = Nonce::try_assume_unique_for_key(&b64(parts[2])).unwrap();
    let plain = key.open_in_place(iv, Aad::from(parts[0].as_bytes()), &mut sealed).unwrap();
    assert_eq!(plain, text(&vector["input"], "plaintext").as_bytes());
    assert!(jwe::parse(compact.as_bytes(), MOST).is_err());

    let folder = "jose/rfc7520-cookbook/jwe";
    let direct = vectors(&format!("{folder}/5_5.key_agreement_using_ecdh-es_with_aes-cbc-hmac-sha2.json"));
    let direct = direct.unwrap();
    let epk = public(&direct["encrypting_content"]["protected"]["epk"]);
    let agreed = private(&direct["input"]["key"]).agree(&epk).unwrap();
    let key = jwe::concat_kdf(agreed.expose(), "A128CBC-HS256", b"", b"", 256);
    assert_eq!(URL_SAFE_NO_PAD.encode(key), text(&direct["encrypting_key"], "cek"));

    let all =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors").join(folder));
    let mut count = 0;
    for file in all.unwrap() {
        let vector: Value = serde_json::from_slice(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        let Some(compact) = vector["output"]["compact"].as_str() else { continue };
        assert!(jwe::parse(compact.as_bytes(), MOST).is_err(), "{}", vector["title"]);
        count += 1;
    }
    assert!(count >= 9, "another edition of the vectors: count again");
}

#[test]
fn wycheproof_jwe() {
    let Some(vectors) = vectors("wycheproof/json_web_encryption_test.json") else { return };
    let (mut opened, mut refused) = (Vec::new(), 0);
    for group in all(&vectors, "testGroups") {
        let key = &group["private"];
        let is_ours = key["crv"] == "P-256" || key["crv"] == "X25519";
        let own = if is_ours { private(key) } else { Private::generate(Curve::P256).unwrap() };
        for test in all(group, "tests") {
            let Some(compact) = test["jwe"].as_str() else { continue };
            let plain = jwe::parse(compact.as_bytes(), MOST).and_then(|parts| jwe::decrypt(parts, &own));
            match plain {
                Ok((_, plain)) => {
                    assert_eq!((&test["result"], plain), (&"valid".into(), hex(text(test, "pt"))));
                    opened.push(test["tcId"].as_u64().unwrap());
                }
                Err(Refused) => refused += 1,
            }
        }
    }
    // The two that are of P-256 and of our algorithms.
    assert_eq!(opened, [66, 78]);
    assert!(refused >= 130, "{refused}");
}

#[test]
fn wycheproof_agreement() {
    // SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING } up to the point.
    let spki = hex("3059301306072a8648ce3d020106082a8648ce3d030107034200");
    let files = [("ecdh_secp256r1", Curve::P256), ("x25519", Curve::X25519)];
    for (name, curve) in files {
        let Some(vectors) = vectors(&format!("wycheproof/{name}_test.json")) else { return };
        let (mut good, mut bad) = (0, 0);
        for test in all(&vectors, "testGroups").iter().flat_map(|group| all(group, "tests")) {
            let other = hex(text(test, "public"));
            let other = if curve == Curve::P256 { other.strip_prefix(&spki[..]) } else { Some(&other[..]) };
            // Private keys are written as integers, with a zero before them or without those that they begin with.
            let own = hex(text(test, "private"));
            let own = [vec![0; 32], own].concat();
            let own = &own[own.len() - 32..];
            let agreed = other
                .ok_or(Refused)
                .and_then(|other| Private::from_raw(curve, own)?.agree(&Public::new(curve, other)?));
            let shared = hex(text(test, "shared"));
            match agreed {
                Ok(agreed) => {
                    assert_eq!(agreed.expose()[..], shared, "{name} {}", test["tcId"]);
                    assert_ne!(shared, [0; 32]);
                    assert_ne!(test["result"], "invalid", "{name} {}", test["tcId"]);
                    good += 1;
                }
                Err(Refused) => {
                    let excuse = test["result"] != "valid" || shared.iter().all(|byte| *byte == 0);
                    assert!(excuse, "{name} {}: {}", test["tcId"], test["comment"]);
                    bad += 1;
                }
            }
        }
        println!("{name}: {good} agree, {bad} refused");
        assert!(good > 200 && bad > 10, "{name}: {good} agree, {bad} refused");
    }
}

/// Base mode as RFC 9180 has it (sections 4 and 5.1), written from there, up to the key and the IV of the first message.
fn schedule(own: &Private, enc: &[u8], info: &[u8], (aead_id, length): (u16, usize)) -> (Vec<u8>, Vec<u8>) {
    struct Bytes(usize);
    impl KeyType for Bytes {
        fn len(&self) -> usize {
            self.0
        }
    }
    let curve = own.public().curve();
    let kem_id: u16 = if curve == Curve::P256 { 0x10 } else { 0x20 };
    let kem = [b"KEM".to_vec(), kem_id.to_be_bytes().to_vec()].concat();
    let suite = [kem_id, 1, aead_id].map(u16::to_be_bytes).concat();
    let suite = [b"HPKE".to_vec(), suite].concat();
    let extract = |suite: &[u8], salt: &[u8], label: &str, ikm: &[u8]| {
        Salt::new(HKDF_SHA256, salt).extract(&[b"HPKE-v1", suite, label.as_bytes(), ikm].concat())
    };
    let fill = |secret: &Prk, info: &[u8], length: usize| {
        let mut bytes = vec![0; length];
        secret.expand(&[info], Bytes(length)).unwrap().fill(&mut bytes).unwrap();
        bytes
    };
    let expand = |suite: &[u8], secret: &Prk, label: &str, info: &[u8], length: usize| {
        let long = u16::try_from(length).unwrap().to_be_bytes();
        fill(secret, &[&long[..], b"HPKE-v1", suite, label.as_bytes(), info].concat(), length)
    };
    // What HKDF-Extract gives, as bytes: this library shows it by no other way than HMAC, which it is.
    let extract_bytes = |suite: &[u8], label: &str, ikm: &[u8]| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &[]);
        let ikm = [b"HPKE-v1", suite, label.as_bytes(), ikm].concat();
        aws_lc_rs::hmac::sign(&key, &ikm).as_ref().to_vec()
    };
    let dh = own.agree(&Public::new(curve, enc).unwrap()).unwrap();
    let prk = extract(&kem, b"", "eae_prk", dh.expose());
    let kem_context = [enc, own.public().bytes()].concat();
    let shared = expand(&kem, &prk, "shared_secret", &kem_context, 32);
    let context =
        [vec![0], extract_bytes(&suite, "psk_id_hash", b""), extract_bytes(&suite, "info_hash", info)]
            .concat();
    let secret = extract(&suite, &shared, "secret", b"");
    (expand(&suite, &secret, "key", &context, length), expand(&suite, &secret, "base_nonce", &context, 12))
}

fn gcm(algorithm: &'static aead::Algorithm, key: &[u8], iv: &[u8], aad: &[u8], sealed: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
    let iv = Nonce::try_assume_unique_for_key(iv).unwrap();
    let mut sealed = sealed.to_vec();
    key.open_in_place(iv, Aad::from(aad), &mut sealed).unwrap().to_vec()
}

#[test]
fn rfc_9180_base_mode() {
    let Some(vectors) = vectors("hpke/rfc9180-appendix-a.json") else { return };
    let mut count = 0;
    for vector in all(&vectors, "vectors") {
        let ids = ["mode", "kem_id", "kdf_id", "aead_id"].map(|name| text(vector, name));
        let (curve, suite): (_, &dyn Hpke) = match ids {
            ["0", "16", "1", "1"] => (Curve::P256, DH_KEM_P256_HKDF_SHA256_AES_128),
            ["0", "32", "1", "1"] => (Curve::X25519, DH_KEM_X25519_HKDF_SHA256_AES_128),
            _ => continue,
        };
        let [own, enc, info] = ["skRm", "enc", "info"].map(|name| hex(text(vector, name)));
        // The key schedule of this test, which is held against ours below.
        let key = Private::from_raw(curve, &own).unwrap();
        let (secret, iv) = schedule(&key, &enc, &info, (1, 16));
        assert_eq!((&secret, &iv), (&hex(text(vector, "key")), &hex(text(vector, "base_nonce"))));
        // And the library, in the suite that the RFC has vectors of.
        let mut opener =
            suite.setup_opener(&EncapsulatedSecret(enc), &info, &HpkePrivateKey::from(own)).unwrap();
        for (i, message) in all(vector, "encryptions").iter().enumerate() {
            if text(message, "sequence number") != i.to_string() {
                break;
            }
            let [aad, ct, pt] = ["aad", "ct", "pt"].map(|name| hex(text(message, name)));
            assert_eq!(opener.open(&aad, &ct).unwrap(), pt);
            if i == 0 {
                assert_eq!(gcm(&AES_128_GCM, &secret, &iv, &aad, &ct), pt);
            }
            count += 1;
        }
    }
    assert_eq!(count, 6, "three messages of two suites, in order");
}

/// The RFC has no vectors of these suites: what is made at run time is opened by the schedule that its other vectors agree with.
#[test]
fn hpke_with_aes_256_is_that_of_the_rfc() {
    for curve in CURVES {
        let both = Both::new(curve);
        let own = both.keys.find(&both.id).unwrap();
        let sealed = both.hpke().seal(PLACE, b"body").unwrap();
        let (head, rest) = sealed.split_at(2 + both.id.len());
        assert_eq!(head, [&[1, 43], both.id.as_bytes()].concat());
        let (enc, ciphertext) = rest.split_at(curve.public_length());
        let (key, iv) = schedule(own, enc, b"enforcer payload request 1", (2, 32));
        let aad = format!("POST\n/v1/transfers\n{}", both.id);
        let plain = gcm(&AES_256_GCM, &key, &iv, aad.as_bytes(), ciphertext);
        let kind = [&[31], KIND.as_bytes()].concat();
        let expected = [&MADE.to_be_bytes()[..], &ONCE, both.app.public().bytes(), &kind, b"body"].concat();
        assert_eq!(plain, expected);

        let opened = hpke::open(&sealed, &both.keys, PLACE, MOST).unwrap();
        let answer = opened.reply.seal(HEAD, b"answer").unwrap();
        let (enc, ciphertext) = answer[1..].split_at(curve.public_length());
        let (key, iv) = schedule(&both.app, enc, b"enforcer payload answer 1", (2, 32));
        let aad = format!("{aad}\n{}", URL_SAFE_NO_PAD.encode(ONCE));
        let expected = [&201_u16.to_be_bytes()[..], &kind, b"answer"].concat();
        assert_eq!(gcm(&AES_256_GCM, &key, &iv, aad.as_bytes(), ciphertext), expected);
    }
}

/// Likewise the layout, from its description.
#[test]
fn the_layout_is_what_its_description_says() {
    use base64::engine::general_purpose::STANDARD;
    for curve in CURVES {
        let both = Both::new(curve);
        let own = both.keys.find(&both.id).unwrap();
        let agreed = own.agree(both.app.public()).unwrap();
        let salt = [both.app.public().bytes(), both.server.bytes()].concat();
        let key = |direction: &str| {
            let info = format!("enforcer payload 1\n{direction}\n{}", both.id);
            let mut key = [0; 32];
            let secret = Salt::new(HKDF_SHA256, &salt).extract(agreed.expose());
            secret.expand(&[info.as_bytes()], HKDF_SHA256).unwrap().fill(&mut key).unwrap();
            key
        };
        let (sealed, iv) = layout::request(&both.session(), PLACE, (&both.id, MADE, KIND), b"body").unwrap();
        let bytes = STANDARD.decode(&sealed).unwrap();
        assert_eq!(bytes[..12], iv);
        let aad = format!("POST\n/v1/transfers\n{}\n{MADE}\n{KIND}", both.id);
        assert_eq!(gcm(&AES_256_GCM, &key("request"), &iv, aad.as_bytes(), &bytes[12..]), b"body");

        let opened = layout::open(&sealed, both.beside(), &both.keys, PLACE, MOST).unwrap();
        let bytes = STANDARD.decode(opened.reply.seal(HEAD, b"answer").unwrap()).unwrap();
        let aad = format!("POST\n/v1/transfers\n{}\n{}\n201\n{KIND}", both.id, STANDARD.encode(iv));
        let answer = gcm(&AES_256_GCM, &key("answer"), &bytes[..12], aad.as_bytes(), &bytes[12..]);
        assert_eq!(answer, b"answer");
    }
}
