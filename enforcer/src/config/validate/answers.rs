//! Rules for what answers carry and where plain HTTP is answered: `http.response_headers`, `http.redirect`.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{Rules, entries, tls::both_take};
use crate::config::{Listener, file::HttpSection, named::Named};

/// What an answer gets if neither the file nor the upstream says otherwise: a page that an API serves by accident, an
/// error page above all, loads nothing, runs nothing and is framed by nobody.
const DEFAULT: [(&str, &str); 2] = [
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
];

/// Fields that frame a message or belong to one connection (RFC 9110 section 7.6.1), and one that has its own key.
const NOT_OURS: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "keep-alive",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn headers(section: &HttpSection, rules: &mut Rules<'_, '_>) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> =
        DEFAULT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let Some(table) = &section.response_headers else { return headers };
    for (name, value) in table.get_ref() {
        let key = format!("response_headers.{}", super::quote(name));
        let text = &value.get_ref().0;
        let lower = name.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            rules.refuse(value.span(), &key, "no name of a field", "use letters, digits and `-`");
        } else if NOT_OURS.contains(&lower.as_str()) {
            let remedy = if lower == "strict-transport-security" {
                "write http.strict_transport_security instead"
            } else {
                "remove it"
            };
            rules.refuse(value.span(), &key, "cannot be set here", remedy);
        } else if http::HeaderValue::from_str(text).is_err() {
            let problem = format!("`{}` is no value of a field", text.escape_debug());
            rules.refuse(value.span(), &key, problem, "write visible ASCII, or \"\" to leave the field out");
        }
        if text.is_empty() {
            headers.remove(&lower);
        } else {
            headers.insert(lower, text.clone());
        }
    }
    headers
}

pub(super) fn redirect(
    section: &HttpSection,
    listeners: &[Listener],
    rules: &mut Rules<'_, '_>,
) -> Vec<SocketAddr> {
    let mut kept: Vec<SocketAddr> = Vec::new();
    for (n, entry) in entries(&section.redirect).enumerate() {
        let address = entry.get_ref().0;
        if let Some(i) = listeners.iter().position(|listener| both_take(listener.address, address)) {
            let problem = format!("listener[{i}] has this address");
            rules.refuse_entry(entry.span(), "redirect", problem, "choose another port, like 80");
        } else if kept.iter().any(|other| both_take(*other, address)) {
            let problem = format!("another entry takes the connections of {address} too");
            rules.refuse_entry(entry.span(), "redirect", problem, "keep the wider of the two");
        }
        rules.name_outside(&format!("redirect[{n}]"), entry.span(), Named::Address(address));
        kept.push(address);
    }
    kept
}
