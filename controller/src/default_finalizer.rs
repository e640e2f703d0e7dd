//! Upstream's finalizer on a Service: the program that put it there.

use herald_crds::names::{FINALIZER_SERVICE_DEFAULT, MANAGER_CONTROLLER};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

/// Returns whether Herald put upstream's finalizer on the Service. A cloud controller manager puts the same one on
/// Services without a class, and leaks the objects it made for them if another program removes the finalizer
/// (`service/controller.go`, it has no DeleteFunc). Only the finalizer outlives a change of type, which wipes status
/// and class.
pub(crate) fn put_by_us(meta: &ObjectMeta) -> bool {
    default_finalizer_by(meta).any(|manager| manager == MANAGER_CONTROLLER)
}

/// Returns the field managers that put upstream's finalizer on the object, by the API server's own record of the owners
/// of list entries.
pub(crate) fn default_finalizer_by(meta: &ObjectMeta) -> impl Iterator<Item = &str> {
    let entry = format!("v:\"{FINALIZER_SERVICE_DEFAULT}\"");
    let owns = move |fields: &&ManagedFieldsEntry| {
        fields.fields_v1.as_ref().and_then(|f| f.0.get("f:metadata")?.get("f:finalizers")?.get(&entry)).is_some()
    };
    meta.managed_fields.iter().flatten().filter(owns).filter_map(|fields| fields.manager.as_deref())
}
