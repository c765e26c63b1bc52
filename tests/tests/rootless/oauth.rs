//! Requests to an authorization server behind: the code flow with PKCE and nothing older, to where clients said they want their answers,
//! and refresh tokens once (RFC 6749, RFC 7636, RFC 9700).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::time::Duration;

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use enforcer::config::{self, Endpoint, Limit, OAuth, RateLimit};
use enforcer_tests::{
    edge::{Client, Edge, Outgoing, Site, route},
    origin::Origin,
};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde_json::Value;

const CALLBACK: &str = "com.example.app:/callback";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

struct Scene {
    edge: Edge,
    origin: Origin,
}

/// `/authorize` and `/token` of a server whose refresh tokens rotate, for the client `app`.
pub(super) fn routes() -> [config::Route; 2] {
    let oauth = |endpoint| {
        Some(OAuth {
            endpoint,
            clients: [("app".to_owned(), vec![CALLBACK.to_owned(), "https://app.example/cb".to_owned()])]
                .into(),
            grants: vec!["authorization_code".to_owned(), "refresh_token".to_owned()],
            client_limit: None,
            rotation: Some(Duration::from_secs(3_600)),
            refresh_lifetime: None,
            dpop: None,
        })
    };
    let mut authorize = route("/authorize", None, &[]);
    authorize.oauth = oauth(Endpoint::Authorization);
    let mut token = route("/token", None, &[]);
    token.oauth = oauth(Endpoint::Token);
    let rate = RateLimit { events: 10_000, period: Duration::from_secs(1), burst: 10_000 };
    token.limits.push(Limit::by_address(rate));
    [authorize, token]
}

impl Scene {
    async fn new(change: impl FnOnce(&mut config::Config)) -> Result<Self> {
        let origin = Origin::start().await?;
        let mut site = Site::new(origin.address)?;
        site.config.routes.extend(routes());
        change(&mut site.config);
        Ok(Self { edge: site.start()?, origin })
    }

    async fn code(&self, client: &mut Client, request: Request<Outgoing>) -> Result<String> {
        let response = client.send(request).await?;
        code(response).await
    }
}

/// The code of a refusal; empty for an answer of the server's.
async fn code(response: Response<Incoming>) -> Result<String> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return Ok(String::new());
    }
    let document: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(document["code"].as_str().unwrap_or("?").to_owned())
}

fn body(text: &str) -> Outgoing {
    Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed()
}

fn get(target: &str) -> Request<Outgoing> {
    Request::get(target).body(body("")).unwrap()
}

fn form(target: &str, text: &str) -> Request<Outgoing> {
    let request = Request::post(target).header("content-type", "application/x-www-form-urlencoded");
    request.body(body(text)).unwrap()
}

