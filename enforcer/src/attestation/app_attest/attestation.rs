//! Enrolment: whether an attestation object shows a new key of a genuine app.

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use super::{
    AppId, Distribution, Environment, Extensions, Point, System, app, auth_data,
    chain::{self, Fault, Roots},
    leaf, receipt, sha256,
};
use crate::{
    attestation::{
        Refused, Steps,
        cbor::{self, Value},
    },
    denial::Denial,
};

/// What a leaf's certificate is for, where it says so: 1.2.840.113635.100.4.24.
const USAGE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x63, 0x64, 0x04, 0x18];

/// What is expected of an attestation.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The apps, one of which it has to be.
    pub apps: &'a [AppId],
    /// The one environment that is accepted.
    pub environment: Environment,
    /// What the app gave to `attestKey`: SHA-256 of the challenge.
    pub client_data_hash: &'a [u8],
    /// The key id that the app sent; `None` compares none. What counts is the one in the result, which the key itself gives.
    pub key_id: Option<&'a [u8]>,
    /// How the app may have come to the device.
    pub distribution: &'a Distribution,
    /// Whose attestations are believed: [`Roots::app_attest`].
    pub roots: &'a Roots,
    /// Whose receipts are believed: [`Roots::receipts`]; `None` leaves the receipt unread.
    pub receipts: Option<&'a Roots>,
}

/// What an attestation shows.
#[derive(Clone, Debug)]
pub struct Attested {
    /// SHA-256 of the key: the id under which the app knows it.
    pub key_id: [u8; 32],
    /// The key, with which assertions are made from now on.
    pub public_key: Point,
    /// Whose key it is.
    pub app: AppId,
    /// In which environment.
    pub environment: Environment,
    /// Until when this attestation could be verified, in seconds since 1970; the key itself has no end.
    pub not_after: u64,
    /// What the system says of the app.
    pub extensions: Extensions,
    /// What Apple says of the system.
    pub system: System,
    /// What Apple takes for a newer receipt, with the risk metric.
    pub receipt: Vec<u8>,
    /// What the receipt says, where it was read.
    pub received: Option<receipt::Receipt>,
}

