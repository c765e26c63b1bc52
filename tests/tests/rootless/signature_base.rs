//! The signature base of RFC 9421: its Appendix B, and every kind of component.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer::{
    checks::signature::base::{Message, build},
    config::SignatureScheme,
    policy::signature::Key,
};
use http::{HeaderMap, HeaderName};
use proptest::prelude::*;
use serde_json::Value;
use sfv::{InnerList, List, ListEntry, Parser};

/// A message of the RFC: its first line, and its fields.
struct Text {
    first: Vec<String>,
    headers: HeaderMap,
}

impl Text {
    fn read(text: &str) -> Self {
        let head = text.split("\n\n").next().unwrap();
        let mut lines = head.lines();
        let first = lines.next().unwrap().split(' ').map(str::to_owned).collect();
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            headers.append(name.parse::<HeaderName>().unwrap(), value.trim().parse().unwrap());
        }
        Self { first, headers }
    }

    fn message(&self) -> Message<'_> {
        if self.first[0].starts_with("HTTP/") {
            let status = self.first[1].parse().ok();
            return Message {
                method: None,
                scheme: None,
                authority: None,
                path: "",
                query: None,
                status,
                headers: &self.headers,
            };
        }
        let (path, query) = match self.first[1].split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.first[1].as_str(), None),
        };
        Message {
            method: Some(&self.first[0]),
            scheme: Some("https"),
            authority: self.headers.get("host").map(|host| host.to_str().unwrap()),
            path,
            query,
            status: None,
            headers: &self.headers,
        }
    }
}

/// `("a" "b");c=1`
fn inner(text: &str) -> InnerList {
    let list: List = Parser::new(text).parse().unwrap();
    let Some(ListEntry::InnerList(inner)) = list.into_iter().next() else { unreachable!("{text}") };
    inner
}

fn vectors() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/rfc9421-appendix-b.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// The key of a vector, as its file would have it; RSA is not taken here.
fn key(vectors: &Value, id: &str) -> Option<Key> {
    let text = match id {
        "test-shared-secret" => vectors["secret"].as_str()?,
        id => vectors["keys"][id].as_str()?,
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    fs::write(&path, text).unwrap();
    Some(Key::read(&path, SignatureScheme::Message).unwrap())
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap()
}

#[test]
fn the_examples_of_rfc_9421_give_their_bases_and_signatures() {
    let vectors = vectors();
    let (request, response) = (text(&vectors, "request"), text(&vectors, "response"));
    let mut verified = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let label = text(case, "label");
        let message = match text(case, "message") {
            "test_request" => request,
            "test_response" => response,
            own => own,
        };
        let message = Text::read(message);
        let input = text(case, "signature_input").split_once('=').unwrap().1;
        let base = build(&message.message(), &inner(input));
        let expected = text(case, "signature_base");
        // The RFC's answer has another digest in its base than in its text: it was signed with that one.
        if label == "sig-b24" {
            assert!(base.unwrap().starts_with("\"@status\": 200\n\"content-type\": application/json\n"));
        } else {
            assert_eq!(base.as_deref(), Some(expected), "{label}");
        }
        let Some(key) = key(&vectors, text(case, "keyid")) else { continue };
        assert_eq!(key.algorithm(), text(case, "algorithm"), "{label}");
        let signature = STANDARD.decode(text(case, "signature_b64")).unwrap();
        assert!(key.is_signed(expected.as_bytes(), &signature), "{label}");
        for cut in [&signature[1..], &signature[..signature.len() - 1], &[]] {
            assert!(!key.is_signed(expected.as_bytes(), cut), "{label}: a part of the signature");
        }
        verified += 1;
    }
    assert_eq!(verified, 4, "two of ECDSA, one of HMAC, one of Ed25519");
}

#[test]
fn transformations_that_rfc_9421_allows_keep_a_signature_and_others_break_it() {
    let vectors = vectors();
    let transform = &vectors["transform"];
    let key = key(&vectors, text(transform, "keyid")).unwrap();
    let signature = STANDARD.decode(text(transform, "signature_b64")).unwrap();
    let messages = transform["messages"].as_array().unwrap();
    let holds: Vec<bool> = messages
        .iter()
        .map(|message| {
            let message = Text::read(message.as_str().unwrap());
            let input = message.headers.get("signature-input").unwrap().to_str().unwrap();
            let base = build(&message.message(), &inner(input.split_once('=').unwrap().1)).unwrap();
            key.is_signed(base.as_bytes(), &signature)
        })
        .collect();
    assert_eq!(holds, [true, true, true, true, false, false]);
}

/// The line of a component in a request; `None` where there is no base.
fn line(component: &str) -> Option<String> {
    let text = Text::read(
        "GET /a%2Fb?x=1&Y=a+b%20c&z=&x=2&%C3%A9=%C3%A9 HTTP/1.1\nHost: example.com\nX-Empty:\nX-Two: 1\nX-Two:  2 \n\
         X-Dict: a=1, b=(1 2);q, c\nX-Dict: d=:AQI=:",
    );
    let base = build(&text.message(), &inner(&format!("({component})")))?;
    let (lines, parameters) = base.rsplit_once('\n').unwrap_or(("", &base));
    assert_eq!(parameters, format!("\"@signature-params\": ({component})"));
    Some(lines.strip_prefix(component).unwrap_or(lines).to_owned())
}

