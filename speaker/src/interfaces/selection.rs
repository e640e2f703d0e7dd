//! People's settings for the interfaces of a node.

use std::collections::BTreeMap;

use herald_crds::{
    advertisement::{InterfacePattern, InterfacePatterns, UnreadablePattern, chooses_interface},
    names::ANNOTATION_INTERFACES,
    selector,
    speaker_status::{SpeakerWarning, WarningKind},
    virtual_ip::AdvertisementRule,
};

/// The interfaces of this node that people want, and those that they do not want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The setting that is in force.
    pub setting: Setting,
    /// `spec.interfaces` of the L2Advertisements that bear on this node, where they name interfaces.
    pub advertised: Vec<Vec<InterfacePattern>>,
    /// The patterns of the Node's annotation that cannot be read.
    pub unreadable: Vec<UnreadablePattern>,
}

/// The settings of a Node for its interfaces.
#[derive(Clone, Copy, Debug)]
pub struct NodeInterfaces<'a> {
    /// The Node's name.
    pub name: &'a str,
    /// The Node's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The text of the Node's annotation `heraldlb.io/interfaces`.
    pub annotation: Option<&'a str>,
}

/// The interfaces that a setting chooses; without patterns, the nature of a link alone decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// The patterns.
    pub patterns: Vec<InterfacePattern>,
    /// The Node with the annotation that makes the setting; `None`: the flag makes it.
    pub node: Option<String>,
}

/// The part of a setting about one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Take the interface, whatever its name is.
    Named,
    /// Leave the interface alone.
    Excluded,
    /// Decide by the nature of the link.
    Unsaid,
}

impl Selection {
    /// Puts together the flag, the annotation of this node's Node, which wins over the flag, and the rules by which
    /// L2Advertisements reach the node.
    pub fn new<'a>(
        flag: &[InterfacePattern],
        node: Option<NodeInterfaces<'_>>,
        rules: impl IntoIterator<Item = &'a AdvertisementRule>,
    ) -> Self {
        let bears = |rule: &&AdvertisementRule| {
            let Some(node) = node else { return false };
            // A selector that cannot be read chooses no node.
            selector::any_matches(&rule.node_selectors, node.labels).unwrap_or(false)
        };
        let mut advertised: Vec<_> = rules.into_iter().filter(bears).filter_map(explicit).collect();
        // The rules are sorted, so that the same rules make the same selection.
        advertised.sort_by(|a, b| a.iter().map(|p| &p.0).cmp(b.iter().map(|p| &p.0)));
        advertised.dedup();
        let annotation = node.and_then(|node| Some((node.name, node.annotation?)));
        let (setting, unreadable) = match annotation {
            Some((node, text)) => {
                let (InterfacePatterns(patterns), unreadable) = InterfacePatterns::read(text);
                (Setting { patterns, node: Some(node.to_owned()) }, unreadable)
            }
            None => (Setting { patterns: flag.to_vec(), node: None }, Vec::new()),
        };
        Self { setting, advertised, unreadable }
    }

    /// Returns the wish for an interface. The setting stands above the L2Advertisements: an interface that it excludes
    /// gets no socket.
    pub(super) fn wish(&self, name: &str) -> Wish {
        let patterns = &self.setting.patterns;
        if !chooses_interface(patterns, name) {
            Wish::Excluded
        } else if is_named(patterns, name) || self.advertised.iter().any(|patterns| is_named(patterns, name)) {
            Wish::Named
        } else {
            Wish::Unsaid
        }
    }

    /// Returns whether a setting or an L2Advertisement names the interface.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.wish(name) == Wish::Named
    }

    /// Returns the warning that stands while the annotation cannot be read in full.
    pub fn warning(&self) -> Option<SpeakerWarning> {
        let (first, node) = (self.unreadable.first()?, self.setting.node.as_ref()?);
        let others = match self.unreadable.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        Some(SpeakerWarning {
            kind: WarningKind::InterfaceSetting,
            message: format!(
                "Node {node}: metadata.annotations[{ANNOTATION_INTERFACES}]: {first}{others}; it is left out, and the \
                 other patterns are in force: write for example kubectl annotate node {node} --overwrite \
                 {ANNOTATION_INTERFACES}='eth*,!eth9'"
            ),
        })
    }
}

impl Setting {
    /// Returns where the setting is, for a person who wants to change it.
    pub(super) fn place(&self) -> String {
        match &self.node {
            Some(node) => format!("the annotation {ANNOTATION_INTERFACES} of Node {node}"),
            None => "the speakers' flag --interfaces (HERALD_INTERFACES)".to_owned(),
        }
    }
}

/// Returns the patterns of a rule, if they name interfaces.
fn explicit(rule: &AdvertisementRule) -> Option<Vec<InterfacePattern>> {
    names_explicitly(&rule.interfaces).then(|| rule.interfaces.clone())
}

