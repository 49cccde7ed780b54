//! The wrapper around data sets.

use std::sync::Arc;

use candle_core::{DType, Device};

use super::{attempt, fault, has_shape, is_finite, Checkable};
use crate::contract::build_context::BuildContext;
use crate::data::{Content, DataSet, ExampleSpec};
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::examples::{Augment, Examples, Passages};

impl Checkable for DataSet {
    fn checked(built: Box<Self>, called: String, _: &BuildContext) -> Result<Box<Self>> {
        let checked = |part: &Arc<dyn Examples>| -> Result<Arc<dyn Examples>> {
            let count = attempt(&called, || Ok(part.len()))?;
            let (called, spec) = (called.clone(), built.spec.clone());
            Ok(Arc::new(CheckedExamples {
                called,
                spec,
                count,
                inner: part.clone(),
            }))
        };
        Ok(Box::new(Self {
            train: checked(&built.train)?,
            validation: checked(&built.validation)?,
            test: checked(&built.test)?,
            spec: built.spec.clone(),
            text: built.text.clone(),
        }))
    }
}

/// A part of a data set, with the facts for checking its examples.
struct CheckedExamples {
    called: String,
    spec: ExampleSpec,
    count: usize,
    inner: Arc<dyn Examples>,
}

impl CheckedExamples {
    fn check(&self, batch: &Batch, count: usize) -> Result<(), String> {
        let dtype = batch.examples().dtype();
        if (self.spec.content == Content::Text) != (dtype == DType::U32) {
            return Err(format!(
                "returned examples of {dtype:?}, expected U32 for tokens, else F32"
            ));
        }
        if !is_finite(batch.examples()) {
            return Err("returned examples that are not finite".into());
        }
        match batch.labels() {
            Ok(labels) => self.check_labels(labels, count),
            Err(_) => Ok(()),
        }
    }

    fn check_labels(&self, labels: &[u32], count: usize) -> Result<(), String> {
        let (found, expected) = (labels.len(), count * self.spec.positions);
        if found != expected {
            return Err(format!(
                "returned {found} labels for {count} examples, expected {expected}"
            ));
        }
        let classes = self.spec.classes.len();
        match labels.iter().find(|&&label| label as usize >= classes) {
            Some(label) => Err(format!(
                "returned a label of {label}, counted from 0; there are {classes} classes"
            )),
            None => Ok(()),
        }
    }
}

impl Examples for CheckedExamples {
    fn len(&self) -> usize {
        self.count
    }

    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
        let batch = attempt(&self.called, || self.inner.batch(indices, augment))?;
        let expected = [&[indices.len()], &self.spec.shape[..]].concat();
        has_shape(&self.called, "examples", batch.examples().dims(), &expected)?;
        let checked = self.check(&batch, indices.len());
        checked.map_err(|problem| fault(&self.called, problem))?;
        Ok(batch)
    }

    fn labels(&self, indices: &[usize]) -> Result<Vec<u32>> {
        let labels = attempt(&self.called, || self.inner.labels(indices))?;
        if !labels.is_empty() {
            let checked = self.check_labels(&labels, indices.len());
            checked.map_err(|problem| fault(&self.called, problem))?;
        }
        Ok(labels)
    }

    fn on_device(&self, device: &Device) -> Result<Option<Arc<dyn Examples>>> {
        let stored = attempt(&self.called, || self.inner.on_device(device))?;
        let checked = |inner| -> Arc<dyn Examples> {
            Arc::new(Self {
                called: self.called.clone(),
                spec: self.spec.clone(),
                count: self.count,
                inner,
            })
        };
        Ok(stored.map(checked))
    }

    fn fingerprint(&self) -> Result<u32> {
        attempt(&self.called, || self.inner.fingerprint())
    }

    fn passages(&self) -> Option<Passages<'_>> {
        self.inner.passages()
    }
}
