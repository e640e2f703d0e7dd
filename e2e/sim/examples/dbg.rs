//! dbg
#![allow(clippy::print_stdout, reason="x")]
use std::time::{Duration,Instant};
use herald_sim::{history::*, world};
fn main() {
    for end in [2, 5, 15, 25] {
        let mut h = History::quiet(1, 1000, 20);
        h.end = Duration::from_secs(end);
        let t = Instant::now();
        let o = world::run(&h, world::Detail::Nothing);
        println!("{end} {:?} {:?} {}", t.elapsed(), o.violation, o.frames);
    }
}
