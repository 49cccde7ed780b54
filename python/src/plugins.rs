//! Plugins written in Python. Before each of them stands an adapter, of `_extend.py`, that
//! takes and returns contiguous arrays.

use std::sync::Arc;

use onward::candle_core::{Tensor, Var};
use onward::candle_nn::Init;
use onward::data::DataSet;
use onward::export::{Table, Value};
use onward::flow::random;
use onward::optim::Gradient;
use onward::plugin::{self, Description};
use onward::settings::Setting;
use onward::{
    conformance, Batch, BuildContext, Error, GoodnessFn, Input, Lesson, LocalLayer,
    NegativeSampler, Optimiser, Prediction, Result, Role, Step, Views,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arrays::{to_python, to_tensor};
use crate::data::Data;
use crate::{convert, process, raised};

/// An adapter, and the name of its plugin in messages.
struct Adapter {
    object: Py<PyAny>,
    called: String,
}

type Arguments<'py> = PyResult<Vec<Bound<'py, PyAny>>>;

impl Adapter {
    /// Calls a method with what `arguments` makes, and takes its result.
    fn call<T>(
        &self,
        method: &str,
        arguments: impl for<'py> FnOnce(Python<'py>) -> Arguments<'py>,
        take: impl FnOnce(Bound<'_, PyAny>) -> PyResult<T>,
    ) -> Result<T> {
        Python::attach(|py| {
            let found = arguments(py)
                .and_then(|arguments| PyTuple::new(py, arguments))
                .and_then(|arguments| self.object.bind(py).call_method1(method, arguments))
                .and_then(take);
            found.map_err(|error| fault(py, &self.called, error))
        })
    }

    /// What the adapter says of its plugin.
    fn facts<T>(&self, take: impl FnOnce(Bound<'_, PyAny>) -> PyResult<T>) -> Result<T> {
        self.call("facts", |_| Ok(Vec::new()), take)
    }

    /// Calls a method that takes tensors and returns one of the same type and device.
    fn tensor(&self, method: &str, of: &[&Tensor]) -> Result<Tensor> {
        let found = self.call(method, |py| arrays(py, of), |found| to_tensor(&found))?;
        like(&found, of[0])
    }
}

/// The error for what a plugin raised.
fn fault(py: Python<'_>, called: &str, error: PyErr) -> Error {
    let place = place(py, &error).unwrap_or_default();
    let notes = error.value(py).getattr("__notes__");
    let notes: Vec<String> = notes.and_then(|notes| notes.extract()).unwrap_or_default();
    let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
    Error::Plugin {
        plugin: called.into(),
        problem: format!("raised {error}{place}{notes}"),
        cause: Some(Box::new(error)),
    }
}

/// File and line where an exception was raised: the last ones outside of packages.
fn place(py: Python<'_>, error: &PyErr) -> Option<String> {
    let traceback = py.import("traceback").ok()?;
    let frames = traceback
        .call_method1("extract_tb", (error.traceback(py)?,))
        .ok()?;
    let mut places = Vec::new();
    for frame in frames.try_iter().ok()?.flatten() {
        let file = frame.getattr("filename").ok()?.to_string();
        places.push((file, frame.getattr("lineno").ok()?.to_string()));
    }
    let is_own = |(file, _): &&(String, String)| !file.contains("site-packages");
    let (file, line) = places.iter().rfind(is_own).or(places.last())?;
    Some(format!(" ({file}, line {line})"))
}

/// Tensors as the arguments of a call.
fn arrays<'py>(py: Python<'py>, tensors: &[&Tensor]) -> Arguments<'py> {
    let array = |tensor: &&Tensor| Ok(to_python(py, tensor)?.into_pyobject(py)?.into_any());
    tensors.iter().map(array).collect()
}

/// A tensor with the type and device of another one.
fn like(found: &Tensor, other: &Tensor) -> Result<Tensor> {
    Ok(found.to_dtype(other.dtype())?.to_device(other.device())?)
}

struct Goodness {
    adapter: Adapter,
    classes: Option<usize>,
}

impl Goodness {
    fn found_threshold(&self, units: usize) -> Result<f64> {
        self.adapter.call(
            "threshold",
            |py| Ok(vec![units.into_pyobject(py)?.into_any()]),
            |found| found.extract(),
        )
    }
}

impl GoodnessFn for Goodness {
    fn goodness(&self, activity: &Tensor) -> Result<Tensor> {
        self.adapter.tensor("goodness", &[activity])
    }

    fn classes(&self) -> Option<usize> {
        self.classes
    }

    fn threshold(&self, units: usize) -> f64 {
        // The wrapper of every plugin refuses what is no number.
        self.found_threshold(units).unwrap_or(f64::NAN)
    }

    fn gradient(&self, activity: &Tensor, upstream: &Tensor) -> Result<Tensor> {
        self.adapter.tensor("gradient", &[activity, upstream])
    }
}

struct Layer {
    adapter: Adapter,
    /// The variables by their full names, in the order of the adapter.
    vars: Vec<(String, Var)>,
    /// Whether there is a gradient of the input.
    passes_gradient: bool,
}

