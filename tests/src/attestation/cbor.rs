//! CBOR as it is written, right or wrong.

/// The head of an item of this major type, as short as can be.
pub fn head(kind: u8, number: usize) -> Vec<u8> {
    let kind = kind << 5;
    match number {
        0..=23 => vec![kind | number as u8],
        24..=0xff => vec![kind | 24, number as u8],
        0x100..=0xffff => [&[kind | 25][..], &(number as u16).to_be_bytes()].concat(),
        _ => [&[kind | 26][..], &(number as u32).to_be_bytes()].concat(),
    }
}

/// A string of bytes.
pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    [head(2, bytes.len()), bytes.to_vec()].concat()
}

/// Text.
pub fn text(text: &str) -> Vec<u8> {
    [head(3, text.len()), text.as_bytes().to_vec()].concat()
}

/// An integer.
pub fn integer(number: i32) -> Vec<u8> {
    if number < 0 { head(1, !number as usize) } else { head(0, number as usize) }
}

/// An array.
pub fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [head(4, items.len()), items.concat()].concat()
}

/// A map of keys and values.
pub fn map(members: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let inside: Vec<u8> = members.iter().flat_map(|(key, value)| [&key[..], value].concat()).collect();
    [head(5, members.len()), inside].concat()
}
