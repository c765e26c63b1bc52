//! Newer receipts of devices: fetched from Apple in the background, and what becomes of devices when Apple is busy, down, slow, or
//! somebody else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{future::Future, time::Duration};

use anyhow::Result;
use enforcer::{
    attestation::app_attest,
    checks::facts::{Client, ClientAddr},
    clock,
    keys::receipts,
    metrics::Metrics,
    policy::Policy,
};
use enforcer_tests::{
    attestation::apple::{Apple, Phone, ReceiptDraft, server::LiveApple, sha256},
    edge::Site,
    issuer::Manner,
    tokens::SigningKey,
};
use tokio::task::JoinSet;

use super::shop::{APP, Shop, furnish};

/// A shop of now, the Apple that it asks, and what it counts; it asks until it is dropped.
struct Desk {
    shop: Shop,
    live: LiveApple,
    metrics: Metrics,
    _asking: JoinSet<()>,
}

impl Desk {
    async fn open(change: impl FnOnce(&mut enforcer::config::Receipts)) -> Result<Self> {
        let now = clock::unix_now();
        let mut site = Site::new("127.0.0.1:9".parse()?)?;
        let apple = furnish(&mut site, now)?;
        let live = LiveApple::start(&apple).await?;
        let mut config = live.config()?;
        change(&mut config);
        site.config.attestation.as_mut().unwrap().app_attest.as_mut().unwrap().receipts = Some(config);
        let policy = Policy::load_at(&site.config, now - 86_400)?;
        let metrics = Metrics::new()?;
        let mut asking = JoinSet::new();
        asking.spawn(receipts::tend(policy.reload(&site.config)?.share(), metrics.clone()));
        let phone = Phone::new(APP, app_attest::Environment::Production)?;
        let client = Client::at(ClientAddr::new("192.0.2.7".parse()?));
        let shop = Shop { site, policy, apple, phone, key: SigningKey::p256("app")?, client };
        Ok(Self { shop, live, metrics, _asking: asking })
    }

    /// What Apple gives in exchange for a phone's receipt.
    fn newer(&self, phone: &Phone, apple: &Apple, risk: &str) -> Vec<u8> {
        let receipt = ReceiptDraft::new(phone, apple, &sha256(b"another form")).exchanged(risk, apple);
        receipt.sign(apple).unwrap()
    }

    fn counted(&self, result: &str) -> u64 {
        self.metrics.receipt_exchanges.with_label_values(&[result]).get()
    }

    fn risk(&self) -> Option<u32> {
        let devices = &self.shop.policy.attestation().unwrap().enrolment.devices;
        devices.find(self.shop.id()).unwrap().risk
    }

    /// Another phone has enrolled.
    fn enrol(&mut self) -> Result<()> {
        self.shop.phone = Phone::new(APP, app_attest::Environment::Production)?;
        assert_eq!(super::shop::denial(self.shop.enrol(clock::unix_now())), None);
        Ok(())
    }
}

/// Looks again and again, for a minute at most.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let looking = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), looking).await.is_ok(), "{what}");
}

#[tokio::test]
async fn a_newer_receipt_says_what_risk_a_device_is() -> Result<()> {
    let mut desk = Desk::open(|_| ()).await?;
    desk.live.give(desk.newer(&desk.shop.phone, &desk.shop.apple, "7"));
    assert_eq!(super::shop::denial(desk.shop.enrol(clock::unix_now())), None);
    until("the metric is known", || desk.risk() == Some(7)).await;
    until("it is counted", || desk.counted("newer") == 1).await;
    assert_eq!(desk.live.complaints(), Vec::<String>::new());
    let first = desk.live.asked();
    assert_eq!(first.len(), 1);
    // What is kept now is the newer one, and it is due when Apple allows it.
    let devices = &desk.shop.policy.attestation().unwrap().enrolment.devices;
    let (soon, later) = (desk.shop.apple.now + 86_300, desk.shop.apple.now + 86_400 + 600);
    assert_eq!((devices.receipts(), devices.due_receipt(soon)), (1, None));
    let (id, held) = devices.due_receipt(later).unwrap();
    assert_eq!(
        (id, held.receipt.len() > 1_000, held.receipt[..] == first[0][..]),
        (desk.shop.id(), true, false)
    );
    // The next device is asked about while the first one is left alone.
    desk.live.give(desk.newer(&desk.shop.phone, &desk.shop.apple, "1"));
    let phone = Phone::new(APP, app_attest::Environment::Production)?;
    desk.live.give(desk.newer(&phone, &desk.shop.apple, "2"));
    desk.shop.phone = phone;
    assert_eq!(super::shop::denial(desk.shop.enrol(clock::unix_now())), None);
    until("the other metric is known", || desk.risk() == Some(2)).await;
    assert_eq!(desk.live.asked().len(), 2, "once for each");
    Ok(())
}

