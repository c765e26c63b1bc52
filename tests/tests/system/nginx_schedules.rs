//! Limits of routes beside `limit_req` of a real nginx, over time: the same schedule of requests at the same instants, and at each of
//! them as many pass, wait and are refused here as there.
//!
//! Instants are whole units, and nothing is asked on the border between two outcomes: a unit earlier or later it would be the same.
//! When a request was judged is known to lie between its sending and the answer to another one that was sent after it. A schedule that
//! was kept less exactly than [`SLACK`] says nothing; it is repeated with keys that are new, and after some attempts that is a failure.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use enforcer::config::{Limit, LimitKey, RateLimit};
use enforcer_tests::{
    edge::{Client, Edge, NAME, Site, route},
    origin::Origin,
};
use futures_util::future::try_join_all;
use http::{HeaderName, Request};
use http_body_util::{BodyExt as _, Empty};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout},
};

use super::nginx_limits::Nginx;

/// Milliseconds of a unit.
const UNIT: u64 = 250;
/// How much later than planned a request may be judged.
const SLACK: Duration = Duration::from_millis(200);
/// How much earlier than by the schedule a waiting request may go on: both count in milliseconds, and nginx with the clock of its loop.
const EARLY: Duration = Duration::from_millis(20);
/// How often a schedule is tried.
const ATTEMPTS: usize = 8;
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A limit: the number of the field that is its key, the units in which it pays back one request, how many at once beyond the first, how
/// many of these without a delay (`None`: all).
struct Zone {
    field: usize,
    period: u64,
    burst: u64,
    delay: Option<u64>,
}

const fn zone(field: usize, period: u64, burst: u64, delay: Option<u64>) -> Zone {
    Zone { field, period, burst, delay }
}

/// Fields that are keys: a letter of the schedule, and one that all requests have in common.
const FIELDS: [&str; 2] = ["x-api-key", "x-tenant"];

/// A path, its limits, and its requests: after how many units, and the keys of those that come then.
struct Case {
    name: &'static str,
    zones: &'static [Zone],
    times: &'static [(u64, &'static str)],
}

const CASES: &[Case] = &[
    Case {
        name: "paced",
        zones: &[zone(0, 4, 0, None)],
        times: &[(0, "a"), (2, "a"), (5, "ab"), (6, "ab"), (10, "a"), (11, "a"), (13, "a"), (15, "ab")],
    },
    Case {
        name: "burst",
        zones: &[zone(0, 4, 3, None)],
        times: &[(0, "aaaaaa"), (2, "a"), (5, "aa"), (6, "a"), (9, "aaa"), (15, "aaa"), (17, "bbbbb")],
    },
    Case {
        name: "fast",
        zones: &[zone(0, 2, 5, None)],
        times: &[(0, "aaaaaaaaa"), (3, "aaa"), (5, "aaa"), (9, "aaaa"), (15, "aaaaa")],
    },
    Case {
        name: "slow",
        zones: &[zone(0, 10, 1, None)],
        times: &[(0, "aaa"), (3, "a"), (9, "ab"), (11, "aa"), (17, "a"), (21, "aa")],
    },
    Case {
        name: "queue",
        zones: &[zone(0, 4, 3, Some(0))],
        times: &[(0, "aaaaaa"), (3, "a"), (5, "aa"), (7, "a"), (9, "a"), (11, "ba"), (13, "a")],
    },
    Case {
        name: "delay",
        zones: &[zone(0, 4, 4, Some(2))],
        times: &[(0, "aaaaaaa"), (3, "a"), (5, "aa"), (9, "aa"), (10, "b"), (15, "aa")],
    },
    Case {
        name: "stacked",
        zones: &[zone(0, 6, 1, None), zone(1, 2, 3, None)],
        times: &[(0, "aaabbbcc"), (3, "aabc"), (5, "bd"), (9, "abcd"), (11, "aee"), (15, "abcde")],
    },
    Case {
        name: "delays",
        zones: &[zone(0, 6, 2, Some(1)), zone(1, 2, 6, Some(3))],
        times: &[(0, "aaaabbb"), (1, "c"), (5, "acc"), (7, "bdd"), (11, "ab"), (15, "abcd")],
    },
];

