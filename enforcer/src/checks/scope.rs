//! Whether a token has every scope that its route requires.
//!
//! Scopes are compared whole and byte for byte (RFC 6749 section 3.3): `read` is not in `read_all`.

use super::{Refusal, token::Claims};
use crate::{denial::Denial, policy::route::Route};

/// All required scopes, in any order.
pub(super) fn check(route: &Route, claims: &Claims) -> Result<(), Refusal> {
    let granted = |required: &str| claims.scopes.iter().any(|scope| &**scope == required);
    if route.scopes.iter().all(|required| granted(required)) {
        return Ok(());
    }
    Err(Refusal { challenge: route.scope_challenge.clone(), ..Refusal::plain(Denial::ScopeMissing) })
}
