use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::mesh::child::{RestartPolicy, Start};
use crate::mesh::exposure::Exposure;
use crate::mesh::hedge::{After, Hedge};
use crate::mesh::offer::Kind;

fn load(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("meshwright.toml");
    std::fs::write(&file, text).expect("write the file");
    Config::load(Overrides { file: Some(file), data_dir: Some("/nowhere".into()), ..Overrides::default() })
}

/// All that is said against it.
fn complaints(text: &str) -> String {
    match load(text) {
        Err(error) => error.to_string(),
        Ok(config) => {
            let flaws = config.left_out.iter().flat_map(LeftOut::flaws);
            flaws.map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }
    }
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
        start = "lazy"
        idle_stop = "10m"
        "#,
    )
    .expect("a good configuration");
    let names: Vec<&str> = config.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, ["db", "github-1", "github-2"]);
    let child = &config.services[&name("github")].child;
    assert!(child.required && child.needs == [name("db")]);
    let window = Duration::from_secs(120);
    let expected = Rules {
        policy: RestartPolicy::Always,
        failures_max: 3,
        window,
        startup: Duration::from_secs(90),
        start: Start::Lazy,
        idle_stop: Some(Duration::from_secs(600)),
    };
    assert_eq!(child.rules, expected);
    assert_eq!(config.services[&name("db")].child.rules, Rules::default());
}

