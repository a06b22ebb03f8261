//! A router for the host's tests. It answers with the argument to which the client's name is a pointer, and refuses
//! calls whose `/amount` is over 100. `/panic` is more than it can take.

use bindings::exports::meshwright::plugin::{catalog, lifecycle, router};
use bindings::meshwright::plugin::arguments;

#[allow(unsafe_code, reason = "generated")]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "routing", generate_all });

    #[cfg(target_arch = "wasm32")]
    export!(Reader);
    #[cfg(target_arch = "wasm32")]
    use super::Reader;
}

struct Reader;

impl lifecycle::Guest for Reader {
    fn metadata() -> String {
        "name = \"reader\"\nversion = \"1.0.0\"\ngrants = [\"arguments\"]\n".into()
    }

    fn configure(_config_json: String) -> Result<(), Vec<lifecycle::Issue>> {
        Ok(())
    }

    fn self_test() -> Result<(), String> {
        match arguments::at("") {
            None => Ok(()),
            Some(text) => Err(format!("there is no call, but arguments: {text}")),
        }
    }
}

impl catalog::Guest for Reader {
    fn on_catalog(_services: Vec<catalog::Service>) {}
}

impl router::Guest for Reader {
    fn route(call: router::Call) -> router::Decision {
        if let Some(text) = arguments::at("/panic") {
            panic!("cannot cope with {text}");
        }
        let amount = arguments::at("/amount").and_then(|text| text.parse::<f64>().ok());
        let verdict = if amount.is_some_and(|amount| amount > 100.0) {
            let reason = "more than 100 needs a person".to_owned();
            router::Verdict::Reject(router::Refusal { reason, retry_after_ms: None })
        } else {
            router::Verdict::Forward(router::Target {
                service: call.service,
                tag: None,
                tool: None,
                timeout_ms: None,
                mirror: None,
            })
        };
        let why = arguments::at(&call.client).unwrap_or_else(|| "nothing".into());
        router::Decision { verdict, why, reuse: None }
    }
}
