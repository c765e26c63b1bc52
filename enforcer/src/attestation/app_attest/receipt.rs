//! Receipts: what Apple signs beside an attestation, and gives anew in exchange for an older one, then with a risk metric: how many
//! keys were attested on the device in the last 30 days. CMS (RFC 5652) in BER, without signed attributes.

use rustls_pki_types::CertificateDer;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use webpki::{EndEntityCert, aws_lc_rs::ECDSA_P256_SHA256};
use x509_parser::{
    certificate::X509Certificate,
    oid_registry::{Oid, asn1_rs::oid},
    prelude::FromDer as _,
};

use super::{
    AppId, Environment, Point,
    chain::{self, Roots},
    leaf,
};
use crate::{
    attestation::{
        Refused, Steps,
        ber::{self, Element, tag},
    },
    denial::Denial,
};

/// Bytes of a receipt at most; genuine ones have about 3,800.
pub const LONGEST: usize = 16 << 10;
/// How far ahead Apple's clock may be, in seconds.
const SKEW: u64 = 300;

/// What a signer's certificate has in it. Apple's root stands above signers of many things; only those of receipts have it.
const MARK: Oid<'_> = oid!(1.2.840.113635.100.12.15);
/// The same as bytes, for what the certificate is for, where it says so.
const USAGE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x63, 0x64, 0x0c, 0x0f];

/// Object identifiers, as their bytes are.
mod oid {
    /// 1.2.840.113549.1.7.2.
    pub(super) const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    /// 1.2.840.113549.1.7.1.
    pub(super) const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
    /// 2.16.840.1.101.3.4.2.1.
    pub(super) const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
    /// 1.2.840.10045.4.3.2.
    pub(super) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
}

/// Why it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Beside an attestation.
    Attest,
    /// In exchange for another one.
    Exchange,
}

/// What is expected of a receipt.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The apps, one of which it has to be.
    pub apps: &'a [AppId],
    /// The environment.
    pub environment: Environment,
    /// The key that it is about.
    pub public_key: &'a Point,
    /// What the key was attested with; receipts that were given in exchange have it in a form that cannot be compared.
    pub client_data_hash: Option<&'a [u8]>,
    /// Whose receipts are believed.
    pub roots: &'a Roots,
}

/// What a receipt says. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Why it was given.
    pub kind: Kind,
    /// When it was made.
    pub created: u64,
    /// Before this time Apple gives no other one for it.
    pub not_before: Option<u64>,
    /// From this time on Apple gives no other one for it.
    pub expires: u64,
    /// How many keys were attested on the device in the last 30 days, for the apps of this team.
    pub risk: Option<u32>,
}

/// Verifies a receipt at `now`, in seconds since 1970.
pub fn verify(bytes: &[u8], expected: &Expected<'_>, now: u64, steps: Steps<'_>) -> Result<Receipt, Refused> {
    let refused = |why: String| Refused::new(Denial::AttestationReceipt, "receipt", why);
    if bytes.len() > LONGEST {
        return Err(refused(format!("{} bytes are more than {LONGEST}", bytes.len())));
    }
    let signed = signed(bytes).map_err(|why| refused(format!("no CMS as expected: {why}")))?;
    let signer = signed.signer().map_err(&refused)?;
    signed.follow(signer, expected.roots, now).map_err(&refused)?;
    let fields = Fields::read(&signed.content).map_err(&refused)?;
    let receipt = fields.judge(expected, now).map_err(refused)?;
    let kind = match receipt.kind {
        Kind::Attest => "of an attestation",
        Kind::Exchange => "given in exchange",
    };
    let risk =
        receipt.risk.map_or_else(|| "no risk metric yet".to_owned(), |risk| format!("risk metric {risk}"));
    steps("receipt", format!("{kind}, of this key, {risk}"));
    Ok(receipt)
}

