//! Pins: a rotation from publication to withdrawal with each wrong order refused, forced keys, the switch to a backup, and the document
//! that tells apps.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{collections::BTreeSet, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Result;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use enforcer::{
    config::{Backup, PinDocument, PinEntry, PinSet, PinnedKey, Pins, ServerName},
    pins::{Pin, guard::Refused},
    policy::{Policy, pins::switches},
};
use enforcer_common::ban::FOREVER;
use enforcer_tests::{
    edge::{NAME, Site, certificate},
    origin::Origin,
    pki::{KeyKind, Leaf},
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use rcgen::KeyPair;
use serde_json::Value;

use super::proxies::ban;

pub(super) const DAY: u64 = 86_400;

/// A site with one set of pins for its name: `serving`, out for 100 days, and `backup`, out for 40.
pub(super) struct Shop {
    pub(super) site: Site,
    pub(super) serving: Leaf,
    pub(super) backup: Leaf,
    pub(super) now: u64,
}

pub(super) fn pin(leaf: &Leaf) -> Pin {
    Pin::of_certificate(&leaf.certificate).unwrap()
}

pub(super) fn entry(leaf: &Leaf, published: u64) -> PinEntry {
    PinEntry { key: PinnedKey::Pin(pin(leaf)), published }
}

impl Shop {
    pub(super) fn new(origin: SocketAddr) -> Result<Self> {
        let mut site = Site::new(origin)?;
        let now = enforcer::clock::unix_now();
        let make = |stem| -> Result<Leaf> {
            let leaf = site.authority.issue(&[NAME], KeyKind::P256)?;
            leaf.write(site.dir.path(), stem)?;
            Ok(leaf)
        };
        let (serving, backup) = (make("api")?, make("backup")?);
        let file = |name: &str| site.dir.path().join(name);
        let set = PinSet {
            hosts: vec![ServerName { name: NAME.to_owned(), below: false }],
            pins: vec![entry(&serving, now - 100 * DAY), entry(&backup, now - 40 * DAY)],
            min_overlap: Duration::from_secs(30 * DAY),
            backup: Some(Backup { chain: file("backup.pem"), key: file("backup.key") }),
            force: Vec::new(),
        };
        let switches = file("pin-switches");
        site.config.pins = Pins { sets: [("api".to_owned(), set)].into(), document: None, switches };
        Ok(Self { site, serving, backup, now })
    }

    pub(super) fn leaf(&self) -> Result<Leaf> {
        self.site.authority.issue(&[NAME], KeyKind::P256)
    }

    pub(super) fn serve(&self, leaf: &Leaf) -> Result<()> {
        leaf.write(self.site.dir.path(), "api").map(drop)
    }

    pub(super) fn set(&mut self) -> &mut PinSet {
        self.site.config.pins.sets.get_mut("api").unwrap()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.site.dir.path().join(name)
    }
}

pub(super) fn served(policy: &Policy) -> Vec<Pin> {
    policy.pins().sets[0].served.iter().map(|served| served.pin).collect()
}

/// What the guard says of it.
pub(super) fn refusal(outcome: Result<Policy>) -> String {
    let error = outcome.err().unwrap();
    error
        .downcast_ref::<Refused>()
        .map_or_else(|| format!("no guard: {error:#}"), |refused| refused.text.clone())
}

#[test]
fn a_rotation_goes_one_way_and_every_other_order_is_refused() -> Result<()> {
    let mut shop = Shop::new(([127, 0, 0, 1], 9).into())?;
    let (now, before, backup) = (shop.now, pin(&shop.serving), pin(&shop.backup));
    let policy = Policy::load_at(&shop.site.config, now)?;
    assert_eq!(served(&policy), [before]);
    assert_eq!(policy.pins().sets[0].remarks(now), Vec::<String>::new());

    // A key that nobody knows.
    let next = shop.leaf()?;
    shop.serve(&next)?;
    let text = refusal(policy.reload_at(&shop.site.config, now));
    assert!(text.starts_with("pins.set.api: ") && text.contains(&pin(&next).to_string()), "{text}");
    assert!(text.contains("is in no published pin") && text.contains("`force`"), "{text}");
    // Nor does a start serve it.
    assert!(refusal(Policy::load_at(&shop.site.config, now)).contains("is in no published pin"));

    // Published, and not waited.
    shop.set().pins.push(entry(&next, now));
    for day in [0, 1, 29] {
        let text = refusal(policy.reload_at(&shop.site.config, now + day * DAY));
        assert!(text.contains("is published since") && text.contains("and may be served from"), "{text}");
    }
    assert!(policy.reload_at(&shop.site.config, now + 30 * DAY - 1).is_err());

    // Withdrawn before another one is served.
    shop.serve(&shop.serving)?;
    let policy = policy.reload_at(&shop.site.config, now)?;
    let all = shop.set().pins.clone();
    shop.set().pins.remove(0);
    assert!(refusal(policy.reload_at(&shop.site.config, now + 30 * DAY)).contains("is in no published pin"));
    shop.set().pins = all;

    // Waited, served, withdrawn.
    shop.serve(&next)?;
    let policy = policy.reload_at(&shop.site.config, now + 30 * DAY)?;
    assert_eq!(served(&policy), [pin(&next)]);
    shop.set().pins.remove(0);
    let policy = policy.reload_at(&shop.site.config, now + 60 * DAY)?;
    assert_eq!((served(&policy), policy.pins().sets[0].spares(now + 60 * DAY)), (vec![pin(&next)], 1));

    // There is no way back to what is withdrawn, but by its name.
    shop.serve(&shop.serving)?;
    assert!(refusal(policy.reload_at(&shop.site.config, now + 61 * DAY)).contains("is in no published pin"));
    shop.set().force = vec![backup];
    assert!(policy.reload_at(&shop.site.config, now + 61 * DAY).is_err(), "another one is named");
    shop.set().force = vec![before];
    let policy = policy.reload_at(&shop.site.config, now + 61 * DAY)?;
    assert_eq!(served(&policy), [before]);
    let remarks = policy.pins().sets[0].remarks(now + 61 * DAY);
    assert!(remarks[0].starts_with("FORCED: the served key"), "{remarks:?}");
    Ok(())
}

#[test]
fn what_only_the_files_tell_is_refused_and_warned_of_ahead() -> Result<()> {
    let mut shop = Shop::new(([127, 0, 0, 1], 9).into())?;
    let now = shop.now;
    let good = shop.set().clone();
    let said = |shop: &Shop| format!("{:#}", Policy::load_at(&shop.site.config, now).err().unwrap());
    shop.set().pins[1].published = now + DAY;
    assert!(said(&shop).contains("pins.set.api: pins[1].published is yet to come"), "{}", said(&shop));
    *shop.set() = good.clone();
    shop.set().pins[1].key = PinnedKey::File(shop.path("api.pem"));
    assert!(said(&shop).contains("pins[0] and pins[1] are of one key"), "{}", said(&shop));
    shop.set().pins[1].key = PinnedKey::File(shop.path("api.key"));
    assert!(said(&shop).contains("api.key holds no certificate and no public key"), "{}", said(&shop));
    *shop.set() = good.clone();
    let other = shop.leaf()?;
    shop.set().pins[1] = entry(&other, now - 40 * DAY);
    assert!(
        said(&shop).contains("backup: its key") && said(&shop).contains("add the pin"),
        "{}",
        said(&shop)
    );
    *shop.set() = good.clone();
    shop.set().backup = Some(Backup { chain: shop.path("api.pem"), key: shop.path("api.key") });
    assert!(said(&shop).contains("backup: its key is the one that is served"), "{}", said(&shop));
    *shop.set() = good.clone();
    shop.set().hosts.push(ServerName { name: "other.example.com".to_owned(), below: false });
    assert!(said(&shop).contains("no listener has a certificate for `other.example.com`"), "{}", said(&shop));
    *shop.set() = good.clone();

    let remarks = |shop: &Shop, now| -> Result<Vec<String>> {
        Ok(Policy::load_at(&shop.site.config, now)?.pins().sets[0].remarks(now))
    };
    fs::write(shop.path("backup.key"), "no key")?;
    let found = remarks(&shop, now)?;
    assert!(
        found.len() == 1
            && found[0].starts_with("the backup cannot be used: ")
            && found[0].contains("backup.key"),
        "{found:?}"
    );
    shop.set().backup = None;
    assert_eq!(remarks(&shop, now)?, ["no backup certificate: there is nothing to switch to"]);
    shop.set().pins[1].published = now - 10 * DAY;
    let found = remarks(&shop, now)?;
    assert!(found[0].starts_with("no backup pin of another key is out for long enough"), "{found:?}");
    Ok(())
}

#[test]
fn every_certificate_that_a_host_could_show_is_judged_and_no_other() -> Result<()> {
    let mut shop = Shop::new(([127, 0, 0, 1], 9).into())?;
    let now = shop.now;
    let add = |shop: &mut Shop, stem: &str, names: &[&str]| -> Result<Leaf> {
        let leaf = shop.site.authority.issue(names, KeyKind::Rsa2048)?;
        leaf.write(shop.site.dir.path(), stem)?;
        let certificate = certificate(shop.site.dir.path(), stem);
        shop.site.config.listeners[0].certificates.push(certificate);
        Ok(leaf)
    };
    // RSA beside ECDSA: which one is shown is the client's choice.
    let rsa = add(&mut shop, "rsa", &[NAME])?;
    assert!(refusal(Policy::load_at(&shop.site.config, now)).contains(&pin(&rsa).to_string()));
    shop.set().pins.push(entry(&rsa, now - 40 * DAY));
    let policy = Policy::load_at(&shop.site.config, now)?;
    assert_eq!(served(&policy), [pin(&shop.serving), pin(&rsa)]);
    // Names that nobody pins are free, until somebody does.
    let other = add(&mut shop, "other", &["*.example.org", "example.org"])?;
    policy.reload_at(&shop.site.config, now)?;
    shop.set().hosts.push(ServerName { name: "example.org".to_owned(), below: true });
    assert!(refusal(policy.reload_at(&shop.site.config, now)).contains(&pin(&other).to_string()));
    shop.set().hosts[1] = ServerName { name: "www.example.org".to_owned(), below: false };
    assert!(refusal(policy.reload_at(&shop.site.config, now)).contains(&pin(&other).to_string()));
    shop.set().hosts[1] = ServerName { name: "a.www.example.org".to_owned(), below: false };
    assert!(refusal(policy.reload_at(&shop.site.config, now)).contains("no listener has a certificate"));
    Ok(())
}

#[test]
fn a_switch_replaces_the_certificate_of_its_hosts_alone_and_is_guarded() -> Result<()> {
    let mut shop = Shop::new(([127, 0, 0, 1], 9).into())?;
    let (now, backup) = (shop.now, pin(&shop.backup));
    let policy = Policy::load_at(&shop.site.config, now)?;
    switches::write(&shop.path("pin-switches"), &BTreeSet::from(["api".to_owned()]))?;
    // A start and a reload come to the same.
    for policy in [policy.reload_at(&shop.site.config, now)?, Policy::load_at(&shop.site.config, now)?] {
        assert_eq!((served(&policy), policy.pins().sets[0].is_switched), (vec![backup], true));
    }
    // What is switched to has to be published for as long as anything else.
    shop.set().pins[1].published = now - 29 * DAY;
    assert!(refusal(policy.reload_at(&shop.site.config, now)).contains("is published since"));
    shop.set().pins[1].published = now - 30 * DAY;
    policy.reload_at(&shop.site.config, now)?;
    // A backup for another name would be shown in vain.
    let wrong = shop.site.authority.issue(&["other.example.com"], KeyKind::P256)?;
    wrong.write(shop.site.dir.path(), "backup")?;
    shop.set().pins.push(entry(&wrong, now - 50 * DAY));
    let error = format!("{:#}", policy.reload_at(&shop.site.config, now).err().unwrap());
    assert!(error.contains("is not for `api.example.com`"), "{error}");
    switches::write(&shop.path("pin-switches"), &BTreeSet::new())?;
    assert_eq!(served(&policy.reload_at(&shop.site.config, now)?), [pin(&shop.serving)]);
    Ok(())
}

#[tokio::test]
async fn clients_see_the_backup_as_soon_as_it_is_switched_to() -> Result<()> {
    let origin = Origin::start().await?;
    let shop = Shop::new(origin.address)?;
    let (serving, backup, path) =
        (shop.serving.certificate.clone(), shop.backup.certificate.clone(), shop.path("pin-switches"));
    let edge = shop.site.start()?;
    assert_eq!(edge.certificate(NAME).await?, serving);
    for (names, expected) in [(vec!["api".to_owned()], backup), (Vec::new(), serving)] {
        switches::write(&path, &names.into_iter().collect())?;
        let policy = edge.policy.load().reload(&edge.site.config)?;
        edge.policy.store(policy.into());
        assert_eq!(edge.certificate(NAME).await?, expected);
    }
    Ok(())
}

fn ask(method: &str, path: &str, tag: Option<&str>) -> Request<enforcer_tests::edge::Outgoing> {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(tag) = tag {
        request = request.header("if-none-match", tag);
    }
    request.body(Empty::new().boxed()).unwrap()
}

/// Header and claims of a document that `key` has signed.
fn opened(document: &[u8], key: &KeyPair) -> (Value, Value) {
    let text = std::str::from_utf8(document).unwrap();
    let (signed, signature) = text.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key_raw());
    public.verify(signed.as_bytes(), &signature).unwrap();
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    (part(header), part(claims))
}

