//! Limits of routes: which key is counted, several at once, waiting, dry runs, and what answers tell.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::Result;
use enforcer::{
    checks::{
        Refusal,
        facts::{Client, ClientAddr, Identity},
        limit::Marks,
    },
    config::{self, Limit, LimitKey, RateLimit},
    denial::Denial,
    policy::Policy,
};
use enforcer_tests::{
    edge::{self, Edge, NAME, Site, route},
    origin::Origin,
};
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;

use super::{
    admit::Desk,
    routes::{Ask, policy},
};

const HOUR: Duration = Duration::from_secs(3600);

/// One an hour, and `burst` more at once.
fn limit(key: LimitKey, burst: u64) -> Limit {
    let rate = RateLimit { events: 1, period: HOUR, burst };
    Limit { name: key.to_string(), key, rate, delay: None, dry_run: false }
}

fn by_header(burst: u64) -> Limit {
    limit(LimitKey::Header(HeaderName::from_static("x-api-key")), burst)
}

fn limited(limits: Vec<Limit>) -> Result<Policy> {
    policy(vec![config::Route { limits, ..route("/", None, &[]) }], |_| ())
}

fn denial(ask: &Ask<'_>, policy: &Policy) -> Option<Denial> {
    ask.of(policy).err().map(|refusal| refusal.denial)
}

fn ask() -> Ask<'static> {
    Ask::new(NAME, "/x")
}

fn from(address: &str) -> Ask<'static> {
    Ask { client: Client::at(ClientAddr::new(address.parse().unwrap())), ..ask() }
}

const OVER: Option<Denial> = Some(Denial::RateLimited);

/// nginx with two zones: what one of them refuses is not charged to the other.
#[test]
fn stacked_limits_are_charged_all_or_none() -> Result<()> {
    let policy = limited(vec![limit(LimitKey::Address, 3), by_header(0)])?;
    let key = |key: &str| ask().field("x-api-key", key);
    assert_eq!(denial(&key("a"), &policy), None, "1 of 4 by address");
    for _ in 0..10 {
        assert_eq!(denial(&key("a"), &policy), OVER, "the key's budget is used up");
    }
    assert_eq!(denial(&key("b"), &policy), None, "2 of 4: the ten were free of charge");
    assert_eq!(denial(&ask(), &policy), None, "3 of 4: without the key the other limit alone counts");
    assert_eq!(denial(&key("c"), &policy), None, "4 of 4");
    assert_eq!(denial(&key("d"), &policy), OVER, "the address's budget is used up");
    let elsewhere = from("192.0.2.9").field("x-api-key", "d");
    assert_eq!(denial(&elsewhere, &policy), None, "d was not charged when the address was refused");
    Ok(())
}

#[test]
fn two_fields_of_one_name_are_a_key_of_their_own() -> Result<()> {
    let policy = limited(vec![by_header(0)])?;
    let key = |key: &str| ask().field("x-api-key", key);
    assert_eq!(denial(&key("a"), &policy), None);
    assert_eq!(denial(&key("a").field("x-api-key", "b"), &policy), None);
    assert_eq!(denial(&key("a").field("x-api-key", "b"), &policy), OVER);
    assert_eq!(denial(&key("b"), &policy), None);
    assert_eq!(denial(&key(""), &policy), None);
    assert_eq!(denial(&key(""), &policy), None, "an empty field is none");
    Ok(())
}

#[test]
fn a_route_and_a_device_have_budgets_of_their_own() -> Result<()> {
    let policy = limited(vec![limit(LimitKey::Route, 3), limit(LimitKey::Device, 0)])?;
    let device = |thumbprint: &str| {
        let mut ask = ask();
        let identity = Identity { thumbprint: thumbprint.into(), subject: "".into(), names: Box::default() };
        ask.client.identity = Some(Box::new(identity));
        ask
    };
    assert_eq!(denial(&device("one"), &policy), None);
    assert_eq!(denial(&device("one"), &policy), OVER);
    assert_eq!(denial(&device("two"), &policy), None);
    assert_eq!(denial(&from("192.0.2.8"), &policy), None, "no certificate");
    let granted = from("192.0.2.8").of(&policy).unwrap();
    assert_eq!(granted.standing.marks, Marks { no_key: 0b10, ..Marks::default() });
    assert_eq!(denial(&from("2001:db8::1"), &policy), OVER, "4 of all clients together");
    Ok(())
}

/// The address before the token, so that bad tokens cannot be had for nothing; the subject, which only a good one tells, after it.
#[test]
fn limits_stand_on_either_side_of_the_token() -> Result<()> {
    let desk = Desk::with(|site| {
        site.config.routes[1].limits = vec![limit(LimitKey::Subject, 0), limit(LimitKey::Address, 3)];
    })?;
    let token = |subject: &str| -> Result<String> {
        Ok(format!("Bearer {}", desk.ec.mint(&desk.claims_but("sub", subject.into()))?))
    };
    let ask = |authorization: &str| desk.ask("/api/x", &[authorization]).map(drop).map_err(seen);
    assert_eq!(ask(&token("somebody")?), Ok(()));
    assert_eq!(
        ask(&token("somebody")?),
        Err((Denial::RateLimited, 0b10)),
        "numbers go by the order of asking"
    );
    assert_eq!(ask("Bearer nonsense"), Err((Denial::TokenMalformed, 0)));
    assert_eq!(ask(&token("somebody else")?), Ok(()));
    assert_eq!(ask("Bearer nonsense"), Err((Denial::RateLimited, 0b01)), "the fifth of this address");
    Ok(())
}

fn seen(refusal: Refusal) -> (Denial, u8) {
    (refusal.denial, refusal.standing.map_or(0, |standing| standing.marks.refused))
}