/// One that is asked, answers badly, and then as it should.
async fn bad(name: &str, manner: Manner, result: &'static str) -> Result<()> {
    let mut desk = Desk::open(|config| {
        if name == "silence" || name == "one byte at a time" {
            config.timeout = Duration::from_millis(300);
        }
    })
    .await?;
    desk.live.behave(Some(manner));
    desk.enrol()?;
    until(name, || desk.counted(result) == 1).await;
    let now = clock::unix_now();
    let devices = &desk.shop.policy.attestation().unwrap().enrolment.devices;
    assert_eq!((desk.risk(), devices.receipts()), (None, 1), "{name}: it stays what it was");
    let session = desk.shop.session(1, now).unwrap();
    assert_eq!(desk.shop.ask(&session, now), None, "{name}: requests do not notice");
    assert_eq!(devices.due_receipt(now), None, "{name}: it is not asked about again at once");
    desk.live.behave(None);
    let phone = Phone::new(APP, app_attest::Environment::Production)?;
    desk.live.give(desk.newer(&phone, &desk.shop.apple, "3"));
    desk.shop.phone = phone;
    assert_eq!(super::shop::denial(desk.shop.enrol(now)), None);
    until(name, || desk.risk() == Some(3)).await;
    Ok(())
}

#[tokio::test]
async fn bad_answers_change_nothing_and_are_counted() -> Result<()> {
    let answer = |status, fields: &str, body: &[u8]| Manner::Answer(status, fields.to_owned(), body.to_vec());
    let mut cases: JoinSet<Result<()>> = JoinSet::new();
    let mut start = |case: std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>| cases.spawn(case);
    for (name, manner, result) in [
        ("304", answer(304, "", b""), "not_yet"),
        ("400", answer(400, "", b""), "refused"),
        ("404", answer(404, "", b""), "refused"),
        ("401", answer(401, "", b""), "unauthorized"),
        ("429", answer(429, "Retry-After: 1\r\n", b""), "quota"),
        ("500", answer(500, "", b""), "server"),
        ("503", answer(503, "", b"{}"), "server"),
        ("a redirect", answer(302, "Location: https://example.com/\r\n", b""), "garbage"),
        ("no base64", answer(200, "", b"<html>"), "garbage"),
        ("nothing", answer(200, "", b""), "garbage"),
        ("no receipt", answer(200, "", b"AQIDBAUG"), "invalid"),
        ("silence", Manner::Silence, "slow"),
        ("one byte at a time", Manner::Drip, "slow"),
        ("no end", Manner::Flood, "unreachable"),
        ("the end of the connection", Manner::HangUp, "unreachable"),
    ] {
        start(Box::pin(bad(name, manner, result)));
    }
    while let Some(case) = cases.join_next().await {
        case??;
    }
    Ok(())
}

#[tokio::test]
async fn a_receipt_of_somebody_else_is_none() -> Result<()> {
    let mut desk = Desk::open(|_| ()).await?;
    let other = Phone::new(APP, app_attest::Environment::Production)?;
    let stranger = Apple::new(desk.shop.apple.now)?;
    let elsewhere = Phone::new("ABCDE12345.com.example.other", app_attest::Environment::Production)?;
    for (count, name) in (1..).zip(["of another key", "of another Apple", "of another app"]) {
        let phone = Phone::new(APP, app_attest::Environment::Production)?;
        desk.live.give(match name {
            "of another key" => desk.newer(&other, &desk.shop.apple, "9"),
            "of another Apple" => desk.newer(&phone, &stranger, "9"),
            _ => desk.newer(&elsewhere, &desk.shop.apple, "9"),
        });
        desk.shop.phone = phone;
        assert_eq!(super::shop::denial(desk.shop.enrol(clock::unix_now())), None);
        until(name, || desk.counted("invalid") == count).await;
        assert_eq!(desk.risk(), None, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn calls_of_a_day_are_spread_and_what_finds_no_room_is_not_kept() -> Result<()> {
    let mut desk = Desk::open(|config| (config.calls_per_day, config.max_receipts) = (10, 7)).await?;
    desk.live.behave(Some(Manner::Answer(304, String::new(), Vec::new())));
    for _ in 0..9 {
        desk.enrol()?;
    }
    let devices = &desk.shop.policy.attestation().unwrap().enrolment.devices;
    assert_eq!((devices.look().devices, devices.receipts()), (9, 7), "all are enrolled");
    until("as many as may be at once", || desk.counted("not_yet") == 5).await;
    let now = clock::unix_now();
    let due = std::iter::from_fn(|| {
        let (id, _) = devices.due_receipt(now)?;
        devices.postpone_receipt(id, now + 86_400);
        Some(id)
    });
    assert_eq!(due.count(), 2, "the others wait");
    Ok(())
}
