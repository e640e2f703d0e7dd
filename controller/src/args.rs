//! Flags and environment.

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use herald_telemetry::{http::Listen, log::LogArgs};

use crate::index::FORGET_SPEAKERS_AFTER;

/// Default address of metrics and health: next to the speaker's 7475, so that both fit on one host.
const DEFAULT_LISTEN: &str = "[::]:7476";

/// Assigns addresses to Services of type LoadBalancer.
///
/// The API server is found as kubectl finds it ($KUBECONFIG, ~/.kube/config), or by the pod's service account.
#[derive(Clone, Debug, Parser)]
#[command(name = "herald-controller", version)]
pub struct Args {
    /// Command to run instead of the controller.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Serve Services without spec.loadBalancerClass too. Set it where no other provider does.
    #[arg(long, env = "HERALD_DEFAULT_PROVIDER", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub default_provider: bool,

    /// Let nodes with the label node.kubernetes.io/exclude-from-external-load-balancers announce too. The speakers have
    /// the same setting: the manifests give both the key includeExcludedNodes of the ConfigMap herald.
    #[arg(long, env = "HERALD_INCLUDE_EXCLUDED_NODES", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub include_excluded_nodes: bool,

    /// Serve Services of these values of spec.loadBalancerClass too, separated by commas: the class of a Service cannot
    /// be changed, so the Services of a provider that Herald replaces keep theirs.
    #[arg(long, env = "HERALD_LB_CLASS", value_delimiter = ',', value_name = "CLASSES")]
    pub lb_class: Vec<String>,

    /// Give the Services that Gateway implementations create (label gateway.networking.k8s.io/gateway-name) the
    /// addresses that spec.addresses of their Gateways ask for. It needs the ClusterRole of
    /// deploy/herald-gateway-addresses.yaml, which also sets this.
    #[arg(long, env = "HERALD_GATEWAY_ADDRESSES", default_value_t = false, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub gateway_addresses: bool,

    /// Namespace of the Lease, of the cluster's key and of the speakers' pods: the one Herald runs in.
    #[arg(long, env = "HERALD_NAMESPACE", default_value = "herald-system")]
    pub namespace: String,

    /// Name of the Lease.
    #[arg(long, env = "HERALD_LEASE_NAME", default_value = "herald-controller")]
    pub lease_name: String,

    /// Name of this replica, unique among them: the pod's name.
    #[arg(long, env = "HERALD_IDENTITY")]
    pub identity: Option<String>,

    /// Delete the SpeakerStatus of a node that has had no speaker pod for this number of seconds, at least 5: the node
    /// is then no longer a candidate for addresses.
    #[arg(long, env = "HERALD_FORGET_SPEAKERS_AFTER", default_value_t = FORGET_SPEAKERS_AFTER.as_secs(), value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(5..))]
    pub forget_speakers_after: u64,

    /// Address that serves metrics, health and the log's filter, as address:port; empty: no server.
    #[arg(long, env = "HERALD_METRICS_LISTEN", default_value = DEFAULT_LISTEN)]
    pub metrics_listen: Listen,

    /// The log.
    #[command(flatten, next_help_heading = "Log")]
    pub log: LogArgs,
}

impl Args {
    /// Reads the command line of this process, which is of this version. Ends the process with a message if the line is
    /// invalid or asks for help or the version.
    #[must_use]
    pub fn read(version: &'static str) -> Self {
        let matches = Self::command().version(version).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// A command that the program executes once, instead of running.
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
    fn flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test_case(&[], false)]
    #[test_case(&["--default-provider"], true)]
    #[test_case(&["--default-provider=true"], true)]
    #[test_case(&["--default-provider=false"], false)]
    fn default_provider_flag_takes_an_optional_value(flags: &[&str], expected: bool) {
        let args = Args::parse_from(["herald-controller", "--identity", "pod"].iter().chain(flags));
        assert_eq!(args.default_provider, expected);
    }

    #[test_case(&[] => Vec::<String>::new())]
    #[test_case(&["--lb-class", "metallb.io/metallb,kube-vip.io/kube-vip-class"] => vec!["metallb.io/metallb", "kube-vip.io/kube-vip-class"])]
    fn classes_are_separated_by_commas(flags: &[&str]) -> Vec<String> {
        Args::parse_from(["herald-controller", "--identity", "pod"].iter().chain(flags)).lb_class
    }

    #[test_case("3600", true)]
    #[test_case("5", true)]
    #[test_case("4", false; "shorter than a roll-out of a pod")]
    #[test_case("1h", false; "not in seconds")]
    fn forget_speakers_after_is_bounded(given: &str, accepted: bool) {
        let args = Args::try_parse_from(["herald-controller", "--forget-speakers-after", given]);
        assert_eq!(args.is_ok(), accepted);
    }
}
