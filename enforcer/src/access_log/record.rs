//! What a line of the access log says of a request, and in which words.
//!
//! No secret comes here: of the fields of a request only host, agent and referrer, of the query at most its names. Whatever a
//! client chose is escaped and cut, so that it can neither end a line nor begin a false one.

use std::{fmt::Write as _, net::IpAddr};

use aws_lc_rs::digest::{SHA256, digest};
use http::{Uri, Version};
use serde::Serialize;

use crate::{
    capture::moment,
    config::{self, AccessFormat, Query, SubjectAs},
};

/// Bytes of a path that are kept.
const LONGEST_PATH: usize = 2_048;
/// Bytes of other texts of a client that are kept.
const LONGEST: usize = 512;

/// A request and its answer. What is not known is left out.
#[derive(Clone, Debug, Serialize)]
pub struct Record<'a> {
    /// When the request came, RFC 3339 in UTC.
    pub time: String,
    /// As in the answer's problem document and in what the upstream gets.
    pub request_id: String,
    /// The trace that its client says it belongs to (W3C Trace Context).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<&'a str>,
    /// Whether it came before the handshake was complete.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub early_data: bool,
    /// Where it came from.
    pub source: IpAddr,
    /// The method.
    pub method: &'a str,
    /// The host that it named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path as it came, and what is kept of the query.
    pub path: String,
    /// `HTTP/1.1`, `HTTP/2.0`.
    pub protocol: &'static str,
    /// The status of the answer; 499 if the client went before there was one.
    pub status: u16,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'static str>,
    /// The route's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// What limits did to it, as `NAME=RESULT`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// What speaks for somebody in the middle of its connection, 0 to 100, where its route looks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspicion: Option<u8>,
    /// By which signals.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub suspicion_signals: Vec<&'static str>,
    /// Who it is known by: `none`, or `token`, `certificate` and `device`, joined by `+`.
    pub identity: &'static str,
    /// The token's subject, or its hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The verified device: its name where it has shown what it is, else `x5t#S256` of its certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<&'a str>,
    /// What became of asking Google Play for a verdict of this request: `fresh`, `recent`, `cached`, `flagged`, `denied`, `refused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub play: Option<&'static str>,
    /// The fingerprint of its ClientHello.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ja4: Option<&'a str>,
    /// The same as the program sees it, which can be listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// `1.2` or `1.3`.
    pub tls: &'static str,
    /// From the request's head to the end of the answer.
    pub duration_ms: f64,
    /// From forwarding to the head of the upstream's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_ms: Option<f64>,
    /// The server that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    /// Bytes of the answer's body that the client's connection took.
    pub bytes: u64,
    /// Whether that was all of it.
    pub complete: bool,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Where it says it comes from, without the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referer: Option<String>,
}

impl Record<'_> {
    /// The whole line.
    pub fn line(&self, format: AccessFormat, unix_ns: u64) -> Vec<u8> {
        let mut line = Vec::with_capacity(512);
        match format {
            // Only a map with other keys than strings could fail, or a writer that does.
            AccessFormat::Json => drop(serde_json::to_writer(&mut line, self)),
            AccessFormat::Combined => self.combined(unix_ns, &mut line),
        }
        line.push(b'\n');
        line
    }

    /// `source - subject [time] "request" status bytes "referrer" "agent"`, as Apache httpd and nginx write it.
    fn combined(&self, unix_ns: u64, line: &mut Vec<u8>) {
        let quoted = |text: Option<&str>| text.map_or_else(|| "-".to_owned(), escaped);
        let subject = self
            .subject
            .as_deref()
            .map_or_else(|| "-".to_owned(), |text| escaped(text).replace(' ', "\\x20"));
        let text = format!(
            "{} - {subject} [{}] \"{} {} {}\" {} {} \"{}\" \"{}\"",
            self.source,
            moment::common(unix_ns),
            escaped(self.method),
            escaped(&self.path),
            self.protocol,
            self.status,
            self.bytes,
            quoted(self.referer.as_deref()),
            quoted(self.user_agent.as_deref()),
        );
        line.extend_from_slice(text.as_bytes());
    }
}

/// By what a request is known.
pub const fn identity(token: bool, certificate: bool, device: bool) -> &'static str {
    match (token, certificate, device) {
        (false, false, false) => "none",
        (true, false, false) => "token",
        (false, true, false) => "certificate",
        (false, false, true) => "device",
        (true, true, false) => "token+certificate",
        (true, false, true) => "token+device",
        (false, true, true) => "certificate+device",
        (true, true, true) => "token+certificate+device",
    }
}

/// Visible ASCII and spaces; everything else, quotes and backslashes as `\xHH`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\' {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "\\x{byte:02X}");
        }
    }
    escaped
}

/// What a client sent as a field, cut; what is not UTF-8 is replaced.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..LONGEST).unwrap_or(bytes)).into_owned()
}

