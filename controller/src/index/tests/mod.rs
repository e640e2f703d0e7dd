//! What one leader decides, step by step.

mod adoption;
mod attack_speakers;
mod contest;
mod creation;
mod families;
mod lifecycle;
mod pools;
mod speakers;
mod virtual_ips;
