//! BER (X.690), as far as receipts and certificates need it: also indefinite lengths and strings in parts, which readers of DER
//! refuse and which Apple writes. Strict in what it leaves: levels, members and lengths have caps, and lengths fit what is there.

use std::borrow::Cow;

/// Levels at most; receipts have nine.
const DEPTH: usize = 16;
/// Elements of one level at most; receipts have twelve.
const MEMBERS: usize = 64;

/// Identifiers, as their bytes are, the first one highest.
pub mod tag {
    /// INTEGER.
    pub const INTEGER: u32 = 0x02;
    /// OCTET STRING in one piece.
    pub const OCTETS: u32 = 0x04;
    /// OCTET STRING in parts.
    pub const PARTS: u32 = 0x24;
    /// OBJECT IDENTIFIER.
    pub const OID: u32 = 0x06;
    /// SEQUENCE.
    pub const SEQUENCE: u32 = 0x30;
    /// SET.
    pub const SET: u32 = 0x31;
    /// `[0]` with elements in it.
    pub const ZERO: u32 = 0xa0;
}

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The bytes of its identifier, as a number.
    pub tag: u32,
    /// What is in it, without head and end.
    pub content: &'a [u8],
    /// All of it.
    pub raw: &'a [u8],
}

/// The first element, and what follows it.
pub fn first(bytes: &[u8]) -> Result<(Element<'_>, &[u8]), &'static str> {
    element(bytes, DEPTH)
}

/// The only element that there is.
pub fn only(bytes: &[u8]) -> Result<Element<'_>, &'static str> {
    let (element, rest) = first(bytes)?;
    if rest.is_empty() { Ok(element) } else { Err("there is more behind the end") }
}

/// All elements, one behind the other.
pub fn all(mut bytes: &[u8]) -> Result<Vec<Element<'_>>, &'static str> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        if found.len() == MEMBERS {
            return Err("there are too many elements");
        }
        let (element, rest) = first(bytes)?;
        found.push(element);
        bytes = rest;
    }
    Ok(found)
}

impl<'a> Element<'a> {
    /// What is in it, where it is of this kind.
    pub fn of(&self, tag: u32) -> Result<&'a [u8], &'static str> {
        if self.tag == tag { Ok(self.content) } else { Err("an element is of another kind than expected") }
    }

    /// The bytes of a string, however it is written.
    pub fn octets(&self) -> Result<Cow<'a, [u8]>, &'static str> {
        if self.tag != tag::PARTS {
            return self.of(tag::OCTETS).map(Cow::Borrowed);
        }
        let parts = all(self.content)?;
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.of(tag::OCTETS)).collect::<Result<_, _>>()?;
        Ok(Cow::Owned(parts.concat()))
    }

    /// A number of at most 32 bits that is not negative.
    pub fn number(&self) -> Result<u32, &'static str> {
        let content = self.of(tag::INTEGER)?;
        let digits = if let [0, digits @ ..] = content { digits } else { content };
        if content.is_empty() || digits.len() > 4 || content[0] & 0x80 != 0 {
            return Err("a number is out of bounds");
        }
        Ok(digits.iter().fold(0, |number, digit| number << 8 | u32::from(*digit)))
    }
}

fn element(bytes: &[u8], depth: usize) -> Result<(Element<'_>, &[u8]), &'static str> {
    const SHORT: &str = "it ends too early";
    let levels = depth.checked_sub(1).ok_or("it is nested too deeply")?;
    let (head, mut rest) = bytes.split_first().ok_or(SHORT)?;
    let mut tag = u32::from(*head);
    if head & 0x1f == 0x1f {
        // The number of the kind follows, seven bits in each byte.
        loop {
            let (next, behind) = rest.split_first().ok_or(SHORT)?;
            if tag >> 24 != 0 {
                return Err("an identifier is too long");
            }
            tag = tag << 8 | u32::from(*next);
            rest = behind;
            if next & 0x80 == 0 {
                break;
            }
        }
    }
    let (length, rest) = rest.split_first().ok_or(SHORT)?;
    if *length == 0x80 {
        if head & 0x20 == 0 {
            return Err("a value without parts has no length");
        }
        return indefinite(bytes, rest, tag, levels);
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f)).ok_or(SHORT)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return Err("a length is too long"),
    };
    let (content, behind) = rest.split_at_checked(length).ok_or(SHORT)?;
    let (raw, _) = bytes.split_at(bytes.len() - behind.len());
    Ok((Element { tag, content, raw }, behind))
}

/// What ends where two zeros stand in place of an element.
fn indefinite<'a>(
    bytes: &'a [u8],
    inside: &'a [u8],
    tag: u32,
    levels: usize,
) -> Result<(Element<'a>, &'a [u8]), &'static str> {
    let mut rest = inside;
    loop {
        if let [0, 0, behind @ ..] = rest {
            let (content, _) = inside.split_at(inside.len() - rest.len());
            let (raw, _) = bytes.split_at(bytes.len() - behind.len());
            return Ok((Element { tag, content, raw }, behind));
        }
        (_, rest) = element(rest, levels)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_lengths_and_strings_are_read() {
        let parts = b"\x24\x80\x04\x01a\x04\x02bc\x00\x00";
        assert_eq!(only(parts).unwrap().octets().unwrap().as_ref(), b"abc");
        assert_eq!(only(b"\x04\x81\x03abc").unwrap().octets().unwrap().as_ref(), b"abc");
        let (inner, rest) = first(b"\x30\x80\x30\x80\x00\x00\x00\x00\x02\x01\x07").unwrap();
        assert_eq!((inner.content, inner.raw.len()), (&b"\x30\x80\x00\x00"[..], 8));
        assert_eq!(only(rest).unwrap().number(), Ok(7));
        assert_eq!(only(b"\xbf\x8a\x78\x02\x05\x00").unwrap().tag, 0xbf_8a78);
        for (number, bytes) in [(0x80, &b"\x02\x02\x00\x80"[..]), (u32::MAX, b"\x02\x05\x00\xff\xff\xff\xff")]
        {
            assert_eq!(only(bytes).unwrap().number(), Ok(number));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let nested = |levels: usize| [[0x30, 0x80].repeat(levels), [0, 0].repeat(levels)].concat();
        assert!(first(&nested(DEPTH)).is_ok());
        for (name, bytes) in [
            ("nothing", &[][..]),
            ("no length", &[0x30]),
            ("short", &[0x30, 2, 0]),
            ("2 GB", &[0x04, 0x84, 0x80, 0, 0, 0]),
            ("a length of five bytes", &[0x04, 0x85, 0, 0, 0, 0, 1, 0]),
            ("no end", &[0x30, 0x80, 0x02, 1, 0]),
            ("a value without length", &[0x04, 0x80, 0, 0]),
            ("a long identifier", &[0x3f, 0xff, 0xff, 0xff, 0xff, 1, 0]),
            ("deep", &nested(DEPTH + 1)),
            ("very deep", &nested(10_000)),
        ] {
            assert!(first(bytes).is_err(), "{name}");
        }
        assert!(only(&[5, 0, 5, 0]).is_err());
        assert!(all(&[5, 0].repeat(MEMBERS + 1)).is_err());
        for number in [&b"\x02\x00"[..], b"\x02\x01\x80", b"\x02\x05\x01\0\0\0\0", b"\x02\x06\0\0\0\0\0\0"] {
            assert!(only(number).unwrap().number().is_err(), "{number:?}");
        }
        let in_parts_of_parts = b"\x24\x80\x24\x80\x04\x01a\x00\x00\x00\x00";
        assert!(only(in_parts_of_parts).unwrap().octets().is_err());
    }
}
