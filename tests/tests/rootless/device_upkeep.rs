//! Devices after they have enrolled: what is revoked, raised or taken away reaches them, operators find and block them by what they have
//! shown, and what an operator says is on the disk. Only hardware, Google and Apple are played.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, path::Path, sync::Arc};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use enforcer::{
    attestation::app_attest,
    checks::devices::{MOST_BYTES, again},
    clock,
    config::{self, BootState, KeySecurity, UnknownDevices},
    control::{devices as operators, wire},
    denial::Denial,
    enrolment::{Device, Evidence},
    metrics::Metrics,
    store::{self, Gauges},
};
use enforcer_tests::{
    attestation::{
        apple::Phone,
        google::{
            PACKAGE,
            device::{Key, Making, Signer},
        },
    },
    edge::Site,
    origin::Origin,
    tokens::SigningKey,
};
use http::HeaderMap;
use serde_json::{Value, json};

use super::{
    admit::NOW,
    android_app::{World, begin, enrol, id, session},
    device_app::{Held, challenge, operate, post},
    shop::{APP, PATH, Shop, denial, furnish, read},
};

const ENROL: &str = "/.well-known/enforcer/enrol";

/// Google's list with one certificate in it.
pub(super) fn list(path: &Path, serial: &str) -> Result<()> {
    let list = json!({ "entries": { serial: { "status": "REVOKED", "reason": "KEY_COMPROMISE" } } });
    Ok(fs::write(path, list.to_string())?)
}

pub(super) fn android(config: &mut config::Config) -> &mut config::AndroidKey {
    config.attestation.as_mut().unwrap().android_key.as_mut().unwrap()
}

fn listed(only: wire::DeviceFilter) -> wire::DeviceCommand {
    wire::DeviceCommand::List { after: None, most: None, blocked: false, only }
}

fn names(answer: &wire::Answer) -> Vec<String> {
    let wire::Answer::Devices(page) = answer else { panic!("{answer:?}") };
    page.rows.iter().map(|row| row.device.clone()).collect()
}

/// A keybox has leaked: whoever has it enrols keys, and Google lists it later.
#[tokio::test]
async fn a_certificate_that_is_revoked_ends_what_has_enrolled_by_it() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    furnish(&mut site, clock::unix_now())?;
    let status = site.dir.path().join("status.json");
    list(&status, "c0ffee")?;
    let world =
        World::furnish(&mut site, |by| by.android_key.as_mut().unwrap().revocations = Some(status.clone()))?;
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    let renew = || -> Result<()> {
        let policy = edge.policy.load().reload(&edge.site.config)?;
        edge.policy.store(Arc::new(policy));
        Ok(())
    };
    let (answer, mut leaked) = enrol(&mut client, &world).await?;
    assert_eq!(answer.status, 201, "{}", answer.body);
    // Another device of the same maker.
    let other = world.maker.middle.sign(&Making { remote: true, ..Making::authority("TEE") })?;
    let (answer, mut honest) = enrol_by(&mut client, &world, &other).await?;
    assert_eq!(answer, 201);
    for app in [&mut leaked, &mut honest] {
        assert_eq!(begin(&mut client, app).await?.status, 200);
        assert_eq!(app.get(&mut client, PATH).await?.status, 200);
    }
    // As Google would never write it, and people do.
    list(&status, &format!("00{}", world.maker.own.serial.to_uppercase()))?;
    renew()?;
    let answer = leaked.get(&mut client, PATH).await?;
    assert_eq!((answer.status, &answer.body["code"]), (403, &json!("attestation_revoked")));
    assert_eq!(begin(&mut client, &mut leaked).await?.body["code"], "attestation_revoked");
    assert_eq!(honest.get(&mut client, PATH).await?.status, 200);
    assert_eq!(begin(&mut client, &mut honest).await?.status, 200);
    let step = ["android-key", "revocation"];
    assert_eq!(edge.metrics.attestations_refused.with_label_values(&step).get(), 1);
    // Operators find who that is, in whatever way the serial number is written.
    let serial = world.maker.own.serial.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    let serial = serial.collect::<Vec<_>>().join(":").to_uppercase();
    let only = wire::DeviceFilter { serial: Some(serial.clone()), ..wire::DeviceFilter::default() };
    let leaked_name = id(&leaked.key).to_string();
    assert_eq!(names(&operate(&edge, listed(only))), [leaked_name.as_str()]);
    let wire::Answer::Device(row) = operate(&edge, wire::DeviceCommand::Show { device: leaked_name.clone() })
    else {
        panic!("no device")
    };
    assert_eq!(row.refused.as_deref(), Some("attestation_revoked"));
    assert!(row.why.unwrap().contains("KEY_COMPROMISE"));
    // Google has taken it back; operators have not.
    list(&status, "c0ffee")?;
    renew()?;
    assert_eq!(leaked.get(&mut client, PATH).await?.status, 200);
    let block = |serial: &str, most| wire::DeviceCommand::BlockAll {
        serial: serial.to_owned(),
        reason: "leaked".to_owned(),
        most,
    };
    let now = clock::unix_now();
    let refused = operators::answer(&edge.policy.load(), block(&world.maker.root.serial, 1), now).await;
    let refused = refused.unwrap_err().message;
    assert!(refused.contains("2 devices") && refused.contains("nothing is blocked"), "{refused}");
    assert_eq!(leaked.get(&mut client, PATH).await?.status, 200);
    let wire::Answer::Done(done) = operate(&edge, block(&serial, 1)) else { panic!("nothing done") };
    assert!(done.message.starts_with("1 devices"), "{}", done.message);
    let answer = leaked.get(&mut client, PATH).await?;
    assert_eq!((answer.status, &answer.body["code"]), (403, &json!("device_blocked")));
    assert_eq!(honest.get(&mut client, PATH).await?.status, 200);
    Ok(())
}