#[test]
fn every_kind_of_component_has_one_value_or_none() {
    for (component, value) in [
        (r#""@method""#, Some(": GET")),
        (r#""@scheme""#, Some(": https")),
        (r#""@authority""#, Some(": example.com")),
        (r#""@path""#, Some(": /a%2Fb")),
        (r#""@query""#, Some(": ?x=1&Y=a+b%20c&z=&x=2&%C3%A9=%C3%A9")),
        (r#""@request-target""#, Some(": /a%2Fb?x=1&Y=a+b%20c&z=&x=2&%C3%A9=%C3%A9")),
        (r#""@target-uri""#, Some(": https://example.com/a%2Fb?x=1&Y=a+b%20c&z=&x=2&%C3%A9=%C3%A9")),
        // Decoded as a form is, and encoded anew (section 2.2.8).
        (r#""@query-param";name="Y""#, Some(": a%20b%20c")),
        (r#""@query-param";name="z""#, Some(": ")),
        (r#""@query-param";name="%C3%A9""#, Some(": %C3%A9")),
        (r#""@query-param";name="x""#, None),
        (r#""@query-param";name="y""#, None),
        (r#""@query-param""#, None),
        (r#""@status""#, None),
        (r#""@unknown""#, None),
        (r#""@method";req"#, None),
        (r#""x-two""#, Some(": 1, 2")),
        (r#""x-empty""#, Some(": ")),
        (r#""X-Two""#, None),
        (r#""x-missing""#, None),
        (r#""x-two";bs"#, Some(": :MQ==:, :Mg==:")),
        (r#""x-two";bs=?0"#, None),
        (r#""x-dict";key="a""#, Some(": 1")),
        (r#""x-dict";key="b""#, Some(": (1 2);q")),
        (r#""x-dict";key="c""#, Some(": ?1")),
        (r#""x-dict";key="d""#, Some(": :AQI=:")),
        (r#""x-dict";key="e""#, None),
        (r#""x-two";key="a""#, None),
        (r#""x-dict";sf"#, None),
        (r#""x-dict";req"#, None),
        (r#""x-dict";tr"#, None),
        (r#""x-dict";key="a";bs"#, None),
        (r#""x-dict";unknown"#, None),
        (r#""@method" "@method""#, None),
        (r#""x-two" "x-two";bs"#, Some(r#""x-two": 1, 2|"x-two";bs: :MQ==:, :Mg==:"#)),
        ("x-token", None),
        ("1", None),
        ("", Some("")),
    ] {
        let got = line(component).map(|line| line.replace('\n', "|"));
        assert_eq!(got.as_deref(), value, "{component}");
    }
}

#[test]
fn a_value_that_could_be_read_as_another_line_makes_no_base() {
    let mut headers = HeaderMap::new();
    headers.insert("x-text", http::HeaderValue::from_bytes("caf\u{e9}".as_bytes()).unwrap());
    headers.insert("x-latin", http::HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let message = Message {
        method: Some("GET"),
        scheme: Some("https"),
        authority: Some("example.com"),
        path: "/",
        query: None,
        status: None,
        headers: &headers,
    };
    for component in [r#"("x-text")"#, r#"("x-latin")"#] {
        assert_eq!(build(&message, &inner(component)), None, "{component}");
    }
    assert!(build(&message, &inner(r#"("x-latin";bs)"#)).is_some(), "bytes have one reading");
    // A list without end.
    let many: Vec<String> = (0..65).map(|n| format!("\"x-{n}\"")).collect();
    assert_eq!(build(&message, &inner(&format!("({})", many.join(" ")))), None);
}

proptest! {
    /// Whatever a client sends as `Signature-Input`: no panic, and a base has a line for each component and one more.
    #[test]
    fn a_base_has_one_line_for_each_component(
        names in prop::collection::vec("[\"@;=:()a-z0-9 ?\\\\-]{0,24}", 0..6),
        value in "[ -~\t]{0,40}",
        path in "/[!-~]{0,20}",
        query in prop::option::of("[!-~]{0,30}"),
    ) {
        let mut headers = HeaderMap::new();
        for name in ["a", "x-a", "content-digest"] {
            headers.append(name, value.parse().unwrap());
        }
        let message = Message {
            method: Some("GET"),
            scheme: Some("https"),
            authority: Some("example.com"),
            path: &path,
            query: query.as_deref(),
            status: None,
            headers: &headers,
        };
        let fixed = [r#""@path""#, r#""@query""#, r#""a""#, r#""x-a";bs"#, r#""@query-param";name="a""#];
        let raw = names.join(" ");
        for text in [format!("({raw})"), format!("({} {raw})", fixed.join(" ")), format!("({});{raw}", fixed[0])] {
            let Ok(list) = Parser::new(&text).parse::<List>() else { continue };
            let Some(ListEntry::InnerList(inner)) = list.into_iter().next() else { continue };
            if let Some(base) = build(&message, &inner) {
                prop_assert_eq!(base.lines().count(), inner.items.len() + 1, "{}", base);
            }
        }
    }

    /// Whatever stands in `Content-Digest` or `Signature`: it is read, or refused.
    #[test]
    fn every_field_is_read_or_refused(text in "[ -~]{0,200}") {
        let mut headers = HeaderMap::new();
        headers.insert("x", text.parse().unwrap());
        let message = Message {
            method: Some("GET"), scheme: None, authority: None, path: "/", query: None, status: None, headers: &headers,
        };
        if let Some(base) = build(&message, &inner(r#"("x";key="a")"#)) {
            prop_assert_eq!(base.lines().count(), 2);
        }
    }
}
