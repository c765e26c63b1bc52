//! The access log: what a line says, what it never says, and that nobody waits for it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{fs, path::Path, time::Duration};

use anyhow::Result;
use enforcer::config::{AccessFormat, Cors, Destination, Limit, Query, RateLimit, Refusals, SubjectAs};
use enforcer_tests::{
    edge::{Client, Edge, Site},
    origin::Origin,
};
use http::Request;
use http_body_util::{BodyExt, Empty};
use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::Value;

use super::bodies::eventually;

/// An edge with `/public/` and `/api/` that writes to `access.log` beside its configuration.
async fn edge(change: impl FnOnce(&mut Site)) -> Result<(Edge, Origin)> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.access_log.destination = Destination::File(site.dir.path().join("access.log"));
    change(&mut site);
    Ok((site.start()?, origin))
}

async fn ask(client: &mut Client, path: &str, fields: &[(&str, &str)]) -> Result<u16> {
    let mut request = Request::get(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = client.send(request.body(Empty::new().boxed())?).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

/// Every line, once there are so many.
async fn lines(edge: &Edge, name: &str, count: usize) -> Vec<String> {
    let path = edge.site.dir.path().join(name);
    let read = || fs::read_to_string(&path).unwrap_or_default();
    eventually(|| read().lines().count() >= count).await.unwrap();
    read().lines().map(str::to_owned).collect()
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[tokio::test]
async fn a_line_tells_who_asked_for_what_and_what_came_of_it() -> Result<()> {
    let (edge, origin) = edge(|_| ()).await?;
    let server = origin.address.to_string();
    let authorization = format!("Bearer {}", edge.site.token()?);
    let fields = [
        ("authorization", authorization.as_str()),
        ("cookie", "session=cookiesecret"),
        ("user-agent", "phone/1.0 \"x\""),
        ("referer", "https://shop.example/cart?basket=referersecret"),
    ];
    let mut client = edge.http2().await?;
    assert_eq!(ask(&mut client, "/api/things?key=querysecret", &fields).await?, 200);
    assert_eq!(ask(&mut client, "/api/things", &[]).await?, 401);
    assert_eq!(ask(&mut edge.http1().await?, "/elsewhere", &[]).await?, 404);
    let lines = lines(&edge, "access.log", 3).await;
    let all = lines.join("\n");
    for secret in ["cookiesecret", "querysecret", "referersecret", &authorization[20..60]] {
        assert!(!all.contains(secret), "{secret} in {all}");
    }
    let [good, refused, unknown] = [0, 1, 2].map(|n| parse(&lines[n]));
    for (name, value) in [
        ("source", "127.0.0.1"),
        ("method", "GET"),
        ("host", "api.example.com"),
        ("path", "/api/things"),
        ("protocol", "HTTP/2.0"),
        ("route", "/api/"),
        ("identity", "token"),
        ("tls", "1.3"),
        ("upstream", server.as_str()),
        ("user_agent", "phone/1.0 \"x\""),
        ("referer", "https://shop.example/cart"),
    ] {
        assert_eq!(good[name], value, "{name} of {good}");
    }
    assert_eq!((good["status"].as_u64(), good["complete"].as_bool()), (Some(200), Some(true)));
    assert!(good["bytes"].as_u64().unwrap() > 0 && good.get("code").is_none(), "{good}");
    assert!(good["duration_ms"].as_f64().unwrap() >= good["upstream_ms"].as_f64().unwrap(), "{good}");
    assert_eq!(good["subject"].as_str().unwrap().len(), 32, "a hash: {good}");
    assert_eq!((good["ja4"].as_str().unwrap().len(), good["request_id"].as_str().unwrap().len()), (36, 32));
    assert_eq!((&refused["code"], &refused["identity"]), (&"token_missing".into(), &"none".into()));
    assert_eq!((&refused["route"], refused.get("subject")), (&"/api/".into(), None));
    assert_eq!((&unknown["code"], unknown.get("route")), (&"route_not_found".into(), None));
    assert_eq!(unknown["protocol"], "HTTP/1.1");
    Ok(())
}

/// HTTP/2 asks for no body where there is none.
#[tokio::test]
async fn an_answer_without_a_body_is_complete_at_once() -> Result<()> {
    let (edge, _origin) = edge(|site| {
        site.config.routes[1].cors = Some(Cors {
            origins: Vec::new(),
            methods: vec![http::Method::GET],
            headers: Vec::new(),
            expose: Vec::new(),
            credentials: false,
            max_age: Duration::from_secs(600),
        });
    })
    .await?;
    let asks = [("origin", "https://app.example.com"), ("access-control-request-method", "GET")];
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let none: &[(&str, &str)] = &[];
    let cases = [
        ("GET", "/public/status/204", none, 204),
        ("GET", "/public/status/304", none, 304),
        ("GET", "/public/produce/0", none, 200),
        ("OPTIONS", "/api/x", &asks, 204),
        ("POST", "/api/x", &grpc, 200),
    ];
    let mut count = 0;
    for mut client in edge.clients().await? {
        let is_http2 = matches!(client, Client::Http2(_));
        // There is no gRPC without HTTP/2.
        for (method, path, fields, status) in
            cases.into_iter().filter(|(method, ..)| is_http2 || *method != "POST")
        {
            let mut request = Request::builder().method(method).uri(path);
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            let response = client.send(request.body(Empty::new().boxed())?).await?;
            assert_eq!(response.status(), status, "{path}");
            response.into_body().collect().await?;
            count += 1;
            let line = parse(&lines(&edge, "access.log", count).await[count - 1]);
            assert_eq!((line["complete"].as_bool(), line["bytes"].as_u64()), (Some(true), Some(0)), "{line}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn combined_lines_are_what_log_readers_know() -> Result<()> {
    let (edge, _origin) = edge(|site| {
        site.config.access_log.format = AccessFormat::Combined;
        site.config.access_log.query = Query::Redact;
        site.config.access_log.subject = SubjectAs::Off;
    })
    .await?;
    let fields = [("user-agent", "a\" 200 1 \"b"), ("referer", "https://shop.example/?x=1")];
    assert_eq!(ask(&mut edge.http1().await?, "/public/a?b=c&d", &fields).await?, 200);
    let line = &lines(&edge, "access.log", 1).await[0];
    let (before, after) = line.split_once(" [").unwrap();
    assert_eq!(before, "127.0.0.1 - -");
    let (_, after) = after.split_once("] ").unwrap();
    assert!(after.starts_with("\"GET /public/a?b=-&- HTTP/1.1\" 200 "), "{line}");
    assert!(after.ends_with(" \"https://shop.example/\" \"a\\x22 200 1 \\x22b\""), "{line}");
    Ok(())
}

#[tokio::test]
async fn of_a_sample_refusals_are_never_left_out_unless_told() -> Result<()> {
    for (refusals, expected) in [(Refusals::All, 2 + 6), (Refusals::Sampled, 2)] {
        let (edge, _origin) = edge(|site| {
            site.config.access_log.sample = 6;
            site.config.access_log.refusals = refusals;
            site.config.http.workers = 1;
        })
        .await?;
        let mut client = edge.http1().await?;
        for _ in 0..6 {
            assert_eq!(ask(&mut client, "/public/a", &[]).await?, 200);
        }
        for _ in 0..6 {
            assert_eq!(ask(&mut client, "/elsewhere", &[]).await?, 404);
        }
        drop(client);
        let all = lines(&edge, "access.log", expected - 1).await;
        assert!(edge.access_log.as_ref().unwrap().flush(Duration::from_secs(20)));
        let all = lines(&edge, "access.log", all.len()).await;
        let statuses: Vec<u64> = all.iter().map(|line| parse(line)["status"].as_u64().unwrap()).collect();
        // The first and the seventh of all.
        let refused = if refusals == Refusals::All { 6 } else { 1 };
        assert_eq!(statuses.iter().filter(|status| **status == 404).count(), refused, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    }
    Ok(())
}

#[tokio::test]
async fn limits_that_are_rehearsed_stand_in_the_line() -> Result<()> {
    let rate = RateLimit { events: 1, period: Duration::from_secs(3600), burst: 0 };
    let (edge, _origin) = edge(|site| {
        site.config.routes[0].limits = vec![Limit { dry_run: true, ..Limit::by_address(rate) }];
    })
    .await?;
    let mut client = edge.http2().await?;
    for _ in 0..2 {
        assert_eq!(ask(&mut client, "/public/a", &[]).await?, 200);
    }
    let lines = lines(&edge, "access.log", 2).await;
    assert!(parse(&lines[0]).get("limits").is_none(), "{}", lines[0]);
    assert_eq!(parse(&lines[1])["limits"][0], "address=would_refuse");
    Ok(())
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_begun_anew() -> Result<()> {
    let (edge, _origin) = edge(|_| ()).await?;
    let mut client = edge.http2().await?;
    ask(&mut client, "/public/before", &[]).await?;
    let folder = edge.site.dir.path().to_owned();
    assert_eq!(lines(&edge, "access.log", 1).await.len(), 1);
    fs::rename(folder.join("access.log"), folder.join("access.log.1"))?;
    edge.access_log.as_ref().unwrap().reopen();
    eventually(|| folder.join("access.log").exists()).await?;
    ask(&mut client, "/public/after", &[]).await?;
    let new = lines(&edge, "access.log", 1).await;
    assert_eq!((new.len(), &parse(&new[0])["path"]), (1, &"/public/after".into()));
    assert_eq!(lines(&edge, "access.log.1", 1).await.len(), 1);
    Ok(())
}

/// A pipe that nobody reads takes 64 KiB and then nothing; requests go on, and what is lost is counted.
#[tokio::test]
async fn a_reader_that_reads_nothing_stops_no_request() -> Result<()> {
    let (edge, _origin) = edge(|site| {
        let pipe = site.dir.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        site.config.access_log.destination = Destination::File(pipe);
        site.config.access_log.queue = 16;
    })
    .await?;
    let long = format!("/public/{}", "a".repeat(2_000));
    let mut client = edge.http2().await?;
    for _ in 0..200 {
        assert_eq!(ask(&mut client, &long, &[]).await?, 200);
    }
    let lost = edge.metrics.access_log_lines.with_label_values(&["queue_full"]);
    assert!(lost.get() > 0, "400 KiB went into a pipe and a queue that hold 200");
    assert!(!edge.access_log.as_ref().unwrap().flush(Duration::from_millis(50)), "it is stuck");
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_early_is_written_down_as_well() -> Result<()> {
    let (edge, _origin) = edge(|_| ()).await?;
    let mut client = edge.http2().await?;
    let asked = tokio::spawn(async move {
        let request = Request::get("/public/stall").body(Empty::new().boxed()).unwrap();
        let _ = client.send(request).await;
    });
    let served = edge.metrics.connections.with_label_values(&["accepted"]);
    eventually(|| served.get() == 1).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    asked.abort();
    let line = parse(&lines(&edge, "access.log", 1).await[0]);
    assert_eq!((line["status"].as_u64(), line["complete"].as_bool()), (Some(499), Some(false)));
    Ok(())
}

#[test]
fn a_destination_that_cannot_be_opened_is_named() -> Result<()> {
    let mut site = Site::new("127.0.0.1:9".parse()?)?;
    let path = Path::new("/nonexistent/access.log");
    site.config.access_log.destination = Destination::File(path.to_owned());
    let error = format!("{:#}", site.start().err().unwrap());
    assert!(error.contains("access_log.destination: /nonexistent/access.log"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_line_has_the_trace_of_its_client_and_the_id_of_its_proxy() -> Result<()> {
    let trusted = |site: &mut Site| site.config.http.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let (edge, _origin) = edge(trusted).await?;
    let mut client = edge.http1().await?;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    for fields in [
        &[("traceparent", parent.as_str()), ("x-request-id", "edge-7")][..],
        &[("traceparent", "00-nonsense-00f067aa0ba902b7-01")],
        &[("traceparent", &parent), ("traceparent", &parent)],
    ] {
        assert_eq!(ask(&mut client, "/public/x", fields).await?, 200);
    }
    let lines: Vec<Value> = lines(&edge, "access.log", 3).await.iter().map(|line| parse(line)).collect();
    assert_eq!(
        (lines[0]["trace_id"].as_str(), lines[0]["request_id"].as_str()),
        (Some(trace), Some("edge-7"))
    );
    for line in &lines[1..] {
        assert!(line.get("trace_id").is_none() && line.get("early_data").is_none(), "{line}");
    }
    Ok(())
}