/// What becomes of a request: it waits for so many units, or is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes(u64),
    Refused,
}

/// What a key owes: until when, and since when without a rest. Units.
#[derive(Clone, Copy)]
struct Owed {
    until: u64,
    since: u64,
}

/// What nginx's documentation says of a schedule; an error where a request comes on a border.
///
/// Several at once are on none: of two that are sent together the later one is judged later, never earlier.
fn expected(case: &Case) -> Result<Vec<Vec<Fate>>> {
    let whole = case.zones.iter().all(|zone| 60_000 % (zone.period * UNIT) == 0);
    ensure!(whole, "{}: nginx has whole requests a minute", case.name);
    let mut all: HashMap<(usize, char), Owed> = HashMap::new();
    let mut fates = Vec::new();
    for (now, keys) in case.times {
        let mut group = Vec::new();
        for key in keys.chars() {
            let (mut refused, mut wait) = (false, 0);
            let owner = |zone: &Zone| if zone.field == 0 { key } else { '*' };
            for (number, zone) in case.zones.iter().enumerate() {
                let Some(owed) = all.get(&(number, owner(zone))) else { continue };
                let debt = owed.until.saturating_sub(*now);
                let free = zone.delay.unwrap_or(zone.burst) * zone.period;
                let borders = [zone.burst * zone.period, free];
                let is_border = owed.until >= *now && borders.contains(&debt) && owed.since != *now;
                ensure!(!is_border, "{}: {key} at {now} comes on the border of limit {number}", case.name);
                refused |= debt > borders[0];
                wait = wait.max(debt.saturating_sub(free));
            }
            group.push(if refused { Fate::Refused } else { Fate::Passes(wait) });
            for (number, zone) in case.zones.iter().enumerate().filter(|_| !refused) {
                let owed = all.entry((number, owner(zone))).or_insert(Owed { until: *now, since: *now });
                if owed.until < *now {
                    *owed = Owed { until: *now, since: *now };
                }
                owed.until += zone.period;
            }
        }
        fates.push(group);
    }
    Ok(fates)
}

/// The part of nginx's configuration: zones and locations.
fn theirs() -> (String, String) {
    let mut zones = String::new();
    let mut locations = "location /probe { return 204; }\n".to_owned();
    for case in CASES {
        locations += &format!("location /{}/ {{\n", case.name);
        for (number, zone) in case.zones.iter().enumerate() {
            let name = format!("{}{number}", case.name);
            let field = FIELDS[zone.field].replace('-', "_");
            let per_minute = 60_000 / (zone.period * UNIT);
            zones += &format!("limit_req_zone $http_{field} zone={name}:1m rate={per_minute}r/m;\n");
            let delay = match zone.delay {
                None => "nodelay".to_owned(),
                Some(0) => String::new(),
                Some(delay) => format!("delay={delay}"),
            };
            let burst = if zone.burst > 0 { format!("burst={} {delay}", zone.burst) } else { String::new() };
            locations += &format!("limit_req zone={name} {burst};\n");
        }
        locations += "}\n";
    }
    (zones, locations)
}

/// The same as a route of ours.
fn ours(case: &Case) -> enforcer::config::Route {
    let limit = |(number, zone): (usize, &Zone)| {
        let key = LimitKey::Header(HeaderName::from_static(FIELDS[zone.field]));
        let period = Duration::from_millis(zone.period * UNIT);
        let rate = RateLimit { events: 1, period, burst: zone.burst };
        Limit { name: format!("{number}"), key, rate, delay: zone.delay, dry_run: false }
    };
    let limits = case.zones.iter().enumerate().map(limit).collect();
    enforcer::config::Route { limits, ..route(&format!("/{}/", case.name), None, &[]) }
}

