//! `enforcer attestation verify`: what becomes of what a device sends, step by step. The steps are the daemon's own; here they are
//! only shown.

use std::{
    fs,
    io::{self, Read as _},
};

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Serialize;

use super::{
    args::AttestationVerify,
    exit::{self, Exit},
    local::Program,
    output,
    token::Step,
};
use crate::attestation;

/// Bytes that are read: more than anything that a device sends has.
const MOST: u64 = 256 << 10;

/// What became of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was found in order, up to where it ended.
    pub steps: Vec<Step>,
    /// Why it is refused; absent for a good one.
    pub refused: Option<Refused>,
}

/// Why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The `code` of the answer.
    pub code: &'static str,
    /// The answer's status.
    pub status: u16,
    /// What that means.
    pub meaning: &'static str,
    /// The step that it did not pass.
    pub step: &'static str,
    /// What was expected there and what was found.
    pub why: String,
}

impl Report {
    /// The steps, and where they end if they do.
    pub fn new(steps: Vec<Step>, outcome: Result<(), attestation::Refused>) -> Self {
        let refused = outcome.err().map(|refused| Refused {
            code: refused.denial.code(),
            status: refused.denial.status(),
            meaning: refused.denial.description(),
            step: refused.step,
            why: refused.why,
        });
        Self { steps, refused }
    }

    /// For people.
    fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            // What stands in an object may be anything, and goes to a terminal.
            text += &format!("ok       {:<12} {}\n", step.name, step.found.escape_debug());
        }
        text + &match &self.refused {
            None => "good     this is accepted\n".to_owned(),
            Some(Refused { code, status, meaning, step, why }) => {
                let why = why.escape_debug();
                format!("failed   {step:<12} {why}\nrefused  {code} ({status}): {meaning}\n")
            }
        }
    }
}

/// Shows what would become of an object.
pub fn verify(program: &Program, verb: &AttestationVerify, json: bool) -> Exit {
    let object = match read(verb.object()) {
        Ok(object) => object,
        Err(problem) => {
            output::complain(&problem);
            return exit::FAILED;
        }
    };
    let report = match (program.attestation)(verb, &object) {
        Ok(report) => report,
        Err(error) => {
            output::complain(&format!("{error:#}"));
            return exit::USAGE;
        }
    };
    if json {
        output::json(&report);
    } else {
        output::answer(&report.text());
    }
    if report.refused.is_none() { exit::OK } else { exit::FAILED }
}

/// What is meant by an argument: standard input, a file, or the thing itself. Whether it is base64 is not looked at.
pub fn read(argument: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let outcome = if argument == "-" {
        io::stdin().lock().take(MOST).read_to_end(&mut bytes)
    } else {
        match fs::File::open(argument) {
            Ok(file) => file.take(MOST).read_to_end(&mut bytes),
            // What is no file is the thing itself, unless it looks like one.
            Err(_) if is_encoded(argument) && argument.len() > 40 => {
                return Ok(argument.as_bytes().to_vec());
            }
            Err(error) => Err(error),
        }
    };
    match outcome {
        Ok(_) => Ok(bytes),
        Err(error) => Err(format!("{argument}: {error}; write a file, base64, or `-` for standard input")),
    }
}

/// Base64, or the five parts of an encrypted token.
fn is_encoded(text: &str) -> bool {
    let parts: Vec<&str> = text.trim().split('.').collect();
    matches!(parts.len(), 1 | 5) && parts.iter().all(|part| decoded(part.as_bytes()).is_some())
}

/// Bytes of base64, of either alphabet, with padding or without, and white space at the ends; `None` where it is something else.
pub fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let standard = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
    let url_safe = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);
    standard.decode(&text).or_else(|_| url_safe.decode(&text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denial::Denial;

    #[test]
    fn what_an_object_says_cannot_write_to_the_terminal() {
        let steps = vec![Step { name: "system", found: "\u{1b}[2J".to_owned() }];
        let refused = attestation::Refused::new(Denial::AppOutdated, "distribution", "\u{1b}c");
        assert_eq!(
            Report::new(steps, Err(refused)).text(),
            "ok       system       \\u{1b}[2J\nfailed   distribution \\u{1b}c\nrefused  app_outdated (403): The app is older than the oldest version that is accepted.\n"
        );
    }

    #[test]
    fn base64_is_read_as_it_comes() {
        for text in ["+/8=", "-_8", "+/8\n", " -_8= "] {
            assert_eq!(decoded(text.as_bytes()), Some(vec![0xfb, 0xff]), "{text}");
        }
        assert_eq!(decoded(&[0xa3, 0x63]), None);
        assert!(read("no/such/file").is_err());
    }
}
