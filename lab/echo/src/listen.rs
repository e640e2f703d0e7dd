//! Sockets that accept both IPv4 and IPv6, whatever the value of `net.ipv6.bindv6only`.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel queues: a burst of a load test must not be refused before it is accepted.
const BACKLOG: i32 = 1024;

pub(crate) fn tcp(address: IpAddr, port: u16) -> io::Result<tokio::net::TcpListener> {
    let socket = bound(address, port, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    tokio::net::TcpListener::from_std(socket.into())
}

pub(crate) fn udp(address: IpAddr, port: u16) -> io::Result<tokio::net::UdpSocket> {
    tokio::net::UdpSocket::from_std(bound(address, port, Type::DGRAM, Protocol::UDP)?.into())
}

fn bound(address: IpAddr, port: u16, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    if kind == Type::STREAM {
        // A restart within a minute finds connections of the last run in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
