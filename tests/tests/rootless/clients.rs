//! Client certificates: who gets in where they are off, optional and required, what a revocation list changes, and that a
//! resumed session is no way around any of it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::Result;
use enforcer::{config::Clients, denial::Denial};
use enforcer_tests::{
    edge::{Edge, NAME, Site},
    origin::Origin,
    pki::{Authority, KeyKind, Leaf},
    tls::{Setup, curl, exchange},
};
use rustls::HandshakeKind;

use super::bodies::within;

/// A site whose clients come from an authority of their own.
struct Devices {
    authority: Authority,
    site: Site,
}

impl Devices {
    async fn new(origin: &Origin, required: bool, revoked: Option<(&[&Leaf], i32)>) -> Result<Self> {
        Self::of(Authority::new("Devices")?, origin, required, revoked)
    }

    fn of(
        authority: Authority,
        origin: &Origin,
        required: bool,
        revoked: Option<(&[&Leaf], i32)>,
    ) -> Result<Self> {
        let mut site = Site::new(origin.address)?;
        let (roots, list) = (site.dir.path().join("devices.pem"), site.dir.path().join("devices.crl"));
        std::fs::write(&roots, authority.pem())?;
        let mut crls = Vec::new();
        if let Some((leaves, year)) = revoked {
            std::fs::write(&list, authority.revoke(leaves, year)?)?;
            crls.push(list);
        }
        site.config.listeners[0].clients = Some(Clients { required, authorities: roots, crls });
        Ok(Self { authority, site })
    }
}

/// Status of an answer to curl with this certificate; 0 where there was none.
async fn status(edge: &Edge, identity: Option<&Leaf>, version: &str) -> Result<u16> {
    let mut words = vec![version.to_owned(), "--tls-max".to_owned(), version.replace("--tlsv", "")];
    if let Some(leaf) = identity {
        let (chain, key) = leaf.write(edge.site.dir.path(), "client")?;
        words.extend(["--cert".to_owned(), chain.display().to_string()]);
        words.extend(["--key".to_owned(), key.display().to_string()]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let answer = curl(edge, "/public/x", &words).await?;
    let status = answer.stdout.lines().next().and_then(|line| line.split_whitespace().nth(1));
    Ok(status.and_then(|status| status.parse().ok()).unwrap_or(0))
}

#[tokio::test]
async fn required_means_a_good_one_or_nothing() -> Result<()> {
    let origin = Origin::start().await?;
    let Devices { authority, site } = Devices::new(&origin, true, None).await?;
    let mut edge = site.start()?;
    let (good, stranger) =
        (authority.issue_client("phone")?, Authority::new("Devices")?.issue_client("phone")?);
    let server = authority.issue(&["phone"], KeyKind::P256)?;
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        assert_eq!(status(&edge, Some(&good), version).await?, 200, "{version}");
        for (who, identity) in
            [("nobody", None), ("a stranger", Some(&stranger)), ("a server", Some(&server))]
        {
            assert_eq!(status(&edge, identity, version).await?, 0, "{who} {version}");
            assert_eq!(
                within(edge.offences.recv()).await?.unwrap().denial,
                Denial::TlsClientCertificate,
                "{who}"
            );
        }
    }
    assert_eq!(edge.metrics.connections.with_label_values(&["tls_client_certificate"]).get(), 6);
    Ok(())
}

#[tokio::test]
async fn optional_takes_none_and_refuses_a_bad_one_and_off_looks_at_none() -> Result<()> {
    let origin = Origin::start().await?;
    let Devices { authority, site } = Devices::new(&origin, false, None).await?;
    let (good, stranger) =
        (authority.issue_client("phone")?, Authority::new("Others")?.issue_client("phone")?);
    let edge = site.start()?;
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        for (identity, expected) in [(None, 200), (Some(&good), 200), (Some(&stranger), 0)] {
            assert_eq!(status(&edge, identity, version).await?, expected, "{version}");
        }
    }
    let edge = Site::new(origin.address)?.start()?;
    assert_eq!(status(&edge, Some(&stranger), "--tlsv1.3").await?, 200);
    Ok(())
}

