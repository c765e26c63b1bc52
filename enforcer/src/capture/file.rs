//! Reads capture files, pcap and pcapng, packet by packet, and turns every packet into an Ethernet frame.
//!
//! Besides Ethernet these link types are known: raw IP, and what Linux writes for captures on `any` (cooked). Files come from
//! anywhere: whatever is wrong with one is an error that says in which packet.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use pcap_file::{
    DataLink,
    pcap::PcapReader,
    pcapng::{
        Block, PcapNgReader,
        blocks::interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
    },
};

/// How a pcapng file begins, whatever its byte order (pcapng section 4.1).
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Destination and source of a frame that had neither.
const MAC: [u8; 12] = [0; 12];
/// An Ethernet header, in bytes.
const ETHERNET: usize = 14;
const NANOS: u128 = 1_000_000_000;

/// Link types by their numbers (the registry of tcpdump.org).
mod link {
    pub(super) const ETHERNET: u32 = 1;
    pub(super) const RAW: u32 = 101;
    pub(super) const COOKED: u32 = 113;
    pub(super) const IPV4: u32 = 228;
    pub(super) const IPV6: u32 = 229;
    pub(super) const COOKED_2: u32 = 276;
}

/// A packet of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Nanoseconds since 1970.
    pub unix_ns: u64,
    /// As an Ethernet frame.
    pub bytes: Vec<u8>,
    /// How long that frame was; the capture may hold less.
    pub length: usize,
}

/// A capture file that is read.
pub struct Capture {
    inner: Inner,
    /// Packets read so far.
    count: u64,
}

enum Inner {
    Old(PcapReader<Box<dyn Read>>),
    New(PcapNgReader<Box<dyn Read>>),
}

impl Capture {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let reader: Box<dyn Read> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(File::open(path).with_context(|| format!("{name}"))?)
        };
        Self::read(reader).with_context(|| format!("{name}"))
    }

    /// Reads the head of a file.
    pub fn read(mut reader: Box<dyn Read>) -> Result<Self> {
        let mut magic = [0; 4];
        reader.read_exact(&mut magic).map_err(|_| anyhow!("too short to be a capture file"))?;
        let whole: Box<dyn Read> = Box::new(std::io::Cursor::new(magic).chain(reader));
        let wrong = "neither pcap nor pcapng, or damaged";
        let inner = if magic == PCAPNG {
            Inner::New(PcapNgReader::new(whole).context(wrong)?)
        } else {
            Inner::Old(PcapReader::new(whole).context(wrong)?)
        };
        Ok(Self { inner, count: 0 })
    }

    /// The next packet; `None` at the end.
    pub fn next_packet(&mut self) -> Result<Option<Captured>> {
        let number = self.count + 1;
        let read = match &mut self.inner {
            Inner::Old(reader) => next_of_pcap(reader),
            Inner::New(reader) => next_of_pcapng(reader),
        };
        let found = read.with_context(|| format!("packet {number}"))?;
        self.count = number;
        Ok(found)
    }
}

fn next_of_pcap(reader: &mut PcapReader<Box<dyn Read>>) -> Result<Option<Captured>> {
    let link = reader.header().datalink;
    let Some(packet) = reader.next_packet() else { return Ok(None) };
    let packet = packet?;
    let unix_ns = u64::try_from(packet.timestamp.as_nanos()).unwrap_or(u64::MAX);
    framed(link, unix_ns, &packet.data, packet.orig_len as usize).map(Some)
}

fn next_of_pcapng(reader: &mut PcapNgReader<Box<dyn Read>>) -> Result<Option<Captured>> {
    loop {
        // Interfaces belong to the blocks before; the borrow of the next block would hide them.
        let known: Vec<Interface> = reader.interfaces().iter().map(Interface::of).collect();
        let Some(block) = reader.next_block() else { return Ok(None) };
        let (id, raw, data, length) = match block? {
            Block::EnhancedPacket(packet) => {
                // The crate takes every timestamp for nanoseconds.
                let raw = packet.timestamp.as_nanos();
                (packet.interface_id, raw, packet.data, packet.original_len as usize)
            }
            Block::SimplePacket(packet) => (0, 0, packet.data, packet.original_len as usize),
            Block::Packet(packet) => {
                let raw = u128::from(packet.timestamp);
                (u32::from(packet.interface_id), raw, packet.data, packet.original_len as usize)
            }
            Block::SectionHeader(_)
            | Block::InterfaceDescription(_)
            | Block::NameResolution(_)
            | Block::InterfaceStatistics(_)
            | Block::SystemdJournalExport(_)
            | Block::Unknown(_) => continue,
        };
        let interface = known.get(id as usize).with_context(|| format!("no interface {id} in this file"))?;
        return framed(interface.link, interface.nanoseconds(raw), &data, length).map(Some);
    }
}

/// What packets need to know of their interface.
#[derive(Clone, Copy)]
struct Interface {
    link: DataLink,
    /// `if_tsresol` (pcapng section 4.2): a power of ten, or of two where the highest bit is set.
    resolution: u8,
}

impl Interface {
    fn of(block: &InterfaceDescriptionBlock<'_>) -> Self {
        let resolution = block.options.iter().find_map(|option| {
            let InterfaceDescriptionOption::IfTsResol(resolution) = option else { return None };
            Some(*resolution)
        });
        // Microseconds unless something else is said.
        Self { link: block.linktype, resolution: resolution.unwrap_or(6) }
    }

    fn nanoseconds(self, raw: u128) -> u64 {
        let exponent = u32::from(self.resolution & 0x7f);
        let base: u128 = if self.resolution & 0x80 == 0 { 10 } else { 2 };
        let Some(units) = base.checked_pow(exponent) else { return 0 };
        u64::try_from(raw.saturating_mul(NANOS) / units).unwrap_or(u64::MAX)
    }
}

/// A packet as an Ethernet frame.
fn framed(link: DataLink, unix_ns: u64, data: &[u8], length: usize) -> Result<Captured> {
    let length = length.max(data.len());
    let (ethertype, header) = match u32::from(link) {
        link::ETHERNET => return Ok(Captured { unix_ns, bytes: data.to_vec(), length }),
        link::RAW | link::IPV4 | link::IPV6 => {
            let version = data.first().map_or(0, |byte| byte >> 4);
            (if version == 6 { [0x86, 0xdd] } else { [0x08, 0x00] }, 0)
        }
        link::COOKED => (pair(data, 14)?, 16),
        link::COOKED_2 => (pair(data, 0)?, 20),
        other => {
            bail!("link type {other} is not known here; capture on an Ethernet interface, or on `any`")
        }
    };
    let payload = data.get(header..).unwrap_or_default();
    Ok(Captured {
        unix_ns,
        bytes: [&MAC[..], &ethertype, payload].concat(),
        length: ETHERNET + length.saturating_sub(header),
    })
}

fn pair(data: &[u8], offset: usize) -> Result<[u8; 2]> {
    data.get(offset..).and_then(|rest| rest.first_chunk::<2>()).copied().context("cut off in its header")
}
