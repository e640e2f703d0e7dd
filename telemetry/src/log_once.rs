//! What is wrong, said once: an outage of an hour is one line in the log, and one more when it is over.

/// The last thing said about one matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOnce(Option<String>);

impl LogOnce {
    /// Is this another trouble than the last one? Then it is to be said.
    pub fn is_new(&mut self, trouble: &str) -> bool {
        let new = self.0.as_deref() != Some(trouble);
        if new {
            self.0 = Some(trouble.to_owned());
        }
        new
    }

    /// All is well. Was it not before? Then that is to be said.
    pub fn is_over(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_is_said_once_until_it_is_over() {
        let mut complaint = LogOnce::default();
        assert!(!complaint.is_over());
        let new: Vec<_> = ["403", "403", "404", "404", "403"].map(|trouble| complaint.is_new(trouble)).into();
        assert_eq!(new, [true, false, true, false, true]);
        assert!(complaint.is_over());
        assert!(!complaint.is_over());
        assert!(complaint.is_new("403"));
    }
}
