//! Rules for `upgrade` of a route.

use super::super::{Rules, entries};
use crate::config::file::{File, RouteSection};

pub(super) fn read(section: &RouteSection, file: &File, rules: &mut Rules<'_, '_>) -> Vec<String> {
    // RFC 9110 section 5.6.2 and 7.8: a token, and perhaps a version, which is one too.
    let good = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&b);
    for protocol in entries(&section.upgrade) {
        if !protocol.get_ref().0.bytes().all(good) {
            let problem = format!("`{}` is no protocol", protocol.get_ref().0.escape_debug());
            rules.refuse_entry(protocol.span(), "upgrade", problem, "write a name like \"websocket\"");
        }
    }
    let upstream = section.upstream.as_ref().and_then(|name| file.upstream.get(&name.get_ref().0));
    let servers = upstream.into_iter().flat_map(|upstream| entries(&upstream.get_ref().servers));
    let is_http2 = |server: &http::Uri| server.scheme_str() == Some("h2c");
    if let Some(list) = section.upgrade.as_ref().filter(|list| !list.get_ref().is_empty())
        && servers.map(|server| &server.get_ref().0).any(is_http2)
    {
        let problem = "its upstream has servers with h2c://, and upgrades are asked for in HTTP/1.1";
        let remedy = "give these requests an upstream with http:// or https://";
        rules.refuse(list.span(), "upgrade", problem, remedy);
    }
    rules.texts("upgrade", &section.upgrade).into_iter().map(|name| name.to_ascii_lowercase()).collect()
}
