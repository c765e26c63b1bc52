//! gRPC from end to end: a real client and a real server, calls of every kind, refusals that the client understands, deadlines,
//! and servers that die in the middle.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::{collections::HashSet, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use enforcer::{
    config::{Limit, RateLimit},
    denial::Denial,
};
use enforcer_tests::{
    edge::{Edge, Outgoing, Site, route, upstream},
    grpc::{Client, DETAIL, Note, Server},
    origin::Origin,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::{net::TcpListener, sync::mpsc};
use tonic::Code;

use super::bodies::{Channel, within};

/// An edge whose upstream speaks HTTP/2 without TLS, with all paths of the service below `/` behind a token.
async fn edge(server: &Server, change: impl FnOnce(&mut Site)) -> Result<Edge> {
    let mut site = Site::new(server.address)?;
    let api = site.config.upstreams.get_mut("api").unwrap();
    api.servers = vec![format!("h2c://{}", server.address).parse()?];
    change(&mut site);
    site.start()
}

async fn client(edge: &Edge, prefix: &str) -> Result<Client> {
    Ok(Client::new(edge.channel().await?, prefix))
}

#[tokio::test]
async fn calls_of_every_kind_pass_with_their_trailers() -> Result<()> {
    let server = Server::start().await?;
    let edge = edge(&server, |_| {}).await?;
    let mut client = client(&edge, "/api").await?;
    client.token = Some(edge.site.token()?);
    let answer = within(client.unary("Unary", Note::new("hello"))).await??;
    assert_eq!(answer.metadata().get("x-seen").unwrap(), "yes");
    assert_eq!(answer.into_inner(), Note::new("hello"));
    let status = within(client.unary("Unary", Note::new("fail"))).await?.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "as you wish"));
    assert_eq!(status.metadata().get(DETAIL).unwrap(), "why");
    let mut many = within(client.repeat(Note { text: "x".repeat(10_000), times: 200 })).await??.into_inner();
    for n in 0..200 {
        assert_eq!(within(many.message()).await??.unwrap().times, n);
    }
    assert_eq!(within(many.message()).await??, None);
    assert!(within(many.trailers()).await??.is_some());
    Ok(())
}

#[tokio::test]
async fn a_conversation_flows_both_ways_at_once() -> Result<()> {
    let server = Server::start().await?;
    let edge = edge(&server, |_| {}).await?;
    let mut client = client(&edge, "/public").await?;
    let (sender, notes) = mpsc::channel(1);
    sender.send(Note::new("first")).await?;
    let mut answers = within(client.chat(notes)).await??.into_inner();
    assert_eq!(within(answers.message()).await??.unwrap(), Note::new("first"));
    for round in 0..20 {
        let note = Note::new(&format!("round {round}"));
        sender.send(note.clone()).await?;
        assert_eq!(within(answers.message()).await??.unwrap(), note);
    }
    drop(sender);
    assert_eq!(within(answers.message()).await??, None);
    Ok(())
}

#[tokio::test]
async fn refusals_are_statuses_that_clients_understand() -> Result<()> {
    let server = Server::start().await?;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let edge = edge(&server, |site| {
        site.config.upstreams.insert("gone".to_owned(), upstream(closed).unwrap());
        let mut gone = route("/gone/", None, &[]);
        gone.upstream = "gone".to_owned();
        let mut limited = route("/limited/", None, &[]);
        let rate = RateLimit { events: 1, period: Duration::from_secs(3600), burst: 0 };
        limited.limits = vec![Limit::by_address(rate)];
        let admin = route("/admin/", Some("main"), &["admin"]);
        site.config.routes.extend([gone, limited, admin]);
    })
    .await?;
    let (token, channel) = (edge.site.token()?, edge.channel().await?);
    let mut ids = HashSet::new();
    for (prefix, token, code, denial) in [
        ("/api", None, Code::Unauthenticated, "token_missing"),
        ("/api", Some("a.b.c".to_owned()), Code::Unauthenticated, "token_malformed"),
        ("/api", Some(token.clone()), Code::Ok, ""),
        ("/admin", Some(token), Code::PermissionDenied, "scope_missing"),
        ("/limited", None, Code::Ok, ""),
        ("/limited", None, Code::ResourceExhausted, "rate_limited"),
        ("/nowhere", None, Code::Unimplemented, "route_not_found"),
        ("/gone", None, Code::Unavailable, "upstream_unreachable"),
    ] {
        let mut client = Client::new(channel.clone(), prefix);
        client.token = token;
        let outcome = within(client.unary("Unary", Note::new("hello"))).await?;
        let (found, message) = match &outcome {
            Ok(_) => (Code::Ok, ""),
            Err(status) => (status.code(), status.message()),
        };
        assert_eq!(found, code, "{prefix}: {message}");
        if let Err(status) = &outcome {
            let said = |name: &str| status.metadata().get(name).unwrap().to_str().unwrap().to_owned();
            assert_eq!(said("x-denial-code"), denial, "{prefix}");
            let id = said("x-request-id");
            assert!(id.len() == 32 && ids.insert(id.clone()), "{prefix}: {id}");
        }
    }
    // What is counted is what HTTP would have been told.
    let count = |status: &str| edge.metrics.requests.with_label_values(&["/api/", status]).get();
    assert_eq!((count("4xx"), count("2xx")), (2, 1));
    Ok(())
}

