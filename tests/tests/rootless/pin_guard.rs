//! What the pin guard goes by: pins that were written down and not read again with every renewal, and every certificate that a client
//! could be shown, at each listener.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{collections::BTreeSet, fs, net::SocketAddr};

use anyhow::Result;
use enforcer::{
    config::{PinEntry, PinnedKey, ServerName, UnknownName},
    pins::guard::Refused,
    policy::{
        Policy,
        pins::{Served, survey, switches},
    },
};
use enforcer_tests::{
    edge::{NAME, certificate},
    origin::Origin,
    pki::{KeyKind, Leaf},
};

use super::pins::{DAY, Shop, entry, pin, refusal, served};

const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 9);

fn by_file(shop: &Shop, name: &str, published: u64) -> PinEntry {
    PinEntry { key: PinnedKey::File(shop.path(name)), published }
}

fn below(name: &str) -> ServerName {
    ServerName { name: name.to_owned(), below: true }
}

fn exactly(name: &str) -> ServerName {
    ServerName { name: name.to_owned(), below: false }
}

/// Makes a certificate and has the first listener show it, too.
fn add(shop: &mut Shop, stem: &str, names: &[&str], kind: KeyKind) -> Result<Leaf> {
    let leaf = shop.site.authority.issue(names, kind)?;
    leaf.write(shop.site.dir.path(), stem)?;
    let certificate = certificate(shop.site.dir.path(), stem);
    shop.site.config.listeners[0].certificates.push(certificate);
    Ok(leaf)
}

/// A renewal replaces the very file that the pin is read from.
#[test]
fn a_rotation_by_files_never_serves_a_key_that_is_known_by_a_file_alone() -> Result<()> {
    let mut shop = Shop::new(NOWHERE.into())?;
    let now = shop.now;
    let written = shop.set().clone();
    let policy = Policy::load_at(&shop.site.config, now)?;
    shop.set().pins[0] = by_file(&shop, "api.pem", now - 100 * DAY);
    let said = |outcome: Result<Policy>, leaf: &Leaf, day: u64| {
        let (text, pin) = (refusal(outcome), pin(leaf));
        let expected = format!("write `sha256 = \"{pin}\"` in place of `file`");
        assert!(text.contains(&expected) && text.starts_with("pins.set.api: the key "), "{text}");
        assert!(text.contains(&enforcer::pins::day(day)), "{text}");
    };
    // Before the renewal and after it, by a reload and a start.
    said(policy.reload_at(&shop.site.config, now), &shop.serving, now - 100 * DAY);
    let next = shop.leaf()?;
    shop.serve(&next)?;
    said(policy.reload_at(&shop.site.config, now), &next, now - 100 * DAY);
    said(Policy::load_at(&shop.site.config, now), &next, now - 100 * DAY);

    // Nor does a copy help that is replaced with it, as a link or a script has it.
    fs::copy(shop.path("api.pem"), shop.path("copy.pem"))?;
    shop.set().pins[0] = by_file(&shop, "copy.pem", now - 100 * DAY);
    said(Policy::load_at(&shop.site.config, now), &next, now - 100 * DAY);

    // A key that is not served yet may be told by its file. It is no backup until its pin is written down.
    shop.serve(&shop.serving)?;
    next.write(shop.site.dir.path(), "next")?;
    *shop.set() = written;
    let told = by_file(&shop, "next.pem", now - 50 * DAY);
    shop.set().pins.push(told);
    let policy = Policy::load_at(&shop.site.config, now)?;
    let set = &policy.pins().sets[0];
    assert_eq!((served(&policy), set.spares(now)), (vec![pin(&shop.serving)], 1));
    let remark = format!("once apps have it, write `sha256 = \"{}\"` in its place", pin(&next));
    let remarks = set.remarks(now);
    assert!(
        matches!(&remarks[..], [one] if one.starts_with("pins[2] ") && one.ends_with(&remark)),
        "{remarks:?}"
    );
    shop.serve(&next)?;
    said(policy.reload_at(&shop.site.config, now), &next, now - 50 * DAY);
    let (renewed, bad) = policy.renew(&shop.site.config)?;
    assert_eq!(served(&renewed), [pin(&shop.serving)], "the old one is served");
    assert!(bad.iter().any(|error| error.downcast_ref::<Refused>().is_some()), "{bad:?}");
    shop.set().force = vec![pin(&next)];
    assert_eq!(served(&policy.reload_at(&shop.site.config, now)?), [pin(&next)], "by its name");
    shop.set().force.clear();
    shop.set().pins[2] = entry(&next, now - 50 * DAY);
    assert_eq!(served(&policy.reload_at(&shop.site.config, now)?), [pin(&next)]);
    Ok(())
}

