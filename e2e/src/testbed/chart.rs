//! The Helm chart, and the golden files: what it makes of some values.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::install;
use super::manifests::{chart, deploy};
use herald_lab::binaries;
use herald_lab::progress::Progress;

/// The name of the release.
pub(crate) const RELEASE: &str = "herald";

/// The chart's objects for a file of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Golden {
    /// The name of the golden file, without its ending.
    name: &'static str,
    /// The file of values, below `deploy/helm`; none for the default values.
    values: Option<&'static str>,
}

impl Golden {
    /// All golden files.
    pub(crate) const ALL: [Self; 4] = [
        Self { name: "default", values: None },
        Self { name: "k3s", values: Some("herald/values-k3s.yaml") },
        Self { name: "kind", values: Some("herald/values-kind.yaml") },
        Self { name: "all-values", values: Some("golden/all-values.values.yaml") },
    ];

    /// Returns the golden file.
    pub(crate) fn file(&self) -> PathBuf {
        deploy().join("helm/golden").join(format!("{}.yaml", self.name))
    }

    /// Returns Helm's arguments for the values.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let file = |values| deploy().join("helm").join(values).to_string_lossy().into_owned();
        self.values.map(|values| vec!["--values".to_owned(), file(values)]).unwrap_or_default()
    }
}

/// Helm without a cluster.
pub(crate) struct Helm {
    program: PathBuf,
    /// The directory in which Helm keeps what a user has at home.
    home: TempDir,
}

impl Helm {
    /// Returns Helm, which is built if it is not in the cache.
    ///
    /// # Errors
    /// When the build fails.
    pub(crate) fn new(progress: &Progress) -> Result<Self> {
        let home = tempfile::tempdir().context("making a directory for Helm")?;
        Ok(Self { program: binaries::helm(progress)?, home })
    }

    /// Returns the path of the program.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a command that starts Helm, and returns what Helm printed.
    ///
    /// # Errors
    /// When it cannot be started or fails; the error contains its output.
    pub(crate) fn run(&self, mut command: Command, arguments: &[&str]) -> Result<String> {
        for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(variable, self.home.path());
        }
        let output = command.args(arguments).output().context("starting helm")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm {}: {errors}{said}", arguments.join(" "));
        Ok(said)
    }

    /// Returns the objects that the chart makes with these arguments, as YAML.
    ///
    /// # Errors
    /// When Helm refuses them.
    pub(crate) fn template(&self, arguments: &[&str]) -> Result<String> {
        let chart = chart();
        let mut all = vec!["template", RELEASE, chart.to_str().context("the chart's path")?, "-n", install::NAMESPACE];
        all.extend(arguments);
        self.run(Command::new(&self.program), &all)
    }

    /// Checks the chart with these arguments; a warning counts as an error.
    ///
    /// # Errors
    /// When Helm finds something.
    pub(crate) fn lint(&self, arguments: &[&str]) -> Result<()> {
        let chart = chart();
        let mut all = vec!["lint", "--strict", chart.to_str().context("the chart's path")?];
        all.extend(arguments);
        self.run(Command::new(&self.program), &all).map(drop)
    }
}

/// Writes the golden files.
///
/// # Errors
/// When Helm cannot be built or refuses the chart, or a file cannot be written.
pub fn write_golden(progress: &Progress) -> Result<()> {
    let helm = Helm::new(progress)?;
    for golden in Golden::ALL {
        let arguments = golden.arguments();
        let made = helm.template(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        let file = golden.file();
        std::fs::write(&file, made).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// Checks the chart with the values of each golden file, and that its objects are those in the file.
///
/// # Errors
/// When Helm refuses the chart or the values, or an object differs.
pub(crate) fn is_golden(helm: &Helm) -> Result<()> {
    for golden in Golden::ALL {
        let arguments = golden.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        helm.lint(&arguments).with_context(|| golden.name)?;
        let made = helm.template(&arguments)?;
        let file = golden.file();
        let expected = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let differs = made.lines().zip(expected.lines()).position(|(made, expected)| made != expected);
        let line = differs.unwrap_or_else(|| made.lines().count().min(expected.lines().count())) + 1;
        ensure!(
            made == expected,
            "the chart makes something else than deploy/helm/golden/{}.yaml from line {line} on; `make golden` writes \
             the file, read the difference",
            golden.name
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn values(file: &str) -> Value {
        serde_saphyr::from_str(&std::fs::read_to_string(deploy().join("helm").join(file)).unwrap()).unwrap()
    }

    /// Returns the paths of values that are missing or equal. A list, or a map that is empty by default or that users
    /// replace as a whole, is one value.
    fn not_set(path: &str, default: &Value, set: &Value) -> Vec<String> {
        let (Some(defaults), Some(values)) = (default.as_object(), set.as_object()) else {
            return if default == set || set.is_null() { vec![path.to_owned()] } else { Vec::new() };
        };
        if defaults.is_empty() {
            return if values.is_empty() { vec![path.to_owned()] } else { Vec::new() };
        }
        if ["nodeSelector", "affinity", "podAnnotations"].iter().any(|name| path.ends_with(name)) {
            return if default == set { vec![path.to_owned()] } else { Vec::new() };
        }
        defaults.iter().flat_map(|(name, default)| not_set(&format!("{path}.{name}"), default, &set[name])).collect()
    }

    #[test]
    fn golden_file_of_all_values_sets_each_value() {
        let (default, set) = (values("herald/values.yaml"), values("golden/all-values.values.yaml"));
        let missing: Vec<String> = default
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(name, default)| not_set(name, default, &set[name]))
            .collect();
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn value_that_is_missing_or_as_by_default_is_noticed() {
        let default = serde_json::json!({"a": 1, "b": {"c": [], "d": {}}});
        assert_eq!(not_set("v", &default, &serde_json::json!({"a": 2, "b": {"c": [1], "d": {"x": 1}}})).len(), 0);
        let same = serde_json::json!({"a": 1, "b": {"c": []}});
        assert_eq!(not_set("v", &default, &same), ["v.a", "v.b.c", "v.b.d"]);
    }
}
