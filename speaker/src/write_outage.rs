//! The log of status writes that fail: one line when an outage begins, one when it is over. Pure.

use std::collections::BTreeSet;

use herald_telemetry::log_once::LogOnce;

use crate::status_queue::Key;

/// The objects whose last write failed, and the trouble that was logged of them.
#[derive(Debug, Default)]
pub struct WriteOutage {
    failing: BTreeSet<Key>,
    complaint: LogOnce,
}

impl WriteOutage {
    /// Records that a write failed. Returns whether that has to be logged: the first trouble of an outage, and each
    /// different one.
    pub fn failed(&mut self, object: &Key, trouble: &str) -> bool {
        self.failing.insert(object.clone());
        self.complaint.is_new(trouble)
    }

    /// Records that a write did not fail. Returns whether the outage is over with it, which has to be logged.
    pub fn settled(&mut self, object: &Key) -> bool {
        self.failing.remove(object);
        self.failing.is_empty() && self.complaint.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outage_of_many_objects_is_logged_once_and_so_is_its_end() {
        let vip = Key::Vip("192.0.2.1".to_owned());
        let mut outage = WriteOutage::default();
        assert!(!outage.settled(&vip));
        let logged: Vec<bool> =
            (0..10).flat_map(|_| [outage.failed(&Key::Speaker, "refused"), outage.failed(&vip, "refused")]).collect();
        assert_eq!(logged.iter().filter(|logged| **logged).count(), 1);
        assert!(outage.failed(&vip, "forbidden"), "another trouble");
        assert!(!outage.settled(&Key::Speaker), "the other object still fails");
        assert!(outage.settled(&vip));
        assert!(outage.failed(&vip, "forbidden"), "another outage");
    }
}