/// What stands in SignedData, as far as it counts.
struct Signed<'a> {
    content: Vec<u8>,
    certificates: Vec<CertificateDer<'a>>,
    /// Issuer and serial number of the signer's certificate.
    signer: (&'a [u8], &'a [u8]),
    signature: Vec<u8>,
}

fn signed(bytes: &[u8]) -> Result<Signed<'_>, &'static str> {
    const FORM: &str = "a part is missing, or one too many";
    let outer = ber::all(ber::only(bytes)?.of(tag::SEQUENCE)?)?;
    let [kind, data] = outer[..] else { return Err(FORM) };
    is(&kind, oid::SIGNED_DATA)?;
    let parts = ber::all(ber::only(data.of(tag::ZERO)?)?.of(tag::SEQUENCE)?)?;
    let [version, algorithms, content, certificates, signers] = parts[..] else { return Err(FORM) };
    version.number()?;
    algorithms.of(tag::SET)?;
    let content = ber::all(content.of(tag::SEQUENCE)?)?;
    let [kind, content] = content[..] else { return Err(FORM) };
    is(&kind, oid::DATA)?;
    let content = ber::only(content.of(tag::ZERO)?)?.octets()?.into_owned();
    let certificates = ber::all(certificates.of(tag::ZERO)?)?;
    if certificates.len() > 5 {
        return Err("there are too many certificates");
    }
    let signers = ber::all(signers.of(tag::SET)?)?;
    let [signer] = signers[..] else { return Err("there is not one signer") };
    let signer = ber::all(signer.of(tag::SEQUENCE)?)?;
    // Signed attributes would stand before the algorithm of the signature: then the content itself is not what is signed.
    let [version, name, digest, algorithm, signature] = signer[..] else { return Err(FORM) };
    version.number()?;
    is_algorithm(&digest, oid::SHA256)?;
    is_algorithm(&algorithm, oid::ECDSA_SHA256)?;
    let name = ber::all(name.of(tag::SEQUENCE)?)?;
    let [issuer, serial] = name[..] else { return Err(FORM) };
    Ok(Signed {
        content,
        certificates: certificates.iter().map(|certificate| certificate.raw.into()).collect(),
        signer: (issuer.raw, serial.of(tag::INTEGER)?),
        signature: signature.octets()?.into_owned(),
    })
}