async fn enrol_by(
    client: &mut enforcer_tests::edge::Client,
    world: &World,
    hardware: &Signer,
) -> Result<(u16, Held)> {
    let challenge = challenge(client, "enrol").await?;
    let leaf = hardware.sign(&Making::leaf(Key::new(challenge.as_bytes()).describe()))?;
    let key = SigningKey::of_pkcs8("android", &leaf.pkcs8())?;
    let maker = &world.maker;
    let chain =
        [&leaf.der, &hardware.der, &maker.middle.der, &maker.root.der].map(|der| STANDARD.encode(der));
    let body = json!({ "provider": "android-key", "challenge": challenge, "chain": chain });
    Ok((post(client, ENROL, HeaderMap::new(), &body).await?.status, Held::new(key)))
}

/// Enrols a key of the hardware in a shop whose requests it signs from then on, and begins a session.
fn settle(shop: &mut Shop, world: &World, change: impl FnOnce(&mut Key)) -> String {
    let challenge = shop.challenge("enrol", None, NOW);
    let mut key = Key::new(challenge.as_bytes());
    change(&mut key);
    let (own, body) = world.attest(&challenge, &key).unwrap();
    assert_eq!(denial(shop.send_enrolment(&body, NOW)), None);
    shop.key = own;
    read(&again_in(shop).unwrap())["session"].as_str().unwrap().to_owned()
}

fn again_in(shop: &Shop) -> Result<enforcer::checks::devices::Answer, enforcer::checks::devices::Failed> {
    let challenge = shop.challenge("session", Some(id(&shop.key)), NOW);
    let (headers, body) = session(&shop.key, &challenge, &shop.key, None);
    shop.send_session(&headers, &body, NOW)
}

/// What one part of the configuration is changed to.
type Change<'a> = &'a dyn Fn(&mut config::Config);

