//! Whose figures they are, in OpenTelemetry's words: the attributes by which a collector joins them with what the service itself
//! sends.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use taskscope_proto::v1::Description;

use crate::alerts::labels::Labels;

/// Labels of alerts that say where a service runs, as OpenTelemetry calls them.
pub(crate) const PLACES: [(&str, &str); 3] =
    [("namespace", "k8s.namespace.name"), ("pod", "k8s.pod.name"), ("container", "k8s.container.name")];

/// The agent's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    /// Random per start.
    pub(crate) instance: String,
    pub(crate) pid: u32,
    /// `None`: it could not be read.
    pub(crate) host: Option<String>,
    pub(crate) started_unix_ns: u64,
}

impl Process {
    pub(crate) fn this(started_unix_ns: u64) -> Self {
        Self {
            instance: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            pid: std::process::id(),
            host: std::fs::read_to_string("/proc/sys/kernel/hostname")
                .ok()
                .map(|host| host.trim().to_owned()),
            started_unix_ns,
        }
    }
}

pub(crate) fn of_agent(process: &Process, labels: &Labels) -> Resource {
    let mut attributes = Attributes::default();
    attributes.set("service.name", "taskscope-agent");
    attributes.set("service.version", env!("CARGO_PKG_VERSION"));
    attributes.set("service.instance.id", &process.instance);
    attributes.set_number("process.pid", process.pid);
    attributes.set_some("host.name", process.host.as_deref());
    attributes.places(labels);
    attributes.into_resource()
}

/// `name` is what the agent calls the target, `description` what it said of itself, if it ever did.
pub(crate) fn of_target(name: &str, description: Option<&Description>, labels: &Labels) -> Resource {
    let mut attributes = Attributes::default();
    let own_name = description.map(|it| it.name.as_str()).filter(|name| !name.is_empty());
    // The name that alerts about it have: their records are of the same service.
    attributes.set("service.name", own_name.unwrap_or(name));
    attributes.set("taskscope.target.name", name);
    if let Some(description) = description {
        attributes.set_number("process.pid", description.pid);
        // What the operator has said of it, all of its telemetry says; only what nobody said is ours.
        for it in &description.resource {
            attributes.set(&it.key, &it.value);
        }
        attributes.set("service.instance.id", &description.instance);
        attributes.set_some("host.name", description.host.as_deref());
    }
    attributes.places(labels);
    attributes.into_resource()
}

/// Of an alert of which no more is known than its labels, as after a restart of the agent.
pub(crate) fn of_alert(labels: &Labels) -> Resource {
    let mut attributes = Attributes::default();
    attributes.set_some("service.name", labels.get("service"));
    attributes.set_some("taskscope.target.name", labels.get("target"));
    attributes.places(labels);
    attributes.set_some("host.name", labels.get("host"));
    attributes.into_resource()
}

/// In the order in which they were said; the first of a key holds.
#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn add(&mut self, attribute: KeyValue) {
        if self.0.iter().all(|known| known.key != attribute.key) {
            self.0.push(attribute);
        }
    }

    /// An empty value is none.
    fn set(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.add(text(key, value));
        }
    }

    fn set_some(&mut self, key: &str, value: Option<&str>) {
        self.set(key, value.unwrap_or_default());
    }

    fn set_number(&mut self, key: &str, value: u32) {
        self.add(keyed(key, Value::IntValue(value.into())));
    }

    fn places(&mut self, labels: &Labels) {
        for (label, key) in PLACES {
            self.set_some(key, labels.get(label));
        }
    }

    fn into_resource(self) -> Resource {
        Resource { attributes: self.0, ..Default::default() }
    }
}

pub(crate) fn text(key: &str, value: &str) -> KeyValue {
    keyed(key, Value::StringValue(value.to_owned()))
}

pub(crate) fn keyed(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}
