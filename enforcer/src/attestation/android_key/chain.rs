//! The chain of certificates: who signed whom, up to a root whose key is known.
//!
//! By hand, not by webpki: it refuses what genuine chains are made of (issuers that are no CA, from makers of 2016; leafs of 1970; versions and
//! names as they come). Signatures are webpki's. What a key signs that is itself described by the hardware is worth nothing, whatever it
//! says: it is an app's, so the description has to stand in the first certificate and in no other one.

use rustls_pki_types::SignatureVerificationAlgorithm;
use serde::{Deserialize, Serialize};
use webpki::aws_lc_rs as algorithms;
use x509_parser::{
    certificate::X509Certificate,
    der_parser::{Oid, asn1_rs::oid},
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
        OID_PKCS1_SHA256WITHRSA, OID_PKCS1_SHA384WITHRSA, OID_SIG_ECDSA_WITH_SHA256,
        OID_SIG_ECDSA_WITH_SHA384,
    },
    prelude::FromDer as _,
    x509::SubjectPublicKeyInfo,
};

use super::roots::Roots;
use crate::{attestation::Refused, denial::Denial};

/// Certificates of a chain, at least and at most; genuine ones have 3 to 5.
const LENGTHS: std::ops::RangeInclusive<usize> = 2..=MOST_CERTIFICATES;
/// The most of them.
pub const MOST_CERTIFICATES: usize = 8;
/// Bytes of one, at most; those with keys of ML-DSA have some 3,000.
pub const MOST: usize = 8 << 10;

/// The description of a key.
const DESCRIPTION: Oid<'static> = oid!(1.3.6.1.4.1.11129.2.1.17);
/// What Google writes into the certificates that devices fetch (remote key provisioning).
const PROVISIONING: Oid<'static> = oid!(1.3.6.1.4.1.11129.2.1.30);

/// Where a device has its certificates from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provisioning {
    /// From its maker, once.
    Factory,
    /// From Google, every few weeks.
    Remote,
}

impl Provisioning {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Factory => "certificates from the factory",
            Self::Remote => "certificates from Google's servers",
        }
    }
}

/// A chain, leaf first.
#[derive(Debug)]
pub struct Chain<'a> {
    certificates: Vec<X509Certificate<'a>>,
}

fn refused(why: impl Into<String>) -> Refused {
    Refused::new(Denial::AttestationChain, "chain", why)
}

fn expired(why: String) -> Refused {
    Refused::new(Denial::AttestationExpired, "chain", why)
}

impl<'a> Chain<'a> {
    /// Reads certificates.
    pub fn read(certificates: &'a [Vec<u8>]) -> Result<Self, Refused> {
        let malformed = |why: String| Refused::new(Denial::AttestationMalformed, "form", why);
        if !LENGTHS.contains(&certificates.len()) {
            let (least, most) = (LENGTHS.start(), LENGTHS.end());
            return Err(malformed(format!("{} certificates, not {least} to {most}", certificates.len())));
        }
        let read = |(at, der): (usize, &'a Vec<u8>)| {
            let parsed =
                Some(der).filter(|der| der.len() <= MOST).and_then(|der| X509Certificate::from_der(der).ok());
            match parsed {
                Some((&[], certificate)) => Ok(certificate),
                _ => Err(malformed(format!("number {at} is no certificate in DER of at most {MOST} bytes"))),
            }
        };
        Ok(Self { certificates: certificates.iter().enumerate().map(read).collect::<Result<_, _>>()? })
    }

