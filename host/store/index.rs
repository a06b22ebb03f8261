//! The search for tools: FTS5 over their names, descriptions and parameters, kept in step with what services offer.

use rusqlite::{Connection, Transaction, params};

use super::FoundTool;
use crate::mcp::declared;
use crate::mesh::ids::Name;
use crate::mesh::offer::Item;

/// Most words of a query that are looked at.
const WORDS_MAX: usize = 32;

/// Puts a service's tools into the index, which holds none of it.
pub(super) fn put(step: &Transaction<'_>, service: &Name, tools: &[Item]) -> rusqlite::Result<()> {
    let mut put = step.prepare_cached(
        "INSERT INTO tool_index (service, tool, name, description, properties) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for tool in tools {
        let said = declared::in_words(&tool.json);
        let name = format!("{} {}", in_words(&tool.key), in_words(service.as_str()));
        let properties: Vec<String> = said.properties.iter().map(|name| in_words(name)).collect();
        put.execute(params![service.as_str(), &*tool.key, name, said.description, properties.join(" ")])?;
    }
    Ok(())
}

pub(super) fn remove(step: &Transaction<'_>, service: &Name) -> rusqlite::Result<()> {
    step.prepare_cached("DELETE FROM tool_index WHERE service = ?1")?.execute([service.as_str()])?;
    Ok(())
}

/// The tools that answer `query` best, of those that `admits` lets through.
pub(super) fn find(
    connection: &Connection,
    query: &str,
    limit: usize,
    admits: &mut dyn FnMut(&str, &str) -> bool,
) -> rusqlite::Result<Vec<FoundTool>> {
    let mut found = Vec::new();
    let Some(words) = match_expression(query) else { return Ok(found) };
    // A word in the name says most, one in the description more than one among the parameters.
    let mut statement = connection.prepare_cached(
        "SELECT service, tool FROM tool_index WHERE tool_index MATCH ?1
         ORDER BY bm25(tool_index, 0, 0, 10.0, 3.0, 1.0), service, tool",
    )?;
    let mut rows = statement.query([words])?;
    while let Some(row) = rows.next()? {
        let (service, tool): (String, String) = (row.get(0)?, row.get(1)?);
        if admits(&service, &tool) {
            found.push(FoundTool { service, tool });
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok(found)
}

/// Any of the query's words, or what begins with one, each in quotes: nothing of a query is syntax. `None` for a
/// query without words.
fn match_expression(query: &str) -> Option<String> {
    let spaced = in_words(query);
    let mut words: Vec<&str> =
        spaced.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    // A single letter is the beginning of half of all words; it counts only where nothing else is asked for.
    if words.iter().any(|word| word.chars().nth(1).is_some()) {
        words.retain(|word| word.chars().nth(1).is_some());
    }
    words.sort_unstable();
    words.dedup();
    words.truncate(WORDS_MAX);
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"*")).collect();
    (!quoted.is_empty()).then(|| quoted.join(" OR "))
}

/// `createIssue` as itself and as `create Issue`; what separates words otherwise, the tokenizer knows.
fn in_words(text: &str) -> String {
    let mut split = String::with_capacity(text.len() + 8);
    let mut last = None;
    for c in text.chars() {
        if last.is_some_and(char::is_lowercase) && c.is_uppercase() {
            split.push(' ');
        }
        split.push(c);
        last = Some(c);
    }
    if split.len() == text.len() { split } else { format!("{text} {split}") }
}

#[cfg(test)]
mod tests;