fn is(element: &Element<'_>, oid: &[u8]) -> Result<(), &'static str> {
    if element.of(tag::OID)? == oid {
        Ok(())
    } else {
        Err("an object identifier is another one than expected")
    }
}

fn is_algorithm(element: &Element<'_>, oid: &[u8]) -> Result<(), &'static str> {
    is(ber::all(element.of(tag::SEQUENCE)?)?.first().ok_or("an algorithm is missing")?, oid)
}

impl Signed<'_> {
    /// Which of the certificates is the signer's.
    fn signer(&self) -> Result<usize, String> {
        for (at, bytes) in self.certificates.iter().enumerate() {
            let (_, certificate) =
                X509Certificate::from_der(bytes).map_err(|error| format!("no certificate: {error}"))?;
            if (certificate.issuer().as_raw(), certificate.raw_serial()) != self.signer {
                continue;
            }
            if !certificate.extensions().iter().any(|extension| extension.oid == MARK) {
                return Err(format!("the signer's certificate is none for receipts: it lacks {MARK}"));
            }
            return Ok(at);
        }
        Err("the signer's certificate is missing".to_owned())
    }

    /// From the content to the root.
    fn follow(&self, signer: usize, roots: &Roots, now: u64) -> Result<(), String> {
        let signer = self.certificates.get(signer).ok_or("the signer's certificate is missing")?;
        let signer = EndEntityCert::try_from(signer).map_err(|error| format!("no certificate: {error}"))?;
        signer
            .verify_signature(ECDSA_P256_SHA256, &self.content, &self.signature)
            .map_err(|_| "the signature is wrong".to_owned())?;
        chain::follow(&signer, &self.certificates, roots, (USAGE, 1), now).map_err(|fault| match fault {
            chain::Fault::Time(why) | chain::Fault::Untrusted(why) => format!("its signer: {why}"),
        })
    }
}

/// Field 4, and what else there is, by their numbers.
struct Fields(Vec<(u32, Vec<u8>)>);

impl Fields {
    fn read(content: &[u8]) -> Result<Self, String> {
        let problem = |why: &str| format!("its content: {why}");
        let set = ber::only(content).and_then(|set| ber::all(set.of(tag::SET)?)).map_err(problem)?;
        let mut fields: Vec<(u32, Vec<u8>)> = Vec::new();
        for field in set {
            let parts = field.of(tag::SEQUENCE).and_then(ber::all).map_err(problem)?;
            let [number, version, value] = parts[..] else {
                return Err(problem("a field is not of three parts"));
            };
            version.number().map_err(problem)?;
            let number = number.number().map_err(problem)?;
            if fields.iter().any(|(known, _)| *known == number) {
                return Err(problem("a field is there twice"));
            }
            fields.push((number, value.octets().map_err(problem)?.into_owned()));
        }
        Ok(Self(fields))
    }

    fn bytes(&self, number: u32) -> Option<&[u8]> {
        self.0.iter().find(|(known, _)| *known == number).map(|(_, value)| &value[..])
    }

    fn text(&self, number: u32) -> Result<Option<&str>, String> {
        let text = self.bytes(number).map(std::str::from_utf8).transpose();
        text.map_err(|_| format!("field {number} is no text"))
    }

    fn needed(&self, number: u32, what: &str) -> Result<&str, String> {
        self.text(number)?.ok_or_else(|| format!("{what}, field {number}, is missing"))
    }

    fn time(&self, number: u32) -> Result<Option<u64>, String> {
        let Some(text) = self.text(number)? else { return Ok(None) };
        let time = OffsetDateTime::parse(text, &Rfc3339).ok();
        let seconds = time.and_then(|time| u64::try_from(time.unix_timestamp()).ok());
        seconds.map(Some).ok_or_else(|| format!("field {number} is no time"))
    }

    fn judge(&self, expected: &Expected<'_>, now: u64) -> Result<Receipt, String> {
        let kind = match self.needed(6, "the kind")? {
            "ATTEST" => Kind::Attest,
            "RECEIPT" => Kind::Exchange,
            other => return Err(format!("it is of the unknown kind {other:?}")),
        };
        let app = self.needed(2, "the app")?;
        if !expected.apps.iter().any(|one| one.as_str() == app) {
            return Err(format!("it is of another app: {app:?}"));
        }
        let environment = self.needed(7, "the environment")?;
        if environment != expected.environment.in_receipts() {
            return Err(format!("it is of another environment: {environment:?}"));
        }
        let certificate = self.bytes(3).ok_or("the certificate, field 3, is missing")?;
        let (key, _) = leaf::key(certificate)?;
        if key != *expected.public_key {
            return Err("it is of another key: field 3".to_owned());
        }
        if let (Kind::Attest, Some(hash)) = (kind, expected.client_data_hash)
            && self.bytes(4) != Some(hash)
        {
            return Err("it is of another attestation: field 4 is not the clientDataHash".to_owned());
        }
        let created = self.time(12)?.ok_or("when it was made, field 12, is missing")?;
        let expires = self.time(21)?.ok_or("when it ends, field 21, is missing")?;
        if created > now.saturating_add(SKEW) {
            return Err(format!("it was made in the future: at {created}, and it is {now}"));
        }
        if expires <= now {
            return Err(format!("it ended at {expires}, and it is {now}"));
        }
        let risk = self.text(17)?.map(|text| {
            let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| is_number).ok_or("the risk metric, field 17, is no number")
        });
        Ok(Receipt { kind, created, not_before: self.time(19)?, expires, risk: risk.transpose()? })
    }
}
