//! Certificates by hand: only so can a test put anything into one, and have an authority on P-384 sign with SHA-256, as Apple's does.

use anyhow::{Result, anyhow};
use aws_lc_rs::{
    digest::{Digest, SHA256, SHA384, digest},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// An element: its tag, its length, what is in it.
pub fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match content.len() {
        length @ 0..=0x7f => vec![length as u8],
        length @ 0x80..=0xff => vec![0x81, length as u8],
        length => [&[0x82][..], &(length as u16).to_be_bytes()].concat(),
    };
    [&[tag][..], &length, &content].concat()
}

/// The same with an end in place of a length.
pub fn endless(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag, 0x80][..], &parts.concat(), &[0, 0]].concat()
}

/// An INTEGER that is not negative.
pub fn number(number: u32) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(3);
    let digits = &bytes[start..];
    element(2, &[if digits[0] & 0x80 == 0 { &[] } else { &[0] }, digits])
}

/// An OBJECT IDENTIFIER of these arcs.
pub fn oid(arcs: &[u32]) -> Vec<u8> {
    let mut bytes = vec![(arcs[0] * 40 + arcs[1]) as u8];
    for arc in &arcs[2..] {
        let mut digits = vec![(arc & 0x7f) as u8];
        let mut rest = arc >> 7;
        while rest > 0 {
            digits.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        bytes.extend(digits.into_iter().rev());
    }
    element(6, &[&bytes])
}

/// A name of one common name.
pub fn name(common: &str) -> Vec<u8> {
    let attribute = element(0x30, &[&oid(&[2, 5, 4, 3]), &element(0x0c, &[common.as_bytes()])]);
    element(0x30, &[&element(0x31, &[&attribute])])
}

/// Year, month, day, hour, minute, second of seconds since 1970.
fn civil(seconds: u64) -> [u64; 6] {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    [year, month, day, rest / 3_600, rest / 60 % 60, rest % 60]
}

/// As certificates have it.
fn utc_time(seconds: u64) -> Vec<u8> {
    let [year, month, day, hour, minute, second] = civil(seconds);
    let text = format!("{:02}{month:02}{day:02}{hour:02}{minute:02}{second:02}Z", year % 100);
    element(0x17, &[text.as_bytes()])
}

/// RFC 3339.
pub fn date(seconds: u64) -> String {
    let [year, month, day, hour, minute, second] = civil(seconds);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

/// Seconds since 1970 of such a date in UTC; a fraction is left out.
pub fn seconds(date: &str) -> Option<u64> {
    let part = |from: usize, to: usize| date.get(from..to)?.parse::<u64>().ok();
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    // Years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    Some((days - 719_468) * 86_400 + part(11, 13)? * 3_600 + part(14, 16)? * 60 + part(17, 19)?)
}

/// PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// Which hash a signature is made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384; only for keys on P-384.
    Sha384,
}

/// A key pair of an authority or a device, made when a test runs.
pub enum Key {
    /// On P-256.
    P256(EcdsaKeyPair),
    /// On P-384.
    P384(EcdsaKeyPair),
}

impl Key {
    /// On P-256.
    pub fn p256() -> Result<Self> {
        EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map(Self::P256).map_err(|_| anyhow!("no key"))
    }

    /// On P-384.
    pub fn p384() -> Result<Self> {
        EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).map(Self::P384).map_err(|_| anyhow!("no key"))
    }

    /// The point, uncompressed.
    pub fn point(&self) -> &[u8] {
        let (Self::P256(pair) | Self::P384(pair)) = self;
        pair.public_key().as_ref()
    }

    /// SubjectPublicKeyInfo.
    pub fn info(&self) -> Vec<u8> {
        let curve = match self {
            Self::P256(_) => oid(&[1, 2, 840, 10_045, 3, 1, 7]),
            Self::P384(_) => oid(&[1, 3, 132, 0, 34]),
        };
        info(&curve, self.point())
    }

    /// A signature in DER.
    pub fn sign(&self, hash: Hash, message: &[u8]) -> Result<Vec<u8>> {
        let failed = |_| anyhow!("no signature");
        let signature = match (self, hash) {
            (Self::P256(pair), _) => pair.sign(&SystemRandom::new(), message),
            (Self::P384(pair), Hash::Sha384) => pair.sign(&SystemRandom::new(), message),
            (Self::P384(pair), Hash::Sha256) => {
                // A shorter hash counts as the same number as one with zeros before it.
                let padded = [&[0; 16], digest(&SHA256, message).as_ref()].concat();
                pair.sign_digest(&Digest::import_less_safe(&padded, &SHA384).map_err(failed)?)
            }
        };
        Ok(signature.map_err(failed)?.as_ref().to_vec())
    }
}

