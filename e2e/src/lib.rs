//! Herald's laboratory: a real Kubernetes cluster on one machine, faults to inject in it, probes that measure what
//! a client sees, and the scenarios that prove Herald on it.

mod at_rest;
mod audit_log;
pub mod bench;
pub mod binaries;
mod controllers;
pub mod demo;
pub mod failover;
pub mod fault;
pub mod images;
pub mod kernel_test;
pub mod lab;
mod long_command;
pub mod manifests;
pub mod preflight;
pub mod probe;
pub mod progress;
pub mod scale;
pub mod scenario;
mod stamps;
pub mod vm;
pub mod wait_factor;
