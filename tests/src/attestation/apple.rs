//! Apple, and phones that run an app: attestation objects, assertions and receipts under roots of a test's own, right ones and any
//! wrong ones.
//!
//! A test that plays the app takes an [`Apple`], gives [`Apple::root_pem`] and [`Apple::receipt_root_pem`] to what it tests, and has a
//! [`Phone`] [`attest`](Phone::attest) and [`assert`](Phone::assert). A test of what attackers send changes a [`Draft`].

pub mod server;

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, digest};
use enforcer::attestation::app_attest::{Environment, Point, chain::Roots};

use super::{
    cbor,
    der::{self, Authority, Hash, Key},
};

/// Arcs of the nonce's extension.
pub const NONCE: &[u32] = &[1, 2, 840, 113_635, 100, 8, 2];
/// Arcs of the system's extension.
pub const SYSTEM: &[u32] = &[1, 2, 840, 113_635, 100, 8, 7];
/// Arcs of what says who may use a key.
pub const ACCESS: &[u32] = &[1, 2, 840, 113_635, 100, 8, 6];
/// Arcs of what marks signers of receipts.
pub const MARK: &[u32] = &[1, 2, 840, 113_635, 100, 12, 15];

/// SHA-256.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// An Apple that only the test trusts.
pub struct Apple {
    /// Above attestations.
    pub root: Authority,
    /// Signs attestations.
    pub attesting: Authority,
    /// Above receipts.
    pub receipt_root: Authority,
    /// Signs signers of receipts.
    pub integration: Authority,
    /// Signs receipts.
    pub signing: Authority,
    /// When it lives, in seconds since 1970.
    pub now: u64,
}

impl Apple {
    /// With names as Apple's own, and other keys.
    pub fn new(now: u64) -> Result<Self> {
        let root = Authority::root("Apple App Attestation Root CA", now)?;
        let attesting = Authority::under(Some(&root), "Apple App Attestation CA 1", Key::p384()?, now)?;
        let receipt_root = Authority::root("Apple Root CA - G3", now)?;
        let integration = Authority::under(
            Some(&receipt_root),
            "Apple Application Integration CA 5 - G1",
            Key::p256()?,
            now,
        )?;
        let mark = der::extension(MARK, false, &[5, 0]);
        let signing = signer(&integration, "Application Attestation Fraud Receipt Signing", &[mark], now)?;
        Ok(Self { root, attesting, receipt_root, integration, signing, now })
    }

    /// The root of attestations.
    pub fn root_pem(&self) -> String {
        der::pem("CERTIFICATE", &self.root.certificate)
    }

    /// The root of receipts.
    pub fn receipt_root_pem(&self) -> String {
        der::pem("CERTIFICATE", &self.receipt_root.certificate)
    }

    /// Both, as a verification takes them: of attestations, of receipts.
    pub fn roots(&self) -> Result<(Roots, Roots)> {
        let read = |text: String| Roots::from_pem(text.as_bytes()).map_err(anyhow::Error::msg);
        Ok((read(self.root_pem())?, read(self.receipt_root_pem())?))
    }
}

/// A signer under an authority, which is none itself.
pub fn signer(above: &Authority, name: &str, extensions: &[Vec<u8>], now: u64) -> Result<Authority> {
    let key = Key::p256()?;
    let draft = der::Draft {
        subject: name.to_owned(),
        info: key.info(),
        validity: (now - 86_400, now + 86_400 * 30),
        extensions: [&[der::constraints(false, None)], extensions].concat(),
        serial: 0x5933_56ad,
    };
    Ok(Authority { name: name.to_owned(), certificate: above.sign(&draft, Hash::Sha256)?, key })
}

/// A phone with an app, and one key in its Secure Enclave.
pub struct Phone {
    /// The key.
    pub key: Key,
    /// The app, as `TEAM.bundle`.
    pub app_id: String,
    /// Where its builds come from.
    pub environment: Environment,
    /// How many assertions it has made.
    pub counter: u32,
    /// What a system since iOS 27 says of the app, as CBOR; empty for older ones.
    pub extensions: Vec<u8>,
}

impl Phone {
    /// A phone that has just made a key.
    pub fn new(app_id: &str, environment: Environment) -> Result<Self> {
        let (key, app_id) = (Key::p256()?, app_id.to_owned());
        Ok(Self { key, app_id, environment, counter: 0, extensions: Vec::new() })
    }

