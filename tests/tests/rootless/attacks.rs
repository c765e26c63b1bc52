//! Tokens that attackers send, against the checklist of RFC 8725 and the known failures of JWT libraries.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::denial::Denial;
use enforcer_tests::tokens::{SigningKey, assemble, encode, mint_hmac, signing_input};
use serde_json::json;

use super::admit::{Case, Desk};

/// Headers that ask for what is never given.
pub(super) fn header_cases(desk: &Desk) -> Result<Vec<Case>> {
    use Denial::{TokenAlgorithm, TokenHeader, TokenMalformed, TokenUnknownKey};
    let claims = desk.claims().to_string();
    let rogue = SigningKey::p256("ec-1")?;
    let long = "k".repeat(300);
    let mut cases = Vec::new();
    for (name, header, denial) in [
        ("alg none", r#"{"alg":"none"}"#.to_owned(), TokenAlgorithm),
        ("alg None", r#"{"alg":"None","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg NONE", r#"{"alg":"NONE","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg nOnE", r#"{"alg":"nOnE","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg empty", r#"{"alg":"","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg in small letters", r#"{"alg":"es256","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg with a space", r#"{"alg":"ES256 ","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg PS256 for the RSA key", r#"{"alg":"PS256","kid":"rsa-1"}"#.to_owned(), TokenAlgorithm),
        ("alg ES384 for the P-256 key", r#"{"alg":"ES384","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg ES256K", r#"{"alg":"ES256K","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg EdDSA", r#"{"alg":"EdDSA","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg RS512", r#"{"alg":"RS512","kid":"rsa-1"}"#.to_owned(), TokenAlgorithm),
        ("alg dir: encryption", r#"{"alg":"dir","enc":"A256GCM","kid":"ec-1"}"#.to_owned(), TokenAlgorithm),
        ("alg PBES2", r#"{"alg":"PBES2-HS256+A128KW","p2c":2147483647}"#.to_owned(), TokenAlgorithm),
        ("alg missing", r#"{"kid":"ec-1"}"#.to_owned(), TokenMalformed),
        ("alg a list", r#"{"alg":["ES256"],"kid":"ec-1"}"#.to_owned(), TokenMalformed),
        ("alg null", r#"{"alg":null,"kid":"ec-1"}"#.to_owned(), TokenMalformed),
        ("alg twice", r#"{"alg":"none","alg":"ES256","kid":"ec-1"}"#.to_owned(), TokenMalformed),
        ("kid twice", r#"{"alg":"ES256","kid":"x","kid":"ec-1"}"#.to_owned(), TokenMalformed),
        (
            "alg twice, once escaped",
            r#"{"alg":"ES256","\u0061lg":"none","kid":"ec-1"}"#.to_owned(),
            TokenMalformed,
        ),
        ("jku", r#"{"alg":"ES256","kid":"ec-1","jku":"https://evil.example/jwks"}"#.to_owned(), TokenHeader),
        ("x5u", r#"{"alg":"ES256","kid":"ec-1","x5u":"https://evil.example/c"}"#.to_owned(), TokenHeader),
        ("x5c", r#"{"alg":"ES256","kid":"ec-1","x5c":["MIIB"]}"#.to_owned(), TokenHeader),
        ("crit unknown", r#"{"alg":"ES256","kid":"ec-1","crit":["x"],"x":1}"#.to_owned(), TokenHeader),
        ("crit empty", r#"{"alg":"ES256","kid":"ec-1","crit":[]}"#.to_owned(), TokenHeader),
        ("crit null", r#"{"alg":"ES256","kid":"ec-1","crit":null}"#.to_owned(), TokenHeader),
        (
            "crit naming a registered name",
            r#"{"alg":"ES256","kid":"ec-1","crit":["alg"]}"#.to_owned(),
            TokenHeader,
        ),
        (
            "crit b64 with b64 false",
            r#"{"alg":"ES256","kid":"ec-1","crit":["b64"],"b64":false}"#.to_owned(),
            TokenHeader,
        ),
        ("b64 false alone", r#"{"alg":"ES256","kid":"ec-1","b64":false}"#.to_owned(), TokenHeader),
        ("b64 true", r#"{"alg":"ES256","kid":"ec-1","b64":true}"#.to_owned(), TokenHeader),
        ("zip", r#"{"alg":"ES256","kid":"ec-1","zip":"DEF"}"#.to_owned(), TokenHeader),
        ("enc", r#"{"alg":"ES256","kid":"ec-1","enc":"A256GCM"}"#.to_owned(), TokenHeader),
        ("kid a number", r#"{"alg":"ES256","kid":1}"#.to_owned(), TokenMalformed),
        ("kid null", r#"{"alg":"ES256","kid":null}"#.to_owned(), TokenMalformed),
        ("kid of 300 bytes", format!(r#"{{"alg":"ES256","kid":"{long}"}}"#), TokenMalformed),
        ("kid as a path", r#"{"alg":"ES256","kid":"../../../dev/null"}"#.to_owned(), TokenUnknownKey),
        ("kid as SQL", r#"{"alg":"ES256","kid":"x' OR '1'='1"}"#.to_owned(), TokenUnknownKey),
        ("kid with NUL", r#"{"alg":"ES256","kid":"ec-1\u0000"}"#.to_owned(), TokenUnknownKey),
        ("kid empty", r#"{"alg":"ES256","kid":""}"#.to_owned(), TokenUnknownKey),
        ("kid in capitals", r#"{"alg":"ES256","kid":"EC-1"}"#.to_owned(), TokenUnknownKey),
        ("kid of a key of another type", r#"{"alg":"RS256","kid":"ec-1"}"#.to_owned(), TokenUnknownKey),
        (
            "typ of a proof of possession",
            r#"{"alg":"ES256","kid":"ec-1","typ":"dpop+jwt"}"#.to_owned(),
            TokenHeader,
        ),
        (
            "typ of a logout token",
            r#"{"alg":"ES256","kid":"ec-1","typ":"logout+jwt"}"#.to_owned(),
            TokenHeader,
        ),
        (
            "typ of a security event",
            r#"{"alg":"ES256","kid":"ec-1","typ":"secevent+jwt"}"#.to_owned(),
            TokenHeader,
        ),
        ("typ empty", r#"{"alg":"ES256","kid":"ec-1","typ":""}"#.to_owned(), TokenHeader),
        ("typ with a space", r#"{"alg":"ES256","kid":"ec-1","typ":"JWT "}"#.to_owned(), TokenHeader),
        ("typ a number", r#"{"alg":"ES256","kid":"ec-1","typ":1}"#.to_owned(), TokenMalformed),
        ("header a list", "[]".to_owned(), TokenMalformed),
        ("header empty", String::new(), TokenMalformed),
        ("header not JSON", "alg=ES256".to_owned(), TokenMalformed),
        ("header with a tail", r#"{"alg":"ES256","kid":"ec-1"}x"#.to_owned(), TokenMalformed),
        (
            "header of 2 KiB",
            format!(r#"{{"alg":"ES256","kid":"ec-1","x":"{}"}}"#, "x".repeat(2048)),
            TokenMalformed,
        ),
        (
            "header 300 deep",
            format!(r#"{{"alg":"ES256","x":{}1{}}}"#, "[".repeat(300), "]".repeat(300)),
            TokenMalformed,
        ),
    ] {
        // Signed with the right key: the header alone must be the reason.
        cases.push((name, desk.ec.mint_raw(&header, &claims)?, Some(denial)));
    }
    let embedded = json!({"alg": "ES256", "kid": "ec-1", "jwk": rogue.jwk()}).to_string();
    cases.push(("jwk embedded, signed by it", rogue.mint_raw(&embedded, &claims)?, Some(TokenHeader)));
    let unsigned = format!("{}.", signing_input(r#"{"alg":"none"}"#, &claims));
    cases.push(("alg none without a signature", unsigned, Some(TokenAlgorithm)));
    Ok(cases)
}

/// Texts that are not the one spelling of a token.
pub(super) fn form_cases(desk: &Desk) -> Result<Vec<Case>> {
    let good = desk.ec.mint(&desk.claims())?;
    let parts: Vec<&str> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { anyhow::bail!("not three parts") };
    // 64 bytes are 86 characters of which the last carries four unused bits.
    let (stem, last) = signature.split_at(signature.len() - 1);
    let position = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        .iter()
        .position(|c| *c == last.as_bytes()[0])
        .unwrap_or_default();
    let twin = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[position ^ 1] as char;
    let malformed = Some(Denial::TokenMalformed);
    Ok(vec![
        ("one part", header.to_owned(), malformed),
        ("two parts", format!("{header}.{claims}"), malformed),
        ("four parts", format!("{good}.x"), malformed),
        ("five parts: a JWE", format!("{good}.x.y"), malformed),
        ("six parts", format!("{good}.x.y.z"), malformed),
        ("only dots", "..".to_owned(), malformed),
        ("thousands of dots", ".".repeat(8000), malformed),
        ("a dot at the end", format!("{good}."), malformed),
        ("padding on the header", format!("{header}=.{claims}.{signature}"), malformed),
        ("padding on the claims", format!("{header}.{claims}==.{signature}"), malformed),
        ("padding on the signature", format!("{good}=="), malformed),
        ("standard alphabet", format!("{header}.{claims}.{}+/", &signature[..84]), malformed),
        ("a space inside", format!("{header}.{claims}. {signature}"), malformed),
        ("a tab inside", format!("{header}.{claims}\t.{signature}"), malformed),
        ("other last bits of the signature", format!("{header}.{claims}.{stem}{twin}"), malformed),
        ("a length that base64 cannot have", format!("{header}.{claims}.{signature}AAA"), malformed),
        ("a token of 9 KiB", desk.ec.mint(&desk.claims_but("x", json!("x".repeat(9 << 10))))?, malformed),
        ("a megabyte of header", format!("{}.{claims}.{signature}", "A".repeat(1 << 20)), malformed),
        ("JSON instead of base64", format!("{}.{claims}.{signature}", r#"{"alg":"ES256"}"#), malformed),
    ])
}

/// Signatures that do not belong.
pub(super) fn signature_cases(desk: &Desk) -> Result<Vec<Case>> {
    let wrong = Some(Denial::TokenBadSignature);
    let claims = desk.claims().to_string();
    let es = signing_input(&desk.ec.header().to_string(), &claims);
    let rs = signing_input(&desk.rsa.header().to_string(), &claims);
    let (es_good, rs_good) = (desk.ec.sign(es.as_bytes())?, desk.rsa.sign(rs.as_bytes())?);
    let (other_ec, other_rsa) = (SigningKey::p256("ec-1")?, SigningKey::rsa("rsa-1")?);
    let richer = desk.claims_but("scope", json!("read admin")).to_string();
    let flipped = |signature: &[u8]| {
        let mut signature = signature.to_vec();
        signature[7] ^= 1;
        signature
    };
    // Order of P-256 (SEC 2 section 2.4.2).
    let order: Vec<u8> =
        [0xffff_ffff_u32, 0, 0xffff_ffff, 0xffff_ffff, 0xbce6_faad, 0xa717_9e84, 0xf3b9_cac2, 0xfc63_2551]
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
    let mut cases = vec![
        ("ES256 without a signature", format!("{es}."), wrong),
        ("RS256 without a signature", format!("{rs}."), wrong),
        ("ES256 by another key of the same kid", other_ec.mint(&desk.claims())?, wrong),
        ("RS256 by another key of the same kid", other_rsa.mint(&desk.claims())?, wrong),
        ("ES256 in DER", assemble(&es, &desk.ec.sign_otherwise(es.as_bytes())?), wrong),
        ("RS256 header with a PSS signature", assemble(&rs, &desk.rsa.sign_otherwise(rs.as_bytes())?), wrong),
        ("ES256 with r = s = 0", assemble(&es, &[0; 64]), wrong),
        ("ES256 with r = s = n", assemble(&es, &[order.clone(), order.clone()].concat()), wrong),
        ("ES256 with r = 0", assemble(&es, &[&[0; 32][..], &es_good[32..]].concat()), wrong),
        ("ES256 with 63 bytes", assemble(&es, &es_good[..63]), wrong),
        ("ES256 with 65 bytes", assemble(&es, &[&es_good[..], &[0]].concat()), wrong),
        ("ES256 with one bit flipped", assemble(&es, &flipped(&es_good)), wrong),
        ("RS256 with one bit flipped", assemble(&rs, &flipped(&rs_good)), wrong),
        ("RS256 with a byte more", assemble(&rs, &[&rs_good[..], &[0]].concat()), wrong),
        ("RS256 with zeros", assemble(&rs, &[0; 256]), wrong),
        (
            "ES256 over other claims",
            assemble(&signing_input(&desk.ec.header().to_string(), &richer), &es_good),
            wrong,
        ),
        ("RS256 signature under an ES256 header", assemble(&es, &rs_good), wrong),
        ("ES256 signature under an RS256 header", assemble(&rs, &es_good), wrong),
    ];
    // RFC 8725 section 2.1: the public key as an HMAC secret, in every spelling that somebody may have stored.
    for (name, key, kid) in
        [("HS256 with the RSA key", &desk.rsa, "rsa-1"), ("HS256 with the P-256 key", &desk.ec, "ec-1")]
    {
        let header = json!({"alg": "HS256", "kid": kid}).to_string();
        let secrets = [key.public_bytes(), key.jwk().to_string().into_bytes(), pem(&key.public_bytes())];
        for secret in secrets {
            let token = mint_hmac(&header, &claims, &secret);
            anyhow::ensure!(desk.judge(&token) == Some(Denial::TokenAlgorithm), "{name}");
        }
        cases.push((name, mint_hmac(&header, &claims, &key.public_bytes()), Some(Denial::TokenAlgorithm)));
    }
    for (name, key) in [("RS256 header over HMAC", &desk.rsa), ("ES256 header over HMAC", &desk.ec)] {
        let token = mint_hmac(&key.header().to_string(), &claims, &key.public_bytes());
        cases.push((name, token, wrong));
    }
    Ok(cases)
}

fn pem(der: &[u8]) -> Vec<u8> {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", encode(der)).into_bytes()
}