#[test]
fn what_is_raised_reaches_android_devices_that_have_enrolled() -> Result<()> {
    let mut world = None;
    let own_system = |by: &mut config::Attestation| {
        let by = by.android_key.as_mut().unwrap();
        (by.boot, by.boot_keys) = (BootState::SelfSigned, vec![[0; 32]]);
    };
    let mut shop = Shop::with(|site| world = World::furnish(site, own_system).ok())?;
    let world = world.unwrap();
    let session = settle(&mut shop, &world, |key| key.root_of_trust = Some((0xff, 1)));
    assert_eq!(shop.ask(&session, NOW), None);
    let good = shop.site.config.clone();
    let other_root = shop.site.dir.path().join("other.pem");
    fs::write(&other_root, Signer::root(&Making::authority("Other"))?.pem)?;
    let cases: [(&str, Change<'_>, Denial); 9] = [
        ("min_version", &|config| android(config).apps.min_version = 43, Denial::AppOutdated),
        ("min_patch", &|config| android(config).min_patch = 202_512, Denial::DeviceOutdated),
        (
            "security",
            &|config| android(config).security = KeySecurity::StrongBox,
            Denial::DeviceIntegrityFailed,
        ),
        ("boot", &|config| android(config).boot = BootState::Verified, Denial::DeviceIntegrityFailed),
        ("boot_keys", &|config| android(config).boot_keys = vec![[7; 32]], Denial::DeviceIntegrityFailed),
        (
            "certificates",
            &|config| android(config).apps.certificates = vec![[7; 32]],
            Denial::AppNotRecognised,
        ),
        (
            "packages",
            &|config| android(config).apps.packages = vec!["com.example.other".to_owned()],
            Denial::DeviceUnknown,
        ),
        ("root", &|config| android(config).root = Some(other_root.clone()), Denial::AttestationChain),
        (
            "android_key",
            &|config| config.attestation.as_mut().unwrap().android_key = None,
            Denial::DeviceUnknown,
        ),
    ];
    for (name, change, expected) in cases {
        let mut config = good.clone();
        change(&mut config);
        shop.policy = shop.policy.reload(&config)?;
        assert_eq!(shop.ask(&session, NOW), Some(expected), "{name}: a session that runs");
        assert_eq!(denial(again_in(&shop)), Some(expected), "{name}: the next session");
        shop.policy = shop.policy.reload(&good)?;
        assert_eq!(shop.ask(&session, NOW), None, "{name}: taken back");
    }
    // What the device still satisfies changes nothing.
    let mut config = good;
    (android(&mut config).apps.min_version, android(&mut config).min_patch) = (42, 202_511);
    shop.policy = shop.policy.reload(&config)?;
    assert_eq!((shop.ask(&session, NOW), denial(again_in(&shop))), (None, None));
    Ok(())
}

#[test]
fn what_is_raised_reaches_devices_of_apple_that_have_enrolled() -> Result<()> {
    let mut shop = Shop::new()?;
    let phone = || Phone::new(APP, app_attest::Environment::Production);
    shop.phone = phone()?.saying(4, "4.2");
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    assert_eq!(shop.ask(&session, NOW), None);
    let good = shop.site.config.clone();
    fn apple(config: &mut config::Config) -> &mut config::AppAttest {
        config.attestation.as_mut().unwrap().app_attest.as_mut().unwrap()
    }
    let cases: [(&str, Change<'_>, Denial); 5] = [
        ("version", &|config| apple(config).minimum_version = Some("4.3".to_owned()), Denial::AppOutdated),
        (
            "category",
            &|config| apple(config).categories = vec!["testflight".to_owned()],
            Denial::AppDistribution,
        ),
        (
            "environment",
            &|config| apple(config).environment = config::Environment::Development,
            Denial::DeviceUnknown,
        ),
        (
            "apps",
            &|config| apple(config).apps = vec!["ABCDE12345.com.example.other".to_owned()],
            Denial::DeviceUnknown,
        ),
        (
            "app_attest",
            &|config| config.attestation.as_mut().unwrap().app_attest = None,
            Denial::DeviceUnknown,
        ),
    ];
    for (counter, (name, change, expected)) in (2..).zip(cases) {
        let mut config = good.clone();
        change(&mut config);
        shop.policy = shop.policy.reload(&config)?;
        assert_eq!(shop.ask(&session, NOW), Some(expected), "{name}: a session that runs");
        assert_eq!(denial(shop.session(counter, NOW)), Some(expected), "{name}: the next session");
        shop.policy = shop.policy.reload(&good)?;
        assert_eq!(shop.ask(&session, NOW), None, "{name}: taken back");
    }
    // The app is updated, and its next assertion says so.
    let mut config = good;
    apple(&mut config).minimum_version = Some("4.3".to_owned());
    shop.policy = shop.policy.reload(&config)?;
    assert_eq!(shop.ask(&session, NOW), Some(Denial::AppOutdated));
    shop.phone = std::mem::replace(&mut shop.phone, phone()?).saying(4, "4.3");
    let session = shop.session(10, NOW).unwrap();
    assert_eq!(shop.ask(&session, NOW), None);
    Ok(())
}

/// Rows of before do not say what the hardware said, so nobody can tell whether it holds still.
#[test]
fn an_android_device_of_which_nothing_was_kept_enrols_anew() -> Result<()> {
    let mut world = None;
    let mut shop = Shop::with(|site| {
        let path = site.dir.path().join("sessions.key");
        fs::write(&path, format!("{}\n", "QUFB".repeat(16))).unwrap();
        world = World::furnish(site, |by| {
            (by.session_keys, by.unknown_devices) = (Some(path), UnknownDevices::BySession);
        })
        .ok();
    })?;
    let session = settle(&mut shop, &world.unwrap(), |_| ());
    assert_eq!(shop.ask(&session, NOW), None);
    let attestation = Arc::clone(shop.policy.attestation().unwrap());
    let devices = &attestation.enrolment.devices;
    let known = devices.find(id(&shop.key)).unwrap();
    let old = Device { evidence: Evidence::default(), ..known };
    devices.enrol(id(&shop.key), old.clone()).unwrap();
    assert_eq!(shop.ask(&session, NOW), Some(Denial::DeviceUnknown), "the session's word does not count");
    assert_eq!(denial(again_in(&shop)), Some(Denial::DeviceUnknown));
    assert!(again::judge(&attestation, &old).unwrap_err().why.unwrap().why.contains("enrol anew"));
    Ok(())
}

#[test]
fn whoever_is_forgotten_has_no_session_that_speaks_for_itself() -> Result<()> {
    let mut shop = Shop::with(|site| {
        let path = site.dir.path().join("sessions.key");
        fs::write(&path, format!("{}\n", "QUFB".repeat(16))).unwrap();
        let by = site.config.attestation.as_mut().unwrap();
        (by.session_keys, by.unknown_devices) = (Some(path), UnknownDevices::BySession);
    })?;
    shop.enrol(NOW).unwrap();
    let session = shop.session(1, NOW).unwrap();
    let other = Phone::new(APP, app_attest::Environment::Production)?;
    let device = shop.id().to_string();
    let wire::Answer::Done(done) = shop.operate(wire::DeviceCommand::Forget { device }).unwrap() else {
        panic!("nothing done")
    };
    assert!(done.remarks.iter().any(|remark| remark.contains("by-session")), "{:?}", done.remarks);
    assert_eq!(shop.ask(&session, NOW), Some(Denial::DeviceBlocked));
    assert_eq!(shop.ask(&session, NOW + 899), Some(Denial::DeviceBlocked));
    // It enrols again, and its next sessions are good.
    shop.enrol(NOW + 2).unwrap();
    let session = shop.session(1, NOW + 2).unwrap();
    assert_eq!(shop.ask(&session, NOW + 2), None);
    // Sessions of others that enrolled elsewhere count as before.
    shop.phone = other;
    shop.enrol(NOW + 2).unwrap();
    let session = shop.session(1, NOW + 2).unwrap();
    let id = shop.id();
    assert!(shop.policy.attestation().unwrap().enrolment.devices.forget(id).is_some());
    assert_eq!(shop.ask(&session, NOW + 2), None);
    Ok(())
}

#[tokio::test]
async fn what_an_operator_says_is_on_the_disk_when_it_is_answered() -> Result<()> {
    let shop = Shop::new()?;
    let path = shop.site.dir.path().join("devices.redb");
    let metrics = Metrics::new()?;
    let gauges = || Gauges {
        pending: metrics.device_store_pending.clone(),
        errors: metrics.device_store_errors.clone(),
    };
    shop.policy.attestation().unwrap().enrolment.devices.keep(&path, gauges())?;
    shop.enrol(NOW).unwrap();
    let device = shop.id().to_string();
    // As it lies there, without the daemon's help.
    let row = |copy: &str| -> Option<Value> {
        let copy = shop.site.dir.path().join(copy);
        fs::copy(&path, &copy).unwrap();
        let rows = store::open("attestation.store", &copy, gauges()).unwrap().store.read("devices").unwrap();
        let found = rows.into_iter().find(|(key, _)| *key == device);
        found.map(|(_, value)| serde_json::from_slice(&value).unwrap())
    };
    let say = async |command| {
        let wire::Answer::Done(done) = operators::answer(&shop.policy, command, NOW).await.unwrap() else {
            panic!("nothing done")
        };
        assert!(!done.remarks.iter().any(|remark| remark.contains("NOT WRITTEN")), "{:?}", done.remarks);
    };
    for round in 0..3 {
        let reason = format!("stolen {round}");
        say(wire::DeviceCommand::Block { device: device.clone(), reason: reason.clone() }).await;
        assert_eq!(row(&format!("{round}-blocked")).unwrap()["blocked"]["reason"], reason);
        say(wire::DeviceCommand::Unblock { device: device.clone() }).await;
        assert_eq!(row(&format!("{round}-unblocked")).unwrap().get("blocked"), None);
    }
    say(wire::DeviceCommand::Forget { device: device.clone() }).await;
    assert_eq!(row("forgotten"), None);
    Ok(())
}

#[test]
fn lists_are_narrowed_and_say_what_is_known() -> Result<()> {
    let mut world = None;
    let mut shop = Shop::with(|site| world = World::furnish(site, |_| ()).ok())?;
    let world = world.unwrap();
    settle(&mut shop, &world, |_| ());
    let android = id(&shop.key).to_string();
    shop.phone = Phone::new(APP, app_attest::Environment::Production)?.saying(4, "4.2");
    shop.enrol(NOW + 100).unwrap();
    let apple = shop.id().to_string();
    let own = SigningKey::p256("own")?;
    let challenge = shop.challenge("enrol", None, NOW + 200);
    let token = world.token(&own, &challenge, NOW + 190, &["DEVICE"])?;
    let body = world.own(&own, &challenge, &token)?;
    assert_eq!(denial(shop.send_enrolment(&body, NOW + 200)), None);
    let play = id(&own).to_string();
    let only = |change: &dyn Fn(&mut wire::DeviceFilter)| {
        let mut only = wire::DeviceFilter::default();
        change(&mut only);
        names(&shop.operate(listed(only)).unwrap())
    };
    let sorted = |mut names: Vec<&String>| {
        names.sort_by_key(|name| enforcer::enrolment::DeviceId::parse(name));
        names.into_iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(only(&|_| ()), sorted(vec![&android, &apple, &play]));
    assert_eq!(only(&|only| only.platform = Some("ios".into())), [apple.as_str()]);
    assert_eq!(only(&|only| only.level = Some("device".into())), [play.as_str()]);
    assert_eq!(only(&|only| only.app = Some(PACKAGE.into())), sorted(vec![&android, &play]));
    assert_eq!(only(&|only| only.seen_before = Some(NOW + 200)), sorted(vec![&android, &apple]));
    assert_eq!(only(&|only| only.serial = Some(world.maker.middle.serial.clone())), [android.as_str()]);
    // Most devices give their keys' certificates the number 1: that is nobody's.
    let shown = |device: &str| {
        let answer = shop.operate(wire::DeviceCommand::Show { device: device.to_owned() }).unwrap();
        let wire::Answer::Device(row) = answer else { panic!("no device") };
        row
    };
    let row = shown(&android);
    let hardware = row.hardware.unwrap();
    assert_eq!(only(&|only| only.serial = Some(hardware.serials[0].clone())), Vec::<String>::new());
    assert_eq!(
        (row.version.as_deref(), hardware.os_patch, hardware.locked),
        (Some("42"), Some(202_511), true)
    );
    assert_eq!((hardware.provisioning.as_str(), hardware.boot.as_str()), ("remote", "verified"));
    assert_eq!((shown(&apple).version.as_deref(), shown(&apple).category), (Some("4.2"), Some(4)));
    assert_eq!((shown(&play).verdict, shown(&play).refused.clone()), (Some(NOW + 190), None));
    for wrong in ["", "0x", "9g", &"9".repeat(129)] {
        let only = wire::DeviceFilter { serial: Some(wrong.to_owned()), ..wire::DeviceFilter::default() };
        assert!(shop.operate(listed(only)).is_err(), "{wrong}");
    }
    Ok(())
}

/// What `enforcer attestation verify android-key` reads is never too large for the endpoint.
#[tokio::test]
async fn a_chain_is_read_as_large_as_its_reader_takes_it() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    furnish(&mut site, clock::unix_now())?;
    World::furnish(&mut site, |_| ())?;
    let edge = site.start()?;
    let mut client = edge.http2().await?;
    let code = async |client: &mut _, body: &Value| -> Result<Value> {
        Ok(post(client, ENROL, HeaderMap::new(), body).await?.body["code"].clone())
    };
    let largest = STANDARD.encode(vec![0x30; 8 << 10]);
    let body = json!({
        "provider": "android-key", "challenge": challenge(&mut client, "enrol").await?,
        "chain": vec![largest; 8], "token": "x".repeat(16 << 10),
    });
    assert_eq!(code(&mut client, &body).await?, "attestation_malformed");
    // The challenge was used up, and is told apart from what came with it.
    assert_eq!(code(&mut client, &body).await?, "attestation_nonce_reused");
    let body = json!({ "provider": "x", "challenge": "x".repeat(MOST_BYTES as usize) });
    assert_eq!(code(&mut client, &body).await?, "body_too_large");
    let body = json!({ "provider": "x", "challenge": "x" });
    assert_eq!(code(&mut client, &body).await?, "attestation_request");
    let refused = |labels: &[&str]| edge.metrics.attestations_refused.with_label_values(labels).get();
    assert_eq!(refused(&["android-key", "form"]), 1);
    assert_eq!(refused(&["android-key", "challenge"]), 1);
    assert_eq!(refused(&["none", "request"]), 1);
    Ok(())
}
