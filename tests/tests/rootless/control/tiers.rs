//! Tiers by the control socket: the same rules and rows as for every other list.

use enforcer::control::wire::TierCommand;

use super::*;

fn set(daemon: &Daemon, prefix: &str, tier: &str) -> Result<Answer, ClientError> {
    let (prefix, tier, reason) = (prefix.parse().unwrap(), tier.to_owned(), "a partner".to_owned());
    daemon.ask(Command::Tier(TierCommand::Set { prefix, tier, reason }))
}

#[test]
fn a_prefix_is_put_into_a_tier_listed_and_taken_out() {
    let daemon = Daemon::start();
    let refused = set(&daemon, "198.18.0.7", "vast").unwrap_err().to_string();
    assert!(refused.contains("there is no tier `vast`; there are: default, large"), "{refused}");
    let Ok(Answer::Done(done)) = set(&daemon, "198.18.0.7", "large") else { panic!() };
    assert_eq!(done.message, "198.18.0.7 is in the tier large until that is taken back");
    let Ok(Answer::Done(done)) = set(&daemon, "198.18.9.7", "large") else { panic!() };
    assert!(done.remarks.contains(&"it has no effect while 198.18.9.0/24 is allowed".to_owned()), "{done:?}");
    let Ok(Answer::Tiers(rows)) = daemon.ask(Command::Tier(TierCommand::List)) else { panic!() };
    let told: Vec<_> =
        rows.iter().map(|row| (row.prefix.to_string(), row.origin.as_str(), row.holds)).collect();
    assert_eq!(told, [("198.18.0.7".into(), "operator", true), ("198.18.9.7".into(), "operator", true)]);
    let prefix = "198.18.0.7".parse().unwrap();
    let Ok(Answer::Done(done)) = daemon.ask(Command::Tier(TierCommand::Del { prefix })) else { panic!() };
    assert_eq!(done.message, "198.18.0.7 is in the tier default again");
    assert!(daemon.ask(Command::Tier(TierCommand::Del { prefix })).is_err());
}
