//! Writes `docs/reasons.md` to the file named by its one argument: `make reasons`.

mod page;

use std::{error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: reasons FILE")?;
    fs::write(file, page::page())?;
    Ok(())
}
