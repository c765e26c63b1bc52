//! What Apple's devices send, as inputs: raw bytes, which nobody has signed, and authenticator data and receipts that are signed with
//! the right keys, so that what comes behind the signature is reached, too. What is accepted is held against a reading of its own.

use std::sync::LazyLock;

use anyhow::Result;
use enforcer::{
    attestation::{
        Refused,
        app_attest::{
            AppId, Distribution, Environment, assertion,
            attestation::{self, Attested},
            chain::Roots,
            receipt,
        },
        ber,
        cbor::{self as read, Value},
    },
    denial::Denial,
};

use crate::attestation::{
    apple::{self, Apple, Draft, Phone, ReceiptDraft, extensions, sha256},
    cbor,
    der::{self, Hash},
};

/// When objects are judged, in seconds since 1970.
const NOW: u64 = 1_800_000_000;
const APP: &str = "A1B2C3D4E5.com.example.app";
/// The counter that assertions have to exceed.
const COUNTER: u32 = 7;

struct Desk {
    apple: Apple,
    phone: Phone,
    roots: (Roots, Roots),
    app: AppId,
    hash: [u8; 32],
}

/// With keys of this process: none is kept.
static DESK: LazyLock<Option<Desk>> = LazyLock::new(|| desk().ok());

fn desk() -> Result<Desk> {
    let apple = Apple::new(NOW)?;
    Ok(Desk {
        roots: apple.roots()?,
        phone: Phone::new(APP, Environment::Production)?,
        app: APP.parse().map_err(anyhow::Error::msg)?,
        hash: sha256(b"a challenge"),
        apple,
    })
}

impl Desk {
    fn attest(&self, object: &[u8]) -> Result<Attested, Refused> {
        let expected = attestation::Expected {
            apps: std::slice::from_ref(&self.app),
            environment: Environment::Production,
            client_data_hash: &self.hash,
            key_id: None,
            distribution: &Distribution::default(),
            roots: &self.roots.0,
            receipts: None,
        };
        attestation::verify(object, &expected, NOW, &mut |_, _| ())
    }

    fn assert(&self, object: &[u8]) -> Result<u32, Refused> {
        let expected = assertion::Expected {
            app: &self.app,
            environment: Environment::Production,
            public_key: &self.phone.point(),
            counter: COUNTER,
            client_data_hash: &self.hash,
            distribution: &Distribution::default(),
        };
        assertion::verify(object, &expected, &mut |_, _| ()).map(|asserted| asserted.counter)
    }

    fn receive(&self, object: &[u8]) -> Result<receipt::Receipt, Refused> {
        let expected = receipt::Expected {
            apps: std::slice::from_ref(&self.app),
            environment: Environment::Production,
            public_key: &self.phone.point(),
            client_data_hash: Some(&self.hash),
            roots: &self.roots.1,
        };
        receipt::verify(object, &expected, NOW, &mut |_, _| ())
    }

    /// Draft of an attestation whose authData is replaced.
    fn draft(&self) -> Draft {
        self.phone.draft(&self.apple, &self.hash)
    }
}

type Outcome = Result<(), Denial>;

fn outcome<T>(outcome: Result<T, Refused>) -> Outcome {
    outcome.map(drop).map_err(|refused| refused.denial)
}

/// An attestation object or an assertion as it is, as CBOR, which is never accepted: nobody has signed it.
pub fn attestation(input: &[u8]) -> Option<Outcome> {
    let desk = DESK.as_ref()?;
    if let Ok(value) = read::read(input) {
        // What is read can be written in one way only.
        assert_eq!(written(&value), input, "{value:?}");
    }
    assert!(desk.assert(input).is_err());
    let outcome = outcome(desk.attest(input));
    assert!(outcome.is_err());
    Some(outcome)
}

fn written(value: &Value<'_>) -> Vec<u8> {
    match value {
        Value::Integer(number) => {
            let (kind, number) = if *number < 0 { (1, !number) } else { (0, *number) };
            let small = usize::try_from(number).ok().filter(|number| *number <= u32::MAX as usize);
            small.map_or_else(
                || [&[kind << 5 | 27][..], &number.to_be_bytes()].concat(),
                |number| cbor::head(kind, number),
            )
        }
        Value::Bytes(bytes) => cbor::bytes(bytes),
        Value::Text(text) => cbor::text(text),
        Value::Array(values) => cbor::array(&values.iter().map(written).collect::<Vec<_>>()),
        Value::Map(members) => {
            let both = |(key, value): &(Value<'_>, Value<'_>)| (written(key), written(value));
            cbor::map(&members.iter().map(both).collect::<Vec<_>>())
        }
    }
}