#[test]
fn the_time_to_start_holds_for_services_that_say_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("meshwright.toml");
    let main = "include = [\"mcp.json\"]\n[supervisor]\nstartup_timeout = \"2m\"\n[services.own]\ncommand = \"x\"\n\
                startup_timeout = \"5s\"\n";
    std::fs::write(&path, main).expect("write");
    std::fs::write(folder.path().join("mcp.json"), r#"{"mcpServers": {"theirs": {"command": "y"}}}"#)
        .expect("write");
    let overrides = Overrides { file: Some(path), data_dir: Some("/nowhere".into()), ..Overrides::default() };
    let config = Config::load(overrides).expect("a good configuration");
    let startup = |service: &str| config.services[&name(service)].child.rules.startup.as_secs();
    assert_eq!((startup("own"), startup("theirs")), (5, 120));
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
fn hedging_is_off_unless_it_is_said_when_and_how_often() {
    let hedge = |text: &str| {
        let text = format!("[services.s]\nurl = \"http://127.0.0.1:5000\"\nhedge = {text}\n");
        load(&text).expect("a configuration").services.get(&name("s")).map(|service| service.hedge)
    };
    let (time, quantile) = (After::Time(Duration::from_millis(200)), After::Quantile(950));
    assert_eq!(hedge(r#"{ after = "200ms" }"#), Some(Some(Hedge { after: time, budget_permille: 50 })));
    assert_eq!(
        hedge(r#"{ after = "p95", budget_percent = 10 }"#),
        Some(Some(Hedge { after: quantile, budget_permille: 100 }))
    );
    for bad in [
        "{}",
        r#"{ after = "p49" }"#,
        r#"{ after = "soon" }"#,
        r#"{ after = "0s" }"#,
        r#"{ after = "p95", budget_percent = 51 }"#,
    ] {
        let text = format!("[services.s]\nurl = \"http://127.0.0.1:5000\"\nhedge = {bad}\n");
        assert_eq!(load(&text).expect("a configuration").left_out.len(), 1, "{bad}: the service is left out");
    }
    assert_eq!(load("[services.s]").expect("a configuration").services[&name("s")].hedge, None);
}

#[test]
fn an_absent_file_means_defaults() {
    let config = load("").expect("a good configuration");
    assert!(config.services.is_empty() && config.profiles.is_empty() && config.instances.is_empty());
    assert_eq!((config.sessions.idle_timeout.as_secs(), config.sessions.max), (1800, 10_000));
}

#[test]
fn complaints_name_the_place_the_key_and_what_was_meant() {
    for (text, parts) in [
        (
            "[services.a]\ncomand = \"x\"",
            &[".toml:2:1: `services.a`: ", "`comand`", "did you mean `command`?"][..],
        ),
        ("[services.a]\ntools = { alow = [] }", &[":2:11: ", "did you mean `allow`?"]),
        ("[profiles.a]\nserch = true", &[":2:1: ", "did you mean `search`?"]),
        ("[sessions]\nidle_timeout = \"5\"", &[":2:16: ", "not a duration"]),
        ("[services.a]\nsessions = \"eech\"", &[":2:12: ", "no value `eech`", "did you mean `each`?"]),
        ("\n[services.a]\nurl = \"https://x\"", &[":3:1: `services.a.url`", "https"]),
        ("\n\n[services.a]\nurl = \"ftp://x\"", &[":4:1: `services.a.url`", "ftp://x"]),
        ("[services.a]\nargs = [\"x\"]", &[":2:1: `services.a.args`", "command"]),
        (
            "[services.a]\nrestart = \"never\"",
            &[":2:11: ", "expected a table such as `{ policy = \"never\" }`, not the string \"never\""],
        ),
        (
            "[services.a]\ntools = [\"x\"]\nhedge = true",
            &["a table such as `{ after = \"p95\" }`, not `true`"],
        ),
        ("[services.a]\nprompts = 5", &["a table such as `{ deny = [\"secret_*\"] }`, not the number `5`"]),
        ("[services.a]\nhedge = {}", &["`after` is missing"]),
        ("[services.a]\nargs = \"x\"", &["expected a list such as `[\"a\", \"b\"]`, not the string \"x\""]),
        ("[services.a]\nenv = [\"X=1\"]", &["expected a table, not a list"]),
        ("[services.a]\ninstances = -1", &["expected a whole number, not below 0, not the number `-1`"]),
        ("[services.a]\nrequired = \"yes\"", &["expected `true` or `false`, not the string \"yes\""]),
        ("[services.a]\nsessions = 1", &["expected a string"]),
        ("[services.a]\nidle_stop = \"0s\"", &["`0s` is too short; it must be more than 0"]),
        ("[services.a]\nidle_stop = \"-5s\"", &["it must be more than 0"]),
        ("[services]\na = 5", &["expected a table, not the number `5`"]),
        ("[plugins.p]\norder = 1.5", &["expected a whole number, not the number `1.5`"]),
        ("[calls]\ntimeout = 30", &["expected a duration such as \"30s\", not the number `30`"]),
        (
            "[server]\nmcp_addr = 6000",
            &["expected an address such as \"127.0.0.1:6000\", not the number `6000`"],
        ),
        ("[server]\nmcp_addr = \"6000\"", &["expected an address such as \"127.0.0.1:6000\""]),
        ("[server]\ndata_dir = 5", &["expected a path such as \"/srv/data\", not the number `5`"]),
        ("[services.a]\nargs = [\"x\", 5]\ncommand = \"x\"", &[":2:14: ", "expected a string"]),
        ("[services.a]\ncommand = \"x\"\nurl = \"http://h\"", &[":2:1: `services.a.command`"]),
        ("[services.a]\nurl = \"http://h\"\nurls = [\"http://h\"]", &[":3:1: `services.a.urls`"]),
        ("[services.a]\nurl = \"http://h\"\nrequired = true", &["`services.a.required`", "beside `command`"]),
        ("[services.a]\ncommand = \"x\"\ninstances = 0", &["`services.a.instances`", "between 1 and 64"]),
        ("[services.a]\ncommand = \"x\"\nrestart = { max = 0 }", &["`services.a.restart`", "`max` is 0"]),
        (
            "[services.a]\ncommand = \"x\"\nsessions = \"each\"\ninstances = 2",
            &["`services.a.instances`", "each session"],
        ),
        (
            "[services.a]\ncommand = \"x\"\nsessions_max = 2",
            &["`services.a.sessions_max`", "sessions = \"each\""],
        ),
        (
            "[services.a]\ncommand = \"x\"\nsessions = \"each\"\nsessions_max = 0",
            &["`services.a.sessions_max`", "0 is not between 1 and 10000"],
        ),
        ("[services.a]\ncommand = \"\"", &[":2:1: `services.a.command`"]),
        ("[services.a]\ncommand = \"x\"\nenv = { \"A=B\" = \"\" }", &[":3:1: `services.a.env`", "A=B"]),
        ("[services.a]\ntools = { deny = [\"\"] }", &[":2:1: `services.a.tools`", "empty"]),
        ("[services.\"a b\"]\ncommand = \"x\"", &[":1:11: `services.a b`", "not allowed in a name"]),
        (
            "[services.a-1]\ncommand = \"x\"\n[services.a]\nurl = \"http://h\"",
            &[":1:11: `services.a-1`: its instance `a-1` has the name of one of `a`"],
        ),
        ("[services.a]\ncommand = \"${NO_SUCH_VARIABLE}\"", &[":2:11: ", "`NO_SUCH_VARIABLE` is not set"]),
        ("[profiles.p]\nservices = [\"a/b\"]", &[":2:1: `profiles.p.services`", "a/b"]),
        ("[profiles.\"p/q\"]\n", &[":1:11: `profiles.p/q`"]),
        ("[sessions]\nmax = 0", &[":2:1: `sessions.max`", "between 1"]),
        ("[sessions]\nidle_timeout = \"2h\"\nage_max = \"1h\"", &[":2:1: `sessions.idle_timeout`"]),
        ("[sevices.a]\nurl = \"http://h\"", &[":1:2: ", "no section `sevices`", "did you mean `services`?"]),
        (
            "[plugins.p]\nlimits = { memory_mib = 0 }",
            &[":2:1: `plugins.p.limits.memory_mib`", "0 is not between 1 and 4095"],
        ),
        (
            "[plugins.p]\nlimits = { ask_timeout = \"2s\" }",
            &["`plugins.p.limits.ask_timeout`", "2s is not between 1ms and 1s"],
        ),
        (
            "[plugins.p]\nlimits = { background_timeout = \"1ms\" }",
            &["`plugins.p.limits.background_timeout`", "1ms is not between 10ms and 30s"],
        ),
        (
            "[plugins.p]\nlimits = { pick_budget = \"6ms\" }",
            &["`plugins.p.limits.pick_budget`", "6ms is longer", "`ask_timeout` is 5ms"],
        ),
        ("[plugins.p]\nlimits = { memory_mb = 64 }", &["`memory_mb`", "did you mean `memory_mib`?"]),
        ("[plugins.p]\nlimits = 64", &["a table such as `{ memory_mib = 64 }`, not the number `64`"]),
        ("[plugins.p]\ngrants = [\"moon\"]", &[":2:1: `plugins.p.grants`", "`moon`"]),
        ("include = [\"no-such-file.json\"]", &[":1:12: `include`", "no-such-file.json", "cannot be read"]),
        ("services = 5", &["`services`: it must be a table"]),
        ("[server]\nworkers = 0", &[":2:1: `server.workers`", "between 1 and 256"]),
        ("[calls]\ntimeout = \"20m\"", &[":2:1: `calls.timeout`", "at most 600 s"]),
        ("a = \nb = 1\n[x", &[":1:", ":3:"]),
        ("[server]\nworker = 1\n[calls]\ntimout = \"1s\"", &["`workers`?", "did you mean `timeout`?"]),
    ] {
        let said = complaints(text);
        for part in parts {
            assert!(said.contains(part), "no `{part}` in {said:?} for {text:?}");
        }
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_nothing_that_only_follows_from_it() {
    let text = "[server]\nplugins_dri = \"x\"\nworkers = 0\n[calls]\ntimout = \"1s\"\n[lease]\nttl = \"5\"\n\
                suspect_after = \"10m\"\n\
                [profiles.p]\nserch = true\nservices = [\"a/b\", \"c/d\"]\n\
                [services.a]\ncomand = \"x\"\nargs = [5]\nenv = { A = \"${NO_SUCH_VARIABLE}\", B = 5 }\n\
                tools = { alow = [], denny = [] }\nconcurrency = 0\n[services.b]\nurl = \"https://h\"\nfoo = 1\n\
                [services.c]\ncommand = \"c\"\ninstances = 0\nrestart = { max = 0 }\n[plugins.x]\nordr = 1\ngrants = [\"y\"]\n";
    let said = complaints(text);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains(".toml:")).collect();
    for (place, part) in [
        (":2:1: `server`: ", "did you mean `plugins_dir`?"),
        (":3:1: `server.workers`: ", "between 1 and 256"),
        (":5:1: `calls`: ", "did you mean `timeout`?"),
        (":7:7: `lease`: ", "not a duration"),
        (":10:1: `profiles.p`: ", "did you mean `search`?"),
        (":11:1: `profiles.p.services`: ", "`a/b`"),
        (":11:1: `profiles.p.services`: ", "`c/d`"),
        (":13:1: `services.a`: ", "did you mean `command`?"),
        (":14:9: `services.a`: ", "expected a string"),
        (":15:13: `services.a`: ", "`NO_SUCH_VARIABLE` is not set"),
        (":15:40: `services.a`: ", "expected a string"),
        (":16:11: `services.a`: ", "did you mean `allow`?"),
        (":16:22: `services.a`: ", "did you mean `deny`?"),
        (":17:1: `services.a.concurrency`: ", "at least 1"),
        (":19:1: `services.b.url`: ", "https"),
        (":20:1: `services.b`: ", "no setting `foo`"),
        (":23:1: `services.c.instances`: ", "between 1 and 64"),
        (":24:1: `services.c.restart`: ", "`max` is 0"),
        (":26:1: `plugins.x`: ", "did you mean `order`?"),
        (":27:1: `plugins.x.grants`: ", "`y`"),
    ] {
        let found = lines.iter().any(|line| line.contains(place) && line.contains(part));
        assert!(found, "no {place}{part} in\n{said}");
    }
    assert_eq!(lines.len(), 20, "{said}");
}

#[test]
fn what_will_hardly_work_is_a_warning_and_stays_in_force() {
    let config = load(
        "[services.a]\ncommand = \"/bin/sh\"\ndepends_on = [\"b\", \"late\", \"bb\"]\n\
         [services.b]\ncommand = \"npx -y server\"\ndepends_on = [\"a\"]\n\
         [services.own]\ncommand = \"/bin/sh\"\ndepends_on = [\"own\"]\ncwd = \"/no/such/folder\"\n\
         [services.after]\ncommand = \"/bin/sh\"\ndepends_on = [\"a\"]\ncwd = \"/\"\n\
         [services.late]\n[profiles.p]\nservices = [\"a\", \"otter\", \"late\"]\n",
    )
    .expect("it can be used");
    assert!(config.left_out.is_empty(), "{:?}", config.left_out);
    let said: Vec<String> = config.warnings().iter().map(Flaw::in_a_line).collect();
    for (place, part) in [
        (":3:1: `services.a.depends_on`: ", "`a` needs itself (a → b → a), so all of these are skipped"),
        (":3:28: `services.a.depends_on`: ", "no service `bb` here; did you mean `b`?; unless it registers"),
        (":5:1: `services.b.command`: ", "`command = \"npx\"`, `args = [\"-y\", \"server\"]`"),
        (":6:1: `services.b.depends_on`: ", "(b → a → b)"),
        (":9:1: `services.own.depends_on`: ", "`own` needs itself, so it is skipped"),
        (":10:1: `services.own.cwd`: ", "`/no/such/folder` does not exist"),
        (":17:18: `profiles.p.services`: ", "no service `otter` here"),
    ] {
        let found = said.iter().any(|line| line.contains(place) && line.contains(part));
        assert!(found, "no {place}{part} in {said:#?}");
    }
    assert_eq!(said.len(), 7, "{said:#?}");
    let good = "[services.a]\ncommand = \"/bin/sh\"\ncwd = \"/tmp\"\n[profiles.p]\nservices = [\"a\"]\n";
    assert_eq!(load(good).expect("good").warnings(), []);
}

#[test]
fn a_warning_shows_nothing_that_was_filled_in() {
    let text = "[services.a]\ncommand = \"/no/${secret:tok} x\"\ncwd = \"/no/${secret:tok}\"\n\
                depends_on = [\"${secret:tok}\"]\n[profiles.p]\nservices = [\"${secret:tok}\"]\n";
    let said: Vec<String> =
        load_with_secret(text, "").expect("good").warnings().iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 4, "{said:#?}");
    assert!(said.iter().all(|line| !line.contains("HUNTER2") && line.contains("${")), "{said:#?}");
}

#[test]
fn of_a_clients_entry_all_that_is_wrong_is_said() {
    let client = r#"{"mcpServers": {"c": {"command": true, "args": "x", "cwd": false}}}"#;
    let config = load_with_secret("include = [\"client.json\"]", client).expect("a configuration");
    let said: Vec<String> = config.left_out[0].flaws().map(|flaw| flaw.message.clone()).collect();
    assert_eq!((config.left_out.len(), said.len()), (1, 3), "{said:?}");
}

#[test]
fn a_wrong_service_is_left_out_and_shows_nothing_while_all_others_are_served() {
    let config = load(
        "[services.bad]\nurl = \"http://h\"\ntools = { dney = [\"delete_*\"] }\n[services.good]\nurl = \"http://h\"",
    )
    .expect("the rest is served");
    let names: Vec<&str> = config.instances.iter().map(|instance| instance.name.as_str()).collect();
    assert_eq!(names, ["good-1"]);
    assert_eq!(config.left_out.len(), 1);
    assert_eq!(config.left_out[0].service.as_deref(), Some("bad"));
    assert!(config.left_out[0].flaw.message.contains("did you mean `deny`?"));
    // It may register itself, and what was to be hidden of it is not known.
    let exposures = config.exposures();
    assert!(!exposures.passes("bad", Kind::Tool, "list") && exposures.passes("good", Kind::Tool, "list"));
}

#[test]
fn files_are_included_by_name_and_by_pattern_and_broken_ones_left_out() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("create");
        std::fs::write(path, text).expect("write");
    };
    write(
        "main.toml",
        "include = [\"more/*.toml\", \"client.json\", \"codex.toml\"]\n[services.a]\ncommand = \"a\"",
    );
    write("more/1.toml", "[services.b]\ncommand = \"b\"\n[profiles.p]\nservices = [\"b\"]");
    write("more/2.toml", "[services.a]\ncommand = \"another\"\n[server]\nworkers = 1");
    write("more/3.toml", "[services");
    write("more/.hidden.toml", "[services.h]\ncommand = \"h\"");
    write(
        "client.json",
        "{\"mcpServers\": {\"c\": {\"command\": \"c\", \"args\": [1], \"env\": {\"X\": \"${NO_SUCH:-y}\"}}}}",
    );
    write("codex.toml", "[mcp_servers.d]\ncommand = \"d\"\nstartup_timeout_ms = 5\n[tui]\nx = 1");
    let file = Some(folder.path().join("main.toml"));
    let overrides = Overrides { file, data_dir: Some("/nowhere".into()), ..Overrides::default() };
    let config = Config::load(overrides).expect("what is good is served");
    let shown: Vec<String> =
        config.instances.iter().map(|one| format!("{} = {}", one.name, one.endpoint)).collect();
    assert_eq!(shown, ["a = stdio: a", "b = stdio: b", "c = stdio: c 1", "d = stdio: d"]);
    let Endpoint::Stdio(command) = &config.instances[2].endpoint else { panic!("a command") };
    assert_eq!(command.env["X"], "y");
    assert!(config.profiles.contains_key("p"));
    assert_eq!((config.files.len(), config.folders), (6, vec![folder.path().join("more")]));
    let mut left: Vec<String> = config.left_out.iter().map(|left| left.flaw.in_a_line()).collect();
    left.sort();
    assert_eq!(left.len(), 4, "{left:?}");
    for (left, part) in left.iter().zip([
        "no section `tui`",
        "more/2.toml:1:11: `services.a`: it is in",
        "`server` belongs in the main file",
        "more/3.toml:1:",
    ]) {
        assert!(left.contains(part), "no {part} in {left}");
    }
}

#[test]
fn what_is_shown_says_where_it_comes_from_and_hides_what_is_filled_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("m.toml");
    std::fs::write(
        &file,
        "[server]\nworkers = 3\n[services.\"a\"]\ncommand = \"x\"\nenv = { T = \"${HOME}\" }\n",
    )
    .expect("write");
    let overrides = Overrides { file: Some(file), data_dir: Some("/d".into()), ..Overrides::default() };
    let said_by = [("server.data_dir", "--data-dir".to_owned())].into();
    let shown = show(Overrides { said_by, ..overrides.clone() }, true).expect("good");
    for (start, whence) in [
        ("workers = 3", "m.toml:2"),
        ("data_dir = \"/d\"", "--data-dir"),
        ("[services.a]", "m.toml:3"),
        ("env = { T = \"${HOME}\" }", "m.toml:5"),
        ("ttl = \"120s\"", "default"),
    ] {
        let line = shown
            .lines()
            .find(|line| line.starts_with(start))
            .unwrap_or_else(|| panic!("no {start} in\n{shown}"));
        assert!(line.ends_with(whence), "{line}");
    }
    let plain = show(overrides, false).expect("good");
    assert!(!plain.contains('#'), "{plain}");
    let again: toml::Table = plain.parse().expect("it is TOML");
    assert_eq!(again["services"]["a"]["command"].as_str(), Some("x"));
}

/// With the secret `tok`, `HUNTER2`; `client.json` may be included.
fn load_with_secret(text: &str, client_json: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("write");
    write("m.toml", text);
    write("client.json", client_json);
    write("tok", "HUNTER2\n");
    std::fs::set_permissions(folder.path().join("tok"), PermissionsExt::from_mode(0o600)).expect("chmod");
    let files = Files::read(Some(&folder.path().join("m.toml")))?;
    let sources = Sources { secrets: vec![(folder.path().to_owned(), 0o077)], env: |_| None };
    load::load(&files, Overrides { data_dir: Some("/nowhere".into()), ..Overrides::default() }, &sources)
}

#[test]
fn what_is_said_against_filled_in_values_says_how_they_are_written() {
    let client = r#"{"mcpServers": {"c": {"command": "x", "args": "${secret:tok}"}}}"#;
    for (text, part) in [
        ("[services.a]\nurl = \"https://h/mcp?key=${secret:tok}\"", "`https://h/mcp?key=${secret:tok}`"),
        ("[services.a]\nurl = \"h/${secret:tok}\"", "`h/${secret:tok}`"),
        ("[services.a]\nurl = \"http://h:x/${secret:tok}\"", "`http://h:x/${secret:tok}`"),
        ("[services.a]\nurls = [\"h/${secret:tok}\"]", "`h/${secret:tok}`"),
        (
            "[services.a]\ncommand = \"x\"\nargs = \"${secret:tok}\"",
            "expected a list such as `[\"a\", \"b\"]`, not the string \"${secret:tok}\"",
        ),
        (
            "[services.a]\ncommand = \"x\"\nargs = '${secret:tok}'",
            "expected a list such as `[\"a\", \"b\"]`, not the string \"${secret:tok}\"",
        ),
        ("[services.a]\ncommand = [\"${secret:tok}\"]", "expected a string"),
        (
            "[services.a]\ncommand = \"x\"\nstartup_timeout = \"${secret:tok}\"",
            "`${secret:tok}` is not a duration",
        ),
        ("[services.a]\ncommand = \"x\"\nsessions = \"${secret:tok}\"", "no value `${secret:tok}`"),
        ("[services.a]\ncommand = \"x\"\ninstances = \"\\u0024{secret:tok}\"", "string \"${secret:tok}\""),
        ("[services.a]\ncommand = \"x\"\ndepends_on = [\"${secret:tok}/\"]", "`${secret:tok}/`"),
        ("[services.a]\nurl = \"http://h\"\nhedge = { after = \"${secret:tok}\" }", "`after` must be"),
        ("[profiles.p]\nservices = [\"${secret:tok}/\"]", "`${secret:tok}/`"),
        ("[plugins.p]\ngrants = [\"${secret:tok}\"]", "`${secret:tok}`"),
        ("[server]\nworkers = \"${secret:tok}\"", "string \"${secret:tok}\""),
        (
            "include = [\"client.json\"]",
            "expected a list such as `[\"a\", \"b\"]`, not the string \"${secret:tok}\"",
        ),
    ] {
        let said = match load_with_secret(text, client) {
            Err(error) => error.to_string(),
            Ok(config) => config.left_out.iter().map(|left| left.flaw.in_a_line()).collect(),
        };
        assert!(said.contains(part) && !said.contains("HUNTER2"), "{part} in {said:?} for {text}");
    }
}

#[test]
fn endpoints_with_filled_in_values_are_shown_as_they_are_written() {
    let config = load_with_secret(
        "include = [\"client.json\"]\n[services.a]\ncommand = \"a\"\nargs = [\"-k\", \"${secret:tok}\"]\n\
         cwd = \"/${secret:tok}\"\n[services.b]\nurl = \"http://h/${secret:tok}\"",
        r#"{"mcpServers": {"c": {"command": "${secret:tok}", "args": ["$${x}", "--k=${secret:tok}"]}}}"#,
    )
    .expect("good");
    assert!(config.left_out.is_empty(), "{:?}", config.left_out);
    let shown: Vec<String> = config.instances.iter().map(|one| one.endpoint.to_string()).collect();
    let expected = [
        "stdio: a -k ${secret:tok}",
        "http://h/${secret:tok}",
        "stdio: ${secret:tok} $${x} --k=${secret:tok}",
    ];
    assert_eq!(shown, expected);
    assert!(!format!("{config:?}").contains("HUNTER2"), "{config:?}");
    let [Endpoint::Stdio(a), Endpoint::Http(b), Endpoint::Stdio(c)] =
        [0, 1, 2].map(|index| &config.instances[index].endpoint)
    else {
        panic!("two commands and an address")
    };
    assert_eq!((&*a.args[1], a.cwd.as_deref()), ("HUNTER2", Some(Path::new("/HUNTER2"))));
    assert_eq!(
        (b.path(), &*c.program, &*c.args[0], &*c.args[1]),
        ("/HUNTER2", "HUNTER2", "${x}", "--k=HUNTER2")
    );
}

#[test]
fn what_is_shown_is_what_is_in_force_and_all_else_a_comment() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("m.toml");
    let text = "include = [\"more.toml\"]\n[services.twice]\ncommand = \"first\"\n[services.bad]\ncomand = \"x\"\n\
                \"z key\" = \"\"\"a\nb\"\"\"\n[services.\"a b\"]\ncommand = \"c\"\n[services.good]\nurl = \"http://h\"\n";
    std::fs::write(&file, text).expect("write");
    let more = "[services.twice]\ncommand = \"second\"\n[services.\"bad.too\"]\nargs = [\"x\"]\n";
    std::fs::write(folder.path().join("more.toml"), more).expect("write");
    let overrides = Overrides { file: Some(file), data_dir: Some("/d".into()), ..Overrides::default() };
    for origin in [false, true] {
        let shown = show(overrides.clone(), origin).expect("good");
        let again: toml::Table = shown.parse().unwrap_or_else(|error| panic!("{error} in\n{shown}"));
        let services: Vec<&String> = again["services"].as_table().expect("services").keys().collect();
        assert_eq!(services, ["good", "twice"], "{shown}");
        assert_eq!(again["services"]["twice"]["command"].as_str(), Some("first"));
        for part in [
            "# comand = \"x\"",
            "did you mean `command`?",
            "# [services.\"a b\"]",
            "# [services.\"bad.too\"]",
        ] {
            assert!(shown.contains(part), "no {part} in\n{shown}");
        }
        assert_eq!(shown.matches("# left out: ").count(), 5, "{shown}");
        assert!(shown.contains("more.toml:1:11: `services.twice`: it is in "), "{shown}");
    }
}

