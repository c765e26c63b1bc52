//! What the lists say of a packet's source. Called by the steps of
//! [`super::take`].

use super::{Context, Source, Tables};
use crate::{
    ban::{FOREVER, Listing, class},
    headers::{Headers, Link},
    packet::Packet,
    port::{Port, door},
    reason::{DropReason, PassReason},
    settings::Settings,
    source::SourceKey,
};

impl Source {
    /// Whether nothing shall stop it.
    #[inline(always)]
    pub(super) const fn is_allowed(&self) -> bool {
        self.listing.class == class::ALLOW
    }

    /// Whether it lies in a banned prefix. The time is asked only where something hangs on it.
    #[inline(always)]
    pub(super) fn is_in_banned_prefix<T: Tables>(&self, tables: &T) -> bool {
        let Listing { class, until, .. } = self.listing;
        class == class::BAN && (until == FOREVER || tables.now() < until)
    }

    /// Why the port lets its packets in, whatever else is known of it, if it does. Who bans himself must still get in.
    #[inline(always)]
    pub(super) const fn gets_through(&self, port: Port, tcp: bool) -> Option<PassReason> {
        let doors = port.doors() & self.listing.doors;
        if tcp && (port.is(Port::MANAGEMENT) || doors & door::MANAGEMENT != 0) {
            return Some(PassReason::Management);
        }
        if doors & !door::MANAGEMENT != 0 { Some(PassReason::Allowed) } else { None }
    }
}

/// Whom the packet is charged to, and what its prefixes are listed as.
#[inline(always)]
pub(super) fn find<T: Tables>(tables: &T, settings: &Settings, headers: &Headers) -> Source {
    if headers.link == Link::Ipv4 {
        let address = (headers.source[0] as u32).to_be_bytes();
        Source { key: SourceKey::v4(address), listing: tables.listing_v4(address) }
    } else {
        let key = SourceKey::v6(headers.source[0], settings.v6_mask);
        Source { key, listing: tables.listing_v6(headers.source) }
    }
}

/// Drops what comes from banned prefixes. Bans of single sources are found where these are charged.
#[inline(always)]
pub(super) fn refuse_banned_prefix<P: Packet, T: Tables>(
    context: &Context<'_, P, T>,
    source: &Source,
) -> Result<(), DropReason> {
    if source.is_in_banned_prefix(context.tables) {
        context.refuse(DropReason::BannedPrefix)?;
    }
    Ok(())
}
