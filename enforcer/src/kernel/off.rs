//! The data plane that is not there: `kernel.mode = "off"`. Accepts every change, lists nothing, judges nothing.

use std::net::IpAddr;

use anyhow::Result;
use enforcer_common::{
    ban::{Ban, Listing},
    reason::PassReason,
    source::{SourceKey, v6_mask},
    verdict::Verdict,
};

use super::{Attachment, Counters, Explanation, Protocol, SourceLists, View, view::explanation};
use crate::{clock::KernelTime, prefix::Prefix};

/// Lists that reach no kernel.
pub(super) struct NoLists;

impl SourceLists for NoLists {
    fn ban(&mut self, _: SourceKey, _: Ban) -> Result<()> {
        Ok(())
    }

    fn unban(&mut self, _: SourceKey) -> Result<()> {
        Ok(())
    }

    fn list(&mut self, _: Prefix, _: Listing) -> Result<()> {
        Ok(())
    }

    fn unlist(&mut self, _: Prefix) -> Result<()> {
        Ok(())
    }
}

/// A view of nothing.
#[derive(Clone, Copy)]
pub(super) struct NoView {
    /// Bits of an IPv6 address that make a source.
    pub(super) v6_length: u8,
}

impl View for NoView {
    fn attachments(&self) -> Vec<Attachment> {
        Vec::new()
    }

    fn counters(&self) -> Result<Counters> {
        Ok(Vec::new())
    }

    fn explain(&self, address: IpAddr, _: u16, _: Protocol, _: KernelTime) -> Result<Explanation> {
        Ok(explanation(Verdict::Pass(PassReason::NoSettings), address, v6_mask(self.v6_length), Vec::new()))
    }
}
