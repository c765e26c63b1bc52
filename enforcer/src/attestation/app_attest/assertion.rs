//! Requests: whether one was made with an attested key.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::{AppId, Distribution, Environment, Extensions, Point, app, attestation::told, auth_data, sha256};
use crate::{
    attestation::{
        Refused, Steps,
        cbor::{self, Value},
    },
    denial::Denial,
};

/// Bytes of an assertion at most: genuine ones have about 140, and 260 with extensions.
pub const LONGEST: usize = 1_024;

/// What is expected of an assertion.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The app that the key was attested for.
    pub app: &'a AppId,
    /// The environment in which it was.
    pub environment: Environment,
    /// The key, as it was attested: never one that comes with the request.
    pub public_key: &'a Point,
    /// The highest counter that was accepted of it so far; 0 for none.
    pub counter: u32,
    /// SHA-256 of the client data, which the caller makes of the request itself.
    pub client_data_hash: &'a [u8],
    /// How the app may have come to the device.
    pub distribution: &'a Distribution,
}

/// What an assertion shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asserted {
    /// Its counter, above the one that was expected. It counts once the caller has put it in the place of that one, in one step: of
    /// two requests that come with one assertion, one loses there.
    pub counter: u32,
    /// What the system says of the app.
    pub extensions: Extensions,
}

/// Verifies an assertion. That the challenge in the client data was issued here and is used for the first time is the caller's to
/// see to. The signature's bytes are no key for that: others verify as well.
pub fn verify(object: &[u8], expected: &Expected<'_>, steps: Steps<'_>) -> Result<Asserted, Refused> {
    let malformed = |why: String| Refused::new(Denial::AssertionMalformed, "form", why);
    if object.len() > LONGEST {
        return Err(malformed(format!("{} bytes are more than {LONGEST}", object.len())));
    }
    let value = cbor::read(object).map_err(|problem| malformed(format!("no CBOR as expected: {problem}")))?;
    let parts = value.exactly(["signature", "authenticatorData"].map(Value::Text));
    let parts = parts.and_then(|[signature, data]| Some((signature.bytes()?, data.bytes()?)));
    let (signature, data) = parts
        .ok_or_else(|| malformed("no map of signature and authenticatorData alone, both bytes".to_owned()))?;
    let (front, extensions) = auth_data::asserted(data).map_err(malformed)?;
    steps("form", format!("{} bytes, authenticatorData of {} bytes", object.len(), data.len()));

    // The hash is what is signed, and signing hashes it once more.
    let nonce = sha256(&[data, expected.client_data_hash].concat());
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, expected.public_key);
    key.verify(&nonce, signature).map_err(|_| {
        let why = "it is not by this key, or not over this client data";
        Refused::new(Denial::AssertionBadSignature, "signature", why)
    })?;
    steps("signature", "is the key's, over this client data".to_owned());

    let app = app(std::slice::from_ref(expected.app), front.rp_id_hash)?;
    steps("app", app.to_string());

    if front.counter <= expected.counter {
        let why = format!("the counter {} is not above {}", front.counter, expected.counter);
        return Err(Refused::new(Denial::AssertionCounterReplayed, "counter", why));
    }
    steps("counter", format!("{}, above {}", front.counter, expected.counter));

    expected.distribution.judge(&extensions, expected.environment)?;
    steps("distribution", told(&extensions));
    Ok(Asserted { counter: front.counter, extensions })
}