/// Authenticator data that the right keys have signed: of an attestation where the first byte is even, of an assertion where it is odd.
pub fn auth_data(input: &[u8]) -> Option<Outcome> {
    let desk = DESK.as_ref()?;
    let (kind, data) = input.split_first()?;
    if kind & 1 == 1 {
        let signature = desk.phone.key.sign(Hash::Sha256, &sha256(&[data, &desk.hash].concat())).ok()?;
        let found = desk.assert(&apple::assertion(&signature, data));
        if let Ok(counter) = found {
            let is_ours = data[..32] == sha256(APP.as_bytes()) && data[33..37] == counter.to_be_bytes();
            assert!(is_ours && counter > COUNTER && data.len() != 38, "accepted: {data:02x?}");
        }
        return Some(outcome(found));
    }
    let data = replaced(desk, data);
    let certificate = desk.draft().certificate_for(&data);
    let leaf = desk.apple.attesting.sign(&certificate, Hash::Sha256).ok()?;
    let chain = [&leaf[..], &desk.apple.attesting.certificate];
    let found = desk.attest(&apple::object("apple-appattest", &chain, &[], &data));
    if found.is_ok() {
        let right = desk.draft();
        // All but the flags and what follows the key.
        let mut front = right.auth_data();
        front[32] = data[32];
        assert!(data[32] & 0x40 != 0 && data.starts_with(&front), "accepted: {data:02x?}");
    }
    Some(outcome(found))
}

/// With this process's key in place of eights, as inputs cannot know it: `88 .. 88` 32 times for its id, x and y.
fn replaced(desk: &Desk, data: &[u8]) -> Vec<u8> {
    let point = desk.phone.point();
    let id = desk.phone.key_id();
    let mut parts = [&id[..], &point[1..33], &point[33..]].into_iter();
    let mut data = data.to_vec();
    let mut at = 0;
    while at + 32 <= data.len() {
        if data[at..at + 32] == PLACE {
            let Some(part) = parts.next() else { break };
            data[at..at + 32].copy_from_slice(part);
            at += 31;
        }
        at += 1;
    }
    data
}

/// Stands for a part of the key.
const PLACE: [u8; 32] = [0x88; 32];

/// A receipt: as it is where the first byte is even, which is never accepted; its content, signed, where it is odd.
pub fn receipt(input: &[u8]) -> Option<Outcome> {
    let desk = DESK.as_ref()?;
    let (kind, bytes) = input.split_first()?;
    if kind & 1 == 0 {
        if let Ok((element, rest)) = ber::first(bytes) {
            assert!(
                element.raw.len() + rest.len() == bytes.len() && element.content.len() < element.raw.len()
            );
        }
        let found = outcome(desk.receive(bytes));
        assert!(found.is_err());
        return Some(found);
    }
    let mut draft = ReceiptDraft::new(&desk.phone, &desk.apple, &desk.hash);
    // Fields: number, length, value; without them as they should be.
    let mut rest = bytes;
    while let Some(([number, length], behind)) = rest.split_first_chunk::<2>() {
        let (value, behind) = behind.split_at(behind.len().min(usize::from(*length)));
        draft.set(u32::from(*number), value);
        rest = behind;
    }
    draft.part = 1 + usize::from(*kind) * 4;
    let object = draft.sign(&desk.apple).ok()?;
    let found = desk.receive(&object);
    if let Ok(receipt) = &found {
        let field = |number: u32| {
            draft.fields.iter().find(|(known, _)| *known == number).map(|(_, value)| &value[..])
        };
        let is_ours = field(2) == Some(APP.as_bytes()) && field(7) == Some(b"production");
        assert!(
            is_ours && receipt.created <= NOW + 300 && receipt.expires > NOW,
            "accepted: {:?}",
            draft.fields
        );
    }
    Some(outcome(found))
}

