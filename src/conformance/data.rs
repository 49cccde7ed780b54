//! Trials of a data set alone.

use candle_core::{DType, Device};

use super::toys::{all_finite, bits, step};
use super::{ensure, Checked, Complaint, Examiner};
use crate::contract::build_context::BuildContext;
use crate::data::{Augment, DataSet, Split};
use crate::error::Error;
use crate::flow::vars::Vars;
use crate::plugin;
use crate::settings::Pick;

pub(super) fn trials(name: &str, examiner: &mut Examiner<'_>) {
    examiner.check("shapes", || shapes(name));
    examiner.check("seed", || seed(name));
}

/// Builds without folders and cache: nothing is downloaded, and data sets that need files
/// are skipped.
fn build(name: &str) -> Result<Box<DataSet>, Complaint> {
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let built = plugin::build(&Pick::<DataSet>::new(name), &BuildContext::new(vars, 1));
    built.map_err(|error| match error {
        Error::Plugin { .. } => error.into(),
        error => Complaint::Skip(format!("it is not available here: {error}")),
    })
}

fn shapes(name: &str) -> Checked {
    let data = build(name)?;
    let classes = data.spec.classes.len();
    ensure!(classes >= 2, "{classes} classes, expected at least 2");
    let is_empty = data.train.is_empty() || data.test.is_empty();
    ensure!(!is_empty, "the training or test part is empty");
    for split in [Split::Train, Split::Validation, Split::Test] {
        let (part, word) = (data.split(split), split.word());
        let indices: Vec<usize> = (0..part.len().min(100)).collect();
        if indices.is_empty() {
            continue;
        }
        let batch = part.batch(&indices, None)?;
        ensure!(batch.labels().is_ok(), "the {word} part has no labels");
        if batch.examples().dtype().is_float() {
            let finite = all_finite(batch.examples())?;
            ensure!(finite, "examples that are not finite in the {word} part");
        }
    }
    Ok(())
}

fn seed(name: &str) -> Checked {
    let (data, again) = (build(name)?, build(name)?);
    let step = step(1, 0);
    let augment = Augment {
        shift: 1,
        flip: true,
        step: &step,
    };
    let is_picture = data.text.is_none() && data.spec.shape.len() == 3;
    let augment = is_picture.then_some(augment);
    let indices: Vec<usize> = (0..data.train.len().min(20)).rev().collect();
    for augment in [None, augment.as_ref()] {
        let first = data.train.batch(&indices, augment)?;
        let second = again.train.batch(&indices, augment)?;
        let same = bits(first.examples())? == bits(second.examples())?
            && first.labels().ok() == second.labels().ok();
        ensure!(
            same,
            "two requests for the same examples at the same step give different examples"
        );
    }
    let forth: Vec<usize> = (0..indices.len()).collect();
    let first = data.train.batch(&forth, None)?.examples().narrow(0, 0, 1)?;
    let back = data.train.batch(&indices, None)?;
    let last = back.examples().narrow(0, indices.len() - 1, 1)?;
    ensure!(
        bits(&first)? == bits(&last)?,
        "an example depends on its position in the requested batch"
    );
    Ok(())
}
