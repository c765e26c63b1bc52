//! The exchange of a receipt for a newer one, which has the risk metric: what is sent to Apple, and what an answer means. Nobody is
//! asked here.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::json;

use super::{Environment, receipt};

/// Bytes of an answer that are read at most: a receipt in base64.
pub const LONGEST_ANSWER: usize = receipt::LONGEST / 3 * 4 + 4;

/// Where receipts are exchanged.
pub fn address(environment: Environment) -> &'static str {
    match environment {
        Environment::Production => "https://data.appattest.apple.com/v1/attestationData",
        Environment::Development => "https://data-development.appattest.apple.com/v1/attestationData",
    }
}

/// A key for DeviceCheck, as a developer account gives it.
pub struct Key {
    /// The account's team: ten characters.
    team: String,
    /// The key's id: ten characters.
    id: String,
    pair: EcdsaKeyPair,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("team", &self.team).field("id", &self.id).finish_non_exhaustive()
    }
}

/// What is sent: by POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The field `Authorization`.
    pub authorization: String,
    /// The body.
    pub body: String,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A newer receipt, which has to be verified as any other.
    Newer(Vec<u8>),
    /// There is none yet: it was asked before the receipt's `not_before`.
    NotYet,
    /// The receipt, or what was sent besides, is wrong: asking again does not help.
    Refused(u16),
    /// The key for DeviceCheck is not accepted.
    Unauthorized(u16),
    /// Asking again later may help.
    Later(u16),
    /// The answer makes no sense.
    Garbled(&'static str),
}

impl Key {
    /// A key from the text of a `.p8` file. No error shows what is in it.
    pub fn from_pem(team: &str, id: &str, text: &[u8]) -> Result<Self, &'static str> {
        let is_id = |text: &str| {
            text.len() == 10 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
        };
        if !is_id(team) || !is_id(id) {
            return Err("team and key id are ten capital letters and digits each");
        }
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| "no private key in PEM form (PKCS #8)")?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
            .map_err(|_| "the private key is none of P-256")?;
        Ok(Self { team: team.to_owned(), id: id.to_owned(), pair })
    }

    /// The request for a newer receipt, at `now`, in seconds since 1970.
    pub fn request(&self, receipt: &[u8], now: u64) -> Result<Request, &'static str> {
        let header = json!({"alg": "ES256", "kid": self.id});
        let claims = json!({"iss": self.team, "iat": now});
        let covered = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        let signature =
            self.pair.sign(&SystemRandom::new(), covered.as_bytes()).map_err(|_| "the key does not sign")?;
        Ok(Request {
            authorization: format!("{covered}.{}", URL_SAFE_NO_PAD.encode(signature)),
            body: STANDARD.encode(receipt),
        })
    }
}

/// Reads an answer of this status.
pub fn outcome(status: u16, body: &[u8]) -> Outcome {
    match status {
        200 if body.len() > LONGEST_ANSWER => Outcome::Garbled("the receipt is too long"),
        200 => match STANDARD.decode(body.trim_ascii()) {
            Ok(receipt) if !receipt.is_empty() => Outcome::Newer(receipt),
            Ok(_) | Err(_) => Outcome::Garbled("the receipt is no base64"),
        },
        304 => Outcome::NotYet,
        401 | 403 => Outcome::Unauthorized(status),
        429 | 500..=599 => Outcome::Later(status),
        400..=499 => Outcome::Refused(status),
        _ => Outcome::Garbled("the status is none that is known"),
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, KeyPair as _, UnparsedPublicKey};
    use rcgen::KeyPair;

    use super::*;

    #[test]
    fn a_request_is_signed_by_the_account_and_carries_the_receipt() {
        let pem = KeyPair::generate().unwrap().serialize_pem();
        let key = Key::from_pem("A1B2C3D4E5", "F6G7H8I9J0", pem.as_bytes()).unwrap();
        let request = key.request(b"receipt", 1_800_000_000).unwrap();
        assert_eq!(STANDARD.decode(request.body).unwrap(), b"receipt");
        let parts: Vec<&str> = request.authorization.split('.').collect();
        let text = |part: &str| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(text(parts[0]), r#"{"alg":"ES256","kid":"F6G7H8I9J0"}"#);
        let claims: serde_json::Value = serde_json::from_str(&text(parts[1])).unwrap();
        assert_eq!(claims, json!({"iss": "A1B2C3D4E5", "iat": 1_800_000_000}));
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.pair.public_key());
        let covered = format!("{}.{}", parts[0], parts[1]);
        public.verify(covered.as_bytes(), &URL_SAFE_NO_PAD.decode(parts[2]).unwrap()).unwrap();
        assert!(!format!("{key:?}").contains("pair"));

        assert!(Key::from_pem("a1b2c3d4e5", "F6G7H8I9J0", pem.as_bytes()).is_err());
        assert!(Key::from_pem("A1B2C3D4E5", "F6G7H8I9J0", b"no key").is_err());
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        assert!(Key::from_pem("A1B2C3D4E5", "F6G7H8I9J0", other.as_bytes()).is_err());
    }

    #[test]
    fn answers_say_what_to_do() {
        for (status, body, expected) in [
            (200, &b"AQID\n"[..], Outcome::Newer(vec![1, 2, 3])),
            (200, b"", Outcome::Garbled("the receipt is no base64")),
            (200, b"<html>", Outcome::Garbled("the receipt is no base64")),
            (304, b"", Outcome::NotYet),
            (400, b"", Outcome::Refused(400)),
            (401, b"", Outcome::Unauthorized(401)),
            (429, b"", Outcome::Later(429)),
            (503, b"", Outcome::Later(503)),
            (302, b"", Outcome::Garbled("the status is none that is known")),
        ] {
            assert_eq!(outcome(status, body), expected, "{status}");
        }
        let endless = vec![b'A'; LONGEST_ANSWER + 1];
        assert_eq!(outcome(200, &endless), Outcome::Garbled("the receipt is too long"));
    }
}