#[test]
fn the_schema_takes_what_the_proxy_takes() {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let json = |text: &str| {
        let table: toml::Table = text.parse().expect("TOML");
        serde_json::to_value(table).expect("JSON")
    };
    for (text, good) in [
        ("", true),
        ("include = [\"x\"]\n[server]\nmcp_addr = \"127.0.0.1:1\"\n[lease]\nttl = \"2m\"", true),
        ("[services.a]\ncommand = \"x\"\nsessions = \"each\"\ntools = { deny = [\"x\"] }", true),
        ("[plugins.a]\non_error = \"reject\"\nconfig = { any = [1, { thing = true }] }", true),
        ("[plugins.a]\nlimits = { memory_mib = 64, ask_timeout = \"8ms\", route_budget = \"50us\" }", true),
        ("[plugins.a]\nlimits = { memory = 64 }", false),
        ("[profiles.a]\n", true),
        ("[services.a]\ncomand = \"x\"", false),
        ("[sevices.a]\n", false),
        ("[plugins.a]\non_error = \"panic\"", false),
    ] {
        assert_eq!(validator.is_valid(&json(text)), good, "{text}");
    }
}

#[test]
fn what_a_plugin_may_use_up_is_understood_and_shown() {
    let limits =
        "{ memory_mib = 64, ask_timeout = \"8ms\", background_timeout = \"2s\", route_budget = \"50us\" }";
    let text = format!("[plugins.a]\nlimits = {limits}\n[plugins.b]\n");
    let config = load(&text).expect("good");
    let wanted = Allowance {
        memory_bytes_max: Some(64 << 20),
        ask: Some(Duration::from_millis(8)),
        background: Some(Duration::from_secs(2)),
        route: Some(Duration::from_micros(50)),
        pick: None,
    };
    assert_eq!(config.plugins["a"].limits, wanted);
    assert_eq!(config.plugins["b"].limits, Allowance::default());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("m.toml");
    std::fs::write(&file, text).expect("write");
    let overrides = Overrides { file: Some(file), data_dir: Some("/d".into()), ..Overrides::default() };
    let shown = show(overrides, false).expect("good");
    let again: toml::Table = shown.parse().expect("it is TOML");
    assert_eq!(again["plugins"]["a"]["limits"]["memory_mib"].as_integer(), Some(64), "{shown}");
    assert_eq!(again["plugins"]["a"]["limits"]["route_budget"].as_str(), Some("50us"), "{shown}");
}

