//! Tokens for tests, good and bad: key pairs, JWK sets, and a mint that signs whatever it is given.
//!
//! Nothing here checks anything, on purpose: header and claims are raw text, so that a test can say exactly what
//! an attacker would send.

use anyhow::{Context as _, Result, anyhow};
use aws_lc_rs::{
    digest::{SHA256, digest},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

/// A key pair with the id under which its public half is published.
pub struct SigningKey {
    kid: String,
    pair: Pair,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Pss(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
    P256 { pkcs8: Vec<u8>, pair: EcdsaKeyPair },
}

impl SigningKey {
    /// RSA with 2048 bits.
    pub fn rsa(kid: &str) -> Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no RSA key"))?;
        Ok(Self { kid: kid.to_owned(), pair: Pair::Rsa(Box::new(pair)) })
    }

    /// RSA with 2048 bits, for PS256.
    pub fn pss(kid: &str) -> Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow!("no RSA key"))?;
        Ok(Self { kid: kid.to_owned(), pair: Pair::Pss(Box::new(pair)) })
    }

    /// Ed25519.
    pub fn ed25519(kid: &str) -> Result<Self> {
        let pair = Ed25519KeyPair::generate().map_err(|_| anyhow!("no Ed25519 key"))?;
        Ok(Self { kid: kid.to_owned(), pair: Pair::Ed25519(pair) })
    }

    /// ECDSA on P-256.
    pub fn p256(kid: &str) -> Result<Self> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())
            .map_err(|_| anyhow!("no P-256 key"))?
            .as_ref()
            .to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &pkcs8)?;
        Ok(Self { kid: kid.to_owned(), pair: Pair::P256 { pkcs8, pair } })
    }

    /// An ECDSA key on P-256 that somebody else has made.
    pub fn of_pkcs8(kid: &str, pkcs8: &[u8]) -> Result<Self> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)?;
        Ok(Self { kid: kid.to_owned(), pair: Pair::P256 { pkcs8: pkcs8.to_vec(), pair } })
    }

    /// The id.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// As a header has it.
    pub fn alg(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Pss(_) => "PS256",
            Pair::Ed25519(_) => "EdDSA",
            Pair::P256 { .. } => "ES256",
        }
    }

    /// The public key as a JWK with `kid`, `alg` and `use`.
    pub fn jwk(&self) -> Value {
        match &self.pair {
            Pair::Ed25519(pair) => {
                let x = encode(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": self.kid, "alg": "EdDSA", "use": "sig", "x": x})
            }
            Pair::Rsa(pair) | Pair::Pss(pair) => {
                let n = encode(pair.public_key().modulus().big_endian_without_leading_zero());
                let e = encode(pair.public_key().exponent().big_endian_without_leading_zero());
                json!({"kty": "RSA", "kid": self.kid, "alg": self.alg(), "use": "sig", "n": n, "e": e})
            }
            Pair::P256 { pair, .. } => {
                let point = pair.public_key().as_ref();
                let (x, y) = (encode(&point[1..33]), encode(&point[33..65]));
                json!({"kty": "EC", "crv": "P-256", "kid": self.kid, "alg": "ES256", "use": "sig", "x": x, "y": y})
            }
        }
    }

    /// The public key's bytes as the library knows them (RSA: PKCS#1; P-256: the uncompressed point): what an
    /// attacker would take as an HMAC secret.
    pub fn public_bytes(&self) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) | Pair::Pss(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Pair::P256 { pair, .. } => pair.public_key().as_ref().to_vec(),
        }
    }

    /// A P-256 or Ed25519 key as other software reads it: SubjectPublicKeyInfo (RFC 5480 section 2, RFC 8410 section 4) in PEM.
    pub fn public_pem(&self) -> Result<String> {
        let pair = match &self.pair {
            Pair::P256 { pair, .. } => pair,
            Pair::Ed25519(pair) => {
                // SEQUENCE { SEQUENCE { id-Ed25519 }, BIT STRING } up to the key.
                let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
                let der = STANDARD.encode([&prefix, pair.public_key().as_ref()].concat());
                return Ok(format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n"));
            }
            Pair::Rsa(_) | Pair::Pss(_) => return Err(anyhow!("only P-256 and Ed25519 keys")),
        };
        // SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING } up to the point.
        const PREFIX: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
            0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        let der = STANDARD.encode([&PREFIX, pair.public_key().as_ref()].concat());
        let (first, rest) = der.split_at(64);
        Ok(format!("-----BEGIN PUBLIC KEY-----\n{first}\n{rest}\n-----END PUBLIC KEY-----\n"))
    }

    /// An ordinary header: `alg`, `kid`, `typ`.
    pub fn header(&self) -> Value {
        json!({"alg": self.alg(), "kid": self.kid, "typ": "at+jwt"})
    }

    /// The signature as JWS wants it: PKCS#1 v1.5 for RSA, r||s for ECDSA.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        match &self.pair {
            Pair::Rsa(pair) => rsa_sign(pair, &RSA_PKCS1_SHA256, message),
            Pair::Pss(pair) => rsa_sign(pair, &RSA_PSS_SHA256, message),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256 { pair, .. } => {
                let signature =
                    pair.sign(&SystemRandom::new(), message).map_err(|_| anyhow!("no signature"))?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }

    /// A valid signature in the form that JWS forbids: the other padding for RSA, DER for ECDSA.
    pub fn sign_otherwise(&self, message: &[u8]) -> Result<Vec<u8>> {
        match &self.pair {
            Pair::Rsa(pair) => rsa_sign(pair, &RSA_PSS_SHA256, message),
            Pair::Pss(pair) => rsa_sign(pair, &RSA_PKCS1_SHA256, message),
            Pair::Ed25519(_) => Err(anyhow!("Ed25519 has one form of signature")),
            Pair::P256 { pkcs8, .. } => {
                let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)?;
                let signature =
                    pair.sign(&SystemRandom::new(), message).map_err(|_| anyhow!("no signature"))?;
                Ok(signature.as_ref().to_vec())
            }
        }
    }

    /// A token over `claims` with the ordinary header.
    pub fn mint(&self, claims: &Value) -> Result<String> {
        self.mint_raw(&self.header().to_string(), &claims.to_string())
    }

    /// A token over exactly these texts, signed with this key whatever the header says.
    pub fn mint_raw(&self, header: &str, claims: &str) -> Result<String> {
        let input = signing_input(header, claims);
        let signature = self.sign(input.as_bytes())?;
        Ok(assemble(&input, &signature))
    }
}

