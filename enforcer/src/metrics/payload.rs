//! What is counted of encrypted bodies.

use anyhow::Result;
use prometheus::{IntCounterVec, Opts, Registry};

/// Handles, cheap to clone.
#[derive(Clone, Debug)]
pub struct Counters {
    /// `enforcer_payloads_opened_total{payload, format, key}`: bodies of requests, by the id of the key that they were encrypted to, so
    /// that it shows when an old one is no longer used.
    pub opened: IntCounterVec,
    /// `enforcer_payloads_refused_total{payload, cause}`: why bodies were refused, which no client learns.
    pub refused: IntCounterVec,
    /// `enforcer_payload_answers_total{payload, result}`: `encrypted`, or why an answer could not be: `too_large`, `coded`,
    /// `content_type`, `no_room`, `broken`, `failed`.
    pub answers: IntCounterVec,
}

impl Counters {
    /// Registers them.
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec> {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        Ok(Self {
            opened: counters(
                "enforcer_payloads_opened_total",
                "Encrypted bodies of requests that were opened",
                &["payload", "format", "key"],
            )?,
            refused: counters(
                "enforcer_payloads_refused_total",
                "Bodies of requests that were refused where they have to be encrypted",
                &["payload", "cause"],
            )?,
            answers: counters(
                "enforcer_payload_answers_total",
                "Answers to encrypted requests",
                &["payload", "result"],
            )?,
        })
    }
}
