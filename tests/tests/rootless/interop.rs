//! Clients in Python against the edge: proofs and signatures that other people's libraries make. Not run where these libraries are
//! not installed; `ENFORCER_PYTHON` names another interpreter.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{path::Path, process::Command};

use anyhow::Result;
use enforcer_tests::{edge::Site, origin::Origin, signing::Signer, tls::run, tokens::SigningKey};
use serde_json::{Value, json};

use super::signers::add;

fn python(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var("ENFORCER_PYTHON").unwrap_or_else(|_| "python3".to_owned()));
    command.args(words);
    command
}

#[tokio::test]
async fn clients_in_python_are_understood() -> Result<()> {
    let libraries = "import jwt, joserfc, requests, http_message_signatures";
    let installed = run(python(&["-c", libraries])).await;
    if !installed.is_ok_and(|finished| finished.code == Some(0)) {
        println!("not run: pip install pyjwt joserfc requests http-message-signatures");
        return Ok(());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/client.py");
    let script = script.to_str().unwrap();
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let folder = site.dir.path().to_owned();
    let folder = folder.to_str().unwrap();
    let (secret, pair) = (Signer::secret()?, SigningKey::p256("p256")?);
    let (pair, other) = (Signer::Pair(pair), Signer::Pair(SigningKey::ed25519("ed25519")?));
    add(&mut site, [("secret", &secret), ("p256", &pair), ("ed25519", &other)], None)?;
    site.config.replay.store = Some(site.dir.path().join("replay.redb"));
    std::fs::write(site.dir.path().join("ca.pem"), site.authority.pem())?;
    // Its keys take the place of ours.
    run(python(&[script, "keys", folder])).await?.success("client.py keys")?;
    let edge = site.start()?;
    let port = edge.address.port().to_string();
    let said = run(python(&[script, "ask", folder, &port])).await?.success("client.py ask")?;
    let said: Value = serde_json::from_str(&said)?;
    let expected = json!({
        "first": [401, "dpop_nonce"],
        "with nonce": [200, null],
        "again": [401, "dpop_replayed"],
        "as bearer": [401, "dpop_missing"],
        "p256": [200, null], "p256 changed": [401, "signature_bad"],
        "ed25519": [200, null], "ed25519 changed": [401, "signature_bad"],
        "secret": [200, null], "secret changed": [401, "signature_bad"],
        "lines": [200, null], "lines again": [401, "signature_replayed"],
    });
    assert_eq!(said, expected);
    Ok(())
}
