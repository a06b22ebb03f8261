//! Services that need one another.

use std::collections::BTreeMap;

use super::ids::Name;

/// The services that need themselves, by way of others or at once, each with the way around: `a → b → a`.
pub fn circles(needs: &BTreeMap<Name, Vec<Name>>) -> BTreeMap<Name, String> {
    let way = |from: &Name| {
        let mut way = vec![from.clone()];
        let mut seen = Vec::new();
        leads_to(from, from, needs, &mut way, &mut seen).then(|| {
            let names: Vec<&str> = way.iter().map(Name::as_str).collect();
            format!("{} → {from}", names.join(" → "))
        })
    };
    needs.keys().filter_map(|name| Some((name.clone(), way(name)?))).collect()
}

/// Whether `goal` is reached from `at`; `way` is then how.
fn leads_to(
    at: &Name,
    goal: &Name,
    needs: &BTreeMap<Name, Vec<Name>>,
    way: &mut Vec<Name>,
    seen: &mut Vec<Name>,
) -> bool {
    for next in needs.get(at).into_iter().flatten() {
        if next == goal {
            return true;
        }
        if seen.contains(next) {
            continue;
        }
        seen.push(next.clone());
        way.push(next.clone());
        if leads_to(next, goal, needs, way, seen) {
            return true;
        }
        way.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(pairs: &[(&str, &[&str])]) -> BTreeMap<Name, Vec<Name>> {
        let name = |text: &&str| Name::new(text).expect("a name");
        pairs.iter().map(|(from, to)| (name(from), to.iter().map(name).collect())).collect()
    }

    #[test]
    fn only_those_on_a_circle_are_named_each_with_its_way_around() {
        let circles = circles(&needs(&[
            ("a", &["b"]),
            ("b", &["x", "c"]),
            ("c", &["a"]),
            ("own", &["own"]),
            ("outside", &["a"]),
            ("x", &["unknown"]),
        ]));
        let shown: Vec<(&str, &str)> = circles.iter().map(|(n, way)| (n.as_str(), way.as_str())).collect();
        let expected =
            [("a", "a → b → c → a"), ("b", "b → c → a → b"), ("c", "c → a → b → c"), ("own", "own → own")];
        assert_eq!(shown, expected);
    }
}
