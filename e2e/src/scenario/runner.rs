//! The run of one scenario on a cluster.

use std::path::Path;

use anyhow::{Context, Result};

use super::{Scenario, catalogue};
use crate::testbed::{TestNamespace, Testbed};

/// The third octet of the first scenario's addresses; each following scenario has the next one.
const FIRST_BLOCK: u8 = 100;

/// Runs a scenario in a namespace of its own. After a failure logs, objects and captures are collected in a folder,
/// which the error names.
///
/// # Errors
/// When the scenario fails; the error says what the scenario found.
pub fn run_on(bed: &Testbed, scenario: &Scenario) -> Result<()> {
    let result = TestNamespace::named(bed, scenario.name, block_of(scenario)?).and_then(|ns| {
        (scenario.run)(&ns)?;
        ns.close()
    });
    let Err(error) = result else {
        bed.add_passed(scenario.name);
        return Ok(());
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/failures").join(scenario.name);
    // Files of an earlier run would mix with those of this one.
    let emptied = if folder.exists() { std::fs::remove_dir_all(&folder) } else { Ok(()) };
    let gathered = emptied.map_err(anyhow::Error::from).and_then(|()| bed.lab().collect(&folder));
    let error = error.context(format!("scenario {} on lab {}", scenario.name, bed.lab().id()));
    match gathered {
        Ok(()) => Err(error.context(format!("logs, objects and captures are in {}", folder.display()))),
        Err(other) => Err(error.context(format!("and nothing could be gathered: {other:#}"))),
    }
}

/// Returns the address block of a scenario: its position in the catalogue, as the third octet.
fn block_of(scenario: &Scenario) -> Result<u8> {
    let position = catalogue().iter().position(|s| s.name == scenario.name).context("a registered scenario")?;
    Ok(FIRST_BLOCK + u8::try_from(position)?)
}
