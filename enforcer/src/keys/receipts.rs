//! Asks Apple for newer receipts of devices, which say how many keys were attested on each: its risk metric. In the background, and never
//! for a request: whatever Apple does, requests are judged by what is known.
//!
//! One call after the other, bounded in time, size and number a day; whoever does not answer is left alone for a while. A receipt that
//! cannot be verified is none. What becomes of a receipt is decided by [`after`], which is pure.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use http::{
    Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER},
};
use rustls::ClientConfig;
use tracing::{info, warn};

use super::fetch;
use crate::{
    attestation::{
        app_attest::{
            exchange::{self, Outcome},
            receipt,
        },
        play::{
            breaker::{Breaker, Ended, Leave},
            budget::{Budget, Quota, Who},
        },
    },
    clock, config,
    metrics::Metrics,
    policy::{
        Policy, SharedPolicy,
        attestation::{AppAttest, Receipts},
    },
};

/// Between two looks at what is due.
const LOOK: Duration = Duration::from_secs(1);
/// Seconds for which a device is left whose call failed: another one may have more luck.
const FAILED: u64 = 3_600;
/// The same where Apple does not take its receipt, or gives one that is none.
const REFUSED: u64 = 7 * 86_400;
/// How long roots are believed that were read.
const ROOTS: Duration = Duration::from_secs(600);
/// Within it is a part of a day's calls, after a pause.
const BURST: u32 = 100;

/// What a call came to, as far as the next ones are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct After {
    /// The label of metrics.
    name: &'static str,
    /// Whether Apple can be asked about others.
    ended: Ended,
    /// Seconds until it is asked about this device again; `None`: when its newer receipt says.
    pause: Option<u64>,
}

/// What follows where there is no answer.
const fn without(name: &'static str) -> After {
    After { name, ended: Ended::Failed, pause: Some(FAILED) }
}

/// What follows from an answer; `every`: seconds between two receipts of a device.
fn after(outcome: &Outcome, retry_after: Option<u64>, every: u64) -> After {
    let (name, ended, pause) = match outcome {
        Outcome::Newer(_) => ("newer", Ended::Answered, None),
        Outcome::NotYet => ("not_yet", Ended::Answered, Some(every)),
        Outcome::Refused(_) => ("refused", Ended::Answered, Some(REFUSED)),
        // The account's key is wrong for all of them: one goes on asking whether it still is.
        Outcome::Unauthorized(_) => ("unauthorized", Ended::Refused(None), Some(FAILED)),
        Outcome::Later(429) => ("quota", Ended::Refused(retry_after.map(Duration::from_secs)), Some(FAILED)),
        Outcome::Later(_) => ("server", Ended::Failed, Some(FAILED)),
        Outcome::Garbled(_) => ("garbage", Ended::Failed, Some(FAILED)),
    };
    After { name, ended, pause }
}

/// Exchanges receipts for newer ones as the policy in force says, until it is dropped.
pub async fn tend(policy: SharedPolicy, metrics: Metrics) {
    let mut caller: Option<Caller> = None;
    loop {
        // Not longer than for one call, so that a reload counts for the next one.
        while {
            let now = policy.load_full();
            step(&now, &mut caller, &metrics).await
        } {}
        tokio::time::sleep(LOOK).await;
    }
}

/// Asks about one device that is due; false: about none, now.
async fn step(policy: &Policy, caller: &mut Option<Caller>, metrics: &Metrics) -> bool {
    let exchange = policy.attestation().and_then(|by| Some((by, by.app_attest.as_ref()?)));
    let Some((by, apple, exchange)) = exchange.and_then(|(by, one)| Some((by, one, one.exchange.as_ref()?)))
    else {
        *caller = None;
        return false;
    };
    let caller = match caller {
        Some(known) if known.config == exchange.config => known,
        other => other.insert(Caller::new(exchange.config.clone())),
    };
    let devices = &by.enrolment.devices;
    let now = clock::unix_now();
    let Some((id, held)) = devices.due_receipt(now) else { return false };
    let Some(device) = devices.find(id) else { return true };
    // What the configuration has taken away since counts no longer.
    let app = apple.apps.iter().find(|app| app.as_str() == &*device.app);
    let (Some(app), Some(roots), true) = (app, apple.receipts(), device.environment == apple.configured)
    else {
        devices.postpone_receipt(id, now.saturating_add(REFUSED));
        return true;
    };
    let Some(leave) = caller.may_ask() else { return false };
    let answer = caller.ask(apple, exchange, &held.receipt).await;
    let every = exchange.config.every.as_secs();
    let now = clock::unix_now();
    let (mut told, mut why) = match &answer {
        Ok((outcome, wish)) => (after(outcome, *wish, every), format!("{outcome:?}")),
        Err((name, why)) => (without(name), why.clone()),
    };
    if let Ok((Outcome::Newer(bytes), _)) = &answer {
        let expected = receipt::Expected {
            apps: std::slice::from_ref(app),
            environment: apple.environment,
            public_key: &device.key.0,
            client_data_hash: None,
            roots,
        };
        match receipt::verify(bytes, &expected, now, &mut |_, _| ()) {
            Ok(receipt) => {
                if let Some(risk) = receipt.risk {
                    devices.assess(id, risk);
                }
                let due = receipt.not_before.unwrap_or(now).max(now.saturating_add(every));
                let most = exchange.config.max_receipts;
                devices.renew_receipt(id, (due, receipt.expires), bytes, most);
            }
            Err(refused) => {
                // Somebody answers in Apple's place, or Apple otherwise than it did.
                told = without("invalid");
                why = refused.why;
            }
        }
    }
    if let Some(pause) = told.pause {
        devices.postpone_receipt(id, now.saturating_add(pause));
    }
    caller.settle(leave, &told, &why, metrics);
    true
}

