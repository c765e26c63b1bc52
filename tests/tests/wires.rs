//! The daemon on wires that not every kernel can make: with VLAN tags, with loss and reordering.
//!
//! Each test says `ok`, `FAILED`, or `not run here` with the reason; with `--all` the latter is a failure. The report is
//! of its own because a plain test that leaves early counts as passed.
#![allow(clippy::print_stdout, reason = "a test report")]

mod wires {
    pub(crate) mod loss;
    pub(crate) mod vlan;
}

use std::process::ExitCode;

use anyhow::Result;

/// How a test ended that did not fail.
pub(crate) enum Ran {
    /// It found everything right.
    Passed,
    /// The kernel, or this machine, lacks something.
    NotHere(String),
}

/// A test's name, and the test.
type Test = (&'static str, fn() -> Result<Ran>);

const TESTS: [Test; 5] = [
    ("vlan::customer_tags_in_the_frame", wires::vlan::customer_tags_in_the_frame),
    ("vlan::customer_tags_that_the_device_takes_off", wires::vlan::customer_tags_that_the_device_takes_off),
    ("vlan::service_and_customer_tags_in_the_frame", wires::vlan::service_and_customer_tags_in_the_frame),
    ("loss::nothing_breaks_half_a_second_away", wires::loss::half_a_second_away),
    ("loss::requests_and_refusals_survive_loss_and_reordering", wires::loss::requests_and_refusals),
];

fn main() -> ExitCode {
    let all = std::env::args().any(|word| word == "--all");
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for (name, test) in TESTS {
        match test() {
            Ok(Ran::Passed) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Ran::NotHere(reason)) if !all => {
                not_run += 1;
                println!("test {name} ... not run here: {reason}");
            }
            Ok(Ran::NotHere(reason)) => {
                failed += 1;
                println!("test {name} ... FAILED: it was to be run, but {reason}");
            }
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED: {error:#}");
            }
        }
    }
    println!("\n{passed} passed, {failed} failed, {not_run} not run here");
    ExitCode::from(u8::from(failed > 0))
}
