//! Configurations against the JSON Schema that a plugin gives for them.

use std::borrow::Cow;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::host_state::{cut, printable};
use super::v0_1::Issue;
use crate::spelling::{nearest, no_such};

pub const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// More are not looked for.
const ISSUES_MAX: usize = 20;
const MESSAGE_BYTES_MAX: usize = 512;

/// What is asked, as the child gets it.
#[derive(Deserialize, Serialize)]
pub struct Question<'a> {
    #[serde(borrow)]
    pub schema: Cow<'a, str>,
    #[serde(borrow)]
    pub config_json: Cow<'a, str>,
}

/// Why no configuration can be checked against it; goes on after "its `config-schema`".
#[derive(Debug, Error)]
pub enum SchemaError {
    #[error("is not JSON: {0}")]
    NotJson(serde_json::Error),
    #[error("describes no object, and every configuration is one")]
    NoObject,
    #[error("is not JSON Schema: `{place}`: {message}")]
    NotSchema { place: String, message: String },
    #[error("refers to what is not there: {0}")]
    Dangling(String),
    #[error("was asked about a configuration that is not JSON: {0}")]
    Configuration(serde_json::Error),
}

/// What speaks against the configuration; nothing when it fits.
///
/// # Errors
/// The schema is none.
pub fn issues(question: &Question<'_>) -> Result<Vec<Issue>, SchemaError> {
    let schema: Value = serde_json::from_str(&question.schema).map_err(SchemaError::NotJson)?;
    if !admits_objects(&schema) {
        return Err(SchemaError::NoObject);
    }
    let validator = validator(&schema)?;
    let config: Value = serde_json::from_str(&question.config_json).map_err(SchemaError::Configuration)?;
    let mut issues = Vec::new();
    for error in validator.iter_errors(&config).take(ISSUES_MAX) {
        if let ValidationErrorKind::Referencing(error) = error.kind() {
            return Err(SchemaError::Dangling(human(&error.to_string())));
        }
        note(&error, &schema, &mut issues);
    }
    issues.truncate(ISSUES_MAX);
    Ok(issues)
}

fn admits_objects(schema: &Value) -> bool {
    match schema {
        Value::Bool(admits) => *admits,
        Value::Object(schema) => match schema.get("type") {
            Some(Value::String(kind)) => kind == "object",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
            _ => true,
        },
        _ => false,
    }
}

/// Without network and files; patterns are matched in linear time.
fn validator(schema: &Value) -> Result<Validator, SchemaError> {
    let built = jsonschema::options().offline().with_pattern_options(PatternOptions::regex()).build(schema);
    built.map_err(|error| match error.kind() {
        ValidationErrorKind::Referencing(error) => SchemaError::Dangling(human(&error.to_string())),
        _ => SchemaError::NotSchema {
            place: human(error.instance_path().as_str()),
            message: human(&error.to_string()),
        },
    })
}

fn note(error: &ValidationError<'_>, schema: &Value, issues: &mut Vec<Issue>) {
    let path = error.instance_path().to_string();
    let place = |key: &str| format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let known = settings_beside(error, schema);
            issues.extend(unexpected.iter().map(|key| (place(key), no_such("setting", &human(key), &known))));
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            issues.push((path, format!("the setting `{name}` is missing")));
        }
        ValidationErrorKind::Type { kind } => {
            issues.push((path, format!("this must be {}, not {}", expected(kind), given(error.instance()))));
        }
        ValidationErrorKind::Enum { options } => {
            let words: Vec<&str> =
                options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let meant = error.instance().as_str().and_then(|given| nearest(given, &words));
            let meant = meant.map_or_else(String::new, |word| format!("; did you mean `{word}`?"));
            issues.push((path, human(&format!("{error}{meant}"))));
        }
        ValidationErrorKind::AnyOf { context }
        | ValidationErrorKind::OneOfNotValid { context }
        | ValidationErrorKind::OneOfMultipleValid { context } => match nearest_branch(error, context) {
            Some(branch) => branch.iter().for_each(|error| note(error, schema, issues)),
            None => issues.push((path, human(&error.to_string()))),
        },
        _ => issues.push((path, human(&error.to_string()))),
    }
}

/// The alternative that was meant, if one fits further down than the others do.
fn nearest_branch<'a>(
    error: &ValidationError<'_>,
    context: &'a [Vec<ValidationError<'static>>],
) -> Option<&'a [ValidationError<'static>]> {
    let depth = |error: &ValidationError<'_>| error.instance_path().as_str().matches('/').count();
    let reach = |branch: &[ValidationError<'static>]| branch.iter().map(depth).min().unwrap_or(0);
    let best = context.iter().max_by_key(|branch| reach(branch))?;
    (reach(best) > depth(error)).then_some(best)
}

/// The settings that stand beside one that is not known, as the schema has them.
fn settings_beside<'a>(error: &ValidationError<'_>, schema: &'a Value) -> Vec<&'a str> {
    let keyword = error.schema_path().as_str();
    let parent = keyword.rsplit_once('/').map_or("", |(parent, _)| parent);
    let properties = schema.pointer(parent).and_then(|parent| parent.get("properties"));
    properties
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(|known| known.keys().map(String::as_str))
        .collect()
}

fn expected(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(kind) => format!("of type `{kind}`"),
        TypeKind::Multiple(kinds) => {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            format!("of type {}", kinds.join(" or "))
        }
    }
}

fn given(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => format!("`{}`", human(&other.to_string())),
    }
}

fn human(text: &str) -> String {
    printable(cut(text, MESSAGE_BYTES_MAX))
}

#[cfg(test)]
mod tests;
