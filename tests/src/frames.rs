//! HTTP/2 by hand: frames as bytes, for clients that no library would be.

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt};

/// RFC 9113 section 6: types of frames.
pub mod kind {
    #![allow(missing_docs, reason = "named as the RFC does")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// Flag of SETTINGS and PING.
pub const ACK: u8 = 1;

/// Names of error codes, by number (RFC 9113 section 7).
const REASONS: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Why a stream was reset or the connection ended.
    pub fn reason(&self) -> Option<&'static str> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?.try_into().ok()?;
        REASONS.get(u32::from_be_bytes(code) as usize).copied()
    }

    /// The status at the beginning of an answer's fields (RFC 7541 appendix A, and B for its digits).
    pub fn status(&self) -> Option<u16> {
        if self.kind != kind::HEADERS {
            return None;
        }
        match self.payload[..] {
            [indexed @ 0x88..=0x8e, ..] => {
                [200, 204, 206, 304, 400, 404, 500].get(usize::from(indexed - 0x88)).copied()
            }
            // A literal whose name is `:status`, plain or in Huffman's code: digits from 0 to 2 have five bits, others six.
            [0x48 | 0x08 | 0x18, 3, a, b, c, ..] => std::str::from_utf8(&[a, b, c]).ok()?.parse().ok(),
            [0x48 | 0x08 | 0x18, length, ref rest @ ..] if length > 0x80 => {
                let mut bits = rest.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
                let mut number = 0;
                for _ in 0..3 {
                    let mut take = |count| (0..count).try_fold(0, |code, _| Some(code << 1 | bits.next()?));
                    let five: u8 = take(5)?;
                    let digit = if five < 3 { five } else { (five << 1 | take(1)?) - 0x16 };
                    number = number * 10 + u16::from(digit);
                }
                Some(number)
            }
            _ => None,
        }
    }
}

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection's beginning (RFC 9113 section 3.4).
pub fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame(kind::SETTINGS, 0, 0, &[])].concat()
}

/// Fields in HPACK (RFC 7541 section 6.2.2): all of them literally, none of them remembered.
pub fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            // RFC 7541 section 5.1, with seven bits.
            let mut rest = text.len();
            if rest < 127 {
                block.push(rest as u8);
            } else {
                block.push(127);
                rest -= 127;
                while rest >= 128 {
                    block.push((rest % 128) as u8 | 128);
                    rest /= 128;
                }
                block.push(rest as u8);
            }
            block.extend_from_slice(text);
        }
    }
    block
}

/// The fields of an ordinary request.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    fields(&[(":method", method), (":scheme", "https"), (":path", path), (":authority", crate::edge::NAME)])
}

/// The next frame; `None` at the end.
pub async fn next(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>> {
    let mut head = [0; 9];
    if stream.read_exact(&mut head).await.is_err() {
        return Ok(None);
    }
    let [a, b, c, kind, flags, w, x, y, z] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).await?;
    Ok(Some(Frame { kind, flags, stream: u32::from_be_bytes([w, x, y, z]), payload }))
}
