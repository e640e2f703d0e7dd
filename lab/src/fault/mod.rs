//! Faults: failures of a cluster and its wire, as commands that can be undone.
//!
//! A [`Fault`] is a *state* of the laboratory (a link is cut, a node is off). The faults in force are recorded with the
//! laboratory, so that [`Faults::heal_all`] restores everything, also from another process. An action that leaves
//! nothing to undo (killing a process, deleting a pod, sending a frame) is a method of its own. An effect that lasts
//! only as long as its owner holds it is a value: an [`Impostor`], a [`Flood`], a [`MinimalResponder`].
//!
//! The steps of a fault are computed by pure functions ([`steps`], [`wire`]) and executed by [`Faults`].

mod background;
mod cli;
mod containers;
mod executor;
mod flood;
mod frame;
mod impostor;
mod journal;
mod minimal_responder;
mod model;
mod pods;
pub mod steps;
pub mod wire;

pub use self::cli::{Args, run};
pub use self::executor::Faults;
pub use self::flood::{Flood, Sent};
pub use self::impostor::Impostor;
pub use self::minimal_responder::MinimalResponder;
pub use self::model::{ApiServerFault, Direction, Fault, Link, Percent};
pub use self::pods::{PodChoice, PodFound};
