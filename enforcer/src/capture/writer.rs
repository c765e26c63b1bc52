//! Writes packets as pcapng, the reason as the packet's comment, so that any analyser opens them.

use std::{borrow::Cow, io::Write, time::Duration};

use anyhow::{Context as _, Result};
use pcap_file::{
    DataLink,
    pcapng::{
        PcapNgBlock as _, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
        },
    },
};

/// Timestamps count nanoseconds: 10 to the power of minus this (`if_tsresol`, pcapng section 4.2).
const RESOLUTION: u8 = 9;
/// Inbound, not captured promiscuously (`epb_flags`, pcapng section 4.3.1).
const INBOUND: u32 = 1;

/// A capture file that is written packet by packet.
pub struct Writer<W: Write> {
    inner: PcapNgWriter<W>,
    /// By number in the file.
    interfaces: Vec<String>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub fn new(out: W) -> Result<Self> {
        let inner = PcapNgWriter::new(out).context("writing the capture")?;
        Ok(Self { inner, interfaces: Vec::new() })
    }

    /// Adds an Ethernet frame of once `length` bytes, and makes sure that it arrives: others may read along.
    pub fn add(
        &mut self,
        interface: &str,
        unix_ns: u64,
        length: usize,
        bytes: &[u8],
        comment: &str,
    ) -> Result<()> {
        let interface_id = self.interface(interface)?;
        let packet = EnhancedPacketBlock {
            interface_id,
            timestamp: Duration::from_nanos(unix_ns),
            original_len: u32::try_from(length).unwrap_or(u32::MAX),
            data: Cow::Borrowed(bytes),
            options: vec![
                EnhancedPacketOption::Comment(Cow::Borrowed(comment)),
                EnhancedPacketOption::Flags(INBOUND),
            ],
        };
        self.inner.write_block(&packet.into_block()).context("writing the capture")?;
        self.inner.get_mut().flush().context("writing the capture")
    }

    fn interface(&mut self, name: &str) -> Result<u32> {
        if let Some(number) = self.interfaces.iter().position(|known| known == name) {
            return Ok(number as u32);
        }
        let block = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: 0,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name.to_owned())),
                InterfaceDescriptionOption::IfTsResol(RESOLUTION),
            ],
        };
        self.inner.write_block(&block.into_block()).context("writing the capture")?;
        self.interfaces.push(name.to_owned());
        Ok(self.interfaces.len() as u32 - 1)
    }
}
