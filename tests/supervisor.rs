//! Children of a real proxy: started, watched, started again, ended, and never left behind.

mod support;

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::children::*;
use support::*;

/// What a hundred children and their start may cost the proxy; on Linux it was half of that.
const GROWTH_KIB_MAX: u64 = 36 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_is_parked_and_named_and_costs_others_nothing() {
    let book = Book::new();
    let config =
        book.service("loops", &["crash"], "restart = { policy = \"on-failure\", max = 3, window = \"60s\" }")
            + &book.service("fine", &[], "");
    let mesh = mesh(config).await;
    until_called(&mesh, "fine").await;
    let parked = until(&mesh, "loops", "fatal").await;
    let reason = parked["reason"].as_str().expect("a reason");
    contains(reason, &["exited with 7 after ", "Error: missing CHAOS_TOKEN"]);
    assert!(parked["next_try_s"].as_f64().is_some_and(|next| (250.0..=300.0).contains(&next)), "{parked}");
    assert_eq!((&parked["restarts"], book.pids("loops").len()), (&json!(2), 3));

    let begun = Instant::now();
    let problem = mesh.api.call("loops", "pid", json!({})).await.problem(503, "no_instance_available");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let detail = problem["detail"].as_str().expect("a detail");
    contains(detail, &["`loops` fatal", "missing CHAOS_TOKEN", "; next try in "]);
    until_called(&mesh, "fine").await;

    let raised =
        eventually("an alert is raised", SOON, || async { alert(&mesh, "child-parked").await }).await;
    assert_eq!((&raised["plugin"], &raised["severity"]), (&json!("meshwright"), &json!("error")), "{raised}");
    assert_eq!(raised["labels"], json!({"instance": "loops", "service": "loops"}));
    contains(raised["detail"].as_str().expect("a detail"), &["missing CHAOS_TOKEN", "meshwright logs loops"]);

    let doctor = cli(&mesh, &["doctor"]);
    assert_eq!(doctor.status.code(), Some(3), "{}", text(&doctor));
    contains(&text(&doctor), &["loops: fatal", "meshwright restart loops"]);
    assert_eq!(cli(&mesh, &["doctor", "fine"]).status.code(), Some(0));
    let startup = mesh.api.get("/api/v1/processes").await.ok()["startup"].clone();
    assert_eq!((&startup["started"], &startup["failed"]), (&json!(["fine"]), &json!(["loops"])), "{startup}");
    until_logged(&mesh, "services by command were started").await;
    std::fs::write(book.file("loops.calm"), "").expect("calm it");
    assert!(cli(&mesh, &["restart", "loops"]).status.success());
    until(&mesh, "loops", "ready").await;
    eventually("the alert is resolved", 3 * SOON, || async {
        alert(&mesh, "child-parked").await.is_none().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_command_is_skipped_with_the_searched_path_and_everything_else_serves() {
    let book = Book::new();
    let config = "[services.gone]\ncommand = \"no-such-program\"\nrequired = true\n".to_owned()
        + &book.service("round-a", &[], "depends_on = [\"round-b\"]")
        + &book.service("round-b", &[], "depends_on = [\"round-a\"]")
        + &book.service("fine", &[], "");
    let mesh = mesh(config).await;
    until_called(&mesh, "fine").await;
    let gone = until(&mesh, "gone", "skipped").await;
    let path = std::env::var("PATH").expect("there is a PATH");
    contains(gone["reason"].as_str().expect("a reason"), &["no-such-program", &path]);
    contains(gone["fix"].as_str().expect("a fix"), &["services.gone.command"]);
    assert!(gone["next_try_s"].as_f64().is_some_and(|next| (200.0..=300.0).contains(&next)), "{gone}");
    let round = until(&mesh, "round-a", "skipped").await;
    contains(round["reason"].as_str().expect("a reason"), &["round-a → round-b → round-a"]);
    assert_eq!(round["next_try_s"], Value::Null, "{round}");
    assert!(book.pids("round-a").is_empty() && book.pids("round-b").is_empty());

    let status = mesh.api.get("/services/gone/status").await.ok();
    let expected =
        [("service", json!("gone")), ("status", json!("unavailable")), ("available", json!(false))];
    for (key, value) in
        expected.into_iter().chain([("process_running", json!(false)), ("mesh_registration", json!(false))])
    {
        assert_eq!(status[key], value, "{key} in {status}");
    }
    let status = mesh.api.get("/services/fine/status").await.ok();
    assert_eq!((&status["process_running"], &status["available"]), (&json!(true), &json!(true)), "{status}");
    let startup = mesh.api.get("/api/v1/processes").await.ok()["startup"].clone();
    assert_eq!(startup["skipped"], json!(["gone", "round-a", "round-b"]), "{startup}");
    until_logged(&mesh, "○ gone").await;
    until_logged(&mesh, "required service is not ready").await;
    let doctor = text(&cli(&mesh, &["doctor"]));
    contains(&doctor, &["gone: skipped", "round-a: skipped", "services.round-a.depends_on"]);

    for (instance, why) in [("gone", "no program `no-such-program`"), ("round-a", "it needs itself")] {
        let down = eventually("it is said to be down", 2 * SOON, || async {
            let all = alerts(&mesh).await;
            all.into_iter()
                .find(|one| one["rule"] == "instance-down" && one["labels"]["instance"] == instance)
        })
        .await;
        let detail = down["detail"].as_str().expect("a detail");
        contains(detail, &["skipped (", why]);
        assert!(!detail.contains("probes"), "nobody is there to be asked: {detail}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_command_is_looked_for_again_when_the_file_changes() {
    let (book, folder) = (Book::new(), tempfile::tempdir().expect("a folder"));
    let program = folder.path().join("server");
    let script = repository().join("tests/fixtures/chaos_child.py");
    let late =
        format!("[services.late]\ncommand = {program:?}\nargs = [{script:?}, {:?}]\n", book.file("late"));
    let mesh = mesh(late.clone()).await;
    until(&mesh, "late", "skipped").await;
    std::fs::write(&program, "#!/bin/sh\nexec python3 \"$@\"\n").expect("write it");
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).expect("set its mode");
    rewrite(&mesh, &(late + &book.service("comes", &[], "")));
    until_called(&mesh, "late").await;
    let late = process(&mesh, "late").await;
    assert_eq!((&late["state"], &late["restarts"]), (&json!("ready"), &json!(0)), "{late}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_changed_service_says_is_shown_to_who_followed_it_before() {
    let book = Book::new();
    let mesh = mesh(book.service("loud", &["noise"], "")).await;
    for _ in 0..30 {
        until_called(&mesh, "loud").await;
    }
    let logs = mesh.api.get("/api/v1/services/loud/logs").await.ok();
    let cursor = logs["next_cursor"].as_str().expect("a cursor").to_owned();
    assert!(cursor.parse::<u64>().expect("a number") >= 180, "{cursor}");
    rewrite(&mesh, &book.service("loud", &["noise"], "env = { CHANGED = \"1\" }"));
    let followed = format!("/api/v1/services/loud/logs?cursor={cursor}");
    let after = eventually("what the new process says is shown", 2 * SOON, || async {
        mesh.api.call("loud", "pid", json!({})).await;
        let logs = mesh.api.get(&followed).await.ok();
        let is_new = logs["next_cursor"].as_str()?.parse::<u64>().ok()? < 180;
        (is_new && !logs["items"].as_array()?.is_empty()).then_some(logs)
    })
    .await;
    assert_eq!(after["items"][0]["text"], "starting…", "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_leaves_nothing_behind_once_it_was_started_again() {
    let book = Book::new();
    let names = ["a", "b", "c"];
    let config: String = names.iter().map(|name| book.service(name, &["fork"], "")).collect();
    let mut mesh = mesh(config).await;
    let mut random = 7_u64;
    for round in 0..50 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis((random >> 33) % 900)).await;
        mesh.kill();
        let before: Vec<i32> = names.iter().flat_map(|name| book.pids(name)).collect();
        mesh.restart_elsewhere().await;
        eventually(&format!("round {round}: all of {before:?} are gone"), Duration::from_secs(5), || async {
            running(&before).is_empty().then_some(())
        })
        .await;
    }
    // Moments at which nothing had been started yet prove little.
    for name in names {
        until_called(&mesh, name).await;
    }
    let before: Vec<i32> = names.iter().flat_map(|name| book.pids(name)).collect();
    assert!(running(&before).len() >= 12, "{before:?}");
    mesh.kill();
    assert!(!running(&before).is_empty(), "what children started outlives them, else this shows nothing");
    mesh.restart_elsewhere().await;
    eventually("all are gone", Duration::from_secs(5), || async {
        running(&before).is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_asked_to_end_leaves_nothing_behind() {
    let book = Book::new();
    let config = book.service("stubborn", &["stubborn", "fork"], "") + &book.service("meek", &["fork"], "");
    let env = vec![("MESHWRIGHT_LOG".to_owned(), "info,meshwright::telemetry::alerts=debug".to_owned())];
    let mut mesh = Mesh::start(MeshOptions { config, env, ..MeshOptions::default() }).await;
    for name in ["stubborn", "meek"] {
        until_called(&mesh, name).await;
    }
    let pids: Vec<i32> = ["stubborn", "meek"].iter().flat_map(|name| book.pids(name)).collect();
    assert_eq!(running(&pids).len(), 8, "{pids:?}");
    assert!(mesh.terminate().await.success());
    assert_eq!(running(&pids), [0; 0], "{}", mesh.log());
    let log = mesh.log();
    let (_, end) = log.split_once(" stopping ").expect("it says that it stops");
    assert!(!end.contains(" alert "), "an end is no outage: {end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_told_twice_to_end_leaves_nothing_behind() {
    let book = Book::new();
    let config = book.service("stubborn", &["stubborn", "fork"], "") + &book.service("flees", &["flees"], "");
    let mut mesh = mesh(config).await;
    for name in ["stubborn", "flees"] {
        until_called(&mesh, name).await;
    }
    let pids: Vec<i32> = ["stubborn", "flees"].iter().flat_map(|name| book.pids(name)).collect();
    assert_eq!(running(&pids).len(), 6, "{pids:?}");
    mesh.signal(Signal::TERM);
    until_logged(&mesh, " stopping ").await;
    assert!(!running(&pids).is_empty(), "they need longer than that");
    mesh.signal(Signal::TERM);
    let begun = Instant::now();
    assert_eq!(mesh.ended(SOON).await.code(), Some(130));
    eventually("all are gone", 2 * SOON, || async { running(&pids).is_empty().then_some(()) }).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_ends_with_its_input_and_needs_no_signal() {
    let book = Book::new();
    let mut mesh = mesh(book.service("meek", &["deaf"], "")).await;
    until_called(&mesh, "meek").await;
    let begun = Instant::now();
    assert!(mesh.terminate().await.success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(running(&book.pids("meek")), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_heeds_nothing_is_killed_when_it_is_stopped() {
    let book = Book::new();
    let mesh = mesh(book.service("stubborn", &["stubborn", "fork"], "")).await;
    until_called(&mesh, "stubborn").await;
    let pids = book.pids("stubborn");
    let answer = mesh.api.post("/api/v1/services/stubborn/stop", &json!({})).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    until(&mesh, "stubborn", "stopped").await;
    assert_eq!(running(&pids), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_the_session_of_a_child_ends_with_it() {
    let book = Book::new();
    let mut mesh = mesh(book.service("flees", &["flees"], "")).await;
    let old = until_called(&mesh, "flees").await;
    let before = book.pids("flees");
    assert_eq!(running(&before).len(), 2, "{before:?}");
    kill(&old);
    eventually("another one answers, and nothing is left of the first", 2 * SOON, || async {
        let answer = mesh.api.call("flees", "pid", json!({})).await;
        (answer.status == 200 && running(&before).is_empty()).then_some(())
    })
    .await;
    let before = book.pids("flees");
    mesh.kill();
    assert!(!running(&before).is_empty(), "it outlives the proxy, else this shows nothing");
    mesh.restart_elsewhere().await;
    eventually("it is gone", 2 * SOON, || async { running(&before).is_empty().then_some(()) }).await;
    until_called(&mesh, "flees").await;
    assert!(mesh.terminate().await.success());
    assert_eq!(running(&book.pids("flees")), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn noise_on_standard_output_is_kept_counted_and_harmless() {
    let book = Book::new();
    let mesh = mesh(book.service("loud", &["noise"], "")).await;
    for _ in 0..100 {
        until_called(&mesh, "loud").await;
    }
    let noise = process(&mesh, "loud").await["noise_lines"].as_u64().expect("a number");
    assert!(noise >= 600, "{noise}");
    let logs = mesh.api.get("/api/v1/services/loud/logs?limit=6").await.ok();
    let lines = logs["items"].as_array().expect("items");
    assert_eq!(
        (lines.len(), &lines[0]["stream"], &lines[0]["instance"]),
        (6, &json!("stdout"), &json!("loud"))
    );
    let cursor = logs["next_cursor"].as_str().expect("a cursor");
    let later = mesh.api.get(&format!("/api/v1/services/loud/logs?cursor={cursor}")).await.ok();
    let later = later["items"].as_array().expect("items").len();
    assert!(later < 100, "only what is new: {later}");
    let shown = text(&cli(&mesh, &["logs", "loud", "-n", "6"]));
    contains(&shown, &["loud stdout", "starting…"]);
    assert!(!shown.contains('\u{1b}'), "nothing speaks to the terminal: {shown:?}");
    assert!(mesh.resident_kib() < 400 << 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_dies_comes_back_by_itself() {
    let book = Book::new();
    let mesh = mesh(book.service("mortal", &["fork"], "")).await;
    let first = until_called(&mesh, "mortal").await;
    let pids = book.pids("mortal");
    kill(&first);
    let second = eventually("another one answers", 2 * SOON, || async {
        let answer = mesh.api.call("mortal", "pid", json!({})).await;
        (answer.status == 200).then(|| answer.tool_text()).filter(|pid| *pid != first)
    })
    .await;
    let process = process(&mesh, "mortal").await;
    assert_eq!((process["pid"].to_string(), &process["restarts"]), (second, &json!(1)), "{process}");
    assert_eq!(running(&pids), [0; 0], "what it had started went with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_starts_first_and_its_loss_is_said_of_those_that_need_it() {
    let book = Book::new();
    let config = book.service("needy", &[], "depends_on = [\"base\", \"elsewhere\"]")
        + &book.service("base", &["slow"], "startup_timeout = \"3s\"");
    let mesh = mesh(config).await;
    let installing = until(&mesh, "base", "installing").await;
    assert_eq!(installing["reason"], "", "{installing}");
    let waits = process(&mesh, "needy").await;
    contains(waits["reason"].as_str().expect("a reason"), &["waits for `base`"]);
    assert!(book.pids("needy").is_empty());
    until(&mesh, "base", "ready").await;
    let needy = until(&mesh, "needy", "ready").await;
    contains(needy["reason"].as_str().expect("a reason"), &["needs `elsewhere`, which is not there"]);

    let upstream = RawUpstream::plain().await;
    mesh.api.join("elsewhere", upstream.port).await;
    eventually("nothing is lacking", SOON, || async {
        (process(&mesh, "needy").await["degraded"] == false).then_some(())
    })
    .await;
    until_called(&mesh, "needy").await;
    mesh.api.post("/api/v1/services/base/stop", &json!({})).await;
    eventually("it is degraded", SOON, || async {
        let service = mesh.api.service("needy").await;
        let reason = service["instances"][0]["reason"].as_str()?.contains("needs `base`, which is stopped");
        (service["status"] == "degraded" && reason).then_some(())
    })
    .await;
    until_called(&mesh, "needy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_never_answers_is_given_up_with_the_reason() {
    let book = Book::new();
    let rules = "startup_timeout = \"3s\"\nrestart = { policy = \"never\" }\n";
    let garbage = "[services.garbage]\ncommand = \"sh\"\n\
                   args = [\"-c\", \"while :; do echo garbage; sleep 0.2; done\"]\n";
    let mesh = mesh(book.service("deaf", &["silent"], rules) + garbage + rules).await;
    for name in ["deaf", "garbage"] {
        let stopped = until(&mesh, name, "stopped").await;
        contains(stopped["reason"].as_str().expect("a reason"), &["no answer within 3s", "never"]);
    }
    assert_eq!(running(&book.pids("deaf")), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_says_what_is_to_be_mended() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| folder.path().join(name).display().to_string();
    let script = |name: &str, first_line: &str, mode: u32| {
        std::fs::write(place(name), format!("{first_line}print()\n")).expect("write it");
        std::fs::set_permissions(place(name), Permissions::from_mode(mode)).expect("set its mode");
        format!("[services.{name}]\ncommand = {:?}\n", place(name))
    };
    let config = script("crlf", "#!/usr/bin/python3\r\n", 0o755)
        + &script("env", "#!/usr/bin/env python3\r\n", 0o755)
        + &script("lost", "#!/no/such thing\n", 0o755)
        + &script("plain", "#!/usr/bin/python3\n", 0o644)
        + &format!("[services.folder]\ncommand = {:?}\n", folder.path())
        + "[services.homeless]\ncommand = \"true\"\ncwd = \"/no/such\"\n";
    let mesh = mesh(config).await;
    let line_ends = "(the file has Windows line ends)";
    for (name, why, fix) in [
        ("crlf", &["its interpreter `/usr/bin/python3\\r` is not there", line_ends][..], "dos2unix"),
        ("env", &["exited with 127", line_ends], "dos2unix"),
        ("lost", &["its interpreter `/no/such thing` is not there"], "mend the first line of"),
        ("plain", &["may not be executed"], "`chmod +x "),
        ("folder", &["is a folder, no program"], "name a program as `services.folder.command`"),
        ("homeless", &["its folder `/no/such` does not exist"], "as `services.homeless.cwd`"),
    ] {
        let failed = eventually(&format!("`{name}` has failed"), 2 * SOON, || async {
            let process = process(&mesh, name).await;
            ["backoff", "fatal", "skipped"].iter().any(|state| process["state"] == *state).then_some(process)
        })
        .await;
        contains(failed["reason"].as_str().expect("a reason"), why);
        contains(failed["fix"].as_str().expect("a fix"), &[fix, &format!("start {name}`")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_answered_with_what_comes_of_it() {
    let book = Book::new();
    let mesh = mesh(book.service("pool", &["lags"], "instances = 2")).await;
    until(&mesh, "pool-1", "ready").await;
    until(&mesh, "pool-2", "ready").await;
    let said = |order: &str, what: &str| {
        let expected: String = [1, 2].iter().map(|n| format!("pool-{n} is {what}\n")).collect();
        assert_eq!(text(&cli(&mesh, &[order, "pool"])), expected);
    };
    said("stop", "stopping: stopped by hand");
    said("start", "stopping: it starts again as soon as it has ended");
    until(&mesh, "pool-1", "ready").await;
    until(&mesh, "pool-2", "ready").await;
    said("restart", "stopping: restarted by hand");
    said("stop", "stopping: stopped by hand");
    until(&mesh, "pool-1", "stopped").await;
    until(&mesh, "pool-2", "stopped").await;
    said("start", "starting");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_stopped_started_and_restarted_by_hand() {
    let book = Book::new();
    let mesh = mesh(book.service("two", &[], "instances = 2")).await;
    until(&mesh, "two-1", "ready").await;
    until(&mesh, "two-2", "ready").await;
    let pid = until_called(&mesh, "two-1").await;
    let listing = text(&cli(&mesh, &["ps"]));
    contains(&listing, &["two-1", "two-2", "ready", &pid, "python3"]);
    let listing: Value = serde_json::from_slice(&cli(&mesh, &["ps", "-o", "json"]).stdout).expect("JSON");
    assert_eq!(listing["items"].as_array().map(Vec::len), Some(2), "{listing}");

    assert!(cli(&mesh, &["stop", "two-1"]).status.success());
    until(&mesh, "two-1", "stopped").await;
    assert_eq!(running(&[pid.parse().expect("a pid")]), [0; 0]);
    let problem = mesh.api.call("two-1", "pid", json!({})).await.problem(503, "no_instance_available");
    contains(problem["detail"].as_str().expect("a detail"), &["`two-1` stopped (stopped by hand)"]);
    until_called(&mesh, "two").await;
    assert!(cli(&mesh, &["start", "two-1"]).status.success());
    until(&mesh, "two-1", "ready").await;
    let before: BTreeSet<String> = processes(&mesh).await.iter().map(|one| one["pid"].to_string()).collect();
    assert!(cli(&mesh, &["restart", "two"]).status.success());
    eventually("both are others", 2 * SOON, || async {
        let now = processes(&mesh).await;
        now.iter()
            .all(|one| one["state"] == "ready" && !before.contains(&one["pid"].to_string()))
            .then_some(())
    })
    .await;

    assert_eq!(cli(&mesh, &["restart", "unknown"]).status.code(), Some(5));
    assert_eq!(cli(&mesh, &["logs", "unknown"]).status.code(), Some(5));
    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_meshwright"));
    let closed = raw_upstream::closed_port().await;
    let nowhere =
        nowhere.args(["ps", "--url", &format!("http://127.0.0.1:{closed}")]).output().expect("run it");
    assert_eq!(nowhere.status.code(), Some(4), "{}", text(&nowhere));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_children_come_up_while_the_proxy_answers() {
    let book = Book::new();
    let upstream = RawUpstream::plain().await;
    let other = format!("[services.other]\nurl = \"http://127.0.0.1:{}/mcp\"\n", upstream.port);
    let mut mesh = mesh(other.clone()).await;
    eventually("the other service answers", 2 * SOON, || async {
        (mesh.api.call("other", "act", json!({})).await.status == 200).then_some(())
    })
    .await;
    let callers = Callers::start(&mesh.api, 2, "other", "act");
    // What calls alone cost is there before.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (begun, before) = (Instant::now(), mesh.resident_kib());
    let config = book.service("many", &[], "instances = 50") + &book.service("more", &[], "instances = 50");
    rewrite(&mesh, &(other + &config));
    loop {
        let ready = processes(&mesh).await.iter().filter(|one| one["state"] == "ready").count();
        if ready == 100 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{ready} are ready after {:?}", begun.elapsed());
        mesh.api.get("/health").await.ok();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (took, calls) = (begun.elapsed(), callers.stop().await);
    let pids: Vec<i32> = ["many", "more"].iter().flat_map(|name| book.pids(name)).collect();
    assert_eq!(running(&pids).len(), 100);
    until_called(&mesh, "more").await;
    let after = mesh.resident_kib();
    eprintln!(
        "100 children were ready after {took:?}, beside {calls} calls; the proxy had {before} KiB, has {after} KiB"
    );
    assert!(after < before + GROWTH_KIB_MAX, "{before} KiB, then {after} KiB");
    assert!(mesh.terminate().await.success());
    assert_eq!(running(&pids), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_ends_what_left_and_starts_what_is_new_and_nothing_else() {
    let book = Book::new();
    let stays = book.service("stays", &[], "");
    let mesh = mesh(stays.clone() + &book.service("leaves", &["fork"], "")).await;
    let pid = until_called(&mesh, "stays").await;
    until_called(&mesh, "leaves").await;
    let left = book.pids("leaves");
    rewrite(&mesh, &(stays + &book.service("comes", &[], "")));
    until_called(&mesh, "comes").await;
    eventually("what left is ended", SOON, || async { running(&left).is_empty().then_some(()) }).await;
    assert_eq!(until_called(&mesh, "stays").await, pid);
    let names: Vec<Value> = processes(&mesh).await.iter().map(|one| one["instance"].clone()).collect();
    assert_eq!(names, ["comes", "stays"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_started_again_and_one_that_is_at_work_is_not() {
    let book = Book::new();
    let config = "[health]\nprobe_every = \"500ms\"\nprobe_timeout = \"300ms\"\n".to_owned()
        + &book.service("hangs", &[], "")
        + &book.service("works", &["naps"], "")
        + &book.service("stays", &[], "restart = { policy = \"never\" }");
    let mesh = mesh(config).await;
    for name in ["hangs", "works", "stays"] {
        until_called(&mesh, name).await;
    }
    let nap = json!({"target_instance": "works", "tool_name": "pid", "arguments": {"nap_s": 25}, "timeout_ms": 40_000});
    let api = mesh.api.clone();
    let nap = tokio::spawn(async move { api.post("/call", &nap).await });
    for name in ["hangs", "stays"] {
        signal(&book.pids(name)[0].to_string(), Signal::STOP);
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    let cut = mesh.api.call("hangs", "pid", json!({})).await;
    assert_eq!(cut.problem(502, "outcome_unknown")["outcome"], "unknown");
    contains(&mesh.log(), &["hung: it lives, and left 3 probes in a row unanswered"]);
    until_called(&mesh, "hangs").await;
    let again = process(&mesh, "hangs").await;
    assert_eq!((&again["restarts"], book.pids("hangs").len()), (&json!(1), 2), "{again}");

    let answer = nap.await.expect("the call is not lost");
    assert_eq!((answer.status, book.pids("works").len()), (200, 1), "{}", answer.text());
    assert!(!mesh.log().contains("child is ended instance=works"), "{}", mesh.log());
    let stays = process(&mesh, "stays").await;
    assert_eq!((&stays["state"], book.pids("stays").len()), (&json!("ready"), 1), "{stays}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_left_out_is_listed_with_its_place_and_its_fix() {
    let book = Book::new();
    let mesh = mesh("[services.typo]\ncomand = \"x\"\n".to_owned() + &book.service("fine", &[], "")).await;
    until_called(&mesh, "fine").await;
    let typo = process(&mesh, "typo").await;
    assert_eq!((&typo["state"], &typo["pid"]), (&json!("left_out"), &Value::Null), "{typo}");
    let reason = typo["reason"].as_str().expect("a reason");
    contains(reason, &["meshwright.toml:5:1", "did you mean `command`?"]);
    let startup = mesh.api.get("/api/v1/processes").await.ok()["startup"].clone();
    assert_eq!((&startup["started"], &startup["skipped"]), (&json!(["fine"]), &json!(["typo"])), "{startup}");
    contains(&text(&cli(&mesh, &["ps"])), &["typo", "left_out", "did you mean `command`?"]);
    let doctor = text(&cli(&mesh, &["doctor"]));
    contains(&doctor, &["typo: left_out", "config check"]);
    assert_eq!(doctor.matches("did you mean").count(), 1, "it is said once: {doctor}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_rules_hold_at_once_for_processes_that_there_are() {
    let book = Book::new();
    let file = |policy: &str, timeout: &str| {
        book.service("mortal", &[], &format!("restart = {{ policy = \"{policy}\" }}"))
            + &book.service("deaf", &["silent"], &format!("startup_timeout = \"{timeout}\""))
    };
    let mesh = mesh(file("on-failure", "300s")).await;
    let pid = until_called(&mesh, "mortal").await;
    assert_eq!(process(&mesh, "deaf").await["state"], "starting");
    let starting = mesh.api.get("/services/deaf/status").await.ok();
    assert_eq!(starting["reason"], "none of 1 instances is available: `deaf` starting", "{starting}");
    rewrite(&mesh, &file("never", "1s"));
    let waits = until(&mesh, "deaf", "backoff").await;
    contains(waits["reason"].as_str().expect("a reason"), &["no answer within 1s of its start"]);
    kill(&pid);
    let stopped = until(&mesh, "mortal", "stopped").await;
    contains(stopped["reason"].as_str().expect("a reason"), &["was killed by signal 9", "\"never\""]);
    assert_eq!(book.pids("mortal").len(), 1, "another policy restarts nothing that runs");
}
