//! The way of one token through the checks, for `enforcer token verify`: policy and checks are those that requests meet, and
//! nothing is started.

use anyhow::{Result, bail};
use http::HeaderMap;

use crate::{
    checks::{
        origin::Origin,
        token::{self, Claims, Step, Verified, proof},
    },
    cli::{
        args::TokenVerify,
        token::{Refused, Report, Step as Shown},
    },
    clock,
    config::{Config, KeySource},
    denial::Denial,
    policy::Policy,
};

/// Judges `token` by the issuers of a path's route, or by all that there are.
pub(super) fn judge(config: &Config, verb: &TokenVerify, token: &[u8]) -> Result<Report> {
    let mut config = config.clone();
    if let Some(path) = &verb.jwks {
        let fetched = config.tokens.values_mut().filter(|token| matches!(token.keys, KeySource::Remote(_)));
        fetched.for_each(|token| token.keys = KeySource::File(path.clone()));
    }
    let policy = Policy::load(&config)?;
    let now = verb.at.unwrap_or_else(clock::unix_now);
    let mut steps = Vec::new();
    let mut show = |name, found| steps.push(Shown { name, found });
    let all = policy.issuers().cloned().collect::<Vec<_>>();
    let (issuers, demands) = match &verb.path {
        None => (&all[..], None),
        Some(path) => {
            let host = verb.host.as_ref().map(|host| host.to_ascii_lowercase());
            let found = policy.routes.find(host.as_deref(), path, &verb.method, &HeaderMap::new());
            let Ok(route) = found else { bail!("no route takes {} `{path}`", verb.method) };
            show("route", route.name.to_string());
            let Some(tokens) = &route.tokens else { bail!("the route `{}` is public", route.name) };
            (tokens.issuers(), Some(&tokens.demands))
        }
    };
    let outcome = token::verify(issuers, token, now, &mut |step| match step {
        Step::Form { bytes } => show("form", format!("three parts, {bytes} bytes")),
        Step::Issuer(issuer) => show("issuer", format!("the rules of token.{} hold", issuer.name)),
        Step::Header { algorithm, kid } => {
            show("header", format!("{}, kid {}", algorithm.name(), kid.unwrap_or("absent")));
        }
        Step::Key(key) => show(
            "key",
            format!("{} for {}", key.kid.as_deref().unwrap_or("without id"), key.algorithm.name()),
        ),
        Step::NoKey(issuer, _) => {
            if let Some(remote) = issuer.keyring().remote() {
                let address = &remote.address;
                show(
                    "keys",
                    format!("are published: save those of {address}, and name the file with --jwks"),
                );
            }
        }
        Step::Signature => show("signature", "right".to_owned()),
        Step::Revocation(issuer, found) => {
            show("times", format!("good at {now}, with a leeway of {} s", issuer.leeway));
            match (found, &config.revocation.file) {
                (Some(_), _) => {}
                (None, Some(file)) => show("revocation", format!("none in {}", file.display())),
                (None, None) => show("revocation", "no revocation.file; --ask asks the daemon".to_owned()),
            }
        }
        Step::Times(times) => {
            let until = times.expires.cast_signed().saturating_sub(now.cast_signed());
            let begins = times.begins.map_or_else(|| "none".to_owned(), |at| at.to_string());
            let issued = times.issued.map_or_else(|| "none".to_owned(), |at| at.to_string());
            show(
                "claims",
                format!(
                    "iss and aud are right; exp {} (in {until} s), nbf {begins}, iat {issued}",
                    times.expires
                ),
            );
        }
    });
    let outcome = outcome.and_then(|Verified { issuer, claims, .. }| {
        show("subject", claims.subject.as_deref().unwrap_or("absent").to_owned());
        show("scopes", claims.scopes.join(" "));
        bound(&policy, verb, &claims, (token, now), &mut show)?;
        let Some(demands) = demands else { return Ok(()) };
        token::meets(demands, &verb.method, issuer, claims, now)?;
        show("demands", format!("met for {}", verb.method));
        Ok(())
    });
    let refused = outcome.err().map(|denial| Refused {
        code: denial.code(),
        status: denial.status(),
        meaning: denial.description(),
    });
    Ok(Report { steps, refused })
}

/// What the token is bound to, and whether a proof is one of having it. Whether it was used before, and whether its nonce is
/// good, only the daemon knows.
fn bound(
    policy: &Policy,
    verb: &TokenVerify,
    claims: &Claims,
    (token, now): (&[u8], u64),
    show: &mut dyn FnMut(&'static str, String),
) -> Result<(), Denial> {
    let confirmation = claims.confirmation.as_deref();
    if let Some(certificate) = confirmation.and_then(|confirmation| confirmation.certificate.as_deref()) {
        show(
            "bound to",
            format!("the client certificate {certificate}: only its connections may use the token"),
        );
    }
    let key = confirmation.and_then(|confirmation| confirmation.key.as_deref());
    if let Some(key) = key {
        show("bound to", format!("the key {key}: each request needs a proof of having it"));
    }
    let (Some(proof), Some(url)) = (&verb.dpop, &verb.url) else { return Ok(()) };
    let key = key.ok_or(Denial::DpopUnbound)?;
    let parts = url.split_once("://").map(|(scheme, rest)| {
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        (Origin::new(scheme, authority), &tail[..tail.find(['?', '#']).unwrap_or(tail.len())])
    });
    let (origin, path) = parts.unwrap_or((None, ""));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token);
    let expected = proof::Expected {
        rules: &policy.dpop,
        method: &verb.method,
        origin: origin.as_ref(),
        path,
        key: Some(key),
        token: Some(digest.as_ref()),
        now,
    };
    let proof = proof::verify(proof.as_bytes(), &expected, &mut |step| match step {
        proof::Step::Form { bytes } => show("proof", format!("three parts, {bytes} bytes")),
        proof::Step::Key { algorithm, thumbprint } => {
            show("proof key", format!("{}, {thumbprint}, the token's", algorithm.name()));
        }
        proof::Step::Signature => show("proof", "its signature is right".to_owned()),
        proof::Step::Request => show("proof", format!("htm and htu are of {} {url}", verb.method)),
        proof::Step::Token => show("proof", "ath is the token's".to_owned()),
        proof::Step::Time(issued) => show("proof", format!("iat {issued} is recent at {now}")),
    })?;
    let nonce = proof.nonce.map_or("none", |_| "one, which only the daemon can judge");
    show("proof", format!("jti {}; nonce: {nonce}", proof.id));
    Ok(())
}
