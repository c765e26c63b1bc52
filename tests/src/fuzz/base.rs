//! Messages and signature inputs as inputs: whatever base is built for them says what the message says, line by line, and can be read in
//! one way alone (RFC 9421 section 2.5).
//!
//! An input is text: the inner list of a signature, a line with method and target, then fields.

use enforcer::checks::signature::base::{Message, build};
use http::{HeaderMap, HeaderName, HeaderValue};
use sfv::{FieldType as _, InnerList, List, ListEntry, Parser};

/// What became of an input: how many lines its base has; `None` where there is none.
#[allow(clippy::panic, reason = "a fuzz target reports by it")]
pub fn judge(input: &[u8]) -> Option<usize> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let covered = inner(std::str::from_utf8(lines.next()?).ok()?)?;
    let target = std::str::from_utf8(lines.next().unwrap_or_default()).ok()?;
    let (method, target) = target.split_once(' ').unwrap_or(("GET", target));
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = (line.get(..colon)?, line.get(colon + 1..).unwrap_or_default());
        // What no parser of HTTP lets through is not asked about.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let message = Message {
        method: Some(method),
        scheme: Some("https"),
        authority: Some("api.example.com"),
        path,
        query,
        status: None,
        headers: &headers,
    };
    let base = build(&message, &covered)?;
    assert_eq!(build(&message, &covered).as_deref(), Some(&*base), "twice the same");
    let lines: Vec<&str> = base.split('\n').collect();
    assert_eq!(
        lines.len(),
        covered.items.len() + 1,
        "a line for each component and one at the end: {base:?}"
    );
    for (line, item) in lines.iter().zip(&covered.items) {
        let identifier = item.serialize();
        let Some(value) = line.strip_prefix(&*identifier).and_then(|rest| rest.strip_prefix(": ")) else {
            panic!("`{line}` is not about {identifier}");
        };
        assert!(value.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte)), "{value:?}");
        if !item.params.is_empty() {
            continue;
        }
        let name = item.bare_item.as_string().map_or("", |name| name.as_str());
        let expected = match name {
            "@method" => Some(method.to_owned()),
            "@query" => Some(format!("?{}", query.unwrap_or_default())),
            "@authority" => Some("api.example.com".to_owned()),
            "@scheme" => Some("https".to_owned()),
            name if name.starts_with('@') => None,
            name => {
                let values = headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("?").trim());
                Some(values.collect::<Vec<_>>().join(", "))
            }
        };
        assert!(expected.is_none_or(|expected| expected == value), "{name} is {value:?}");
    }
    // The last line says what was covered, and nothing else does.
    let said = lines.last().and_then(|line| line.strip_prefix("\"@signature-params\": "));
    assert_eq!(said.and_then(inner).as_ref(), Some(&covered), "{base:?}");
    Some(lines.len())
}

/// `("a" "b");c=1`
fn inner(text: &str) -> Option<InnerList> {
    let list: List = Parser::new(text).parse().ok()?;
    let mut entries = list.into_iter();
    match (entries.next(), entries.next()) {
        (Some(ListEntry::InnerList(inner)), None) => Some(inner),
        _ => None,
    }
}

/// Inputs to begin with: every kind of component, and what attackers send.
pub fn seeds() -> Vec<Vec<u8>> {
    let fields = "host: api.example.com\nx-two: 1\nx-two:  2 \nx-empty:\nx-tab: a\tb\n\
                  x-dict: a=1, b=(1 2);q, c\nx-dict: d=:AQI=:\nx-odd: \u{e9}";
    let target = "POST /a%2Fb?x=1&Y=a+b%20c&z=&x=2";
    let components = [
        r#"();created=1618884473;keyid="k""#,
        r#"("@method" "@authority" "@path" "@query");created=1;nonce="n";keyid="k";alg="ed25519";tag="t""#,
        r#"("@target-uri" "@scheme" "@request-target")"#,
        r#"("@query-param";name="Y" "@query-param";name="z")"#,
        r#"("@query-param";name="x")"#,
        r#"("@status")"#,
        r#"("x-two" "x-empty" "x-tab")"#,
        r#"("x-two";bs)"#,
        r#"("x-dict";key="b" "x-dict";key="c" "x-dict";key="d")"#,
        r#"("x-dict";sf)"#,
        r#"("x-two";req)"#,
        r#"("x-two";bs;key="a")"#,
        r#"("x-odd")"#,
        r#"("x-odd";bs)"#,
        r#"("X-Two")"#,
        r#"("x-two" "x-two")"#,
        r#"("@method" "@method")"#,
        r#"("none")"#,
        r#"("@unknown")"#,
        r#"(method)"#,
        r#"("x\"y")"#,
        r#"("@method"),("@path")"#,
        "(",
        "",
    ];
    let with = |components: &&str| format!("{components}\n{target}\n{fields}").into_bytes();
    let more = [
        "(\"@path\" \"@query\")\nGET \n".to_owned(),
        "(\"@path\" \"@query\")\nGET ?".to_owned(),
        "(\"@method\")\nGE\u{e9} /".to_owned(),
        format!("({})\nGET /", "\"@method\" ".repeat(70)),
        "(\"a\")\nGET /\na: \"@signature-params\": ()\na:".to_owned(),
    ];
    components.iter().map(with).chain(more.map(String::into_bytes)).collect()
}
