//! Children are killed in the middle of their work: what they did is never done again unasked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Api, Mesh, MeshOptions, SOON, eventually, json, repository};

const KILLS: usize = 200;
const CHILDREN: usize = 40;
const CALLERS: usize = 8;
/// Of all kills; a child is started again within seconds, and later the more often it was killed.
const WITHIN: Duration = Duration::from_secs(240);

/// What a caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Told {
    Done,
    /// Nothing was sent.
    NotDone,
    Unknown,
}

async fn count(api: &Api, number: u64) -> Told {
    let answer = api.call("counter", "count", json!({"n": number})).await;
    if answer.status == 200 {
        return Told::Done;
    }
    let problem = answer.json();
    match problem["code"].as_str().expect("a code") {
        "outcome_unknown" => {
            assert_eq!(problem["outcome"], "unknown", "{problem}");
            Told::Unknown
        }
        "upstream_unreachable" | "no_instance_available" | "overloaded" => {
            assert_ne!(problem["outcome"], "unknown", "{problem}");
            Told::NotDone
        }
        _ => panic!("neither done nor undone: {problem}"),
    }
}

/// How often each number was counted.
fn counted(file: &Path) -> HashMap<u64, u32> {
    let text = std::fs::read_to_string(file).expect("the children counted");
    let mut counted = HashMap::new();
    for number in text.lines() {
        *counted.entry(number.parse().expect("a number")).or_default() += 1;
    }
    counted
}

/// A child that is there for calls, at random.
async fn victim(mesh: &Mesh) -> Option<Pid> {
    let listing = mesh.api.get("/api/v1/processes").await.ok();
    let ready = listing["items"].as_array()?.iter().filter(|one| one["state"] == "ready");
    let pids: Vec<i64> = ready.filter_map(|one| one["pid"].as_i64()).collect();
    let pid = *pids.get(fastrand::usize(..pids.len().max(1)))?;
    Pid::from_raw(i32::try_from(pid).ok()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_child_did_is_never_done_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pids");
    let script = repository().join("tests/fixtures/chaos_child.py");
    let config = format!(
        "[services.counter]\ncommand = \"python3\"\nargs = [{script:?}, {file:?}]\ninstances = {CHILDREN}\n\
         restart = {{ policy = \"always\", max = 1000, window = \"60s\" }}\n"
    );
    let mesh = Mesh::start(MeshOptions { config, ..MeshOptions::default() }).await;
    eventually("all children are there", 4 * SOON, || async {
        let listing = mesh.api.get("/api/v1/processes").await.ok();
        let ready = listing["items"].as_array()?.iter().filter(|one| one["state"] == "ready").count();
        (ready == CHILDREN).then_some(())
    })
    .await;

    let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (api, stop, next) = (mesh.api.clone(), Arc::clone(&stop), Arc::clone(&next));
            tokio::spawn(async move {
                let mut told = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    told.push((number, count(&api, number).await));
                }
                told
            })
        })
        .collect();
    let (began, mut kills) = (Instant::now(), 0);
    while kills < KILLS {
        if let Some(pid) = victim(&mesh).await {
            // One that has just ended by an earlier kill does not count.
            kills += usize::from(kill_process(pid, Signal::KILL).is_ok());
        }
        assert!(began.elapsed() < WITHIN, "{kills} kills");
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut told = HashMap::new();
    for caller in callers {
        told.extend(caller.await.expect("every call ends in one of three ways"));
    }

    let counted = counted(&file.with_extension("counts"));
    let mut seen: HashMap<(Told, u32), u32> = HashMap::new();
    for (number, told) in &told {
        *seen.entry((*told, counted.get(number).copied().unwrap_or(0))).or_default() += 1;
    }
    eprintln!("{kills} kills in {:?}; told and counted: {seen:?}", began.elapsed());
    for ((told, times), calls) in &seen {
        let right = match told {
            Told::Done => *times == 1,
            Told::NotDone => *times == 0,
            Told::Unknown => *times <= 1,
        };
        assert!(right, "{calls} calls: {told:?}, and counted {times} times");
    }
    let unknown: u32 =
        seen.iter().filter(|((told, _), _)| *told == Told::Unknown).map(|(_, calls)| calls).sum();
    assert!(unknown > 0, "no kill came in the middle of a call: {seen:?}");
    assert!(told.len() > KILLS, "{} calls", told.len());
}
