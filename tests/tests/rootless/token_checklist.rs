//! The pages with the checklists name tests that exist, with cases that they have; and lines of it that no other test shows.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::{fs, path::Path};

use anyhow::Result;
use enforcer::denial::Denial;
use enforcer_tests::{
    edge::{AUDIENCE, route, token},
    tokens::{self, SigningKey},
};

use super::admit::{Desk, NOW};

/// Tests, each with its cases: `module::function` "case", "case"; ...
fn named(cell: &str) -> Vec<(&str, &str, Vec<&str>)> {
    cell.split(';')
        .map(|one| {
            let mut parts = one.trim().splitn(3, '`').skip(1);
            let (module, function) = parts.next().unwrap().split_once("::").unwrap();
            let cases = parts.next().unwrap_or_default().split('"').skip(1).step_by(2).collect();
            (module, function, cases)
        })
        .collect()
}

#[test]
fn the_checklists_name_tests_and_cases_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = |name: &str| fs::read_to_string(root.join("../docs").join(name)).unwrap();
    let pages = page("checklists-tokens.md") + &page("checklists-devices.md");
    let rows = pages.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| line"));
    let (mut tests, mut cases) = (0, 0);
    for row in rows {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [_, cell, codes] = cells[..] else { panic!("three columns: {row}") };
        for (module, function, of) in named(cell) {
            let file = root.join(format!("tests/rootless/{module}.rs"));
            let source = fs::read_to_string(&file).unwrap_or_else(|_| panic!("no {}", file.display()));
            assert!(source.contains(&format!("fn {function}(")), "{module}::{function} is no test");
            tests += 1;
            for case in of {
                let quoted = format!("\"{case}\"");
                let begins = format!("{case}\"");
                assert!(source.contains(&quoted) || source.contains(&begins), "{module}: no case {quoted}");
                cases += 1;
            }
        }
        // Codes that look like ones are ones.
        for code in codes.split('`').skip(1).step_by(2).filter(|code| code.contains('_')) {
            assert!(Denial::from_code(code).is_some(), "{code} is no denial: {row}");
        }
    }
    assert!(tests >= 140 && cases >= 300, "{tests} tests, {cases} cases");
}

#[test]
fn without_a_kid_there_is_no_choice_among_keys() -> Result<()> {
    let desk = Desk::new()?;
    let twin = SigningKey::p256("ec-2")?;
    let without = |key: &SigningKey| key.mint_raw(r#"{"alg":"ES256"}"#, &desk.claims().to_string());
    assert_eq!(desk.judge(&without(&desk.ec)?), None, "the only one of its algorithm");
    let file = desk.site.config.tokens["main"].keys.file().unwrap().to_owned();
    fs::write(file, tokens::jwks(&[&desk.rsa, &desk.ec, &twin]))?;
    let desk = Desk { policy: desk.policy.reload(&desk.site.config)?, ..desk };
    for key in [&desk.ec, &twin] {
        let token = key.mint_raw(r#"{"alg":"ES256"}"#, &desk.claims().to_string())?;
        assert_eq!(desk.judge(&token), Some(Denial::TokenUnknownKey));
    }
    Ok(())
}

#[test]
fn a_key_of_one_issuer_signs_nothing_for_another() -> Result<()> {
    const PARTNER: &str = "https://partner.example/";
    let (own, same) = (SigningKey::p256("own")?, SigningKey::p256("ec-1")?);
    let set = tokens::jwks(&[&own, &same]);
    let desk = Desk::with(|site| {
        let file = site.dir.path().join("partner.json");
        fs::write(&file, &set).unwrap();
        site.config.tokens.insert("partner".to_owned(), token(PARTNER, file));
        site.config.routes[1] = route("/api/", Some("main"), &["read"]);
        site.config.routes[1].tokens.push("partner".to_owned());
    })?;
    let partner = tokens::claims(PARTNER, AUDIENCE, "read", NOW);
    for (name, token, expected) in [
        ("each its own", desk.ec.mint(&desk.claims())?, None),
        ("each its own", own.mint(&partner)?, None),
        ("a kid of the partner's", own.mint(&desk.claims())?, Some(Denial::TokenUnknownKey)),
        ("a kid that both have", same.mint(&desk.claims())?, Some(Denial::TokenBadSignature)),
        ("the other way round", desk.ec.mint(&partner)?, Some(Denial::TokenBadSignature)),
        ("a kid of ours", desk.rsa.mint(&partner)?, Some(Denial::TokenUnknownKey)),
        (
            "an issuer of neither",
            own.mint(&tokens::claims("https://evil.example/", AUDIENCE, "read", NOW))?,
            Some(Denial::TokenWrongIssuer),
        ),
    ] {
        assert_eq!(desk.judge(&token), expected, "{name}");
    }
    Ok(())
}