/// What is remembered between two calls.
struct Caller {
    config: config::Receipts,
    breaker: Breaker,
    budget: Budget,
    tls: Option<(Arc<ClientConfig>, clock::KernelTime)>,
    was_good: bool,
}

impl Caller {
    fn new(config: config::Receipts) -> Self {
        let burst = BURST.min(config.calls_per_day / 2).max(1);
        let quota = Quota { per_day: config.calls_per_day, burst, reserve: 0 };
        let (breaker, budget) = (Breaker::default(), Budget::new(quota));
        Self { config, breaker, budget, tls: None, was_good: true }
    }

    /// Whether Apple answers, and the day's calls are not used up: then one is taken.
    fn may_ask(&mut self) -> Option<Leave> {
        let now = clock::kernel_now();
        let leave = self.breaker.admit(now).ok()?;
        if self.budget.take(Who::New, now).is_err() {
            self.breaker.cancel(leave);
            return None;
        }
        Some(leave)
    }

    /// What Apple says, and in how many seconds it wants to be asked again; or how metrics name it that there is no answer, and why.
    async fn ask(
        &mut self,
        apple: &AppAttest,
        exchange: &Receipts,
        receipt: &[u8],
    ) -> Result<(Outcome, Option<u64>), (&'static str, String)> {
        let patience = self.config.timeout;
        let sent = tokio::time::timeout(patience, self.send(apple, exchange, receipt)).await;
        match sent {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(("unreachable", format!("{error:#}"))),
            Err(_) => Err(("slow", format!("no answer within {} ms", patience.as_millis()))),
        }
    }

    async fn send(
        &mut self,
        apple: &AppAttest,
        exchange: &Receipts,
        receipt: &[u8],
    ) -> Result<(Outcome, Option<u64>)> {
        let request = exchange.key.request(receipt, clock::unix_now()).map_err(anyhow::Error::msg)?;
        let own: Uri = exchange::address(apple.environment).parse()?;
        let address = self.config.api.clone().unwrap_or_else(|| own.clone());
        let tls = self.tls().await?;
        let allow = (self.config.private_addresses, "private_addresses");
        let fields = [(AUTHORIZATION, request.authorization.as_str()), (CONTENT_TYPE, "text/plain")];
        let most = exchange::LONGEST_ANSWER + 1;
        let (status, headers, body) =
            fetch::post((&address, own.path()), &tls, allow, &fields, request.body, most).await?;
        let wish = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Ok((exchange::outcome(status.as_u16(), &body), wish))
    }

    async fn tls(&mut self) -> Result<Arc<ClientConfig>> {
        let now = clock::kernel_now();
        if let Some((tls, until)) = &self.tls
            && *until > now
        {
            return Ok(Arc::clone(tls));
        }
        let tls = fetch::tls(self.config.authorities.clone()).await?;
        self.tls = Some((Arc::clone(&tls), now.plus(ROOTS)));
        Ok(tls)
    }

    fn settle(&mut self, leave: Leave, told: &After, why: &str, metrics: &Metrics) {
        self.breaker.end(leave, told.ended, clock::kernel_now());
        metrics.receipt_exchanges.with_label_values(&[told.name]).inc();
        let is_good = told.ended == Ended::Answered;
        if self.was_good && !is_good {
            let result = told.name;
            warn!(result, why, "Apple gives no newer receipts: devices keep the risk metric that they have");
        } else if is_good && !self.was_good {
            info!("Apple gives newer receipts again");
        }
        self.was_good = is_good;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_consequence() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (outcome, wish, name, ended, pause) in [
            (Outcome::Newer(vec![1]), None, "newer", Ended::Answered, None),
            (Outcome::NotYet, None, "not_yet", Ended::Answered, Some(600)),
            (Outcome::Refused(404), None, "refused", Ended::Answered, Some(REFUSED)),
            (Outcome::Unauthorized(401), None, "unauthorized", Ended::Refused(None), Some(FAILED)),
            (Outcome::Later(429), Some(7), "quota", Ended::Refused(seconds(7)), Some(FAILED)),
            (Outcome::Later(429), None, "quota", Ended::Refused(None), Some(FAILED)),
            (Outcome::Later(500), Some(7), "server", Ended::Failed, Some(FAILED)),
            (Outcome::Garbled("x"), None, "garbage", Ended::Failed, Some(FAILED)),
        ] {
            assert_eq!(after(&outcome, wish, 600), After { name, ended, pause }, "{outcome:?}");
        }
    }
}