/// A good authorization request, with a parameter replaced, or taken away by an empty value.
fn authorize(name: &str, value: &str) -> String {
    let mut pairs = vec![
        ("response_type", "code"),
        ("client_id", "app"),
        ("redirect_uri", CALLBACK),
        ("state", "x"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    pairs.retain(|(known, _)| *known != name);
    if !value.is_empty() {
        pairs.push((name, value));
    }
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// PKCE and redirect URIs at the authorization endpoint; the same as a form.
#[tokio::test]
async fn authorization_requests_are_the_code_flow_with_pkce_to_a_known_place() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let long = "A".repeat(44);
    let cases = [
        ("good", "", "", ""),
        ("another redirect URI", "redirect_uri", "https://app.example/cb", ""),
        ("challenge_missing", "code_challenge", "", "oauth_pkce"),
        ("challenge_plain", "code_challenge_method", "plain", "oauth_pkce"),
        ("challenge_method_missing", "code_challenge_method", "", "oauth_pkce"),
        ("challenge_method_case", "code_challenge_method", "s256", "oauth_pkce"),
        ("challenge_short", "code_challenge", &CHALLENGE[1..], "oauth_pkce"),
        ("challenge_long", "code_challenge", &long, "oauth_pkce"),
        (
            "challenge_characters",
            "code_challenge",
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw+cM",
            "oauth_pkce",
        ),
        ("implicit", "response_type", "token", "oauth_grant"),
        ("implicit id_token", "response_type", "id_token token", "oauth_grant"),
        ("hybrid", "response_type", "code id_token", "oauth_grant"),
        ("response_type_missing", "response_type", "", "oauth_request"),
        ("client_missing", "client_id", "", "oauth_request"),
        ("client_unknown", "client_id", "other", "oauth_redirect"),
        ("redirect_missing", "redirect_uri", "", "oauth_redirect"),
        ("redirect_longer", "redirect_uri", "https://app.example/cb/x", "oauth_redirect"),
        ("redirect_query", "redirect_uri", "https://app.example/cb?x=1", "oauth_redirect"),
        ("redirect_case", "redirect_uri", "https://APP.example/cb", "oauth_redirect"),
        ("redirect_slash", "redirect_uri", "https://app.example/cb/", "oauth_redirect"),
        ("redirect_userinfo", "redirect_uri", "https://app.example@evil.example/cb", "oauth_redirect"),
        ("request object", "request", "eyJ", "oauth_request"),
        ("request_uri", "request_uri", "https://evil.example/r", "oauth_request"),
        ("token in query", "access_token", "x", "token_in_query"),
    ];
    for mut client in scene.edge.clients().await? {
        for (name, parameter, value, expected) in cases {
            let query = authorize(parameter, value);
            let got = scene.code(&mut client, get(&format!("/authorize?{query}"))).await?;
            assert_eq!(got, expected, "{name}");
            if expected != "token_in_query" {
                let got = scene.code(&mut client, form("/authorize", &query)).await?;
                assert_eq!(got, expected, "{name}, as a form");
            }
        }
        let twice = format!("{}&code_challenge_method=plain", authorize("", ""));
        assert_eq!(scene.code(&mut client, get(&format!("/authorize?{twice}"))).await?, "oauth_request");
        let split = form(&format!("/authorize?{}", authorize("", "")), "code_challenge_method=plain");
        assert_eq!(scene.code(&mut client, split).await?, "oauth_request", "part of it in the body");
    }
    Ok(())
}

fn exchange(name: &str, value: &str) -> String {
    let mut pairs = vec![
        ("grant_type", "authorization_code"),
        ("client_id", "app"),
        ("code", "c0de"),
        ("redirect_uri", CALLBACK),
        ("code_verifier", VERIFIER),
    ];
    pairs.retain(|(known, _)| *known != name);
    if !value.is_empty() {
        pairs.push((name, value));
    }
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[tokio::test]
async fn token_requests_have_a_verifier_and_a_grant_that_is_served() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let of = |count: usize| "a".repeat(count);
    let cases = [
        ("good", "", String::new(), ""),
        ("verifier_absent", "code_verifier", String::new(), "oauth_pkce"),
        ("verifier_42", "code_verifier", of(42), "oauth_pkce"),
        ("verifier_43", "code_verifier", of(43), ""),
        ("verifier_128", "code_verifier", of(128), ""),
        ("verifier_129", "code_verifier", of(129), "oauth_pkce"),
        ("verifier_characters", "code_verifier", format!("{}+", of(50)), "oauth_pkce"),
        ("all_characters", "code_verifier", format!("{}-._~", of(50)), ""),
        ("code_missing", "code", String::new(), "oauth_request"),
        ("grant_missing", "grant_type", String::new(), "oauth_request"),
        ("password", "grant_type", "password".to_owned(), "oauth_grant"),
        ("client_credentials", "grant_type", "client_credentials".to_owned(), "oauth_grant"),
        ("client_unknown", "client_id", "other".to_owned(), "oauth_redirect"),
        ("client_missing", "client_id", String::new(), "oauth_redirect"),
        ("redirect_other", "redirect_uri", "https://evil.example/".to_owned(), "oauth_redirect"),
    ];
    for mut client in scene.edge.clients().await? {
        for (name, parameter, value, expected) in &cases {
            let got = scene.code(&mut client, form("/token", &exchange(parameter, value))).await?;
            assert_eq!(got, *expected, "{name}");
        }
        let twice = format!("{}&code_verifier={VERIFIER}", exchange("", ""));
        assert_eq!(scene.code(&mut client, form("/token", &twice)).await?, "oauth_request");
        assert_eq!(scene.code(&mut client, get("/token")).await?, "method_not_allowed");
        let by_query = form(&format!("/token?{}", exchange("", "")), "");
        assert_eq!(scene.code(&mut client, by_query).await?, "oauth_request");
        let json = Request::post("/token").header("content-type", "application/json").body(body("{}"))?;
        assert_eq!(scene.code(&mut client, json).await?, "oauth_request");
        let large = format!("{}&x={}", exchange("", ""), "a".repeat(70 << 10));
        assert_eq!(scene.code(&mut client, form("/token", &large)).await?, "oauth_request");
        for (id, expected) in [("app", ""), ("other", "oauth_redirect")] {
            let mut basic = form("/token", &exchange("client_id", ""));
            let value = format!("Basic {}", STANDARD.encode(format!("{id}:secret")));
            basic.headers_mut().insert("authorization", value.parse()?);
            assert_eq!(scene.code(&mut client, basic).await?, expected, "{id} by HTTP Basic");
        }
        let mut two = form("/token", &exchange("", ""));
        two.headers_mut().insert("authorization", format!("Basic {}", STANDARD.encode("x:y")).parse()?);
        assert_eq!(scene.code(&mut client, two).await?, "oauth_request", "two clients");
    }
    Ok(())
}

/// What some servers read otherwise than it is read here.
#[tokio::test]
async fn forms_that_can_be_read_in_two_ways_are_refused() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let mut client = scene.edge.http1().await?;
    let form_type = "application/x-www-form-urlencoded";
    for (kind, expected) in [
        (format!("{form_type}; charset=utf-8"), ""),
        (format!("{form_type};charset=\"UTF-8\""), ""),
        (format!("{form_type};x=y"), ""),
        (format!("{form_type}; charset=ibm037"), "oauth_request"),
        (format!("{form_type}; charset=utf-8; CHARSET=utf-16"), "oauth_request"),
        (format!("{form_type}; charset"), "oauth_request"),
        (format!("text/plain; {form_type}"), "oauth_request"),
    ] {
        let request = Request::post("/token").header("content-type", &kind).body(body(&exchange("", "")))?;
        assert_eq!(scene.code(&mut client, request).await?, expected, "{kind}");
    }
    for (more, expected) in [
        ("ui_locales=de&x.y=1&z[]=2&Z=3", ""),
        ("redirect.uri=https://evil.example/", "oauth_request"),
        ("redirect_uri[]=https://evil.example/", "oauth_request"),
        ("redirect+uri=https://evil.example/", "oauth_request"),
        ("+redirect_uri=https://evil.example/", "oauth_request"),
        ("Redirect_URI=https://evil.example/", "oauth_request"),
        ("redirect_uri%00x=https://evil.example/", "oauth_request"),
        ("request.uri=https://evil.example/", "oauth_request"),
        ("x=1;redirect_uri=https://evil.example/", "oauth_request"),
        ("x=1;y", ""),
    ] {
        let query = format!("{}&{more}", authorize("", ""));
        let got = scene.code(&mut client, get(&format!("/authorize?{query}"))).await?;
        assert_eq!(got, expected, "{more}");
        assert_eq!(scene.code(&mut client, form("/authorize", &query)).await?, expected, "{more}, as a form");
    }
    Ok(())
}

#[tokio::test]
async fn a_refresh_token_is_good_once() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let mut client = scene.edge.http1().await?;
    assert_eq!(scene.code(&mut client, refresh("one", "next=1b")).await?, "");
    assert_eq!(scene.code(&mut client, refresh("two", "next=2b")).await?, "", "another one");
    assert_eq!(scene.code(&mut client, refresh("1b", "next=1c")).await?, "", "what came of it");
    assert_eq!(scene.code(&mut client, refresh("one", "next=x")).await?, "oauth_refresh_reused");
    // Two had it: whoever has the newest one of the line has nothing any more, nor has the access token that came with it.
    assert_eq!(scene.code(&mut client, refresh("1c", "next=1d")).await?, "token_revoked");
    assert_eq!(scene.code(&mut client, refresh("2b", "next=2c")).await?, "", "another line");
    let policy = scene.edge.policy.load();
    for (access, is_revoked) in [("access.1b", true), ("access.1c", true), ("access.2b", false)] {
        let mark = policy.revoked().marker().mark(enforcer::revoked::Kind::Token, access.as_bytes());
        let terms = policy.revoked().terms(mark, enforcer::clock::unix_now());
        assert_eq!(terms.0.is_some(), is_revoked, "{access}");
    }
    // What cannot be read may have been another one.
    assert_eq!(scene.code(&mut client, refresh("coded", "coding=gzip")).await?, "");
    assert_eq!(scene.code(&mut client, refresh("coded", "")).await?, "oauth_refresh_reused");
    let entries = policy.refreshed().len();
    // What its server refused is not used up: the origin answers so to the path that it is sent.
    use enforcer::revoked::{FOREVER, Kind, Terms, WHENEVER};
    let mark = policy.revoked().marker().mark(Kind::Token, b"three");
    policy.revoked().revoke(mark, Terms { until: FOREVER, before: WHENEVER }, 1_800_000_000).unwrap();
    assert_eq!(scene.code(&mut client, refresh("three", "")).await?, "token_revoked");
    assert_eq!(policy.refreshed().len(), entries);
    Ok(())
}

