//! What a node knows of an object of the API.

use std::{ops::Deref, sync::Arc, time::Duration};

use crate::api_view::Vip;

/// The object, and since when the API names the announcer that it names.
#[derive(Clone, Debug)]
pub(super) struct Viewed {
    pub(super) vip: Arc<Vip>,
    pub(super) named: Duration,
}

impl Viewed {
    /// The object comes in place of what was known of it.
    pub(super) fn next(now: Duration, vip: Arc<Vip>, before: Option<&Self>) -> Self {
        let same = before.filter(|before| before.announced_by == vip.announced_by);
        Self { named: same.map_or(now, |before| before.named), vip }
    }
}

impl Deref for Viewed {
    type Target = Vip;

    fn deref(&self) -> &Vip {
        &self.vip
    }
}