    /// The same with a system that says category and bundle version.
    pub fn saying(mut self, category: u32, version: &str) -> Self {
        self.extensions = extensions(category, version);
        self
    }

    /// The point of the key.
    pub fn point(&self) -> Point {
        let mut point = [0; 65];
        point.copy_from_slice(self.key.point());
        point
    }

    /// What `generateKey` returns, before base64.
    pub fn key_id(&self) -> [u8; 32] {
        sha256(self.key.point())
    }

    /// What `attestKey` returns for this clientDataHash.
    pub fn attest(&self, apple: &Apple, client_data_hash: &[u8]) -> Result<Vec<u8>> {
        self.draft(apple, client_data_hash).object(apple)
    }

    /// The same before it is signed.
    pub fn draft(&self, apple: &Apple, client_data_hash: &[u8]) -> Draft {
        Draft {
            format: "apple-appattest",
            rp_id_hash: sha256(self.app_id.as_bytes()),
            flags: 0x40,
            counter: 0,
            aaguid: aaguid(self.environment),
            id_length: 32,
            id: self.key_id().to_vec(),
            credential: self.key.point().to_vec(),
            extensions: self.extensions.clone(),
            client_data_hash: client_data_hash.to_vec(),
            info: self.key.info(),
            validity: (apple.now - 86_400, apple.now + 86_400 * 2),
            more: vec![der::constraints(false, None), der::extension(SYSTEM, false, &system("iphoneos"))],
            nonce: Nonce::InPlace,
            receipt: ReceiptDraft::new(self, apple, client_data_hash),
        }
    }

    /// What `generateAssertion` returns for this clientDataHash.
    pub fn assert(&mut self, client_data_hash: &[u8]) -> Result<Vec<u8>> {
        self.counter += 1;
        self.assertion(self.counter, 0x40, client_data_hash)
    }

    /// The same with any counter and flags.
    pub fn assertion(&self, counter: u32, flags: u8, client_data_hash: &[u8]) -> Result<Vec<u8>> {
        let data = front(&sha256(self.app_id.as_bytes()), flags, counter);
        let data = [data, self.extensions.clone()].concat();
        let signature = self.key.sign(Hash::Sha256, &sha256(&[&data, client_data_hash].concat()))?;
        Ok(assertion(&signature, &data))
    }
}

/// An assertion of these parts.
pub fn assertion(signature: &[u8], data: &[u8]) -> Vec<u8> {
    cbor::map(&[
        (cbor::text("signature"), cbor::bytes(signature)),
        (cbor::text("authenticatorData"), cbor::bytes(data)),
    ])
}

/// What systems since iOS 27 append.
pub fn extensions(category: u32, version: &str) -> Vec<u8> {
    cbor::map(&[
        (cbor::text("apple_validation_category_01"), cbor::bytes(&category.to_le_bytes())),
        (cbor::text("apple_bundle_version_01"), cbor::text(version)),
    ])
}

/// Of an environment's keys.
pub fn aaguid(environment: Environment) -> [u8; 16] {
    match environment {
        Environment::Production => *b"appattest\0\0\0\0\0\0\0",
        Environment::Development => *b"appattestdevelop",
    }
}

fn front(rp_id_hash: &[u8; 32], flags: u8, counter: u32) -> Vec<u8> {
    [&rp_id_hash[..], &[flags], &counter.to_be_bytes()].concat()
}

/// What a certificate says of a device's system, by its name.
pub fn system(name: &str) -> Vec<u8> {
    let tagged = |tag: [u8; 3], text: &str| {
        let value = der::element(4, &[text.as_bytes()]);
        [&tag[..], &[value.len() as u8], &value].concat()
    };
    let parts = [
        tagged([0xbf, 0x8a, 0x78], "18.0"),
        tagged([0xbf, 0x8a, 0x7b], "22A244b"),
        tagged([0xbf, 0x88, 0x02], name),
    ];
    der::element(0x30, &[&parts.concat()])
}

/// Where the nonce stands in the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// Where it belongs.
    InPlace,
    /// In an extension with these arcs in place of its own.
    Elsewhere(&'static [u32]),
    /// In its extension, in this form.
    As(Vec<u8>),
    /// In its extension, twice.
    Twice,
    /// Nowhere.
    Missing,
}

