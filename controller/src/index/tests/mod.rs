//! What one leader decides, step by step.

mod adoption;
mod contest;
mod creation;
mod families;
mod lifecycle;
mod pools;
mod reservations;
mod speakers;
mod virtual_ips;