#[tokio::test]
async fn revocation_fails_closed() -> Result<()> {
    let origin = Origin::start().await?;
    let authority = Authority::new("Devices")?;
    let (good, lost) = (authority.issue_client("phone")?, authority.issue_client("lost")?);
    let Devices { authority, site } = Devices::of(authority, &origin, true, Some((&[&lost], 2100)))?;
    let edge = site.start()?;
    assert_eq!(status(&edge, Some(&good), "--tlsv1.3").await?, 200);
    assert_eq!(status(&edge, Some(&lost), "--tlsv1.3").await?, 0);

    // One more root, but no list of its own.
    let other = Authority::new("Other devices")?;
    let clients = edge.site.config.listeners[0].clients.clone().unwrap();
    std::fs::write(&clients.authorities, authority.pem() + &other.pem())?;
    let reload = || edge.policy.load().reload(&edge.site.config);
    edge.policy.store(reload()?.into());
    assert_eq!(status(&edge, Some(&good), "--tlsv1.3").await?, 200);
    assert_eq!(
        status(&edge, Some(&other.issue_client("x")?), "--tlsv1.3").await?,
        0,
        "nobody tells its state"
    );

    std::fs::write(&clients.crls[0], authority.revoke(&[&lost], 2021)?)?;
    edge.policy.store(reload()?.into());
    assert_eq!(status(&edge, Some(&good), "--tlsv1.3").await?, 0, "the list has run out");

    for (file, text, says) in [
        (&clients.crls[0], "nothing", "holds no certificate revocation list"),
        (&clients.crls[0], "0 no DER", "holds no certificate revocation list"),
        (&clients.authorities, "nothing", "holds no certificate in PEM form"),
    ] {
        let good = std::fs::read(file)?;
        std::fs::write(file, text)?;
        let error = format!("{:#}", reload().unwrap_err());
        assert!(error.contains(says) && error.contains("devices"), "{error}");
        std::fs::write(file, good)?;
    }

    // A list of its own is not held up by a certificate.
    std::fs::write(&clients.crls[0], authority.revoke(&[&good], 2100)?)?;
    std::fs::write(&edge.site.config.listeners[0].certificates[0].chain, "nothing")?;
    let (renewed, errors) = edge.policy.load().renew(&edge.site.config)?;
    assert_eq!(errors.len(), 1, "{errors:?}");
    edge.policy.store(renewed.into());
    assert_eq!(status(&edge, Some(&lost), "--tlsv1.3").await?, 200, "the new list lets it in");
    assert_eq!(status(&edge, Some(&good), "--tlsv1.3").await?, 0, "the new list is in force");
    std::fs::remove_file(&clients.crls[0])?;
    let (_, errors) = edge.policy.load().renew(&edge.site.config)?;
    let says = "devices.crl: there is no such file";
    assert!(errors.iter().any(|error| format!("{error:#}").contains(says)), "{errors:?}");
    Ok(())
}

#[tokio::test]
async fn a_resumed_session_is_no_way_around_a_check() -> Result<()> {
    let origin = Origin::start().await?;
    let authority = Authority::new("Devices")?;
    let phone = authority.issue_client("phone")?;
    let Devices { authority, mut site } = Devices::of(authority, &origin, true, Some((&[], 2100)))?;
    // The same daemon, the same ticket keys, and a second door without certificates.
    let mut open = site.config.listeners[0].clone();
    open.clients = None;
    open.address = "127.0.0.2:0".parse()?;
    site.config.listeners.push(open);
    let mut edge = site.start()?;
    let (strict, open) = (edge.ingress.addresses()[0], edge.ingress.addresses()[1]);
    for old in [false, true] {
        let client = Setup { identity: Some(&phone), old, ..Setup::default() }.client(&edge)?;
        assert_eq!(exchange(&edge, &client).await?, (HandshakeKind::Full, 200));
        assert_eq!(exchange(&edge, &client).await?, (HandshakeKind::Resumed, 200), "{NAME} resumes");

        let anonymous = Setup { old, ..Setup::default() }.client(&edge)?;
        edge.address = open;
        assert_eq!(exchange(&edge, &anonymous).await?, (HandshakeKind::Full, 200));
        assert_eq!(exchange(&edge, &anonymous).await?, (HandshakeKind::Resumed, 200));
        edge.address = strict;
        assert!(exchange(&edge, &anonymous).await.is_err(), "a ticket from the open door opens no other");
        assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::TlsClientCertificate);
    }
    let client = Setup { identity: Some(&phone), ..Setup::default() }.client(&edge)?;
    exchange(&edge, &client).await?;
    let list = edge.site.config.listeners[0].clients.as_ref().unwrap().crls[0].clone();
    std::fs::write(&list, authority.revoke(&[&phone], 2100)?)?;
    edge.policy.store(edge.policy.load().reload(&edge.site.config)?.into());
    assert!(exchange(&edge, &client).await.is_err(), "a revoked client cannot resume");
    Ok(())
}
