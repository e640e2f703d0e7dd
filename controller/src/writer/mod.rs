//! The writer: it carries decisions out, with one request per action, and returns the outcome as an input to the index.
//! It makes no decisions.

pub mod breaker;
pub mod dispatch;
pub(crate) mod patch;

use std::time::Duration;

use herald_crds::{
    AddressPool, L2Advertisement, SpeakerStatus, VirtualIP,
    address::name_of_address,
    event::{NOTE_LIMIT, cut},
    names::MANAGER_CONTROLLER,
    service::Selection,
};
use k8s_openapi::{
    api::{core::v1::Service, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use tokio::time::timeout;

use self::breaker::Signal;
use crate::{
    action::{Action, EventValue, Outcome},
    view::ServiceView,
};

/// Timeout of a request. The API server bounds a mutation at 34 s (`requestTimeoutUpperBound` in `endpoints/handlers`);
/// a timeout of that length would only hold up the object's next decision.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The reason why a write failed.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Request(#[from] kube::Error),
    /// The API server did not answer in time.
    #[error("no answer within {} s", REQUEST_LIMIT.as_secs())]
    TimedOut,
    /// The body could not be written.
    #[error("the object cannot be written as JSON")]
    Body(#[from] serde_json::Error),
}

/// The kind of a failure: the next step depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The write was decided on an old version, or another object has the address (409). The watch brings the present
    /// object.
    Conflict,
    /// Too many requests (429).
    Throttled {
        /// The pause that the API server asks for, if any.
        retry_after: Option<Duration>,
    },
    /// The API server, or a proxy before it, is starting, stopping or without its store (502, 503, 504), or does not
    /// know this program (401): no other write would succeed.
    Unavailable {
        /// The pause that it asks for, if any.
        retry_after: Option<Duration>,
    },
    /// The API server did not answer in time.
    TimedOut,
    /// The API server could not be reached, or broke off.
    Unreachable,
    /// The API server failed at this object (500): a webhook, or its store at this moment.
    Server,
    /// The API server refuses this object (any other code).
    Refused {
        /// The HTTP status of its answer.
        code: u16,
    },
}

impl Failure {
    /// Returns the label of the failure in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Throttled { .. } => "throttled",
            Self::Unavailable { .. } => "unavailable",
            Self::TimedOut => "timeout",
            Self::Unreachable => "unreachable",
            Self::Server => "server_error",
            Self::Refused { .. } => "refused",
        }
    }

    /// Returns the state of the API server that the failure shows. A code that is about one object shows that it
    /// answers.
    pub fn signal(self) -> Signal {
        match self {
            Self::Throttled { retry_after } | Self::Unavailable { retry_after } => Signal::Unavailable { retry_after },
            Self::TimedOut | Self::Unreachable => Signal::Unavailable { retry_after: None },
            Self::Conflict | Self::Server | Self::Refused { .. } => Signal::Answers,
        }
    }

    /// Returns the outcome for the index, with the sentence of the API server.
    pub fn outcome(self, sentence: &str) -> Outcome {
        match (self.signal(), self) {
            (Signal::Answers, Self::Refused { code }) => Outcome::Refused { code, sentence: sentence.to_owned() },
            (Signal::Answers, _) => Outcome::Failed,
            (Signal::Unavailable { .. }, _) => Outcome::Unavailable,
        }
    }
}

impl WriteError {
    fn failure(&self) -> Failure {
        let status = match self {
            Self::Request(kube::Error::Api(status)) => status,
            Self::Request(_) => return Failure::Unreachable,
            Self::TimedOut => return Failure::TimedOut,
            Self::Body(_) => return Failure::Refused { code: 400 },
        };
        // The API server repeats the Retry-After header in the body.
        let retry_after = status.details.as_ref().map(|d| d.retry_after_seconds).filter(|seconds| *seconds > 0);
        let retry_after = retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        match status.code {
            409 => Failure::Conflict,
            429 => Failure::Throttled { retry_after },
            401 | 502..=504 => Failure::Unavailable { retry_after },
            500.. => Failure::Server,
            code => Failure::Refused { code },
        }
    }

    /// Returns the sentence of the API server, else that of the error. A webhook's may have any length.
    fn sentence(&self) -> String {
        match self {
            Self::Request(kube::Error::Api(status)) if !status.message.is_empty() => cut(&status.message, NOTE_LIMIT),
            _ => cut(&self.to_string(), NOTE_LIMIT),
        }
    }

    fn is_not_found(&self) -> bool {
        matches!(self, Self::Request(kube::Error::Api(status)) if status.code == 404)
    }
}

/// The result of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// The outcome for the index.
    pub outcome: Outcome,
    /// The failure and its sentence.
    pub failure: Option<(Failure, String)>,
}