/// An attestation before it is signed: every part can be changed, and what is signed fits what is there.
#[derive(Clone, Debug)]
pub struct Draft {
    /// `fmt`.
    pub format: &'static str,
    /// SHA-256 of the app id.
    pub rp_id_hash: [u8; 32],
    /// Flags of authData.
    pub flags: u8,
    /// Counter of authData.
    pub counter: u32,
    /// Which environment.
    pub aaguid: [u8; 16],
    /// How long the credential id claims to be.
    pub id_length: u16,
    /// The credential id.
    pub id: Vec<u8>,
    /// The point in the COSE key.
    pub credential: Vec<u8>,
    /// What follows.
    pub extensions: Vec<u8>,
    /// What the nonce is made with.
    pub client_data_hash: Vec<u8>,
    /// The certificate's key.
    pub info: Vec<u8>,
    /// The certificate's begin and end.
    pub validity: (u64, u64),
    /// The certificate's other extensions.
    pub more: Vec<Vec<u8>>,
    /// Where the nonce stands.
    pub nonce: Nonce,
    /// The receipt.
    pub receipt: ReceiptDraft,
}

impl Draft {
    /// authData.
    pub fn auth_data(&self) -> Vec<u8> {
        let (x, y) = self.credential[1..].split_at((self.credential.len() - 1) / 2);
        let key = cbor::map(&[
            (cbor::integer(1), cbor::integer(2)),
            (cbor::integer(3), cbor::integer(-7)),
            (cbor::integer(-1), cbor::integer(1)),
            (cbor::integer(-2), cbor::bytes(x)),
            (cbor::integer(-3), cbor::bytes(y)),
        ]);
        let front = front(&self.rp_id_hash, self.flags, self.counter);
        [&front[..], &self.aaguid, &self.id_length.to_be_bytes(), &self.id, &key, &self.extensions].concat()
    }

    /// The certificate, before it is signed.
    pub fn certificate(&self) -> der::Draft {
        self.certificate_for(&self.auth_data())
    }

    /// The same for any authData.
    pub fn certificate_for(&self, auth_data: &[u8]) -> der::Draft {
        let nonce = sha256(&[auth_data, &self.client_data_hash].concat());
        let value = der::element(0x30, &[&der::element(0xa1, &[&der::element(4, &[&nonce])])]);
        let nonce = match &self.nonce {
            Nonce::InPlace => vec![der::extension(NONCE, false, &value)],
            Nonce::Elsewhere(arcs) => vec![der::extension(arcs, false, &value)],
            Nonce::As(form) => vec![der::extension(NONCE, false, form)],
            Nonce::Twice => vec![der::extension(NONCE, false, &value); 2],
            Nonce::Missing => Vec::new(),
        };
        der::Draft {
            subject: "a key".to_owned(),
            info: self.info.clone(),
            validity: self.validity,
            extensions: [&self.more[..], &nonce].concat(),
            serial: 7,
        }
    }

    /// The object, as Apple signs it.
    pub fn object(&self, apple: &Apple) -> Result<Vec<u8>> {
        let leaf = apple.attesting.sign(&self.certificate(), Hash::Sha256)?;
        self.with(&[&leaf, &apple.attesting.certificate], apple)
    }

    /// The object with any certificates.
    pub fn with(&self, chain: &[&[u8]], apple: &Apple) -> Result<Vec<u8>> {
        Ok(object(self.format, chain, &self.receipt.sign(apple)?, &self.auth_data()))
    }
}

/// An attestation object of these parts.
pub fn object(format: &str, chain: &[&[u8]], receipt: &[u8], auth_data: &[u8]) -> Vec<u8> {
    let chain: Vec<Vec<u8>> = chain.iter().map(|one| cbor::bytes(one)).collect();
    let statement =
        cbor::map(&[(cbor::text("x5c"), cbor::array(&chain)), (cbor::text("receipt"), cbor::bytes(receipt))]);
    cbor::map(&[
        (cbor::text("fmt"), cbor::text(format)),
        (cbor::text("attStmt"), statement),
        (cbor::text("authData"), cbor::bytes(auth_data)),
    ])
}

/// A receipt before it is signed.
#[derive(Clone, Debug)]
pub struct ReceiptDraft {
    /// Fields: number and value.
    pub fields: Vec<(u32, Vec<u8>)>,
    /// Bytes of one part of the content.
    pub part: usize,
}

