//! Families of rules unlike Forward-Forward. Those of `positions` and `shortcuts` are
//! plugins of about one page that are not part of the program and show that the contract
//! supports them; the others are built in. Every plugin passes the
//! trials of `onward::conformance` and is compared with an independent program, which is
//! quoted above the expected numbers. The quoted programs use double precision and share
//! these lines:
//!
//! ```python
//! import numpy as np
//! def numbers(k, *shape):
//!     return .5 * np.sin(1.7 * np.arange(np.prod(shape)) + k).reshape(shape)
//! def gradient(loss, p, e=1e-5):                           # by differences
//!     g = np.zeros_like(p)
//!     for i in np.ndindex(p.shape):
//!         old = p[i]
//!         p[i] = old + e; up = loss()
//!         p[i] = old - e; g[i] = (up - loss()) / (2 * e)
//!         p[i] = old
//!     return g
//! softplus = lambda z: np.log1p(np.exp(z))
//! norm = lambda v: v * np.sqrt(v.shape[1] / np.maximum((v ** 2).sum(1, keepdims=True), 1e-16))
//! layer = lambda v, W, b: np.maximum(v @ W + b, 0)
//! ```

mod cafo;
mod class_groups;
mod collaboration;
mod forward_projection;
mod passing;
mod pepita;
mod positions;
mod predsim;
mod prototypes;
mod roll_outs;
mod scff;
mod shortcuts;
mod sigprop;
mod softhebb;
mod supervision;
mod trifecta;

use onward::candle_core::{DType, Device, Shape, Tensor};
use onward::plugin::registry::Registered;
use onward::settings::Pick;
use onward::{
    conformance, plugin, Architecture, Batch, BuildContext, Input, NegativeSampler, Prediction,
    Result, Role, Run, Step, Vars, Views,
};

/// The numbers of the quoted programs.
fn numbers(k: f64, shape: impl Into<Shape>) -> Result<Tensor> {
    let shape = shape.into();
    let values = (0..shape.elem_count()).map(|i| 0.5 * (1.7 * i as f64 + k).sin());
    Ok(Tensor::from_iter(values, &Device::Cpu)?.reshape(shape)?)
}

/// A network with its sampler and variables, for examples of shape `[3]` and three
/// classes.
struct Subject {
    net: Box<dyn Architecture>,
    sampler: Box<dyn NegativeSampler>,
    vars: Vars,
}

impl Subject {
    /// Builds an architecture from its settings as TOML, with plain descent at rate ½.
    fn new(architecture: &str, sampler: &str, settings: &str) -> Result<Self> {
        Self::on(&[3], 1, architecture, sampler, settings)
    }

    fn on(
        example: &[usize],
        positions: usize,
        architecture: &str,
        sampler: &str,
        settings: &str,
    ) -> Result<Self> {
        let vars = Vars::new(1, DType::F64, &Device::Cpu);
        let mut context = BuildContext::new(vars.clone(), 1).with_input(example);
        (context.example, context.classes) = (example.to_vec(), 3);
        context.positions = positions;
        let descent = r#"
            lr = 0.5
            weight_decay = 0.0
            momentum = 0.0
            schedule = "constant"
        "#;
        let net = built(architecture, &format!("{descent}\n{settings}"), &context)?;
        let sampler = built(sampler, "", &context.scope("sampler"))?;
        Ok(Self { net, sampler, vars })
    }

    /// Sets a variable.
    fn set(&self, name: &str, value: &Tensor) {
        let all = self.vars.all();
        let found = all.iter().find(|(path, _)| path == name);
        let names: Vec<_> = all.iter().map(|(path, _)| path).collect();
        let (_, var) = found.unwrap_or_else(|| panic!("no {name} in {names:?}"));
        var.set(value).unwrap();
    }

    /// Learns for `steps` steps; `batch` returns the batch of a step.
    fn learn(&mut self, steps: u64, batch: impl Fn(u64) -> Result<Batch>) -> Result<()> {
        for index in 0..steps {
            self.net
                .learn(&batch(index)?, &*self.sampler, &step(index))?;
        }
        Ok(())
    }

    /// Compares a variable with expected numbers.
    fn assert_close(&self, name: &str, expected: &[f64]) {
        let all = self.vars.all();
        let (_, var) = all.iter().find(|(path, _)| path == name).expect(name);
        assert_close(name, var, expected);
    }
}

fn built<T>(name: &str, settings: &str, context: &BuildContext) -> Result<Box<T>>
where
    T: Registered + ?Sized,
{
    let mut pick = Pick::<T>::new(name);
    pick.settings = settings.parse().expect("these settings are TOML");
    plugin::build(&pick, context)
}

onward::settings! {
    /// The example as the positive view, and fixed numbers as the negative view.
    struct TwoViews {}
}

impl NegativeSampler for TwoViews {
    fn views(&self, batch: &Batch, _: &Prediction<'_>, _: &Step) -> Result<Views> {
        let negative = numbers(5., batch.examples().shape())?;
        let negative = negative.to_dtype(batch.examples().dtype())?;
        let both = Tensor::cat(&[batch.examples(), &negative], 0)?;
        Views::new(
            Input::stacked(both, 2)?,
            vec![Role::Positive, Role::Negative],
        )
    }

    fn uses_labels(&self) -> bool {
        false
    }
}

onward::register! {
    dyn NegativeSampler, "two_views", "the example and fixed numbers (for these tests, 2026)",
    |settings: TwoViews, _context| Ok(Box::new(settings))
}

/// A step of the first epoch.
fn step(index: u64) -> Step {
    Step {
        index,
        train: true,
        ..Step::evaluation(1)
    }
}

fn assert_close(what: &str, found: &Tensor, expected: &[f64]) {
    let found = found.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    let near = |(found, expected): (&f64, &f64)| (found - expected).abs() < 1e-7;
    let all_near = found.iter().zip(expected).all(near);
    assert!(all_near, "{what}: expected {expected:?}, found {found:?}");
}

/// Four examples with the labels 0, 1, 1, 2.
fn batch(k: f64) -> Result<Batch> {
    Batch::new(numbers(k, (4, 3))?, vec![0, 1, 1, 2])
}

/// Trains on 1000 embedded digits and returns the test error.
fn error_on_digits(settings: &[(&str, &str)], architecture: &str) -> Result<f64> {
    let data = r#"{ name = "digits", size = 1000 }"#;
    let mut run = Run::builder(architecture);
    for (key, value) in [("data", data), ("epochs", "5"), ("batch", "50")]
        .iter()
        .chain(settings)
    {
        if *key == "preset" {
            run = run.preset(value.trim_matches('"'));
            continue;
        }
        let table: onward::export::Table = format!("{key} = {value}").parse().expect("TOML");
        run = run.set(key, table[*key].clone());
    }
    Ok(run.build()?.fit(&mut ())?.test.error)
}

#[test]
fn all_plugins_conform() {
    conformance::of_package(env!("CARGO_PKG_NAME")).assert_passed();
}
