//! Sessions that are resumed: here, on another node with the same keys, across a rotation, and not at all.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer_tests::{
    edge::{Edge, NAME, Site},
    origin::Origin,
    pki::KeyKind,
    tls::{Setup, exchange, run, s_client},
};
use rustls::HandshakeKind::{Full, Resumed};
use tokio::task::JoinSet;

use super::bodies::eventually;

/// A line for a file with ticket keys.
fn key() -> String {
    let mut key = [0; 48];
    aws_lc_rs::rand::fill(&mut key).unwrap();
    STANDARD.encode(key)
}

/// A node: an edge with its own certificate files, for the same authority's clients.
fn node(origin: &Origin, keys: Option<&Path>) -> Result<Edge> {
    let mut site = Site::new(origin.address)?;
    site.config.tls.ticket_keys = keys.map(Path::to_owned);
    site.start()
}

#[tokio::test]
async fn a_session_is_resumed_by_its_own_daemon_also_after_a_reload() -> Result<()> {
    let origin = Origin::start().await?;
    let edge = node(&origin, None)?;
    for old in [false, true] {
        let client = Setup { old, ..Setup::default() }.client(&edge)?;
        assert_eq!(exchange(&edge, &client).await?, (Full, 200));
        assert_eq!(exchange(&edge, &client).await?, (Resumed, 200));
        edge.policy.store(edge.policy.load().reload(&edge.site.config)?.into());
        assert_eq!(exchange(&edge, &client).await?, (Resumed, 200));
    }
    let counted = |labels: [&str; 3]| edge.metrics.handshakes.with_label_values(&labels).get();
    // TLS 1.3 agrees upon a new key even then, TLS 1.2 does not.
    assert_eq!(counted(["1.3", "X25519MLKEM768", "true"]), 2);
    assert_eq!(counted(["1.2", "none", "true"]), 2);
    Ok(())
}

#[tokio::test]
async fn nodes_with_one_key_file_resume_each_others_sessions_while_it_rotates() -> Result<()> {
    let origin = Origin::start().await?;
    let shared = tempfile::tempdir()?;
    let file = shared.path().join("tickets");
    let (old, new) = (key(), key());
    std::fs::write(&file, format!("{old}\n"))?;
    let mut here = node(&origin, Some(&file))?;
    let there = node(&origin, Some(&file))?;
    let stranger = node(&origin, None)?;
    // A client trusts one authority; the nodes have one each, so the name of the first is used for all.
    let client = Setup::default().client(&here)?;
    assert_eq!(exchange(&here, &client).await?, (Full, 200));
    let own = here.address;
    here.address = there.address;
    assert_eq!(exchange(&here, &client).await?, (Resumed, 200), "another node");
    here.address = stranger.address;
    assert!(
        exchange(&here, &client).await.is_err(),
        "no common key: a full handshake, and there its root is unknown"
    );
    here.address = own;

    let reload = || -> Result<()> {
        here.policy.store(here.policy.load().reload(&here.site.config)?.into());
        Ok(())
    };
    let client = Setup::default().client(&here)?;
    exchange(&here, &client).await?;
    std::fs::write(&file, format!("{new}\n{old}\n"))?;
    reload()?;
    assert_eq!(exchange(&here, &client).await?, (Resumed, 200), "the old key still opens");
    std::fs::write(&file, format!("{new}\n"))?;
    reload()?;
    assert_eq!(
        exchange(&here, &client).await?,
        (Resumed, 200),
        "the ticket of the last time is the new key's"
    );
    std::fs::write(&file, format!("{}\n", key()))?;
    reload()?;
    assert_eq!(exchange(&here, &client).await?, (Full, 200));
    std::fs::write(&file, "no key\n")?;
    let error = format!("{:#}", reload().unwrap_err());
    assert!(error.contains("tls.ticket_keys") && error.contains("line 1 is not the base64"), "{error}");
    assert_eq!(exchange(&here, &client).await?, (Resumed, 200), "a bad file changes nothing");
    Ok(())
}

