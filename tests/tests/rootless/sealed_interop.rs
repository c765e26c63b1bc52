//! Encrypted bodies that other people's libraries make and open, in Python and Node. `cargo xtask setup` installs them; not run where
//! they are not, unless `ENFORCER_REQUIRE_CLIENTS` is set.
#![allow(clippy::unwrap_used, reason = "a test stops")]

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context as _, Result};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use enforcer::sealed::{
    Head, Keys, Opened, Place, Refused, hpke, jwe,
    keys::{Curve, Private, Public},
    layout,
};
use serde_json::Value;

use super::{
    interop::{is_there, node, python, said, script},
    payload::House,
};

const PLACE: Place<'static> = Place { method: "POST", path: "/v1/transfers" };
const BODY: &str = r#"{"amount": "100 €"}"#;
const KIND: &str = "application/json";
const HEAD: Head<'static> = Head { status: 201, kind: KIND };
const MOST: usize = 4096;

fn keys() -> Keys {
    let key = |curve| {
        let key = Private::generate(curve).unwrap();
        (key.public().thumbprint(), key)
    };
    Keys::new(vec![key(Curve::P256), key(Curve::X25519)]).unwrap()
}

fn open(sent: &Value, body: &[u8], keys: &Keys, place: Place<'_>) -> Result<Opened, Refused> {
    match sent["form"].as_str().unwrap() {
        "jwe" => jwe::open(body, keys, place, MOST),
        "hpke" => hpke::open(body, keys, place, MOST),
        _ => {
            let app = URL_SAFE_NO_PAD.decode(sent["app"].as_str().unwrap()).unwrap();
            let key = sent["key"].as_str().unwrap();
            let made = sent["made"].as_u64().unwrap();
            layout::open(body, layout::Beside { key, app: &app, made, kind: KIND }, keys, place, MOST)
        }
    }
}

/// What a client sealed is opened here, and the answers there.
async fn there_and_back(client: impl Fn(&[&str]) -> Command, script: &str, forms: &[&str]) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let write = |name: &str, value: &Value| std::fs::write(dir.path().join(name), value.to_string());
    let folder = dir.path().to_str().unwrap();
    let keys = keys();
    write("keys.json", &keys.published())?;
    let sent = said(client(&[script, "seal", folder]), script).await?;
    let sent = sent.as_object().unwrap();
    let mut names: Vec<String> = Vec::new();
    for curve in ["P-256", "X25519"] {
        names.extend(forms.iter().map(|form| format!("{form} {curve}")));
    }
    let mut found: Vec<&String> = sent.keys().collect();
    names.sort();
    found.sort();
    assert_eq!(found, names.iter().collect::<Vec<_>>());
    let (mut answers, mut expected) = (BTreeMap::new(), BTreeMap::new());
    for (name, sent) in sent {
        let body = STANDARD.decode(sent["body"].as_str().unwrap())?;
        let opened = open(sent, &body, &keys, PLACE).with_context(|| name.clone())?;
        assert_eq!((&opened.body[..], &*opened.kind), (BODY.as_bytes(), KIND), "{name}");
        let answer = format!("answer to {name}: €");
        answers.insert(name, STANDARD.encode(opened.reply.seal(HEAD, answer.as_bytes()).unwrap()));
        expected.insert(name, answer);
        // For another path it is nothing, and with another bit.
        let elsewhere = Place { path: "/v1/other", ..PLACE };
        assert_eq!(open(sent, &body, &keys, elsewhere).err(), Some(Refused), "{name}");
        let mut changed = body.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        assert_eq!(open(sent, &changed, &keys, PLACE).err(), Some(Refused), "{name}");
    }
    write("answers.json", &serde_json::to_value(&answers)?)?;
    let read = said(client(&[script, "open", folder]), script).await?;
    assert_eq!(read, serde_json::to_value(&expected)?);
    // A client refuses what is not for it, so that what it read was not by chance.
    let (last, mut others) = (answers.len() - 1, answers.values().cloned().collect::<Vec<_>>());
    others.rotate_left(last);
    let swapped: BTreeMap<_, _> = answers.keys().zip(others).collect();
    write("answers.json", &serde_json::to_value(swapped)?)?;
    assert!(said(client(&[script, "open", folder]), script).await.is_err());
    // Nor what somebody made who read the request's header, and could not open it.
    for (name, sent) in sent.iter().filter(|(name, _)| name.starts_with("jwe")) {
        let forged = forge(&STANDARD.decode(sent["body"].as_str().unwrap())?)?;
        write("answers.json", &serde_json::json!({ name: STANDARD.encode(forged) }))?;
        let error = format!("{:#}", said(client(&[script, "open", folder]), script).await.unwrap_err());
        assert!(error.contains("made by somebody else"), "{name}: {error}");
    }
    Ok(())
}

