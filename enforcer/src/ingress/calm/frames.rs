//! Where the frames of HTTP/2 begin and end (RFC 9113 section 4.1). Knows nothing of what they mean, and keeps nothing of what
//! they carry but the four bytes that say why a stream was reset.

/// What a client sends first (RFC 9113 section 3.4), before its frames.
pub(super) const PREFACE: u32 = 24;
/// Bytes before a frame's payload.
const HEAD: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// Flag of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 4;

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    flags: u8,
    pub(super) stream: u32,
    /// Of RST_STREAM alone.
    pub(super) reason: Option<u32>,
}

impl Frame {
    fn read(bytes: &[u8]) -> Option<(u32, Self)> {
        let [a, b, c, kind, flags, w, x, y, z] = *bytes.first_chunk::<HEAD>()?;
        let reason = bytes.get(HEAD..HEAD + 4).and_then(|reason| reason.try_into().ok());
        let frame = Self {
            kind,
            flags,
            stream: u32::from_be_bytes([w & 0x7f, x, y, z]),
            reason: reason.map(u32::from_be_bytes),
        };
        Some((u32::from_be_bytes([0, a, b, c]), frame))
    }
}

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Frames {
    /// Bytes to go until the next frame begins.
    left: u32,
    /// The beginning of a frame, as far as it has come.
    head: [u8; HEAD + 4],
    have: usize,
    /// Whether the header block of a request has begun and not ended.
    in_block: bool,
    /// Header blocks that have begun.
    blocks: u64,
    /// The type of the frame whose payload is passing.
    kind: u8,
}

impl Frames {
    /// Frames behind `skip` bytes of something else.
    pub(super) const fn behind(skip: u32) -> Self {
        Self { left: skip, head: [0; HEAD + 4], have: 0, in_block: false, blocks: 0, kind: DATA }
    }

    /// Whether what has passed ends with the end of a frame.
    pub(super) const fn is_between(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// Which head has begun and not ended.
    pub(super) fn head(&self) -> Option<u64> {
        let passing = self.left > 0 && matches!(self.kind, HEADERS | CONTINUATION);
        (self.in_block || passing).then_some(self.blocks)
    }

    /// Follows what passes, and shows each frame once its beginning is there. Stops where `each` says so.
    pub(super) fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame) -> bool) -> bool {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = bytes.len().min(self.left as usize);
                bytes = bytes.get(passed..).unwrap_or_default();
                self.left -= passed as u32;
                continue;
            }
            // The reason of a reset stands behind its head.
            let wanted = if self.have >= HEAD { HEAD + 4 } else { HEAD };
            let room = self.head.get_mut(self.have..wanted).unwrap_or_default();
            let (new, rest) = bytes.split_at(room.len().min(bytes.len()));
            room.iter_mut().zip(new).for_each(|(room, new)| *room = *new);
            self.have += new.len();
            bytes = rest;
            if self.have < wanted {
                continue;
            }
            let Some((length, frame)) = self.head.get(..self.have).and_then(Frame::read) else { continue };
            if frame.kind == RST_STREAM && length == 4 && self.have == HEAD {
                continue;
            }
            self.left = length - (self.have - HEAD) as u32;
            self.have = 0;
            self.kind = frame.kind;
            if matches!(frame.kind, HEADERS | CONTINUATION) {
                self.in_block = frame.flags & END_HEADERS == 0;
                self.blocks += u64::from(frame.kind == HEADERS);
            }
            if !each(frame) {
                return false;
            }
        }
        true
    }
}

/// The end of a connection (RFC 9113 section 6.8) after `last`, the last stream that was looked at.
pub(super) fn goaway(last: u32, reason: u32) -> Vec<u8> {
    [&[0, 0, 8, GOAWAY, 0, 0, 0, 0, 0][..], &last.to_be_bytes(), &reason.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: u8 = 4;

    #[test]
    fn frames_are_seen_however_they_arrive() {
        let bytes = [
            &[b'x'; PREFACE as usize][..],
            &[0, 0, 0, SETTINGS, 0, 0, 0, 0, 0],
            &[0, 0, 3, HEADERS, 0, 0, 0, 0, 1, 1, 2, 3],
            &[0, 0, 1, CONTINUATION, END_HEADERS, 0, 0, 0, 1, 4],
            &[0, 0, 4, RST_STREAM, 0, 0x80, 0, 0, 1, 0, 0, 0, 8],
            &goaway(1, 11),
        ]
        .concat();
        for size in 1..bytes.len() {
            let (mut frames, mut seen, mut heads) = (Frames::behind(PREFACE), Vec::new(), 0);
            for piece in bytes.chunks(size) {
                assert!(frames.follow(piece, |frame| {
                    seen.push((frame.kind, frame.stream, frame.reason));
                    true
                }));
                heads += usize::from(frames.head() == Some(1));
            }
            let expected = [
                (SETTINGS, 0, None),
                (HEADERS, 1, None),
                (CONTINUATION, 1, None),
                (RST_STREAM, 1, Some(8)),
                (GOAWAY, 0, None),
            ];
            assert_eq!(seen, expected, "{size}");
            assert!(frames.is_between() && frames.head().is_none());
            assert!(size > 1 || heads == 13, "{heads}");
        }
    }

    #[test]
    fn who_has_seen_enough_is_shown_no_more() {
        let ping = [0, 0, 0, PING, 0, 0, 0, 0, 0].repeat(3);
        let mut seen = 0;
        assert!(!Frames::behind(0).follow(&ping, |_| {
            seen += 1;
            seen < 2
        }));
        assert_eq!(seen, 2);
    }
}
