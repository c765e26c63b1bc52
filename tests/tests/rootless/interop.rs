//! Clients as they are written, against the edge: tokens, proofs and signatures that other people's libraries make, in Python and Node, and
//! an OAuth client. `cargo xtask setup` installs them; not run where they are not, unless `ENFORCER_REQUIRE_CLIENTS` is set.
//! `ENFORCER_PYTHON` names another interpreter.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test stops, or says why it is not run")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use enforcer_tests::{
    edge::{Edge, Site},
    origin::Origin,
    signing::Signer,
    tls::run,
    tokens::SigningKey,
};
use serde_json::{Value, json};

use super::{oauth, signers::add};

/// Where setup installs libraries.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/clients")
}

pub(super) fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name).display().to_string()
}

pub(super) fn python(words: &[&str]) -> Command {
    let own = tools().join("python/bin/python");
    let own = if own.is_file() { own } else { "python3".into() };
    let mut command = Command::new(std::env::var_os("ENFORCER_PYTHON").unwrap_or_else(|| own.into()));
    command.args(words);
    command
}

pub(super) fn node(words: &[&str]) -> Command {
    let mut command = Command::new("node");
    command.env("NODE_PATH", tools().join("node_modules")).args(words);
    command
}

/// Whether there is what a client needs.
pub(super) async fn is_there(question: Command, what: &str) -> Result<bool> {
    let is_there = run(question).await.is_ok_and(|finished| finished.code == Some(0));
    let is_needed = std::env::var_os("ENFORCER_REQUIRE_CLIENTS").is_some();
    ensure!(is_there || !is_needed, "{what} cannot be had; run `cargo xtask setup`");
    if !is_there {
        println!("not run: no {what}; `cargo xtask setup` installs them");
    }
    Ok(is_there)
}

/// A site whose clients find its root.
async fn site() -> Result<(Site, Origin, String)> {
    let origin = Origin::start().await?;
    let site = Site::new(origin.address)?;
    std::fs::write(site.dir.path().join("ca.pem"), site.authority.pem())?;
    let folder = site.dir.path().to_str().unwrap().to_owned();
    Ok((site, origin, folder))
}

pub(super) async fn said(command: Command, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&run(command).await?.success(name)?)?)
}

fn port(edge: &Edge) -> String {
    edge.address.port().to_string()
}

#[tokio::test]
async fn clients_in_python_are_understood() -> Result<()> {
    let libraries = "import jwt, joserfc, requests, http_message_signatures";
    if !is_there(python(&["-c", libraries]), "libraries for Python").await? {
        return Ok(());
    }
    let (mut site, _origin, folder) = site().await?;
    let (secret, pair) = (Signer::secret()?, SigningKey::p256("p256")?);
    let (pair, other) = (Signer::Pair(pair), Signer::Pair(SigningKey::ed25519("ed25519")?));
    add(&mut site, [("secret", &secret), ("p256", &pair), ("ed25519", &other)], None)?;
    site.config.replay.store = Some(site.dir.path().join("replay.redb"));
    let script = script("client.py");
    // Its keys take the place of ours.
    run(python(&[&script, "keys", &folder])).await?.success("client.py keys")?;
    let edge = site.start()?;
    let said = said(python(&[&script, "ask", &folder, &port(&edge)]), "client.py ask").await?;
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

#[tokio::test]
async fn an_oauth_client_in_python_is_understood() -> Result<()> {
    if !is_there(python(&["-c", "import authlib, requests"]), "Authlib for Python").await? {
        return Ok(());
    }
    let (mut site, _origin, folder) = site().await?;
    site.config.routes.extend(oauth::routes());
    let edge = site.start()?;
    let said = said(python(&[&script("oauth_client.py"), &folder, &port(&edge)]), "oauth_client.py").await?;
    let expected = json!({
        "authorize": [200, null],
        "without PKCE": [400, "oauth_pkce"],
        "exchange": [200, null, null],
        "without verifier": [400, "oauth_pkce", "invalid_grant"],
        "refresh": [200, null, null],
        "the next": [200, null, null],
        "reused": [400, "oauth_refresh_reused", "invalid_grant"],
        "its line": [401, "token_revoked", "invalid_grant"],
        "password": [400, "oauth_grant", "unsupported_grant_type"],
    });
    assert_eq!(said, expected);
    Ok(())
}

#[tokio::test]
async fn clients_in_node_are_understood() -> Result<()> {
    if !is_there(node(&["-e", "require('jose')"]), "jose for Node").await? {
        return Ok(());
    }
    let (site, _origin, folder) = site().await?;
    let script = script("client.cjs");
    run(node(&[&script, "keys", &folder])).await?.success("client.cjs keys")?;
    let edge = site.start()?;
    let said = said(node(&[&script, "ask", &folder, &port(&edge)]), "client.cjs ask").await?;
    let each = json!({
        "bearer": [200, null],
        "first": [401, "dpop_nonce"],
        "with nonce": [200, null],
        "again": [401, "dpop_replayed"],
        "as bearer": [401, "dpop_missing"],
        "changed": [401, "token_bad_signature"],
    });
    assert_eq!(said, json!({"ES256 ES256": each, "RS256 EdDSA": each}));
    Ok(())
}
