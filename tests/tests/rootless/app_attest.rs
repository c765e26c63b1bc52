//! Apple App Attest: genuine objects are accepted, and what attackers change is refused, each by its own code.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use anyhow::Result;
use enforcer::{
    attestation::{
        Refused,
        app_attest::{
            AppId, Distribution, Environment, Point, System, assertion,
            attestation::{self, Attested},
            chain::Roots,
            receipt,
        },
    },
    denial::Denial,
};
use enforcer_tests::attestation::{
    apple::{self, Apple, Draft, Nonce, Phone, sha256},
    cbor,
    der::{self, Authority, Hash, Key},
};

/// When the objects of the tests are judged.
const NOW: u64 = 1_800_000_000;
const APP: &str = "A1B2C3D4E5.com.example.app";
const CHALLENGE: &[u8] = b"a challenge";

/// An Apple, a phone, and what is expected of it.
struct Desk {
    apple: Apple,
    phone: Phone,
    roots: (Roots, Roots),
    apps: Vec<AppId>,
    distribution: Distribution,
}

impl Desk {
    fn new() -> Result<Self> {
        let apple = Apple::new(NOW)?;
        Ok(Self {
            roots: apple.roots()?,
            phone: Phone::new(APP, Environment::Production)?,
            apps: vec![APP.parse().unwrap()],
            distribution: Distribution::default(),
            apple,
        })
    }

    fn hash() -> [u8; 32] {
        sha256(CHALLENGE)
    }

    fn draft(&self) -> Draft {
        self.phone.draft(&self.apple, &Self::hash())
    }

    fn judge(&self, object: &[u8]) -> Result<Attested, Refused> {
        self.judge_at(object, NOW, &mut |_, _| ())
    }