/// Inputs for [`attestation`] to begin with.
pub fn attestation_seeds() -> Vec<Vec<u8>> {
    // Of other keys than those that are believed here.
    let Ok(desk) = desk() else { return Vec::new() };
    let draft = desk.draft();
    let data = draft.auth_data();
    let object = |format: &str, chain: &[&[u8]]| apple::object(format, chain, &[], &data);
    let mut twice = object("apple-appattest", &[&[], &[]]);
    twice[0] = 0xa4;
    twice.extend([cbor::text("fmt"), cbor::text("x")].concat());
    let full = draft.object(&desk.apple).unwrap_or_default();
    let assertion = desk.phone.assertion(8, 0x40, &desk.hash).unwrap_or_default();
    let mut seeds = vec![
        full,
        assertion,
        object("apple-appattest", &[&[0x30, 0], &[0x30, 0]]),
        object("apple-appattest", &[&[]]),
        object("apple-appattest", &[&[], &[], &[]]),
        object("packed", &[&[], &[]]),
        twice,
        vec![0x81; 64],
        cbor::bytes(&data),
    ];
    seeds.extend(
        [
            &b"\xbf\x61a\x00\xff"[..],
            b"\x5a\x80\x00\x00\x00",
            b"\xc0\x00",
            b"\xf9\x00\x00",
            b"\x1b\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"\x3a\xff\xff\xff\xff",
            b"",
        ]
        .map(<[u8]>::to_vec),
    );
    seeds
}

/// Inputs for [`auth_data`] to begin with.
pub fn auth_data_seeds() -> Vec<Vec<u8>> {
    let Some(desk) = DESK.as_ref() else { return Vec::new() };
    let attested = |change: &dyn Fn(&mut Draft)| {
        let mut draft = desk.draft();
        draft.id = PLACE.to_vec();
        draft.credential = [&[4][..], &PLACE, &PLACE].concat();
        change(&mut draft);
        [vec![0], draft.auth_data()].concat()
    };
    let asserted = |counter: u32, flags: u8, behind: &[u8]| {
        [&[1][..], &sha256(APP.as_bytes()), &[flags], &counter.to_be_bytes(), behind].concat()
    };
    let mut seeds = vec![
        attested(&|_| ()),
        attested(&|draft| draft.extensions = extensions(4, "7")),
        attested(&|draft| draft.extensions = extensions(3, "7")),
        attested(&|draft| draft.extensions = vec![0xa0]),
        attested(&|draft| draft.extensions = vec![0]),
        attested(&|draft| draft.counter = 1),
        attested(&|draft| draft.flags = 0),
        attested(&|draft| draft.id_length = 65_535),
        attested(&|draft| draft.aaguid = apple::aaguid(Environment::Development)),
        attested(&|draft| draft.rp_id_hash = [0; 32]),
        attested(&|draft| draft.id = vec![0; 32]),
        attested(&|draft| draft.credential.truncate(63)),
        asserted(8, 0x40, &[]),
        asserted(8, 0, &extensions(4, "7")),
        asserted(8, 0x40, &extensions(3, "7")),
        asserted(8, 0x40, &[0]),
        asserted(COUNTER, 0x40, &[]),
        asserted(0, 0x40, &[]),
        asserted(u32::MAX, 0xff, &[]),
        vec![1; 38],
        vec![0],
    ];
    let mut short = asserted(8, 0x40, &[]);
    short.pop();
    seeds.push(short);
    seeds
}

/// Inputs for [`receipt`] to begin with.
pub fn receipt_seeds() -> Vec<Vec<u8>> {
    let raw = |bytes: &[u8]| [&[0], bytes].concat();
    let field = |number: u8, value: &[u8]| [&[251, number, value.len() as u8], value].concat();
    // Of other keys than those that are believed here.
    let Ok(other) = self::desk() else { return Vec::new() };
    let full =
        ReceiptDraft::new(&other.phone, &other.apple, &other.hash).sign(&other.apple).unwrap_or_default();
    let half = full.get(..full.len() / 2).unwrap_or_default();
    let empty = der::endless(0x30, &[&der::oid(&[1, 2, 840, 113_549, 1, 7, 2]), &der::endless(0xa0, &[])]);
    vec![
        raw(&full),
        raw(half),
        raw(&empty),
        raw(&[0x30, 0x80].repeat(20)),
        raw(&[0x24, 0x80, 4, 1, 7, 0, 0]),
        raw(&[0x04, 0x84, 0x80, 0, 0, 0]),
        raw(&[0xbf, 0x8a, 0x78, 2, 5, 0]),
        raw(&[]),
        vec![251],
        vec![1],
        field(2, b"A1B2C3D4E5.com.example.other"),
        field(3, &[0x30, 0]),
        field(4, &[0; 32]),
        field(6, b"RECEIPT"),
        field(6, b"x"),
        field(7, b"sandbox"),
        field(12, b"2030-01-01T00:00:00Z"),
        field(12, b"x"),
        field(17, b"3"),
        field(17, b"-1"),
        field(19, b"2027-01-16T08:00:00Z"),
        field(21, b"2020-01-01T00:00:00Z"),
    ]
}
