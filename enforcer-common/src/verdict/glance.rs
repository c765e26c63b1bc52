//! The first look at a packet: what decides nearly all of them at the least cost. Called by [`super::decide`], and by the program in front
//! of all steps.
//!
//! It may only say what the steps would say, and leaves everything else to them: a property test holds both against each other. It
//! charges the packet if that is all that is to be charged to its source; what it hands on to a later step than the charge has been charged.

use super::{
    Tables, Verdict, standing,
    work::{Next, Step, Work},
};
use crate::{
    flow::{Ends, slot::Phase},
    headers::{Headers, Link},
    limiter::{Charge, Known},
    packet::Packet,
    port::Port,
    reason::{DropReason, PassReason},
    settings::{ABI, Limit, Settings, flag},
    source::SourceKey,
};

/// What no hello begins with is none, see [`crate::hello`].
const HANDSHAKE: u8 = 0x16;

/// A verdict, or the step to go on with: [`Step::Begin`], or a later one after [`recall`].
#[inline(always)]
pub fn glance<P: Packet, T: Tables>(packet: &P, tables: &T) -> Next {
    let closer = Next::to(Step::Begin);
    let Some(settings) = tables.settings() else { return closer };
    if !suffices(settings) || (settings.lease_until != 0 && tables.now() >= settings.lease_until) {
        return closer;
    }
    let mut headers = Headers::UNREAD;
    if !headers.read_plain(packet) {
        return closer;
    }
    let (key, listed) = if headers.link == Link::Ipv4 {
        let address = (headers.source[0] as u32).to_be_bytes();
        (SourceKey::v4(address), tables.is_listed_v4(address))
    } else {
        (SourceKey::v6(headers.source[0], settings.v6_mask), tables.is_listed_v6(headers.source))
    };
    let port = tables.port(headers.port);
    if listed || port.is(Port::MANAGEMENT) {
        return closer;
    }
    let rate = settings.limit(Limit::Packets, 0);
    match tables.charge_known(key, rate) {
        Known::Within => {}
        Known::Banned => return Next::end(Verdict::Drop(DropReason::Banned)),
        // A flood of new sources shall cost what known ones do: one call in place of the steps up to the charge. What is not
        // within the limit has not been charged, and is judged by them.
        Known::New if tables.charge(Limit::Packets, 0, key, tables.now(), rate) == Charge::Within => {}
        Known::New | Known::Other => return Next::to(Step::Charge),
    }
    if headers.opens() {
        return Next::to(Step::Open);
    }
    if port.is(Port::PROTECTED) && !is_clean(packet, tables, settings, &headers) {
        return Next::to(Step::Segment);
    }
    Next::end(Verdict::Pass(PassReason::Clean))
}

/// Whether the first look knows everything that these settings ask for of a source that is not listed. What it does not know is named here.
/// Lists of hellos are not: whatever may be part of a hello is left to the steps in any case.
#[inline(always)]
const fn suffices(settings: &Settings) -> bool {
    settings.abi == ABI && settings.dry_run == 0 && settings.flags & flag::MORE_BUDGETS == 0
}

/// Whether a segment to a protected port can have nothing to do with a hello: it has none, and its flow awaits none.
#[inline(always)]
fn is_clean<P: Packet, T: Tables>(packet: &P, tables: &T, settings: &Settings, headers: &Headers) -> bool {
    let has_data = headers.offset != headers.end;
    if has_data && packet.u8(headers.offset).is_none_or(|first| first == HANDSHAKE) {
        return false;
    }
    if settings.minimum_tls == 0 {
        return true;
    }
    let phase = tables.flow(Ends::of(headers).hash(settings.seed));
    phase == Phase::Free || (!has_data && phase.awaits())
}

/// Reads again what the first look has read, for the steps that come after it.
#[inline(always)]
pub fn recall<P: Packet, T: Tables>(packet: &P, tables: &T, work: &mut Work) {
    let Some(settings) = tables.settings() else { return };
    // It could be read before.
    let _ = work.headers.read_plain(packet);
    work.source = standing::find(tables, settings, &work.headers);
    work.port = tables.port(work.headers.port);
    work.broken = 0;
    work.shared = false;
}