/// SubjectPublicKeyInfo of any point.
pub fn info(curve: &[u8], point: &[u8]) -> Vec<u8> {
    let algorithm = element(0x30, &[&oid(&[1, 2, 840, 10_045, 2, 1]), curve]);
    element(0x30, &[&algorithm, &element(3, &[&[0], point])])
}

/// An extension.
pub fn extension(arcs: &[u32], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
    element(0x30, &[&oid(arcs), critical, &element(4, &[value])])
}

/// basicConstraints.
pub fn constraints(is_authority: bool, path: Option<u32>) -> Vec<u8> {
    let path = path.map(number).unwrap_or_default();
    let value = if is_authority { element(0x30, &[&[1, 1, 0xff], &path]) } else { element(0x30, &[]) };
    extension(&[2, 5, 29, 19], true, &value)
}

/// A certificate before it is signed.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Whose it is.
    pub subject: String,
    /// SubjectPublicKeyInfo.
    pub info: Vec<u8>,
    /// Begin and end, in seconds since 1970.
    pub validity: (u64, u64),
    /// Extensions, each as it is.
    pub extensions: Vec<Vec<u8>>,
    /// Its number.
    pub serial: u32,
}

/// Who signs certificates.
pub struct Authority {
    /// Its name.
    pub name: String,
    /// Its key.
    pub key: Key,
    /// Its own certificate.
    pub certificate: Vec<u8>,
}

impl Authority {
    /// One that vouches for itself.
    pub fn root(name: &str, now: u64) -> Result<Self> {
        Self::under(None, name, Key::p384()?, now)
    }

    /// One under another.
    pub fn under(above: Option<&Self>, name: &str, key: Key, now: u64) -> Result<Self> {
        let draft = Draft {
            subject: name.to_owned(),
            info: key.info(),
            validity: (now - 86_400 * 30, now + 86_400 * 365),
            extensions: vec![
                constraints(true, above.map(|_| 0)),
                extension(&[2, 5, 29, 15], true, &[3, 2, 1, 6]),
            ],
            serial: 1,
        };
        let mut authority = Self { name: name.to_owned(), key, certificate: Vec::new() };
        authority.certificate = above.unwrap_or(&authority).sign(&draft, Hash::Sha384)?;
        Ok(authority)
    }

    /// Signs a certificate.
    pub fn sign(&self, draft: &Draft, hash: Hash) -> Result<Vec<u8>> {
        let hash = if matches!(self.key, Key::P256(_)) { Hash::Sha256 } else { hash };
        let last = if hash == Hash::Sha256 { 2 } else { 3 };
        let algorithm = element(0x30, &[&oid(&[1, 2, 840, 10_045, 4, 3, last])]);
        let validity = element(0x30, &[&utc_time(draft.validity.0), &utc_time(draft.validity.1)]);
        let body = element(
            0x30,
            &[
                &element(0xa0, &[&number(2)]),
                &number(draft.serial),
                &algorithm,
                &name(&self.name),
                &validity,
                &name(&draft.subject),
                &draft.info,
                &element(0xa3, &[&element(0x30, &[&draft.extensions.concat()])]),
            ],
        );
        let signature = self.key.sign(hash, &body)?;
        Ok(element(0x30, &[&body, &algorithm, &element(3, &[&[0], &signature])]))
    }
}
