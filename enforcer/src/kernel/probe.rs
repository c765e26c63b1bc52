//! The packets that stand for "somebody there wants something of us": well-formed ones, for `View::explain`.

use std::net::IpAddr;

use super::Protocol;

/// Source and destination MAC address: nothing judges them.
const MAC: [u8; 12] = [0; 12];
/// An ephemeral port (RFC 6335 section 6).
const SOURCE_PORT: u16 = 50_000;

/// A frame from `address` to `port`: a SYN, or an empty datagram. IPv4-mapped addresses become IPv4.
pub(super) fn packet(address: IpAddr, port: u16, protocol: Protocol) -> Vec<u8> {
    // Behind the ports: sequence and acknowledgement numbers, data offset of five words, SYN, window, checksum, urgent
    // pointer; or length and checksum.
    let (number, rest): (u8, &[u8]) = match protocol {
        Protocol::Tcp => (6, &[0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]),
        Protocol::Udp => (17, &[0, 8, 0, 0]),
    };
    let length = rest.len() as u8 + 4;
    let mut frame = Vec::from(MAC);
    match address.to_canonical() {
        IpAddr::V4(source) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 20 + length, 0, 0, 0x40, 0, 64, number, 0, 0]);
            frame.extend(source.octets());
            frame.extend([0; 4]);
        }
        IpAddr::V6(source) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, length, number, 64]);
            frame.extend(source.octets());
            frame.extend([0; 16]);
        }
    }
    frame.extend(SOURCE_PORT.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(rest);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use enforcer_common::headers::{Headers, Link, Transport};

    #[test]
    fn the_parser_sees_what_is_meant() {
        let (v4, v6) = (("198.18.3.4", Link::Ipv4), ("2001:db8::7", Link::Ipv6));
        let (tcp, udp) = ((Protocol::Tcp, Transport::Tcp), (Protocol::Udp, Transport::Udp));
        for ((address, link), (protocol, transport)) in [(v4, tcp), (v6, tcp), (v4, udp), (v6, udp)] {
            let frame = packet(address.parse().unwrap(), 443, protocol);
            let mut headers = Headers::UNREAD;
            headers.read_link(&&*frame).unwrap();
            assert_eq!(headers.link, link);
            if link == Link::Ipv6 {
                headers.read_ipv6(&&*frame).unwrap();
            } else {
                headers.read_ipv4(&&*frame).unwrap();
            }
            headers.read_transport(&&*frame).unwrap();
            assert_eq!((headers.transport, headers.port), (transport, 443));
            assert_eq!(headers.opens(), protocol == Protocol::Tcp);
            assert_eq!((headers.offset, headers.end), (frame.len(), frame.len()));
        }
    }
}
