//! JWK sets (RFC 7517): from a file to typed verification keys.
//!
//! A set that is dangerous (symmetric or private keys, two keys of one id, points off the curve, weak RSA) is refused as a
//! whole: it says that somebody publishes what must be secret, or that somebody else wrote the file. Keys that are merely
//! of no use here (other algorithms, for encryption) are left out.

use std::{collections::HashSet, io::Read, path::Path};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use aws_lc_rs::{
    digest::{SHA256, digest},
    rsa::PublicKeyComponents,
    signature::{ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use crate::config::TokenAlgorithm;
use crate::strict_json;

/// Bytes of a set, at most; a set of 100 RSA-4096 keys has about 80 KiB.
const MAX_BYTES: u64 = 1 << 20;
/// Keys in a set, at most: an issuer rotates among a handful.
const MAX_KEYS: usize = 100;
/// Bytes of an RSA modulus: 2,048 to 8,192 bits, the range of the verification algorithm.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// Members of private and symmetric keys (RFC 7518 sections 6.2.2, 6.3.2, 6.4.1).
const SECRET_MEMBERS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// A public key and the one algorithm that it verifies.
#[derive(Debug)]
pub struct VerificationKey {
    /// The key id, if it has one.
    pub kid: Option<String>,
    /// What it verifies, and nothing else.
    pub algorithm: TokenAlgorithm,
    /// The key as jsonwebtoken takes it.
    pub key: DecodingKey,
}

/// Everything that a set would be refused for.
pub fn problems(path: &Path, algorithms: &[TokenAlgorithm]) -> Vec<String> {
    let (_, errors) = match read(path) {
        Ok(bytes) => keys(&bytes, algorithms),
        Err(error) => return vec![format!("{error:#}")],
    };
    errors.iter().map(|error| format!("{}: {error:#}", path.display())).collect()
}

/// The key of a proof: public, for signatures, and of this algorithm; with its thumbprint (RFC 7638) in base64url.
pub fn of_proof(jwk: &Value, algorithm: TokenAlgorithm) -> Result<(VerificationKey, String)> {
    let Value::Object(entry) = jwk else { bail!("not an object") };
    let key = key(entry, &[algorithm], None)?.filter(|key| key.algorithm == algorithm);
    let key = key.context("not for this algorithm")?;
    let members: &[&str] = match algorithm {
        TokenAlgorithm::Rs256 | TokenAlgorithm::Ps256 => &["e", "kty", "n"],
        TokenAlgorithm::Es256 => &["crv", "kty", "x", "y"],
        TokenAlgorithm::EdDsa => &["crv", "kty", "x"],
    };
    // Sorted by name and without white space; none of these values needs an escape.
    let members =
        members.iter().map(|name| Ok(format!("\"{name}\":\"{}\"", text(entry, name)?.unwrap_or_default())));
    let canonical = format!("{{{}}}", members.collect::<Result<Vec<_>>>()?.join(","));
    Ok((key, URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))))
}

/// The bytes of a file with a set; hardly more than are allowed.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let file =
        std::fs::File::open(path).with_context(|| format!("cannot read the JWK set {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read the JWK set {}", path.display()))?;
    Ok(bytes)
}

/// Reads a set.
pub fn parse(bytes: &[u8], algorithms: &[TokenAlgorithm]) -> Result<Vec<VerificationKey>> {
    let (keys, errors) = keys(bytes, algorithms);
    errors.into_iter().next().map_or(Ok(keys), Err)
}

/// The keys of a set, and everything that is wrong with it.
fn keys(bytes: &[u8], algorithms: &[TokenAlgorithm]) -> (Vec<VerificationKey>, Vec<Error>) {
    let entries = match entries(bytes) {
        Ok(entries) => entries,
        Err(error) => return (Vec::new(), vec![error]),
    };
    let mut kids = HashSet::new();
    let mut keys = Vec::new();
    let mut errors = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        match usable(entry, algorithms, &mut kids) {
            Ok(key) => keys.extend(key),
            Err(error) => errors.push(error.context(format!("key {index}"))),
        }
    }
    if keys.is_empty() && errors.is_empty() {
        errors.push(anyhow!("no key for the configured algorithms"));
    }
    (keys, errors)
}

fn entries(bytes: &[u8]) -> Result<Vec<Value>> {
    ensure!(bytes.len() as u64 <= MAX_BYTES, "more than 1 MiB");
    let set = strict_json::value(bytes).map_err(|error| {
        // A `Data` error comes from the only rule beyond JSON's own.
        if error.is_data() { anyhow!("an object has a {error}") } else { anyhow!("not JSON: {error}") }
    })?;
    let Value::Object(mut set) = set else { bail!("not a JSON object") };
    let Some(Value::Array(entries)) = set.remove("keys") else { bail!("no `keys` array") };
    ensure!(entries.len() <= MAX_KEYS, "more than {MAX_KEYS} keys");
    Ok(entries)
}

/// `None` for a key that is of no use here.
fn usable<'v>(
    entry: &'v Value,
    algorithms: &[TokenAlgorithm],
    kids: &mut HashSet<&'v str>,
) -> Result<Option<VerificationKey>> {
    let Value::Object(entry) = entry else { bail!("not an object") };
    let kid = text(entry, "kid")?;
    if let Some(kid) = kid {
        ensure!(kids.insert(kid), "a second key with the kid `{}`", kid.escape_debug());
    }
    let key = key(entry, algorithms, kid)?;
    Ok(key.filter(|key| algorithms.contains(&key.algorithm)))
}

