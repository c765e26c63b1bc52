//! What the lists say of a packet's source. Called by the steps of
//! [`super::take`].

use super::{Context, Source, Tables};
use crate::{
    ban::class,
    headers::{Headers, Link},
    packet::Packet,
    reason::DropReason,
    settings::Settings,
    source::SourceKey,
};

impl Source {
    /// Whether nothing shall stop it.
    #[inline(always)]
    pub(super) const fn is_allowed(&self) -> bool {
        self.listing.class == class::ALLOW
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
    if source.listing.class == class::BAN && context.tables.now() < source.listing.until {
        context.refuse(DropReason::BannedPrefix)?;
    }
    Ok(())
}
