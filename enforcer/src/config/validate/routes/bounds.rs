//! Warnings about routes whose bounds of one body do not fit together. Decides about no request.

use toml::Spanned;

use crate::config::{
    file::{File, Key, RouteSection},
    validate::Rules,
    value::Size,
};

/// Where the file does not say how long a body may be.
const USUAL: u64 = 1 << 20;

/// What is signed, asserted and shown to Google is the body as it is sent: encrypted, where the route has encrypted ones. A bound of
/// that which is less than what `[payload.NAME]` allows refuses what is allowed there.
pub(super) fn warn(section: &RouteSection, file: &File, rules: &mut Rules<'_, '_>) {
    let Some(written) = &section.payload else { return };
    let Some(payload) = file.payload.get(&written.get_ref().0) else { return };
    let of = |size: &Key<Size>| size.as_ref().map_or(USUAL, |size| size.get_ref().0);
    let most = of(&payload.get_ref().max_body_bytes);
    let signature = section.signature.as_ref().and_then(|name| file.signature.get(&name.get_ref().0));
    let demand = section.attestation.as_ref().map(Spanned::get_ref);
    let play = demand.and_then(|demand| demand.play.as_ref());
    let bounds = [
        ("max_body_bytes of its signature", signature.map(|one| of(&one.get_ref().max_body_bytes))),
        (
            "attestation.max_body_bytes",
            demand.filter(|demand| demand.assertion.is_some()).map(|demand| of(&demand.max_body_bytes)),
        ),
        ("attestation.play.max_body_bytes", play.map(|play| of(&play.get_ref().max_body_bytes))),
    ];
    for (key, bound) in bounds {
        // Base64 makes four bytes of three.
        let Some(bound) = bound.filter(|bound| *bound < most.saturating_mul(4) / 3) else { continue };
        let problem = format!(
            "bodies of {most} bytes are allowed there, and {key} is {bound}, which they exceed when they are encrypted"
        );
        let path = rules.path("payload");
        let remedy = "write a third more here than there".to_owned();
        rules.errors.warn(written.span(), &path, problem, remedy);
    }
}
