//! Asks the kernel what a server has: its SYN cookie for a SYN, whether one is returned, and whether there is a connection.

use core::{
    mem::MaybeUninit,
    ptr::{read_volatile, write_volatile},
};

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, bpf_sock_tuple, tcphdr, xdp_md},
    btf_maps::{Array, PerCpuArray},
    helpers::{
        bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie, bpf_tcp_gen_syncookie,
        bpf_xdp_load_bytes,
    },
    macros::btf_map,
};
use enforcer_common::{
    headers::{Headers, Link},
    verdict::{Cookie, Server},
};

use crate::frame::opaque;

/// Room for a TCP header: 60 bytes at most, a mask of 64.
const HEADER: usize = 64;
/// Addresses and ports of a connection, as the kernel looks sockets up by them, in bytes.
const TUPLE_V4: u32 = 12;
const TUPLE_V6: u32 = 36;
/// An IP header as far as cookies depend on it, in bytes: an IPv6 header, or an IPv4 header and what always follows it.
const NETWORK: u32 = 40;
/// The namespace of the interface (`BPF_F_CURRENT_NETNS`, linux/bpf.h).
const NAMESPACE: u64 = u64::MAX;

/// Where the TCP header lies while a cookie is made: helpers take a length that varies only of memory that is written
/// throughout, and the stack is short.
#[btf_map]
static COOKIE_HEADER: PerCpuArray<[u8; HEADER], 1> = PerCpuArray::new();

/// See [`last_made`].
#[btf_map]
static COOKIES: Array<u64, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What [`enforcer_server`] is asked for. In a bit of its own, whether addresses are IPv6.
const MAKE: u32 = 0;
const CHECK: u32 = 2;
const STATE: u32 = 4;
const SIX: u32 = 1;

/// States of sockets (net/tcp_states.h).
const TIME_WAIT: u64 = 6;
const LISTEN: u64 = 10;

/// An answer; without this bit there is none.
const ANSWER: u64 = 1 << 32;

/// A second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// The cookie for the SYN with these headers.
#[inline(always)]
pub(crate) fn make(context: *mut xdp_md, headers: &Headers, now: u64) -> Cookie {
    let made = ask(context, headers, MAKE);
    if made & ANSWER != 0
        && let Some(last) = COOKIES.get_ptr_mut(0)
    {
        // SAFETY: aligned 64-bit access is single on every machine that runs BPF's JIT. Of two CPUs either may write last. Once a second,
        // or they would do nothing else in a flood.
        unsafe {
            if now.wrapping_sub(read_volatile(last)) > SECOND {
                write_volatile(last, now);
            }
        }
    }
    Cookie { made: made & ANSWER != 0, sequence: made as u32 }
}

/// When the latest cookie was made, to within a second; 0: never.
#[inline(always)]
pub(crate) fn last_made() -> u64 {
    // SAFETY: as in `make`.
    COOKIES.get_ptr(0).map_or(0, |last| unsafe { read_volatile(last) })
}

/// Whether the segment with these headers returns a cookie.
#[inline(always)]
pub(crate) fn is_returned(context: *mut xdp_md, headers: &Headers) -> bool {
    ask(context, headers, CHECK) & ANSWER != 0
}

/// What the server has with the ends of a segment.
#[inline(always)]
pub(crate) fn server(context: *mut xdp_md, headers: &Headers) -> Server {
    let state = ask(context, headers, STATE);
    if state == ANSWER | LISTEN || state == ANSWER | TIME_WAIT {
        Server::Free
    } else if state & ANSWER != 0 {
        Server::Taken
    } else {
        Server::Unknown
    }
}

#[inline(always)]
fn ask(context: *mut xdp_md, headers: &Headers, what: u32) -> u64 {
    let six = if headers.link == Link::Ipv6 { SIX } else { 0 };
    let length = (headers.offset - headers.segment) as u32;
    let places = (headers.segment as u64) << 32 | headers.network as u64;
    enforcer_server(context, places, length, what | six)
}

/// The answer with [`ANSWER`], as a global function, which the verifier checks once (Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_server(context: *mut xdp_md, places: u64, length: u32, what: u32) -> u64 {
    const NONE: u64 = 0;
    let (network, segment) = (places as u32, (places >> 32) as u32);
    let Some(header) = COOKIE_HEADER.get_ptr_mut(0) else { return NONE };
    let mut ip = MaybeUninit::<[u32; NETWORK as usize / 4]>::uninit();
    let mut tuple = MaybeUninit::<[u32; TUPLE_V6 as usize / 4]>::uninit();
    // 1 to 64; the verifier follows the mask, on Linux 6.1 nothing else.
    let length = (opaque((length as usize).wrapping_sub(1) & (HEADER - 1)) + 1) as u32;
    // SAFETY: every buffer is as long as the helpers are told. The pointers are used while this function runs, and the socket is
    // given back before it ends, on every way.
    unsafe {
        let load = |offset: u32, to: *mut u8, length: u32| {
            bpf_xdp_load_bytes(context, offset, to.cast(), length) == 0
        };
        let (to, ports) = (tuple.as_mut_ptr().cast::<u8>(), TUPLE_V6 - 4);
        let loaded = load(network, ip.as_mut_ptr().cast(), NETWORK) && load(segment, header.cast(), length);
        if !loaded {
            return NONE;
        }
        let socket = if what & SIX != 0 {
            if !load(network + 8, to, 32) || !load(segment, to.add(ports as usize), 4) {
                return NONE;
            }
            bpf_skc_lookup_tcp(context.cast(), to.cast::<bpf_sock_tuple>(), TUPLE_V6, NAMESPACE, 0)
        } else {
            if !load(network + 12, to, 8) || !load(segment, to.add(8), 4) {
                return NONE;
            }
            bpf_skc_lookup_tcp(context.cast(), to.cast::<bpf_sock_tuple>(), TUPLE_V4, NAMESPACE, 0)
        };
        if socket.is_null() {
            return NONE;
        }
        let (ip, header) = (ip.as_mut_ptr().cast(), header.cast::<tcphdr>());
        let answer = if what & STATE != 0 {
            ANSWER | (*socket).state as u64
        } else if what & CHECK != 0 {
            if bpf_tcp_check_syncookie(socket.cast(), ip, NETWORK, header, length) == 0 {
                ANSWER
            } else {
                NONE
            }
        } else {
            let made = bpf_tcp_gen_syncookie(socket.cast(), ip, NETWORK, header, length);
            if made < 0 { NONE } else { ANSWER | made as u32 as u64 }
        };
        bpf_sk_release(socket.cast());
        answer
    }
}
