//! Asks the kernel for the SYN cookie of a listener.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{bpf_sock_tuple, tcphdr, xdp_md},
    btf_maps::PerCpuArray,
    helpers::{bpf_sk_release, bpf_skc_lookup_tcp, bpf_tcp_gen_syncookie, bpf_xdp_load_bytes},
    macros::btf_map,
};
use enforcer_common::{
    headers::{Headers, Link},
    verdict::Cookie,
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

/// The cookie for the SYN with these headers.
#[inline(always)]
pub(crate) fn make(context: *mut xdp_md, headers: &Headers) -> Cookie {
    let six = headers.link == Link::Ipv6;
    let length = (headers.offset - headers.segment) as u32;
    let places = (headers.segment as u64) << 32 | headers.network as u64;
    let made = enforcer_cookie(context, places, length, six as u32);
    Cookie { made: made >> 32 != 0, sequence: made as u32 }
}

/// The cookie, above it a bit that says that there is one: a global function, which the verifier checks once (Linux 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn enforcer_cookie(context: *mut xdp_md, places: u64, length: u32, six: u32) -> u64 {
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
        let socket = if six != 0 {
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
        let made = bpf_tcp_gen_syncookie(
            socket.cast(),
            ip.as_mut_ptr().cast(),
            NETWORK,
            header.cast::<tcphdr>(),
            length,
        );
        bpf_sk_release(socket.cast());
        if made < 0 { NONE } else { 1 << 32 | made as u32 as u64 }
    }
}
