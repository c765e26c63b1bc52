//! Third act: repeated offences end in a ban that the kernel enforces, and operators see why and lift it.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;

use super::{
    Stage,
    screen::{Observed, Screen},
    told,
};
use crate::netns::{source_v4, source_v6};

/// Forged tokens until the ban must have come; by the table of refusals each weighs a quarter of the threshold.
const PATIENCE: usize = 12;
/// A client that gets no answer gives up after this.
const SILENCE: Duration = Duration::from_millis(1500);
/// The offender.
const OFFENDER: u8 = 4;

pub(super) fn play(stage: &Stage<'_>, screen: &mut Screen) -> Result<()> {
    screen.chapter("Bans");
    let offender = source_v4(OFFENDER);
    let (good, forged) = (stage.scene.site.token("read")?, stage.scene.site.forged_token()?);
    let silent = |source: IpAddr| stage.request(source, Some(&good), &[], SILENCE);
    screen.step(
        "Repeated offences",
        &format!("up to {PATIENCE} forged tokens from {offender}"),
        "some are answered 401, then nothing is answered any more",
        || {
            let mut refused = 0;
            for _ in 0..PATIENCE {
                let answer = stage.request(offender.into(), Some(&forged), &[], SILENCE)?;
                refused += u32::from(answer.status == 401);
                let list = stage.daemon.ask(&["ban", "list"])?.to_string();
                if answer.status == 0 && list.contains(&offender.to_string()) {
                    let text = format!("{refused} times 401, then {}", told(&answer));
                    return Ok(Observed::new(refused >= 1, text));
                }
            }
            Ok(Observed::new(false, format!("{refused} times 401, and no ban")))
        },
    );
    screen.step(
        "The ban is in the kernel",
        &format!("a good request from {offender}, and one from {}", source_v4(8)),
        "the offender's packets are dropped as banned and the daemon sees no connection; the other one is served",
        || {
            let before = stage.daemon.scrape()?;
            let answer = silent(offender.into())?;
            let after = stage.daemon.scrape()?;
            let other = stage.get(8, Some(&good))?;
            let dropped = after.packets("banned") - before.packets("banned");
            let seen = after.connections() - before.connections();
            let good = answer.status == 0 && dropped > 0 && seen == 0 && other.status == 200;
            let text = format!(
                "offender: {}, {dropped} packets dropped as banned, {seen} connections at the daemon; other: {}",
                told(&answer),
                told(&other)
            );
            Ok(Observed::new(good, text))
        },
    );
    let mut why = String::new();
    screen.step(
        "Why?",
        &format!("enforcer why {offender}"),
        "a drop, with the ban, its cause and the time that remains",
        || {
            why = stage.daemon.say(&["why", &offender.to_string()])?;
            let good = why.contains("banned") && why.contains("token_bad_signature");
            Ok(Observed::new(good, "as below"))
        },
    );
    screen.quote(&why);
    screen.step(
        "Pardon",
        &format!("enforcer ban del {offender}, then a good request from there"),
        "200",
        || {
            stage.daemon.say(&["ban", "del", &offender.to_string()])?;
            let answer = stage.get(OFFENDER, Some(&good))?;
            Ok(Observed::new(answer.status == 200, told(&answer)))
        },
    );
    let (inside, outside) = (source_v6(7), source_v6(8));
    screen.step(
        "A prefix by hand, over IPv6",
        "enforcer ban add 2001:db8:7::/48 --for 5m, then good requests from inside and outside of it",
        &format!("{inside} was served before and gets no answer now; {outside} is served"),
        || {
            let limit = Duration::from_secs(10);
            let before = stage.request(inside.into(), Some(&good), &[], limit)?;
            stage.daemon.say(&["ban", "add", "2001:db8:7::/48", "--for", "5m"])?;
            let (banned, other) =
                (silent(inside.into())?, stage.request(outside.into(), Some(&good), &[], limit)?);
            let text =
                format!("before: {}; banned: {}; outside: {}", told(&before), told(&banned), told(&other));
            let good = before.status == 200 && banned.status == 0 && other.status == 200;
            Ok(Observed::new(good, text))
        },
    );
    screen.quote(&stage.daemon.say(&["ban", "list"])?);
    Ok(())
}
