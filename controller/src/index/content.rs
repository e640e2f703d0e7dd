//! The content of the condition that a Service shows: the verdict on its addresses, and the caveats.
//!
//! For people, the condition's message is one text. The index has to know which part of it is news, since each part is
//! reported by one Event. It remembers the parts, and does not read them out of the text: they count for as long as the
//! observed condition is exactly what they make. A new leader learns them from the first decision whose condition is the
//! observed one; if that condition has to change at once, each of its parts counts as news.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    action::ConditionValue,
    advisory::Advisory,
    view::{ServiceKey, ServiceView},
};

/// The parts of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// The condition without caveats.
    pub verdict: ConditionValue,
    /// The further facts, each a sentence of the message.
    pub caveats: Vec<Advisory>,
}

impl Content {
    /// Returns the condition, with a sentence for each caveat.
    pub(super) fn condition(&self) -> ConditionValue {
        let mut condition = self.verdict.clone();
        for caveat in &self.caveats {
            condition.message.push_str("; note: ");
            condition.message.push_str(&caveat.to_string());
        }
        condition
    }

    /// Returns whether the observed condition is this one.
    fn is(&self, observed: Option<&Condition>) -> bool {
        self.condition().is(observed)
    }
}

/// The contents with caveats that Services show or are about to show. (A content without caveats is its verdict, which
/// can be compared with the observed condition as a whole.)
#[derive(Debug, Default)]
pub(super) struct Contents(BTreeMap<ServiceKey, Vec<Content>>);

impl Contents {
    /// Takes the content that a Service is to show, and returns the content that it shows, if that is known.
    pub(super) fn replace(&mut self, view: &ServiceView, desired: &Content) -> Option<Content> {
        let observed = view.condition.as_ref();
        let mut known = self.0.remove(&view.key()).unwrap_or_default();
        known.retain(|content| content.is(observed));
        let shown = known.first().cloned();
        // The write of the desired content may fail, so the one that is shown stays until another is observed.
        if !desired.caveats.is_empty() && shown.as_ref() != Some(desired) {
            known.push(desired.clone());
        }
        if !known.is_empty() {
            self.0.insert(view.key(), known);
        }
        shown.or_else(|| {
            let plain = Content { verdict: desired.verdict.clone(), caveats: Vec::new() };
            plain.is(observed).then_some(plain)
        })
    }

    /// Forgets a Service that is gone.
    pub(super) fn forget(&mut self, service: &ServiceKey) {
        self.0.remove(service);
    }
}

#[cfg(test)]
mod tests {
    use herald_crds::{names::CONDITION_ADDRESS_ASSIGNED, service::Selection};
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
    use serde_json::json;

    use super::*;

    fn content(caveats: &[Advisory]) -> Content {
        let verdict = ConditionValue {
            type_: CONDITION_ADDRESS_ASSIGNED,
            status: "False",
            reason: "InvalidRequest".to_owned(),
            message: "m; note: n".to_owned(),
            generation: None,
            since: None,
        };
        Content { verdict, caveats: caveats.to_vec() }
    }

    fn shows(content: &Content) -> ServiceView {
        let service = json!({"metadata": {"namespace": "ns", "name": "web", "uid": "u", "resourceVersion": "1"}});
        let view = ServiceView::of(&serde_json::from_value(service).unwrap(), &Selection::default()).unwrap();
        ServiceView { condition: Some(content.condition().at(&Time(Timestamp::UNIX_EPOCH))), ..view }
    }

    #[test]
    fn content_is_known_once_it_was_decided_and_while_it_is_shown() {
        let label = "service.kubernetes.io/headless";
        let [one, two] = [vec![Advisory::LocalWithoutSelector], vec![Advisory::SkippedByKubeProxy { label }]];
        let [one, two] = [content(&one), content(&two)];
        let mut contents = Contents::default();
        assert_eq!(contents.replace(&shows(&one), &one), None, "a new leader finds it");
        assert_eq!(contents.replace(&shows(&one), &two), Some(one.clone()));
        assert_eq!(contents.replace(&shows(&one), &two), Some(one.clone()), "the write has failed");
        assert_eq!(contents.replace(&shows(&two), &two), Some(two.clone()));
        assert_eq!(contents.replace(&shows(&one), &two), None, "another program has put the former text back");
        assert_eq!(contents.0.values().map(Vec::len).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn content_without_caveats_needs_no_memory() {
        let (plain, noted) = (content(&[]), content(&[Advisory::LocalWithoutSelector]));
        let mut contents = Contents::default();
        assert_eq!(contents.replace(&shows(&plain), &noted), Some(plain.clone()));
        assert_eq!(contents.replace(&shows(&noted), &plain), Some(noted));
        assert_eq!(contents.replace(&shows(&plain), &plain), Some(plain));
        assert!(contents.0.is_empty());
    }
}
