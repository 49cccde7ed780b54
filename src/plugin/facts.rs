//! What a plugin's rule uses, found by building it with its defaults for a small example.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use toml::{Table, Value};

use super::build::build;
use super::registry::{self, Info};
use crate::contract::architecture::Architecture;
use crate::contract::build_context::BuildContext;
use crate::contract::goodness::GoodnessFn;
use crate::contract::head::without_optimiser;
use crate::contract::layer::LocalLayer;
use crate::contract::loss::{Loss, Objective};
use crate::contract::prediction::Prediction;
use crate::contract::rule::Rule;
use crate::contract::sampler::NegativeSampler;
use crate::error::Result;
use crate::flow::batch::Batch;
use crate::flow::step::Step;
use crate::flow::vars::Vars;
use crate::flow::views::Role;
use crate::settings::{Idle, Pick, PluginKind};

/// What a plugin says of its rule; what does not apply to its kind is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// The class of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<&'static str>,
    /// Whether it learns from labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<bool>,
    /// Whether there are negative views.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negatives: Option<bool>,
    /// How far a gradient reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradient: Option<&'static str>,
    /// Whether the neutral view of a sampler is the example as it is.
    #[serde(skip)]
    pub keeps_examples: bool,
    /// Whether a goodness has no variables that learn.
    #[serde(skip)]
    pub is_fixed: bool,
}

impl Facts {
    fn of_rule(rule: Rule) -> Self {
        Self {
            class: Some(rule.word()),
            negatives: Some(rule.has_negatives()),
            gradient: Some(rule.gradient()),
            ..Self::default()
        }
    }
}

const CLASSES: usize = 4;

/// The facts that were found, by kind and name: a plugin is built once for them.
static KNOWN: Mutex<BTreeMap<(&str, &str), Facts>> = Mutex::new(BTreeMap::new());

/// Forgets what was found of a plugin, since another one takes its place.
pub(super) fn forget(info: &Info) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.remove(&(info.kind, info.name));
}

/// The facts of a plugin; nothing of one that cannot be built for a small example, and of
/// a layer that follows the goodness.
pub(crate) fn of(info: &Info) -> Facts {
    let of = (info.kind, info.name);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(facts) = known().get(&of) {
        return facts.clone();
    }
    let facts = found(info).ok().flatten().unwrap_or_default();
    known().insert(of, facts.clone());
    facts
}

/// Whether a layer has a rule of its own, instead of the gradient of a goodness.
///
/// # Errors
/// [`Error::UnknownPlugin`](crate::Error::UnknownPlugin) for a layer that there is not.
pub fn has_own_rule(layer: &str) -> Result<bool> {
    let info = registry::info(<dyn LocalLayer>::KIND, layer)?;
    Ok(of(info).class.is_some())
}

/// The facts of the plugins that a setting of an architecture names.
fn named(settings: &Table, kind: &'static str) -> Result<Vec<Facts>> {
    let picks = match settings.get(kind) {
        Some(Value::Array(all)) => &all[..],
        one => one.map_or(&[][..], std::slice::from_ref),
    };
    let names = picks.iter().filter_map(|pick| pick.get("name")?.as_str());
    names
        .map(|name| Ok(of(registry::info(kind, name)?)))
        .collect()
}

/// The settings of an architecture that have no effect beside a layer with a rule of its
/// own, if its goodness does not learn either: there is no loss, or it has no variables.
///
/// # Errors
/// [`Error::UnknownPlugin`](crate::Error::UnknownPlugin) for a goodness or sampler that
/// there is not.
pub fn beside_own_rule(settings: &Table, layer: &str) -> Result<Vec<Idle>> {
    let loss = settings.get("loss").and_then(Value::as_str);
    let has_loss = loss != Some(Loss::None.word());
    let goodness = named(settings, <dyn GoodnessFn>::KIND)?;
    let is_fixed = !goodness.is_empty() && goodness.iter().all(|facts| facts.is_fixed);
    if has_loss && !is_fixed {
        return Ok(Vec::new());
    }
    let because =
        format!("the layer {layer} has a rule of its own, and the goodness does not learn");
    let mut idle = without_optimiser(settings, &because);
    // Other losses would be refused.
    let sampler = named(settings, <dyn NegativeSampler>::KIND)?;
    let contrasts = goodness.iter().all(|facts| facts.labels == Some(false))
        && sampler.iter().all(|facts| facts.negatives == Some(true));
    if has_loss && contrasts && loss != Some(Loss::CrossEntropy.word()) {
        idle.extend(Idle::all(&["loss", "theta", "temperature"], because));
    }
    Ok(idle)
}

fn found(info: &Info) -> Result<Option<Facts>> {
    // Images for all, and as the activity of 12 units.
    let vars = Vars::new(1, DType::F32, &Device::Cpu);
    let mut context = BuildContext::new(vars.clone(), 1)
        .with_input(&[1, 12, 12])
        .with_units(12);
    (context.example, context.classes) = (vec![1, 12, 12], CLASSES);
    if info.kind == <dyn GoodnessFn>::KIND {
        let context = context.with_input(&[12]);
        let goodness = build(&Pick::<dyn GoodnessFn>::new(info.name), &context)?;
        let loss = match goodness.classes() {
            Some(_) => Loss::CrossEntropy,
            None => Loss::Logistic,
        };
        let objective = Objective {
            loss,
            ..Objective::default()
        };
        return Ok(Some(Facts {
            labels: Some(goodness.uses_labels(&objective)),
            is_fixed: vars.learned().is_empty(),
            ..Facts::of_rule(goodness.rule(&objective))
        }));
    }
    if info.kind == <dyn LocalLayer>::KIND {
        let layer = build(&Pick::<dyn LocalLayer>::new(info.name), &context)?;
        return Ok(layer.rule().map(|rule| Facts {
            labels: Some(layer.uses_labels()),
            ..Facts::of_rule(rule)
        }));
    }
    if info.kind == <dyn NegativeSampler>::KIND {
        let sampler = build(&Pick::<dyn NegativeSampler>::new(info.name), &context)?;
        let batch = Batch::new(
            Tensor::ones((4, 1, 12, 12), DType::F32, &Device::Cpu)?,
            vec![0, 1, 2, 3],
        )?;
        let alike = Tensor::zeros((4, CLASSES), DType::F32, &Device::Cpu)?;
        let alike = (alike - (CLASSES as f64).ln())?;
        let step = Step {
            train: true,
            ..Step::evaluation(1)
        };
        let views = sampler.views(&batch, &Prediction::of(alike), &step)?;
        let neutral = sampler.neutral(&batch)?.join()?.flatten_all()?;
        let examples = batch.examples().flatten_all()?;
        return Ok(Some(Facts {
            keeps_examples: neutral.to_vec1::<f32>()? == examples.to_vec1::<f32>()?,
            labels: Some(sampler.uses_labels()),
            negatives: Some(views.targets.roles().contains(&Role::Negative)),
            ..Facts::default()
        }));
    }
    if info.kind == <dyn Architecture>::KIND {
        let net = build(&Pick::<dyn Architecture>::new(info.name), &context)?;
        return Ok(Some(Facts::of_rule(net.rule())));
    }
    Ok(None)
}
