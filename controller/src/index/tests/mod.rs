//! What one leader decides, step by step.

mod adoption;
mod families;
mod lifecycle;
mod pools;
mod virtual_ips;
