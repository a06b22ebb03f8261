use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::mcp::declared;
use crate::mesh::offer::{Kind, Offer};
use crate::store::{Change, rows, schema};

fn tool(name: &str, description: &str, parameters: &[&str]) -> Item {
    let properties: Vec<String> = parameters.iter().map(|name| format!("{name:?}:{{}}")).collect();
    let json = format!(
        r#"{{"name":{name:?},"description":{description:?},"inputSchema":{{"type":"object","properties":{{{}}}}}}}"#,
        properties.join(",")
    );
    declared::parse(Kind::Tool, &json).expect("a tool")
}

fn offered(connection: &mut Connection, service: &str, tools: Vec<Item>) {
    let name = Name::new(service).expect("a name");
    let change = Change::Offer(name, Offer::default().with(Kind::Tool, tools).into());
    rows::commit(connection, &[change]).expect("a commit");
}

fn database() -> Connection {
    let mut connection = Connection::open_in_memory().expect("a database");
    schema::migrate(&mut connection, 0).expect("the schema");
    offered(
        &mut connection,
        "github",
        vec![
            tool("createIssue", "Opens a ticket in a repository.", &["repoOwner", "title"]),
            tool("list_issues", "Lists what is open.", &["repo"]),
            tool("search_code", "Searches the code of all repositories for a text.", &["query"]),
        ],
    );
    offered(
        &mut connection,
        "weather",
        vec![
            tool("forecast", "The weather of the next days.", &["city", "days"]),
            tool("größe", "Misst die Größe.", &[]),
        ],
    );
    connection
}

fn found(connection: &Connection, query: &str) -> Vec<String> {
    let found = find(connection, query, 10, &mut |_, _| true).expect("a search");
    found.into_iter().map(|found| format!("{}/{}", found.service, found.tool)).collect()
}

#[test]
fn names_weigh_most_and_words_may_be_begun_or_bent() {
    let connection = database();
    assert_eq!(found(&connection, "create issue")[0], "github/createIssue");
    assert_eq!(found(&connection, "issues")[..2], ["github/list_issues", "github/createIssue"]);
    assert!(found(&connection, "repositories").contains(&"github/createIssue".to_owned()));
    assert_eq!(found(&connection, "forec"), ["weather/forecast"]);
    assert_eq!(found(&connection, "CITY"), ["weather/forecast"]);
    assert_eq!(found(&connection, "repo_owner")[0], "github/createIssue");
    assert_eq!(found(&connection, "searching code")[0], "github/search_code");
    assert_eq!(found(&connection, "grosse größe"), ["weather/größe"]);
    assert_eq!(found(&connection, "weather").len(), 2, "the service's name counts");
    assert!(found(&connection, "zebra-xyz").is_empty());
    assert!(found(&connection, "").is_empty() && found(&connection, " -- ").is_empty());
}

#[test]
fn only_what_is_admitted_is_found_and_the_limit_counts_those() {
    let connection = database();
    let mut asked = 0;
    let mut admits = |service: &str, tool: &str| {
        asked += 1;
        service == "weather" || tool == "search_code"
    };
    let hits = find(&connection, "issue code weather repository", 2, &mut admits).expect("a search");
    assert_eq!(hits.len(), 2);
    assert!(hits.iter().all(|hit| hit.service == "weather" || hit.tool == "search_code"), "{hits:?}");
    assert!(asked > 2);
}

#[test]
fn the_index_follows_what_is_offered() {
    let mut connection = database();
    offered(&mut connection, "github", vec![tool("merge", "Merges.", &[])]);
    assert!(found(&connection, "issue").is_empty());
    assert_eq!(found(&connection, "merge"), ["github/merge"]);
    let gone = Change::OfferGone(Name::new("github").expect("a name"));
    rows::commit(&mut connection, &[gone]).expect("a commit");
    assert!(found(&connection, "merge").is_empty());
}

#[test]
fn tools_that_were_kept_before_there_was_an_index_are_found() {
    let mut connection = Connection::open_in_memory().expect("a database");
    schema::migrate_to(&mut connection, 0, 2).expect("the schema without an index");
    let insert =
        r#"INSERT INTO offers VALUES ('s', 'tool', 0, 'old', '{"name":"old","description":"ancient"}', 0)"#;
    connection.execute_batch(insert).expect("a row");
    schema::migrate(&mut connection, 2).expect("the newest schema");
    assert_eq!(found(&connection, "ancient"), ["s/old"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_query_is_a_syntax_error(query in "[\\PC\\x00\"'*():^+\\-]{0,40}( (OR|AND|NOT|NEAR) [\\PC\"*]{0,10})?") {
        found(&database(), &query);
    }
}
