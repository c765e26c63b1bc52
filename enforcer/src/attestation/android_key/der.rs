//! DER as X.690 section 10 has it: definite and shortest lengths, one way to write each value. What a lenient reader takes in two ways is
//! refused here.

/// A tag's class and form, in the bits of its first byte.
pub(super) const CONTEXT: u8 = 0xa0;

/// Universal tags.
pub(super) mod tag {
    pub(in super::super) const BOOLEAN: u8 = 0x01;
    pub(in super::super) const INTEGER: u8 = 0x02;
    pub(in super::super) const OCTETS: u8 = 0x04;
    pub(in super::super) const ENUMERATED: u8 = 0x0a;
    pub(in super::super) const SEQUENCE: u8 = 0x30;
    pub(in super::super) const SET: u8 = 0x31;
}

/// Reads elements one after the other.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next element: class and form, number, content.
    pub(super) fn element(&mut self) -> Option<(u8, u32, &'a [u8])> {
        let first = self.byte()?;
        let mut number = u32::from(first & 0x1f);
        if number == 0x1f {
            number = 0;
            loop {
                let byte = self.byte()?;
                // The shortest form, of at most three bytes.
                if (number == 0 && byte & 0x7f == 0) || number >> 14 != 0 {
                    return None;
                }
                number = number << 7 | u32::from(byte & 0x7f);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            if number < 0x1f {
                return None;
            }
        }
        let length = self.length()?;
        let (content, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((first & 0xe0, number, content))
    }

    fn length(&mut self) -> Option<usize> {
        let first = self.byte()?;
        if first < 0x80 {
            return Some(first.into());
        }
        // Indefinite lengths, and more than 64 KiB, are none here.
        let count = first & 0x7f;
        if !(1..=2).contains(&count) {
            return None;
        }
        let mut length = 0;
        for _ in 0..count {
            length = length << 8 | usize::from(self.byte()?);
        }
        let shortest = if count == 1 { 0x80 } else { 0x100 };
        (length >= shortest).then_some(length)
    }

    /// The content of the next element, which has this universal tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (class, number, content) = self.element()?;
        (class == tag & 0xe0 && number == u32::from(tag & 0x1f)).then_some(content)
    }

    /// A whole number from 0 to 2^64 - 1.
    pub(super) fn number(&mut self, tag: u8) -> Option<u64> {
        let content = self.expect(tag)?;
        let (first, rest) = content.split_first()?;
        // Negative, or with a byte too many.
        if first & 0x80 != 0 || (*first == 0 && rest.first().is_some_and(|next| next & 0x80 == 0)) {
            return None;
        }
        let digits = if *first == 0 { rest } else { content };
        (digits.len() <= 8).then(|| digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub(super) fn boolean(&mut self) -> Option<bool> {
        match self.expect(tag::BOOLEAN)? {
            [0xff] => Some(true),
            [0x00] => Some(false),
            _ => None,
        }
    }

    /// The elements inside the next one.
    pub(super) fn inside(&mut self, tag: u8) -> Option<Self> {
        self.expect(tag).map(Self)
    }

    /// What was read is all that there is.
    pub(super) fn end<T>(&self, value: T) -> Option<T> {
        self.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_one_spelling() {
        let number = |bytes: &[u8]| Reader::new(bytes).number(tag::INTEGER);
        assert_eq!(number(&[2, 1, 0]), Some(0));
        assert_eq!(number(&[2, 2, 0, 0x80]), Some(128));
        assert_eq!(number(&[2, 9, 0, 255, 255, 255, 255, 255, 255, 255, 255]), Some(u64::MAX));
        for bad in [
            &[2, 0][..],
            &[2, 1, 0x80],
            &[2, 2, 0, 1],
            &[2, 0x81, 1, 1],
            &[2, 2, 1],
            &[4, 1, 1],
            &[2, 0x80, 1, 0, 0],
            // The universal tag 34, whose number has the bits of tag 2.
            &[0x1f, 0x22, 1, 0],
        ] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
        assert_eq!(number(&[2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        // The universal tag 48 is constructed as well, and no sequence.
        assert!(Reader::new(&[0x3f, 0x30, 0]).inside(tag::SEQUENCE).is_none());
        let boolean = |byte| Reader::new(&[1, 1, byte]).boolean();
        assert_eq!((boolean(0xff), boolean(0), boolean(1)), (Some(true), Some(false), None));
        let element = |bytes: &[u8]| Reader::new(bytes).element().map(|(class, number, _)| (class, number));
        assert_eq!(element(&[0xbf, 0x85, 0x3e, 0]), Some((CONTEXT, 702)));
        for bad in [
            &[0xbf, 0x80, 0x85, 0x3e, 0][..],
            &[0xbf, 0x1e, 0],
            &[0xbf, 0xff, 0xff, 0xff, 0x7f, 0],
            &[0xbf, 0x85],
            &[],
        ] {
            assert_eq!(element(bad), None, "{bad:?}");
        }
        let long = [&[4, 0x82, 1, 0][..], &[0; 256]].concat();
        assert!(Reader::new(&long).expect(tag::OCTETS).is_some());
        assert!(Reader::new(&[&[4, 0x82, 0, 0xff][..], &[0; 255]].concat()).expect(tag::OCTETS).is_none());
    }
}
