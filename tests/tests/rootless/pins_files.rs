//! Files of pins and certificates that change by themselves: what is bad of one stays as it was, and holds up no other.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::Result;
use enforcer::{
    config::{PinDocument, PinEntry, PinnedKey, ServerName, TokenAlgorithm},
    pins::{Pin, guard::Refused},
    policy::{Policy, pins::switches},
};
use enforcer_tests::{
    edge::certificate,
    pki::{KeyKind, Leaf},
    tokens::{self, SigningKey},
};
use rcgen::KeyPair;

use super::pins::{Shop, entry, pin, served};

const DAY: u64 = 86_400;

/// Files that change by themselves: what the guard refuses stays as it was, and holds up nothing else.
#[test]
fn a_certificate_that_is_refused_holds_up_no_other_file() -> Result<()> {
    let shop = Shop::new(([127, 0, 0, 1], 9).into())?;
    let policy = Policy::load(&shop.site.config)?;
    shop.serve(&shop.leaf()?)?;
    let (renewed, bad) = policy.renew(&shop.site.config)?;
    assert_eq!(served(&renewed), [pin(&shop.serving)], "the old one is served");
    assert!(matches!(&bad[..], [one] if one.downcast_ref::<Refused>().is_some()), "{bad:?}");
    // What comes after the listeners was read again, and the keys of tokens come after them.
    let before = std::fs::read(shop.path("jwks.json"))?;
    std::fs::write(shop.path("jwks.json"), "{}")?;
    let (_, bad) = policy.renew(&shop.site.config)?;
    assert_eq!(bad.len(), 2, "{bad:?}");
    std::fs::write(shop.path("jwks.json"), before)?;
    shop.serve(&shop.serving)?;
    let (_, bad) = renewed.renew(&shop.site.config)?;
    assert!(bad.is_empty(), "{bad:?}");
    Ok(())
}

fn bad(errors: &[anyhow::Error]) -> String {
    errors.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n")
}

/// One file of the pins after the other goes bad: of them everything stays as it was, and the keys of tokens are taken over.
#[test]
fn a_bad_file_of_the_pins_holds_up_no_other() -> Result<()> {
    let mut shop = Shop::new(([127, 0, 0, 1], 9).into())?;
    let spare = shop.leaf()?;
    fs::write(shop.path("spare.pem"), &spare.chain_pem)?;
    fs::write(shop.path("document.key"), KeyPair::generate()?.serialize_pem())?;
    let (file, published) = (shop.path("spare.pem"), shop.now - 40 * DAY);
    shop.set().pins.push(PinEntry { key: PinnedKey::File(file), published });
    let key = shop.path("document.key");
    let (path, lifetime) = ("/pins".to_owned(), Duration::from_secs(7 * DAY));
    shop.site.config.pins.document = Some(PinDocument { key, path, version: 1, lifetime });
    let config = shop.site.config.clone();
    let jwks = config.tokens["main"].keys.file().unwrap().to_owned();
    let mut policy = Policy::load(&config)?;
    let document = |policy: &Policy| policy.pins().document.as_ref().unwrap().current(shop.now).body.clone();
    let first = document(&policy);
    let other = shop.leaf()?;
    for (name, text, said) in [
        ("spare.pem", "no certificate", "holds no certificate and no public key"),
        ("spare.pem", other.chain_pem.as_str(), "holds another key than before"),
        ("document.key", "no key", "pins.document: "),
        ("pin-switches", "\u{0}", ""),
    ] {
        let before = fs::read(shop.path(name)).ok();
        if said.is_empty() {
            // A folder cannot be read, whoever asks.
            fs::create_dir(shop.path(name))?;
        } else {
            fs::write(shop.path(name), text)?;
        }
        let new = SigningKey::p256(&format!("new-{name}"))?;
        fs::write(&jwks, tokens::jwks(&[&new]))?;
        let (renewed, errors) = policy.renew(&config)?;
        let told = bad(&errors);
        assert!(errors.len() == 1 && told.contains("pins.") && told.contains(said), "{name}: {told}");
        let keys = renewed.issuers().next().unwrap().keyring().set();
        assert!(keys.key(Some(&format!("new-{name}")), TokenAlgorithm::Es256).is_some(), "{name}");
        assert_eq!(
            (served(&renewed), document(&renewed)),
            (vec![pin(&shop.serving)], first.clone()),
            "{name}"
        );
        assert!(policy.reload(&config).is_err(), "{name}: who asks gets all or nothing");
        // It is bad until it is good.
        let (renewed, errors) = renewed.renew(&config)?;
        assert_eq!(errors.len(), 1, "{name}: {}", bad(&errors));
        match before {
            Some(before) => fs::write(shop.path(name), before)?,
            None => fs::remove_dir(shop.path(name))?,
        }
        let (renewed, errors) = renewed.renew(&config)?;
        assert!(errors.is_empty(), "{name}: {}", bad(&errors));
        policy = renewed;
    }
    Ok(())
}

