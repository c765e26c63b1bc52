//! `enforcer token verify`: the steps that it shows are those of the daemon, and so is where they end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use anyhow::Result;
use clap::Parser as _;
use enforcer::{
    cli::{
        args::{Args, TokenVerb, TokenVerify, Verb},
        token::Report,
    },
    daemon,
};
use serde_json::{Value, json};

use super::{
    admit::{Desk, NOW},
    till::Till,
};

fn verb(options: &[&str]) -> TokenVerify {
    let line = ["enforcer", "token", "verify", "-"].into_iter().chain(options.iter().copied());
    let Verb::Token(TokenVerb::Verify(verb)) = Args::try_parse_from(line).unwrap().verb else {
        panic!("something else")
    };
    verb
}

fn judge(desk: &Desk, options: &[&str], token: &str) -> Result<Report> {
    let at = format!("--at={NOW}");
    let options: Vec<&str> = options.iter().copied().chain([at.as_str()]).collect();
    daemon::token(&desk.site.config, &verb(&options), token.as_bytes())
}

fn names(report: &Report) -> Vec<&str> {
    report.steps.iter().map(|step| step.name).collect()
}

#[test]
fn each_step_is_shown_up_to_where_it_ends() -> Result<()> {
    let desk = Desk::new()?;
    let good = desk.ec.mint(&desk.claims())?;
    let ways: [(&str, String, &[&str], Option<&str>); 7] = [
        (
            "good",
            good.clone(),
            &[
                "form",
                "issuer",
                "header",
                "key",
                "signature",
                "claims",
                "times",
                "revocation",
                "subject",
                "scopes",
            ],
            None,
        ),
        ("no token", "x".to_owned(), &[], Some("token_malformed")),
        (
            "unknown key",
            desk.ec.mint_raw(r#"{"alg":"ES256","kid":"ec-2"}"#, &desk.claims().to_string())?,
            &["form", "issuer", "header"],
            Some("token_unknown_key"),
        ),
        (
            "forged",
            desk.rsa.mint_raw(&desk.ec.header().to_string(), &desk.claims().to_string())?,
            &["form", "issuer", "header", "key"],
            Some("token_bad_signature"),
        ),
        (
            "another audience",
            desk.ec.mint(&desk.claims_but("aud", json!("app")))?,
            &["form", "issuer", "header", "key", "signature"],
            Some("token_wrong_audience"),
        ),
        (
            "expired",
            desk.ec.mint(&{
                let mut claims = desk.claims_but("iat", Value::Null);
                claims["nbf"] = json!(NOW - 900);
                claims["exp"] = json!(NOW - 300);
                claims
            })?,
            &["form", "issuer", "header", "key", "signature", "claims"],
            Some("token_expired"),
        ),
        (
            "algorithm none",
            desk.ec.mint_raw(r#"{"alg":"none"}"#, &desk.claims().to_string())?,
            &["form", "issuer"],
            Some("token_algorithm"),
        ),
    ];
    for (name, token, steps, refused) in ways {
        let report = judge(&desk, &[], &token)?;
        assert_eq!(names(&report), steps, "{name}");
        assert_eq!(report.refused.map(|refused| refused.code), refused, "{name}");
    }
    let report = daemon::token(&desk.site.config, &verb(&["--at", "1"]), good.as_bytes())?;
    assert_eq!(report.refused.unwrap().code, "token_not_yet_valid", "at another time");
    Ok(())
}

#[test]
fn a_path_brings_its_demands() -> Result<()> {
    let desk = Desk::with(|site| {
        site.config.routes[1].demands.method_scopes.insert("POST".to_owned(), vec!["write".to_owned()]);
    })?;
    let good = desk.ec.mint(&desk.claims())?;
    let get = judge(&desk, &["--path", "/api/x"], &good)?;
    assert_eq!((names(&get)[0], names(&get).last().copied()), ("route", Some("demands")));
    assert_eq!(get.refused, None);
    let post = judge(&desk, &["--path", "/api/x", "--method", "POST"], &good)?;
    assert_eq!(post.refused.unwrap().code, "scope_missing");
    let error = |path: &str| judge(&desk, &["--path", path], &good).unwrap_err().to_string();
    assert_eq!(error("/nowhere"), "no route takes GET `/nowhere`");
    assert_eq!(error("/public/x"), "the route `/public/` is public");
    Ok(())
}

#[test]
fn a_proof_is_judged_beside_its_token() -> Result<()> {
    let till = Till::new()?;
    let proof = till.draft().sign(&till.key);
    let url = "https://api.example.com/api/x?page=3";
    let report = judge(&till.desk, &["--path", "/api/x", "--dpop", &proof, "--url", url], &till.token)?;
    let steps = names(&report);
    assert_eq!(steps.iter().filter(|name| name.starts_with("proof")).count(), 7, "{steps:?}");
    assert_eq!((steps.last().copied(), report.refused.as_ref()), (Some("demands"), None));
    let refused =
        |options: &[&str], token: &str| judge(&till.desk, options, token).unwrap().refused.unwrap().code;
    assert_eq!(
        refused(&["--dpop", &proof, "--url", url, "--method", "POST"], &till.token),
        "dpop_wrong_request"
    );
    assert_eq!(
        refused(&["--dpop", &proof, "--url", "https://other.example/api/x"], &till.token),
        "dpop_wrong_request"
    );
    assert_eq!(refused(&["--dpop", &proof, "--url", "nonsense"], &till.token), "dpop_wrong_request");
    assert_eq!(refused(&["--dpop", "x", "--url", url], &till.token), "dpop_malformed");
    let plain = till.desk.ec.mint(&till.desk.claims())?;
    assert_eq!(refused(&["--dpop", &proof, "--url", url], &plain), "dpop_unbound");
    // Without a proof it is said that one is needed.
    let report = judge(&till.desk, &[], &till.token)?;
    assert!(names(&report).contains(&"bound to") && report.refused.is_none());
    Ok(())
}

#[test]
fn a_time_may_be_a_date() {
    for (written, seconds) in [
        ("1800000000", 1_800_000_000),
        ("2027-01-15T08:00:00Z", 1_800_000_000),
        ("2027-01-15T09:30:00.5+01:30", 1_800_000_000),
        ("1970-01-01T00:00:00Z", 0),
    ] {
        assert_eq!(verb(&["--at", written]).at, Some(seconds), "{written}");
    }
    for wrong in ["", "now", "2027-01-15", "2027-02-30T00:00:00Z", "1969-12-31T23:59:59Z", "-1", "+1", "1e9"]
    {
        let line = ["enforcer", "token", "verify", "-", &format!("--at={wrong}")].map(str::to_owned);
        assert!(Args::try_parse_from(line).is_err(), "{wrong}");
    }
    for lonely in [["--dpop", "x"], ["--url", "x"]] {
        let line = ["enforcer", "token", "verify", "-"].into_iter().chain(lonely);
        assert!(Args::try_parse_from(line).is_err(), "{lonely:?}");
    }
}
