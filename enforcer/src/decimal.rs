//! Numbers as fields of HTTP have them. Whoever reads more into a text than digits disagrees with somebody about where a message ends.

/// Digits and nothing else (RFC 9110 section 8.6); what no server can count has no value.
pub fn read(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0, |number: u64, digit| {
        digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn digits_are_numbers_and_nothing_else_is() {
        assert_eq!(
            [&b"0"[..], b"007", b"999999999999999999"].map(read),
            [0, 7, 999_999_999_999_999_999].map(Some)
        );
        for bad in [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"1,1", b"0x1", b"1_0", b"1000000000000000000"] {
            assert_eq!(read(bad), None, "{}", bad.escape_ascii());
        }
    }
}
