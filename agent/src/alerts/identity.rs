//! Whose an alert is: the labels that all alerts of one target have. Replicas of a service have agents of their own and one
//! Alertmanager together: without a label that differs, the end of one's alert would end the other's.
//!
//! A place is told and never a process: it stays the same when the service is restarted there.

use std::sync::Arc;

use opentelemetry_proto::tonic::resource::v1::Resource;
use taskscope_proto::v1::Description;

use super::labels::Labels;
use crate::metrics::resource::{self, PLACES, Process};

const SERVICE: &str = "service";
/// What the agent calls the target, where its service is called otherwise.
const TARGET: &str = "target";
const POD: &str = "pod";
/// Tells machines apart where no pod is known.
const HOST: &str = "host";

#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Of whoever runs the agent: they come before what the target says.
    configured: Labels,
    called: String,
    /// What it calls itself; until it has said so, what it is called.
    service: String,
    /// Labels of where it runs, as far as it has said so.
    places: Labels,
    /// Made of all of these.
    labels: Labels,
    speaker: Speaker,
    /// The same for those who join alerts with what the service itself sends.
    resource: Option<Arc<Resource>>,
}

/// Who has said what is known.
#[derive(Clone, Debug)]
enum Speaker {
    Nobody,
    Target(Box<Description>),
    Agent(Process),
}

impl Identity {
    /// Of a target that has not said anything.
    pub(crate) fn new(called: &str, configured: &Labels) -> Self {
        let (called, configured) = (called.to_owned(), configured.clone());
        let (service, places, labels) = (called.clone(), Labels::default(), Labels::default());
        let (speaker, resource) = (Speaker::Nobody, None);
        Self { configured, called, service, places, labels, speaker, resource }.made()
    }

    /// Of the agent itself.
    #[must_use]
    pub(crate) fn of_agent(mut self, process: &Process) -> Self {
        self.places.set(HOST, process.host.as_deref().unwrap_or_default());
        self.speaker = Speaker::Agent(process.clone());
        self.made()
    }

    /// As the target says. What it does not say is not known.
    #[must_use]
    pub(crate) fn said(mut self, description: &Description) -> Self {
        if !description.name.is_empty() {
            self.service.clone_from(&description.name);
        }
        // The first of a key holds, as in its resource.
        let said = |key: &str| {
            let of_key = description.resource.iter().find(|it| it.key == key && !it.value.is_empty());
            of_key.map(|it| it.value.as_str())
        };
        self.places = Labels::default();
        for (label, key) in PLACES {
            self.places.set(label, said(key).unwrap_or_default());
        }
        let host = said("host.name").or(description.host.as_deref());
        self.places.set(HOST, host.unwrap_or_default());
        self.speaker = Speaker::Target(Box::new(description.clone()));
        self.made()
    }

    /// As an alert of before says, which an agent kept: a target that has not come back since has its labels all the same.
    #[must_use]
    pub(crate) fn kept(mut self, alert: &Labels) -> Self {
        if let Some(service) = alert.get(SERVICE) {
            service.clone_into(&mut self.service);
        }
        self.places = Labels::default();
        let places = names_of_places().filter_map(|name| Some((name, alert.get(name)?)));
        places.for_each(|(name, value)| self.places.set(name, value));
        self.made()
    }

    /// Of a target that is on the machine of this name: so much is known of one that never speaks.
    #[must_use]
    pub(crate) fn on(mut self, host: Option<&str>) -> Self {
        self.places.set(HOST, host.unwrap_or_default());
        self.made()
    }

    #[must_use]
    pub(crate) fn configured(mut self, configured: &Labels) -> Self {
        self.configured = configured.clone();
        self.made()
    }

    pub(crate) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// `None`: it has said nothing yet.
    pub(crate) fn resource(&self) -> Option<Arc<Resource>> {
        self.resource.clone()
    }

    /// The labels of an alert of this target, of which less was known when they were made, or which was called otherwise; `None`:
    /// they are of another place.
    pub(crate) fn complete(&self, alert: &Labels) -> Option<Labels> {
        let is_elsewhere =
            |name: &&str| alert.get(name).is_some() && alert.get(name) != self.labels.get(name);
        if names_of_places().find(is_elsewhere).is_some() {
            return None;
        }
        let mut complete = alert.clone();
        for name in names_of_places().chain([SERVICE, TARGET]) {
            complete.set(name, self.labels.get(name).unwrap_or_default());
        }
        Some(complete)
    }

    fn made(mut self) -> Self {
        let mut labels = self.configured.clone();
        let is_in_pod = labels.get(POD).or(self.places.get(POD)).is_some();
        for (name, value) in self.places.iter() {
            let is_known = labels.get(name).is_some() || name == HOST && is_in_pod;
            if !is_known {
                labels.set(name, value);
            }
        }
        labels.set(SERVICE, &self.service);
        if self.called != self.service {
            labels.set(TARGET, &self.called);
        }
        self.labels = labels;
        self.resource = match &self.speaker {
            Speaker::Nobody => None,
            Speaker::Target(it) => Some(resource::of_target(&self.called, Some(it), &self.configured)),
            Speaker::Agent(process) => Some(resource::of_agent(process, &self.configured)),
        }
        .map(Arc::new);
        self
    }
}

