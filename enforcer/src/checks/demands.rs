//! Whether a good token says what its route demands: scopes, claims, and how its subject was authenticated.
//!
//! Scopes are compared whole and byte for byte (RFC 6749 section 3.3): `read` is not in `read_all`.

use http::Method;
use serde_json::Value;

use super::{
    Refusal,
    token::{Checked, Claims},
};
use crate::{
    denial::Denial,
    policy::demands::{Claim, Demands},
};

/// In this order, so that nobody is asked to authenticate anew for what stays closed.
pub(super) fn check(demands: &Demands, method: &Method, token: &Checked, now: u64) -> Result<(), Refusal> {
    scopes(demands, method, &token.claims)?;
    if !demands.claims.iter().all(|claim| says(&token.claims, claim)) {
        return Err(Refusal::plain(Denial::ClaimMissing));
    }
    if is_authenticated(demands, token, now) {
        return Ok(());
    }
    let challenge = Some(demands.step_up_challenge.clone());
    Err(Refusal { challenge, ..Refusal::plain(Denial::AuthenticationInsufficient) })
}

fn scopes(demands: &Demands, method: &Method, claims: &Claims) -> Result<(), Refusal> {
    let granted = |required: &str| claims.scopes.iter().any(|scope| &**scope == required);
    let Some(required) = demands.scopes(method) else { return Ok(()) };
    let any = &demands.any_scope;
    if required.all.iter().all(|one| granted(one)) && (any.is_empty() || any.iter().any(|one| granted(one))) {
        return Ok(());
    }
    Err(Refusal { challenge: Some(required.challenge.clone()), ..Refusal::plain(Denial::ScopeMissing) })
}

/// Whether a claim has one of its values, or is a list that holds one of them. `"1"` is not `1`.
fn says(claims: &Claims, Claim { name, values }: &Claim) -> bool {
    let claim = claims.others.iter().find(|(known, _)| known == name).map(|(_, value)| value);
    match claim {
        None => false,
        Some(Value::Array(items)) => items.iter().any(|item| values.contains(item)),
        Some(value) => values.contains(value),
    }
}

/// RFC 9470: a token that does not say how, or when, is not enough where it matters.
fn is_authenticated(demands: &Demands, token: &Checked, now: u64) -> bool {
    let Claims { acr, authenticated, .. } = &*token.claims;
    let well = demands.acr.is_empty() || acr.as_ref().is_some_and(|acr| demands.acr.contains(acr));
    let recently = demands.max_auth_age.is_none_or(|age| {
        authenticated.is_some_and(|at| {
            at <= now.saturating_add(token.leeway)
                && now <= at.saturating_add(age).saturating_add(token.leeway)
        })
    });
    well && recently
}
