//! Clients that sign their requests, by themselves: HMAC over lines, and HTTP Message Signatures (RFC 9421). Nothing here checks
//! anything; a test says what an attacker would send.

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
    rand::fill,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::tokens::{SigningKey, encode};

/// Signs a message.
pub type Sign = dyn Fn(&[u8]) -> Result<Vec<u8>>;

/// What a client has.
pub enum Signer {
    /// A secret.
    Secret(Vec<u8>),
    /// A key pair, P-256 or Ed25519.
    Pair(SigningKey),
    /// Something that is not in this process.
    Other {
        /// What the daemon's file for it holds.
        file: String,
        /// Signs.
        sign: Box<Sign>,
    },
}

impl Signer {
    /// A secret of 48 random bytes.
    pub fn secret() -> Result<Self> {
        let mut secret = vec![0; 48];
        fill(&mut secret).map_err(|_| anyhow!("no randomness"))?;
        Ok(Self::Secret(secret))
    }

    /// What the daemon's file for it holds.
    pub fn file(&self) -> Result<String> {
        match self {
            Self::Secret(secret) => Ok(STANDARD.encode(secret) + "\n"),
            Self::Pair(pair) => pair.public_pem(),
            Self::Other { file, .. } => Ok(file.clone()),
        }
    }

    /// A signature, or a MAC.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Secret(secret) => Ok(mac(secret, message)),
            Self::Pair(pair) => pair.sign(message),
            Self::Other { sign, .. } => sign(message),
        }
    }
}

/// HMAC-SHA-256.
pub fn mac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

/// Sixteen random bytes, as text.
pub fn nonce() -> String {
    let mut bytes = [0; 16];
    // A nonce of zeros would fail its test.
    let _ = fill(&mut bytes);
    encode(&bytes)
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of a body, hexadecimal.
pub fn sha256(body: &[u8]) -> String {
    hex(digest(&SHA256, body).as_ref())
}

/// `Content-Digest` of a body.
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, body)))
}

/// A request to be signed.
#[derive(Clone, Debug)]
pub struct Signable {
    /// Method.
    pub method: &'static str,
    /// Host, and perhaps a port.
    pub authority: String,
    /// Path.
    pub path: String,
    /// Query without `?`.
    pub query: Option<String>,
    /// Fields.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Signable {
    /// Sets a field.
    pub fn set(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }

    /// Path and query.
    pub fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Signs by HMAC over lines.
    pub fn sign_lines(&mut self, key: &str, secret: &[u8], at: u64, nonce: &str) {
        let mac = mac(secret, self.lines(at, nonce).as_bytes());
        self.set_lines(key, at, nonce, &mac);
    }

    /// The same by whoever has the secret.
    pub fn sign_lines_by(&mut self, key: &str, signer: &Signer, at: u64, nonce: &str) -> Result<()> {
        let mac = signer.sign(self.lines(at, nonce).as_bytes())?;
        self.set_lines(key, at, nonce, &mac);
        Ok(())
    }

    fn lines(&self, at: u64, nonce: &str) -> String {
        let digest = sha256(&self.body);
        let query = self.query.clone().unwrap_or_default();
        [self.method, &self.path, &query, &at.to_string(), nonce, &digest].join("\n")
    }

    fn set_lines(&mut self, key: &str, at: u64, nonce: &str, mac: &[u8]) {
        self.set("x-signature-key", key);
        self.set("x-signature-timestamp", &at.to_string());
        self.set("x-signature-nonce", nonce);
        self.set("x-signature", &hex(mac));
        if !self.body.is_empty() {
            self.set("x-signature-digest", &sha256(&self.body));
        }
    }

    /// Signs by RFC 9421 under `label`: these components, with these parameters.
    pub fn sign_message(
        &mut self,
        label: &str,
        components: &[&str],
        parameters: &str,
        signer: &Signer,
    ) -> Result<()> {
        let input = format!("({}){parameters}", components.join(" "));
        let mut base = String::new();
        for component in components {
            base += &format!("{component}: {}\n", self.value(component.trim_matches('"')));
        }
        base += &format!("\"@signature-params\": {input}");
        let signature = STANDARD.encode(signer.sign(base.as_bytes())?);
        let append = |headers: &mut HeaderMap, name, value: String| -> Result<()> {
            headers.append(HeaderName::from_static(name), value.parse()?);
            Ok(())
        };
        append(&mut self.headers, "signature-input", format!("{label}={input}"))?;
        append(&mut self.headers, "signature", format!("{label}=:{signature}:"))
    }

    fn value(&self, name: &str) -> String {
        match name {
            "@method" => self.method.to_owned(),
            "@authority" => self.authority.clone(),
            "@scheme" => "https".to_owned(),
            "@path" => self.path.clone(),
            "@query" => format!("?{}", self.query.as_deref().unwrap_or_default()),
            "@request-target" => self.target(),
            "@target-uri" => format!("https://{}{}", self.authority, self.target()),
            field => {
                let values =
                    self.headers.get_all(field).iter().map(|value| value.to_str().unwrap_or_default());
                values.collect::<Vec<_>>().join(", ")
            }
        }
    }
}