/// Whether two alerts are of one target. What goes wrong at one explains nothing of another, even of the one that it has become.
pub(super) fn is_of_same(a: &Labels, b: &Labels) -> bool {
    names_of_places().chain([SERVICE, TARGET]).all(|name| a.get(name) == b.get(name))
}

/// Whether a label says where its target runs.
pub(crate) fn is_place(name: &str) -> bool {
    names_of_places().any(|place| place == name)
}

fn names_of_places() -> impl Iterator<Item = &'static str> {
    PLACES.into_iter().map(|(label, _)| label).chain([HOST])
}

#[cfg(test)]
mod tests {
    use taskscope_proto::v1::ResourceAttribute;

    use super::*;

    fn description(host: Option<&str>, resource: &[(&str, &str)]) -> Description {
        let attribute =
            |&(key, value): &(&str, &str)| ResourceAttribute { key: key.into(), value: value.into() };
        Description {
            name: "shop".into(),
            host: host.map(str::to_owned),
            resource: resource.iter().map(attribute).collect(),
            ..Default::default()
        }
    }

    fn said(host: Option<&str>, resource: &[(&str, &str)], configured: &Labels) -> String {
        let identity = Identity::new("shop", configured).said(&description(host, resource));
        identity.labels().iter().map(|(name, value)| format!("{name}={value} ")).collect()
    }

    const IN_POD: [(&str, &str); 3] =
        [("k8s.namespace.name", "eu"), ("k8s.pod.name", "shop-7d9"), ("k8s.container.name", "app")];

    #[test]
    fn a_pod_tells_replicas_apart_and_a_host_where_there_is_none() {
        let none = Labels::default();
        assert_eq!(
            said(Some("shop-7d9"), &IN_POD, &none),
            "container=app namespace=eu pod=shop-7d9 service=shop "
        );
        assert_eq!(said(Some("web-1"), &[], &none), "host=web-1 service=shop ");
        assert_eq!(
            said(Some("web-1"), &[("k8s.namespace.name", "eu")], &none),
            "host=web-1 namespace=eu service=shop "
        );
        assert_eq!(said(None, &[], &none), "service=shop ");
        assert_eq!(said(Some(""), &[("k8s.pod.name", "")], &none), "service=shop ");
    }

    #[test]
    fn what_the_operator_says_comes_before_what_is_seen() {
        let none = Labels::default();
        // A container's own host name is another one each time that it is made.
        assert_eq!(
            said(Some("f00f"), &[("host.name", "web-1"), ("host.name", "b")], &none),
            "host=web-1 service=shop "
        );
        assert_eq!(
            said(Some("web-1"), &IN_POD, &none.clone().with("pod", "a").with("team", "x")),
            "container=app namespace=eu pod=a service=shop team=x "
        );
        assert_eq!(said(Some("web-1"), &[], &none.clone().with("pod", "a")), "pod=a service=shop ");
        assert_eq!(
            said(Some("web-1"), &IN_POD[1..2], &none.with("host", "b")),
            "host=b pod=shop-7d9 service=shop "
        );
    }

    #[test]
    fn labels_of_before_are_completed_and_those_of_another_place_are_not() {
        let identity = Identity::new("shop-2", &Labels::default()).said(&description(Some("web-1"), &[]));
        let of = |service: &str| Labels::default().with("alertname", "A").with("service", service);
        let complete = of("shop").with("target", "shop-2").with("host", "web-1");
        assert_eq!(identity.complete(&of("shop")).as_ref(), Some(&complete));
        assert_eq!(identity.complete(&of("shop").with("target", "shop.1a2b3c4d")).as_ref(), Some(&complete));
        assert_eq!(identity.complete(&complete).as_ref(), Some(&complete));
        assert_eq!(identity.complete(&of("shop").with("host", "web-2")), None);
        assert_eq!(identity.complete(&of("shop").with("pod", "shop-7d9")), None, "it runs in none");
    }

    #[test]
    fn a_target_that_has_not_come_back_has_the_labels_of_its_kept_alerts() {
        let called = "http://10.0.0.7:6670";
        let before = Identity::new(called, &Labels::default()).said(&description(Some("h"), &IN_POD));
        let after = Identity::new(called, &Labels::default());
        assert_eq!(after.labels().get("service"), Some(called));
        let after = after.kept(&before.labels().clone().with("alertname", "TargetLost"));
        assert_eq!(after.labels(), before.labels());
        // Where it is was a guess until then.
        let guessed = Identity::new("shop", &Labels::default()).on(Some("agent-1"));
        assert_eq!(guessed.labels().get("host"), Some("agent-1"));
        assert_eq!(guessed.kept(&Labels::default().with("service", "shop")).labels().get("host"), None);
        // Whatever it says then holds.
        let elsewhere = after.said(&description(Some("web-1"), &[]));
        assert_eq!(elsewhere.labels().get("pod"), None);
        assert_eq!(elsewhere.labels().get("host"), Some("web-1"));
    }
}