/// Clients look at `error` of JSON (RFC 6749 section 5.2), and begin anew or ask the user by what it says.
#[tokio::test]
async fn clients_of_the_token_endpoint_are_told_in_their_own_words() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let mut client = scene.edge.http1().await?;
    assert_eq!(scene.code(&mut client, refresh("one", "next=two")).await?, "");
    let without = exchange("code_verifier", "");
    for (request, status, error) in [
        (refresh("one", ""), 400, Some("invalid_grant")),
        (refresh("two", ""), 401, Some("invalid_grant")),
        (form("/token", &exchange("grant_type", "password")), 400, Some("unsupported_grant_type")),
        (form("/token", &exchange("grant_type", "")), 400, Some("invalid_request")),
        (form("/token", &exchange("client_id", "other")), 400, Some("invalid_client")),
        (form("/token", &without), 400, Some("invalid_grant")),
        (get("/token"), 405, Some("invalid_request")),
        (get("/token?refresh_token=x"), 400, Some("invalid_request")),
        // No client of a token endpoint gets there.
        (get(&format!("/authorize?{}", authorize("code_challenge", ""))), 400, None),
    ] {
        let target = request.uri().clone();
        let response = client.send(request).await?;
        assert_eq!(response.status(), status, "{target} {error:?}");
        let kind = if error.is_some() { "application/json" } else { "application/problem+json" };
        assert_eq!(response.headers()["content-type"], kind);
        assert_eq!(response.headers()["cache-control"], "no-store");
        let document: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        assert_eq!(document["error"].as_str(), error, "{document}");
        assert!(document["code"].is_string() && document["request_id"].is_string(), "{document}");
    }
    Ok(())
}