/// Noticed long before it is needed: in an emergency nobody wants to be told.
#[test]
fn the_pin_of_a_backup_is_not_read_from_a_file() -> Result<()> {
    let mut shop = Shop::new(NOWHERE.into())?;
    let now = shop.now;
    shop.set().pins[1] = by_file(&shop, "backup.pem", now - 40 * DAY);
    let error = format!("{:#}", Policy::load_at(&shop.site.config, now).err().unwrap());
    let expected = format!("write `sha256 = \"{}\"` in place of `file`", pin(&shop.backup));
    assert!(error.contains("pins.set.api: pins[1].file: ") && error.contains(&expected), "{error}");
    Ok(())
}

#[test]
fn certificates_for_any_name_below_a_pinned_one_are_judged() -> Result<()> {
    let mut shop = Shop::new(NOWHERE.into())?;
    let now = shop.now;
    shop.set().hosts = vec![below("example.com")];
    Policy::load_at(&shop.site.config, now)?;
    for (stem, name) in
        [("wild", "*.eu.example.com"), ("wider", "*.a.b.example.com"), ("deep", "x.y.z.example.com")]
    {
        let leaf = add(&mut shop, stem, &[name], KeyKind::P256)?;
        let text = refusal(Policy::load_at(&shop.site.config, now));
        assert!(text.contains(&pin(&leaf).to_string()), "{name}: {text}");
        shop.site.config.listeners[0].certificates.pop();
    }
    // The name itself is not below itself, and others are others'.
    add(&mut shop, "apex", &["example.com", "www.notexample.com"], KeyKind::P256)?;
    Policy::load_at(&shop.site.config, now)?;
    Ok(())
}

#[test]
fn a_certificate_that_no_client_is_shown_is_not_judged() -> Result<()> {
    let mut shop = Shop::new(NOWHERE.into())?;
    let now = shop.now;
    // The first one of a kind is shown, exact names before wildcards.
    add(&mut shop, "second", &[NAME], KeyKind::P256)?;
    add(&mut shop, "wild", &["*.example.com"], KeyKind::P256)?;
    let policy = Policy::load_at(&shop.site.config, now)?;
    assert_eq!(served(&policy), [pin(&shop.serving)]);
    let list = &mut shop.site.config.listeners[0].certificates;
    list.swap(0, 1);
    assert!(refusal(Policy::load_at(&shop.site.config, now)).contains("is in no published pin"));
    shop.site.config.listeners[0].certificates.swap(0, 1);
    // Another kind is shown to those who understand it alone, whichever name it matches by.
    let rsa = add(&mut shop, "rsa", &["*.example.com"], KeyKind::Rsa2048)?;
    assert!(refusal(Policy::load_at(&shop.site.config, now)).contains(&pin(&rsa).to_string()));
    Ok(())
}

/// A listener whose certificate was replaced by that of another name shows its first one to whoever asks.
#[tokio::test]
async fn a_listener_that_shows_another_name_s_certificate_is_refused() -> Result<()> {
    let origin = Origin::start().await?;
    let mut shop = Shop::new(origin.address)?;
    let other = shop.site.authority.issue(&["other.example.net"], KeyKind::P256)?;
    other.write(shop.site.dir.path(), "other")?;
    let second = enforcer::config::Listener {
        address: SocketAddr::from(([127, 0, 0, 2], 0)),
        certificates: vec![certificate(shop.site.dir.path(), "other")],
        ..shop.site.config.listeners[0].clone()
    };
    shop.site.config.listeners.push(second);
    let text = refusal(Policy::load_at(&shop.site.config, shop.now));
    assert!(text.contains("listener 127.0.0.2:0 has no certificate for `api.example.com`"), "{text}");
    assert!(text.contains("unknown_name = \"refuse\""), "{text}");
    // What nobody is shown cuts nobody off.
    shop.site.config.listeners[1].unknown_name = UnknownName::Refuse;
    let policy = Policy::load_at(&shop.site.config, shop.now)?;
    assert_eq!(served(&policy), [pin(&shop.serving)]);
    // Alone it is not enough: then there is no certificate at all.
    shop.site.config.listeners.swap_remove(0);
    let text = refusal(Policy::load_at(&shop.site.config, shop.now));
    assert!(text.contains("no listener has a certificate for `api.example.com`"), "{text}");
    // With one it is judged by itself.
    shop.site.config.listeners[0].unknown_name = UnknownName::Default;
    let certificates = &mut shop.site.config.listeners[0].certificates;
    certificates.push(certificate(shop.site.dir.path(), "api"));
    Policy::load_at(&shop.site.config, shop.now)?;
    // As clients see it.
    let serving = shop.serving.certificate.clone();
    assert_eq!(shop.site.start()?.certificate(NAME).await?, serving);
    Ok(())
}

