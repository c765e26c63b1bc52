//! An OCSP response (RFC 6960) from a file, to be stapled to a certificate (RFC 6066 section 8).
//!
//! Reads as much as decides whether it may be shown: that it succeeded, speaks of this certificate, calls it good, and
//! until when. Its signature is for clients to verify; they refuse a forged one.

use std::path::Path;

use anyhow::{Context, Result, bail};
use x509_parser::{prelude::FromDer, time::ASN1Time};

use super::read;

/// Tags of DER (X.690 section 8) that occur on the way.
const ENUMERATED: u8 = 0x0a;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OID: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const GENERALIZED_TIME: u8 = 0x18;
const EXPLICIT_0: u8 = 0xa0;
/// `good [0] IMPLICIT NULL` and `revoked [1] IMPLICIT RevokedInfo` of `CertStatus`.
const GOOD: u8 = 0x80;
const REVOKED: u8 = 0xa1;
/// `id-pkix-ocsp-basic`, 1.3.6.1.5.5.7.48.1.1.
const BASIC: [u8; 9] = [0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01];

/// A response that may be shown with a certificate.
#[derive(Debug)]
pub(super) struct Staple {
    pub(super) der: Vec<u8>,
    /// `nextUpdate` in seconds since 1970; without it, newer information is always to be had.
    pub(super) until: Option<i64>,
}

/// A response that succeeded.
#[derive(Debug)]
pub(super) struct Response {
    der: Vec<u8>,
    singles: Vec<Single>,
}

/// What it says of one certificate.
#[derive(Debug)]
struct Single {
    serial: Vec<u8>,
    status: u8,
    until: Option<i64>,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Response> {
    let der = read::bytes(path, "an OCSP response")?;
    let singles = parse(&der).with_context(|| path.display().to_string())?;
    Ok(Response { der, singles })
}

impl Response {
    /// What is to be stapled to the certificate with this serial number.
    pub(super) fn about(self, serial: &[u8]) -> Result<Staple> {
        let Some(single) = self.singles.iter().find(|single| single.serial == serial) else {
            bail!("the OCSP response is about another certificate");
        };
        match single.status {
            GOOD => Ok(Staple { until: single.until, der: self.der }),
            REVOKED => bail!("the OCSP response says that the certificate is revoked"),
            _ => bail!("the OCSP responder does not know the certificate"),
        }
    }
}

fn parse(der: &[u8]) -> Result<Vec<Single>> {
    let mut response = Reader(der).expect(SEQUENCE).context("no OCSP response in DER form")?;
    let status = response.expect(ENUMERATED).context("an OCSP response without a status")?;
    if status.0 != [0] {
        // RFC 6960 section 4.2.1: malformedRequest (1), internalError (2), tryLater (3), sigRequired (5), unauthorized (6).
        bail!("the OCSP responder refused with status {}", status.0.first().copied().unwrap_or_default());
    }
    singles(response).context("the OCSP response cannot be read")
}

/// From `responseBytes` down to the list of `SingleResponse` (RFC 6960 section 4.2.1).
fn singles(mut response: Reader<'_>) -> Option<Vec<Single>> {
    let mut bytes = response.expect(EXPLICIT_0)?.expect(SEQUENCE)?;
    if bytes.expect(OID)?.0 != BASIC {
        return None;
    }
    let mut data = bytes.expect(OCTETS)?.expect(SEQUENCE)?.expect(SEQUENCE)?;
    let _version = data.optional(EXPLICIT_0);
    let _responder = data.next()?;
    data.expect(GENERALIZED_TIME)?;
    let mut list = data.expect(SEQUENCE)?;
    let mut found = Vec::new();
    while !list.0.is_empty() {
        let mut single = list.expect(SEQUENCE)?;
        let mut id = single.expect(SEQUENCE)?;
        id.expect(SEQUENCE)?;
        id.expect(OCTETS)?;
        id.expect(OCTETS)?;
        let serial = id.expect(INTEGER)?.0.to_vec();
        let (status, _) = single.next()?;
        single.expect(GENERALIZED_TIME)?;
        let until = match single.optional(EXPLICIT_0) {
            Some(time) => Some(ASN1Time::from_der(time.0).ok()?.1.timestamp()),
            None => None,
        };
        found.push(Single { serial, status, until });
    }
    Some(found)
}

/// What is left of a DER value's content.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next value's tag and content.
    fn next(&mut self) -> Option<(u8, Self)> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            let size = usize::from(first & 0x7f);
            if size == 0 || size > 3 {
                return None;
            }
            let (length, after) = rest.split_at_checked(size)?;
            rest = after;
            length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte))
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, Self(content)))
    }

    fn expect(&mut self, tag: u8) -> Option<Self> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    fn optional(&mut self, tag: u8) -> Option<Self> {
        if self.0.first() == Some(&tag) { self.expect(tag) } else { None }
    }
}
