//! Rules for `required_headers` of a route.

use http::HeaderName;

use super::super::{Rules, entries};
use crate::config::file::RouteSection;

pub(super) fn read(section: &RouteSection, rules: &mut Rules<'_, '_>) -> Vec<HeaderName> {
    let mut read: Vec<HeaderName> = Vec::new();
    for entry in entries(&section.required_headers) {
        let text = &entry.get_ref().0;
        let problem = match text.parse::<HeaderName>() {
            // Many servers take `_` for `-`, so such fields end here.
            Ok(_) if text.contains('_') => "is never forwarded",
            Ok(name) if read.contains(&name) => "stands here twice",
            Ok(name) => {
                read.push(name);
                continue;
            }
            Err(_) => "is no name of a header field",
        };
        let problem = format!("`{}` {problem}", text.escape_debug());
        rules.refuse_entry(
            entry.span(),
            "required_headers",
            problem,
            "write names like \"X-Device-Id\", each once",
        );
    }
    read
}
