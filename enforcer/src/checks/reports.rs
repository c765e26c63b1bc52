//! Reports of apps whose pins did not fit: whether a request is one, whether it may come, and what it says.
//!
//! Two forms are read: that of TrustKit, which is that of RFC 7469 section 3 with more members, and one of a few members for apps that
//! make it themselves. Nothing authenticates a report, so it is no more than a count.

use enforcer_common::{limiter::Charge, source::SourceKey};
use http::{HeaderValue, Method, header::ALLOW};
use serde_json::{Map, Value};

use super::{Now, Refusal, facts::RequestFacts};
use crate::{
    denial::Denial,
    policy::{
        Policy,
        suspicion::reports::{Noted, Shown},
    },
    strict_json,
};

/// Bytes of a body, at most: a chain of certificates has some 8,000.
pub const MOST_BYTES: u64 = 32 << 10;
/// Characters of a text, at most; certificates are longer.
const LONGEST: usize = 512;
/// Members of a list, at most.
const MOST: usize = 64;

/// Whether a request brings a report, and whether it may: then its body is read for [`take`]. Bans and a limit by address hold there.
pub fn endpoint(policy: &Policy, facts: &RequestFacts<'_>, now: Now) -> Option<Result<(), Refusal>> {
    let suspicion = policy.suspicion()?;
    let (config, reports) = suspicion.config.reports.as_ref().zip(suspicion.reports.as_ref())?;
    (*config.path == *facts.path).then(|| {
        if facts.is_banned {
            return Err(Refusal::plain(Denial::Banned));
        }
        if *facts.method != Method::POST {
            let allow = Some((ALLOW, HeaderValue::from_static("POST")));
            return Err(Refusal::plain(Denial::MethodNotAllowed).with(allow));
        }
        // What comes as early data can be replayed, and each counts.
        if facts.is_early {
            return Err(Refusal::plain(Denial::TooEarly));
        }
        let key = SourceKey::of(facts.address.get(), policy.v6_mask).get();
        let (denial, wait) = match reports.limiter.charge(key, now.monotonic) {
            Charge::Within => return Ok(()),
            Charge::Exceeded(wait) => (Denial::RateLimited, wait),
            // Nobody bans in this table.
            Charge::Full | Charge::Banned(_) => (Denial::LimiterFull, 1),
        };
        Err(Refusal { retry_after: Some(wait.div_ceil(1_000_000_000).max(1)), ..Refusal::plain(denial) })
    })
}

/// Counts a report.
pub fn take(policy: &Policy, facts: &RequestFacts<'_>, body: &[u8], now: Now) -> Result<Noted, Denial> {
    // It was there when the endpoint was found; a reload may have come between.
    let reports = policy.suspicion().and_then(|suspicion| suspicion.reports.as_ref());
    let reports = reports.ok_or(Denial::RouteNotFound)?;
    let object = strict_json::object(body).ok_or(Denial::PinReportMalformed)?;
    let (host, shown) = read(&object).ok_or(Denial::PinReportMalformed)?;
    let source = SourceKey::of(facts.address.get(), policy.v6_mask).get();
    let sets = &policy.pins().sets;
    Ok(reports.note(sets, |host| policy.serves(host), (source, host), shown, now.monotonic))
}

/// The host that a report is about, and what was shown for it.
fn read(report: &Map<String, Value>) -> Option<(&str, Shown<'_>)> {
    if report.contains_key("hostname") { by_library(report) } else { own(report) }
}

/// Of TrustKit, and of RFC 7469. What else it holds is not looked at: there are several versions.
fn by_library(report: &Map<String, Value>) -> Option<(&str, Shown<'_>)> {
    let host = self::host(report.get("hostname")?)?;
    for name in ["app-bundle-id", "app-version", "app-platform", "date-time", "noted-hostname"] {
        optional(report, name)?;
    }
    if let Some(port) = report.get("port") {
        u16::try_from(port.as_u64()?).ok()?;
    }
    texts(report.get("known-pins"), LONGEST)?;
    let validated = texts(report.get("validated-certificate-chain"), MOST_BYTES as usize)?;
    let served = texts(report.get("served-certificate-chain"), MOST_BYTES as usize)?;
    // The leaf is the first one.
    let shown = served.or(validated).map_or(Shown::Nothing, Shown::Certificate);
    Some((host, shown))
}

