//! The guard of data sets.

use std::sync::Arc;

use candle_core::DType;

use super::{attempt, certain, fault, has_shape, is_finite};
use crate::contract::build_context::BuildContext;
use crate::data::text::Passages;
use crate::data::{Augment, Content, DataSet, Examples, Kind};
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::plugin::registry::Checkable;

impl Checkable for DataSet {
    fn guard(built: Box<Self>, plugin: String, _context: &BuildContext) -> Box<Self> {
        let guard = |part: Arc<dyn Examples>| -> Arc<dyn Examples> {
            Arc::new(CheckedExamples {
                plugin: plugin.clone(),
                kind: built.kind.clone(),
                inner: part,
            })
        };
        let (train, validation, test) = (
            guard(built.train),
            guard(built.validation),
            guard(built.test),
        );
        Box::new(Self {
            kind: built.kind.clone(),
            train,
            validation,
            test,
            text: built.text,
        })
    }
}

/// A part of a data set, and what is known of its examples.
struct CheckedExamples {
    plugin: String,
    kind: Kind,
    inner: Arc<dyn Examples>,
}

impl Examples for CheckedExamples {
    fn len(&self) -> usize {
        certain(&self.plugin, || self.inner.len())
    }

    fn batch(&self, indices: &[usize], augment: Option<&Augment<'_>>) -> Result<Batch> {
        let batch = attempt(&self.plugin, || self.inner.batch(indices, augment))?;
        let expected = [&[indices.len()], &self.kind.shape[..]].concat();
        has_shape(&self.plugin, "examples", batch.examples().dims(), &expected)?;
        let dtype = batch.examples().dtype();
        if (self.kind.content == Content::Text) != (dtype == DType::U32) {
            let problem =
                format!("gave examples of {dtype:?}, expected tokens as U32 and all else as F32");
            return Err(fault(&self.plugin, problem));
        }
        if !is_finite(batch.examples()) {
            return Err(fault(
                &self.plugin,
                "gave examples that are not finite".into(),
            ));
        }
        let classes = self.kind.classes.len();
        match batch
            .labels()
            .ok()
            .and_then(|labels| labels.iter().find(|&&label| label as usize >= classes))
        {
            Some(label) => Err(fault(
                &self.plugin,
                format!("gave a label of {label}, counted from 0; there are {classes} classes"),
            )),
            None => Ok(batch),
        }
    }

    fn passages(&self) -> Option<Passages<'_>> {
        certain(&self.plugin, || self.inner.passages())
    }
}
