//! Clients that sign with the `openssl` command: keys that it makes, files as it writes them, signatures as it gives them. Not run where
//! there is none.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test stops, or says why it is not run")]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer::denial::Denial;
use enforcer_tests::{
    signing::{Signer, hex, nonce},
    tokens::encode,
};
use serde_json::json;

use super::{
    admit::{Desk, NOW},
    signers::{ALL, Clients, all, order, parameters},
};

/// What it writes.
fn openssl(words: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new("openssl")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("openssl")?;
    child.stdin.take().context("no input")?.write_all(input)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "openssl {}: {}", words.join(" "), output.status);
    Ok(output.stdout)
}

fn is_there() -> bool {
    let is_there = openssl(&["version"], b"").is_ok();
    if !is_there {
        println!("not run: there is no openssl");
    }
    is_there
}

/// A private key.
fn generate(folder: &Path, name: &str, words: &[&str]) -> Result<PathBuf> {
    let path = folder.join(name);
    openssl(&[&["genpkey", "-out", path.to_str().unwrap()], words].concat(), b"")?;
    Ok(path)
}

/// A key pair that signs by `openssl`; its file is what `-pubout` says.
fn pair(path: PathBuf, is_p256: bool) -> Result<Signer> {
    let key = path.to_str().unwrap().to_owned();
    let file = String::from_utf8(openssl(&["pkey", "-in", &key, "-pubout"], b"")?)?;
    let sign = move |message: &[u8]| {
        if is_p256 {
            return raw(&openssl(&["dgst", "-sha256", "-sign", &key], message)?);
        }
        // Ed25519 signs in one go, from a file.
        let folder = tempfile::tempdir()?;
        let text = folder.path().join("message");
        std::fs::write(&text, message)?;
        openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", text.to_str().unwrap()], b"")
    };
    Ok(Signer::Other { file, sign: Box::new(sign) })
}

/// r and s side by side (RFC 7518 section 3.4), of a DER sequence of two integers.
fn raw(der: &[u8]) -> Result<Vec<u8>> {
    let mut rest = der.get(2..).context("short")?;
    let mut both = Vec::new();
    for _ in 0..2 {
        let length = usize::from(*rest.get(1).context("short")?);
        let number = rest.get(2..2 + length).context("short")?;
        let digits: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        both.extend(std::iter::repeat_n(0, 32 - digits.len()).chain(digits));
        rest = &rest[2 + length..];
    }
    Ok(both)
}

#[tokio::test]
async fn requests_that_are_signed_by_openssl_are_understood() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let secret = openssl(&["rand", "-base64", "48"], b"")?;
    let key = hex(&STANDARD.decode(secret.trim_ascii())?);
    let sign = move |message: &[u8]| {
        let key = format!("hexkey:{key}");
        openssl(&["dgst", "-sha256", "-mac", "HMAC", "-macopt", &key, "-binary"], message)
    };
    let secret = Signer::Other { file: String::from_utf8(secret)?, sign: Box::new(sign) };
    let p256 = generate(folder.path(), "p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
    let p256 = pair(p256, true)?;
    let ed25519 = pair(generate(folder.path(), "ed25519", &["-algorithm", "ed25519"])?, false)?;
    let clients = Clients::of(None, secret, p256, ed25519)?;
    let mut cases = Vec::new();
    for (name, signer) in
        [("secret", &clients.secret), ("p256", &clients.p256), ("ed25519", &clients.ed25519)]
    {
        let mut request = order("/signed/x");
        request.sign_message("sig", &ALL, &parameters(name, NOW), signer)?;
        let mut changed = request.clone();
        changed.query = Some("a=2".to_owned());
        cases.extend([(name, request, None), (name, changed, Some(Denial::SignatureBad))]);
    }
    let mut lines = order("/lines/x");
    lines.sign_lines_by("secret", &clients.secret, NOW, &nonce())?;
    let mut changed = lines.clone();
    changed.path = "/lines/y".to_owned();
    cases.extend([("lines", lines, None), ("lines", changed, Some(Denial::SignatureBad))]);
    all(&clients, cases).await;
    Ok(())
}

#[test]
fn tokens_that_are_signed_by_openssl_are_understood() -> Result<()> {
    if !is_there() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let rsa = generate(folder.path(), "rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])?;
    let rsa = rsa.to_str().unwrap();
    let said = String::from_utf8(openssl(&["rsa", "-in", rsa, "-modulus", "-noout"], b"")?)?;
    let digits = said.trim().strip_prefix("Modulus=").context("no modulus")?;
    let modulus: Vec<u8> = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let p256 = generate(folder.path(), "p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])?;
    let p256 = p256.to_str().unwrap();
    let spki = openssl(&["pkey", "-in", p256, "-pubout", "-outform", "DER"], b"")?;
    // The point is what a P-256 key ends with (RFC 5480 section 2.2).
    let point = &spki[spki.len() - 64..];
    let keys = json!({"keys": [
        {"kty": "RSA", "kid": "rsa", "n": encode(&modulus), "e": "AQAB", "alg": "RS256", "use": "sig"},
        {"kty": "EC", "kid": "p256", "crv": "P-256", "x": encode(&point[..32]), "y": encode(&point[32..])},
    ]});
    let desk = Desk::with(|site| {
        std::fs::write(site.config.tokens["main"].keys.file().unwrap(), keys.to_string()).unwrap();
    })?;
    for (alg, kid, key) in [("RS256", "rsa", rsa), ("ES256", "p256", p256)] {
        let header = json!({"alg": alg, "kid": kid, "typ": "at+jwt"}).to_string();
        let covered =
            format!("{}.{}", encode(header.as_bytes()), encode(desk.claims().to_string().as_bytes()));
        let signature = openssl(&["dgst", "-sha256", "-sign", key], covered.as_bytes())?;
        let signature = if alg == "ES256" { raw(&signature)? } else { signature };
        assert_eq!(desk.judge(&format!("{covered}.{}", encode(&signature))), None, "{alg}");
        let mut changed = signature.clone();
        changed[40] ^= 1;
        let changed = format!("{covered}.{}", encode(&changed));
        assert_eq!(desk.judge(&changed), Some(Denial::TokenBadSignature), "{alg}");
    }
    Ok(())
}
