//! Tokens of Google Play: opened here where that is possible, otherwise a question that ingress takes to Google before it goes on.
//!
//! Nothing here waits. What has to be asked is [`Pending`]; with what came of it [`resume`] goes on where the endpoint had stopped, and
//! [`request`] judges requests on routes that ask for a verdict of their own.

mod ladder;
pub mod request;

use serde_json::{Map, Value};

use super::{Answer, Failed, android, enrol, session, text};
use crate::{
    attestation::{
        Refused,
        play::{self, Cause, Expected, Genuine, Outcome, Unavailable, budget::Who},
    },
    denial::Denial,
    enrolment::{Device, DeviceId},
    policy::{
        Policy,
        attestation::{Attestation, Play},
    },
};
use ladder::Decision;

/// Steps of a verdict that tell of app and device, after those that tell whether it is meant for this request.
const TELLING: [&str; 5] = ["app", "device", "licence", "testing", "risk"];

/// How an app has asked for a token, and so what it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// With a nonce.
    Classic,
    /// With a requestHash.
    Standard,
}

/// A token that came with an enrolment, or for a session.
pub(super) struct Token<'a> {
    by: &'a Play,
    text: &'a str,
    kind: Kind,
    package: Option<&'a str>,
}

/// What a token came to.
pub(super) enum Said {
    /// What it says, which was judged.
    Known(Box<Genuine>),
    /// Google has to be asked.
    Asked(Question),
}

/// What Google is asked, and what the answer is held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    package: String,
    token: String,
    who: Who,
    kind: Kind,
    bound: String,
}

impl Pending {
    /// What Google has to be asked first.
    pub const fn question(&self) -> &Question {
        &self.question
    }
}

/// An endpoint's work that goes on once Google was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub(super) question: Question,
    pub(super) then: Then,
}

/// What goes on then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The enrolment of a device, as far as it is known; the packages that its key is of, if that is known.
    Enrol(DeviceId, Box<Device>, Vec<String>),
    /// A session.
    Session(session::Asked),
}

impl<'a> Token<'a> {
    /// `token`, and beside it `token_type` (`classic`, which is what nothing means, or `standard`) and, where several apps share a
    /// gateway, `package`.
    pub(super) fn read(attestation: &'a Attestation, asked: &'a Map<String, Value>) -> Result<Self, Denial> {
        let by = attestation.play.as_ref().ok_or(Denial::AttestationRequest)?;
        let kind = match asked.get("token_type").map(|kind| kind.as_str()) {
            None | Some(Some("classic")) => Kind::Classic,
            Some(Some("standard")) if by.remote.is_some() => Kind::Standard,
            Some(_) => return Err(Denial::AttestationRequest),
        };
        let package = asked.get("package").map(|_| text(asked, "package")).transpose()?;
        Ok(Self { by, text: text(asked, "token")?, kind, package })
    }

    /// What it says. `device`: whose it is; `bound`: what it has to be bound to; `packages`: of which apps it may be.
    pub(super) fn open(
        &self,
        (attestation, device): (&Attestation, DeviceId),
        bound: String,
        packages: &[String],
        now: u64,
    ) -> Result<Said, Failed> {
        let Play { keys, rules, .. } = self.by;
        if let (Kind::Classic, Some(keys)) = (self.kind, keys) {
            let (expected, now) = (Expected::Nonce(&bound), now.saturating_mul(1_000));
            let genuine = play::verify(self.text, keys, rules, &expected, now, &mut |_, _| ());
            let genuine = genuine.map_err(distrusted(attestation, device))?;
            return Ok(Said::Known(Box::new(genuine)));
        }
        let package = match (self.package, packages) {
            (Some(package), packages) => packages.iter().find(|one| *one == package),
            (None, [package, ..]) if packages.len() == 1 => Some(package),
            (None, _) => None,
        };
        let package = package.ok_or(Denial::AttestationRequest)?.clone();
        // Devices of which Google has said before that they are well have more of what may be asked than invented ones.
        let is_known = attestation.enrolment.devices.verdict(device).is_some();
        let who = if is_known { Who::Known } else { Who::New };
        let token = self.text.to_owned();
        Ok(Said::Asked(Question { package, token, who, kind: self.kind, bound }))
    }
}