/// `None` for a key that is of no use here. An RSA key that names no algorithm is for RS256, unless only PS256 is allowed: one key
/// verifies by one padding (RFC 8725 section 3.1).
fn key(
    entry: &Map<String, Value>,
    algorithms: &[TokenAlgorithm],
    kid: Option<&str>,
) -> Result<Option<VerificationKey>> {
    for secret in SECRET_MEMBERS {
        ensure!(!entry.contains_key(secret), "has the secret member `{secret}`: publish public keys only");
    }
    let kty = text(entry, "kty")?.context("no `kty`")?;
    ensure!(kty != "oct", "is symmetric (`oct`): whoever can verify could also sign");
    let alg = text(entry, "alg")?;
    let for_signatures = text(entry, "use")?.is_none_or(|usage| usage == "sig") && may_verify(entry)?;
    let curve = text(entry, "crv")?;
    let algorithm = match (kty, curve, alg) {
        ("RSA", None, None) if !algorithms.contains(&TokenAlgorithm::Rs256) => TokenAlgorithm::Ps256,
        ("RSA", None, None | Some("RS256")) => TokenAlgorithm::Rs256,
        ("RSA", None, Some("PS256")) => TokenAlgorithm::Ps256,
        ("EC", Some("P-256"), None | Some("ES256")) => TokenAlgorithm::Es256,
        // RFC 9864 gives Ed25519 the name that says which curve is meant.
        ("OKP", Some("Ed25519"), None | Some("EdDSA" | "Ed25519")) => TokenAlgorithm::EdDsa,
        (_, curve, Some("ES256")) => bail!("`alg` is ES256, but the key is {kty} on {curve:?}"),
        (_, _, Some(alg @ ("RS256" | "PS256"))) => bail!("`alg` is {alg}, but the key is {kty}"),
        (_, _, Some(alg)) if alg.starts_with("HS") => bail!("`alg` is symmetric ({alg})"),
        _ => return Ok(None),
    };
    if !for_signatures {
        return Ok(None);
    }
    let key = match algorithm {
        TokenAlgorithm::Rs256 | TokenAlgorithm::Ps256 => rsa(entry)?,
        TokenAlgorithm::Es256 => p256(entry)?,
        TokenAlgorithm::EdDsa => ed25519(entry)?,
    };
    Ok(Some(VerificationKey { kid: kid.map(str::to_owned), algorithm, key }))
}

fn may_verify(entry: &Map<String, Value>) -> Result<bool> {
    match entry.get("key_ops") {
        None => Ok(true),
        Some(Value::Array(operations)) => Ok(operations.iter().any(|operation| operation == "verify")),
        Some(_) => bail!("`key_ops` is not an array"),
    }
}

fn rsa(entry: &Map<String, Value>) -> Result<DecodingKey> {
    let (n, e) = (number(entry, "n")?, number(entry, "e")?);
    let long_enough = n.len() > *RSA_MODULUS.start() || n[0] & 0x80 != 0;
    ensure!(RSA_MODULUS.contains(&n.len()) && long_enough, "RSA key below 2048 or above 8192 bits");
    // An exponent of 1 makes every padded digest its own signature.
    ensure!(e.len() <= 4 && e.last().is_some_and(|last| last & 1 == 1) && e != [1], "unfit RSA exponent");
    PublicKeyComponents { n: &n[..], e: &e[..] }
        .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
        .ok()
        .context("unfit RSA key")?;
    Ok(DecodingKey::from_rsa_raw_components(&n, &e))
}

fn p256(entry: &Map<String, Value>) -> Result<DecodingKey> {
    let (x, y) = (bytes(entry, "x")?, bytes(entry, "y")?);
    ensure!(x.len() == 32 && y.len() == 32, "coordinates of P-256 have 32 bytes (RFC 7518 section 6.2.1.2)");
    let point = [&[4], &x[..], &y[..]].concat();
    ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point[..]).ok().context("the point is not on P-256")?;
    Ok(DecodingKey::from_ec_der(&point))
}

fn ed25519(entry: &Map<String, Value>) -> Result<DecodingKey> {
    let x = bytes(entry, "x")?;
    ensure!(x.len() == 32, "keys of Ed25519 have 32 bytes (RFC 8037 section 2)");
    ParsedPublicKey::new(&ED25519, &x[..]).ok().context("unfit Ed25519 key")?;
    Ok(DecodingKey::from_ed_der(&x))
}

/// Base64urlUInt (RFC 7518 section 2); one leading zero byte, which some issuers write, is dropped.
fn number(entry: &Map<String, Value>, name: &str) -> Result<Vec<u8>> {
    let mut bytes = bytes(entry, name)?;
    if bytes.len() > 1 && bytes[0] == 0 {
        bytes.remove(0);
    }
    ensure!(bytes.first().is_some_and(|first| *first != 0), "`{name}` is zero or padded");
    Ok(bytes)
}

fn bytes(entry: &Map<String, Value>, name: &str) -> Result<Vec<u8>> {
    let text = text(entry, name)?.with_context(|| format!("no `{name}`"))?;
    URL_SAFE_NO_PAD.decode(text).ok().with_context(|| format!("`{name}` is not base64url without padding"))
}

fn text<'a>(entry: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>> {
    match entry.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => bail!("`{name}` is not a string"),
    }
}