impl ReceiptDraft {
    /// The one beside an attestation.
    pub fn new(phone: &Phone, apple: &Apple, client_data_hash: &[u8]) -> Self {
        // Only the key in the certificate counts, so it need not be the very one.
        let draft = der::Draft {
            subject: "a key".to_owned(),
            info: phone.key.info(),
            validity: (apple.now, apple.now + 1),
            extensions: vec![der::constraints(false, None)],
            serial: 7,
        };
        let certificate = apple.attesting.sign(&draft, Hash::Sha256).unwrap_or_default();
        let environment = match phone.environment {
            Environment::Production => "production",
            Environment::Development => "sandbox",
        };
        let text = |text: &str| text.as_bytes().to_vec();
        let fields = vec![
            (2, text(&phone.app_id)),
            (3, certificate),
            (4, client_data_hash.to_vec()),
            (5, text("token")),
            (6, text("ATTEST")),
            (7, text(environment)),
            (12, text(&der::date(apple.now))),
            (21, text(&der::date(apple.now + 86_400 * 90))),
        ];
        Self { fields, part: 1_000 }
    }

    /// One that was given in exchange, with a risk metric.
    pub fn exchanged(mut self, risk: &str, apple: &Apple) -> Self {
        self.set(6, b"RECEIPT");
        self.set(17, risk.as_bytes());
        self.set(19, der::date(apple.now + 86_400).as_bytes());
        self
    }

    /// Another value of a field.
    pub fn set(&mut self, number: u32, value: &[u8]) {
        self.fields.retain(|(known, _)| *known != number);
        self.fields.push((number, value.to_vec()));
    }

    /// What is signed.
    pub fn content(&self) -> Vec<u8> {
        let field = |(number, value): &(u32, Vec<u8>)| {
            der::element(0x30, &[&der::number(*number), &der::number(1), &der::element(4, &[value])])
        };
        let fields: Vec<u8> = self.fields.iter().flat_map(field).collect();
        der::element(0x31, &[&fields])
    }

    /// As Apple signs it.
    pub fn sign(&self, apple: &Apple) -> Result<Vec<u8>> {
        self.sign_by(&apple.signing, &[&apple.integration, &apple.receipt_root])
    }

    /// Signed by anybody, with these certificates besides its own.
    pub fn sign_by(&self, signer: &Authority, others: &[&Authority]) -> Result<Vec<u8>> {
        let signature = signer.key.sign(Hash::Sha256, &self.content())?;
        let issuer = others.first().map_or(signer.name.as_str(), |issuer| issuer.name.as_str());
        let certificates: Vec<u8> =
            [&[signer], others].concat().iter().flat_map(|one| one.certificate.clone()).collect();
        Ok(self.assemble(&certificates, issuer, &signature))
    }

    /// CMS in the form that Apple gives it, of these parts.
    pub fn assemble(&self, certificates: &[u8], issuer: &str, signature: &[u8]) -> Vec<u8> {
        let content = self.content();
        let parts: Vec<u8> = content.chunks(self.part).flat_map(|part| der::element(4, &[part])).collect();
        let sha256 = der::element(0x30, &[&der::oid(&[2, 16, 840, 1, 101, 3, 4, 2, 1]), &[5, 0]]);
        let ecdsa = der::element(0x30, &[&der::oid(&[1, 2, 840, 10_045, 4, 3, 2])]);
        let cms = |last: u32| der::oid(&[1, 2, 840, 113_549, 1, 7, last]);
        let content = der::endless(0x30, &[&cms(1), &der::endless(0xa0, &[&der::endless(0x24, &[&parts])])]);
        let sid = der::element(0x30, &[&der::name(issuer), &der::number(0x5933_56ad)]);
        let signer =
            der::element(0x30, &[&der::number(1), &sid, &sha256, &ecdsa, &der::element(4, &[signature])]);
        let signed = der::endless(
            0x30,
            &[
                &der::number(1),
                &der::element(0x31, &[&sha256]),
                &content,
                &der::endless(0xa0, &[certificates]),
                &der::element(0x31, &[&signer]),
            ],
        );
        der::endless(0x30, &[&cms(2), &der::endless(0xa0, &[&signed])])
    }
}
