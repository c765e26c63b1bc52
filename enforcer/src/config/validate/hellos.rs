//! Rules for `[kernel.hellos]`.

use super::{Rules, entries};
use crate::config::{
    file::{HellosSection, List},
    hellos::{Hellos, MAX_HELLOS, ServerName},
    value::Text,
};

pub(super) fn hellos(section: &HellosSection, rules: &mut Rules<'_, '_>) -> Hellos {
    let mut rules = rules.section("hellos");
    if section.only_names.is_some() {
        let remedy = "list the names that are served, or leave the key out: then all of them are";
        rules.not_empty("only_names", &section.only_names, remedy);
    }
    let hellos = Hellos {
        refuse_names: names("refuse_names", &section.refuse_names, &mut rules),
        only_names: names("only_names", &section.only_names, &mut rules),
        refuse_fingerprints: entries(&section.refuse_fingerprints).map(|entry| entry.get_ref().0).collect(),
    };
    rules.distinct(
        "refuse_fingerprints",
        entries(&section.refuse_fingerprints).map(|entry| (entry.span(), entry.get_ref().0)),
    );
    let listed = [
        ("refuse_names", section.refuse_names.as_ref().map(|list| list.span()), hellos.refuse_names.len()),
        ("only_names", section.only_names.as_ref().map(|list| list.span()), hellos.only_names.len()),
        (
            "refuse_fingerprints",
            section.refuse_fingerprints.as_ref().map(|list| list.span()),
            hellos.refuse_fingerprints.len(),
        ),
    ];
    let all: usize = listed.iter().map(|(_, _, length)| length).sum();
    let longest = listed.into_iter().max_by_key(|(_, _, length)| *length);
    if let Some((key, Some(span), length)) = longest.filter(|_| all > MAX_HELLOS) {
        let problem = format!("{length} entries of {all} in [kernel.hellos]");
        let remedy = format!("list {MAX_HELLOS} at most; `*.` in front of a name stands for all below it");
        rules.refuse(span, key, problem, remedy);
    }
    hellos
}

fn names(key: &str, list: &List<Text<ServerName>>, rules: &mut Rules<'_, '_>) -> Vec<ServerName> {
    rules.distinct(key, entries(list).map(|entry| (entry.span(), entry.get_ref().0.clone())));
    entries(list).map(|entry| entry.get_ref().0.clone()).collect()
}
