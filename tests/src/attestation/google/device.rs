//! An Android device: it makes keys, and its hardware describes them under a root of the test.

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, SerialNumber, date_time_ymd,
};

use super::{CERTIFICATE, PACKAGE, VERSION, random};

/// `KeyDescription`.
const DESCRIPTION: [u64; 10] = [1, 3, 6, 1, 4, 1, 11129, 2, 1, 17];
/// `ProvisioningInfo`.
const PROVISIONING: [u64; 10] = [1, 3, 6, 1, 4, 1, 11129, 2, 1, 30];

/// One element of DER: its tag's bytes, and its content.
pub fn der(tag: &[u8], content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ ..0x80 => vec![short as u8],
        medium @ 0x80..0x100 => vec![0x81, medium as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [tag, &length, content].concat()
}

/// A whole number with this tag (INTEGER is 2, ENUMERATED 10).
pub fn number(tag: u8, number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let zeros = bytes.iter().take(7).take_while(|byte| **byte == 0).count();
    let digits = &bytes[zeros..];
    let sign: &[u8] = if digits[0] & 0x80 == 0 { &[] } else { &[0] };
    der(&[tag], &[sign, digits].concat())
}

/// `[number] EXPLICIT`.
pub fn field(number: u16, content: &[u8]) -> Vec<u8> {
    let tag = match number {
        low @ ..31 => vec![0xa0 | low as u8],
        medium @ 31..128 => vec![0xbf, medium as u8],
        high => vec![0xbf, 0x80 | (high >> 7) as u8, high as u8 & 0x7f],
    };
    der(&tag, content)
}

/// What the hardware says of a key. Each part is there to be changed.
#[derive(Clone, Debug)]
pub struct Key {
    /// `KeyDescription.attestationVersion`.
    pub version: u64,
    /// 0 software, 1 trusted environment, 2 StrongBox.
    pub security: u64,
    /// What the app asked with.
    pub challenge: Vec<u8>,
    /// The app's packages.
    pub packages: Vec<(String, u64)>,
    /// Digests of its certificates.
    pub certificates: Vec<Vec<u8>>,
    /// What it is for.
    pub purposes: Vec<u64>,
    /// 0: made there; 2: brought from elsewhere.
    pub origin: Option<u64>,
    /// Locked (the byte of a BOOLEAN) and state of what was started.
    pub root_of_trust: Option<(u8, u64)>,
    /// The system's patch level.
    pub os_patch: Option<u64>,
    /// The vendor's.
    pub vendor_patch: Option<u64>,
    /// Fields of the hardware besides: number and content.
    pub more: Vec<(u16, Vec<u8>)>,
}

impl Key {
    /// A good one.
    pub fn new(challenge: &[u8]) -> Self {
        Self {
            version: 300,
            security: 1,
            challenge: challenge.to_vec(),
            packages: vec![(PACKAGE.to_owned(), VERSION)],
            certificates: vec![CERTIFICATE.to_vec()],
            purposes: vec![2],
            origin: Some(0),
            root_of_trust: Some((0xff, 0)),
            os_patch: Some(202_511),
            vendor_patch: Some(20_251_105),
            more: vec![(719, number(2, 20_251_105))],
        }
    }

    /// `KeyDescription`.
    pub fn describe(&self) -> Vec<u8> {
        let package = |(name, version): &(String, u64)| {
            der(&[0x30], &[der(&[4], name.as_bytes()), number(2, *version)].concat())
        };
        let packages = der(&[0x31], &self.packages.iter().flat_map(package).collect::<Vec<u8>>());
        let digests: Vec<u8> = self.certificates.iter().flat_map(|digest| der(&[4], digest)).collect();
        let app = der(&[0x30], &[packages, der(&[0x31], &digests)].concat());
        let software = [field(701, &number(2, 1_764_547_200_000)), field(709, &der(&[4], &app))].concat();
        let purposes: Vec<u8> = self.purposes.iter().flat_map(|purpose| number(2, *purpose)).collect();
        let mut hardware = vec![(1, der(&[0x31], &purposes)), (2, number(2, 3)), (705, number(2, 160_000))];
        if let Some(origin) = self.origin {
            hardware.push((702, number(2, origin)));
        }
        if let Some((locked, state)) = self.root_of_trust {
            let parts = [der(&[4], &[0; 32]), der(&[1], &[locked]), number(10, state), der(&[4], &[1; 32])];
            hardware.push((704, der(&[0x30], &parts.concat())));
        }
        hardware.extend(self.os_patch.map(|level| (706, number(2, level))));
        hardware.extend(self.vendor_patch.map(|level| (718, number(2, level))));
        hardware.extend(self.more.iter().cloned());
        hardware.sort_by_key(|(number, _)| *number);
        let hardware: Vec<u8> =
            hardware.iter().flat_map(|(number, content)| field(*number, content)).collect();
        let parts = [
            number(2, self.version),
            number(10, self.security),
            number(2, self.version),
            number(10, self.security),
            der(&[4], &self.challenge),
            der(&[4], b""),
            der(&[0x30], &software),
            der(&[0x30], &hardware),
        ];
        der(&[0x30], &parts.concat())
    }
}

/// How one certificate is made.
#[derive(Clone, Debug)]
pub struct Making {
    /// The subject's common name.
    pub name: &'static str,
    /// Years from and to which it is valid, at their beginning.
    pub years: (i32, i32),
    /// Whether it says that it may sign certificates; `None`: it says nothing.
    pub authority: Option<bool>,
    /// How many may be below.
    pub path: Option<u8>,
    /// Extensions with descriptions.
    pub descriptions: Vec<Vec<u8>>,
    /// Whether it came from Google's servers.
    pub remote: bool,
    /// P-384 in place of P-256.
    pub large: bool,
}

impl Making {
    /// An authority's, for 2020 to 2040.
    pub const fn authority(name: &'static str) -> Self {
        Self {
            name,
            years: (2020, 2040),
            authority: Some(true),
            path: None,
            descriptions: Vec::new(),
            remote: false,
            large: false,
        }
    }

    /// An app's key's.
    pub fn leaf(description: Vec<u8>) -> Self {
        let descriptions = vec![description];
        Self { years: (1970, 2048), authority: None, descriptions, ..Self::authority("Android Keystore Key") }
    }
}

/// Who can sign certificates.
pub struct Signer {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub der: Vec<u8>,
    /// The same in PEM.
    pub pem: String,
    /// Its serial number in hexadecimal digits.
    pub serial: String,
}

impl Signer {
    /// A root.
    pub fn root(making: &Making) -> Result<Self> {
        Self::make(making, None)
    }

    /// Its key as PKCS#8 in DER.
    pub fn pkcs8(&self) -> Vec<u8> {
        self.issuer.key().serialize_der()
    }

    /// Somebody below.
    pub fn sign(&self, making: &Making) -> Result<Self> {
        Self::make(making, Some(self))
    }

    fn make(making: &Making, by: Option<&Self>) -> Result<Self> {
        let algorithm = if making.large { &PKCS_ECDSA_P384_SHA384 } else { &PKCS_ECDSA_P256_SHA256 };
        let key = KeyPair::generate_for(algorithm)?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, making.name);
        params.not_before = date_time_ymd(making.years.0, 1, 1);
        params.not_after = date_time_ymd(making.years.1, 1, 1);
        let mut serial = random::<8>()?;
        serial[0] = serial[0] & 0x7f | 1;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.is_ca = match (making.authority, making.path) {
            (None, _) => IsCa::NoCa,
            (Some(false), _) => IsCa::ExplicitNoCa,
            (Some(true), None) => IsCa::Ca(BasicConstraints::Unconstrained),
            (Some(true), Some(most)) => IsCa::Ca(BasicConstraints::Constrained(most)),
        };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let extension =
            |oid: &[u64], content: &[u8]| CustomExtension::from_oid_content(oid, content.to_vec());
        params.custom_extensions =
            making.descriptions.iter().map(|description| extension(&DESCRIPTION, description)).collect();
        if making.remote {
            params.custom_extensions.push(extension(&PROVISIONING, &[0xa1, 1, 1]));
        }
        let certificate = match by {
            Some(by) => params.signed_by(&key, &by.issuer)?,
            None => params.self_signed(&key)?,
        };
        let (der, pem) = (certificate.der().to_vec(), certificate.pem());
        let serial = serial.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { issuer: Issuer::new(params, key), der, pem, serial })
    }
}

/// A device with its certificates.
pub struct Device {
    /// Whom its certificates lead to.
    pub root: Signer,
    /// Between root and device.
    pub middle: Signer,
    /// What its hardware signs with.
    pub own: Signer,
}

impl Device {
    /// One whose certificates are Google's, or its maker's.
    pub fn new(remote: bool) -> Result<Self> {
        let large = Making { large: true, ..Making::authority("Test Key Attestation Root") };
        let root = Signer::root(&large)?;
        let middle = root.sign(&Making { large: true, ..Making::authority("Test Droid CA2") })?;
        let own = middle.sign(&Making { remote, ..Making::authority("TEE") })?;
        Ok(Self { root, middle, own })
    }

    /// Makes a key; its chain, leaf first.
    pub fn attest(&self, key: &Key) -> Result<Vec<Vec<u8>>> {
        let leaf = self.own.sign(&Making::leaf(key.describe()))?;
        Ok(self.above(leaf.der))
    }

    /// A chain of this leaf and what is above.
    pub fn above(&self, leaf: Vec<u8>) -> Vec<Vec<u8>> {
        vec![leaf, self.own.der.clone(), self.middle.der.clone(), self.root.der.clone()]
    }
}