/// What one side answered to one request, and when.
type Told = (u16, Instant);

/// Sends a request to nginx on a connection of its own; the answer is awaited apart.
async fn ask_nginx(nginx: &Nginx, target: &str, fields: &str) -> Result<JoinHandle<Result<Told>>> {
    let mut stream = UnixStream::connect(nginx.socket()).await?;
    stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: here\r\n{fields}\r\n").as_bytes()).await?;
    Ok(tokio::spawn(async move {
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.context("nginx does not answer")??;
        let status = answer.split(' ').nth(1).context("no status")?.parse()?;
        Ok((status, Instant::now()))
    }))
}

/// Sends a request to the edge, on the one connection that all have.
async fn ask_edge(client: &Client, target: &str, fields: &[String; 2]) -> Result<JoinHandle<Result<Told>>> {
    let Client::Http2(sender) = client else { bail!("the client speaks HTTP/2") };
    let mut sender = sender.clone();
    let mut request = Request::get(format!("https://{NAME}{target}"));
    for (name, value) in FIELDS.iter().zip(fields) {
        request = request.header(*name, value);
    }
    sender.ready().await?;
    let answer = sender.send_request(request.body(Empty::new().boxed())?);
    Ok(tokio::spawn(async move {
        let response = timeout(PATIENCE, answer).await.context("the edge does not answer")??;
        let answered = Instant::now();
        let status = response.status().as_u16();
        response.into_body().collect().await?;
        Ok((status, answered))
    }))
}

/// Requests that waited so far, by either side's own account.
fn delayed(edge: &Edge, nginx: &Nginx, case: &Case) -> Result<(u64, u64)> {
    let path = format!("/{}/", case.name);
    let ours = edge.metrics.limits.with_label_values(&[&path, "0", "delayed"]).get();
    let theirs = nginx.logged(&format!("GET {path}x "), "delaying request")?;
    Ok((ours, theirs as u64))
}

/// One run of a schedule on both sides; how late its latest request was, and what either answered.
async fn run(
    nginx: &Nginx,
    edge: &Edge,
    client: &Client,
    case: &Case,
    attempt: usize,
) -> Result<(Duration, [Vec<Vec<Told>>; 2], Instant)> {
    let target = format!("/{}/x", case.name);
    let start = Instant::now() + Duration::from_millis(100);
    let mut late = Duration::ZERO;
    let mut asked = Vec::new();
    for (units, keys) in case.times {
        let due = start + Duration::from_millis(units * UNIT);
        sleep_until(due).await;
        let mut group = [Vec::new(), Vec::new()];
        for key in keys.chars() {
            let fields = [format!("{key}{attempt}"), format!("all{attempt}")];
            let lines = format!("X-Api-Key: {}\r\nX-Tenant: {}\r\n", fields[0], fields[1]);
            group[0].push(ask_nginx(nginx, &target, &lines).await?);
            // Whoever has answered this has judged what came before it.
            let probe = ask_nginx(nginx, "/probe", "").await?.await??;
            late = late.max(probe.1.saturating_duration_since(due));
            group[1].push(ask_edge(client, &target, &fields).await?);
        }
        // Here one connection carries all, in order.
        let probe = ask_edge(client, "/public/x", &[String::new(), String::new()]).await?.await??;
        late = late.max(probe.1.saturating_duration_since(due));
        asked.push(group);
    }
    let mut told = [Vec::new(), Vec::new()];
    for group in asked {
        for (told, handles) in told.iter_mut().zip(group) {
            let answers = try_join_all(handles).await?;
            told.push(answers.into_iter().collect::<Result<Vec<Told>>>()?);
        }
    }
    assert_eq!(edge.metrics.limits.with_label_values(&[&format!("/{}/", case.name), "0", "full"]).get(), 0);
    Ok((late, told, start))
}

