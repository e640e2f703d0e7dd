//! Writes `docs/crds.md` to the file named by its one argument: `make crd-reference`.

mod page;

use std::{error::Error, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).ok_or("usage: reference FILE")?;
    fs::write(file, page::page()?)?;
    Ok(())
}