#[tokio::test]
async fn apps_get_a_signed_document_that_caches_may_keep() -> Result<()> {
    let origin = Origin::start().await?;
    let mut shop = Shop::new(origin.address)?;
    let key = KeyPair::generate()?;
    fs::write(shop.path("document.key"), key.serialize_pem())?;
    let (pins, now) = ([pin(&shop.serving), pin(&shop.backup)], shop.now);
    shop.site.config.pins.document = Some(PinDocument {
        key: shop.path("document.key"),
        path: "/pins".to_owned(),
        version: 3,
        lifetime: Duration::from_secs(7 * DAY),
    });
    let edge = shop.site.start()?;
    for mut client in edge.clients().await? {
        let response = client.send(ask("GET", "/pins", None)).await?;
        assert_eq!(response.status(), StatusCode::OK);
        let field = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(field("content-type"), "application/jose");
        assert_eq!(field("cache-control"), "public, max-age=3600");
        let tag = field("etag");
        let body = response.into_body().collect().await?.to_bytes();
        let (header, claims) = opened(&body, &key);
        assert_eq!((&header["alg"], &header["typ"]), (&"ES256".into(), &"enforcer-pins+jwt".into()));
        assert_eq!(header["kid"], Pin::of_pem(key.public_key_pem().as_bytes()).unwrap().to_string());
        assert_eq!(claims["version"], 3);
        let (from, to) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
        assert!(from > now - 4 * DAY && from <= now && to == from + 7 * DAY, "{claims}");
        assert_eq!(claims["sets"][0]["hosts"], serde_json::json!([NAME]));
        for (i, pin) in pins.iter().enumerate() {
            assert_eq!(claims["sets"][0]["pins"][i]["sha256"], pin.to_string());
        }
        let again = client
            .send(ask("GET", "/pins", Some(&format!("\"other\", {}", tag.trim_start_matches("W/")))))
            .await?;
        assert_eq!(
            (again.status(), again.headers()["etag"].to_str()?),
            (StatusCode::NOT_MODIFIED, tag.as_str())
        );
        let head = client.send(ask("HEAD", "/pins", None)).await?;
        assert_eq!(head.status(), StatusCode::OK);
        assert_eq!(head.headers()["content-length"], body.len().to_string());
        assert!(head.into_body().collect().await?.to_bytes().is_empty());
        let post = client.send(ask("POST", "/pins", None)).await?;
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(post.headers()["allow"], "GET, HEAD");
        drop(post.into_body().collect().await?);
    }

    // It is signed anew when half of its time is over, and is the same until then.
    let policy = edge.policy.load_full();
    let document = policy.pins().document.as_ref().unwrap();
    let (slot, half) = (now - now % (7 * DAY / 2), 7 * DAY / 2);
    let first = document.current(slot).body.clone();
    assert_eq!(document.current(slot + half - 1).body, first);
    let later = document.current(slot + half).body.clone();
    assert_eq!(opened(&later, &key).1["iat"], slot + half);

    // What changes needs a larger version: apps would not take it otherwise.
    let mut config = edge.site.config.clone();
    assert_eq!(policy.reload(&config)?.pins().document.as_ref().unwrap().current(slot + half).body, later);
    config.pins.sets.get_mut("api").unwrap().pins[1].published -= DAY;
    let error = format!("{:#}", policy.reload(&config).err().unwrap());
    assert!(error.contains("pins.document.version") && error.contains("write 4 or more"), "{error}");
    config.pins.document.as_mut().unwrap().version = 2;
    assert!(policy.reload(&config).is_err());
    config.pins.document.as_mut().unwrap().version = 4;
    let policy = policy.reload(&config)?;
    let body = policy.pins().document.as_ref().unwrap().current(now + 1).body.clone();
    assert_eq!(opened(&body, &key).1["version"], 4);
    // Any other kind of key is refused.
    fs::copy(edge.site.dir.path().join("api.pem"), edge.site.dir.path().join("document.key"))?;
    assert!(policy.reload(&config).is_err());
    Ok(())
}

