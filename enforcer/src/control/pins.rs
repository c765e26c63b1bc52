//! Pins as operators see them, and the switch to a backup, which the daemon's main loop carries out.

use tokio::sync::{mpsc, oneshot};

use super::wire::{Answer, DeclaredRow, Done, Failure, FailureKind, OtherRow, PinsRow, SeenRow};
use crate::policy::{Policy, pins::Set};

/// A request to serve a set of pins by its backup, or no longer.
#[derive(Debug)]
pub struct SwitchRequest {
    /// The set's name.
    pub set: String,
    /// Whether it is taken back.
    pub back: bool,
    /// For what came of it: a sentence and remarks, or why it was refused.
    pub answer: oneshot::Sender<Result<(String, Vec<String>), String>>,
}

/// Passes a switch on, and waits for what comes of it.
pub(super) async fn switch(
    switches: &mpsc::Sender<SwitchRequest>,
    set: String,
    back: bool,
) -> Result<Answer, Failure> {
    let (answer, receiver) = oneshot::channel();
    let gone = || Failure::new(FailureKind::Failed, "the daemon is stopping");
    switches.send(SwitchRequest { set, back, answer }).await.map_err(|_| gone())?;
    let result = receiver.await.map_err(|_| gone())?;
    let done = |(message, remarks)| Answer::Done(Done { message, remarks, ban: None });
    result.map(done).map_err(|message| Failure::new(FailureKind::Refused, message))
}

/// Every set as it is at `now`, seconds since 1970.
pub(super) fn rows(policy: &Policy, now: u64) -> Vec<PinsRow> {
    let row = |set: &Set| PinsRow {
        set: set.name.clone(),
        hosts: set.hosts.iter().map(ToString::to_string).collect(),
        serving: set.served.iter().map(|served| served.pin.to_string()).collect(),
        switched: set.is_switched,
        remarks: set.remarks(now),
    };
    policy.pins().sets.iter().map(row).collect()
}

/// Fingerprints of hellos at `now`, seconds since 1970: those that are declared, and others that came; refused where nobody looks.
pub fn seen(policy: &Policy, now: u64) -> Result<Answer, Failure> {
    let Some(suspicion) = policy.suspicion() else {
        let text = "there is no [suspicion] in the configuration: nobody looks at fingerprints";
        return Err(Failure::new(FailureKind::Refused, text));
    };
    let declared = suspicion.declared().map(|(app, pattern, requests)| DeclaredRow {
        app: app.name.clone(),
        platform: app.platform().map(|platform| platform.name().to_owned()),
        ja4: pattern.text().to_owned(),
        requests,
    });
    let others = suspicion.strangers().into_iter().map(|sight| OtherRow {
        ja4: sight.ja4.into(),
        requests: sight.count,
        seconds_ago: now.saturating_sub(sight.last),
    });
    Ok(Answer::Seen(SeenRow { declared: declared.collect(), others: others.collect() }))
}
