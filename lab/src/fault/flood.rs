//! A host that repeatedly sends the same few frames at a given rate.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use herald_packet_socket::PacketSocket;

use super::background::{Background, Stop};
use super::frame::Frame;
use crate::cluster::Host;

/// Interval of the bursts in which frames are sent: the shortest sleep that a kernel keeps within a tenth.
const BURST_EVERY: Duration = Duration::from_millis(1);

/// A flood; dropping it ends it.
#[derive(Debug)]
pub struct Flood(Background<Sent>);

/// The statistics of a flood.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sent {
    /// Frames that the link accepted.
    pub frames: usize,
    /// Duration of the flood.
    pub lasted: Duration,
}

impl Sent {
    /// Returns the rate in frames per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.frames as f64 / self.lasted.as_secs_f64()
    }
}

impl Flood {
    /// Makes a host send the frames from one of its interfaces, one after the other, cyclically.
    ///
    /// # Errors
    /// If there are no frames, one of them is invalid, or the host has no such interface.
    pub fn start(host: &Host, interface: &str, frames: &[Vec<u8>], per_second: u32) -> Result<Self> {
        ensure!(!frames.is_empty() && per_second > 0, "a flood needs a frame and a rate above 0");
        let frames: Vec<Frame> = frames.iter().map(|bytes| Frame::try_from(&**bytes)).collect::<Result<_, _>>()?;
        let (name, interface) = (host.name().to_owned(), interface.to_owned());
        let open = move || {
            let index = nix::net::if_::if_nametoindex(interface.as_str())
                .with_context(|| format!("{name} has no interface {interface}"))?;
            // The socket is bound to an unused EtherType (IEEE 802 Local Experimental 2), so that it does not receive
            // the frames it sends.
            PacketSocket::open(index, 0x88b6, None).context("opening a packet socket")
        };
        Background::start(host, open, move |socket, stop| send(&socket, stop, &frames, per_second)).map(Self)
    }

    /// Ends the flood and returns its statistics.
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
            // A full queue drops frames, as on any host.
            sent += usize::from(socket.send(frame.bytes()).is_ok());
        }
        std::thread::sleep(BURST_EVERY);
    }
    ensure!(sent > 0, "the link accepted none of {attempted} frames");
    Ok(Sent { frames: sent, lasted: begun.elapsed() })
}
