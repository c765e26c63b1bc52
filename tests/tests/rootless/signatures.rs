//! HTTP Message Signatures: every line of the checklist for HTTP signatures as a case with the code that it must get.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::denial::Denial;
use enforcer_tests::{
    edge::NAME,
    signing::{Signable, Signer, content_digest, nonce},
};

use super::{
    admit::NOW,
    signers::{ALL, Clients, all, order, parameters},
};

#[tokio::test]
async fn rfc9421_every_line_of_the_checklist_gets_its_code() -> Result<()> {
    use Denial::{
        DigestMalformed, DigestMismatch, SignatureAlgorithm, SignatureBad, SignatureIncomplete,
        SignatureMalformed, SignatureMissing, SignatureStale, SignatureUnknownKey,
    };
    let clients = Clients::new(None)?;
    let sign = |components: &[&str], parameters: &str, signer: &Signer| {
        let mut request = order("/signed/x");
        request.sign_message("sig", components, parameters, signer).unwrap();
        request
    };
    let good = || sign(&ALL, &parameters("ed25519", NOW), &clients.ed25519);
    let at = |at: u64| sign(&ALL, &parameters("ed25519", at), &clients.ed25519);
    let with = |more: &str| sign(&ALL, &format!("{}{more}", parameters("ed25519", NOW)), &clients.ed25519);
    let only = |parameters: String| sign(&ALL, &parameters, &clients.ed25519);
    let covering = |components: &[&str]| sign(components, &parameters("ed25519", NOW), &clients.ed25519);
    let but = |change: &dyn Fn(&mut Signable)| {
        let mut request = good();
        change(&mut request);
        request
    };
    let field = |name: &'static str, value: &str| {
        let mut request = order("/signed/x");
        request.set(name, value);
        request.sign_message("sig", &ALL, &parameters("ed25519", NOW), &clients.ed25519).unwrap();
        request
    };
    let no_body = |components: &[&str]| {
        let mut request = order("/signed/x");
        request.body.clear();
        request.headers.remove("content-digest");
        request.sign_message("sig", components, &parameters("ed25519", NOW), &clients.ed25519).unwrap();
        request
    };
    let swapped = |from: &str, to: &str| {
        but(&|request| {
            let input = request.headers["signature-input"].to_str().unwrap().replace(from, to);
            request.set("signature-input", &input);
        })
    };
    let digest = content_digest(b"{\"n\":1}");
    let nonce_of = |nonce: &str| only(format!(";created={NOW};keyid=\"ed25519\";nonce=\"{nonce}\""));
    let cases: Vec<(&str, Signable, Option<Denial>)> = vec![
        ("good by Ed25519", good(), None),
        ("good by P-256", sign(&ALL, &parameters("p256", NOW), &clients.p256), None),
        ("good by a secret", sign(&ALL, &parameters("secret", NOW), &clients.secret), None),
        ("good without a body", no_body(&ALL[..4]), None),
        ("good with alg", with(";alg=\"ed25519\""), None),
        ("good with expires", with(&format!(";expires={}", NOW + 1)), None),
        ("good with an unknown parameter", with(";x=1"), None),
        (
            "good with more covered",
            {
                let mut request = order("/signed/x");
                request.set("x-device", "7");
                let components = [&ALL[..], &["\"x-device\""]].concat();
                request.sign_message("sig", &components, &parameters("p256", NOW), &clients.p256)?;
                request
            },
            None,
        ),
        // Time and replay.
        ("created 300 s ago", at(NOW - 300), None),
        ("created 301 s ago", at(NOW - 301), Some(SignatureStale)),
        ("created 300 s ahead", at(NOW + 300), None),
        ("created 301 s ahead", at(NOW + 301), Some(SignatureStale)),
        ("created in milliseconds", at(NOW * 1000), Some(SignatureStale)),
        (
            "created missing",
            only(format!(";keyid=\"ed25519\";nonce=\"{}\"", nonce())),
            Some(SignatureIncomplete),
        ),
        (
            "created a string",
            only(format!(";created=\"{NOW}\";keyid=\"ed25519\";nonce=\"{}\"", nonce())),
            Some(SignatureMalformed),
        ),
        (
            "created negative",
            only(format!(";created=-1;keyid=\"ed25519\";nonce=\"{}\"", nonce())),
            Some(SignatureMalformed),
        ),
        ("expired now", with(&format!(";expires={NOW}")), Some(SignatureStale)),
        ("expired before it was made", with(";expires=1"), Some(SignatureStale)),
        ("nonce missing", only(format!(";created={NOW};keyid=\"ed25519\"")), Some(SignatureIncomplete)),
        ("nonce too short to be random", nonce_of("123456789012345"), Some(SignatureMalformed)),
        ("nonce too long", nonce_of(&"n".repeat(257)), Some(SignatureMalformed)),
        ("nonce with a space", nonce_of("1234567890 123456"), Some(SignatureMalformed)),
        // Key and algorithm.
        ("keyid missing", only(format!(";created={NOW};nonce=\"{}\"", nonce())), Some(SignatureIncomplete)),
        ("keyid of nobody", only(parameters("nobody", NOW)), Some(SignatureUnknownKey)),
        ("keyid of another key", only(parameters("p256", NOW)), Some(SignatureBad)),
        ("alg of another key", with(";alg=\"hmac-sha256\""), Some(SignatureAlgorithm)),
        ("alg unknown", with(";alg=\"rot13\""), Some(SignatureAlgorithm)),
        ("alg a token", with(";alg=ed25519"), Some(SignatureMalformed)),
        (
            "the public key as a secret",
            {
                let Signer::Pair(pair) = &clients.ed25519 else { unreachable!() };
                sign(&ALL, &parameters("ed25519", NOW), &Signer::Secret(pair.public_bytes()))
            },
            Some(SignatureBad),
        ),
        // What is covered.
        ("nothing covered", covering(&[]), Some(SignatureIncomplete)),
        ("a required component missing", covering(&ALL[1..]), Some(SignatureIncomplete)),
        (
            "a required one with a parameter",
            {
                sign(
                    &[r#""@method";x"#, ALL[1], ALL[2], ALL[3], ALL[4]],
                    &parameters("ed25519", NOW),
                    &clients.ed25519,
                )
            },
            Some(SignatureIncomplete),
        ),
        ("a component twice", covering(&[&ALL[..], &[ALL[0]]].concat()), Some(SignatureMalformed)),
        (
            "a component that is not there",
            covering(&[&ALL[..], &["\"x-absent\""]].concat()),
            Some(SignatureMalformed),
        ),
        (";req", covering(&[&ALL[..], &["\"content-digest\";req"]].concat()), Some(SignatureMalformed)),
        (";sf", covering(&[&ALL[..], &["\"content-digest\";sf"]].concat()), Some(SignatureMalformed)),
        ("the body not covered", covering(&ALL[..4]), Some(SignatureIncomplete)),
        (
            "one digest covered by ;key",
            covering(&[&ALL[..4], &[r#""content-digest";key="sha-256""#]].concat()),
            Some(SignatureBad),
        ),
        // The body.
        ("another body", but(&|request| request.body = b"{\"n\":2}".to_vec()), Some(DigestMismatch)),
        ("no body any more", but(&|request| request.body.clear()), Some(DigestMismatch)),
        ("a byte more", but(&|request| request.body.push(b' ')), Some(DigestMismatch)),
        ("a body too large", but(&|request| request.body = vec![0; 1_001]), Some(Denial::BodyTooLarge)),
        (
            "another body and its digest",
            but(&|request| {
                request.body = b"{\"n\":2}".to_vec();
                request.set("content-digest", &content_digest(b"{\"n\":2}"));
            }),
            Some(SignatureBad),
        ),
        ("only md5", field("content-digest", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:"), Some(DigestMalformed)),
        ("only unixsum", field("content-digest", "unixsum=30637"), Some(DigestMalformed)),
        ("md5 beside", field("content-digest", &format!("md5=:AAAA:, {digest}")), None),
        (
            "two digests that disagree",
            field("content-digest", &format!("{digest}, sha-512=:{}==:", "A".repeat(86))),
            Some(DigestMismatch),
        ),
        ("a digest too short", field("content-digest", "sha-256=:AAAA:"), Some(DigestMalformed)),
        ("a digest in hexadecimal", field("content-digest", "sha-256=abcd"), Some(DigestMalformed)),
        ("a digest twice", field("content-digest", &format!("{digest}, {digest}")), Some(DigestMalformed)),
        (
            "no digest",
            {
                let mut request = order("/signed/x");
                request.headers.remove("content-digest");
                request.sign_message("sig", &ALL, &parameters("ed25519", NOW), &clients.ed25519)?;
                request
            },
            Some(SignatureMalformed),
        ),
        // The request line.
        ("another method", but(&|request| request.method = "PUT"), Some(SignatureBad)),
        ("another path", but(&|request| request.path = "/signed/y".to_owned()), Some(SignatureBad)),
        (
            "another case of the path",
            but(&|request| request.path = "/signed/X".to_owned()),
            Some(SignatureBad),
        ),
        ("a slash more", but(&|request| request.path = "/signed/x/".to_owned()), Some(SignatureBad)),
        ("an encoded letter", but(&|request| request.path = "/signed/%78".to_owned()), Some(SignatureBad)),
        (
            "another order of the query",
            but(&|request| request.query = Some("b=2&a=1".to_owned())),
            Some(SignatureBad),
        ),
        ("less query", but(&|request| request.query = Some("a=1".to_owned())), Some(SignatureBad)),
        ("no query", but(&|request| request.query = None), Some(SignatureBad)),
        (
            "another host",
            but(&|request| request.authority = "api.example.org".to_owned()),
            Some(SignatureBad),
        ),
        ("another port", but(&|request| request.authority = format!("{NAME}:8443")), Some(SignatureBad)),
        ("the default port", but(&|request| request.authority = format!("{NAME}:443")), None),
        ("the host in capitals", but(&|request| request.authority = NAME.to_uppercase()), None),
        ("a dot at the end of the host", but(&|request| request.authority = format!("{NAME}.")), None),
        // The form.
        ("not signed", order("/signed/x"), Some(SignatureMissing)),
        (
            "signature stripped",
            but(&|request| drop(request.headers.remove("signature"))),
            Some(SignatureMalformed),
        ),
        (
            "input stripped",
            but(&|request| drop(request.headers.remove("signature-input"))),
            Some(SignatureMissing),
        ),
        (
            "another label",
            but(&|request| {
                let signature = request.headers["signature"].to_str().unwrap().replacen("sig=", "gis=", 1);
                request.set("signature", &signature);
            }),
            Some(SignatureMalformed),
        ),
        (
            "the same label twice",
            but(&|request| {
                let input = request.headers["signature-input"].clone();
                request.headers.append("signature-input", input);
            }),
            Some(SignatureMalformed),
        ),
        (
            "two signatures",
            {
                let mut request = good();
                request.sign_message("two", &ALL, &parameters("p256", NOW), &clients.p256)?;
                request
            },
            Some(SignatureMalformed),
        ),
        ("another nonce than the signed one", swapped(";nonce=\"", ";nonce=\"x"), Some(SignatureBad)),
        (
            "another order of components",
            swapped("\"@method\" \"@authority\"", "\"@authority\" \"@method\""),
            Some(SignatureBad),
        ),
        ("not a list", swapped("sig=(", "sig=\"("), Some(SignatureMalformed)),
        ("no dictionary", but(&|request| request.set("signature-input", "((")), Some(SignatureMalformed)),
        (
            "a MAC cut short",
            {
                let mut request = sign(&ALL, &parameters("secret", NOW), &clients.secret);
                let signature = request.headers["signature"].to_str()?.to_owned();
                request.set("signature", &format!("{}=:", &signature[..signature.len() - 6]));
                request
            },
            Some(SignatureBad),
        ),
        ("an empty signature", but(&|request| request.set("signature", "sig=::")), Some(SignatureBad)),
        (
            "too long",
            but(&|request| request.set("signature-input", &format!("a=(\"{}\")", "x".repeat(9_000)))),
            Some(SignatureMalformed),
        ),
        (
            "a field joined otherwise",
            {
                let mut request = order("/signed/x");
                request.set("x-list", "1");
                request.headers.append("x-list", "2".parse()?);
                let components = [&ALL[..], &["\"x-list\""]].concat();
                request.sign_message("sig", &components, &parameters("p256", NOW), &clients.p256)?;
                request.set("x-list", "1,2");
                request
            },
            Some(SignatureBad),
        ),
    ];
    all(&clients, cases).await;
    let once = good();
    assert_eq!(clients.judge(&once).await, None);
    assert_eq!(clients.judge(&once).await, Some(Denial::SignatureReplayed));
    // Used up by a body that is not what was signed: nobody tries bodies against one signature.
    let tried = but(&|request| request.body = b"{\"n\":3}".to_vec());
    assert_eq!(clients.judge(&tried).await, Some(DigestMismatch));
    assert_eq!(clients.judge(&tried).await, Some(Denial::SignatureReplayed));
    Ok(())
}

#[tokio::test]
async fn rfc9421_a_tag_says_which_signature_counts() -> Result<()> {
    let clients = Clients::new(Some("app"))?;
    let sign = |tags: &[Option<&str>]| {
        let mut request = order("/signed/x");
        for (n, tag) in tags.iter().enumerate() {
            let tag = tag.map_or_else(String::new, |tag| format!(";tag=\"{tag}\""));
            let parameters = format!("{}{tag}", parameters("ed25519", NOW));
            request.sign_message(&format!("s{n}"), &ALL, &parameters, &clients.ed25519).unwrap();
        }
        request
    };
    for (tags, expected) in [
        (vec![Some("app")], None),
        (vec![None, Some("app"), Some("proxy")], None),
        (vec![None], Some(Denial::SignatureMissing)),
        (vec![Some("proxy")], Some(Denial::SignatureMissing)),
        (vec![Some("app"), Some("app")], Some(Denial::SignatureMalformed)),
    ] {
        assert_eq!(clients.judge(&sign(&tags)).await, expected, "{tags:?}");
    }
    Ok(())
}
