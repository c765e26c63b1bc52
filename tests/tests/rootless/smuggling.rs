//! The smuggling corpus: what is refused, with which code, and that the server behind received nothing but what was accepted.
//! `tests/smuggling/README.md` says how it is written.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use enforcer_tests::{
    edge::{Edge, NAME, Site, upstream},
    frames::{self, END_HEADERS, END_STREAM, fields, frame, kind, preface},
    witness::Witness,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::bodies::within;

/// A case of the corpus.
#[derive(Debug, Default)]
struct Case {
    name: String,
    expect: Vec<String>,
    upstream: Vec<String>,
    bytes: Vec<u8>,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    data: Option<Vec<u8>>,
}

fn corpus(file: &str) -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("smuggling").join(file);
    let mut cases: Vec<Case> = Vec::new();
    for line in fs::read_to_string(&path).unwrap().lines().filter(|line| !line.is_empty()) {
        if line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix("case: ") {
            cases.push(Case { name: name.to_owned(), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().unwrap();
        if let Some(text) = line.strip_prefix("> ") {
            case.bytes.extend(bytes(text));
        } else if let Some(text) = line.strip_prefix("expect: ") {
            case.expect.push(text.to_owned());
        } else if let Some(text) = line.strip_prefix("upstream: ") {
            case.upstream.push(text.to_owned());
        } else if let Some(text) = line.strip_prefix("data: ") {
            case.data = Some(bytes(text));
        } else if let Some((name, value)) = line.strip_prefix(": ").and_then(|field| field.split_once(" = "))
        {
            case.fields.push((bytes(name), bytes(value)));
        } else {
            panic!("{}: {line}", path.display());
        }
    }
    cases
}

/// A text with Rust's escapes; `\xNN` is a byte, `\u{...}` a character.
fn bytes(text: &str) -> Vec<u8> {
    let (mut bytes, mut chars) = (Vec::new(), text.chars());
    while let Some(char) = chars.next() {
        let char = match char {
            '\\' => match chars.next().unwrap() {
                'r' => '\r',
                'n' => '\n',
                't' => '\t',
                '0' => '\0',
                'x' => {
                    let digits: String = chars.by_ref().take(2).collect();
                    char::from(u8::from_str_radix(&digits, 16).unwrap())
                }
                'u' => {
                    let digits: String = chars.by_ref().skip(1).take_while(|char| *char != '}').collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
                }
                other => other,
            },
            char => char,
        };
        bytes.extend(char.encode_utf8(&mut [0; 4]).bytes());
    }
    bytes
}

async fn front(witness: &Witness) -> Result<Edge> {
    let mut site = Site::new(witness.address)?;
    site.config.upstreams.insert("api".to_owned(), upstream(witness.address)?);
    site.start()
}

/// `STATUS` or `STATUS CODE`, for each answer.
fn answers(mut text: &str) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let status = head.get(9..12).unwrap_or("none");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let (body, rest) = rest.split_at(length.map_or(0, |length| length.parse().unwrap()).min(rest.len()));
        found.push(with_code(status, body));
        text = rest;
    }
    if !text.is_empty() {
        found.push(format!("an answer that does not end: {text}"));
    }
    found
}

fn with_code(status: &str, body: &str) -> String {
    let code = body.split_once(r#""code":""#).and_then(|(_, rest)| rest.split_once('"'));
    code.map_or_else(|| status.to_owned(), |(code, _)| format!("{status} {code}"))
}

fn received(witness: &Witness, name: &str) -> Vec<String> {
    let seen = witness.take();
    for request in &seen {
        let (lengths, codings) = (request.values("content-length"), request.values("transfer-encoding"));
        assert!(lengths.len() + codings.len() <= 1, "{name}: {request:?}");
        assert_eq!(request.values("host"), [NAME], "{name}");
    }
    seen.iter().map(enforcer_tests::witness::Seen::summary).collect()
}

#[tokio::test]
async fn smuggled_requests_of_http1_are_refused() -> Result<()> {
    let witness = Witness::start().await?;
    let edge = front(&witness).await?;
    let cases = corpus("http1.txt");
    assert!(cases.len() >= 60, "{}", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let mut stream = edge.tls(NAME, &["http/1.1"]).await?;
        stream.write_all(&case.bytes).await?;
        let mut answer = Vec::new();
        // The server closes without a farewell where it does not trust what follows.
        let _ = within(stream.read_to_end(&mut answer)).await.context(case.name.clone())?;
        let answer = String::from_utf8(answer)?;
        judge(&mut wrong, &case, &answers(&answer), &received(&witness, &case.name));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// All that is wrong is told at once.
fn judge(wrong: &mut Vec<String>, case: &Case, answers: &[String], received: &[String]) {
    if answers != case.expect || received != case.upstream {
        wrong.push(format!("{}: {answers:?}, received {received:?}", case.name));
    }
}

#[tokio::test]
async fn smuggled_requests_of_http2_are_refused() -> Result<()> {
    let witness = Witness::start().await?;
    let edge = front(&witness).await?;
    let mut wrong = Vec::new();
    for case in corpus("http2.txt") {
        let mut stream = edge.tls(NAME, &["h2"]).await?;
        let ends = if case.data.is_none() { END_STREAM } else { 0 };
        let mut bytes = preface();
        bytes.extend(frame(kind::HEADERS, END_HEADERS | ends, 1, &fields(&case.fields)));
        if let Some(data) = &case.data {
            bytes.extend(frame(kind::DATA, END_STREAM, 1, data));
        }
        stream.write_all(&bytes).await?;
        let (mut status, mut body, mut found) = (None, Vec::new(), None);
        while found.is_none() {
            let next = within(frames::next(&mut stream)).await.context(case.name.clone())??;
            let Some(next) = next else { break };
            found = match next.kind {
                kind::RST_STREAM => next.reason().map(|reason| format!("reset {reason}")),
                kind::GOAWAY => next.reason().map(|reason| format!("goaway {reason}")),
                kind::HEADERS | kind::DATA => {
                    status = next.status().or(status);
                    if next.kind == kind::DATA {
                        body.extend_from_slice(&next.payload);
                    }
                    let ended = next.flags & END_STREAM != 0;
                    let status = status.with_context(|| format!("{}: {next:?}", case.name))?;
                    ended.then(|| with_code(&status.to_string(), &String::from_utf8_lossy(&body)))
                }
                _ => None,
            };
        }
        judge(&mut wrong, &case, found.as_slice(), &received(&witness, &case.name));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
