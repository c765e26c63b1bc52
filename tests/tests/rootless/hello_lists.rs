//! Lists of names and fingerprints where no program has looked at the hello: refused at the handshake.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use anyhow::{Context as _, Result};
use enforcer::{
    bans::projection::{Place, Write},
    capture::hello,
    config::{AllowedPort, Feature, Fingerprint, Kernel, ServerName},
};
use enforcer_common::{ban::Listing, hello::marks::read};
use enforcer_tests::{
    edge::{Edge, NAME, Site},
    hellos,
    origin::Origin,
    packets::Hello,
    tls::{Setup, exchange, s_client},
};

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
    for refused in ["a.example.org", "A.B.Example.org", "a.example.org."] {
        assert_eq!(alert(&edge, Some(refused)).await?.as_deref(), Some("112"), "{refused}");
    }
    for served in [Some(NAME), Some("example.org"), Some("example.org."), None] {
        assert_eq!(alert(&edge, served).await?, None, "{served:?}");
    }
    assert_eq!(edge.metrics.connections.with_label_values(&["tls_refused_name"]).get(), 3);

    let mut config = edge.site.config.clone();
    config.kernel.hellos.refuse_names.clear();
    config.kernel.hellos.only_names = vec![name("a.example.org", false)];
    let policy = edge.policy.load().reload(&config)?;
    edge.policy.store(policy.into());
    for served in ["a.example.org", "A.example.org."] {
        assert_eq!(alert(&edge, Some(served)).await?, None, "{served}");
    }
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
    assert!(edge.offences.try_recv().is_err(), "a refusal by name is no offence, as in the program");
    Ok(())
}

#[tokio::test]
async fn whom_the_program_passes_unjudged_meets_no_list_here() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.kernel.hellos.only_names = vec![name("a.example.org", false)];
    let edge = site.start()?;
    let told = async || alert(&edge, Some(NAME)).await;
    assert_eq!(told().await?.as_deref(), Some("112"));
    let listed = |listing| Write { place: Place::Prefix("127.0.0.0/8".parse().unwrap()), listing };
    edge.banned.apply(&[listed(Some(Listing::ALLOWED))]);
    assert_eq!(told().await?, None, "an operator allows it");
    edge.banned.apply(&[listed(None)]);
    let changed = async |change: &dyn Fn(&mut Kernel, u16)| -> Result<Option<String>> {
        let mut config = edge.site.config.clone();
        let port = config.listeners[0].address.port();
        change(&mut config.kernel, port);
        edge.policy.store(edge.policy.load().reload(&config)?.into());
        told().await
    };
    let source = || "127.0.0.0/8".parse().unwrap();
    let door = |port| AllowedPort { source: source(), port };
    assert_eq!(changed(&|kernel, port| kernel.allow_ports = vec![door(port)]).await?, None);
    let other = changed(&|kernel, port| kernel.allow_ports = vec![door(port ^ 1)]).await?;
    assert_eq!(other.as_deref(), Some("112"), "a door to another port");
    let manage = |kernel: &mut Kernel, port| {
        (kernel.management_ports, kernel.management_from) = (vec![port], vec![source()]);
    };
    assert_eq!(changed(&manage).await?, None);
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
    let edge = site.start()?;
    // RFC 8446 section 6.2: 49 is access_denied.
    for asked in [NAME, "a.example.org"] {
        assert_eq!(alert(&edge, Some(asked)).await?.as_deref(), Some("49"), "{asked}");
    }
    exchange(&edge, &Setup::default().client(&edge)?).await?;
    assert_eq!(edge.metrics.connections.with_label_values(&["tls_refused_fingerprint"]).get(), 2);
    Ok(())
}