impl Question {
    /// Has Google asked, by whichever way there is now.
    pub fn ask(&self, policy: &Policy) -> impl Future<Output = Outcome> + use<> {
        let (package, token, who) = (self.package.clone(), self.token.clone(), self.who);
        let remote = policy.play_remote();
        async move {
            match remote {
                Some(remote) => remote.ask(package, token, who).await,
                None => Outcome::Unavailable(Unavailable {
                    cause: Cause::Unreachable,
                    why: "since a reload nobody may ask Google".to_owned(),
                    retry_after: None,
                }),
            }
        }
    }

    /// What Google has said, judged; `None`, and why, where he cannot be asked.
    fn judge(&self, by: &Play, outcome: Outcome, now: u64) -> Result<Result<Genuine, Unavailable>, Refused> {
        let verdict = match outcome {
            Outcome::Verdict(verdict) => verdict,
            Outcome::Foreign(refused) => return Err(refused),
            Outcome::Unavailable(unavailable) => return Ok(Err(unavailable)),
        };
        let expected = match self.kind {
            Kind::Classic => Expected::Nonce(&self.bound),
            Kind::Standard => Expected::RequestHash(&self.bound),
        };
        let now = now.saturating_mul(1_000);
        let genuine = play::judge(&verdict, &by.rules, &expected, now, &mut |_, _| ())?;
        if genuine.package != self.package {
            let why = format!("the token is of `{}`, not of `{}`", genuine.package, self.package);
            return Err(Refused::new(Denial::AppNotRecognised, "request", why));
        }
        Ok(Ok(genuine))
    }
}

/// What follows where Google cannot be asked, and nothing is declared that lets it pass.
fn denied(unavailable: &Unavailable) -> Failed {
    Failed { retry_after: unavailable.retry_after.or(Some(1)), ..Failed::from(unavailable.refused()) }
}

/// Whether a refusal says that the device, or its app, is not well; then what was said before counts no longer.
fn is_telling(refused: &Refused) -> bool {
    TELLING.contains(&refused.step)
}

/// What a refusal is for a device, whose good verdict of before it may take away.
pub(super) fn distrusted(attestation: &Attestation, device: DeviceId) -> impl Fn(Refused) -> Failed {
    move |refused| {
        if is_telling(&refused) {
            attestation.enrolment.devices.distrust(device);
        }
        Failed::from(refused)
    }
}

/// Goes on with what came of asking Google. `now`: seconds since 1970.
pub fn resume(policy: &Policy, pending: Pending, outcome: Outcome, now: u64) -> Result<Answer, Failed> {
    // Both were there when the question was put; a reload may have come between.
    let attestation = policy.attestation.as_deref().ok_or(Denial::RouteNotFound)?;
    let by = attestation.play.as_ref().ok_or(Denial::AttestationRequest)?;
    let Pending { question, then } = pending;
    let said = question.judge(by, outcome, now);
    match then {
        Then::Enrol(id, mut device, packages) => {
            let said = said.map_err(distrusted(attestation, id))?;
            let genuine = said.map_err(|unavailable| denied(&unavailable))?;
            android::vouched((attestation, id), &mut device, &packages, &genuine, now)?;
            enrol::take_up(attestation, id, *device)
        }
        Then::Session(asked) => {
            let devices = &attestation.enrolment.devices;
            let distrusted = distrusted(attestation, asked.device);
            match said.map_err(&distrusted)? {
                Ok(genuine) => {
                    let verdict = android::verdict(&genuine, now).map_err(&distrusted)?;
                    session::finish(attestation, &asked, Some(verdict), now)
                }
                Err(unavailable) => {
                    let declared = by.remote.as_ref().map(|remote| remote.config.unavailable);
                    match ladder::decide(declared.unwrap_or_default(), devices.verdict(asked.device), now) {
                        Decision::Cached(_) => session::finish(attestation, &asked, None, now)
                            .map(|answer| Answer { event: "session_cached", ..answer }),
                        // A session cannot begin with nothing known; the configuration does not let anybody declare that.
                        Decision::Deny | Decision::Flagged => Err(denied(&unavailable)),
                    }
                }
            }
        }
    }
}