    /// Who signed whom, until when, and that the root is one of `roots`: the key of that one. `now`: seconds since 1970.
    pub fn verify<'r>(&self, roots: &'r Roots, expired_factory: bool, now: u64) -> Result<&'r [u8], Refused> {
        let count = self.certificates.len();
        for (at, pair) in self.certificates.windows(2).enumerate() {
            let [certificate, issuer] = pair else { continue };
            if certificate.issuer().as_raw() != issuer.subject().as_raw() {
                return Err(refused(format!("number {at} names another issuer than number {}", at + 1)));
            }
            may_issue(issuer, at)?;
            signed(certificate, issuer.public_key()).map_err(|why| refused(format!("number {at}: {why}")))?;
        }
        // The root itself may be missing: it is known here.
        let Some(last) = self.certificates.last() else { return Err(refused("it is empty")) };
        let own = roots.keys.iter().find(|key| **key == last.public_key().raw);
        let root = match own {
            Some(own) => own,
            None => {
                let signed_by = |key: &&Vec<u8>| {
                    SubjectPublicKeyInfo::from_der(key).is_ok_and(|(_, key)| signed(last, &key).is_ok())
                };
                let root = roots.keys.iter().find(signed_by);
                let root = root.ok_or_else(|| refused("it ends at no root that is trusted"))?;
                may_issue(last, count - 2)?;
                root
            }
        };
        // A root's own dates say nothing: its key is what is trusted.
        let dated = if own.is_some() { count - 1 } else { count };
        let factory = self.provisioning() == Provisioning::Factory;
        for (at, certificate) in self.certificates.iter().take(dated).enumerate() {
            let validity = certificate.validity();
            let now = now.cast_signed();
            if now < validity.not_before.timestamp() {
                return Err(expired(format!("number {at} is not valid before {}", validity.not_before)));
            }
            // An app chooses its key's own dates; those of the others are the maker's, or Google's.
            if now > validity.not_after.timestamp() && !(expired_factory && factory && at > 0) {
                return Err(expired(format!("number {at} was valid until {}", validity.not_after)));
            }
        }
        self.description().map(|_| &root[..])
    }

    /// Who gave the device its certificates. Believed of chains alone that were verified.
    pub fn provisioning(&self) -> Provisioning {
        let issuer = self.certificates.get(1);
        let remote =
            issuer.is_some_and(|issuer| issuer.extensions().iter().any(|one| one.oid == PROVISIONING));
        if remote { Provisioning::Remote } else { Provisioning::Factory }
    }

    /// Serial numbers, in hexadecimal digits.
    pub fn serials(&self) -> impl Iterator<Item = String> {
        self.certificates
            .iter()
            .map(|certificate| certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The description of the key: in the first certificate, and in no other.
    pub fn description(&self) -> Result<&'a [u8], Refused> {
        let mut found = None;
        for (at, certificate) in self.certificates.iter().enumerate() {
            for extension in certificate.extensions().iter().filter(|extension| extension.oid == DESCRIPTION)
            {
                if at > 0 {
                    return Err(refused(format!(
                        "number {at} is itself the certificate of an app's key, which may sign anything"
                    )));
                }
                if found.replace(extension.value).is_some() {
                    return Err(refused("the first certificate describes its key twice"));
                }
            }
        }
        found.ok_or_else(|| refused("the first certificate does not describe its key"))
    }

    /// The key that is described: a SubjectPublicKeyInfo.
    pub fn key(&self) -> &'a [u8] {
        self.certificates.first().map_or(&[], |leaf| leaf.tbs_certificate.subject_pki.raw)
    }
}

/// Whether a certificate may have signed number `below`. The one right above the key is none of a CA in some devices (RFC 5280 section 4.2.1.9
/// would have it so); what an app could have got is refused because it is described.
fn may_issue(issuer: &X509Certificate<'_>, below: usize) -> Result<(), Refused> {
    let at = below + 1;
    let constraints =
        issuer.basic_constraints().map_err(|_| refused(format!("number {at} has an extension twice")))?;
    let Some(constraints) = constraints else {
        return Err(refused(format!("number {at} has no basic constraints")));
    };
    if !constraints.value.ca && below > 0 {
        return Err(refused(format!("number {at} may not sign certificates")));
    }
    if constraints.value.path_len_constraint.is_some_and(|most| u64::from(most) < below as u64) {
        return Err(refused(format!("number {at} may not have so many certificates below")));
    }
    Ok(())
}

fn signed(certificate: &X509Certificate<'_>, by: &SubjectPublicKeyInfo<'_>) -> Result<(), String> {
    let (inner, outer) = (&certificate.tbs_certificate.signature, &certificate.signature_algorithm);
    if inner != outer {
        return Err("it names two signature algorithms".to_owned());
    }
    let algorithm = algorithm(&outer.algorithm, by).ok_or("its signature is of a kind that is not taken")?;
    let message = certificate.tbs_certificate.as_ref();
    let signature = &certificate.signature_value.data;
    let outcome = algorithm.verify_signature(&by.subject_public_key.data, message, signature);
    outcome.map_err(|_| "its signature is wrong".to_owned())
}

/// By the signature's kind and the key's.
fn algorithm(
    signature: &Oid<'_>,
    by: &SubjectPublicKeyInfo<'_>,
) -> Option<&'static dyn SignatureVerificationAlgorithm> {
    let key = &by.algorithm.algorithm;
    if *key == OID_PKCS1_RSAENCRYPTION {
        return [
            (OID_PKCS1_SHA256WITHRSA, algorithms::RSA_PKCS1_2048_8192_SHA256),
            (OID_PKCS1_SHA384WITHRSA, algorithms::RSA_PKCS1_2048_8192_SHA384),
        ]
        .into_iter()
        .find_map(|(oid, algorithm)| (oid == *signature).then_some(algorithm));
    }
    let curve = by.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let curve = curve.filter(|_| *key == OID_KEY_TYPE_EC_PUBLIC_KEY)?;
    [
        (OID_EC_P256, OID_SIG_ECDSA_WITH_SHA256, algorithms::ECDSA_P256_SHA256),
        (OID_EC_P256, OID_SIG_ECDSA_WITH_SHA384, algorithms::ECDSA_P256_SHA384),
        (OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA256, algorithms::ECDSA_P384_SHA256),
        (OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA384, algorithms::ECDSA_P384_SHA384),
    ]
    .into_iter()
    .find_map(|(on, oid, algorithm)| (on == curve && oid == *signature).then_some(algorithm))
}