#[tokio::test]
async fn without_tickets_nothing_is_resumed() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.tls.ticket_lifetime = None;
    let edge = site.start()?;
    for old in [false, true] {
        let client = Setup { old, ..Setup::default() }.client(&edge)?;
        for _ in 0..3 {
            assert_eq!(exchange(&edge, &client).await?, (Full, 200));
        }
    }
    Ok(())
}

/// `openssl rand` makes good keys, and `openssl s_client` resumes on another node. 0-RTT is never offered.
#[tokio::test]
async fn openssl_makes_keys_and_resumes() -> Result<()> {
    let origin = Origin::start().await?;
    let shared = tempfile::tempdir()?;
    let file = shared.path().join("tickets");
    let mut command = Command::new("openssl");
    command.args(["rand", "-base64", "48"]);
    std::fs::write(&file, run(command).await?.success("openssl rand")?)?;
    let (here, there) = (node(&origin, Some(&file))?, node(&origin, Some(&file))?);
    let session = shared.path().join("session").display().to_string();
    // TLS 1.2 sends its ticket within the handshake, so a client without a request has it.
    let first = s_client(&here, Some(NAME), &["-tls1_2", "-sess_out", &session]).await?.stdout;
    assert!(
        first.contains("New, TLSv1.2") && first.contains("TLS session ticket lifetime hint: 43200"),
        "{first}"
    );
    let mut there = there;
    there.site.authority = here.site.authority;
    let second = s_client(&there, Some(NAME), &["-tls1_2", "-sess_in", &session]).await?.stdout;
    assert!(second.contains("Reused, TLSv1.2"), "{second}");
    let fresh = s_client(&there, Some("a.example.org"), &["-tls1_2", "-sess_in", &session]).await?;
    assert!(
        !fresh.stdout.contains("Reused"),
        "a session is for one name (RFC 6066 section 3): {}",
        fresh.stdout
    );
    Ok(())
}

/// Certificates and ticket keys change twenty times while clients come, go, stay and resume: nobody notices.
#[tokio::test]
async fn no_request_is_lost_while_certificates_and_keys_change_under_load() -> Result<()> {
    let origin = Origin::start().await?;
    let shared = tempfile::tempdir()?;
    let file = shared.path().join("tickets");
    std::fs::write(&file, key())?;
    let edge = Arc::new(node(&origin, Some(&file))?);
    let over = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for n in 0..4 {
        let (edge, over, served) = (Arc::clone(&edge), Arc::clone(&over), Arc::clone(&served));
        clients.spawn(async move {
            let setup = Setup { old: n % 2 == 1, ..Setup::default() };
            // Two of the four come anew each time, two resume; each has a connection that it keeps.
            let mut config = setup.client(&edge)?;
            let mut kept = edge.http2().await?;
            while !over.load(Relaxed) {
                if n < 2 {
                    config = setup.client(&edge)?;
                }
                let (_, status) = exchange(&edge, &config).await?;
                anyhow::ensure!(status == 200, "status {status}");
                let body = http_body_util::BodyExt::boxed(http_body_util::Empty::new());
                let answer = kept.send(http::Request::get("/public/x").body(body)?).await?;
                anyhow::ensure!(answer.status() == 200, "status {}", answer.status());
                http_body_util::BodyExt::collect(answer.into_body()).await?;
                served.fetch_add(2, Relaxed);
            }
            Ok(())
        });
    }
    for change in 0..20 {
        let kind = if change % 2 == 0 { KeyKind::Rsa2048 } else { KeyKind::P256 };
        edge.site.authority.issue(&[NAME], kind)?.write(edge.site.dir.path(), "api")?;
        std::fs::write(&file, key())?;
        let before = served.load(Relaxed);
        edge.policy.store(edge.policy.load().reload(&edge.site.config)?.into());
        eventually(|| served.load(Relaxed) >= before + 8 || clients.len() < 4).await?;
    }
    over.store(true, Relaxed);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    assert!(served.load(Relaxed) >= 160);
    assert_eq!(edge.metrics.connections.with_label_values(&["tls_handshake"]).get(), 0);
    Ok(())
}
