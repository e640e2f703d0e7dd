//! Faults: what can go wrong with a cluster and its wire, as verbs that can be undone.
//!
//! A [`Fault`] is a *state* the laboratory can be in (a link is cut, a node is off). What is in force is recorded with
//! the laboratory, so that [`Faults::heal_all`] restores everything, also from another process. What leaves nothing to
//! undo (a killed process, a deleted pod, a frame) is a method of its own. What only lasts as long as its owner holds it is
//! a value: an [`Impostor`], a [`Flood`].
//!
//! How a fault is brought about is decided purely ([`steps`], [`wire`]) and carried out by [`Faults`].

mod background;
mod cli;
mod containers;
mod executor;
mod flood;
mod frame;
mod impostor;
mod journal;
mod model;
mod pods;
pub mod steps;
pub mod wire;

pub use self::cli::{Args, run};
pub use self::executor::Faults;
pub use self::flood::{Flood, Sent};
pub use self::impostor::Impostor;
pub use self::model::{ApiServerFault, Direction, Fault, Link, Percent};
pub use self::pods::{PodChoice, PodFound};
