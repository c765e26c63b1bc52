//! How Google is asked about tokens of Play Integrity, and what requests got of that.

use anyhow::Result;
use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

/// What is counted of Play Integrity.
#[derive(Clone, Debug)]
pub struct Play {
    /// `enforcer_play_calls_total{result}`: tokens that Google was to be asked about: `verdict`, `foreign`, or why there is no answer.
    pub calls: IntCounterVec,
    /// `enforcer_play_calls_left`: calls that a device that is not known could make at once.
    pub left: IntGauge,
    /// `enforcer_play_calls_under_way`
    pub under_way: IntGauge,
    /// `enforcer_play_resting`: 1 while Google is left alone.
    pub resting: IntGauge,
    /// `enforcer_play_requests_total{route, result}`: requests on routes that ask for a verdict of their own: `fresh`, `recent`, `cached`,
    /// `flagged`, `denied`, `refused`.
    pub requests: IntCounterVec,
}

impl Play {
    /// Registers all of it.
    pub fn new(registry: &Registry) -> Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            calls: counter(
                "enforcer_play_calls_total",
                "Tokens of Play Integrity that Google was to be asked about",
                &["result"],
            )?,
            left: gauge("enforcer_play_calls_left", "Calls to Google that could be made at once")?,
            under_way: gauge("enforcer_play_calls_under_way", "Calls to Google that are under way")?,
            resting: gauge("enforcer_play_resting", "Whether Google is left alone for not answering")?,
            requests: counter(
                "enforcer_play_requests_total",
                "Requests on routes that ask for a verdict of Play Integrity",
                &["route", "result"],
            )?,
        })
    }
}
