//! Reads pcapng files with another parser than the daemon writes them with.

use anyhow::{Context, Result, anyhow};
use pcap_parser::{Block, pcapng::parse_block_le};

/// `opt_comment` (pcapng section 3.5).
const COMMENT: u16 = 1;

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Name and exponent of the timestamps of each interface.
    pub interfaces: Vec<(String, u8)>,
    /// Its packets.
    pub packets: Vec<Packet>,
}

/// A packet of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Number of its interface.
    pub interface: u32,
    /// Its timestamp, in units of the interface.
    pub time: u64,
    /// How long it was.
    pub length: u32,
    /// What there is of it.
    pub bytes: Vec<u8>,
    /// Its comment.
    pub comment: String,
}

/// Reads a file of a machine with the usual byte order.
pub fn read(mut file: &[u8]) -> Result<Contents> {
    let mut contents = Contents::default();
    while !file.is_empty() {
        let (rest, block) = parse_block_le(file).map_err(|error| anyhow!("{error:?}"))?;
        file = rest;
        if let Block::InterfaceDescription(block) = block {
            let name = block.if_name().context("an interface without a name")?;
            let name = name.map_err(|error| anyhow!("{error:?}"))?;
            contents.interfaces.push((name.to_owned(), block.if_tsresol));
        } else if let Block::EnhancedPacket(block) = block {
            let comment = block.options.iter().find(|option| option.code.0 == COMMENT);
            let comment = comment.context("a packet without a comment")?;
            contents.packets.push(Packet {
                interface: block.if_id,
                time: u64::from(block.ts_high) << 32 | u64::from(block.ts_low),
                length: block.origlen,
                bytes: block.data[..block.caplen as usize].to_vec(),
                comment: comment.as_str().map_err(|error| anyhow!("{error:?}"))?.to_owned(),
            });
        }
    }
    Ok(contents)
}
