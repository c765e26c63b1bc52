//! The reference of refusals is what the tables in the code say. `ENFORCER_BLESS=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fmt::Write, fs, path::Path};

use enforcer::denial::{Blame, Denial};
use enforcer_common::reason::{DropReason, PassReason};

const INTRODUCTION: &str = "\
# Refusals

Written from the tables in the code by a test; codes, labels and numbers are stable.

## Connections and requests

The code is the `code` of the problem document (RFC 9457), the label of `enforcer_denials_total` and the field of the
log. A status of `-` means that the connection ends without an answer. Blame says who has to change something for the next
attempt to work. Weight is what one occurrence adds to the ban score of its source; see `[bans]` in the configuration.
`payload_refused` weighs nothing where a clock is wrong, or there is no room to remember that the body was used.

A call of gRPC ends with `grpc-status` and `grpc-message` (see [gRPC](operations.md#grpc)). The metadata of that status carry the code as
`x-denial-code`, and what problem documents have as `request_id` as `x-request-id`; so they do where a call that has begun fails here, at
its deadline for example. `retry-after` and `www-authenticate` have the same names there; `date` tells the time of the server.

| code | status | blame | weight | what the client is told |
|---|---|---|---|---|
";

const PACKETS: &str = "
## Packets

The label is that of the kernel's counters, of `enforcer why` and of the metrics.

| label | number | verdict | meaning |
|---|---|---|---|
";

#[test]
fn the_reference_of_refusals_equals_the_code() {
    let mut text = INTRODUCTION.to_owned();
    for denial in Denial::ALL {
        let (status, message) = match denial.status() {
            0 => ("-".to_owned(), "-"),
            status => (status.to_string(), denial.message()),
        };
        let blame = match denial.blame() {
            Blame::Client => "client",
            Blame::Upstream => "upstream",
            Blame::Us => "us",
        };
        writeln!(text, "| `{}` | {status} | {blame} | {} | {message} |", denial.code(), denial.weight())
            .unwrap();
    }
    text.push_str(PACKETS);
    for reason in PassReason::ALL {
        writeln!(text, "| `{}` | {} | pass | {} |", reason.label(), reason.number(), reason.description())
            .unwrap();
    }
    for reason in DropReason::ALL {
        writeln!(text, "| `{}` | {} | drop | {} |", reason.label(), reason.number(), reason.description())
            .unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/refusals.md");
    if std::env::var_os("ENFORCER_BLESS").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == text,
        "docs/refusals.md is not what the code says; run this test with ENFORCER_BLESS=1"
    );
}