/// Two nodes that have the same configuration, and one of them after a start: an app that asks one and then the other sees no change.
#[tokio::test]
async fn nodes_with_one_configuration_tell_the_same() -> Result<()> {
    let origin = Origin::start().await?;
    let mut shop = Shop::new(origin.address)?;
    let key = KeyPair::generate()?;
    fs::write(shop.path("document.key"), key.serialize_pem())?;
    let (path, version, lifetime) = ("/pins".to_owned(), 3, Duration::from_secs(7 * DAY));
    let document = PinDocument { key: shop.path("document.key"), path, version, lifetime };
    shop.site.config.pins.document = Some(document);
    let slot = shop.now - shop.now % (7 * DAY / 2);
    let load = |at| -> Result<(Value, http::HeaderValue)> {
        let policy = Policy::load_at(&shop.site.config, at)?;
        let signed = policy.pins().document.as_ref().unwrap().current(at);
        Ok((opened(&signed.body, &key).1, signed.etag.clone()))
    };
    let first = load(slot)?;
    assert_eq!((&first.0["iat"], &first.0["exp"]), (&slot.into(), &(slot + 7 * DAY).into()));
    assert_eq!(load(slot + 3 * DAY)?, first, "hours later");
    let next = load(slot + 7 * DAY / 2)?;
    assert!(next != first && next.0["sets"] == first.0["sets"], "{next:?}");
    // Through a real edge: the tag that one node gave is good at the other one.
    let config = shop.site.config.clone();
    let edge = shop.site.start()?;
    let mut client = edge.http2().await?;
    let response = client.send(ask("GET", "/pins", None)).await?;
    let tag = response.headers()["etag"].to_str()?.to_owned();
    edge.policy.store(Policy::load(&config)?.into());
    let again = client.send(ask("GET", "/pins", Some(&tag))).await?;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    Ok(())
}

/// An app that is kept from new pins could be cut off for good, and a ban ends some day.
#[tokio::test]
async fn a_banned_app_gets_the_document_and_nothing_else() -> Result<()> {
    let origin = Origin::start().await?;
    let mut shop = Shop::new(origin.address)?;
    fs::write(shop.path("document.key"), KeyPair::generate()?.serialize_pem())?;
    let (path, version, lifetime) = ("/pins".to_owned(), 3, Duration::from_secs(7 * DAY));
    let document = PinDocument { key: shop.path("document.key"), path, version, lifetime };
    shop.site.config.pins.document = Some(document);
    shop.site.config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let edge = shop.site.start()?;
    ban(&edge.banned, "203.0.113.7", Some(FOREVER));
    for mut client in edge.clients().await? {
        for (path, expected) in [("/pins", 200), ("/public/x", 403), ("/pins", 200)] {
            let mut request = ask("GET", path, None);
            request.headers_mut().insert("x-forwarded-for", "203.0.113.7".parse()?);
            let answer = client.send(request).await?;
            assert_eq!(answer.status(), expected, "{path}");
            drop(answer.into_body().collect().await?);
        }
    }
    Ok(())
}
