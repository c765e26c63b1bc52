//! Rules for what `[attestation.app_attest]` asks of the way that an app came to its device.

use super::{Rules, entries};
use crate::config::{
    file::{Key, List},
    value::Text,
};

/// What `apple_validation_category_01` can say, in Apple's words.
const CATEGORIES: [(&str, u32); 7] = [
    ("platform", 1),
    ("testflight", 2),
    ("development", 3),
    ("app-store", 4),
    ("enterprise", 5),
    ("developer-id", 6),
    ("none", 10),
];

/// Words, or their numbers.
pub(super) fn categories(value: &List<Text<String>>, rules: &mut Rules<'_, '_>) -> Vec<String> {
    for entry in entries(value) {
        let text = &entry.get_ref().0;
        let is_known = |(name, number): &(&str, u32)| text == name || *text == number.to_string();
        if !text.is_empty() && !CATEGORIES.iter().any(is_known) {
            let problem = format!("`{}` is no category", text.escape_debug());
            let names = CATEGORIES.map(|(name, _)| name).join(", ");
            let remedy = format!("write one of {names}, or its number");
            rules.refuse_entry(entry.span(), "categories", problem, remedy);
        }
    }
    if let Some(list) = value.as_ref().filter(|list| list.get_ref().is_empty()) {
        let remedy = "list one, or remove the key to take what the environment allows";
        rules.refuse(list.span(), "categories", "empty", remedy);
    }
    rules.texts("categories", value)
}

/// Numbers with dots between, as `CFBundleVersion` has them.
pub(super) fn minimum_version(value: &Key<Text<String>>, rules: &mut Rules<'_, '_>) -> Option<String> {
    let written = value.as_ref()?;
    let remedy = "write numbers with dots between, like \"4.2\", or remove the key";
    let text = rules.text("minimum_version", value, remedy);
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<u64>().is_ok();
    if !text.is_empty() && !text.split('.').all(is_number) {
        let problem = format!("`{}` is no version", text.escape_debug());
        rules.refuse(written.span(), "minimum_version", problem, remedy);
    }
    Some(text)
}
