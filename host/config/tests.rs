use std::time::Duration;

use super::*;
use crate::mesh::child::RestartPolicy;
use crate::mesh::offer::Kind;

fn load(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("meshwright.toml");
    std::fs::write(&file, text).expect("write the file");
    Config::load(Overrides { file: Some(file), data_dir: Some("/nowhere".into()), ..Overrides::default() })
}

fn error_of(text: &str) -> String {
    load(text).expect_err("it should be refused").to_string()
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

#[test]
fn the_supervision_of_commands_is_read() {
    let config = load(
        r#"
        [services.db]
        command = "db"
        [services.github]
        command = "npx"
        instances = 2
        required = true
        depends_on = ["db"]
        restart = { policy = "always", max = 3, window = "2m" }
        startup_timeout = "90s"
        "#,
    )
    .expect("a good configuration");
    let names: Vec<&str> = config.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, ["db", "github-1", "github-2"]);
    let child = &config.services[&name("github")].child;
    assert!(child.required && child.needs == [name("db")]);
    let window = Duration::from_secs(120);
    let expected =
        Rules { policy: RestartPolicy::Always, failures_max: 3, window, startup: Duration::from_secs(90) };
    assert_eq!(child.rules, expected);
    assert_eq!(config.services[&name("db")].child.rules, Rules::default());
}

#[test]
fn services_profiles_and_sessions_are_read() {
    let config = load(
        r#"
        [services.github]
        command = "npx"
        args = ["-y", "server"]
        env = { TOKEN = "t" }
        cwd = "/tmp"
        sessions = "each"
        tools = { allow = ["search_*"], deny = ["*_all"], read_only = ["search_*"] }
        prompts = { deny = ["x"] }
        resources = { allow = ["file:///docs/*"] }
        [services.search]
        urls = ["http://127.0.0.1:5000", "http://127.0.0.1:5001/x"]
        [services.itself]
        [profiles.coding]
        services = ["github", "itself"]
        tools = { deny = ["github__delete_*"] }
        own_tools = false
        search = true
        [profiles.all]
        [sessions]
        idle_timeout = "5m"
        max = 7
        "#,
    )
    .expect("a good configuration");
    let shown: Vec<(String, String)> =
        config.instances.iter().map(|i| (i.name.to_string(), i.endpoint.to_string())).collect();
    let shown: Vec<(&str, &str)> = shown.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let expected = [
        ("github", "stdio: npx -y server"),
        ("search-1", "http://127.0.0.1:5000/mcp"),
        ("search-2", "http://127.0.0.1:5001/x"),
    ];
    assert_eq!(shown, expected);
    let Endpoint::Stdio(command) = &config.instances[0].endpoint else { panic!("a command") };
    assert!(command.per_session && command.env["TOKEN"] == "t" && command.cwd == Some("/tmp".into()));
    let exposures = config.exposures();
    let passes = |kind, key| exposures.passes("github", kind, key);
    assert!(passes(Kind::Tool, "search_code") && !passes(Kind::Tool, "search_all"));
    assert!(!passes(Kind::Tool, "delete") && !passes(Kind::Prompt, "x") && passes(Kind::Prompt, "y"));
    assert!(passes(Kind::Resource, "file:///docs/a") && !passes(Kind::Template, "file:///{x}"));
    let coding = &config.profiles[&name("coding")];
    assert!(coding.search && !coding.own_tools && coding.includes(&name("itself")));
    assert!(!coding.includes(&name("search")) && !coding.tools.passes("github__delete_x"));
    let all = &config.profiles[&name("all")];
    assert!(!all.search && all.own_tools && all.includes(&name("search")));
    assert_eq!((config.sessions.idle_timeout, config.sessions.max), (Duration::from_secs(300), 7));
    assert_eq!(config.sessions.age_max, Duration::from_secs(24 * 3600));
}

#[test]
fn an_absent_file_means_defaults() {
    let config = load("").expect("a good configuration");
    assert!(config.services.is_empty() && config.profiles.is_empty() && config.instances.is_empty());
    assert_eq!((config.sessions.idle_timeout.as_secs(), config.sessions.max), (1800, 10_000));
}

#[test]
fn errors_name_the_line_and_the_key() {
    for (text, parts) in [
        ("[services.a]\ncomand = \"x\"", &["line 2", "comand", "`command`"][..]),
        ("[services.a]\ntools = { alow = [] }", &["line 2", "alow", "`allow`"]),
        ("[profiles.a]\nserch = true", &["line 2", "serch", "`search`"]),
        ("[sessions]\nidle_timeout = \"5\"", &["line 2", "idle_timeout", "not a duration"]),
        ("[services.a]\nsessions = \"both\"", &["line 2", "both", "`shared`"]),
        ("\n[services.a]\nurl = \"https://x\"", &["services.a.url", "line 2", "https"]),
        ("\n\n[services.a]\nurl = \"ftp://x\"", &["services.a.url", "line 3", "ftp://x"]),
        ("[services.a]\nargs = [\"x\"]", &["services.a.args", "line 1", "command"]),
        ("[services.a]\ncommand = \"x\"\nurl = \"http://h\"", &["services.a.command", "line 1"]),
        ("[services.a]\nurl = \"http://h\"\nurls = [\"http://h\"]", &["services.a.urls", "line 1"]),
        ("[services.a]\nurl = \"http://h\"\nrequired = true", &["services.a.required", "beside `command`"]),
        ("[services.a]\ncommand = \"x\"\ninstances = 0", &["services.a.instances", "between 1 and 64"]),
        ("[services.a]\ncommand = \"x\"\nrestart = { max = 0 }", &["services.a.restart", "`max` is 0"]),
        ("[services.a]\ncommand = \"x\"\nrestart = { policy = \"no\" }", &["line 3", "on-failure"]),
        (
            "[services.a]\ncommand = \"x\"\nsessions = \"each\"\ninstances = 2",
            &["services.a.instances", "each session"],
        ),
        ("[services.a]\ncommand = \"\"", &["services.a.command", "line 1"]),
        ("[services.a]\ncommand = \"x\"\nenv = { \"A=B\" = \"\" }", &["services.a.env", "A=B"]),
        ("[services.a]\ntools = { deny = [\"\"] }", &["services.a.tools", "line 1", "empty"]),
        ("[services.\"a b\"]\ncommand = \"x\"", &["services.a b", "not allowed in a name"]),
        (
            "[services.a-1]\ncommand = \"x\"\n[services.a]\nurl = \"http://h\"",
            &["services.a-1", "`a-1`", "`a`"],
        ),
        ("[profiles.p]\nservices = [\"a/b\"]", &["profiles.p.services", "line 1", "a/b"]),
        ("[profiles.\"p/q\"]\n", &["profiles.p/q"]),
        ("[sessions]\nmax = 0", &["sessions.max", "between 1"]),
        ("[sessions]\nidle_timeout = \"2h\"\nage_max = \"1h\"", &["sessions.idle_timeout"]),
    ] {
        let error = error_of(text);
        for part in parts {
            assert!(error.contains(part), "no `{part}` in {error:?} for {text:?}");
        }
    }
}