/// A request to exchange a refresh token; what else is in its form tells the origin what to answer.
fn refresh(token: &str, more: &str) -> Request<Outgoing> {
    form("/token", &format!("grant_type=refresh_token&client_id=app&refresh_token={token}&{more}"))
}

#[tokio::test]
async fn of_two_that_exchange_one_refresh_token_one_gets_through() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    let [mut one, mut other] = scene.edge.clients().await?;
    let before = scene.origin.requests();
    let (first, second) = tokio::join!(
        scene.code(&mut one, refresh("one", "next=1b&slow=1")),
        scene.code(&mut other, refresh("one", "next=1c&slow=1")),
    );
    let (first, second) = (first?, second?);
    let refused = if first.is_empty() { second } else { first };
    assert_eq!(refused, "oauth_refresh_busy");
    assert_eq!(scene.origin.requests(), before + 1, "one of them alone");
    // Of an exchange that came to nothing the token is as good as before, whoever comes next.
    for answer in ["answer=503", "answer=400"] {
        let (first, second) = tokio::join!(
            scene.code(&mut one, refresh("two", &format!("{answer}&slow=1"))),
            scene.code(&mut other, refresh("two", &format!("{answer}&slow=1"))),
        );
        let codes = [first?, second?];
        assert!(codes.contains(&"oauth_refresh_busy".to_owned()), "{codes:?}");
    }
    assert_eq!(scene.code(&mut one, refresh("two", "next=2b")).await?, "");
    Ok(())
}

