//! Rules for `early_data` of a route.

use super::super::Rules;
use crate::config::{Route, file::RouteSection};

pub(super) fn read(section: &RouteSection, route: &Route, rules: &mut Rules<'_, '_>) -> bool {
    let Some(value) = section.early_data.as_ref().filter(|value| *value.get_ref()) else { return false };
    if !route.methods.is_empty() && !route.methods.iter().any(http::Method::is_safe) {
        let problem = "without effect: none of the route's methods is safe (RFC 9110 section 9.2.1)";
        rules.refuse(value.span(), "early_data", problem, "remove it: early data can be replayed");
    }
    true
}
