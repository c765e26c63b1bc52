//! The way of what a device sends through its verification, for `enforcer attestation verify`: it is the one that requests take, and
//! nothing is started.

mod google;

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    attestation::app_attest::{Distribution, Point, assertion, attestation, chain::Roots, receipt},
    cli::{
        args::{App, AppAttest, Assertion, AttestationVerify, Receipt},
        attestation::{Report, decoded, read},
        token::Step,
    },
    clock,
};

/// Judges the bytes of an object.
pub(super) fn judge(verb: &AttestationVerify, object: &[u8]) -> Result<Report> {
    let mut steps = Vec::new();
    let mut show = |name, found| steps.push(Step { name, found });
    // Objects are CBOR or BER, neither of which can be taken for base64.
    let plain = || decoded(object).unwrap_or_else(|| object.to_vec());
    let outcome = match verb {
        AttestationVerify::AppAttest(verb) => app_attest(verb, &plain(), &mut show)?,
        AttestationVerify::Assertion(verb) => assertion(verb, &plain(), &mut show)?,
        AttestationVerify::Receipt(verb) => receipt(verb, &plain(), &mut show)?,
        AttestationVerify::Play(verb) => google::play(verb, object, &mut show)?,
        AttestationVerify::AndroidKey(verb) => google::android_key(verb, object, &mut show)?,
    };
    Ok(Report::new(steps, outcome))
}

type Outcome = std::result::Result<(), crate::attestation::Refused>;

fn app_attest(
    verb: &AppAttest,
    object: &[u8],
    show: &mut dyn FnMut(&'static str, String),
) -> Result<Outcome> {
    let challenge = &verb.challenge;
    let text = (&challenge.challenge, &challenge.challenge_base64, &challenge.client_data_hash);
    let hash = client_data_hash(text)?;
    let key_id = verb.key_id.as_ref().map(|id| decoded(id.as_bytes()).context("--key-id: no base64"));
    let key_id = key_id.transpose()?;
    let distribution = distribution(&verb.app);
    let (own, receipts) = (roots(verb.root.as_deref())?, roots(verb.receipt_root.as_deref())?);
    let expected = attestation::Expected {
        apps: &verb.app.apps,
        environment: verb.app.environment,
        client_data_hash: &hash,
        key_id: key_id.as_deref(),
        distribution: &distribution,
        roots: own.as_ref().unwrap_or(Roots::app_attest()),
        receipts: (!verb.without_receipt).then(|| receipts.as_ref().unwrap_or(Roots::receipts())),
    };
    let now = verb.at.unwrap_or_else(clock::unix_now);
    let outcome = attestation::verify(object, &expected, now, show);
    Ok(outcome.map(|attested| {
        show("key id", STANDARD.encode(attested.key_id));
        show("public key", STANDARD.encode(attested.public_key));
    }))
}

fn assertion(verb: &Assertion, object: &[u8], show: &mut dyn FnMut(&'static str, String)) -> Result<Outcome> {
    let data = &verb.client_data;
    let hash = client_data_hash((&data.client_data, &data.client_data_base64, &data.client_data_hash))?;
    let distribution = distribution(&verb.app);
    let key = key(&verb.key)?;
    let [app] = &verb.app.apps[..] else { bail!("--app-id: a key is one app's, so write one") };
    let expected = assertion::Expected {
        app,
        environment: verb.app.environment,
        public_key: &key,
        counter: verb.counter,
        client_data_hash: &hash,
        distribution: &distribution,
    };
    Ok(assertion::verify(object, &expected, show).map(drop))
}

fn receipt(verb: &Receipt, object: &[u8], show: &mut dyn FnMut(&'static str, String)) -> Result<Outcome> {
    let (key, roots) = (key(&verb.key)?, roots(verb.receipt_root.as_deref())?);
    let expected = receipt::Expected {
        apps: &verb.apps,
        environment: verb.environment,
        public_key: &key,
        client_data_hash: None,
        roots: roots.as_ref().unwrap_or(Roots::receipts()),
    };
    let outcome = receipt::verify(object, &expected, verb.at.unwrap_or_else(clock::unix_now), show);
    Ok(outcome.map(|receipt| {
        let begins = receipt.not_before.map_or_else(|| "any time".to_owned(), |at| at.to_string());
        show("exchange", format!("from {begins} to {}", receipt.expires));
    }))
}

/// Of which one is there: text, its bytes in base64, or the hash itself.
fn client_data_hash(of: (&Option<String>, &Option<String>, &Option<String>)) -> Result<Vec<u8>> {
    let sha256 =
        |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().to_vec();
    let bytes = |text: &str| decoded(text.as_bytes()).with_context(|| format!("`{text}` is no base64"));
    match of {
        (Some(text), ..) => Ok(sha256(text.as_bytes())),
        (_, Some(encoded), _) => Ok(sha256(&bytes(encoded)?)),
        (_, _, Some(hash)) if hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            let digit = |at: usize| u8::from_str_radix(hash.get(at..at + 2).unwrap_or_default(), 16);
            Ok((0..64).step_by(2).map(digit).collect::<std::result::Result<_, _>>()?)
        }
        (_, _, Some(hash)) => bytes(hash),
        (None, None, None) => bail!("what the app hashed is missing"),
    }
}

fn distribution(app: &App) -> Distribution {
    Distribution {
        categories: app.categories.clone(),
        minimum_version: app.minimum_version.clone(),
        required: app.require_category,
    }
}

fn roots(file: Option<&Path>) -> Result<Option<Roots>> {
    let Some(file) = file else { return Ok(None) };
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Roots::from_pem(&text).map(Some).map_err(|why| anyhow!("{}: {why}", file.display()))
}

/// A point, as it is or behind what says that it is one of P-256 (RFC 5480), in base64 or in PEM form.
fn key(argument: &str) -> Result<Point> {
    let text = read(argument).map_err(|why| anyhow!("--key {why}"))?;
    let lines = String::from_utf8_lossy(&text).into_owned();
    let base64: String = lines.lines().filter(|line| !line.starts_with("-----")).collect();
    let bytes = decoded(base64.as_bytes()).unwrap_or(text);
    let point = bytes.strip_prefix(SPKI).unwrap_or(&bytes);
    Point::try_from(point)
        .ok()
        .filter(|point| point[0] == 4)
        .with_context(|| format!("--key {argument}: no public key of P-256"))
}

/// What stands before the point in a public key of P-256.
const SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