/// An answer to a JWE from its header alone.
fn forge(request: &[u8]) -> Result<Vec<u8>> {
    let head = URL_SAFE_NO_PAD.decode(request.split(|byte| *byte == b'.').next().unwrap())?;
    let head: Value = serde_json::from_slice(&head)?;
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(head["rpk"][name].as_str().unwrap());
    let to = if head["rpk"]["crv"] == "P-256" {
        Public::new(Curve::P256, &[vec![4], coordinate("x")?, coordinate("y")?].concat())
    } else {
        Public::new(Curve::X25519, &coordinate("x")?)
    };
    let alg = [jwe::Alg::Direct, jwe::Alg::Wrapped].into_iter().find(|alg| head["alg"] == alg.name());
    let mut answer = serde_json::json!({ "epk": "$EPK", "status": HEAD.status, "cty": HEAD.kind });
    for name in ["alg", "enc", "kid", "method", "path", "jti"] {
        answer[name] = head[name].clone();
    }
    let answer = answer.to_string().replace("\"$EPK\"", "$EPK");
    let plain = [&[0; jwe::ECHO], &b"forged"[..]].concat();
    Ok(jwe::seal_as(alg.unwrap(), &to.unwrap(), &answer, &plain).unwrap())
}

#[tokio::test]
async fn bodies_go_to_python_and_back() -> Result<()> {
    if !is_there(python(&["-c", "import cryptography, jwcrypto"]), "jwcrypto for Python").await? {
        return Ok(());
    }
    let forms = ["jwe ECDH-ES", "jwe ECDH-ES+A256KW", "hpke", "layout"];
    there_and_back(python, &script("payload.py"), &forms).await
}

#[tokio::test]
async fn bodies_go_to_node_and_back() -> Result<()> {
    if !is_there(node(&["-e", "require('jose')"]), "jose for Node").await? {
        return Ok(());
    }
    there_and_back(node, &script("payload.cjs"), &["jwe ECDH-ES", "jwe ECDH-ES+A256KW", "layout"]).await
}

/// Through the edge: whoever asks has its keys alone, and a server behind that knows nothing of encryption.
async fn ask(client: impl Fn(&[&str]) -> Command, script: &str, forms: &[&str]) -> Result<()> {
    let house = House::new(|site| {
        std::fs::write(site.dir.path().join("ca.pem"), site.authority.pem()).unwrap();
    })
    .await?;
    let folder = house.edge.site.dir.path().to_str().unwrap().to_owned();
    let port = house.edge.address.port().to_string();
    let found = said(client(&[script, "ask", &folder, &port]), script).await?;
    let mut expected = serde_json::Map::new();
    for (form, curve) in forms.iter().flat_map(|form| ["P-256", "X25519"].map(|curve| (form, curve))) {
        let refused = serde_json::json!([400, "payload_refused"]);
        for method in ["POST", "GET", "HEAD"] {
            let body = match method {
                "POST" => BODY,
                "GET" => "\0\0\0",
                _ => "",
            };
            let outcome = serde_json::json!([200, body, refused, refused]);
            expected.insert(format!("{form} {curve} {method}"), outcome);
        }
    }
    let count = expected.len();
    assert_eq!(found, Value::Object(expected));
    assert_eq!(house.origin.requests(), count, "nothing that was refused reached the server");
    Ok(())
}

#[tokio::test]
async fn a_client_in_python_speaks_with_the_edge() -> Result<()> {
    if !is_there(python(&["-c", "import cryptography, jwcrypto"]), "jwcrypto for Python").await? {
        return Ok(());
    }
    let forms = ["jwe ECDH-ES", "jwe ECDH-ES+A256KW", "hpke", "layout"];
    ask(python, &script("payload.py"), &forms).await
}

#[tokio::test]
async fn a_client_in_node_speaks_with_the_edge() -> Result<()> {
    if !is_there(node(&["-e", "require('jose')"]), "jose for Node").await? {
        return Ok(());
    }
    let forms = ["jwe ECDH-ES", "jwe ECDH-ES+A256KW", "layout"];
    ask(node, &script("payload.cjs"), &forms).await
}
