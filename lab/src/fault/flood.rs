//! A host that sends the same few frames again and again, as fast as it is told to.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use herald_packet_socket::PacketSocket;

use super::background::{Background, Stop};
use super::frame::Frame;
use crate::cluster::Host;

/// Frames go out in bursts this far apart: the shortest sleep that a kernel keeps to within a tenth.
const BURST_EVERY: Duration = Duration::from_millis(1);

/// Sends until it is dropped.
#[derive(Debug)]
pub struct Flood(Background<Sent>);

/// What a flood sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sent {
    /// Frames that the link took.
    pub frames: usize,
    /// For how long.
    pub lasted: Duration,
}

impl Sent {
    /// Frames a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.frames as f64 / self.lasted.as_secs_f64()
    }
}

impl Flood {
    /// Lets a host send the frames from one of its interfaces, one after the other and from the first on again.
    ///
    /// # Errors
    /// If there is none, one of them is no frame, or the host has no such interface.
    pub fn start(host: &Host, interface: &str, frames: &[Vec<u8>], per_second: u32) -> Result<Self> {
        ensure!(!frames.is_empty() && per_second > 0, "a flood of nothing");
        let frames: Vec<Frame> = frames.iter().map(|bytes| Frame::try_from(&**bytes)).collect::<Result<_, _>>()?;
        let (name, interface) = (host.name().to_owned(), interface.to_owned());
        let open = move || {
            let index = nix::net::if_::if_nametoindex(interface.as_str())
                .with_context(|| format!("{name} has no interface {interface}"))?;
            // Bound to an EtherType nobody uses (IEEE 802 Local Experimental 2): it is not to receive what it floods.
            PacketSocket::open(index, 0x88b6, None).context("opening a packet socket")
        };
        Background::start(host, open, move |socket, stop| send(&socket, stop, &frames, per_second)).map(Self)
    }

    /// Ends it, and returns what it sent.
    ///
    /// # Errors
    /// If it could not send.
    pub fn end(self) -> Result<Sent> {
        self.0.end()
    }
}

fn send(socket: &PacketSocket, stop: &Stop, frames: &[Frame], per_second: u32) -> Result<Sent> {
    let begun = Instant::now();
    let (mut sent, mut attempted) = (0, 0);
    let mut next = frames.iter().cycle();
    while !stop.is_asked_for() {
        let due = (begun.elapsed().as_secs_f64() * f64::from(per_second)) as usize;
        for frame in next.by_ref().take(due.saturating_sub(attempted)) {
            attempted += 1;
            // A full queue drops frames, as any host's does.
            sent += usize::from(socket.send(frame.bytes()).is_ok());
        }
        std::thread::sleep(BURST_EVERY);
    }
    ensure!(sent > 0, "the link took none of {attempted} frames");
    Ok(Sent { frames: sent, lasted: begun.elapsed() })
}
