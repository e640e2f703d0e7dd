//! Log lines about a lasting failure: an outage of an hour is one line in the log, and one more when it is over.

/// The last failure that was logged about one matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOnce(Option<String>);

impl LogOnce {
    /// Records a failure and returns whether it differs from the last one, so that the caller has to log it.
    pub fn is_new(&mut self, trouble: &str) -> bool {
        let new = self.0.as_deref() != Some(trouble);
        if new {
            self.0 = Some(trouble.to_owned());
        }
        new
    }

    /// Records a success and returns whether it ends a failure, so that the caller has to log the end.
    pub fn is_over(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_is_new_once_until_it_is_over() {
        let mut complaint = LogOnce::default();
        assert!(!complaint.is_over());
        let new: Vec<_> = ["403", "403", "404", "404", "403"].map(|trouble| complaint.is_new(trouble)).into();
        assert_eq!(new, [true, false, true, false, true]);
        assert!(complaint.is_over());
        assert!(!complaint.is_over());
        assert!(complaint.is_new("403"));
    }
}
