//! Where one server ends and another begins: a connection is for one host, plain HTTP leads to https alone, and answers carry
//! what the configuration says and nothing of the software behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::process::{Command, Stdio};

use anyhow::Result;
use enforcer::denial::Denial;
use enforcer_tests::{
    edge::{Edge, NAME, Site},
    origin::Origin,
    process::Finished,
    tls::{curl, run},
};

use super::bodies::within;

#[tokio::test]
async fn a_request_for_another_host_than_its_connection_is_misdirected() -> Result<()> {
    let origin = Origin::start().await?;
    let mut edge = Site::new(origin.address)?.start()?;
    for version in ["--http1.1", "--http2"] {
        for (host, status) in [
            (NAME, 200),
            ("API.Example.COM", 200),
            ("api.example.com:8443", 200),
            ("api.example.com.", 200),
            ("a.example.org", 421),
            ("example.com", 421),
            ("api.example.com.evil.example", 421),
            ("127.0.0.1", 421),
            ("[::1]:443", 421),
        ] {
            let answer = curl(&edge, "/public/x", &[version, "-H", &format!("Host: {host}")]).await?.stdout;
            let line = answer.lines().next().unwrap_or_default();
            assert!(line.contains(&format!(" {status}")), "{version} {host}: {answer}");
            if status == 421 {
                assert!(answer.contains(r#""code":"misdirected""#), "{answer}");
                assert_eq!(within(edge.offences.recv()).await?.unwrap().denial, Denial::Misdirected);
            }
        }
    }
    // By address there is no server name (RFC 6066 section 3), so any host may be asked for.
    let url = format!("https://{}/public/x", edge.address);
    let mut command = Command::new("curl");
    command.args(["-q", "-s", "-i", "-k", "--noproxy", "*", "-H", "Host: a.example.org", &url]);
    let answer = run(command).await?.stdout;
    assert!(answer.starts_with("HTTP/2 200"), "{answer}");
    Ok(())
}

/// curl to the plain listener.
async fn plain(edge: &Edge, host: &str, target: &str, words: &[&str]) -> Result<Finished> {
    let address = edge.ingress.redirects()[0];
    let mut command = Command::new("curl");
    command.args(["-q", "-s", "-i", "--max-time", "15", "--noproxy", "*", "--path-as-is"]).args(words);
    command.args(["-H", &format!("Host: {host}"), &format!("http://{address}{target}")]);
    command.stdin(Stdio::null());
    run(command).await
}

#[tokio::test]
async fn plain_http_is_sent_to_https_and_nowhere_else() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.redirect = vec!["127.0.0.1:0".parse()?];
    let edge = site.start()?;
    let port = edge.address.port();
    for (words, host, target, expected) in [
        (&[][..], NAME, "/public/x?a=1&b=%2F", format!("https://{NAME}:{port}/public/x?a=1&b=%2F")),
        (&[], "api.example.com:80", "/", format!("https://{NAME}:{port}/")),
        (&["-d", "a=1"], "a.example.org", "/x", format!("https://a.example.org:{port}/x")),
        (&["-I"], NAME, "/x", format!("https://{NAME}:{port}/x")),
    ] {
        let answer = plain(&edge, host, target, words).await?.stdout;
        assert!(answer.starts_with("HTTP/1.1 308 Permanent Redirect\r\n"), "{answer}");
        assert!(answer.contains(&format!("location: {expected}\r\n")), "{answer}");
        assert!(answer.contains("connection: close\r\n") && !answer.contains("strict-transport"), "{answer}");
    }
    for (host, target, status) in [
        ("evil.example", "/x", 421),
        ("127.0.0.1", "/x", 421),
        ("a.b.example.org", "/x", 421),
        ("user@api.example.com", "/x", 400),
        (NAME, "//evil.example/x", 400),
        (NAME, "/a/../b", 400),
        (NAME, "/\\evil.example", 400),
    ] {
        let answer = plain(&edge, host, target, &[]).await?.stdout;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && !answer.contains("location:"),
            "{answer}"
        );
    }
    let counted = |class: &str| edge.metrics.requests.with_label_values(&["redirect", class]).get();
    assert_eq!((counted("3xx"), counted("4xx")), (4, 7));
    assert_eq!(edge.metrics.connections_open.get(), 0);
    Ok(())
}

#[tokio::test]
async fn a_field_that_is_taken_out_as_one_of_the_connection_was_never_there() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.routes[0].required_headers = vec!["x-device-id".parse()?];
    let edge = site.start()?;
    for (connection, status, arrives) in [
        ("keep-alive", 200, true),
        ("keep-alive, x-other", 200, true),
        ("X-Device-Id", 400, false),
        ("keep-alive, x-device-id", 400, false),
        ("host, content-length, x-request-id", 200, true),
    ] {
        let words =
            ["--http1.1", "-H", "x-device-id: abc", "-H", &format!("connection: {connection}"), "-d", "x=1"];
        let answer = curl(&edge, "/public/echo", &words).await?.stdout;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{connection}: {answer}");
        assert_eq!(answer.contains("header_missing"), !arrives, "{connection}: {answer}");
    }
    Ok(())
}

#[tokio::test]
async fn answers_carry_what_the_configuration_says_and_nothing_of_the_software_behind() -> Result<()> {
    let origin = Origin::start().await?;
    let mut site = Site::new(origin.address)?;
    site.config.http.response_headers = [
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("x-content-type-options", "nosniff"),
        ("x-kept", "ours"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let edge = site.start()?;
    for version in ["--http1.1", "--http2"] {
        for (path, kept) in [("/public/x", "yes"), ("/nowhere", "ours")] {
            let answer = curl(&edge, path, &[version]).await?.stdout.replace('\r', "");
            let (head, _) = answer.split_once("\n\n").unwrap();
            for line in [
                "content-security-policy: default-src 'none'; frame-ancestors 'none'",
                "x-content-type-options: nosniff",
                "strict-transport-security: max-age=31536000",
                &format!("x-kept: {kept}"),
            ] {
                assert_eq!(head.matches(line).count(), 1, "{line}\n{head}");
            }
            assert!(!head.contains("server:") && !head.contains("x-powered-by"), "{head}");
        }
    }
    Ok(())
}