/// Runs a schedule until it was kept, and judges that run.
async fn compare(nginx: &Nginx, edge: &Edge, case: &Case) -> Result<()> {
    let plan = expected(case)?;
    let planned = |fate: fn(&Fate) -> bool| plan.iter().flatten().filter(|one| fate(one)).count();
    let (refused, passed) =
        (planned(|fate| *fate == Fate::Refused), planned(|fate| matches!(fate, Fate::Passes(_))));
    assert!(refused > 2 && passed > 4, "{}: the schedule says something", case.name);
    let waiting = planned(|fate| matches!(fate, Fate::Passes(1..)));
    let mut lateness = Vec::new();
    for attempt in 0..ATTEMPTS {
        let client = edge.http2().await?;
        let before = delayed(edge, nginx, case)?;
        let (late, told, start) = run(nginx, edge, &client, case, attempt).await?;
        lateness.push(late);
        if late > SLACK {
            eprintln!("{}: late by {late:?}, which is too much to judge by; again", case.name);
            continue;
        }
        for (side, told) in ["nginx", "ours"].iter().zip(&told) {
            for (((units, keys), fates), told) in case.times.iter().zip(&plan).zip(told) {
                let expected = fates.iter().filter(|fate| matches!(fate, Fate::Passes(_))).count();
                let accepted = told.iter().filter(|(status, _)| *status == 200).count();
                let refused = told.iter().filter(|(status, _)| *status == 429).count();
                let place = format!("{}: {side}, {keys} after {units} units: {told:?}", case.name);
                assert_eq!(accepted + refused, told.len(), "{place}");
                assert_eq!(accepted, expected, "{place}");
                // Those with the same key may change places; each of them waits for a turn of its own.
                let mut turns: Vec<u64> = fates.iter().filter_map(wait).collect();
                let mut answered: Vec<Instant> =
                    told.iter().filter(|(status, _)| *status == 200).map(|told| told.1).collect();
                turns.sort_unstable();
                answered.sort_unstable();
                for (turn, answered) in turns.iter().zip(answered) {
                    let due = start + Duration::from_millis((units + turn) * UNIT);
                    assert!(answered + EARLY >= due, "{place}: did not wait for {turn} units");
                }
            }
        }
        if let [zone] = case.zones {
            let after = delayed(edge, nginx, case)?;
            let counted = (after.0 - before.0, after.1 - before.1);
            assert_eq!(counted, (waiting as u64, waiting as u64), "{}: delayed here and there", case.name);
            assert_eq!(zone.delay.is_some(), waiting > 0, "{}", case.name);
        }
        return Ok(());
    }
    bail!("{}: this machine did not keep the schedule; late by {lateness:?} of {SLACK:?}", case.name)
}

fn wait(fate: &Fate) -> Option<u64> {
    match fate {
        Fate::Passes(wait) => Some(*wait),
        Fate::Refused => None,
    }
}

#[tokio::test]
async fn over_time_as_many_pass_and_wait_as_through_nginx() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (zones, locations) = theirs();
    let nginx = Nginx::start(dir.path(), CASES.iter().map(|case| case.name), &zones, &locations)?;
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.routes.extend(CASES.iter().map(ours));
    let edge = site.start()?;
    try_join_all(CASES.iter().map(|case| compare(&nginx, &edge, case))).await?;
    Ok(())
}

#[test]
fn a_request_on_a_border_is_no_part_of_a_schedule() {
    const ZONES: &[Zone] = &[zone(0, 4, 1, Some(0))];
    let case = |times| Case { name: "border", zones: ZONES, times };
    assert!(expected(&case(&[(0, "aaa"), (3, "a")])).is_ok());
    for times in [&[(0, "aa"), (4, "a")][..], &[(0, "a"), (4, "a")], &[(0, "aa"), (8, "a")]] {
        assert!(expected(&case(times)).is_err(), "{times:?}");
    }
}
