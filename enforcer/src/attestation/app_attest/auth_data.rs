//! Authenticator data (WebAuthn section 6.1), as App Attest has it. The flags say little: assertions set the one for attested data
//! and bring none, and Apple's systems leave the one for extensions clear and append them. So the bytes that are left decide.

use super::{Category, Point};
use crate::attestation::cbor::{self, Value};

/// The flag for attested data: AT.
const ATTESTED: u8 = 0x40;
/// Bytes of a credential id: a key id is a SHA-256.
const ID: u16 = 32;

/// What stands in front.
#[derive(Clone, Copy, Debug)]
pub(super) struct AuthData<'a> {
    /// SHA-256 of the app id.
    pub(super) rp_id_hash: &'a [u8; 32],
    /// How many assertions were made with the key.
    pub(super) counter: u32,
}

/// What follows for a new key.
#[derive(Clone, Debug)]
pub(super) struct Credential<'a> {
    pub(super) aaguid: &'a [u8; 16],
    pub(super) id: &'a [u8],
    /// The public key, which only has to have the form of one.
    pub(super) key: Point,
}

/// What systems since iOS and macOS 27 say of the app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// How the app came to the device.
    pub category: Option<Category>,
    /// `CFBundleVersion`, as it is written.
    pub bundle_version: Option<String>,
    /// Names of what is there besides, and not judged.
    pub others: Vec<String>,
}

/// Of a new key: all of it, or what is wrong.
pub(super) fn attested(bytes: &[u8]) -> Result<(AuthData<'_>, Credential<'_>, Extensions), String> {
    let (data, flags, rest) = front(bytes)?;
    if flags & ATTESTED == 0 {
        return Err(format!("authData has the flags {flags:#04x}, without attested data"));
    }
    let (aaguid, rest) = rest.split_first_chunk::<16>().ok_or("authData ends before the aaguid")?;
    let (length, rest) = rest.split_first_chunk::<2>().ok_or("authData ends before the credential id")?;
    let length = u16::from_be_bytes(*length);
    if length != ID {
        return Err(format!("the credential id has {length} bytes and not {ID}"));
    }
    let (id, rest) = rest.split_at_checked(ID.into()).ok_or("authData ends within the credential id")?;
    let (key, rest) = cbor::first(rest).map_err(|problem| format!("the credential's key: {problem}"))?;
    let key = point(&key).ok_or("the credential's key is no COSE key of P-256 for ES256")?;
    Ok((data, Credential { aaguid, id, key }, extensions(rest)?))
}

/// Of an assertion.
pub(super) fn asserted(bytes: &[u8]) -> Result<(AuthData<'_>, Extensions), String> {
    let (data, _, rest) = front(bytes)?;
    Ok((data, extensions(rest)?))
}

fn front(bytes: &[u8]) -> Result<(AuthData<'_>, u8, &[u8]), String> {
    let parts = bytes.split_first_chunk::<32>().and_then(|(rp_id_hash, rest)| {
        let (flags, rest) = rest.split_first()?;
        let (counter, rest) = rest.split_first_chunk::<4>()?;
        Some((AuthData { rp_id_hash, counter: u32::from_be_bytes(*counter) }, *flags, rest))
    });
    parts.ok_or_else(|| format!("authenticator data of {} bytes is too short", bytes.len()))
}

/// RFC 9053 section 7.1.1: type EC2, algorithm ES256, curve P-256, x, y, and nothing else.
fn point(key: &Value<'_>) -> Option<Point> {
    let [kind, algorithm, curve, x, y] = key.exactly([1, 3, -1, -2, -3].map(Value::Integer))?;
    let is_p256 = [kind, algorithm, curve] == [2, -7, 1].map(Value::Integer).each_ref();
    let (x, y) = (x.bytes()?, y.bytes()?);
    let mut point = [4; 65];
    point[1..33].copy_from_slice(<&[u8; 32]>::try_from(x).ok()?);
    point[33..].copy_from_slice(<&[u8; 32]>::try_from(y).ok()?);
    is_p256.then_some(point)
}

fn extensions(bytes: &[u8]) -> Result<Extensions, String> {
    let mut found = Extensions::default();
    if bytes.is_empty() {
        return Ok(found);
    }
    let map = cbor::read(bytes).map_err(|problem| format!("the extensions: {problem}"))?;
    for (name, value) in map.map().ok_or("the extensions are no map")? {
        let name = name.text().ok_or("an extension's name is no text")?;
        match name {
            "apple_validation_category_01" => {
                let number = value.bytes().and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
                let number = number.ok_or("apple_validation_category_01 is not four bytes")?;
                found.category = Some(Category(u32::from_le_bytes(number)));
            }
            "apple_bundle_version_01" => {
                let text = value.text().ok_or("apple_bundle_version_01 is no text")?;
                found.bundle_version = Some(text.to_owned());
            }
            _ => found.others.push(name.to_owned()),
        }
    }
    Ok(found)
}
