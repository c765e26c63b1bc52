//! `traceparent` (W3C Trace Context): who is asked may tie what it does to what its caller did.
//!
//! A client's is passed on as it is if it is valid, since no span of our own is recorded anywhere; else the request begins a
//! trace, which carries the request's id where that can be one.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::random;

const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// `traceparent` of a request, if it is valid; bytes 3 to 35 are the trace.
pub fn parent(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut parents = headers.get_all(PARENT).iter();
    parents.next().filter(|parent| parents.next().is_none() && is_valid(parent.as_bytes()))
}

/// Sees to it that a request belongs to a trace: its own, or one that begins with the field that is returned.
pub(super) fn continue_or_begin(
    headers: &mut HeaderMap,
    id: &HeaderValue,
) -> Option<(HeaderName, HeaderValue)> {
    if parent(headers).is_some() {
        return None;
    }
    // Without its parent a state belongs to nothing (section 3.3).
    headers.remove(STATE);
    headers.remove(PARENT);
    begin(id).map(|parent| (PARENT, parent))
}

/// A trace of its own, not sampled: whoever asked did not ask for that.
fn begin(id: &HeaderValue) -> Option<HeaderValue> {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    match id.as_bytes() {
        id if is_id(id, 32) => text[3..35].copy_from_slice(id),
        _ => random::hex(&random::bytes::<16>()?, &mut text[3..35]),
    }
    random::hex(&random::bytes::<8>()?, &mut text[36..52]);
    HeaderValue::from_bytes(&text).ok()
}

/// Section 3.2: version, trace, parent, flags. A later version may have more behind a further dash.
fn is_valid(value: &[u8]) -> bool {
    let [v1, v2, b'-', rest @ ..] = value else { return false };
    let version = [*v1, *v2];
    if !is_hex(&version) || &version == b"ff" || rest.len() < 52 {
        return false;
    }
    let (known, more) = rest.split_at(52);
    let [trace @ .., b'-', _, _] = known else { return false };
    let flags = &known[50..];
    let (trace, parent) = (&trace[..32], &trace[32..]);
    let [b'-', parent @ ..] = parent else { return false };
    let good_end =
        if &version == b"00" { more.is_empty() } else { matches!(more.first(), None | Some(b'-')) };
    is_id(trace, 32) && is_id(parent, 16) && is_hex(flags) && good_end
}

fn is_id(text: &[u8], length: usize) -> bool {
    text.len() == length && is_hex(text) && text.iter().any(|digit| *digit != b'0')
}

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn after(parents: &[&str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for parent in parents {
            headers.append(PARENT, HeaderValue::from_str(parent).unwrap());
        }
        headers.insert(STATE, HeaderValue::from_static("a=1"));
        let id = HeaderValue::from_static("0123456789abcdef0123456789abcdef");
        if let Some((name, value)) = continue_or_begin(&mut headers, &id) {
            headers.append(name, value);
        }
        assert_eq!(headers.get_all(PARENT).iter().count(), 1);
        (headers[PARENT].to_str().unwrap().to_owned(), headers.contains_key(STATE))
    }

    #[test]
    fn a_valid_parent_is_kept_with_its_state() {
        let future = format!("cc{}-more", &GOOD[2..]);
        for parent in [GOOD, &future] {
            assert_eq!(after(&[parent]), (parent.to_owned(), true));
        }
    }

    #[test]
    fn anything_else_begins_a_trace_with_the_id_of_the_request() {
        let zero_trace = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let zero_parent = GOOD.replace("00f067aa0ba902b7", &"0".repeat(16));
        let capital = GOOD.to_uppercase();
        let long = format!("{GOOD}-x");
        let forbidden = format!("ff{}", &GOOD[2..]);
        let glued = format!("cc{}x", &GOOD[2..]);
        for parent in ["", "00", &GOOD[..54], &zero_trace, &zero_parent, &capital, &long, &forbidden, &glued]
        {
            let (made, has_state) = after(&[parent]);
            assert!(made.starts_with("00-0123456789abcdef0123456789abcdef-"), "{parent}: {made}");
            assert!(is_valid(made.as_bytes()) && !has_state, "{parent}: {made}");
        }
        assert!(is_valid(after(&[GOOD, GOOD]).0.as_bytes()), "two contradict each other");
        assert_ne!(after(&[GOOD, GOOD]).0, GOOD);
        assert_ne!(after(&[]).0, after(&[]).0);
        let other = begin(&HeaderValue::from_static("from elsewhere")).unwrap();
        assert!(is_valid(other.as_bytes()));
    }
}