#[test]
fn a_dry_run_counts_and_refuses_nobody() -> Result<()> {
    let rehearsed = Limit { dry_run: true, delay: Some(0), ..limit(LimitKey::Address, 1) };
    let policy = limited(vec![rehearsed, Limit { name: "real".to_owned(), ..limit(LimitKey::Address, 3) }])?;
    let marks = || ask().of(&policy).map(|grant| grant.standing.marks).map_err(seen);
    assert_eq!(marks(), Ok(Marks::default()));
    assert_eq!(marks(), Ok(Marks { would_delay: 1, ..Marks::default() }));
    assert_eq!(marks(), Ok(Marks { would_refuse: 1, ..Marks::default() }));
    assert_eq!(marks(), Ok(Marks { would_refuse: 1, ..Marks::default() }));
    assert_eq!(marks(), Err((Denial::RateLimited, 0b10)));
    Ok(())
}

/// nginx `burst=4 delay=1` at one per second: two at once, three in turn, the others not at all.
#[test]
fn what_is_beyond_the_delay_waits_for_its_turn() -> Result<()> {
    let rate = RateLimit { events: 1, period: Duration::from_secs(1), burst: 4 };
    let policy = limited(vec![Limit { rate, delay: Some(1), ..limit(LimitKey::Address, 0) }])?;
    let waits: Vec<Option<u64>> =
        (0..7).map(|_| ask().of(&policy).ok().map(|grant| grant.standing.delay.as_secs())).collect();
    assert_eq!(waits, [Some(0), Some(0), Some(1), Some(2), Some(3), None, None]);
    Ok(())
}

#[test]
fn a_reload_keeps_the_state_of_what_did_not_change() -> Result<()> {
    let mut site = Site::new("127.0.0.1:9".parse()?)?;
    site.config.routes[0].limits = vec![limit(LimitKey::Address, 0), limit(LimitKey::Route, 1)];
    let policy = Policy::load(&site.config)?;
    let ask = || Ask::new(NAME, "/public/x");
    assert_eq!(denial(&ask(), &policy), None);
    // Another order, another name of the route, a delay: the state is the limit's.
    site.config.routes[0].limits.reverse();
    site.config.routes[0].name = "other".to_owned();
    let policy = policy.reload(&site.config)?;
    assert_eq!(denial(&ask(), &policy), OVER);
    site.config.routes[0].limits.pop();
    let policy = policy.reload(&site.config)?;
    assert_eq!(
        [denial(&ask(), &policy), denial(&ask(), &policy)],
        [None, OVER],
        "the route's second, and none more"
    );
    Ok(())
}

async fn get(edge: &Edge, path: &str) -> Result<Response<Incoming>> {
    edge.http2().await?.send(Request::get(path).body(Empty::new().boxed())?).await
}

fn fields(response: &Response<Incoming>) -> (u16, Option<&str>, Option<&str>) {
    let field = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap());
    (response.status().as_u16(), field("ratelimit-policy"), field("ratelimit"))
}

#[tokio::test]
async fn answers_tell_the_limits_and_what_is_left_of_them() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let rehearsed = Limit { name: "rehearsed".to_owned(), dry_run: true, ..limit(LimitKey::Address, 9) };
    site.config.routes[0].limits = vec![limit(LimitKey::Address, 1), limit(LimitKey::Route, 9), rehearsed];
    let edge = site.start()?;
    let policy = Some("\"address\";q=2;w=7200, \"route\";q=10;w=36000");
    let first = get(&edge, "/public/x").await?;
    assert_eq!(fields(&first), (200, policy, Some("\"address\";r=1;t=3600, \"route\";r=9;t=3600")));
    let second = get(&edge, "/public/x").await?;
    assert_eq!(fields(&second).0, 200);
    let third = get(&edge, "/public/x").await?;
    let (status, told, left) = fields(&third);
    assert_eq!((status, told), (429, policy));
    assert!(left.unwrap().starts_with("\"address\";r=0;t="), "{left:?}");
    assert!(left.unwrap().contains("\"route\";r=8;t="), "the third was not charged: {left:?}");
    let elsewhere = get(&edge, "/api/x").await?;
    assert_eq!(fields(&elsewhere), (401, None, None));
    let counted = |result| edge.metrics.limits.with_label_values(&["/public/", "address", result]).get();
    assert_eq!([counted("refused"), counted("delayed"), counted("full")], [1, 0, 0]);
    Ok(())
}

#[tokio::test]
async fn requests_wait_without_a_thread_and_not_too_many_of_them() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    let rate = RateLimit { events: 1, period: Duration::from_secs(1), burst: 2 };
    site.config.routes[0].limits = vec![Limit { rate, delay: Some(0), ..limit(LimitKey::Address, 0) }];
    site.config.http.max_delayed = 1;
    site.config.http.workers = 1;
    site.config.http.ratelimit_headers = false;
    let edge = site.start()?;
    let edge::Client::Http2(sender) = edge.http2().await? else { unreachable!() };
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let mut client = edge::Client::Http2(sender.clone());
        let request = Request::get("/public/x").body(Empty::new().boxed())?;
        asked.spawn(async move { client.send(request).await.map(|response| response.status()) });
    }
    let mut statuses: Vec<StatusCode> = asked.join_all().await.into_iter().collect::<Result<_>>()?;
    statuses.sort();
    // The one that waits holds the only place, so a third one that comes meanwhile finds none.
    assert_eq!(statuses, [StatusCode::OK, StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE]);
    let counted = |result| edge.metrics.limits.with_label_values(&["/public/", "address", result]).get();
    assert_eq!([counted("delayed"), counted("refused")], [2, 0]);
    let after = get(&edge, "/public/x").await?;
    assert_eq!(fields(&after).1, None, "switched off");
    Ok(())
}