fn call(path: &str, timeout: Option<&str>, body: Outgoing) -> Result<Request<Outgoing>> {
    let request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    let request = match timeout {
        Some(timeout) => request.header("grpc-timeout", timeout),
        None => request,
    };
    Ok(request.body(body)?)
}

fn message() -> Outgoing {
    // Not compressed, of length 0.
    Full::new(Bytes::from_static(&[0; 5])).boxed()
}

#[tokio::test]
async fn a_refusal_has_trailers_alone() -> Result<()> {
    let server = Server::start().await?;
    let edge = edge(&server, |_| {}).await?;
    let response = edge.http2().await?.send(call("/api/test.Echo/Unary", None, message())?).await?;
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    assert_eq!(headers["content-type"], "application/grpc");
    assert_eq!(headers["grpc-status"], "16");
    assert_eq!(headers["www-authenticate"], r#"Bearer realm="main""#);
    assert!(!headers["grpc-message"].is_empty());
    assert_eq!(headers["x-denial-code"], "token_missing");
    assert_eq!(headers["x-request-id"].len(), 32);
    assert_eq!(headers["cache-control"], "no-store", "it has a status that may be kept");
    let rest = within(response.into_body().collect()).await??;
    assert!(rest.trailers().is_none() && rest.to_bytes().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_deadline_ends_a_call_before_its_answer_and_in_the_middle() -> Result<()> {
    let server = Server::start().await?;
    let edge = edge(&server, |_| {}).await?;
    let mut client = edge.http2().await?;
    let request = call("/public/test.Echo/Never", Some("200m"), message())?;
    let response = within(client.send(request)).await??;
    assert_eq!((response.status(), &response.headers()["grpc-status"]), (StatusCode::OK, &"4".parse()?));
    let (sender, body) = Channel::open();
    sender.send(Bytes::from_static(&[0; 5])).await?;
    let response = within(client.send(call("/public/test.Echo/Chat", Some("400m"), body)?)).await??;
    assert!(!response.headers().contains_key("grpc-status"), "the call has begun");
    let rest = within(response.into_body().collect()).await??;
    let trailers = rest.trailers().unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["x-denial-code"]),
        (&"4".parse()?, &"deadline_exceeded".parse()?)
    );
    assert_eq!(trailers["x-request-id"].len(), 32);
    assert!(!rest.to_bytes().is_empty());
    drop(sender);
    Ok(())
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_a_call_is_unavailable() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let dying = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut connection = h2::server::handshake(stream).await?;
        let (_, mut answer) = connection.accept().await.unwrap()?;
        let head = http::Response::builder().header("content-type", "application/grpc").body(())?;
        let mut body = answer.send_response(head, false)?;
        body.send_data(Bytes::from_static(&[0; 5]), false)?;
        // Until that has been written; then the connection goes.
        let _ = tokio::time::timeout(Duration::from_millis(200), connection.accept()).await;
        anyhow::Ok(())
    });
    let mut site = Site::new(address)?;
    site.config.upstreams.get_mut("api").unwrap().servers = vec![format!("h2c://{address}").parse()?];
    let edge = site.start()?;
    let request = call("/public/test.Echo/Chat", None, message())?;
    let response = within(edge.http2().await?.send(request)).await??;
    let rest = within(response.into_body().collect()).await??;
    assert_eq!(rest.trailers().unwrap()["grpc-status"], "14");
    assert_eq!(rest.to_bytes().len(), 5);
    within(dying).await??
}

#[tokio::test]
async fn a_call_may_be_silent_for_longer_than_other_bodies() -> Result<()> {
    let server = Server::start().await?;
    let patience = Duration::from_millis(100);
    let edge = edge(&server, |site| site.config.http.body_timeout = patience).await?;
    let mut client = client(&edge, "/public").await?;
    let (sender, notes) = mpsc::channel(1);
    sender.send(Note::new("first")).await?;
    let mut answers = within(client.chat(notes)).await??.into_inner();
    assert_eq!(within(answers.message()).await??.unwrap(), Note::new("first"));
    tokio::time::sleep(3 * patience).await;
    sender.send(Note::new("second")).await?;
    assert_eq!(within(answers.message()).await??.unwrap(), Note::new("second"));
    Ok(())
}

#[tokio::test]
async fn no_time_limit_ends_because_a_request_says_that_it_is_a_call() -> Result<()> {
    // This server speaks HTTP/1.1, so there are no calls.
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.body_timeout = Duration::from_millis(100);
    let mut edge = site.start()?;
    let (sender, body) = Channel::open();
    sender.send(Bytes::from_static(&[0; 5])).await?;
    let response = within(edge.http2().await?.send(call("/public/sink", None, body)?)).await??;
    assert_eq!(response.headers()["x-denial-code"], "body_timeout");
    assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::BodyTimeout);
    Ok(())
}