/// Writes to one API server.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    instance: String,
    selection: Selection,
}

impl Writer {
    /// Returns a writer. `instance` is named in events; `selection` serves to read written Services back.
    pub fn new(client: Client, instance: String, selection: Selection) -> Self {
        Self { client, instance, selection }
    }

    /// Carries one action out.
    pub async fn write(&self, action: &Action) -> Written {
        let result = timeout(REQUEST_LIMIT, self.request(action)).await;
        let error = match result.unwrap_or(Err(WriteError::TimedOut)) {
            Ok(outcome) => return Written { outcome, failure: None },
            Err(error) => error,
        };
        // The parts that the write would have removed are gone with the object.
        let gone = error.is_not_found() && !matches!(action, Action::CreateVirtualIp { .. } | Action::Event(_));
        if gone {
            return Written { outcome: Outcome::Gone, failure: None };
        }
        let failure = error.failure();
        let sentence = error.sentence();
        Written { outcome: failure.outcome(&sentence), failure: Some((failure, sentence)) }
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
            Action::DeleteVirtualIp { address, uid, .. } => {
                let deleted = vips().delete(&name_of_address(*address), &delete_this(uid)).await?;
                Ok(deleted.left().map_or(Outcome::Done, written))
            }
            Action::DeleteSpeakerStatus { node, uid } => {
                Api::<SpeakerStatus>::all(self.client.clone()).delete(node, &delete_this(uid)).await?;
                Ok(Outcome::Done)
            }
            Action::RemoveVirtualIpFinalizer { address, resource_version, remaining, .. } => {
                let body = patch::virtual_ip_finalizers(remaining, resource_version);
                Ok(written(vips().patch(&name_of_address(*address), &params, &Patch::Merge(body)).await?))
            }
            Action::CorrectVirtualIpStatus { address, resource_version, condition, others, .. } => {
                let body = patch::virtual_ip_status(condition, others, resource_version, &now);
                Ok(written(vips().patch_status(&name_of_address(*address), &params, &Patch::Merge(body)).await?))
            }
            Action::LookUpService { service, .. } => {
                let services = Api::<Service>::namespaced(self.client.clone(), &service.namespace);
                let view = ServiceView::of(&services.get(&service.name).await?, &self.selection);
                Ok(view.map_or(Outcome::Done, |view| Outcome::Service(Box::new(view))))
            }
            Action::PatchServiceStatus { service, resource_version, patch, .. } => {
                let services = Api::<Service>::namespaced(self.client.clone(), &service.namespace);
                let body = patch::service(patch, resource_version, &service.uid, &now);
                let written = services.patch_status(&service.name, &params, &Patch::Strategic(body)).await?;
                let view = ServiceView::of(&written, &self.selection);
                Ok(view.map_or(Outcome::Done, |view| Outcome::Service(Box::new(view))))
            }
            Action::PatchPoolStatus { pool, resource_version, report } => {
                let pools = Api::<AddressPool>::all(self.client.clone());
                let body = patch::pool_status(report, resource_version, &now);
                Ok(Outcome::Pool(Box::new(pools.patch_status(pool, &params, &Patch::Merge(body)).await?)))
            }
            Action::PatchAdvertisementStatus { advertisement, resource_version, report } => {
                let advertisements = Api::<L2Advertisement>::all(self.client.clone());
                let body = patch::advertisement_status(report, resource_version, &now);
                let written = advertisements.patch_status(advertisement, &params, &Patch::Merge(body)).await?;
                Ok(Outcome::Advertisement(Box::new(written)))
            }
            Action::DescribeStrayVirtualIp { name, resource_version, condition, others } => {
                let body = patch::virtual_ip_status(condition, others, resource_version, &now);
                Ok(written(vips().patch_status(name, &params, &Patch::Merge(body)).await?))
            }
            Action::ReleaseStrayVirtualIp { name, resource_version, remaining } => {
                let body = patch::virtual_ip_finalizers(remaining, resource_version);
                Ok(written(vips().patch(name, &params, &Patch::Merge(body)).await?))
            }
            Action::Event(value) => {
                self.post(value, &post).await?;
                Ok(Outcome::Done)
            }
        }
    }

    async fn post(&self, value: &EventValue, post: &PostParams) -> Result<(), kube::Error> {
        let event = patch::event(value, &self.instance, MicroTime(Timestamp::now()));
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        Api::<Event>::namespaced(self.client.clone(), &namespace).create(post, &event).await?;
        Ok(())
    }
}

/// Returns parameters that delete the object of this UID, and no later one of its name.
fn delete_this(uid: &str) -> DeleteParams {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }
}

#[cfg(test)]
mod tests;
