use super::*;

const fn plugin(name: &'static str, package: &'static str) -> Plugin<dyn GoodnessFn> {
    Plugin {
        info: Info::new("goodness", name, "", package, "", &Vec::new, &|_| Ok(())),
        build: &|_, _| Err(Error::unfit("test", "not built")),
    }
}

static TWO: Plugin<dyn GoodnessFn> = plugin("b", "two");
static ONE: Plugin<dyn GoodnessFn> = plugin("a", "one");
static THREE: Plugin<dyn GoodnessFn> = plugin("a", "three");
static FOUR: Plugin<dyn GoodnessFn> = plugin("c", "four");

/// Three plugins in every possible order of linking.
fn orders(of: [&'static Plugin<dyn GoodnessFn>; 3]) -> Vec<Vec<&'static Plugin<dyn GoodnessFn>>> {
    [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ]
    .map(|order| order.map(|index| of[index]).to_vec())
    .to_vec()
}

#[test]
fn plugins_are_sorted_by_name_in_any_order_of_linking() {
    for order in orders([&FOUR, &TWO, &ONE]) {
        let names: Vec<_> = sorted("goodness", order)
            .unwrap()
            .iter()
            .map(|p| p.info.name)
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
    }
}

#[test]
fn a_duplicate_is_refused_with_both_packages_in_any_order_of_linking() {
    for order in orders([&THREE, &TWO, &ONE]) {
        let error = sorted("goodness", order).err().unwrap().to_string();
        assert!(
            error.contains("one in package one, one in package three"),
            "{error}"
        );
    }
}
