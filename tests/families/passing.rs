//! What layers take in and pass on, with every standardisation.

use onward::candle_core::{DType, Device, Tensor};
use onward::{BuildContext, Input, Lesson, LocalLayer, Result, Role, Step, Targets, Vars};

use super::{built, numbers, step};

const NORMS: [&str; 4] = ["none", "batch", "group", "units"];

/// `Σ factors·what is passed on`, along a direction of the input, against the gradient
/// with respect to the input.
fn check(layer: &str, settings: &str, shape: &[usize], step: &Step) -> Result<()> {
    let vars = Vars::new(1, DType::F64, &Device::Cpu);
    let context = BuildContext::new(vars, 1);
    let context = context.with_input(&shape[1..]).with_units(4);
    let layer = built::<dyn LocalLayer>(layer, settings, &context)?;
    let (x, direction) = (numbers(1., shape)?, numbers(2., shape)?);
    let input = Input::of(x.clone())?;
    let activity = layer.forward(&input, step)?.detach();
    let factors = numbers(3., layer.pass_on(&activity)?.shape())?;
    let upstream = layer.pass_on_gradient(&activity, &factors)?;
    let targets = Targets::new(vec![Role::Positive])?;
    let lesson = Lesson {
        input: &input,
        activity: &activity,
        gradient: Some(&upstream),
        targets: &targets,
    };
    let gradient = layer.input_gradient(&lesson, step)?;
    let predicted = (gradient * &direction)?.sum_all()?.to_scalar::<f64>()?;
    let total = |by: f64| -> Result<f64> {
        let moved = Input::of((&x + (&direction * by)?)?)?;
        let passed = layer.pass_on(&layer.forward(&moved, step)?)?;
        Ok((passed * &factors)?.sum_all()?.to_scalar()?)
    };
    let slope = (total(1e-6)? - total(-1e-6)?) / 2e-6;
    assert!(slope != 0., "{settings}");
    let is_near = (slope - predicted).abs() < 1e-5 * (1. + slope.abs());
    assert!(is_near, "{settings}: {slope} and {predicted}");
    Ok(())
}

#[test]
fn gradients_cross_what_a_layer_takes_in_and_passes_on() -> Result<()> {
    for step in [step(0), Step::evaluation(1)] {
        for (input_norm, norm) in NORMS.iter().flat_map(|a| NORMS.map(|b| (a, b))) {
            let norms = format!("input_norm = \"{input_norm}\"\nnorm = \"{norm}\"");
            for passes in ["activity", "triangle"] {
                let dense = format!("{norms}\npasses = \"{passes}\"\nslope = 0.5");
                check("dense", &dense, &[5, 6], &step)?;
                check("conv", &format!("{dense}\npool = 1"), &[3, 2, 4, 6], &step)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_single_channel_less_its_own_mean_is_refused() {
    let context = BuildContext::new(Vars::new(1, DType::F64, &Device::Cpu), 1);
    let context = context.with_input(&[1, 4, 4]).with_units(2);
    let refused = built::<dyn LocalLayer>("conv", "input_norm = \"units\"", &context);
    assert!(refused.is_err_and(|error| error.to_string().contains("always 0")));
}

/// Parts of one-hot rows alone have no element type.
#[test]
fn one_hot_inputs_are_standardised_in_64_bits() -> Result<()> {
    let context = BuildContext::new(Vars::new(1, DType::F64, &Device::Cpu), 1);
    let context = context.with_input(&[3]).with_units(2);
    let layer = built::<dyn LocalLayer>("dense", "input_norm = \"group\"", &context)?;
    let index = Tensor::new(&[[0u32], [2]], &Device::Cpu)?;
    let one_hot = onward::flow::input::Values::OneHot {
        index,
        classes: 3,
        strength: 1.,
    };
    let input = Input::new([one_hot], 2, 1, &[3])?;
    assert_eq!(layer.forward(&input, &step(0))?.dtype(), DType::F64);
    Ok(())
}
