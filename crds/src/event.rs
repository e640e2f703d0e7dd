//! Kubernetes Events in the form that the API server takes: the limits of `events.k8s.io/v1` are kept, however long the
//! message is.

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};

use crate::{names::GROUP, virtual_ip::ServiceReference};

/// The longest note, in bytes (k8s.io/kubernetes/pkg/apis/core/validation/events.go, NoteLengthLimit).
pub const NOTE_LIMIT: usize = 1024;

/// The longest name of a reporting instance, in bytes (same file, ReportingInstanceLengthLimit).
pub const INSTANCE_LIMIT: usize = 128;

/// The content of an Event.
#[derive(Clone, Debug)]
pub struct Report<'a> {
    /// Name of the Event object. An existing object is not created again.
    pub name: String,
    /// The object that the Event is about.
    pub regarding: ObjectReference,
    /// Whether the Event is a Warning.
    pub warning: bool,
    /// The reason, in one word.
    pub reason: &'a str,
    /// The action that was done or failed, in one word.
    pub action: &'a str,
    /// The sentence; a longer one than [`NOTE_LIMIT`] is cut.
    pub note: &'a str,
    /// The time of the event.
    pub at: MicroTime,
    /// The program that reports, without Herald's group.
    pub program: &'a str,
    /// The reporting instance of the program; a longer name than [`INSTANCE_LIMIT`] is cut.
    pub instance: &'a str,
}

impl From<Report<'_>> for Event {
    fn from(report: Report<'_>) -> Self {
        Self {
            metadata: ObjectMeta {
                name: Some(report.name),
                // Events about cluster-scoped objects live in `default` (client-go, tools/events, makeEvent).
                namespace: Some(report.regarding.namespace.clone().unwrap_or_else(|| "default".to_owned())),
                ..ObjectMeta::default()
            },
            action: Some(report.action.to_owned()),
            event_time: Some(report.at),
            note: Some(cut(report.note, NOTE_LIMIT)),
            reason: Some(report.reason.to_owned()),
            regarding: Some(report.regarding),
            reporting_controller: Some(format!("{GROUP}/{}", report.program)),
            reporting_instance: Some(cut(report.instance, INSTANCE_LIMIT)),
            type_: Some(if report.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Self::default()
        }
    }
}

/// Returns the reference to a Service for an Event.
pub fn about_service(service: &ServiceReference) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Service".to_owned()),
        namespace: Some(service.namespace.clone()),
        name: Some(service.name.clone()),
        uid: Some(service.uid.clone()),
        ..ObjectReference::default()
    }
}

/// Returns at most `limit` bytes of a text, in whole characters.
pub fn cut(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_cut_at_a_character() {
        let service = ServiceReference { namespace: "shop".to_owned(), name: "web".to_owned(), uid: "u".to_owned() };
        let report = Report {
            name: "web.1".to_owned(),
            regarding: about_service(&service),
            warning: true,
            reason: "R",
            action: "A",
            note: &format!("a{}", "ä".repeat(NOTE_LIMIT)),
            at: MicroTime("2026-01-02T03:04:05Z".parse().unwrap()),
            program: "herald-speaker",
            instance: &"n".repeat(253),
        };
        let event = Event::from(report);
        assert_eq!(event.note.unwrap().len(), NOTE_LIMIT - 1, "an ä is two bytes");
        assert_eq!(event.reporting_instance.unwrap().len(), INSTANCE_LIMIT);
        assert_eq!(event.reporting_controller.as_deref(), Some("heraldlb.io/herald-speaker"));
        assert_eq!((event.metadata.namespace.as_deref(), event.type_.as_deref()), (Some("shop"), Some("Warning")));
    }
}
