//! The signature base of HTTP Message Signatures (RFC 9421 section 2.5): what a signature is made over. Pure: a message and an
//! inner list of covered components give a text, or none.
//!
//! Covered can be every derived component of a message, and fields: whole, as bytes (`bs`), or one member of a dictionary
//! (`key`). `sf` would need the type of a field, `req` and `tr` another message and trailers: a signature that covers such is
//! refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderMap;
use sfv::{FieldType as _, InnerList, Item, ListEntry};

use super::message::parse_dictionary;

/// Components of one signature, at most.
const MOST: usize = 64;

/// What a base is made of.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `@method`; none for an answer.
    pub method: Option<&'a str>,
    /// `@scheme`, in small letters.
    pub scheme: Option<&'a str>,
    /// `@authority`: in small letters, without a default port.
    pub authority: Option<&'a str>,
    /// `@path`, as sent.
    pub path: &'a str,
    /// `@query` without its `?`.
    pub query: Option<&'a str>,
    /// `@status`; none for a request.
    pub status: Option<u16>,
    /// Fields.
    pub headers: &'a HeaderMap,
}

/// The base for a signature with this inner list of `Signature-Input`; `None` if a component is not there, not known, stands
/// twice, or has more than one reading.
pub fn build(message: &Message<'_>, input: &InnerList) -> Option<String> {
    if input.items.len() > MOST {
        return None;
    }
    let mut base = String::new();
    let mut seen = Vec::with_capacity(input.items.len());
    for item in &input.items {
        let identifier = item.serialize();
        if seen.contains(&identifier) {
            return None;
        }
        base.push_str(&identifier);
        base.push_str(": ");
        let value = component(message, item)?;
        // Section 2.5: a line break within a value would make lines of a signer's that are none.
        if !value.bytes().all(|b| b == b'\t' || matches!(b, 0x20..=0x7e)) {
            return None;
        }
        base.push_str(&value);
        base.push('\n');
        seen.push(identifier);
    }
    base.push_str("\"@signature-params\": ");
    base.push_str(&vec![ListEntry::InnerList(input.clone())].serialize()?);
    Some(base)
}

/// The value of a component (section 2).
fn component(message: &Message<'_>, item: &Item) -> Option<String> {
    let name = item.bare_item.as_string()?.as_str();
    let mut parameters = item.params.iter();
    let parameter = parameters.next().map(|(key, value)| (key.as_str(), value));
    // No two parameters that are known here go together.
    if parameters.next().is_some() {
        return None;
    }
    if name.starts_with('@') {
        return match (name, parameter) {
            ("@query-param", Some(("name", value))) => {
                query_param(message.query?, value.as_string()?.as_str())
            }
            (_, None) => derived(message, name),
            _ => None,
        };
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut values =
        message.headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii()).peekable();
    values.peek()?;
    match parameter {
        None => {
            let values = values.map(|value| std::str::from_utf8(value).ok()).collect::<Option<Vec<_>>>()?;
            Some(values.join(", "))
        }
        Some(("bs", value)) if value.as_boolean() == Some(true) => {
            let values: Vec<String> = values.map(|value| format!(":{}:", STANDARD.encode(value))).collect();
            Some(values.join(", "))
        }
        Some(("key", value)) => {
            let whole = values.map(|value| std::str::from_utf8(value).ok()).collect::<Option<Vec<_>>>()?;
            let members = parse_dictionary(&whole.join(", "))?;
            match members.get(value.as_string()?.as_str())? {
                ListEntry::Item(item) => Some(item.serialize()),
                list @ ListEntry::InnerList(_) => vec![list.clone()].serialize(),
            }
        }
        Some(_) => None,
    }
}

fn derived(message: &Message<'_>, name: &str) -> Option<String> {
    let target = || match message.query {
        Some(query) => format!("{}?{query}", message.path),
        None => message.path.to_owned(),
    };
    match name {
        "@method" => message.method.map(str::to_owned),
        "@scheme" => message.scheme.map(str::to_owned),
        "@authority" => message.authority.map(str::to_owned),
        "@target-uri" => Some(format!("{}://{}{}", message.scheme?, message.authority?, target())),
        "@request-target" => message.method.map(|_| target()),
        // Section 2.2.6: an empty path is a slash.
        "@path" if message.path.is_empty() => Some("/".to_owned()),
        "@path" => message.method.map(|_| message.path.to_owned()),
        "@query" => message.method.map(|_| format!("?{}", message.query.unwrap_or_default())),
        "@status" => message.status.map(|status| status.to_string()),
        _ => None,
    }
}

/// Section 2.2.8: decoded as a form is, and encoded anew; a name that stands twice has no value.
fn query_param(query: &str, name: &str) -> Option<String> {
    let encode =
        |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20");
    let mut found = None;
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        if encode(&key) == name && found.replace(encode(&value)).is_some() {
            return None;
        }
    }
    found
}