impl Layer {
    fn new(adapter: Adapter, context: &BuildContext) -> Result<Self> {
        let mut stream = random::stream(context.seed, &context.vars.path("python"), 0);
        let seed = random::below(&mut stream, SEEDS);
        let initial = adapter.call(
            "variables",
            |py| Ok(vec![seed.into_pyobject(py)?.into_any()]),
            |found| {
                let named: Vec<(String, Bound<'_, PyAny>)> = found.extract()?;
                let named = named.into_iter();
                let tensors = named.map(|(name, array)| Ok((name, to_tensor(&array)?)));
                tensors.collect::<PyResult<Vec<_>>>()
            },
        )?;
        let mut vars = Vec::new();
        for (name, value) in initial {
            let var = context.vars.get(&name, value.dims(), Init::Const(0.))?;
            var.set(&like(&value, &var)?)?;
            vars.push((context.vars.path(&name), var));
        }
        context.vars.changed();
        Ok(Self {
            passes_gradient: adapter.facts(|found| found.extract())?,
            adapter,
            vars,
        })
    }

    /// Arguments of a call: these tensors, then the variables.
    fn with_variables<'a>(&'a self, tensors: &[&'a Tensor]) -> Vec<&'a Tensor> {
        let vars = self.vars.iter().map(|(_, var)| var.as_tensor());
        tensors.iter().copied().chain(vars).collect()
    }
}

impl LocalLayer for Layer {
    fn forward(&self, input: &Input, _step: &Step) -> Result<Tensor> {
        let x = input.join()?;
        self.adapter.tensor("forward", &self.with_variables(&[&x]))
    }

    fn learn(&mut self, lesson: &Lesson<'_>, optimiser: &mut Optimiser, step: &Step) -> Result<()> {
        let x = lesson.input.join()?;
        let of = self.with_variables(&[&x, lesson.activity, lesson.gradient()?]);
        let gradients = self.adapter.call(
            "gradients",
            |py| arrays(py, &of),
            |found| {
                let found: Vec<Bound<'_, PyAny>> = found.extract()?;
                found.iter().map(to_tensor).collect::<PyResult<Vec<_>>>()
            },
        )?;
        for ((name, var), gradient) in self.vars.iter().zip(&gradients) {
            let gradient = like(gradient, var)?;
            optimiser.update(name, var, Gradient::Whole(&gradient), step)?;
        }
        Ok(())
    }

    fn input_gradient(&self, lesson: &Lesson<'_>, _step: &Step) -> Result<Tensor> {
        if !self.passes_gradient {
            let problem = "passes no gradient to its input; write `input_gradient`";
            return Err(Error::usage(&self.adapter.called, problem));
        }
        let x = lesson.input.join()?;
        let of = self.with_variables(&[&x, lesson.activity, lesson.gradient()?]);
        self.adapter.tensor("input_gradient", &of)
    }
}

struct Sampler {
    adapter: Adapter,
    uses_labels: bool,
    uses_prediction: bool,
    smallest_batch: usize,
    has_neutral: bool,
    has_hypotheses: bool,
}

impl Sampler {
    fn new(adapter: Adapter) -> Result<Self> {
        let facts = adapter.facts(|found| found.extract())?;
        let (uses_labels, uses_prediction, smallest_batch, has_neutral, has_hypotheses) = facts;
        Ok(Self {
            adapter,
            uses_labels,
            uses_prediction,
            smallest_batch,
            has_neutral,
            has_hypotheses,
        })
    }
}

/// Views `(V·B, …)` from Python, and how many of them are positive.
type Found = (Tensor, usize);

impl NegativeSampler for Sampler {
    fn views(&self, batch: &Batch, prediction: &Prediction<'_>, step: &Step) -> Result<Views> {
        let labels = match self.uses_labels {
            true => Some(batch.labels()?.to_vec()),
            false => None,
        };
        let prediction = match self.uses_prediction {
            true => Some(prediction.log_probabilities()?),
            false => None,
        };
        let seed = random::below(&mut step.stream("python"), SEEDS);
        let (views, positive): Found = self.adapter.call(
            "views",
            |py| {
                let examples = arrays(py, &[batch.examples()])?.remove(0);
                let prediction = prediction.map(|found| to_python(py, found)).transpose()?;
                Ok(vec![
                    examples,
                    labels.into_pyobject(py)?.into_any(),
                    prediction.into_pyobject(py)?.into_any(),
                    seed.into_pyobject(py)?.into_any(),
                ])
            },
            |found| {
                let (views, positive): (Bound<'_, PyAny>, usize) = found.extract()?;
                Ok((to_tensor(&views)?, positive))
            },
        )?;
        let count = views.dim(0)? / batch.size().max(1);
        let roles = [
            vec![Role::Positive; positive],
            vec![Role::Negative; count.saturating_sub(positive)],
        ];
        Views::new(
            Input::stacked(like(&views, batch.examples())?, count)?,
            roles.concat(),
        )
    }

    fn uses_labels(&self) -> bool {
        self.uses_labels
    }

    fn smallest_batch(&self) -> usize {
        self.smallest_batch
    }

    fn neutral(&self, batch: &Batch) -> Result<Input> {
        match self.has_neutral {
            true => Input::of(self.adapter.tensor("neutral", &[batch.examples()])?),
            false => Input::of(batch.examples().clone()),
        }
    }

    fn hypotheses(&self, batch: &Batch, candidates: &Tensor) -> Result<Option<Input>> {
        if !self.has_hypotheses {
            return Ok(None);
        }
        let of = [batch.examples(), candidates];
        let views = self.adapter.tensor("hypotheses", &of)?;
        Ok(Some(Input::stacked(views, candidates.dim(0)?)?))
    }
}

/// Seeds of NumPy's generators are below this.
const SEEDS: usize = 1 << 53;

/// What is called when a plugin is built: a function of Python that takes its settings, the
/// shape of its input, the width that is asked for, and the number of classes.
struct Maker {
    make: Py<PyAny>,
    kind: &'static str,
    name: String,
    package: String,
}

impl Maker {
    fn make(&self, settings: &Table, context: &BuildContext) -> Result<Adapter> {
        let called = format!("{} {} (package {})", self.kind, self.name, self.package);
        let made = Python::attach(|py| {
            let made = || {
                let settings = convert::to_python(py, &settings.clone().into())?;
                let arguments = (settings, &context.input, context.units, context.classes);
                Ok(self.make.bind(py).call1(arguments)?.unbind())
            };
            made().map_err(|error| fault(py, &called, error))
        });
        Ok(Adapter {
            object: made?,
            called,
        })
    }
}

/// Refuses values of another type than the default.
fn check(settings: &[Setting], table: &Table) -> Result<()> {
    for setting in settings {
        let found = table.get(setting.key);
        if let (Some(default), Some(found)) = (&setting.default, found) {
            if !default.same_type(found) {
                let origin = "its settings";
                return Err(Error::setting(
                    setting.key,
                    found,
                    origin,
                    &*setting.allowed,
                ));
            }
        }
    }
    Ok(())
}

fn allowed(default: &Value) -> &'static str {
    match default {
        Value::Boolean(_) => "true or false",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
        _ => "text",
    }
}

/// Registers a plugin: its kind, name, first line, where it was written; key, default and
/// help of its settings; and the function that makes its adapter.
#[pyfunction]
pub fn register(
    kind: &str,
    name: String,
    about: String,
    package: String,
    settings: Vec<(String, Bound<'_, PyAny>, String)>,
    make: Py<PyAny>,
) -> PyResult<()> {
    let mut known = Vec::new();
    for (key, default, help) in settings {
        let default = convert::setting(&key, &default)?;
        known.push(Setting {
            key: key.leak(),
            alias: None,
            allowed: allowed(&default).into(),
            default: Some(default),
            help,
            kind: None,
            choices: &[],
        });
    }
    let described = Description {
        name: name.clone(),
        about,
        package: package.clone(),
        settings: known.clone(),
    };
    let kind = plugin::registry::KINDS.iter().find(|word| **word == kind);
    let maker = Arc::new(Maker {
        make,
        kind: kind.copied().unwrap_or_default(),
        name,
        package,
    });
    let check = move |table: &Table| check(&known, table);
    let added = match maker.kind {
        "goodness" => plugin::add::<dyn GoodnessFn>(described, check, move |table, context| {
            let adapter = maker.make(table, context)?;
            let classes = adapter.facts(|found| found.extract())?;
            let goodness = Goodness { adapter, classes };
            // An exception is reported here; later there is no way to.
            goodness.found_threshold(context.inputs())?;
            Ok(Box::new(goodness))
        }),
        "layer" => plugin::add::<dyn LocalLayer>(described, check, move |table, context| {
            let adapter = maker.make(table, context)?;
            Ok(Box::new(Layer::new(adapter, context)?))
        }),
        "sampler" => plugin::add::<dyn NegativeSampler>(described, check, move |table, context| {
            let adapter = maker.make(table, context)?;
            Ok(Box::new(Sampler::new(adapter)?))
        }),
        "data" => plugin::add::<DataSet>(described, check, move |table, context| {
            let adapter = maker.make(table, context)?;
            let made = adapter.call(
                "data",
                |_| Ok(Vec::new()),
                |found| {
                    let data = found.cast_into::<Data>()?;
                    Ok(data.get().0.clone())
                },
            )?;
            Ok(Box::new(made))
        }),
        _ => {
            return Err(PyValueError::new_err(
                "a plugin of this kind cannot be written in Python",
            ))
        }
    };
    added.map_err(raised)
}

/// Runs the trials of a plugin; returns the report, and the trials that failed.
#[pyfunction]
pub fn conformance_of(py: Python<'_>, kind: &str, name: &str) -> PyResult<(String, Vec<String>)> {
    let _active = process::enter()?;
    let report = py.detach(|| conformance::of_plugin(kind, name));
    py.check_signals()?;
    let failed = report.failures().map(ToString::to_string).collect();
    Ok((report.to_string(), failed))
}
