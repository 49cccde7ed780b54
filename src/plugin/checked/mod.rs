//! Stands before every plugin: what it does wrong becomes an error with its name and its package.
//!
//! A plugin is somebody else's code. If it panics, or gives a tensor of another shape than documented, or something that
//! is no number where all that it was given was finite, then nobody should have to find out from a trace of candle's
//! which of them it was. [`registry::build`](crate::plugin::registry::build) puts a guard before everything that it builds.

mod examples;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::OnceLock;

use candle_core::{CpuStorage, Storage, Tensor};

use crate::contract::architecture::{Architecture, Readout};
use crate::contract::block::{Block, Report};
use crate::contract::build_context::BuildContext;
use crate::contract::goodness::GoodnessFn;
use crate::contract::head::Head;
use crate::contract::layer::{Lesson, LocalLayer};
use crate::contract::sampler::NegativeSampler;
use crate::data::Examples;
use crate::error::{Error, Located, Result};
use crate::flow::batch::Batch;
use crate::flow::input::{Input, Values};
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::flow::views::Views;
use crate::optim::Optimiser;
use crate::plugin::registry::{Checkable, Info};

/// Beyond this a number overflows soon: a plugin is not to blame for what it makes of it.
const LARGE: f64 = 1e15;

/// What `work` of this plugin comes to: a panic is an error, and a tensor that candle refuses has the plugin's name.
pub(crate) fn attempt<R>(plugin: &str, work: impl FnOnce() -> Result<R>) -> Result<R> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(error @ Error::Tensor(_))) => Err(error).at(|| plugin.into()),
        Ok(result) => result,
        Err(panic) => Err(Fault::of(plugin, panic).into()),
    }
}

/// What `work` of this plugin gives that can give no error: a panic goes on with the plugin's name, up to whoever
/// [`attempt`]s something, or has it [`caught`].
fn certain<R>(plugin: &str, work: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Fault::of(plugin, panic).raise())
}

/// What `work` comes to; the fault of a plugin that could give no error is one here.
pub(crate) fn caught<R>(work: impl FnOnce() -> Result<R>) -> Result<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| match panic.downcast::<Fault>() {
        Ok(fault) => Err((*fault).into()),
        Err(panic) => resume_unwind(panic),
    })
}

/// What a plugin did wrong, on its way up.
struct Fault {
    plugin: String,
    problem: String,
}

impl Fault {
    /// A panic in `plugin`, unless it was raised for another one that was at work in it.
    fn of(plugin: &str, panic: Box<dyn Any + Send>) -> Self {
        match panic.downcast::<Self>() {
            Ok(fault) => *fault,
            Err(panic) => Self {
                plugin: plugin.into(),
                problem: format!("panicked: {}", said(&*panic)),
            },
        }
    }

    fn raise(self) -> ! {
        resume_unwind(Box::new(self))
    }
}

impl From<Fault> for Error {
    fn from(Fault { plugin, problem }: Fault) -> Self {
        Self::Plugin { plugin, problem }
    }
}

/// What somebody said who panicked.
pub(crate) fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("nothing that can be read")
}

fn fault(plugin: &str, problem: String) -> Error {
    Error::Plugin {
        plugin: plugin.into(),
        problem,
    }
}

/// Refuses a tensor of another shape than `expected`.
fn has_shape(plugin: &str, what: &str, found: &[usize], expected: &[usize]) -> Result<()> {
    if found != expected {
        return Err(fault(
            plugin,
            format!("gave {what} of shape {found:?}, expected {expected:?}"),
        ));
    }
    Ok(())
}

/// Whether no number of a tensor is beyond [`LARGE`].
fn is_tame(tensor: &Tensor) -> bool {
    is_within(tensor, LARGE as f32)
}

fn is_finite(tensor: &Tensor) -> bool {
    is_within(tensor, f32::MAX)
}

/// Whether all numbers are between `−limit` and `limit`. Only a tensor of `f32` that lie side by side on the CPU is
/// looked at, which costs as much as reading it.
fn is_within(tensor: &Tensor, limit: f32) -> bool {
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        return true;
    };
    // No early end within a piece: so the compiler can look at many numbers at a time.
    let is_within = |piece: &[f32]| {
        piece
            .iter()
            .fold(true, |all, value| all & (value.abs() <= limit))
    };
    values[start..end].chunks(4096).all(is_within)
}

/// Whether the parts of an input are tame, and their scales.
fn is_tame_input(input: &Input) -> bool {
    input.parts().iter().all(|part| {
        let values = match &part.values {
            Values::Dense { matrix, .. } => is_tame(matrix),
            Values::OneHot { strength, .. } => strength.abs() <= LARGE,
        };
        values && part.scale.as_ref().is_none_or(is_tame)
    })
}

/// A plugin, and what it is called in messages.
struct Checked<T: ?Sized> {
    plugin: String,
    /// The variables that it may have made.
    vars: Vars,
    /// The shape of what a sampler gives, once it has given something.
    shape: OnceLock<Vec<usize>>,
    /// How many classes the data have.
    classes: usize,
    inner: Box<T>,
}