/// The answer has to be read: it is asked for as it is, and goes on as it came.
#[tokio::test]
async fn an_answer_with_tokens_is_read_and_goes_on_as_it_came() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    for mut client in scene.edge.clients().await? {
        let mut request = refresh("one", "next=one");
        request.headers_mut().insert("accept-encoding", "gzip".parse()?);
        let response = client.send(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        let said: Value = serde_json::from_slice(&body)?;
        assert_eq!(said["refresh_token"], "one", "the same one stays good");
        assert_eq!(said["asked_coding"], false);
    }
    Ok(())
}

#[tokio::test]
async fn a_refresh_token_that_was_refused_or_does_not_rotate_may_come_again() -> Result<()> {
    let scene = Scene::new(|config| {
        for route in &mut config.routes {
            if let Some(oauth) = &mut route.oauth {
                oauth.rotation = None;
            }
        }
    })
    .await?;
    let mut client = scene.edge.http1().await?;
    for _ in 0..3 {
        assert_eq!(scene.code(&mut client, refresh("one", "next=other")).await?, "");
    }
    // A server that gives no other one with an exchange leaves the old one good (RFC 6749 section 6).
    let rotating = Scene::new(|_| ()).await?;
    let mut own = rotating.edge.http1().await?;
    for more in ["", "next=one", "answer=400", "answer=503", ""] {
        let got = rotating.code(&mut own, refresh("one", more)).await?;
        assert_ne!(got, "oauth_refresh_reused", "{more}");
    }
    // A server that cannot be reached has exchanged nothing.
    let nowhere = Scene::new(|config| {
        config.upstreams.insert(
            "api".to_owned(),
            enforcer_tests::edge::upstream("127.0.0.1:9".parse().unwrap()).unwrap(),
        );
    })
    .await?;
    let mut client = nowhere.edge.http1().await?;
    for _ in 0..2 {
        assert_eq!(nowhere.code(&mut client, refresh("one", "")).await?, "upstream_unreachable");
    }
    drop((scene.origin, nowhere.origin));
    Ok(())
}

#[tokio::test]
async fn a_client_has_a_limit_of_its_own() -> Result<()> {
    let scene = Scene::new(|config| {
        for route in &mut config.routes {
            if let Some(oauth) = &mut route.oauth {
                oauth.clients.clear();
                oauth.client_limit =
                    Some(RateLimit { events: 1, period: Duration::from_secs(3_600), burst: 1 });
            }
        }
    })
    .await?;
    let mut client = scene.edge.http1().await?;
    for (id, expected) in [("a", ""), ("a", ""), ("a", "rate_limited"), ("b", ""), ("a", "rate_limited")] {
        let got = scene.code(&mut client, form("/token", &exchange("client_id", id))).await?;
        assert_eq!(got, expected, "{id}");
    }
    Ok(())
}

#[tokio::test]
async fn credentials_in_a_query_are_refused_everywhere_unless_allowed() -> Result<()> {
    let scene = Scene::new(|_| ()).await?;
    for mut client in scene.edge.clients().await? {
        for (query, expected) in [
            ("?access_token=x", "token_in_query"),
            ("?a=b&access%5Ftoken=x", "token_in_query"),
            ("?a=b;access_token=x", "token_in_query"),
            ("?refresh_token", "token_in_query"),
            ("?client_secret=x", "token_in_query"),
            ("?id_token=x", "token_in_query"),
            ("?token=x", ""),
            ("?my_access_token=x&access_tokens=1&q=access_token", ""),
            ("", ""),
        ] {
            let got = scene.code(&mut client, get(&format!("/public/x{query}"))).await?;
            assert_eq!(got, expected, "{query}");
        }
    }
    let lax = Scene::new(|config| config.http.tokens_in_query = true).await?;
    let mut client = lax.edge.http1().await?;
    assert_eq!(lax.code(&mut client, get("/public/x?access_token=x")).await?, "");
    Ok(())
}