#[test]
fn what_is_filled_into_a_plugins_settings_is_known_as_it_was_written() {
    let config =
        load("[plugins.a]\nconfig = { path = \"${HOME}\" }\n[plugins.b]\nconfig = { x = 1 }").expect("good");
    let a = &config.plugins["a"];
    assert_eq!(a.written_json.as_deref(), Some(r#"{"path":"${HOME}"}"#));
    assert!(!a.config_json.contains("${"), "{}", a.config_json);
    assert_eq!(config.plugins["b"].written_json, None);
}

#[test]
fn what_is_wrong_in_an_included_file_is_left_out_and_hidden() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("write");
    write("main.toml", "include = [\"inc-*.toml\"]\n[services.good]\nurl = \"http://127.0.0.1:1\"\n");
    write("inc-1.toml", "[services.broken]\ntools = { deny = [\"delete_*\"] }\n[services.later\n");
    write("inc-2.toml", "services = 5\n");
    write("inc-3.toml", "[profiles.p]\nserch = 1\n");
    write("inc-4.toml", "\u{feff}[services.mark]\nurl = \"http://127.0.0.1:1\"\n");
    write("inc-5.json", "\u{feff}{\"mcpServers\": {}}");
    let file = Some(folder.path().join("main.toml"));
    let overrides = Overrides { file, data_dir: Some("/nowhere".into()), ..Overrides::default() };
    let config = Config::load(overrides).expect("what is good is served");
    let served: Vec<&str> = config.instances.iter().map(|one| one.service.as_str()).collect();
    assert_eq!(served, ["good", "mark"]);
    let broken = config.services.get(&name("broken")).expect("it is known");
    assert_eq!(broken.exposure, Exposure::nothing(), "its filters are not known");
    let left: Vec<String> = config.left_out.iter().map(|left| left.flaw.in_a_line()).collect();
    for part in ["inc-1.toml:3:", "inc-2.toml:1:", "did you mean `search`?"] {
        assert!(left.iter().any(|flaw| flaw.contains(part)), "no {part} in {left:#?}");
    }
    assert!(config.profiles.is_empty());
}