fn rsa_sign(
    pair: &RsaKeyPair,
    padding: &'static dyn aws_lc_rs::signature::RsaEncoding,
    message: &[u8],
) -> Result<Vec<u8>> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature).map_err(|_| anyhow!("no signature"))?;
    Ok(signature)
}

/// A JWK set (RFC 7517 section 5) of the public halves.
pub fn jwks(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

/// Ordinary claims: issued at `now` for ten minutes.
pub fn claims(issuer: &str, audience: &str, scope: &str, now: u64) -> Value {
    json!({
        "iss": issuer, "aud": audience, "sub": "subject-1", "scope": scope,
        "iat": now, "nbf": now, "exp": now + 600,
    })
}

/// base64url without padding.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What a signature covers: header and claims, encoded, with a dot between.
pub fn signing_input(header: &str, claims: &str) -> String {
    format!("{}.{}", encode(header.as_bytes()), encode(claims.as_bytes()))
}

/// Appends a signature.
pub fn assemble(input: &str, signature: &[u8]) -> String {
    format!("{input}.{}", encode(signature))
}

/// A token "signed" by HMAC-SHA-256 under `secret`: the algorithm confusion of RFC 8725 section 2.1.
pub fn mint_hmac(header: &str, claims: &str, secret: &[u8]) -> String {
    let input = signing_input(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), input.as_bytes());
    assemble(&input, tag.as_ref())
}

/// The thumbprint of a key (RFC 7638).
pub fn thumbprint(key: &SigningKey) -> Result<String> {
    let jwk = key.jwk();
    let names: &[&str] = match jwk["kty"].as_str().context("no kty")? {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        _ => &["crv", "kty", "x"],
    };
    let members: Vec<String> = names.iter().map(|name| format!("\"{name}\":{}", jwk[name])).collect();
    Ok(ath(&format!("{{{}}}", members.join(","))))
}

/// A public key as it stands in a proof.
pub fn public_jwk(key: &SigningKey) -> Value {
    let mut jwk = key.jwk();
    if let Some(members) = jwk.as_object_mut() {
        members.retain(|name, _| !["kid", "alg", "use"].contains(&name.as_str()));
    }
    jwk
}

/// The hash of a token, as proofs have it.
pub fn ath(token: &str) -> String {
    encode(digest(&SHA256, token.as_bytes()).as_ref())
}
