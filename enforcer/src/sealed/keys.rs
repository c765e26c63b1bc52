//! Keys of the two curves, and agreement between them (ECDH).

use aws_lc_rs::{
    agreement::{self, ECDH_P256, PrivateKey, UnparsedPublicKey, X25519},
    digest::{SHA256, digest},
    encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Refused;
use crate::secret::Secret;

/// Bytes of a coordinate, a private key, and what two keys agree on.
const COORDINATE: usize = 32;
/// SEQUENCE { 0, SEQUENCE { id-X25519 }, OCTET STRING { OCTET STRING } } up to the key (RFC 8410 section 7).
const X25519_PKCS8: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x6e, 0x04, 0x22, 0x04, 0x20];

/// Where keys lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST's, which the secure hardware of phones has.
    P256,
    /// RFC 7748.
    X25519,
}

impl Curve {
    const fn algorithm(self) -> &'static agreement::Algorithm {
        match self {
            Self::P256 => &ECDH_P256,
            Self::X25519 => &X25519,
        }
    }

    /// Bytes of a public key: an uncompressed point (SEC 1), or a coordinate.
    pub const fn public_length(self) -> usize {
        match self {
            Self::P256 => 1 + 2 * COORDINATE,
            Self::X25519 => COORDINATE,
        }
    }
}

/// The key of somebody else. Its form is right; whether it is a point of its curve shows when a key is agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    curve: Curve,
    bytes: Vec<u8>,
}

/// A public key as JOSE has it (RFC 7518 section 6.2.1, RFC 8037 section 2), and nothing besides.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwk {
    kty: String,
    crv: String,
    x: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
}

impl Public {
    /// From the bytes of an uncompressed point, or of a coordinate of X25519.
    pub fn new(curve: Curve, bytes: &[u8]) -> Result<Self, Refused> {
        let compressed = curve == Curve::P256 && bytes.first() != Some(&4);
        if bytes.len() != curve.public_length() || compressed {
            return Err(Refused);
        }
        Ok(Self { curve, bytes: bytes.to_vec() })
    }

    /// Where it lies.
    pub const fn curve(&self) -> Curve {
        self.curve
    }

    /// As [`Public::new`] takes it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn from_jwk(jwk: &Jwk) -> Result<Self, Refused> {
        let coordinate = |text: &str| {
            let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused)?;
            if bytes.len() == COORDINATE { Ok(bytes) } else { Err(Refused) }
        };
        match (jwk.kty.as_str(), jwk.crv.as_str(), &jwk.y) {
            ("EC", "P-256", Some(y)) => {
                let point = [vec![4], coordinate(&jwk.x)?, coordinate(y)?].concat();
                Self::new(Curve::P256, &point)
            }
            ("OKP", "X25519", None) => Self::new(Curve::X25519, &coordinate(&jwk.x)?),
            _ => Err(Refused),
        }
    }

    pub(super) fn to_jwk(&self) -> Jwk {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = |kty: &str, crv: &str, x: &[u8], y: Option<&[u8]>| Jwk {
            kty: kty.to_owned(),
            crv: crv.to_owned(),
            x: text(x),
            y: y.map(text),
        };
        match self.curve {
            Curve::P256 => {
                let (x, y) = self.bytes.get(1..).unwrap_or_default().split_at(COORDINATE);
                jwk("EC", "P-256", x, Some(y))
            }
            Curve::X25519 => jwk("OKP", "X25519", &self.bytes, None),
        }
    }

    /// Its thumbprint (RFC 7638), which is a good id.
    pub fn thumbprint(&self) -> String {
        let Jwk { kty, crv, x, y } = self.to_jwk();
        // The members in the order of their names; base64url needs no escapes.
        let y = y.map_or_else(String::new, |y| format!(r#","y":"{y}""#));
        let text = format!(r#"{{"crv":"{crv}","kty":"{kty}","x":"{x}"{y}}}"#);
        URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()))
    }

    pub(super) fn published(&self, id: &str) -> Value {
        let Jwk { kty, crv, x, y } = self.to_jwk();
        let mut key = json!({ "kty": kty, "crv": crv, "x": x, "kid": id, "use": "enc" });
        if let (Some(y), Some(members)) = (y, key.as_object_mut()) {
            members.insert("y".to_owned(), y.into());
        }
        key
    }
}

/// One's own key.
pub struct Private {
    key: PrivateKey,
    raw: Secret<Vec<u8>>,
    public: Public,
}

impl std::fmt::Debug for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Private").field("public", &self.public).finish_non_exhaustive()
    }
}

impl Private {
    /// A new one.
    pub fn generate(curve: Curve) -> Result<Self, Refused> {
        let key = PrivateKey::generate(curve.algorithm()).map_err(|_| Refused)?;
        Self::of(curve, key)
    }

    /// From the 32 bytes of a scalar (P-256, big-endian) or a seed (X25519).
    pub fn from_raw(curve: Curve, bytes: &[u8]) -> Result<Self, Refused> {
        let key = PrivateKey::from_private_key(curve.algorithm(), bytes).map_err(|_| Refused)?;
        Self::of(curve, key)
    }

    /// From PKCS#8 in PEM, as `openssl genpkey` writes it. The error never says what stands there.
    pub fn from_pem(text: &[u8]) -> Result<Self, String> {
        let problem = "not a private key of P-256 or X25519 in PEM (`BEGIN PRIVATE KEY`, PKCS#8), as \
                       `openssl genpkey -algorithm X25519` writes it";
        let der = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| problem.to_owned())?;
        let der = der.secret_pkcs8_der();
        let found = match der.strip_prefix(&X25519_PKCS8) {
            Some(seed) => Self::from_raw(Curve::X25519, seed),
            None => PrivateKey::from_private_key_der(&ECDH_P256, der)
                .map_err(|_| Refused)
                .and_then(|key| Self::of(Curve::P256, key)),
        };
        found.map_err(|Refused| problem.to_owned())
    }

    fn of(curve: Curve, key: PrivateKey) -> Result<Self, Refused> {
        let raw = match curve {
            Curve::P256 => {
                AsBigEndian::<EcPrivateKeyBin<'_>>::as_be_bytes(&key).map(|raw| raw.as_ref().to_vec())
            }
            Curve::X25519 => {
                AsBigEndian::<Curve25519SeedBin<'_>>::as_be_bytes(&key).map(|raw| raw.as_ref().to_vec())
            }
        };
        let public = key.compute_public_key().map_err(|_| Refused)?;
        let public = Public::new(curve, public.as_ref())?;
        Ok(Self { key, raw: Secret::new(raw.map_err(|_| Refused)?), public })
    }

    /// What others may know of it.
    pub const fn public(&self) -> &Public {
        &self.public
    }

    pub(super) fn raw(&self) -> &[u8] {
        self.raw.expose()
    }

    /// What only the two owners can compute: the x coordinate of the point. Points that are not of the curve, and those of X25519 that
    /// lead to zero (RFC 7748 section 6.1), are refused.
    pub(super) fn agree(&self, other: &Public) -> Result<Secret<[u8; COORDINATE]>, Refused> {
        if other.curve != self.public.curve {
            return Err(Refused);
        }
        let other = UnparsedPublicKey::new(other.curve.algorithm(), &other.bytes);
        let agreed =
            agreement::agree(&self.key, other, Refused, |bytes| bytes.try_into().map_err(|_| Refused))?;
        if agreed == [0; COORDINATE] { Err(Refused) } else { Ok(Secret::new(agreed)) }
    }
}