/// Verifies an attestation at `now`, in seconds since 1970. That the challenge was issued here and is used for the first time, and
/// that the key is not another device's already, is the caller's to see to.
pub fn verify(
    object: &[u8],
    expected: &Expected<'_>,
    now: u64,
    steps: Steps<'_>,
) -> Result<Attested, Refused> {
    let malformed = |why: String| Refused::new(Denial::AttestationMalformed, "form", why);
    let value = cbor::read(object).map_err(|problem| malformed(format!("no CBOR as expected: {problem}")))?;
    let parts = parts(&value).map_err(|why| malformed(why.to_owned()))?;
    let Parts { leaf: first, intermediate, receipt, auth_data: data } = parts;
    let (front, credential, extensions) = auth_data::attested(data).map_err(malformed)?;
    let leaf = leaf::read(first).map_err(malformed)?;
    steps("form", format!("apple-appattest, {} bytes, authData of {} bytes", object.len(), data.len()));

    let ends = leaf.not_after;
    let followed = EndEntityCert::try_from(&CertificateDer::from(first))
        .map_err(|error| Fault::Untrusted(error.to_string()))
        .and_then(|end| chain::follow(&end, &[intermediate.into()], expected.roots, (USAGE, 1), now));
    followed.map_err(|fault| match fault {
        Fault::Time(why) => Refused::new(Denial::AttestationExpired, "chain", why),
        Fault::Untrusted(why) => Refused::new(Denial::AttestationChain, "chain", why),
    })?;
    steps("chain", format!("leads to the root; the leaf is valid until {ends}"));

    // Over the bytes as they came.
    let nonce = sha256(&[data, expected.client_data_hash].concat());
    if nonce != leaf.nonce {
        let why = "the certificate was made for another challenge, or other authData: clientDataHash has to be the one given to attestKey";
        return Err(Refused::new(Denial::AttestationNonce, "nonce", why));
    }
    steps("nonce", "is that of this challenge".to_owned());

    let key_id = sha256(&leaf.key);
    let wrong = |why: &str| Refused::new(Denial::AttestationKey, "key", why);
    if expected.key_id.is_some_and(|sent| sent != key_id) {
        return Err(wrong("the key id that was sent is not that of the certificate's key"));
    }
    if credential.id != key_id {
        return Err(wrong("the credential id is not that of the certificate's key"));
    }
    if credential.key != leaf.key {
        return Err(wrong("the credential's key is not the certificate's"));
    }
    steps("key", "the certificate's, the credential's and the key id are of one key".to_owned());

    let app = app(expected.apps, front.rp_id_hash)?;
    steps("app", app.to_string());

    if front.counter != 0 {
        let why = format!("the counter is {} and not 0", front.counter);
        return Err(Refused::new(Denial::AttestationUsed, "counter", why));
    }
    steps("counter", "0".to_owned());

    let environment = expected.environment;
    if credential.aaguid != environment.aaguid() {
        let other = [Environment::Production, Environment::Development];
        let found = other.into_iter().find(|one| one.aaguid() == credential.aaguid);
        let found = found.map_or("of neither environment", Environment::name);
        let why = format!("the aaguid is {found}, and {environment} is expected");
        return Err(Refused::new(Denial::AttestationEnvironment, "environment", why));
    }
    steps("environment", environment.to_string());

    expected.distribution.judge(&extensions, environment)?;
    steps("distribution", told(&extensions));
    if leaf.system != System::default() {
        let System { platform, version, build } = &leaf.system;
        let words = [platform, version, build].map(|word| word.as_deref().unwrap_or("-"));
        steps("system", words.join(" "));
    }

    // A Mac names itself in the certificate, and its app by a hash that no other system gives.
    let names_mac = leaf.system.platform.as_deref().is_some_and(|platform| platform.starts_with("mac"));
    let is_mac = names_mac || extensions.others.iter().any(|name| name.starts_with("apple_cd_hash"));
    if is_mac && !leaf.is_fully_secure {
        let why = "the Mac runs without System Integrity Protection or full security, or does not say that it has both";
        return Err(Refused::new(Denial::DeviceIntegrityFailed, "access", why));
    }
    if is_mac {
        steps("access", "of a Mac with System Integrity Protection and full security".to_owned());
    }

    let received = expected.receipts.map(|roots| {
        let binding = receipt::Expected {
            apps: std::slice::from_ref(app),
            environment,
            public_key: &leaf.key,
            client_data_hash: Some(expected.client_data_hash),
            roots,
        };
        receipt::verify(receipt, &binding, now, steps)
    });
    Ok(Attested {
        key_id,
        public_key: leaf.key,
        app: app.clone(),
        environment,
        not_after: leaf.not_after,
        extensions,
        system: leaf.system,
        receipt: receipt.to_vec(),
        received: received.transpose()?,
    })
}

/// What the system says of the app, for people.
pub(super) fn told(extensions: &Extensions) -> String {
    let category = extensions.category.map_or_else(|| "not told".to_owned(), |category| category.to_string());
    let version = extensions.bundle_version.as_deref().unwrap_or("not told");
    format!("category {category}, bundle version {version}")
}

struct Parts<'a> {
    leaf: &'a [u8],
    intermediate: &'a [u8],
    receipt: &'a [u8],
    auth_data: &'a [u8],
}

fn parts<'a>(object: &Value<'a>) -> Result<Parts<'a>, &'static str> {
    let [format, statement, auth_data] = object
        .exactly(["fmt", "attStmt", "authData"].map(Value::Text))
        .ok_or("the object is no map of fmt, attStmt and authData alone")?;
    if format.text() != Some("apple-appattest") {
        return Err("fmt is not apple-appattest");
    }
    let [chain, receipt] = statement
        .exactly(["x5c", "receipt"].map(Value::Text))
        .ok_or("attStmt is no map of x5c and receipt alone")?;
    let Some([leaf, intermediate]) = chain.array() else { return Err("x5c is not two certificates") };
    let bytes =
        |value: &Value<'a>| value.bytes().ok_or("a certificate, receipt or authData is no string of bytes");
    Ok(Parts {
        leaf: bytes(leaf)?,
        intermediate: bytes(intermediate)?,
        receipt: bytes(receipt)?,
        auth_data: bytes(auth_data)?,
    })
}
