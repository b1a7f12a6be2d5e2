//! Names and addresses.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{size_of, zeroed};

use socket2::{SockAddr, SockAddrStorage};

use crate::error::{Error, Reason, Result, Stage};

/// Resolves a host and a service by getaddrinfo(3); may take as long as the name service takes.
pub fn resolve(host: &str, service: &str) -> Result<Vec<SockAddr>> {
    look_up(host, service, 0)
}

/// The same for a numeric address and port, which never waits; `None` where one of them is a name.
pub fn numeric(host: &str, service: &str) -> Option<Vec<SockAddr>> {
    look_up(host, service, libc::AI_NUMERICHOST | libc::AI_NUMERICSERV).ok()
}

fn look_up(host: &str, service: &str, flags: i32) -> Result<Vec<SockAddr>> {
    let text = |value: &str| {
        CString::new(value).map_err(|_| Error::invalid("a name holds a NUL").at(Stage::Address))
    };
    let (host_c, service_c) = (text(host)?, text(service)?);
    // SAFETY: all zeros is a valid `addrinfo` that asks for nothing in particular.
    let mut hints: libc::addrinfo = unsafe { zeroed() };
    hints.ai_socktype = libc::SOCK_STREAM;
    hints.ai_flags = flags;
    let mut list = std::ptr::null_mut();
    // SAFETY: the strings and the hints live for the call, and `list` takes its result.
    let code =
        unsafe { libc::getaddrinfo(host_c.as_ptr(), service_c.as_ptr(), &raw const hints, &raw mut list) };
    if code != 0 {
        return Err(look_up_error(code, host, service));
    }
    let mut found = Vec::new();
    let mut next = list;
    while !next.is_null() {
        // SAFETY: the list is the one getaddrinfo made, not freed yet.
        let info = unsafe { &*next };
        // SAFETY: each entry's address has the length it says.
        let addr = unsafe { from_raw(info.ai_addr, info.ai_addrlen) };
        found.extend(addr.ok().filter(|addr| !found.contains(addr)));
        next = info.ai_next;
    }
    // SAFETY: made by getaddrinfo, freed once.
    unsafe { libc::freeaddrinfo(list) };
    if found.is_empty() {
        return Err(look_up_error(libc::EAI_NONAME, host, service));
    }
    Ok(found)
}

fn look_up_error(code: i32, host: &str, service: &str) -> Error {
    let reason = if code == libc::EAI_SYSTEM {
        io::Error::last_os_error().to_string()
    } else {
        // SAFETY: gai_strerror returns a constant string.
        unsafe { CStr::from_ptr(libc::gai_strerror(code)) }.to_string_lossy().into_owned()
    };
    let errno = if code == libc::EAI_AGAIN { libc::EAGAIN } else { libc::EHOSTUNREACH };
    Error::new(errno, Reason::Resolve, format!("can't resolve {host}, service {service}: {reason}"))
        .at(Stage::Address)
        .with_remedy("see `getent ahosts NAME`, /etc/hosts and the name server")
}

/// Reads an address that C passed.
///
/// # Safety
/// `addr` is null or points to `length` readable octets.
pub unsafe fn from_raw(addr: *const libc::sockaddr, length: u32) -> Result<SockAddr> {
    if addr.is_null() || (length as usize) < size_of::<libc::sa_family_t>() {
        return Err(Error::invalid("an address is missing or too short"));
    }
    // SAFETY: the family lies in the octets the caller vouches for.
    let family = i32::from(unsafe { std::ptr::addr_of!((*addr).sa_family).read_unaligned() });
    let needed = match family {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        other => {
            let text = format!("address family {other} is neither IPv4 nor IPv6");
            return Err(Error::new(libc::EAFNOSUPPORT, Reason::Invalid, text));
        }
    };
    if (length as usize) < needed || length as usize > size_of::<SockAddrStorage>() {
        return Err(Error::invalid("the length of an address is not that of its family"));
    }
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `needed` octets are readable there, and a storage has room for every family's address.
    unsafe { std::ptr::copy_nonoverlapping(addr.cast::<u8>(), (&raw mut storage).cast::<u8>(), needed) };
    // SAFETY: the storage holds an address of this length.
    Ok(unsafe { SockAddr::new(storage, needed as u32) })
}

/// An address as people write it: `10.0.0.7:24008`, `[fe80::1%2]:24008`.
pub fn format_addr(addr: &SockAddr) -> String {
    addr.as_socket().map_or_else(|| "?".into(), |addr| addr.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_addresses_keep_port_and_scope() {
        let v4 = numeric("127.0.0.1", "24008").unwrap();
        assert_eq!(format_addr(&v4[0]), "127.0.0.1:24008");
        let v6 = numeric("fe80::1%1", "7").unwrap();
        assert_eq!(format_addr(&v6[0]), "[fe80::1%1]:7");
        assert!(numeric("localhost", "7").is_none());
        assert!(numeric("127.0.0.1", "nfs").is_none());
    }

    #[test]
    fn names_resolve_or_say_why_not() {
        assert!(!resolve("localhost", "1").unwrap().is_empty());
        let error = resolve("no.such.host.invalid", "1").unwrap_err();
        assert_eq!((error.stage, error.reason), (Stage::Address, Reason::Resolve));
        assert!(!error.remedy.is_empty());
    }

    #[test]
    fn raw_addresses_are_checked() {
        let addr = numeric("::1", "9").unwrap().remove(0);
        // SAFETY: a whole address.
        let copy = unsafe { from_raw(addr.as_ptr().cast(), addr.len()) }.unwrap();
        assert_eq!(copy, addr);
        for length in 0..addr.len() {
            // SAFETY: fewer octets than there are.
            assert!(unsafe { from_raw(addr.as_ptr().cast(), length) }.is_err());
        }
        let unix = SockAddr::unix("/tmp/x").unwrap();
        // SAFETY: a whole address.
        let error = unsafe { from_raw(unix.as_ptr().cast(), unix.len()) }.unwrap_err();
        assert_eq!(error.errno, libc::EAFNOSUPPORT);
    }
}
