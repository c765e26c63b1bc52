//! The service account in whose name Google is asked (RFC 7523): its key file, as the Google Cloud console makes it, and the assertion
//! that is signed with it.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Deserialize;
use serde_json::json;

use crate::secret::Secret;

/// What the calls need.
pub const SCOPE: &str = "https://www.googleapis.com/auth/playintegrity";
/// How long an assertion is good, in seconds; Google takes an hour at most.
const LIFETIME: u64 = 600;

/// A service account.
pub struct Account {
    /// Its name.
    pub email: String,
    /// Where tokens are fetched, as the file says.
    pub token_url: String,
    key_id: String,
    key: Secret<EncodingKey>,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("email", &self.email).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "type")]
    kind: String,
    client_email: String,
    private_key: String,
    private_key_id: String,
    token_uri: String,
}

impl Account {
    /// Reads a key file (JSON). Errors never say what stands there.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(text).map_err(|_| {
            "not the JSON key file of a service account (type, client_email, private_key, private_key_id, token_uri)"
        })?;
        if file.kind != "service_account" {
            return Err("it is the key file of something else than a service account".to_owned());
        }
        let key = EncodingKey::from_rsa_pem(file.private_key.as_bytes())
            .map_err(|_| "its private_key is no RSA key in PEM".to_owned())?;
        Ok(Self {
            email: file.client_email,
            token_url: file.token_uri,
            key_id: file.private_key_id,
            key: Secret::new(key),
        })
    }

    /// What a token is asked for with. `audience`: where. `now`: seconds since 1970.
    pub fn assertion(&self, audience: &str, now: u64) -> Result<Secret<String>, String> {
        let mut header = Header::new(Algorithm::RS256);
        header.kid = Some(self.key_id.clone());
        let claims =
            json!({"iss": self.email, "scope": SCOPE, "aud": audience, "iat": now, "exp": now + LIFETIME});
        let signed = jsonwebtoken::encode(&header, &claims, self.key.expose());
        signed.map(Secret::new).map_err(|error| format!("signing in the name of {}: {error}", self.email))
    }
}
