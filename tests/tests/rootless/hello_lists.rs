//! Lists of names and fingerprints where no program has looked at the hello: refused at the handshake.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::{Context as _, Result};
use enforcer::{
    capture::hello,
    config::{Feature, Fingerprint, ServerName},
    denial::Denial,
};
use enforcer_common::hello::marks::read;
use enforcer_tests::{
    edge::{Edge, NAME, Site},
    hellos,
    origin::Origin,
    packets::Hello,
    tls::{Setup, exchange, s_client},
};

use super::bodies::within;

/// The number of the alert that ended a handshake; `None`: it succeeded.
async fn alert(edge: &Edge, name: Option<&str>) -> Result<Option<String>> {
    let finished = s_client(edge, name, &["-tls1_3"]).await?;
    let number = finished.stderr.lines().find_map(|line| line.split_once("SSL alert number "));
    let done = finished.stdout.lines().any(|line| line.starts_with("New, TLSv1.3"));
    assert!(done || number.is_some(), "{} {}", finished.stdout, finished.stderr);
    Ok(number.map(|(_, number)| number.trim().to_owned()))
}

fn name(text: &str, below: bool) -> ServerName {
    ServerName { name: text.to_owned(), below }
}

#[tokio::test]
async fn listed_names_are_refused_without_a_program_and_a_reload_changes_them() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.kernel.hellos.refuse_names = vec![name("example.org", true)];
    let mut edge = site.start()?;
    // RFC 6066 section 3: 112 is unrecognized_name.
    for refused in ["a.example.org", "A.B.Example.org"] {
        assert_eq!(alert(&edge, Some(refused)).await?.as_deref(), Some("112"), "{refused}");
        assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::TlsRefusedName);
    }
    for served in [Some(NAME), Some("example.org"), None] {
        assert_eq!(alert(&edge, served).await?, None, "{served:?}");
    }
    assert_eq!(edge.metrics.connections.with_label_values(&["tls_refused_name"]).get(), 2);

    let mut config = edge.site.config.clone();
    config.kernel.hellos.refuse_names.clear();
    config.kernel.hellos.only_names = vec![name("a.example.org", false)];
    let policy = edge.policy.load().reload(&config)?;
    edge.policy.store(policy.into());
    assert_eq!(alert(&edge, Some("a.example.org")).await?, None);
    for refused in [Some(NAME), None] {
        assert_eq!(alert(&edge, refused).await?.as_deref(), Some("112"), "{refused:?}");
    }
    config.kernel.dry_run = vec![Feature::HelloNames];
    let policy = edge.policy.load().reload(&config)?;
    edge.policy.store(policy.into());
    assert_eq!(alert(&edge, Some(NAME)).await?, None, "rehearsed");
    assert_eq!(edge.metrics.hellos_rehearsed.with_label_values(&["tls_refused_name"]).get(), 1);
    config.kernel.dry_run.clear();
    config.kernel.allow = vec!["127.0.0.0/8".parse().unwrap()];
    let policy = edge.policy.load().reload(&config)?;
    edge.policy.store(policy.into());
    assert_eq!(alert(&edge, Some(NAME)).await?, None, "nothing stops whom the configuration allows");
    Ok(())
}

/// Padding, pre-shared key, early data, cookie: one client has them in one connection and not in the next.
#[test]
fn what_varies_between_connections_is_not_in_a_fingerprint() {
    let of = |hello: Hello| read(&&*hello.bytes(), 0).unwrap().fingerprint();
    let plain = || Hello::offering(&[0x0304]).with(51, &[7; 40]);
    for kind in [21, 41, 42, 44] {
        assert_eq!(of(plain().with(kind, &[0; 9])), of(plain()), "{kind}");
    }
    assert_ne!(of(plain().with(45, &[1, 1])), of(plain()));
}

#[tokio::test]
async fn a_listed_fingerprint_is_refused_and_other_clients_are_served() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let (_, sent) = hellos::openssl_of("-tls1_3")?;
    let seen = hello::read(&sent).and_then(|hello| hello.fingerprint).context("no fingerprint")?;
    site.config.kernel.hellos.refuse_fingerprints = vec![Fingerprint(u64::from_str_radix(&seen, 16)?)];
    let mut edge = site.start()?;
    // RFC 8446 section 6.2: 49 is access_denied.
    for asked in [NAME, "a.example.org"] {
        assert_eq!(alert(&edge, Some(asked)).await?.as_deref(), Some("49"), "{asked}");
        assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::TlsRefusedFingerprint);
    }
    exchange(&edge, &Setup::default().client(&edge)?).await?;
    assert_eq!(edge.metrics.connections.with_label_values(&["tls_refused_fingerprint"]).get(), 2);
    Ok(())
}