    fn judge_at(
        &self,
        object: &[u8],
        now: u64,
        steps: &mut dyn FnMut(&'static str, String),
    ) -> Result<Attested, Refused> {
        let expected = attestation::Expected {
            apps: &self.apps,
            environment: Environment::Production,
            client_data_hash: &Self::hash(),
            key_id: Some(&self.phone.key_id()),
            distribution: &self.distribution,
            roots: &self.roots.0,
            receipts: Some(&self.roots.1),
        };
        attestation::verify(object, &expected, now, steps)
    }

    /// The object of a draft that was changed.
    fn changed(&self, change: impl FnOnce(&mut Draft)) -> Result<Vec<u8>> {
        let mut draft = self.draft();
        change(&mut draft);
        draft.object(&self.apple)
    }

    /// An object of other certificates for the same authData.
    fn chained(&self, leaf: &[u8], others: &[&Authority]) -> Result<Vec<u8>> {
        let others = others.iter().map(|one| &one.certificate[..]);
        let chain: Vec<&[u8]> = [leaf].into_iter().chain(others).collect();
        self.draft().with(&chain, &self.apple)
    }

    fn leaf(&self) -> Result<Vec<u8>> {
        self.apple.attesting.sign(&self.draft().certificate(), Hash::Sha256)
    }
}

pub(super) fn code<T>(outcome: &Result<T, Refused>) -> Option<Denial> {
    outcome.as_ref().err().map(|refused| refused.denial)
}

#[test]
fn a_genuine_phone_enrols_step_by_step() -> Result<()> {
    let desk = Desk::new()?;
    let mut names = Vec::new();
    let object = desk.phone.attest(&desk.apple, &Desk::hash())?;
    let attested = desk.judge_at(&object, NOW, &mut |name, _| names.push(name))?;
    let steps = [
        "form",
        "chain",
        "nonce",
        "key",
        "app",
        "counter",
        "environment",
        "distribution",
        "system",
        "receipt",
    ];
    assert_eq!(names, steps);
    assert_eq!((attested.key_id, attested.public_key), (desk.phone.key_id(), desk.phone.point()));
    assert_eq!((attested.app.as_str(), attested.not_after), (APP, NOW + 86_400 * 2));
    let word = |word: &str| Some(word.to_owned());
    let system = System { platform: word("iphoneos"), version: word("18.0"), build: word("22A244b") };
    assert_eq!(attested.system, system);
    assert_eq!(attested.received.unwrap().kind, receipt::Kind::Attest);
    Ok(())
}

/// Name, object, and what is expected: nothing where it is accepted.
type Case = (&'static str, Vec<u8>, Option<Denial>);

/// Objects whose bytes are wrong.
fn form_cases(desk: &Desk) -> Result<Vec<Case>> {
    let good = desk.draft().object(&desk.apple)?;
    let leaf = desk.leaf()?;
    let (attesting, root) = (&desk.apple.attesting, &desk.apple.root);
    let receipt = desk.draft().receipt.sign(&desk.apple)?;
    let data = desk.draft().auth_data();
    let statement = |chain: Vec<u8>| {
        cbor::map(&[(cbor::text("x5c"), chain), (cbor::text("receipt"), cbor::bytes(&receipt))])
    };
    let pair = cbor::array(&[cbor::bytes(&leaf), cbor::bytes(&attesting.certificate)]);
    let object = |format: Vec<u8>, statement: Vec<u8>, data: Vec<u8>| {
        cbor::map(&[
            (cbor::text("fmt"), format),
            (cbor::text("attStmt"), statement),
            (cbor::text("authData"), data),
        ])
    };
    let named = |format: &str| object(cbor::text(format), statement(pair.clone()), cbor::bytes(&data));
    let with_data = |data: Vec<u8>| object(cbor::text("apple-appattest"), statement(pair.clone()), data);
    let with_chain =
        |chain: Vec<u8>| object(cbor::text("apple-appattest"), statement(chain), cbor::bytes(&data));
    let mut twice = named("apple-appattest");
    twice[0] = 0xa4;
    twice.extend([cbor::text("fmt"), cbor::text("apple-appattest")].concat());
    let mut more = named("apple-appattest");
    more[0] = 0xa4;
    more.extend([cbor::text("epoch"), cbor::integer(1)].concat());
    let endless = [&[0xbf][..], &named("apple-appattest")[1..], &[0xff]].concat();
    let endless_chain = with_chain(
        [&[0x9f][..], &cbor::bytes(&leaf), &cbor::bytes(&attesting.certificate), &[0xff]].concat(),
    );
    let endless_data = with_data([&[0x5f][..], &cbor::bytes(&data), &[0xff]].concat());
    let giant = with_data(vec![0x5a, 0x80, 0, 0, 0]);
    let deep = with_data(vec![0x81; 5_000]);
    let malformed = |name, object| (name, object, Some(Denial::AttestationMalformed));
    Ok(vec![
        ("as it should be", named("apple-appattest"), None),
        malformed("nothing", Vec::new()),
        malformed("half of it", good[..good.len() / 2].to_vec()),
        malformed("trailing CBOR", [&good[..], &[0]].concat()),
        malformed("a duplicate key", twice),
        malformed("one key more", more),
        malformed("an indefinite map", endless),
        malformed("indefinite x5c", endless_chain),
        malformed("indefinite authData", endless_data),
        malformed("a length of 2 GB", giant),
        malformed("a depth bomb", deep),
        malformed("more than 16 KiB", [good, vec![0; 16 << 10]].concat()),
        malformed("fmt apple", named("apple")),
        malformed("fmt packed", named("packed")),
        malformed(
            "fmt as bytes",
            object(cbor::bytes(b"apple-appattest"), statement(pair.clone()), cbor::bytes(&data)),
        ),
        malformed("x5c with one", desk.chained(&leaf, &[])?),
        malformed("x5c with three", desk.chained(&leaf, &[attesting, root])?),
        malformed("no certificate", desk.chained(b"leaf", &[attesting])?),
        malformed("bytes behind the leaf", desk.chained(&[&leaf[..], &[0]].concat(), &[attesting])?),
        malformed("authData of 36 bytes", with_data(cbor::bytes(&data[..36]))),
        malformed("authData of 60 bytes", with_data(cbor::bytes(&data[..60]))),
        malformed("credIdLen 65535", desk.changed(|draft| draft.id_length = 65_535)?),
        malformed(
            "credIdLen 31",
            desk.changed(|draft| {
                draft.id_length = 31;
                draft.id.truncate(31);
            })?,
        ),
        malformed("no attested data by the flags", desk.changed(|draft| draft.flags = 0)?),
        malformed(
            "a credential's key with 31 bytes each",
            desk.changed(|draft| draft.credential.truncate(63))?,
        ),
        malformed("an extension map that is none", desk.changed(|draft| draft.extensions = vec![0])?),
        malformed("bytes behind the extensions", desk.changed(|draft| draft.extensions = vec![0xa0, 0])?),
        malformed(
            "a category twice",
            desk.changed(|draft| {
                let name = cbor::text("apple_validation_category_01");
                draft.extensions =
                    cbor::map(&[3, 4].map(|last| (name.clone(), cbor::bytes(&[last, 0, 0, 0]))));
            })?,
        ),
        malformed(
            "a category of five bytes",
            desk.changed(|draft| {
                let name = cbor::text("apple_validation_category_01");
                draft.extensions = cbor::map(&[(name, cbor::bytes(&[4, 0, 0, 0, 0]))]);
            })?,
        ),
        malformed(
            "nonce planted elsewhere",
            desk.changed(|draft| {
                draft.nonce = Nonce::Elsewhere(&[1, 2, 840, 113_635, 100, 8, 5]);
            })?,
        ),
        malformed(
            "nonce in the subject key identifier",
            desk.changed(|draft| {
                draft.nonce = Nonce::Elsewhere(&[2, 5, 29, 14]);
            })?,
        ),
        malformed("no nonce", desk.changed(|draft| draft.nonce = Nonce::Missing)?),
        malformed("nonce twice", desk.changed(|draft| draft.nonce = Nonce::Twice)?),
        malformed("nonce without its frame", desk.changed(|draft| draft.nonce = Nonce::As(vec![7; 32]))?),
        malformed(
            "nonce of 31 bytes",
            desk.changed(|draft| {
                let inner = der::element(4, &[&[7; 31]]);
                draft.nonce = Nonce::As(der::element(0x30, &[&der::element(0xa1, &[&inner])]));
            })?,
        ),
        malformed("a key on P-384", desk.changed(|draft| draft.info = Key::p384().unwrap().info())?),
        malformed(
            "a key off the curve",
            desk.changed(|draft| {
                let mut point = draft.credential.clone();
                point[64] ^= 1;
                draft.info = der::info(&der::oid(&[1, 2, 840, 10_045, 3, 1, 7]), &point);
            })?,
        ),
    ])
}

/// Certificates that no Apple made.
fn chain_cases(desk: &Desk) -> Result<Vec<Case>> {
    let (attesting, root) = (&desk.apple.attesting, &desk.apple.root);
    let draft = desk.draft().certificate();
    let other = Apple::new(NOW)?;
    let unlike = Authority::root("Apple WebAuthn Root CA", NOW)?;
    let webauthn = Authority::under(Some(&unlike), "Apple WebAuthn CA 1", Key::p384()?, NOW)?;
    let below = Authority::under(Some(attesting), "Apple App Attestation CA 2", Key::p384()?, NOW)?;
    let lookalike = Authority { certificate: attesting.certificate.clone(), ..other.attesting };
    let mut forged = desk.leaf()?;
    *forged.last_mut().unwrap() ^= 1;
    let as_authority = desk.changed(|draft| {
        draft.more = vec![der::constraints(true, None), der::extension(&[2, 5, 29, 15], true, &[3, 2, 1, 6])];
    })?;
    let usage = |arcs: &[u32]| {
        let value = der::element(0x30, &[&der::oid(arcs)]);
        desk.changed(|draft| draft.more.push(der::extension(&[2, 5, 29, 37], false, &value)))
    };
    let chain = |name, object| (name, object, Some(Denial::AttestationChain));
    Ok(vec![
        ("leaf over SHA-384", desk.chained(&attesting.sign(&draft, Hash::Sha384)?, &[attesting])?, None),
        ("the usage of App Attest", usage(&[1, 2, 840, 113_635, 100, 4, 24])?, None),
        chain("another usage", usage(&[1, 3, 6, 1, 5, 5, 7, 3, 2])?),
        chain("a root with the same name", Apple::new(NOW).and_then(|apple| desk.draft().object(&apple))?),
        chain("leaf of a lookalike", desk.chained(&lookalike.sign(&draft, Hash::Sha256)?, &[attesting])?),
        chain("leaf directly under the root", desk.chained(&root.sign(&draft, Hash::Sha256)?, &[attesting])?),
        chain("leaf below another authority", desk.chained(&below.sign(&draft, Hash::Sha256)?, &[&below])?),
        chain("leaf as authority", as_authority),
        chain("Apple WebAuthn root", desk.chained(&webauthn.sign(&draft, Hash::Sha256)?, &[&webauthn])?),
        chain("root in place of the authority", desk.chained(&desk.leaf()?, &[root])?),
        chain("a forged signature", desk.chained(&forged, &[attesting])?),
        chain(
            "a critical extension that nobody knows",
            desk.changed(|draft| {
                draft.more.push(der::extension(&[1, 2, 840, 113_635, 100, 8, 99], true, &[5, 0]));
            })?,
        ),
        (
            "expired leaf",
            desk.changed(|draft| draft.validity = (NOW - 86_400, NOW - 1))?,
            Some(Denial::AttestationExpired),
        ),
        (
            "leaf of tomorrow",
            desk.changed(|draft| draft.validity = (NOW + 1, NOW + 86_400))?,
            Some(Denial::AttestationExpired),
        ),
    ])
}

/// Signed by Apple, and not what is expected.
fn fact_cases(desk: &Desk) -> Result<Vec<Case>> {
    let other = Phone::new(APP, Environment::Production)?;
    let swapped = |change: &dyn Fn(&mut Draft)| desk.changed(|draft| change(draft));
    let key = |name, object| (name, object, Some(Denial::AttestationKey));
    Ok(vec![
        (
            "another challenge",
            desk.phone.attest(&desk.apple, &sha256(b"another one"))?,
            Some(Denial::AttestationNonce),
        ),
        ("the raw challenge", desk.phone.attest(&desk.apple, CHALLENGE)?, Some(Denial::AttestationNonce)),
        (
            "authData changed behind the nonce",
            {
                let leaf = desk.leaf()?;
                let mut draft = desk.draft();
                draft.counter = 1;
                draft.with(&[&leaf, &desk.apple.attesting.certificate], &desk.apple)?
            },
            Some(Denial::AttestationNonce),
        ),
        key("key id of another object", other.attest(&desk.apple, &Desk::hash())?),
        key("credential id of another key", swapped(&|draft| draft.id = other.key_id().to_vec())?),
        key("COSE key of another key", swapped(&|draft| draft.credential = other.point().to_vec())?),
        (
            "rpIdHash of another app",
            swapped(&|draft| draft.rp_id_hash = sha256(b"A1B2C3D4E5.com.example.other"))?,
            Some(Denial::AppNotRecognised),
        ),
        ("counter 1 at enrolment", swapped(&|draft| draft.counter = 1)?, Some(Denial::AttestationUsed)),
        (
            "development in production",
            swapped(&|draft| draft.aaguid = apple::aaguid(Environment::Development))?,
            Some(Denial::AttestationEnvironment),
        ),
        ("another aaguid", swapped(&|draft| draft.aaguid = [0; 16])?, Some(Denial::AttestationEnvironment)),
        ("extensions with ED clear", swapped(&|draft| draft.extensions = apple::extensions(4, "7"))?, None),
        (
            "extensions with ED set",
            swapped(&|draft| (draft.flags, draft.extensions) = (0xc0, apple::extensions(4, "7")))?,
            None,
        ),
        (
            "category 3 in production",
            swapped(&|draft| draft.extensions = apple::extensions(3, "7"))?,
            Some(Denial::AppDistribution),
        ),
    ])
}

#[test]
fn every_line_of_the_checklist_gets_its_code() -> Result<()> {
    let desk = Desk::new()?;
    let cases = [form_cases(&desk)?, chain_cases(&desk)?, fact_cases(&desk)?].concat();
    assert!(cases.len() >= 60, "{}", cases.len());
    for (name, object, expected) in cases {
        let outcome = desk.judge(&object);
        assert_eq!(code(&outcome), expected, "{name}: {outcome:?}");
    }
    Ok(())
}

#[test]
fn a_version_and_a_category_can_be_asked_for() -> Result<()> {
    let mut desk = Desk::new()?;
    desk.distribution = Distribution {
        categories: vec!["app-store".parse().unwrap()],
        minimum_version: Some("1.10".parse().unwrap()),
        required: true,
    };
    for (name, extensions, expected) in [
        ("new enough, of the store", apple::extensions(4, "1.10"), None),
        ("too old", apple::extensions(4, "1.9"), Some(Denial::AppOutdated)),
        ("of TestFlight", apple::extensions(2, "1.10"), Some(Denial::AppDistribution)),
        ("of a system that is silent", Vec::new(), Some(Denial::AppDistribution)),
    ] {
        let object = desk.changed(|draft| draft.extensions = extensions)?;
        assert_eq!(code(&desk.judge(&object)), expected, "{name}");
    }
    Ok(())
}

/// What becomes of an assertion, by the phone's key and with the counter 7 so far.
fn asserted(key: &Point, object: &[u8]) -> Result<u32, Refused> {
    let expected = assertion::Expected {
        app: &APP.parse().unwrap(),
        environment: Environment::Production,
        public_key: key,
        counter: 7,
        client_data_hash: &sha256(b"client data"),
        distribution: &Distribution::default(),
    };
    assertion::verify(object, &expected, &mut |_, _| ()).map(|asserted| asserted.counter)
}

#[test]
fn an_assertion_is_of_its_key_its_request_and_its_turn() -> Result<()> {
    let phone = Phone::new(APP, Environment::Production)?;
    let (other, key) = (Phone::new(APP, Environment::Production)?, phone.point());
    let foreign = Phone {
        app_id: "A1B2C3D4E5.com.example.other".to_owned(),
        ..Phone::new(APP, Environment::Production)?
    };
    let new = |category| Phone::new(APP, Environment::Production).map(|phone| phone.saying(category, "7"));
    let hash = sha256(b"client data");
    let good = phone.assertion(8, 0x40, &hash)?;
    let mut flipped = good.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut twice = good.clone();
    twice[0] = 0xa3;
    twice.extend([cbor::text("signature"), cbor::bytes(b"")].concat());
    let (store, development) = (new(4)?, new(3)?);
    let data = [&sha256(APP.as_bytes())[..], &[0x40], &8_u32.to_be_bytes()].concat();
    let once = phone.key.sign(Hash::Sha256, &[&data[..], &hash].concat())?;
    let bad = Some(Denial::AssertionBadSignature);
    let malformed = Some(Denial::AssertionMalformed);
    let replayed = Some(Denial::AssertionCounterReplayed);
    for (name, key, object, expected) in [
        ("the next one, with the flag AT and no data", key, good.clone(), None),
        ("without flags", key, phone.assertion(8, 0, &hash)?, None),
        ("after a gap", key, phone.assertion(1_000, 0x40, &hash)?, None),
        ("the last one", key, phone.assertion(u32::MAX, 0x40, &hash)?, None),
        ("with extensions and ED clear", store.point(), store.assertion(8, 0x40, &hash)?, None),
        (
            "of development",
            development.point(),
            development.assertion(8, 0x40, &hash)?,
            Some(Denial::AppDistribution),
        ),
        ("counter equal", key, phone.assertion(7, 0x40, &hash)?, replayed),
        ("counter lower", key, phone.assertion(6, 0x40, &hash)?, replayed),
        ("counter wrapped", key, phone.assertion(0, 0x40, &hash)?, replayed),
        ("of key A for key B", other.point(), good.clone(), bad),
        ("another client data", key, phone.assertion(8, 0x40, &sha256(b"another"))?, bad),
        ("the client data, not hashed", key, phone.assertion(8, 0x40, b"client data")?, bad),
        ("signed without the nonce", key, apple::assertion(&once, &data), bad),
        ("authenticatorData changed", key, flipped, bad),
        ("no signature", key, apple::assertion(&[], &data), bad),
        (
            "of another app",
            foreign.point(),
            foreign.assertion(8, 0x40, &hash)?,
            Some(Denial::AppNotRecognised),
        ),
        ("nothing", key, Vec::new(), malformed),
        ("trailing CBOR in it", key, [&good[..], &[0]].concat(), malformed),
        ("a member twice", key, twice, malformed),
        ("no data", key, apple::assertion(&once, &[]), malformed),
        ("data of 38 bytes", key, apple::assertion(&once, &[&data[..], &[0]].concat()), malformed),
        ("too long to be one", key, apple::assertion(&[0; 1_000], &data), malformed),
    ] {
        let outcome = asserted(&key, &object);
        assert_eq!(code(&outcome), expected, "{name}: {outcome:?}");
    }
    Ok(())
}

#[test]
fn another_signature_over_the_same_is_no_other_assertion() -> Result<()> {
    let mut phone = Phone::new(APP, Environment::Production)?;
    phone.counter = 7;
    let hash = sha256(b"client data");
    let (first, second) = (phone.assert(&hash)?, phone.assertion(8, 0x40, &hash)?);
    assert_ne!(first, second, "signatures have a random part");
    let key = phone.point();
    assert_eq!((asserted(&key, &first).ok(), asserted(&key, &second).ok()), (Some(8), Some(8)));
    Ok(())
}
