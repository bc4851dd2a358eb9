//! OpenMetrics, as `prometheus-client` writes it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, LabelSetEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::page::{Page, Pieces};
use super::{Family, Kind, Label, Value};

pub(super) fn write(families: Vec<Family>) -> Pieces {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut page = Page::default();
    // Writing into it cannot fail.
    let _ = encode(&mut page, &registry);
    Box::new(page.pieces.into_iter())
}

#[derive(Debug)]
struct Families(Vec<Family>);

#[derive(Debug)]
struct Labels<'a>(&'a [Label]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode(encoder)
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.0 {
            let unit = family.unit.map(|unit| Unit::Other(unit.to_owned()));
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
                Kind::Info => MetricType::Info,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, unit.as_ref(), kind)?;
            for series in &family.series {
                let labels = Labels(&series.labels);
                match (family.kind, &series.value) {
                    (Kind::Info, _) => metric.encode_info(&labels)?,
                    (Kind::Counter, Value::Count(count)) => {
                        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(count, None)?;
                    }
                    (Kind::Counter, Value::Number(number)) => {
                        metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(number, None)?;
                    }
                    (_, Value::Count(count)) => metric.encode_family(&labels)?.encode_gauge(count)?,
                    (_, Value::Number(number)) => metric.encode_family(&labels)?.encode_gauge(number)?,
                    (_, Value::Durations { sum, buckets }) => {
                        let count = buckets.iter().map(|(_, count)| count).sum();
                        let mut metric = metric.encode_family(&labels)?;
                        metric.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)?;
                    }
                }
            }
        }
        Ok(())
    }
}