/// Returns whether patterns name interfaces, rather than only excluding some or choosing all.
pub fn names_explicitly(patterns: &[InterfacePattern]) -> bool {
    patterns.iter().any(is_explicit)
}

/// Returns whether an interface is named by one of the patterns and excluded by none.
fn is_named(patterns: &[InterfacePattern], name: &str) -> bool {
    let explicit: Vec<_> = patterns.iter().filter(|p| p.0.starts_with('!') || is_explicit(p)).cloned().collect();
    names_explicitly(&explicit) && chooses_interface(&explicit, name)
}

/// Returns whether a pattern names interfaces. `*` alone does not: it means every interface that qualifies by its kind,
/// and not the bridges of containers.
fn is_explicit(InterfacePattern(pattern): &InterfacePattern) -> bool {
    !pattern.starts_with('!') && pattern.bytes().any(|byte| !matches!(byte, b'*' | b'?'))
}

#[cfg(test)]
mod tests {
    use test_case::test_case;

    use super::*;
    use crate::{api_objects::Node, rank::tests::node};

    fn patterns(patterns: &str) -> Vec<InterfacePattern> {
        patterns.parse::<InterfacePatterns>().unwrap().0
    }

    fn rule(interfaces: &str) -> AdvertisementRule {
        AdvertisementRule { interfaces: patterns(interfaces), ..AdvertisementRule::everywhere() }
    }

    #[test_case("", "", "eth0" => Wish::Unsaid)]
    #[test_case("eth0", "", "eth0" => Wish::Named)]
    #[test_case("eth*", "", "br-lan" => Wish::Excluded)]
    #[test_case("!eth9", "", "eth9" => Wish::Excluded)]
    #[test_case("!eth9", "", "docker0" => Wish::Unsaid; "an exclusion names no other")]
    #[test_case("*", "", "docker0" => Wish::Unsaid; "a wildcard alone names nothing")]
    #[test_case("*,!eth9", "", "eth9" => Wish::Excluded)]
    #[test_case("", "br-lan", "br-lan" => Wish::Named; "by an advertisement")]
    #[test_case("", "br-*,!br-lan", "br-lan" => Wish::Unsaid; "an advertisement excludes for its own addresses only")]
    #[test_case("", "!eth9", "eth9" => Wish::Unsaid)]
    #[test_case("eth0", "br-lan", "br-lan" => Wish::Excluded; "the setting stands above an advertisement")]
    fn setting_and_advertisements_make_the_wish(setting: &str, advertised: &str, name: &str) -> Wish {
        Selection::new(&patterns(setting), Some(node("a").interface_settings()), [&rule(advertised)]).wish(name)
    }

    #[test]
    fn annotation_wins_over_the_flag_even_if_it_is_empty() {
        let flag = patterns("eth0");
        let annotated = |text: &str| Node { interfaces: Some(text.to_owned()), ..node("a") };
        let of = |node: &Node| Selection::new(&flag, Some(node.interface_settings()), []).setting;
        assert_eq!(of(&node("a")), Setting { patterns: flag.clone(), node: None });
        assert_eq!(of(&annotated("eth1")), Setting { patterns: patterns("eth1"), node: Some("a".to_owned()) });
        assert_eq!(of(&annotated("")), Setting { patterns: vec![], node: Some("a".to_owned()) });
    }

    #[test]
    fn unreadable_pattern_is_left_out_with_a_warning_that_names_object_field_and_value() {
        let node = Node { interfaces: Some("eth0, e/th1,!!x".to_owned()), ..node("a") };
        let selection = Selection::new(&[], Some(node.interface_settings()), []);
        assert_eq!(selection.setting.patterns, patterns("eth0"));
        let warning = selection.warning().unwrap();
        assert_eq!(warning.kind, WarningKind::InterfaceSetting);
        for part in ["Node a", "heraldlb.io/interfaces", "\"e/th1\"", "and 1 more", "kubectl annotate node a"] {
            assert!(warning.message.contains(part), "{}", warning.message);
        }
        assert_eq!(Selection::default().warning(), None);
    }

    #[test]
    fn rule_for_other_nodes_does_not_count_here() {
        let elsewhere = AdvertisementRule {
            node_selectors: vec![serde_json::from_value(serde_json::json!({"matchLabels": {"rack": "b"}})).unwrap()],
            ..rule("br-lan")
        };
        assert_eq!(
            Selection::new(&[], Some(node("a").interface_settings()), [&elsewhere]).advertised,
            Vec::<Vec<_>>::new()
        );
        assert_eq!(Selection::new(&[], None, [&rule("br-lan")]).advertised, Vec::<Vec<_>>::new());
    }
}
