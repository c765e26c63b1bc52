//! `enforcer attestation verify play` and `android-key`.

use std::fs;

use anyhow::{Context as _, Result, anyhow, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::Value;

use super::Outcome;
use crate::{
    attestation::{
        Steps,
        android_key::{self, revocation::Revocations, roots::Roots},
        play::{self, Expected, Keys, Risk, Rules, Verdict},
    },
    cli::{
        args::{AndroidKey, Play, Signed},
        attestation::decoded,
    },
    clock,
    policy::attestation::SKEW,
    strict_json,
};

pub(super) fn play(verb: &Play, object: &[u8], show: Steps<'_>) -> Result<Outcome> {
    let text = std::str::from_utf8(object).context("it is no text")?.trim();
    let expected = match (&verb.bound.nonce, &verb.bound.request_hash) {
        (Some(nonce), _) => Expected::Nonce(nonce),
        (None, Some(hash)) => Expected::RequestHash(hash),
        (None, None) => bail!("--nonce or --request-hash is missing"),
    };
    let rules = Rules {
        packages: verb.app.packages.clone(),
        certificates: certificates(&verb.app),
        min_version: verb.app.min_version,
        labels: verb.labels.iter().filter_map(|label| label.0).collect(),
        licensed: !verb.unlicensed,
        max_age: verb.max_age,
        skew: SKEW,
        testing: verb.testing,
        risk: Risk {
            max_activity: verb.max_activity,
            play_protect: verb.refuse_play_protect.clone(),
            access: verb.refuse_access.clone(),
            unevaluated: verb.unevaluated,
        },
    };
    let now = verb.at.unwrap_or_else(clock::unix_now).saturating_mul(1_000);
    let outcome = if text.starts_with('{') {
        verdict(text).and_then(|verdict| {
            show("verdict", "believed: nothing shows that it is Google's".to_owned());
            play::judge(&verdict, &rules, &expected, now, show)
        })
    } else {
        let file = verb.keys.as_ref().context("--keys is missing: tokens are opened with the app's keys")?;
        let keys = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let keys = Keys::from_toml(&keys).map_err(|why| anyhow!("{}: {why}", file.display()))?;
        play::verify(text, &keys, &rules, &expected, now, show)
    };
    Ok(outcome.map(|genuine| show("facts", facts(&genuine))))
}

/// As Google answers it, with `tokenPayloadExternal` around it or without.
fn verdict(text: &str) -> Result<Verdict, crate::attestation::Refused> {
    match strict_json::object(text.as_bytes()).as_ref().and_then(|outer| outer.get("tokenPayloadExternal")) {
        Some(Value::Object(verdict)) => Verdict::of(verdict),
        Some(_) | None => Verdict::read(text.as_bytes()),
    }
}

pub(super) fn android_key(verb: &AndroidKey, object: &[u8], show: Steps<'_>) -> Result<Outcome> {
    let chain = chain(object)?;
    let challenge = match (&verb.challenge.challenge, &verb.challenge.challenge_base64) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(text)) => decoded(text.as_bytes()).context("--challenge-base64: no base64")?,
        (None, None) => bail!("--challenge is missing"),
    };
    let read =
        |file: &std::path::Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    let roots = match &verb.root {
        None => Roots::google().map_err(anyhow::Error::msg)?,
        Some(file) => Roots::from_pem(&read(file)?).map_err(|why| anyhow!("{}: {why}", file.display()))?,
    };
    let revoked = verb
        .revocations
        .as_ref()
        .map(|file| Revocations::read(&read(file)?).map_err(|why| anyhow!("{}: {why}", file.display())));
    let revoked = revoked.transpose()?;
    let rules = android_key::Rules {
        packages: verb.app.packages.clone(),
        certificates: certificates(&verb.app),
        min_version: verb.app.min_version,
        security: verb.security,
        boot: verb.boot,
        boot_keys: verb.boot_keys.iter().map(|key| key.0).collect(),
        locked: !verb.unlocked,
        min_patch: verb.min_patch,
        signs: !verb.any_purpose,
        expired_factory: verb.expired_factory,
    };
    let now = verb.at.unwrap_or_else(clock::unix_now);
    let outcome = android_key::verify(&chain, &roots, revoked.as_ref(), &rules, &challenge, now, show);
    Ok(outcome.map(|genuine| {
        show("facts", facts(&genuine));
        show("public key", STANDARD.encode(&genuine.key));
    }))
}

/// Certificates in PEM form, or in base64, one on a line.
fn chain(object: &[u8]) -> Result<Vec<Vec<u8>>> {
    let text = std::str::from_utf8(object).context("it is neither PEM nor base64")?;
    if text.contains("-----BEGIN") {
        let certificates = CertificateDer::pem_slice_iter(object).map(|one| Ok(one?.to_vec()));
        return certificates.collect::<Result<_>>().context("it is no PEM");
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| decoded(line.as_bytes()).context("a line is neither PEM nor base64")).collect()
}

fn certificates(app: &Signed) -> Vec<[u8; 32]> {
    app.certificates.iter().map(|digest| digest.0).collect()
}

fn facts(genuine: &impl serde::Serialize) -> String {
    serde_json::to_string(genuine).unwrap_or_default()
}
