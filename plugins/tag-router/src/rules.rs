//! Rules, and which of them takes a call: the first whose `when` fits, whose share includes the call, and whose
//! target can take it.
//!
//! A rule that forwards to a service which is not in the catalogue is passed over. A rule with a share is an
//! experiment: it is also passed over while its target has no healthy instance, or none with its tag. A rule without
//! a share is an order: it holds, and the host refuses the call when nobody with the tag is there. Until the first
//! catalogue arrives, all rules are trusted.

mod pattern;
mod read;
mod share;

use meshwright_sdk::settings::Issue;
use pattern::Patterns;
use share::Share;

/// What rules look at in a call.
pub struct Call<'a> {
    pub random: u64,
    pub affinity: u64,
    pub service: &'a str,
    pub tool: &'a str,
    pub method: &'a str,
    pub client: &'a str,
}

/// What rules look at in a service.
pub struct Service {
    pub name: String,
    pub tags: Vec<String>,
    pub healthy: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Forward {
    /// The asked service when absent.
    pub service: Option<String>,
    pub tag: Option<String>,
    pub tool: Option<String>,
    pub timeout_ms: Option<u32>,
    pub mirror: Option<Mirror>,
}

/// Where a copy goes, and of how many of 1,000 calls.
#[derive(Debug, PartialEq, Eq)]
pub struct Mirror {
    pub service: String,
    pub permille: u16,
    pub any_tool: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub retry_after_ms: Option<u32>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Forward(Forward),
    Reject(Refusal),
}

#[derive(Debug, Default)]
struct When {
    service: Patterns,
    tool: Patterns,
    client: Patterns,
    method: Patterns,
}

impl When {
    fn fits(&self, call: &Call<'_>) -> bool {
        self.tool.fit(call.tool)
            && self.service.fit(call.service)
            && self.client.fit(call.client)
            && self.method.fit(call.method)
    }
}

#[derive(Debug)]
struct Rule {
    why: String,
    when: When,
    share: Option<Share>,
    outcome: Outcome,
}

/// What decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub tool: bool,
    pub client: bool,
    pub affinity: bool,
}

#[derive(Default)]
pub struct Rules {
    rules: Vec<Rule>,
    /// Sorted by name; `None` until the first one arrives.
    catalog: Option<Vec<Service>>,
}

impl Rules {
    /// # Errors
    /// Every fault of the configuration.
    pub fn read(config_json: &str) -> Result<Self, Vec<Issue>> {
        Ok(Self { rules: read::rules(config_json)?, catalog: None })
    }

    /// Takes the rules of `other` and keeps the catalogue.
    pub fn replace(&mut self, other: Self) {
        self.rules = other.rules;
    }

    pub fn set_catalog(&mut self, mut services: Vec<Service>) {
        services.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.catalog = Some(services);
    }

    /// The outcome for `call` and the phrase that names its rule; `None` passes. Allocates nothing.
    pub fn decide(&self, call: &Call<'_>) -> Option<(&str, &Outcome)> {
        let rule = self.rules.iter().find(|rule| {
            rule.when.fits(call)
                && rule.share.as_ref().is_none_or(|share| share.takes(call.random, call.affinity))
                && self.can_take(rule, call.service)
        })?;
        Some((&rule.why, &rule.outcome))
    }

    /// What another call must have in common with this one to be decided alike, besides service and method; `None`
    /// when chance has a say.
    pub fn terms(&self, call: &Call<'_>) -> Option<Terms> {
        let mut terms = Terms {
            tool: self.rules.iter().any(|rule| rule.when.tool.choose_some()),
            client: self.rules.iter().any(|rule| rule.when.client.choose_some()),
            affinity: false,
        };
        // Which of the rules that fit takes the call is the share's to say; the others never fit.
        for share in
            self.rules.iter().filter(|rule| rule.when.fits(call)).filter_map(|rule| rule.share.as_ref())
        {
            if !share.is_sticky() {
                return None;
            }
            terms.affinity = true;
        }
        Some(terms)
    }

    fn can_take(&self, rule: &Rule, asked: &str) -> bool {
        let (Outcome::Forward(forward), Some(catalog)) = (&rule.outcome, &self.catalog) else { return true };
        let name = forward.service.as_deref().unwrap_or(asked);
        let Ok(found) = catalog.binary_search_by(|service| service.name.as_str().cmp(name)) else {
            // The asked name may be that of an instance, which no catalogue lists.
            return forward.service.is_none();
        };
        let service = &catalog[found];
        let has_tag = || forward.tag.as_ref().is_none_or(|tag| service.tags.contains(tag));
        rule.share.is_none() || (service.healthy > 0 && has_tag())
    }
}

/// Decides a few calls whose outcome is known, and counts a canary's share.
///
/// # Errors
/// The first outcome that is not the expected one.
pub fn self_test() -> Result<(), String> {
    const CONFIG: &str = r#"{"rules": [
        {"name": "frozen", "when": {"tool": "delete_*"}, "reject": {"reason": "frozen", "retry_after_ms": 5}},
        {"name": "gone", "when": {"service": "a"}, "forward": {"service": "gone"}},
        {"name": "canary", "when": {"service": ["a", "b"]}, "permille": 100, "forward": {"tag": "canary"}}
    ]}"#;
    let mut rules = Rules::read(CONFIG)
        .map_err(|issues| format!("a valid configuration is refused: {}", issues[0].message))?;
    rules.set_catalog(vec![Service { name: "a".into(), tags: vec!["canary".into()], healthy: 1 }]);
    let call =
        |tool, random| Call { random, affinity: 0, service: "a", tool, method: "tools/call", client: "" };
    let frozen = rules.decide(&call("delete_all", 0));
    if !matches!(frozen, Some(("rule `frozen`", Outcome::Reject(_)))) {
        return Err(format!("a call that must be rejected got {frozen:?}"));
    }
    let canaries = (0..1000).filter(|random| rules.decide(&call("read", *random)).is_some()).count();
    if !(50..=150).contains(&canaries) {
        return Err(format!("a canary of 100 ‰ took {canaries} of 1000 calls"));
    }
    match Rules::read(r#"{"rules": [{"name": "x"}]}"#) {
        Ok(_) => Err("a rule without an outcome is accepted".into()),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
