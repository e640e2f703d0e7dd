//! Carries decisions out. No judgement: one request per action, and its outcome as an input to the index.

pub(crate) mod patch;

use std::time::Duration;

use herald_crds::{AddressPool, VirtualIP, address::name_of_address, names::MANAGER_CONTROLLER};
use k8s_openapi::{
    api::{core::v1::Service, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};

use crate::{
    action::{Action, EventValue, Outcome},
    view::ServiceView,
};

/// A request that takes longer has failed. The API server bounds a mutation at 34 s (`requestTimeoutUpperBound` in
/// `endpoints/handlers`); waiting that long would only hold up the object's next decision.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Request(#[from] kube::Error),
    /// It did not answer in time.
    #[error("no answer within {} s", REQUEST_LIMIT.as_secs())]
    TimedOut,
    /// The body could not be written.
    #[error("the object cannot be written as JSON")]
    Body(#[from] serde_json::Error),
}

impl WriteError {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Request(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }
}

/// Writes to one API server.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    instance: String,
    default_provider: bool,
}

impl Writer {
    /// `instance` is told in events; `default_provider` is how written Services are read back.
    pub fn new(client: Client, instance: String, default_provider: bool) -> Self {
        Self { client, instance, default_provider }
    }

    /// Carries one action out.
    pub async fn write(&self, action: &Action) -> Outcome {
        let result = tokio::time::timeout(REQUEST_LIMIT, self.request(action)).await;
        let error = match result.unwrap_or(Err(WriteError::TimedOut)) {
            Ok(outcome) => return outcome,
            Err(error) => error,
        };
        match (error.code(), action) {
            (Some(404), Action::CreateVirtualIp { .. } | Action::Event(_)) => {}
            (Some(404), _) => return Outcome::Gone,
            // Decided on an old version, or another has the address: the watch brings what there is.
            (Some(409), _) => tracing::debug!(?action, %error, "decided on what is no more; decided again"),
            _ => {}
        }
        match action.subject() {
            None => tracing::warn!(?action, %error, "an event is lost"),
            Some(_) if error.code() == Some(409) => {}
            Some(subject) => tracing::warn!(?subject, %error, "a write failed and is tried again"),
        }
        Outcome::Failed
    }

    async fn request(&self, action: &Action) -> Result<Outcome, WriteError> {
        let now = Time(Timestamp::now());
        let vips = || Api::<VirtualIP>::all(self.client.clone());
        let params = PatchParams { field_manager: Some(MANAGER_CONTROLLER.to_owned()), ..PatchParams::default() };
        let post = PostParams { field_manager: Some(MANAGER_CONTROLLER.to_owned()), ..PostParams::default() };
        let written = |vip| Outcome::VirtualIp(Box::new(vip));
        match action {
            Action::CreateVirtualIp { address, labels, spec } => {
                let vip = patch::virtual_ip(*address, labels.clone(), (**spec).clone());
                Ok(written(vips().create(&post, &vip).await?))
            }
            Action::UpdateVirtualIpSpec { address, resource_version, labels, spec } => {
                let body = patch::virtual_ip_spec(spec, labels, resource_version)?;
                Ok(written(vips().patch(&name_of_address(*address), &params, &Patch::Merge(body)).await?))
            }
            Action::DeleteVirtualIp { address, uid } => {
                let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
                let delete = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                let deleted = vips().delete(&name_of_address(*address), &delete).await?;
                Ok(deleted.left().map_or(Outcome::Done, written))
            }
            Action::RemoveVirtualIpFinalizer { address, resource_version, remaining } => {
                let body = patch::virtual_ip_finalizers(remaining, resource_version);
                Ok(written(vips().patch(&name_of_address(*address), &params, &Patch::Merge(body)).await?))
            }
            Action::CorrectVirtualIpStatus { address, resource_version, condition, .. } => {
                let body = patch::virtual_ip_status(condition, resource_version, &now);
                Ok(written(vips().patch_status(&name_of_address(*address), &params, &Patch::Merge(body)).await?))
            }
            Action::PatchServiceStatus { service, resource_version, patch, .. } => {
                let services = Api::<Service>::namespaced(self.client.clone(), &service.namespace);
                let body = patch::service(patch, resource_version, &service.uid, &now);
                let written = services.patch_status(&service.name, &params, &Patch::Strategic(body)).await?;
                let view = ServiceView::of(&written, self.default_provider);
                Ok(view.map_or(Outcome::Done, |view| Outcome::Service(Box::new(view))))
            }
            Action::PatchPoolStatus { pool, resource_version, report } => {
                let pools = Api::<AddressPool>::all(self.client.clone());
                let body = patch::pool_status(report, resource_version, &now);
                Ok(Outcome::Pool(Box::new(pools.patch_status(pool, &params, &Patch::Merge(body)).await?)))
            }
            Action::Event(value) => {
                self.post(value, &post).await?;
                Ok(Outcome::Done)
            }
        }
    }

    /// An event is told once; one the API server does not take is lost, as with every recorder, and logged.
    async fn post(&self, value: &EventValue, post: &PostParams) -> Result<(), kube::Error> {
        let event = patch::event(value, &self.instance, MicroTime(Timestamp::now()));
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        Api::<Event>::namespaced(self.client.clone(), &namespace).create(post, &event).await?;
        Ok(())
    }
}
