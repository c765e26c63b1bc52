//! Whom a client's certificate names. The handshake has verified it, or one before did whose session is resumed; here it
//! is only read, and its end looked at once more, because a ticket may outlive a certificate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::checks::facts::{Identity, SubjectName};

/// The identity at `now`, seconds since 1970; `None` if the certificate is not valid then or cannot be read.
pub(super) fn read(leaf: &CertificateDer<'_>, now: u64) -> Option<Identity> {
    let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, leaf));
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    if leaf.validity().not_after.timestamp() < i64::try_from(now).ok()? {
        return None;
    }
    let alternative = leaf.subject_alternative_name().ok()?;
    let names = alternative.map(|names| names.value.general_names.iter().filter_map(name).collect());
    Some(Identity {
        thumbprint: thumbprint.into(),
        subject: leaf.subject().to_string().into(),
        names: names.unwrap_or_default(),
    })
}

#[allow(clippy::wildcard_enum_match_arm, reason = "names of other kinds mean nothing to checks")]
fn name(name: &GeneralName<'_>) -> Option<SubjectName> {
    match name {
        GeneralName::DNSName(name) => Some(SubjectName::Dns(name.to_ascii_lowercase().into())),
        GeneralName::RFC822Name(name) => Some(SubjectName::Email((*name).into())),
        GeneralName::URI(name) => Some(SubjectName::Uri((*name).into())),
        GeneralName::IPAddress(bytes) => address(bytes).map(SubjectName::Address),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|bytes| Ipv4Addr::from(bytes).into());
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).into())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    #[test]
    fn an_identity_has_every_name_of_a_certificate_until_its_end() {
        let mut params =
            CertificateParams::new(["Phone.Example.com".to_owned(), "192.0.2.7".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI("spiffe://test/phone".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("phone@example.com".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Test");
        params.distinguished_name.push(DnType::CommonName, "phone");
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
        // 2040-01-01.
        let end = 2_208_988_800;
        let identity = read(&leaf, end - 1).unwrap();
        assert_eq!(&*identity.subject, "O=Test, CN=phone");
        let expected = [
            SubjectName::Dns("phone.example.com".into()),
            SubjectName::Address("192.0.2.7".parse().unwrap()),
            SubjectName::Uri("spiffe://test/phone".into()),
            SubjectName::Email("phone@example.com".into()),
        ];
        assert_eq!(*identity.names, expected);
        assert_eq!(identity.thumbprint.len(), 43);
        assert_eq!(read(&leaf, end + 1), None, "a ticket may outlive a certificate");
        assert_eq!(read(&CertificateDer::from(vec![0x30, 0]), 0), None);
    }
}