impl<T: ?Sized> Checked<T> {
    fn new(inner: Box<T>, plugin: String, context: &BuildContext) -> Self {
        Self {
            plugin,
            vars: context.vars.clone(),
            shape: OnceLock::new(),
            classes: context.classes,
            inner,
        }
    }

    fn attempt<R>(&self, work: impl FnOnce(&T) -> Result<R>) -> Result<R> {
        attempt(&self.plugin, || work(&self.inner))
    }

    fn attempt_mut<R>(&mut self, work: impl FnOnce(&mut T) -> Result<R>) -> Result<R> {
        attempt(&self.plugin, || work(&mut self.inner))
    }

    fn certain<'a, R>(&'a self, work: impl FnOnce(&'a T) -> R) -> R {
        certain(&self.plugin, || work(&self.inner))
    }

    fn fault(&self, problem: String) -> Error {
        fault(&self.plugin, problem)
    }

    /// Whether the numbers that the plugin may have learned are ones that it can compute with.
    fn has_tame_variables(&self) -> bool {
        self.vars.all().iter().all(|(_, var)| is_tame(var))
    }
}

impl Checkable for dyn LocalLayer {
    fn guard(built: Box<Self>, plugin: String, context: &BuildContext) -> Box<Self> {
        Box::new(Checked::new(built, plugin, context))
    }
}

impl LocalLayer for Checked<dyn LocalLayer> {
    fn forward(&self, input: &Input, step: &Step) -> Result<Tensor> {
        let activity = self.attempt(|layer| layer.forward(input, step))?;
        if activity.rank() < 2 || activity.dim(0)? != input.rows() {
            let (found, rows) = (activity.dims(), input.rows());
            return Err(self.fault(format!(
                "gave an activity of shape {found:?}, expected ({rows}, …)"
            )));
        }
        // A net that diverges is a matter of its settings.
        if step.train && !is_finite(&activity) && is_tame_input(input) && self.has_tame_variables()
        {
            let problem =
                "made of a finite input, with finite variables, an activity that is not finite"
                    .to_string();
            return Err(self.fault(problem));
        }
        Ok(activity)
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        self.attempt_mut(|layer| layer.learn(lesson, optimiser, step))
    }

    fn features(&self) -> Result<Option<Tensor>> {
        self.attempt(|layer| layer.features())
    }
}

impl Checkable for dyn GoodnessFn {
    fn guard(built: Box<Self>, plugin: String, context: &BuildContext) -> Box<Self> {
        Box::new(Checked::new(built, plugin, context))
    }
}

impl GoodnessFn for Checked<dyn GoodnessFn> {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        let goodness = self.attempt(|plugin| plugin.goodness(activity))?;
        let rows = activity.dim(0)?;
        let expected = self
            .classes()
            .map_or(vec![rows], |classes| vec![rows, classes]);
        has_shape(&self.plugin, "a goodness", goodness.dims(), &expected)?;
        if !is_finite(&goodness) && is_tame(activity) && self.has_tame_variables() {
            return Err(
                self.fault("gave a goodness that is not finite for a finite activity".into())
            );
        }
        Ok(goodness)
    }

    fn classes(&self) -> Option<usize> {
        self.certain(|plugin| plugin.classes())
    }

    fn threshold(&self, units: usize) -> f64 {
        let theta = self.certain(|plugin| plugin.threshold(units));
        if !theta.is_finite() {
            let problem =
                format!("gave a threshold of {theta} for {units} units, expected a finite one");
            Fault {
                plugin: self.plugin.clone(),
                problem,
            }
            .raise()
        }
        theta
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        let gradient = self.attempt(|plugin| plugin.gradient(activity, upstream))?;
        has_shape(&self.plugin, "a gradient", gradient.dims(), activity.dims())?;
        if !is_finite(&gradient)
            && is_tame(activity)
            && is_tame(upstream)
            && self.has_tame_variables()
        {
            return Err(
                self.fault("gave a gradient that is not finite for a finite activity".into())
            );
        }
        Ok(gradient)
    }

    fn learn(
        &mut self,
        activity: &Tensor,
        upstream: &Tensor,
        optimiser: &mut Optimiser,
        step: &Step,
    ) -> Result<()> {
        self.attempt_mut(|plugin| plugin.learn(activity, upstream, optimiser, step))
    }
}

impl Checkable for dyn NegativeSampler {
    fn guard(built: Box<Self>, plugin: String, context: &BuildContext) -> Box<Self> {
        Box::new(Checked::new(built, plugin, context))
    }
}

impl Checked<dyn NegativeSampler> {
    /// An input of as many examples and views, of the width of all others.
    fn checked(&self, input: Input, batch: &Batch, views: Option<usize>) -> Result<Input> {
        let (size, found) = (batch.size(), (input.batch(), input.views()));
        if found.0 != size || views.is_some_and(|views| views != found.1) {
            let expected = views.map_or(String::new(), |views| format!("{views} views of "));
            let problem = format!(
                "gave {} views of {} examples, expected {expected}{size}",
                found.1, found.0
            );
            return Err(self.fault(problem));
        }
        has_shape(
            &self.plugin,
            "an input",
            input.shape(),
            self.shape.get_or_init(|| input.shape().to_vec()),
        )?;
        Ok(input)
    }
}

