//! What a request over HTTP asks a GraphQL server: its documents, and which operation of each.
//!
//! Whatever the server behind might read another way is refused: members and parameters that are not known, or stand twice, other
//! media types and codings. A request without a document (a persisted query by its hash) cannot be judged, and is refused too.

use http::{HeaderMap, header};
use serde_json::{Map, Value};

use crate::{denial::Denial, strict_json};

/// One document and what it is read for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) document: String,
    pub(super) operation: Option<String>,
}

/// The members of a request, which are also the parameters of a query (GraphQL over HTTP, section 5).
const MEMBERS: [&str; 4] = ["query", "operationName", "variables", "extensions"];

/// What `GET` asks.
pub(super) fn of_url(query: Option<&str>) -> Result<Asked, Denial> {
    let query = query.unwrap_or_default();
    // For servers that still separate parameters by it (HTML 4.01 appendix B.2.2).
    if query.contains(';') {
        return Err(Denial::GraphqlMalformed);
    }
    let mut found: [Option<String>; MEMBERS.len()] = Default::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let place = MEMBERS.iter().position(|member| *member == name).ok_or(Denial::GraphqlMalformed)?;
        // The decoder replaces what is not UTF-8; another one may not.
        if found[place].is_some() || value.contains('\u{fffd}') {
            return Err(Denial::GraphqlMalformed);
        }
        found[place] = Some(value.into_owned());
    }
    let [document, operation, ..] = found;
    let operation = operation.filter(|name| !name.is_empty());
    Ok(Asked { document: document.ok_or(Denial::GraphqlMalformed)?, operation })
}

/// What `POST` asks, at most so many requests in one. `query` is the URL's, which must not say anything besides.
pub(super) fn of_body(
    headers: &HeaderMap,
    query: Option<&str>,
    body: &[u8],
    most: usize,
) -> Result<Vec<Asked>, Denial> {
    if query.is_some_and(|query| !query.is_empty()) {
        return Err(Denial::GraphqlMalformed);
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Denial::GraphqlMediaType);
    }
    if is_document(headers)? {
        let document = std::str::from_utf8(body).map_err(|_| Denial::GraphqlMalformed)?;
        return Ok(vec![Asked { document: document.to_owned(), operation: None }]);
    }
    let many = match strict_json::value(body).map_err(|_| Denial::GraphqlMalformed)? {
        Value::Object(one) => return Ok(vec![asked(one)?]),
        Value::Array(many) => many,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(Denial::GraphqlMalformed);
        }
    };
    if many.len() > most {
        return Err(Denial::GraphqlBatch);
    }
    if many.is_empty() {
        return Err(Denial::GraphqlMalformed);
    }
    let one = |one| if let Value::Object(one) = one { asked(one) } else { Err(Denial::GraphqlMalformed) };
    many.into_iter().map(one).collect()
}

/// Whether the body is a document itself, or JSON around one.
fn is_document(headers: &HeaderMap) -> Result<bool, Denial> {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next(), types.next()) else { return Err(Denial::GraphqlMediaType) };
    let text = one.to_str().map_err(|_| Denial::GraphqlMediaType)?;
    let (kind, parameters) = text.split_once(';').unwrap_or((text, ""));
    // RFC 9110 section 8.3.1; JSON in another charset would be read as UTF-8 here, and perhaps not there.
    let parameters = parameters.trim().to_ascii_lowercase();
    if !["", "charset=utf-8", "charset=\"utf-8\""].contains(&parameters.as_str()) {
        return Err(Denial::GraphqlMediaType);
    }
    match kind.trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(false),
        "application/graphql" => Ok(true),
        _ => Err(Denial::GraphqlMediaType),
    }
}

