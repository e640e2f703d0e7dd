//! What one leader decides, step by step.

mod adoption;
mod blind;
mod contest;
mod counts;
mod creation;
mod families;
mod gateways;
mod lifecycle;
mod pools;
mod reservations;
mod shown;
mod speakers;
mod virtual_ips;
