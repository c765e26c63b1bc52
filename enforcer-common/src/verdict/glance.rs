//! The first look at a packet: what decides nearly all of them at the least cost. Called by [`super::decide`], and by the program in front
//! of all steps.
//!
//! It may only say what the steps would say, and leaves everything else to them: a property test holds both against each other. It
//! charges what the steps up to the one to which it hands on would have charged, and nothing else.

use super::{
    Source, Tables, Verdict, cookies, standing,
    work::{Next, Step, Work},
};
use crate::{
    flow::{Ends, slot::Phase},
    headers::{Headers, tcp},
    limiter::{Charge, Known},
    packet::Packet,
    port::Port,
    reason::{DropReason, PassReason},
    settings::{ABI, Limit, Settings, flag},
};

/// What no hello begins with is none, see [`crate::hello`].
const HANDSHAKE: u8 = 0x16;

/// Why it drops packets, by [`DropReason::bit`].
const SAID: u64 = DropReason::Banned.bit()
    | DropReason::BannedPrefix.bit()
    | DropReason::PacketLimit.bit()
    | DropReason::ConnectionLimit.bit();

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
    let source = standing::find(tables, settings, &headers);
    if source.is_allowed() {
        return pass(PassReason::Allowed);
    }
    let port = tables.port(headers.port);
    if let Some(reason) = source.gets_through(port, true) {
        return pass(reason);
    }
    if source.is_in_banned_prefix(tables) {
        return drop(DropReason::BannedPrefix);
    }
    match charge(tables, settings, &source, Limit::Packets) {
        Known::Within => {}
        Known::Banned => return drop(DropReason::Banned),
        Known::Exceeded => return drop(DropReason::PacketLimit),
        Known::New | Known::Other => return Next::to(Step::Charge),
    }
    if settings.flags & flag::MORE_BUDGETS != 0 {
        return Next::to(Step::Weigh);
    }
    let protected = port.is(Port::PROTECTED);
    if headers.opens() {
        return match charge(tables, settings, &source, Limit::Connections) {
            Known::Within if protected => Next::to(Step::Segment),
            Known::Within => pass(PassReason::Clean),
            Known::Exceeded => drop(DropReason::ConnectionLimit),
            Known::New | Known::Other | Known::Banned => Next::to(Step::Open),
        };
    }
    if protected && !is_clean(packet, tables, settings, &headers) {
        return Next::to(Step::Segment);
    }
    pass(PassReason::Clean)
}

/// Whether the first look knows everything that these settings ask for. What it does not know is named here. Lists of hellos are not:
/// whatever may be part of a hello is left to the steps in any case. Nor are further budgets, which are charged after it.
#[inline(always)]
const fn suffices(settings: &Settings) -> bool {
    settings.abi == ABI && settings.dry_run & SAID == 0
}

#[inline(always)]
const fn pass(reason: PassReason) -> Next {
    Next::end(Verdict::Pass(reason))
}

#[inline(always)]
const fn drop(reason: DropReason) -> Next {
    Next::end(Verdict::Drop(reason))
}

/// Charges an event to its source. [`Known::Within`] is what has been charged; anything else has not.
#[inline(always)]
fn charge<T: Tables>(tables: &T, settings: &Settings, source: &Source, limit: Limit) -> Known {
    let (key, tier) = (source.key, source.listing.tier);
    let rate = settings.limit(limit, tier);
    // Bans are known where packets are charged, limited or not.
    if !rate.is_limited() && limit != Limit::Packets {
        return Known::Within;
    }
    match tables.charge_known(limit, key, rate) {
        // A flood of new sources shall cost what known ones do: one call in place of the steps up to the charge.
        Known::New if tables.charge(limit, tier, key, tables.now(), rate) == Charge::Within => Known::Within,
        known @ (Known::Within | Known::Banned | Known::Exceeded | Known::New | Known::Other) => known,
    }
}

/// Whether a segment to a protected port can have nothing to do with a hello: it has none, and its flow awaits none, or it lies beyond
/// one that was accepted.
#[inline(always)]
fn is_clean<P: Packet, T: Tables>(packet: &P, tables: &T, settings: &Settings, headers: &Headers) -> bool {
    let has_data = headers.offset != headers.end;
    if has_data && packet.u8(headers.offset).is_none_or(|first| first == HANDSHAKE) {
        return false;
    }
    if settings.minimum_tls == 0 {
        return true;
    }
    let hash = Ends::of(headers).hash(settings.seed);
    tables.awaits_nothing(hash, headers.sequence, (headers.end - headers.offset) as u32, headers.flags)
}

/// Whether a segment with this many bytes of data can have nothing to do with a hello, going by its flow. In numbers, for a function that the
/// verifier checks by itself.
#[inline(always)]
pub fn awaits_nothing<T: Tables>(tables: &T, hash: u64, sequence: u32, length: u32, flags: u8) -> bool {
    let phase = tables.flow(hash);
    if matches!(phase, Phase::Free | Phase::Loose) && cookies::may_return(tables, flags) {
        return false;
    }
    if phase == Phase::Free {
        return true;
    }
    if length != 0 {
        return phase == Phase::Passed && tables.has_passed(hash, sequence, length, flags & tcp::URG != 0);
    }
    !phase.is_refused() && flags & tcp::URG == 0
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
