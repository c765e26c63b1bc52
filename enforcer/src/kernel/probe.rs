//! The packet that stands for "somebody there connects to us": a well-formed SYN, for `View::explain`.

use std::net::IpAddr;

/// Source and destination MAC address: nothing judges them.
const MAC: [u8; 12] = [0; 12];
/// An ephemeral port (RFC 6335 section 6).
const SOURCE_PORT: u16 = 50_000;

/// A frame with a SYN from `address` to `port`. IPv4-mapped addresses become IPv4.
pub(super) fn syn(address: IpAddr, port: u16) -> Vec<u8> {
    let mut frame = Vec::from(MAC);
    match address.to_canonical() {
        IpAddr::V4(source) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
            frame.extend(source.octets());
            frame.extend([0; 4]);
        }
        IpAddr::V6(source) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            frame.extend(source.octets());
            frame.extend([0; 16]);
        }
    }
    frame.extend(SOURCE_PORT.to_be_bytes());
    frame.extend(port.to_be_bytes());
    // Sequence and acknowledgement numbers, data offset of five words, SYN, window, checksum, urgent pointer.
    frame.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_common::headers::{Headers, Link, Transport};

    #[test]
    fn the_parser_sees_a_syn_from_there() {
        for (address, link) in [("198.18.3.4", Link::Ipv4), ("2001:db8::7", Link::Ipv6)] {
            let frame = syn(address.parse().unwrap(), 443);
            let mut headers = Headers::UNREAD;
            headers.read_link(&&*frame).unwrap();
            assert_eq!(headers.link, link);
            if link == Link::Ipv6 {
                headers.read_ipv6(&&*frame).unwrap();
            } else {
                headers.read_ipv4(&&*frame).unwrap();
            }
            headers.read_transport(&&*frame).unwrap();
            assert_eq!((headers.transport, headers.port, headers.opens()), (Transport::Tcp, 443, true));
            assert_eq!((headers.offset, headers.end), (frame.len(), frame.len()));
        }
    }
}