fn asked(mut one: Map<String, Value>) -> Result<Asked, Denial> {
    // Some readers take `Query` for `query`, and some know members by which they find another document.
    if one.keys().any(|name| !MEMBERS.contains(&name.as_str())) {
        return Err(Denial::GraphqlMalformed);
    }
    let Some(Value::String(document)) = one.remove("query") else { return Err(Denial::GraphqlMalformed) };
    let operation = match one.remove("operationName") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name).filter(|name| !name.is_empty()),
        Some(_) => return Err(Denial::GraphqlMalformed),
    };
    Ok(Asked { document, operation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &str, most: usize) -> Result<Vec<String>, Denial> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
        let asked = of_body(&headers, None, body.as_bytes(), most)?;
        let text = |one: Asked| format!("{}/{}", one.operation.unwrap_or_default(), one.document);
        Ok(asked.into_iter().map(text).collect())
    }

    #[test]
    fn bodies_are_read_one_way_or_not_at_all() {
        for (body, expected) in [
            (r#"{"query":"{a}"}"#, "/{a}"),
            (r#"{"query":"{a}","operationName":null,"variables":{"x":1},"extensions":{}}"#, "/{a}"),
            (r#"{"operationName":"A","query":"query A{a}"}"#, "A/query A{a}"),
            (r#"{"query":"\u007ba}","operationName":""}"#, "/{a}"),
        ] {
            assert_eq!(json(body, 0), Ok(vec![expected.to_owned()]), "{body}");
        }
        for body in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"query":null}"#,
            r#"{"query":"{a}","query":"{b}"}"#,
            r#"{"query":"{a}","Query":"{b}"}"#,
            r#"{"query":"{a}","documentId":"7"}"#,
            r#"{"query":"{a}","operationName":7}"#,
            r#"{"query":["{a}"]}"#,
            r#"{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"00"}}}"#,
            r#"{"query":"{a}"} {"query":"{b}"}"#,
            "[[]]",
        ] {
            assert_eq!(json(body, 9), Err(Denial::GraphqlMalformed), "{body}");
        }
        let batch = r#"[{"query":"{a}"},{"query":"{b}"}]"#;
        assert_eq!(json(batch, 2).unwrap(), ["/{a}", "/{b}"]);
        assert_eq!(json(batch, 1), Err(Denial::GraphqlBatch));
        assert_eq!(json("[{}]", 0), Err(Denial::GraphqlBatch));
    }

    #[test]
    fn other_media_types_are_refused() {
        let of = |kind: Option<&str>, coding: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(kind) = kind {
                headers.append(header::CONTENT_TYPE, kind.parse().unwrap());
            }
            if let Some(coding) = coding {
                headers.append(header::CONTENT_ENCODING, coding.parse().unwrap());
            }
            of_body(&headers, None, b"{\"query\":\"{a}\"}", 1).map(|asked| asked[0].document.clone())
        };
        for kind in
            ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\""]
        {
            assert_eq!(of(Some(kind), None).unwrap(), "{a}", "{kind}");
        }
        assert_eq!(of(Some("application/graphql"), None).unwrap(), "{\"query\":\"{a}\"}");
        for kind in [
            "text/plain",
            "multipart/form-data; boundary=x",
            "application/json; charset=utf-16",
            "application/x-www-form-urlencoded",
        ] {
            assert_eq!(of(Some(kind), None), Err(Denial::GraphqlMediaType), "{kind}");
        }
        assert_eq!(of(None, None), Err(Denial::GraphqlMediaType));
        assert_eq!(of(Some("application/json"), Some("gzip")), Err(Denial::GraphqlMediaType));
    }

    #[test]
    fn urls_are_read_one_way_or_not_at_all() {
        let of = |query: &str| of_url(Some(query)).map(|asked| (asked.document, asked.operation));
        assert_eq!(of("query=%7Ba%7D"), Ok(("{a}".to_owned(), None)));
        assert_eq!(
            of("operationName=A&query=query+A%7Ba%7D&variables=%7B%7D").unwrap().1,
            Some("A".to_owned())
        );
        for query in [
            "",
            "query",
            "x=1",
            "query=a&query=b",
            "query=a&Query=b",
            "query=a;query=b",
            "query[]=a&query=b",
            "query=%ff",
        ] {
            let refused = of(query) == Err(Denial::GraphqlMalformed) || query == "query" && of(query).is_ok();
            assert!(refused, "{query}: {:?}", of(query));
        }
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
        let said = of_body(&headers, Some("query=%7Bb%7D"), b"{\"query\":\"{a}\"}", 1);
        assert_eq!(said, Err(Denial::GraphqlMalformed), "both in the URL and in the body");
    }
}
