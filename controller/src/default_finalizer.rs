//! Upstream's finalizer on a Service: which program put it there.

use herald_crds::names::{FINALIZER_SERVICE_DEFAULT, MANAGER_CONTROLLER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

/// Returns whether Herald put upstream's finalizer there. A cloud controller manager puts the same one on Services without
/// a class, and leaks what it made for them if another program takes it away (`service/controller.go`, it has no
/// DeleteFunc). Nothing else outlives a change of type, which wipes status and class.
pub(crate) fn put_by_us(meta: &ObjectMeta) -> bool {
    default_finalizer_by(meta).any(|manager| manager == MANAGER_CONTROLLER)
}

/// Who put upstream's finalizer there, by the API server's own record of who owns the list entry.
pub(crate) fn default_finalizer_by(meta: &ObjectMeta) -> impl Iterator<Item = &str> {
    let entry = format!("v:\"{FINALIZER_SERVICE_DEFAULT}\"");
    let owns = move |fields: &&ManagedFieldsEntry| {
        fields.fields_v1.as_ref().and_then(|f| f.0.get("f:metadata")?.get("f:finalizers")?.get(&entry)).is_some()
    };
    meta.managed_fields.iter().flatten().filter(owns).filter_map(|fields| fields.manager.as_deref())
}
