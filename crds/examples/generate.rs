//! Writes the CustomResourceDefinitions to the directory named by its one argument: `make crds`.

use std::{error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).ok_or("usage: generate DIRECTORY")?);
    for (file, text) in herald_crds::manifest::files()? {
        fs::write(directory.join(file), text)?;
    }
    Ok(())
}