#[test]
fn a_backup_is_for_every_name_that_the_set_s_certificates_are_for() -> Result<()> {
    let mut shop = Shop::new(NOWHERE.into())?;
    let now = shop.now;
    shop.set().hosts = vec![below("example.com"), exactly("example.com")];
    let names = ["*.example.com", "example.com", "*.eu.example.com"];
    let own = shop.site.authority.issue(&names, KeyKind::P256)?;
    shop.serve(&own)?;
    shop.set().pins[0] = entry(&own, now - 100 * DAY);
    Policy::load_at(&shop.site.config, now)?;
    switches::write(&shop.path("pin-switches"), &BTreeSet::from(["api".to_owned()]))?;
    for (names, bad) in [
        (&["*.example.com", "example.com"][..], Some("*.eu.example.com")),
        (&["*.example.com", "*.eu.example.com"], Some("example.com")),
        (&["*.eu.example.com", "example.com", "api.example.com"], Some("*.example.com")),
        (&names, None),
    ] {
        let backup = shop.site.authority.issue(names, KeyKind::P256)?;
        backup.write(shop.site.dir.path(), "backup")?;
        shop.set().pins[1] = entry(&backup, now - 40 * DAY);
        let outcome = Policy::load_at(&shop.site.config, now);
        match bad {
            None => assert_eq!(served(&outcome?), [pin(&backup)]),
            Some(name) => {
                let error = format!("{:#}", outcome.err().unwrap());
                assert!(error.contains(&format!("is not for `{name}`")), "{name}: {error}");
            }
        }
    }
    Ok(())
}

/// Whoever mends it looks at what is served: all of it is told, also what comes after the key that is refused.
#[test]
fn what_is_served_is_told_whole_while_it_is_refused() -> Result<()> {
    let mut shop = Shop::new(NOWHERE.into())?;
    let now = shop.now;
    let policy = Policy::load_at(&shop.site.config, now)?;
    // A key that is not published, of a name that stands before the others; and a listener that has none for it.
    shop.set().hosts.insert(0, exactly("a.example.com"));
    let before = add(&mut shop, "a", &["a.example.com"], KeyKind::P256)?;
    let second = enforcer::config::Listener {
        address: SocketAddr::from(([127, 0, 0, 2], 0)),
        certificates: vec![certificate(shop.site.dir.path(), "api")],
        ..shop.site.config.listeners[0].clone()
    };
    shop.site.config.listeners.push(second);
    let survey = survey(&shop.site.config, now)?;
    let pins = |served: &[Served]| served.iter().map(|served| served.pin).collect::<Vec<_>>();
    assert_eq!(pins(&survey.sets[0].served), [pin(&before), pin(&shop.serving)]);
    assert_eq!(survey.sets[0].spares(now), 1, "the served key is no spare");
    assert!(
        matches!(&survey.refused[..], [one] if one.text.contains("listener 127.0.0.2:0")),
        "{:?}",
        survey.refused
    );
    // The same of a configuration that did not make the policy whose state goes on.
    shop.site.config.listeners.pop();
    let (renewed, bad) = policy.renew(&shop.site.config)?;
    assert!(bad.iter().any(|error| error.downcast_ref::<Refused>().is_some()), "{bad:?}");
    assert_eq!(served(&renewed), [pin(&before), pin(&shop.serving)]);
    Ok(())
}