impl NegativeSampler for Checked<dyn NegativeSampler> {
    fn views(
        &mut self,
        batch: &Batch,
        predict: &mut dyn FnMut() -> Result<Tensor>,
        step: &Step,
    ) -> Result<Views> {
        let (size, least) = (batch.size(), self.smallest_batch());
        if size < least {
            let problem =
                format!("it was given {size} of the {least} examples that it needs at least; set a larger `batch`");
            return Err(Error::Mismatch {
                place: self.plugin.clone(),
                problem,
            });
        }
        let views = self.attempt_mut(|sampler| sampler.views(batch, predict, step))?;
        let input = self.checked(views.input, batch, Some(views.roles.len()))?;
        if let Some(labels) = views
            .labels
            .as_ref()
            .filter(|labels| labels.len() != batch.size())
        {
            return Err(self.fault(format!(
                "gave {} labels for {} examples",
                labels.len(),
                batch.size()
            )));
        }
        if !is_tame_input(&input) && is_tame(batch.examples()) {
            return Err(self.fault("made of finite examples views that are not finite".into()));
        }
        Ok(Views { input, ..views })
    }

    fn is_supervised(&self) -> bool {
        self.certain(|sampler| sampler.is_supervised())
    }

    fn smallest_batch(&self) -> usize {
        self.certain(|sampler| sampler.smallest_batch())
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        self.checked(
            self.attempt(|sampler| sampler.neutral(batch))?,
            batch,
            Some(1),
        )
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        let input = self.attempt(|sampler| sampler.hypotheses(batch, candidates))?;
        input
            .map(|input| self.checked(input, batch, Some(candidates.dim(0)?)))
            .transpose()
    }

    fn refresh(
        &self,
        train: &dyn Examples,
        predict: &dyn Fn(&Batch) -> Result<Tensor>,
        step: &Step,
    ) -> Result<Option<HashMap<String, Tensor>>> {
        self.attempt(|sampler| sampler.refresh(train, predict, step))
    }

    fn save(&self) -> BTreeMap<String, Tensor> {
        self.certain(|sampler| sampler.save())
    }

    fn restore(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        self.attempt_mut(|sampler| sampler.restore(tensors))
    }
}

impl Checkable for dyn Architecture {
    fn guard(built: Box<Self>, plugin: String, context: &BuildContext) -> Box<Self> {
        Box::new(Checked::new(built, plugin, context))
    }
}

impl Architecture for Checked<dyn Architecture> {
    fn learn(
        &mut self,
        batch: &Batch,
        sampler: &mut dyn NegativeSampler,
        step: &Step,
    ) -> Result<Vec<(usize, Report)>> {
        let reports = self.attempt_mut(|net| net.learn(batch, sampler, step))?;
        let blocks = self.blocks().len();
        match reports.iter().find(|(index, _)| *index >= blocks) {
            Some((index, _)) => Err(self.fault(format!(
                "reported of block {index}, counted from 0, of {blocks}"
            ))),
            None => Ok(reports),
        }
    }

    fn scores(
        &self,
        batch: &Batch,
        sampler: &dyn NegativeSampler,
        readout: &str,
        step: &Step,
    ) -> Result<Tensor> {
        let scores = self.attempt(|net| net.scores(batch, sampler, readout, step))?;
        has_shape(
            &self.plugin,
            "scores",
            scores.dims(),
            &[batch.size(), self.classes],
        )?;
        if !is_finite(&scores) && is_tame(batch.examples()) && self.has_tame_variables() {
            return Err(self.fault(format!("gave scores by {readout} that are not finite")));
        }
        Ok(scores)
    }

    fn readouts(&self) -> Vec<Readout> {
        self.certain(|net| net.readouts())
    }

    fn is_ready(&self, readout: &Readout, epochs: usize) -> bool {
        self.certain(|net| net.is_ready(readout, epochs))
    }

    fn is_supervised(&self) -> bool {
        self.certain(|net| net.is_supervised())
    }

    fn blocks(&self) -> &[Block] {
        self.certain(|net| net.blocks())
    }

    fn blocks_mut(&mut self) -> &mut [Block] {
        certain(&self.plugin, || self.inner.blocks_mut())
    }

    fn heads(&self) -> &[Head] {
        self.certain(|net| net.heads())
    }

    fn heads_mut(&mut self) -> &mut [Head] {
        certain(&self.plugin, || self.inner.heads_mut())
    }

    fn epochs(&self) -> usize {
        self.certain(|net| net.epochs())
    }
}

/// What a plugin is called in messages.
pub(crate) fn called(kind: &str, info: &Info) -> String {
    format!("{kind} {} (package {})", info.name, info.package)
}