/// `{ "host": ..., "seen": [...], "app": ..., "platform": ... }`
fn own(report: &Map<String, Value>) -> Option<(&str, Shown<'_>)> {
    if report.keys().any(|name| !["host", "seen", "app", "platform"].contains(&&**name)) {
        return None;
    }
    let host = self::host(report.get("host")?)?;
    optional(report, "app")?;
    optional(report, "platform")?;
    let seen = texts(report.get("seen"), LONGEST)?;
    Some((host, seen.map_or(Shown::Nothing, Shown::Pin)))
}

fn host(value: &Value) -> Option<&str> {
    let host = value.as_str()?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    ((1..=254).contains(&host.len()) && host.bytes().all(plain)).then_some(host)
}

/// A text that need not be there: `None` if it is something else.
fn optional(report: &Map<String, Value>, name: &str) -> Option<()> {
    match report.get(name) {
        None | Some(Value::Null) => Some(()),
        Some(value) => value.as_str().filter(|text| text.len() <= LONGEST).map(drop),
    }
}

/// The first of a list of texts, if there is a list and it is not empty; `None` if it is something else.
fn texts(value: Option<&Value>, longest: usize) -> Option<Option<&str>> {
    let Some(value) = value else { return Some(None) };
    let list = value.as_array().filter(|list| list.len() <= MOST)?;
    let good = |one: &Value| one.as_str().is_some_and(|text| text.len() <= longest);
    list.iter().all(good).then(|| list.first().and_then(Value::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(report: &Value) -> Option<String> {
        let object = strict_json::object(report.to_string().as_bytes())?;
        let (host, shown) = read(&object)?;
        Some(match shown {
            Shown::Certificate(pem) => format!("{host} certificate {pem}"),
            Shown::Pin(pin) => format!("{host} pin {pin}"),
            Shown::Nothing => host.to_owned(),
        })
    }

    #[test]
    fn both_forms_are_read() {
        let own =
            json!({ "host": "api.example.com", "seen": ["abc", "def"], "app": "1.2", "platform": "ios" });
        assert_eq!(said(&own).unwrap(), "api.example.com pin abc");
        assert_eq!(said(&json!({ "host": "a" })).unwrap(), "a");
        let library = json!({
            "app-bundle-id": "com.example.app", "app-version": "1.2", "app-vendor-id": "599F9C00", "app-platform": "IOS",
            "trustkit-version": "3.0.4", "hostname": "api.example.com", "port": 443, "noted-hostname": "example.com",
            "include-subdomains": true, "enforce-pinning": true, "validation-result": 1,
            "date-time": "2026-08-23T22:15:58Z", "known-pins": ["pin-sha256=\"abc\""],
            "validated-certificate-chain": ["leaf", "root"],
        });
        assert_eq!(said(&library).unwrap(), "api.example.com certificate leaf");
        let mut rfc = json!({ "hostname": "a", "served-certificate-chain": ["served"], "known-pins": [] });
        assert_eq!(said(&rfc).unwrap(), "a certificate served");
        rfc["served-certificate-chain"] = json!([]);
        assert_eq!(said(&rfc).unwrap(), "a");
    }

    #[test]
    fn what_is_neither_is_refused() {
        for bad in [
            json!({}),
            json!({ "host": 1 }),
            json!({ "host": "" }),
            json!({ "host": "a b" }),
            json!({ "host": "a", "other": 1 }),
            json!({ "host": "a", "seen": "abc" }),
            json!({ "host": "a", "seen": [1] }),
            json!({ "host": "a", "app": {} }),
            json!({ "host": "a", "app": "x".repeat(513) }),
            json!({ "hostname": "a", "port": 65_536 }),
            json!({ "hostname": "a", "port": "443" }),
            json!({ "hostname": "a", "date-time": 1 }),
            json!({ "hostname": "a", "known-pins": [1] }),
            json!({ "hostname": "a", "validated-certificate-chain": vec!["x"; 65] }),
        ] {
            assert_eq!(said(&bad), None, "{bad}");
        }
        assert!(strict_json::object(br#"{"host":"a","host":"b"}"#).is_none());
    }
}