/// The same while a set is served by its backup, and when it shall be.
#[test]
fn a_backup_that_goes_bad_is_served_on_and_one_that_is_bad_is_not_switched_to() -> Result<()> {
    let shop = Shop::new(([127, 0, 0, 1], 9).into())?;
    let (config, backup) = (&shop.site.config, pin(&shop.backup));
    let switch = |names: &[&str]| {
        switches::write(&shop.path("pin-switches"), &names.iter().map(|name| (*name).to_owned()).collect())
    };
    let own = Policy::load(config)?;
    let (chain, key) = (fs::read(shop.path("backup.pem"))?, fs::read(shop.path("backup.key"))?);
    let wrong = shop.site.authority.issue(&["other.example.com"], KeyKind::P256)?;
    for name in ["backup.pem", "backup.key", "name"] {
        let spoil = || match name {
            "name" => wrong.write(shop.site.dir.path(), "backup").map(drop),
            name => Ok(fs::write(shop.path(name), "nothing")?),
        };
        let mend = || -> Result<()> {
            fs::write(shop.path("backup.pem"), &chain)?;
            Ok(fs::write(shop.path("backup.key"), &key)?)
        };
        switch(&["api"])?;
        let switched = own.reload(config)?;
        assert_eq!(served(&switched), [backup]);
        // While it is served.
        spoil()?;
        let (renewed, errors) = switched.renew(config)?;
        assert!(!errors.is_empty() && bad(&errors).contains("backup"), "{name}: {}", bad(&errors));
        assert_eq!((served(&renewed), renewed.pins().sets[0].is_switched), (vec![backup], true), "{name}");
        // And before it is.
        switch(&[])?;
        let (renewed, _) = own.renew(config)?;
        switch(&["api"])?;
        let (renewed, errors) = renewed.renew(config)?;
        assert!(
            !errors.is_empty() && bad(&errors).contains("which cannot be used"),
            "{name}: {}",
            bad(&errors)
        );
        let state = (served(&renewed), renewed.pins().sets[0].is_switched);
        assert_eq!(state, (vec![pin(&shop.serving)], false), "{name}");
        mend()?;
        let (renewed, errors) = renewed.renew(config)?;
        assert!(errors.is_empty(), "{name}: {}", bad(&errors));
        assert_eq!(served(&renewed), [backup], "{name}");
    }
    Ok(())
}

/// What the guard refuses of one set stays, and what is for other hosts is taken over; everything that is shown is noted.
#[test]
fn a_refused_set_holds_up_no_other_certificate() -> Result<()> {
    let mut shop = Shop::new(([127, 0, 0, 1], 9).into())?;
    let write = |shop: &Shop, stem: &str, name: &str| -> Result<Leaf> {
        let leaf = shop.site.authority.issue(&[name], KeyKind::P256)?;
        leaf.write(shop.site.dir.path(), stem)?;
        Ok(leaf)
    };
    let names = ["a.example.org", "b.example.org", "c.example.org"];
    let mut before = Vec::new();
    for name in names {
        before.push(write(&shop, name, name)?);
        let certificate = certificate(shop.site.dir.path(), name);
        shop.site.config.listeners[0].certificates.push(certificate);
    }
    let (now, mut set) = (shop.now, shop.set().clone());
    set.backup = None;
    for (name, leaf) in names.iter().zip(&before).take(2) {
        set.hosts = vec![ServerName { name: (*name).to_owned(), below: false }];
        set.pins = vec![entry(leaf, now - 40 * DAY), entry(&shop.backup, now - 40 * DAY)];
        shop.site.config.pins.sets.insert((*name).to_owned(), set.clone());
    }
    let config = shop.site.config.clone();
    let policy = Policy::load(&config)?;
    let of = |policy: &Policy, name: &str| -> Vec<Pin> {
        let set = policy.pins().set(name).unwrap();
        set.served.iter().map(|served| served.pin).collect()
    };
    // Two keys that are in no set, and one that nobody pins.
    let (first, second) = (write(&shop, names[0], names[0])?, write(&shop, names[1], names[1])?);
    write(&shop, names[2], "free.example.org")?;
    let (renewed, errors) = policy.renew(&config)?;
    let told = bad(&errors);
    assert!(errors.len() == 2 && told.contains(&pin(&first).to_string()), "{told}");
    assert!(told.contains(&pin(&second).to_string()), "each set has its own word: {told}");
    for (name, leaf) in names.iter().zip(&before).take(2) {
        assert_eq!(of(&renewed, name), [pin(leaf)], "{name}");
    }
    assert_eq!(of(&renewed, "api"), [pin(&shop.serving)], "what is not refused is noted as well");
    assert!(renewed.serves("free.example.org") && !renewed.serves(names[2]), "it was taken over");
    // One is settled, the other one is not.
    before[0].write(shop.site.dir.path(), names[0])?;
    let (renewed, errors) = renewed.renew(&config)?;
    assert!(errors.len() == 1 && bad(&errors).contains(names[1]), "{}", bad(&errors));
    assert_eq!(of(&renewed, names[1]), [pin(&before[1])]);
    Ok(())
}

#[test]
fn a_file_is_replaced_whatever_its_name_ends_with() -> Result<()> {
    let dir = tempfile::tempdir()?;
    for name in ["pins", "pins.new", "pins.switches"] {
        let path = dir.path().join(name);
        switches::write(&path, &BTreeSet::from(["before".to_owned()]))?;
        // Whoever has the old one open still reads it: nothing was written into it.
        let mut old = fs::File::open(&path)?;
        switches::write(&path, &BTreeSet::from(["after".to_owned()]))?;
        let mut text = String::new();
        std::io::Read::read_to_string(&mut old, &mut text)?;
        assert_eq!(text, "before\n", "{name}");
        assert_eq!(switches::read(&path)?, BTreeSet::from(["after".to_owned()]), "{name}");
    }
    Ok(())
}
