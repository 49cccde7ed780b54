use super::*;

fn vars(seed: u64) -> Vars {
    Vars::new(seed, DType::F32, &Device::Cpu)
}

const NORMAL: Init = Init::Randn {
    mean: 0.,
    stdev: 1.,
};

#[test]
fn values_depend_on_seed_and_name_but_not_on_the_order_of_creation() -> Result<()> {
    let (one, two, other) = (vars(1), vars(1), vars(2));
    let a = one.get("a", 5, NORMAL)?.to_vec1::<f32>()?;
    one.get("b", 5, NORMAL)?;
    let b = two.get("b", 5, NORMAL)?.to_vec1::<f32>()?;
    assert_eq!(a, two.get("a", 5, NORMAL)?.to_vec1::<f32>()?);
    assert_ne!(a, b);
    assert_ne!(a, other.get("a", 5, NORMAL)?.to_vec1::<f32>()?);
    Ok(())
}

#[test]
fn variables_made_by_candle_are_listed_and_can_be_learned() -> Result<()> {
    let vars = vars(1);
    let scope = vars.scope("blocks").scope(0);
    let linear = candle_nn::linear(3, 2, scope.builder())?;
    let names: Vec<_> = vars.learned().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["blocks.0.bias", "blocks.0.weight"]);
    let loss = linear.weight().sum_all()?;
    let gradients = loss.backward()?;
    assert!(gradients.get(&scope.learned()[1].1).is_some());
    Ok(())
}

/// A cache of one block outlives the updates of the others.
#[test]
fn changes_are_counted_near_the_scope_that_reports_them() {
    let root = vars(1);
    let blocks = root.scope("blocks");
    let [one, ten, layer] = ["1", "10", "1.layer"].map(|name| blocks.scope(name));
    let versions = || [&root, &one, &ten, &layer].map(Vars::version);
    assert_eq!(versions(), [0; 4]);
    one.changed();
    assert_eq!(versions(), [1, 1, 0, 1]);
    layer.changed();
    assert_eq!(versions(), [2, 2, 0, 2]);
    ten.changed();
    assert_eq!(versions(), [3, 2, 1, 2]);
    root.changed();
    assert_eq!(versions(), [4, 3, 2, 3]);
}

#[test]
fn a_failed_restore_changes_nothing() -> Result<()> {
    let vars = vars(1);
    let a = vars.get("a", 2, Init::Const(1.))?;
    vars.get("b", 2, Init::Const(1.))?;
    let zeros = Tensor::zeros(2, DType::F32, &Device::Cpu)?;
    let short = HashMap::from([("a".to_string(), zeros.clone())]);
    assert!(vars.restore(&short).is_err());
    let mut full = short;
    full.insert("b".into(), zeros.clone());
    full.insert("c".into(), zeros);
    assert!(vars
        .restore(&full)
        .unwrap_err()
        .to_string()
        .starts_with("c: saved"));
    assert_eq!(a.to_vec1::<f32>()?, [1., 1.]);
    full.remove("c");
    vars.restore(&full)?;
    assert_eq!(a.to_vec1::<f32>()?, [0., 0.]);
    Ok(())
}

#[test]
fn what_is_allocated_needs_no_more_memory_but_for_its_optimiser() -> Result<()> {
    let vars = vars(1);
    vars.get("a", 100, NORMAL)?;
    vars.state("sums", 10, DType::F64)?;
    assert_eq!(vars.tree().needed(40), 2 * 40 + 400);
    // Ten equal layers, as the last of them is made.
    for layer in 0..9 {
        vars.scope(layer).get("weight", 100, NORMAL)?;
    }
    assert_eq!(vars.tree().needed(400), 2 * 400 + 10 * 400);
    Ok(())
}

#[test]
fn an_oversized_variable_is_refused_before_memory_is_allocated() {
    let error = vars(1)
        .get("weight", (1_000_000_000, 1_000_000_000_000), NORMAL)
        .unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[test]
fn a_name_is_of_one_kind_of_variable() -> Result<()> {
    let vars = vars(1);
    let first = vars.get("a", 2, NORMAL)?;
    assert_eq!(vars.get("a", 2, NORMAL)?.id(), first.id());
    for error in [
        vars.buffer("a", 2, NORMAL).err(),
        vars.state("a", 2, DType::F32).err(),
        vars.state("s", 2, DType::F64)
            .and(vars.state("s", 2, DType::F32))
            .err(),
    ] {
        let message = error.expect("it is another kind").to_string();
        assert!(
            message.contains("expected a variable from `Vars::"),
            "{message}"
        );
    }
    Ok(())
}