/// The same of a referrer, whose query is somebody's secret as well.
pub fn referer(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(bytes.len());
    text(&bytes[..end])
}

/// The path and what is kept of the query.
pub fn path(uri: &Uri, query: Query) -> String {
    let mut path = cut(uri.path(), LONGEST_PATH).to_owned();
    if let (Some(text), Query::Redact) = (uri.query(), query) {
        // Without `=` there is no telling whether it is a name or a secret.
        let named = |part: &str| part.split_once('=').map_or("-".to_owned(), |(name, _)| format!("{name}=-"));
        let parts: Vec<String> = cut(text, LONGEST_PATH).split('&').map(named).collect();
        path.push('?');
        path += &parts.join("&");
    }
    path
}

fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// The subject as the configuration wants it.
pub fn subject(subject: &str, how: SubjectAs) -> Option<String> {
    match how {
        SubjectAs::Off => None,
        SubjectAs::Plain => Some(cut(subject, LONGEST).to_owned()),
        SubjectAs::Hash => {
            let hash = digest(&SHA256, subject.as_bytes());
            Some(hash.as_ref().iter().take(16).fold(String::with_capacity(32), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }))
        }
    }
}

/// The name of a version.
pub const fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// Milliseconds with three places.
pub fn milliseconds(duration: std::time::Duration) -> f64 {
    (duration.as_micros() as f64) / 1_000.0
}

/// Whether a request is written down, as far as its number decides.
pub const fn is_sampled(config: &config::AccessLog, number: u32) -> bool {
    number.is_multiple_of(if config.sample == 0 { 1 } else { config.sample })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            time: "2026-01-31T14:03:07.123Z".to_owned(),
            request_id: "0f".to_owned(),
            trace_id: None,
            early_data: false,
            source: "192.0.2.7".parse().unwrap(),
            method: "GET",
            host: None,
            path: "/a\"b\n".to_owned(),
            protocol: "HTTP/1.1",
            status: 403,
            code: Some("scope_missing"),
            route: Some("/a"),
            limits: Vec::new(),
            suspicion: None,
            suspicion_signals: Vec::new(),
            identity: "token",
            subject: Some("who am\ni".to_owned()),
            device: None,
            play: None,
            ja4: None,
            fingerprint: None,
            tls: "1.3",
            duration_ms: 1.25,
            upstream_ms: None,
            upstream: None,
            bytes: 7,
            complete: true,
            user_agent: Some("evil\" 200 1\r\n198.51.100.1 - - caf\u{e9}".to_owned()),
            referer: None,
        }
    }

    #[test]
    fn no_text_of_a_client_ends_a_line_or_a_field() {
        for format in [AccessFormat::Json, AccessFormat::Combined] {
            let line = String::from_utf8(record().line(format, 1_700_000_000_000_000_000)).unwrap();
            assert_eq!(line.matches(['\n', '\r']).count(), 1, "{line}");
            assert!(line.ends_with('\n'));
        }
        let combined =
            String::from_utf8(record().line(AccessFormat::Combined, 1_700_000_000_000_000_000)).unwrap();
        assert_eq!(
            combined,
            "192.0.2.7 - who\\x20am\\x0Ai [14/Nov/2023:22:13:20 +0000] \"GET /a\\x22b\\x0A HTTP/1.1\" 403 7 \"-\" \
             \"evil\\x22 200 1\\x0D\\x0A198.51.100.1 - - caf\\xC3\\xA9\"\n"
        );
        let json = record().line(AccessFormat::Json, 0);
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["path"], &json["code"]), (&"/a\"b\n".into(), &"scope_missing".into()));
        assert!(json.get("device").is_none(), "what is not known is left out");
    }

    #[test]
    fn of_queries_and_referrers_no_value_is_kept() {
        let uri: Uri = "/a/b?token=secret&x=&secret&y=1=2".parse().unwrap();
        assert_eq!(path(&uri, Query::Drop), "/a/b");
        assert_eq!(path(&uri, Query::Redact), "/a/b?token=-&x=-&-&y=-");
        assert_eq!(referer(b"https://a.example/b?token=secret#c"), "https://a.example/b");
        assert_eq!(text(&[b'a'; 10_000]).len(), 512);
        let long: Uri = format!("/{}", "a".repeat(10_000)).parse().unwrap();
        assert_eq!(path(&long, Query::Drop).len(), 2_048);
    }

    #[test]
    fn a_subject_is_hashed_unless_it_may_be_seen() {
        // printf somebody | sha256sum | cut -c -32
        assert_eq!(subject("somebody", SubjectAs::Hash).unwrap().len(), 32);
        assert_eq!(subject("abc", SubjectAs::Hash).unwrap(), "ba7816bf8f01cfea414140de5dae2223");
        assert_eq!(subject("abc", SubjectAs::Plain).unwrap(), "abc");
        assert_eq!(subject("abc", SubjectAs::Off), None);
    }
}
