//! Rules for `[access_log]`.

use super::Rules;
use crate::config::{
    AccessFormat, AccessLog, Destination, Query, Refusals, SubjectAs, file::AccessLogSection,
};

pub(super) fn access_log(section: &AccessLogSection, rules: &mut Rules<'_, '_>) -> AccessLog {
    let mut rules = rules.section("access_log");
    let u32_of = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let destination = match section.destination.as_ref().map(|told| told.get_ref().0.as_str()) {
        None | Some("off") => Destination::Off,
        Some("stdout") => Destination::Stdout,
        Some(_) => {
            let remedy = "write a file's path, \"stdout\" or \"off\"";
            Destination::File(rules.file("destination", &section.destination, remedy))
        }
    };
    AccessLog {
        destination,
        format: section.format.as_ref().map_or(AccessFormat::Json, |told| *told.get_ref()),
        sample: u32_of(rules.number("sample", &section.sample, 1, 1..=1_000_000)),
        refusals: section.refusals.as_ref().map_or(Refusals::All, |told| *told.get_ref()),
        query: section.query.as_ref().map_or(Query::Drop, |told| *told.get_ref()),
        subject: section.subject.as_ref().map_or(SubjectAs::Hash, |told| *told.get_ref()),
        queue: u32_of(rules.number("queue", &section.queue, 8_192, 16..=1_000_000)),
    }
}
