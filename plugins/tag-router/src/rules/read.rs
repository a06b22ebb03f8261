//! The configuration of rules.

use meshwright_sdk::settings::{self, Fields, Issue};

use super::pattern::Patterns;
use super::share::Share;
use super::{Forward, Mirror, Outcome, Refusal, Rule, When};

/// The host ends every call after ten minutes.
const TIMEOUT_MS_MAX: u32 = 600_000;
const RETRY_AFTER_MS_MAX: u32 = 7 * 24 * 3_600_000;

pub(super) fn rules(config_json: &str) -> Result<Vec<Rule>, Vec<Issue>> {
    settings::read(config_json, |fields| {
        let mut names: Vec<String> = Vec::new();
        let read = fields.objects("rules", |fields| rule(fields, &mut names));
        read.unwrap_or_default()
    })
}

fn rule(fields: &mut Fields<'_>, names: &mut Vec<String>) -> Option<Rule> {
    let name = fields.required("name", Fields::text);
    if let Some(name) = &name {
        if names.contains(name) {
            fields.fault("name", format!("Another rule is called `{name}` too."));
        }
        names.push(name.clone());
    }
    let when = fields.object("when", when).unwrap_or_default();
    let (has_forward, has_reject) = (fields.has("forward"), fields.has("reject"));
    if has_forward == has_reject {
        fields.fault_here(if has_forward {
            "A rule has either `forward` or `reject`, not both."
        } else {
            "A rule needs `forward` or `reject`."
        });
    }
    let forward = fields.object("forward", forward).map(Outcome::Forward);
    let reject = fields.object("reject", refusal).flatten().map(Outcome::Reject);
    let (has_permille, has_sticky) = (fields.has("permille"), fields.has("sticky"));
    let permille = fields.integer("permille", 0..=1000);
    let sticky = fields.boolean("sticky").unwrap_or(false);
    if has_sticky && !has_permille {
        fields.fault("sticky", "This has no effect without `permille`.");
    }
    let name = name?;
    Some(Rule {
        why: format!("rule `{name}`"),
        when,
        share: permille.map(|permille| Share::new(permille, sticky, &name)),
        outcome: forward.or(reject)?,
    })
}

fn when(fields: &mut Fields<'_>) -> When {
    When {
        service: patterns(fields, "service"),
        tool: patterns(fields, "tool"),
        client: patterns(fields, "client"),
        method: patterns(fields, "method"),
    }
}

fn patterns(fields: &mut Fields<'_>, key: &'static str) -> Patterns {
    let given = fields.has(key);
    let texts = fields.texts(key).unwrap_or_default();
    // An empty list would fit everything, where its author most likely meant nothing.
    if given && texts.is_empty() {
        fields.fault(key, "At least one pattern is needed; leave the setting out to fit everything.");
    }
    Patterns::new(texts)
}

fn forward(fields: &mut Fields<'_>) -> Forward {
    let given = ["service", "tag", "tool", "timeout_ms", "mirror"].iter().any(|key| fields.has(key));
    let forward = Forward {
        service: fields.name("service"),
        tag: fields.name("tag"),
        tool: fields.text("tool"),
        timeout_ms: fields.integer("timeout_ms", 1..=TIMEOUT_MS_MAX),
        mirror: fields.object("mirror", mirror).flatten(),
    };
    if !given {
        fields.fault_here("This changes nothing; give `service`, `tag`, `tool`, `timeout_ms` or `mirror`.");
    }
    forward
}

fn mirror(fields: &mut Fields<'_>) -> Option<Mirror> {
    let service = fields.required("service", Fields::name);
    let permille = fields.integer("permille", 0..=1000).and_then(|permille| permille.try_into().ok());
    let any_tool = fields.boolean("any_tool").unwrap_or(false);
    Some(Mirror { service: service?, permille: permille.unwrap_or(1000), any_tool })
}

fn refusal(fields: &mut Fields<'_>) -> Option<Refusal> {
    let reason = fields.required("reason", Fields::text);
    let retry_after_ms = fields.integer("retry_after_ms", 0..=RETRY_AFTER_MS_MAX);
    Some(Refusal { reason: reason?, retry_after_ms })
}
