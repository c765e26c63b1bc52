//! Requests that are signed by HMAC over lines: the checklist for HTTP signatures as cases with the codes that they must get.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::denial::Denial;
use enforcer_tests::signing::{Signable, nonce};

use super::{
    admit::NOW,
    signers::{Clients, all, order},
};

#[tokio::test]
async fn hmac_every_line_of_the_checklist_gets_its_code() -> Result<()> {
    use Denial::{
        DigestMalformed, DigestMismatch, SignatureBad, SignatureIncomplete, SignatureMalformed,
        SignatureMissing, SignatureReplayed, SignatureStale, SignatureUnknownKey,
    };
    let clients = Clients::new(None)?;
    let at = |at: u64| {
        let mut request = order("/lines/x");
        request.sign_lines("secret", clients.secret(), at, &nonce());
        request
    };
    let but = |change: &dyn Fn(&mut Signable)| {
        let mut request = at(NOW);
        change(&mut request);
        request
    };
    let field = |name: &'static str, value: &str| but(&|request| request.set(name, value));
    let without = |name: &'static str| but(&|request| drop(request.headers.remove(name)));
    let with_nonce = |nonce: &str| {
        let mut request = order("/lines/x");
        request.sign_lines("secret", clients.secret(), NOW, nonce);
        request
    };
    let mut empty = order("/lines/x");
    (empty.method, empty.query) = ("GET", None);
    empty.body.clear();
    empty.sign_lines("secret", clients.secret(), NOW, &nonce());
    let cases: Vec<(&str, Signable, Option<Denial>)> = vec![
        ("good", at(NOW), None),
        ("good without body and query", empty, None),
        ("300 s ago", at(NOW - 300), None),
        ("301 s ago", at(NOW - 301), Some(SignatureStale)),
        ("300 s ahead", at(NOW + 300), None),
        ("301 s ahead", at(NOW + 301), Some(SignatureStale)),
        ("milliseconds", at(NOW * 1000), Some(SignatureStale)),
        (
            "another time than the signed one",
            field("x-signature-timestamp", &(NOW - 1).to_string()),
            Some(SignatureBad),
        ),
        (
            "the time with a sign",
            field("x-signature-timestamp", &format!("+{NOW}")),
            Some(SignatureMalformed),
        ),
        (
            "the time with a zero in front",
            field("x-signature-timestamp", &format!("0{NOW}")),
            Some(SignatureBad),
        ),
        ("the time empty", field("x-signature-timestamp", ""), Some(SignatureMalformed)),
        ("no time", without("x-signature-timestamp"), Some(SignatureIncomplete)),
        ("no nonce", without("x-signature-nonce"), Some(SignatureIncomplete)),
        ("no key", without("x-signature-key"), Some(SignatureIncomplete)),
        ("no digest", without("x-signature-digest"), Some(SignatureBad)),
        ("not signed", without("x-signature"), Some(SignatureMissing)),
        (
            "two of a field",
            but(&|request| {
                let time = request.headers["x-signature-timestamp"].clone();
                request.headers.append("x-signature-timestamp", time);
            }),
            Some(SignatureMalformed),
        ),
        (
            "two in one line",
            field("x-signature-timestamp", &format!("{NOW}, {NOW}")),
            Some(SignatureMalformed),
        ),
        ("a key of nobody", field("x-signature-key", "nobody"), Some(SignatureUnknownKey)),
        ("another's key", field("x-signature-key", "p256"), Some(SignatureUnknownKey)),
        ("a nonce too short", with_nonce("short"), Some(SignatureMalformed)),
        ("a nonce with a tab", with_nonce("12345678\t12345678"), Some(SignatureMalformed)),
        (
            "a MAC cut short",
            but(&|request| {
                let mac = request.headers["x-signature"].to_str().unwrap()[..32].to_owned();
                request.set("x-signature", &mac);
            }),
            Some(SignatureMalformed),
        ),
        (
            "a MAC in capitals",
            but(&|request| {
                let mac = request.headers["x-signature"].to_str().unwrap().to_ascii_uppercase();
                request.set("x-signature", &mac);
            }),
            Some(SignatureMalformed),
        ),
        ("a MAC that is none", field("x-signature", &"0".repeat(64)), Some(SignatureBad)),
        ("another body", but(&|request| request.body = b"{\"n\":2}".to_vec()), Some(DigestMismatch)),
        ("a body too large", but(&|request| request.body = vec![0; 1_001]), Some(Denial::BodyTooLarge)),
        ("another digest", field("x-signature-digest", &"0".repeat(64)), Some(SignatureBad)),
        ("a digest that is none", field("x-signature-digest", "md5"), Some(DigestMalformed)),
        ("another method", but(&|request| request.method = "PUT"), Some(SignatureBad)),
        ("another path", but(&|request| request.path = "/lines/y".to_owned()), Some(SignatureBad)),
        (
            "another order of the query",
            but(&|request| request.query = Some("b=2&a=1".to_owned())),
            Some(SignatureBad),
        ),
        ("less query", but(&|request| request.query = Some("a=1".to_owned())), Some(SignatureBad)),
        (
            "the query in the path",
            but(&|request| {
                request.path = "/lines/x?a=1&b=2".to_owned();
                request.query = None;
            }),
            Some(SignatureBad),
        ),
    ];
    all(&clients, cases).await;
    let once = at(NOW);
    assert_eq!(clients.judge(&once).await, None);
    assert_eq!(clients.judge(&once).await, Some(SignatureReplayed));
    let mut again = order("/lines/x");
    let used = once.headers["x-signature-nonce"].to_str()?;
    again.sign_lines("secret", clients.secret(), NOW - 10, used);
    assert_eq!(clients.judge(&again).await, Some(SignatureReplayed), "a nonce is good for one request");
    Ok(())
}
