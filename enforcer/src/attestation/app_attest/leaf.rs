//! The certificate of a device's key: the key, the nonce that it was made for, and what Apple says of the system.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, Oid, asn1_rs::oid},
    prelude::FromDer as _,
};

use super::Point;
use crate::attestation::ber;

/// The nonce: SEQUENCE { `[1]` OCTET STRING }.
const NONCE: Oid<'_> = oid!(1.2.840.113635.100.8.2);
/// The system: SEQUENCE of tagged values. Apple documents none of it, so it is shown and decides nothing.
const SYSTEM: Oid<'_> = oid!(1.2.840.113635.100.8.7);

/// Who may use the key, and how the system has to be: SEQUENCE { tagged OCTET STRING }.
const ACCESS: Oid<'_> = oid!(1.2.840.113635.100.8.6);

/// What a Mac with System Integrity Protection and full security has there, on every version of macOS; Apple says that no other key of
/// a Mac is to be trusted ("Validating apps that connect to your server", step 4).
pub const FULL_SECURITY: [u8; 66] = *b"\x30\x40\x0c\x02\x31\x31\x30\x3a\
\x30\x09\x0c\x02ok\xa1\x03\x01\x01\xff\
\x30\x09\x0c\x02oa\xa1\x03\x01\x01\xff\
\x30\x0b\x0c\x04odel\xa1\x03\x01\x01\xff\
\x30\x15\x0c\x04osgn\xa0\x06\x0c\x04rsec\x30\x05\xa6\x03\x02\x01\x01";

/// What stands in front of the 32 bytes of a nonce.
const BEFORE_NONCE: [u8; 6] = [0x30, 0x24, 0xa1, 0x22, 0x04, 0x20];

/// What Apple says of the device's system, where it says it. Nothing is decided by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// Like `iphoneos`.
    pub platform: Option<String>,
    /// Like `18.0`.
    pub version: Option<String>,
    /// Like `22A244b`.
    pub build: Option<String>,
}

/// What the certificate says.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    /// Its key, a point on P-256.
    pub(super) key: Point,
    /// What it was made for.
    pub(super) nonce: [u8; 32],
    /// Its end, in seconds since 1970.
    pub(super) not_after: u64,
    pub(super) system: System,
    /// Whether the key's access is that of [`FULL_SECURITY`].
    pub(super) is_fully_secure: bool,
}

/// The public key of a certificate, and the rest of it.
pub(super) fn key(certificate: &[u8]) -> Result<(Point, X509Certificate<'_>), String> {
    let (rest, parsed) =
        X509Certificate::from_der(certificate).map_err(|error| format!("no certificate: {error}"))?;
    if !rest.is_empty() {
        return Err("there is more behind the certificate".to_owned());
    }
    let info = &parsed.tbs_certificate.subject_pki;
    let curve = info.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    if info.algorithm.algorithm != OID_KEY_TYPE_EC_PUBLIC_KEY || curve != Some(OID_EC_P256) {
        return Err("the certificate's key is not one of P-256".to_owned());
    }
    let key = Point::try_from(info.subject_public_key.data.as_ref()).ok().filter(|point| point[0] == 4);
    let key = key.ok_or("the certificate's key is no uncompressed point")?;
    ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, key)
        .map_err(|_| "the certificate's key is not on the curve".to_owned())?;
    Ok((key, parsed))
}

/// Reads the certificate of a key. That it is believed is shown elsewhere.
pub(super) fn read(certificate: &[u8]) -> Result<Leaf, String> {
    let (key, parsed) = key(certificate)?;
    let extension = |id: &Oid<'_>| {
        let mut found = parsed.extensions().iter().filter(|extension| extension.oid == *id);
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(format!("extension {id} is there twice")),
            (extension, _) => Ok(extension.map(|extension| extension.value)),
        }
    };
    let nonce = extension(&NONCE)?.ok_or(format!("extension {NONCE}, the nonce, is missing"))?;
    let nonce = nonce.strip_prefix(&BEFORE_NONCE).and_then(|nonce| nonce.try_into().ok());
    let nonce = nonce.ok_or(format!("extension {NONCE}, the nonce, has another form than expected"))?;
    let system = extension(&SYSTEM)?.map(system).unwrap_or_default();
    let not_after = parsed.validity().not_after.timestamp().try_into().unwrap_or_default();
    let is_fully_secure = extension(&ACCESS)?.and_then(access).is_some_and(|access| *access == FULL_SECURITY);
    Ok(Leaf { key, nonce, not_after, system, is_fully_secure })
}

/// The one string in there.
fn access(value: &[u8]) -> Option<std::borrow::Cow<'_, [u8]>> {
    let sequence = ber::only(value).ok()?.of(ber::tag::SEQUENCE).ok()?;
    ber::only(ber::only(sequence).ok()?.content).ok()?.octets().ok()
}

fn system(value: &[u8]) -> System {
    let members = ber::only(value).and_then(|all| ber::all(all.content)).unwrap_or_default();
    let text = |tag: u32| {
        let member = members.iter().find(|member| member.tag == tag)?;
        let text = ber::only(member.content).and_then(|inner| inner.octets()).ok()?;
        String::from_utf8(text.into_owned()).ok()
    };
    // [1026], [1400], [1403].
    System { platform: text(0xbf_8802), version: text(0xbf_8a78), build: text(0xbf_8a7b) }
}
