use super::*;
use crate::mesh::ids::CallId;
use crate::mesh::time::{Mono, Wall};
use crate::mesh::verdict::Decision;

struct Fixed {
    source: Arc<Source>,
    answer: Result<Arc<Decision>, PolicyFault>,
    strict: bool,
}

impl Router for Fixed {
    fn source(&self) -> &Arc<Source> {
        &self.source
    }

    fn route(&self, _: &CallFacts<'_>, _: &Arc<Catalog>) -> Result<Arc<Decision>, PolicyFault> {
        self.answer.clone()
    }

    fn refuses_on_fault(&self) -> bool {
        self.strict
    }

    fn overruled(&self, _: &Name) {}
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a good name")
}

fn router(who: &str, answer: Result<Verdict, PolicyFault>, strict: bool) -> Arc<dyn Router> {
    let source =
        Arc::new(Source { name: name(who), version: "1".to_owned(), generation: 3, component: [0; 32] });
    let answer = answer
        .map(|verdict| Arc::new(Decision { verdict, why: format!("{who} says so").into(), reuse: None }));
    Arc::new(Fixed { source, answer, strict })
}

fn forward(service: &str) -> Verdict {
    Verdict::Forward(Target {
        service: name(service),
        tag: None,
        tool: Some("other".to_owned()),
        timeout: None,
        mirror: None,
    })
}

fn reject() -> Verdict {
    Verdict::Reject(Refusal { reason: "no".to_owned(), retry_after: None })
}

type Said = Vec<(String, Fate)>;

fn reviewed(routers: &[Arc<dyn Router>]) -> Result<Permitted<Call<'static>>, Refused> {
    heard(routers).0
}

fn heard(routers: &[Arc<dyn Router>]) -> (Result<Permitted<Call<'static>>, Refused>, Said) {
    let facts = CallFacts {
        id: CallId(1),
        arrived: Wall::from_millis(0),
        now: Mono::from_secs(0),
        random: 0,
        affinity: 0,
        service: "asked",
        tool: "tool",
        method: "tools/call",
        client: "",
        size: 0,
        time_left: Duration::from_secs(1),
        arguments: b"{}",
    };
    let mut opinions = Opinions::default();
    let reviewed =
        review(routers, &Arc::default(), Call { facts, arguments: b"{}" }, &mut opinions, |service| {
            service.as_str() != "nowhere"
        });
    let said: Vec<_> = opinions.iter().map(|opinion| (opinion.by.name.to_string(), opinion.fate)).collect();
    (reviewed, said)
}

#[test]
fn the_first_verdict_other_than_pass_holds() {
    let routers = [
        router("a", Ok(Verdict::Pass), false),
        router("b", Ok(forward("x")), false),
        router("c", Ok(reject()), false),
    ];
    let permitted = reviewed(&routers).expect("forwarded");
    assert_eq!((permitted.service(), permitted.tool()), ("x", "other"));
    assert_eq!(permitted.ruling().map(|r| r.by.name.as_str()), Some("b"));
}

#[test]
fn a_rejected_call_is_not_permitted() {
    let refused = reviewed(&[router("a", Ok(reject()), false), router("b", Ok(forward("x")), false)]);
    assert_eq!(refused.expect_err("refused").ruling.by.name.as_str(), "a");
}

#[test]
fn a_faulting_router_is_passed_over_unless_it_must_agree() {
    let fault = || Err(PolicyFault::Trap(name("a")));
    let permitted = reviewed(&[router("a", fault(), false)]).expect("passed over");
    assert_eq!((permitted.service(), permitted.tool()), ("asked", "tool"));
    assert!(permitted.ruling().is_none());
    assert!(reviewed(&[router("a", fault(), true)]).is_err());
}

#[test]
fn a_target_that_does_not_exist_is_no_verdict() {
    let permitted =
        reviewed(&[router("a", Ok(forward("nowhere")), false), router("b", Ok(forward("x")), false)]);
    assert_eq!(permitted.expect("the next router decides").service(), "x");
}

#[test]
fn what_each_router_said_is_written_down() {
    let routers = [
        router("a", Ok(Verdict::Pass), false),
        router("b", Err(PolicyFault::Trap(name("b"))), false),
        router("c", Ok(forward("nowhere")), false),
        router("d", Ok(forward("x")), false),
        router("e", Ok(reject()), false),
    ];
    let wanted = [("a", Fate::Passed), ("b", Fate::Faulted), ("c", Fate::Overruled), ("d", Fate::Holds)];
    assert_eq!(heard(&routers).1, wanted.map(|(who, fate)| (who.to_owned(), fate)));
    let skipped = |must_agree| [router("a", Err(PolicyFault::Skipped(name("a"))), must_agree)];
    assert_eq!(heard(&skipped(false)).1, [("a".to_owned(), Fate::Skipped)]);
    assert_eq!(heard(&skipped(true)).1, [("a".to_owned(), Fate::Holds)], "who must agree is not passed over");
    let strict =
        [router("a", Err(PolicyFault::Trap(name("a"))), true), router("b", Ok(Verdict::Pass), false)];
    assert_eq!(heard(&strict).1, [("a".to_owned(), Fate::Holds)], "its fault decided the call");
}
