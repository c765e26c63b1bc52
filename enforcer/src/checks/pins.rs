//! Whether a request is for the pin document, and whether it may have it. Nobody has to show anything, since apps ask before they know
//! whom they speak to; and bans do not hold for it: it is public, costs no more than a refusal, and an app that is kept from it for long
//! could be cut off by the next change of keys, for good.

use std::sync::Arc;

use http::{HeaderValue, Method, header::ALLOW};

use super::{Now, Refusal, facts::RequestFacts};
use crate::{
    denial::Denial,
    policy::{Policy, pins::Signed},
};

/// The document, if that is what is asked for.
pub fn document(policy: &Policy, facts: &RequestFacts<'_>, now: Now) -> Option<Result<Arc<Signed>, Refusal>> {
    let document = policy.pins().document.as_ref().filter(|document| *document.path == *facts.path)?;
    Some(if *facts.method != Method::GET && *facts.method != Method::HEAD {
        let allow = Some((ALLOW, HeaderValue::from_static("GET, HEAD")));
        Err(Refusal::plain(Denial::MethodNotAllowed).with(allow))
    } else {
        Ok(document.current(now.unix))
    })
}
