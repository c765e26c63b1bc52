//! First act: requests, good and bad, up to the request limit.

use std::time::Duration;

use anyhow::Result;

use super::{
    PATH, Stage,
    screen::{Observed, Screen},
    told,
};
use crate::{clients::Answer, netns::source_v4};

/// More requests than the route's burst and what it refills meanwhile.
const HASTE: usize = 30;

pub(super) fn play(stage: &Stage<'_>, screen: &mut Screen) -> Result<()> {
    screen.chapter("Requests");
    let good = stage.scene.site.token("read write")?;
    for (version, option) in [("1.1", "--http1.1"), ("2", "--http2")] {
        screen.step(
            &format!("A good request over HTTP/{version}"),
            &format!("GET {PATH} from {} with a good token", source_v4(1)),
            &format!("200 over HTTP/{version}, answered by the upstream, with HSTS"),
            || {
                let before = stage.scene.upstream.requests();
                let limit = Duration::from_secs(10);
                let answer = stage.request(source_v4(1).into(), Some(&good), &[option], limit)?;
                let reached = stage.scene.upstream.requests() - before;
                let hsts = answer.header("strict-transport-security").unwrap_or("none");
                let good = answer.status == 200
                    && answer.version == version
                    && reached == 1
                    && answer.body.contains(PATH)
                    && hsts.starts_with("max-age=");
                Ok(Observed::new(good, format!("{}, HSTS {hsts}, upstream saw {reached}", told(&answer))))
            },
        );
    }
    let mut refused = |title: &str, what: &str, token: Option<String>, status: u16, code: &str| {
        screen.step(
            title,
            &format!("GET {PATH} from {} with {what}", source_v4(2)),
            &format!("{status}, code {code}; the upstream sees nothing"),
            || {
                let before = stage.scene.upstream.requests();
                let answer = stage.get(2, token.as_deref())?;
                let reached = stage.scene.upstream.requests() - before;
                let good = is(&answer, status, code) && reached == 0;
                Ok(Observed::new(good, format!("{}, upstream saw {reached}", told(&answer))))
            },
        );
    };
    let site = &stage.scene.site;
    refused("No token", "no token", None, 401, "token_missing");
    let expired = site.expired_token()?;
    refused("An expired token", "a token that ended an hour ago", Some(expired), 401, "token_expired");
    let forged = site.forged_token()?;
    refused("A forged token", "somebody else's signature", Some(forged), 401, "token_bad_signature");
    let narrow = site.token("profile")?;
    refused("A missing scope", "a good token for another scope", Some(narrow), 403, "scope_missing");
    screen.step(
        "Too many requests",
        &format!("up to {HASTE} good requests from {}, one after the other", source_v4(3)),
        "at least 11 served (one, and a burst of 10), then 429 with Retry-After",
        || {
            let mut served = 0;
            for _ in 0..HASTE {
                let answer = stage.get(3, Some(&good))?;
                if answer.status != 200 {
                    let wait = answer.header("retry-after").unwrap_or("nothing").to_owned();
                    let good =
                        served >= 11 && is(&answer, 429, "rate_limited") && wait.parse::<u32>().is_ok();
                    let text = format!("{served} served, then {}, Retry-After: {wait}", told(&answer));
                    return Ok(Observed::new(good, text));
                }
                served += 1;
            }
            Ok(Observed::new(false, format!("all {served} were served")))
        },
    );
    Ok(())
}

fn is(answer: &Answer, status: u16, code: &str) -> bool {
    let problem =
        answer.header("content-type").is_some_and(|kind| kind.starts_with("application/problem+json"));
    answer.status == status && answer.code() == code && problem
}
