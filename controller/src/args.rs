//! Flags and environment.

use clap::{Parser, Subcommand};

/// Assigns addresses to Services of type LoadBalancer.
#[derive(Clone, Debug, Parser)]
#[command(name = "herald-controller", version, about)]
pub struct Args {
    /// What else to do than to run.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Serve Services without spec.loadBalancerClass too. Set it where no other provider does.
    #[arg(long, env = "HERALD_DEFAULT_PROVIDER", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub default_provider: bool,

    /// Namespace of the Lease: the one Herald runs in.
    #[arg(long, env = "HERALD_NAMESPACE", default_value = "herald-system")]
    pub namespace: String,

    /// Name of the Lease.
    #[arg(long, env = "HERALD_LEASE_NAME", default_value = "herald-controller")]
    pub lease_name: String,

    /// Name of this replica, unique among them: the pod's name.
    #[arg(long, env = "HERALD_IDENTITY")]
    pub identity: Option<String>,

    /// Log filter, as `tracing_subscriber::EnvFilter` reads it.
    #[arg(long, env = "HERALD_LOG", default_value = "info")]
    pub log: String,

    /// Log lines of JSON.
    #[arg(long, env = "HERALD_LOG_JSON", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub log_json: bool,
}

/// What the program does once, instead of running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Stop Herald's programs, release every Service, remove every VirtualIP.
    Uninstall,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use test_case::test_case;

    use super::*;

    #[test]
    fn are_consistent() {
        Args::command().debug_assert();
    }

    #[test_case(&[], false)]
    #[test_case(&["--default-provider"], true)]
    #[test_case(&["--default-provider=true"], true)]
    #[test_case(&["--default-provider=false"], false)]
    fn default_provider(flags: &[&str], expected: bool) {
        let args = Args::parse_from(["herald-controller", "--identity", "pod"].iter().chain(flags));
        assert_eq!(args.default_provider, expected);
    }
}
