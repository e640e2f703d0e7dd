//! Flags and environment.

use clap::Parser;
use herald_segment::announce::DEFAULT_RATE;

/// Answers on the wire for the addresses of its node.
///
/// The API server is found as kubectl finds it ($KUBECONFIG, ~/.kube/config), or by the pod's service account.
#[derive(Clone, Debug, Parser)]
#[command(name = "herald-speaker", version, about)]
pub struct Args {
    /// The node it runs on, as the API knows it.
    #[arg(long, env = "NODE_NAME")]
    pub node_name: String,

    /// Announce from nodes with the label node.kubernetes.io/exclude-from-external-load-balancers too. Set it on all
    /// speakers or on none.
    #[arg(long, env = "HERALD_INCLUDE_EXCLUDED_NODES", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub include_excluded_nodes: bool,

    /// Repeated announcements per second on each interface. Switches with dynamic ARP inspection allow 15.
    #[arg(long, env = "HERALD_ANNOUNCE_RATE", default_value_t = DEFAULT_RATE, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub announce_rate: u32,

    /// Log filter, as `tracing_subscriber::EnvFilter` reads it.
    #[arg(long, env = "HERALD_LOG", default_value = "info")]
    pub log: String,

    /// Log lines of JSON.
    #[arg(long, env = "HERALD_LOG_JSON", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub log_json: bool,
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

    #[test_case(&[], Some((false, 500)))]
    #[test_case(&["--include-excluded-nodes"], Some((true, 500)))]
    #[test_case(&["--include-excluded-nodes=false", "--announce-rate=15"], Some((false, 15)))]
    #[test_case(&["--announce-rate=0"], None)]
    fn are_read(flags: &[&str], expected: Option<(bool, u32)>) {
        let args = Args::try_parse_from(["herald-speaker", "--node-name", "a"].iter().chain(flags));
        assert_eq!(args.ok().map(|a| (a.include_excluded_nodes, a.announce_rate)), expected);
    }
}
