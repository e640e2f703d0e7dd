//! TCP connections that are established without blocking.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

/// Starts a connection: the stream is established or has failed once it is writable. `from` is its source port; without
/// it the kernel chooses one.
///
/// # Errors
/// If the kernel refuses at once, for instance because there is no route.
pub(super) fn start(target: SocketAddr, from: Option<u16>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(port) = from {
        // Connections to other targets may come from the same port.
        socket.set_reuse_address(true)?;
        let any = if target.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
        socket.bind(&SocketAddr::new(any, port).into())?;
    }
    match socket.connect(&target.into()) {
        Ok(()) => Ok(socket.into()),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => Ok(socket.into()),
        Err(error) => Err(error),
    }
}

/// Appends the available data to `into`, and returns whether the other side has closed the connection.
///
/// # Errors
/// If the connection failed.
pub(super) fn read(stream: &TcpStream, into: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match io::Read::read(&mut &*stream, &mut buffer) {
            Ok(0) => return Ok(true),
            Ok(read) => into.extend(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes the first complete line from `bytes` and returns it without its end.
pub(super) fn take_line(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    let rest = bytes.split_off(end + 1);
    let mut line = std::mem::replace(bytes, rest);
    line.pop();
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_lines_are_taken() {
        let mut bytes = b"one\ntwo\nthr".to_vec();
        assert_eq!(take_line(&mut bytes), Some(b"one".to_vec()));
        assert_eq!(take_line(&mut bytes), Some(b"two".to_vec()));
        assert_eq!(take_line(&mut bytes), None);
        assert_eq!(bytes, b"thr");
    }
}
