//! The documents for programs, docs/asyncapi.yaml and docs/openapi.yaml, held against the service: the
//! frames and answers that `support` receives for the tests all go through here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use hushnet_realtime::protocol::{AuthError, Kind, Label, Limit, ReadinessReason, ResetReason};
use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::support::Response;

fn asyncapi() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| parse(include_str!("../../docs/asyncapi.yaml")))
}

fn openapi() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| parse(include_str!("../../docs/openapi.yaml")))
}

fn parse(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap()
}

/// A schema of the document, which may refer to others of it.
fn compile(document: &Value, schema: &Value) -> Validator {
    let whole = json!({ "allOf": [schema], "components": document["components"] });
    let options = jsonschema::options().with_draft(Draft::Draft202012);
    let options = options.should_validate_formats(true);
    options
        .build(&whole)
        .unwrap_or_else(|error| panic!("{schema}: {error}"))
}

/// The value's faults, each with its path.
fn problems(validator: &Validator, value: &Value) -> Vec<String> {
    let errors = validator.iter_errors(value);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

/// The node that a `$ref` refers to.
fn resolve<'a>(document: &'a Value, node: &'a Value) -> &'a Value {
    match node["$ref"].as_str() {
        Some(reference) => {
            let target = document.pointer(&reference[1..]);
            resolve(document, target.unwrap_or_else(|| panic!("no {reference}")))
        }
        None => node,
    }
}

/// The messages that the service sends, by name: its own operations', and its replies to a client's.
fn sent() -> &'static BTreeMap<String, Validator> {
    static SENT: OnceLock<BTreeMap<String, Validator>> = OnceLock::new();
    SENT.get_or_init(|| {
        let document = asyncapi();
        let operations = document["operations"].as_object().unwrap().values();
        let mut sent = BTreeMap::new();
        for operation in operations {
            let messages = match operation["action"].as_str() {
                Some("send") => &operation["messages"],
                _ => &operation["reply"]["messages"],
            };
            for message in messages.as_array().unwrap() {
                let (_, name) = message["$ref"].as_str().unwrap().rsplit_once('/').unwrap();
                let payload = &resolve(document, message)["payload"];
                sent.insert(name.to_owned(), compile(document, payload));
            }
        }
        sent
    })
}

/// Messages that are known by their form, and not by a `type` of that name.
const BY_FORM: [&str; 3] = ["envelope", "own", "other"];

fn frame_problems(text: &str) -> Vec<String> {
    let Ok(frame) = serde_json::from_str::<Value>(text) else {
        return vec!["it is no JSON".to_owned()];
    };
    let name = match frame["type"].as_str() {
        _ if frame.get("event_type").is_some() => "envelope",
        Some(name) if !BY_FORM.contains(&name) && sent().contains_key(name) => name,
        // An event of any kind.
        _ => "other",
    };
    let Some(validator) = sent().get(name) else {
        return vec!["the service sends no such message".to_owned()];
    };
    let found = problems(validator, &frame);
    // The triggers of some tests send more fields than the service's.
    if sent()["own"].is_valid(&frame) {
        return Vec::new();
    }
    found
}

/// Fails for a frame that docs/asyncapi.yaml does not have the service send.
pub fn assert_valid_frame(text: &str) {
    let problems = frame_problems(text);
    assert!(
        problems.is_empty(),
        "docs/asyncapi.yaml: {problems:#?}\nin the frame {text}"
    );
}

/// Longer answers are not checked: their rows are like those of shorter ones.
const CHECKED_BYTES_MAX: usize = 64 << 10;

/// An answer as docs/openapi.yaml has it.
struct Documented {
    /// Each with its name in lower case, whether it is required, and whether it is a number.
    headers: Vec<(String, bool, bool, Validator)>,
    json: Option<Validator>,
}

impl Documented {
    fn of(document: &Value, response: &Value) -> Self {
        let response = resolve(document, response);
        let json = &response["content"]["application/json"]["schema"];
        let headers = response["headers"].as_object().into_iter().flatten();
        Self {
            headers: headers
                .map(|(name, header)| {
                    let header = resolve(document, header);
                    let schema = &header["schema"];
                    (
                        name.to_lowercase(),
                        header["required"] == true,
                        schema["type"] == "integer",
                        compile(document, schema),
                    )
                })
                .collect(),
            json: (!json.is_null()).then(|| compile(document, json)),
        }
    }

    fn problems(&self, response: &Response) -> Vec<String> {
        let mut found = Vec::new();
        for (name, required, is_number, validator) in &self.headers {
            match response.headers.get(name) {
                Some(text) => {
                    let number = is_number.then(|| text.parse::<u64>().ok()).flatten();
                    let value = number.map_or_else(|| json!(text), |number| json!(number));
                    found.extend(problems(validator, &value));
                }
                None if *required => found.push(format!("there is no header {name}")),
                None => {}
            }
        }
        if let Some(validator) = &self.json
            && response.body.len() <= CHECKED_BYTES_MAX
        {
            found.extend(problems(validator, &response.json()));
        }
        found
    }
}

/// Every answer, by path and status; 404 by itself, since it is that of every other path.
fn answers() -> &'static BTreeMap<(String, String), Documented> {
    static ANSWERS: OnceLock<BTreeMap<(String, String), Documented>> = OnceLock::new();
    ANSWERS.get_or_init(|| {
        let document = openapi();
        let mut answers = BTreeMap::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (status, response) in item["get"]["responses"].as_object().unwrap() {
                let documented = Documented::of(document, response);
                answers.insert((path.clone(), status.clone()), documented);
            }
        }
        let not_found = &document["components"]["responses"]["NotFound"];
        let key = (String::new(), "404".to_owned());
        answers.insert(key, Documented::of(document, not_found));
        answers
    })
}

/// The path in the document that this one is of; empty for none.
fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (parts, wanted) = (path.split('/'), template.split('/'));
        parts.clone().count() == wanted.clone().count()
            && parts
                .zip(wanted)
                .all(|(part, wanted)| part == wanted || wanted.starts_with('{'))
    };
    let paths = openapi()["paths"].as_object().unwrap();
    paths
        .keys()
        .find(|template| fits(template))
        .cloned()
        .unwrap_or_default()
}

fn answer_problems(path: &str, response: &Response) -> Vec<String> {
    let status = response.status.to_string();
    let own = answers().get(&(template(path), status.clone()));
    // A route of its own, and every path that is none.
    let documented = own.or_else(|| answers().get(&(String::new(), status)));
    match documented {
        Some(documented) => documented.problems(response),
        None => vec!["there is no such answer".to_owned()],
    }
}

/// The console's own routes. No document has them, and they have codes of their own.
const CONSOLE: &str = "/console";
const CONSOLE_CODES: [&str; 2] = ["demo_", "console_"];

/// Fails for an answer that docs/openapi.yaml does not have. What is not HTTP, or no route's business
/// (a preflight, a head that is too large), is passed over.
pub fn assert_valid_answer(request: &str, response: &Response) {
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
    let of_a_route = response.status == 101 || response.headers.contains_key("content-type");
    let not_described = method == "HEAD" || method != "GET" && response.status < 400;
    if !of_a_route || path.starts_with(CONSOLE) || not_described {
        return;
    }
    let problems = answer_problems(path, response);
    assert!(
        problems.is_empty(),
        "docs/openapi.yaml: {problems:#?}\nin the answer to {method} {path}: {response:?}"
    );
}

const USER: &str = "657f35d7-95e5-44cc-8e75-f7dd09d99983";

#[test]
fn wrong_frames_are_refused() {
    let event = json!({ "type": "message", "chat_id": USER, "user_id": USER, "id": 3 });
    let hello = json!({ "type": "hello", "connection_id": USER, "cursor": null,
        "heartbeat_ms": 1, "resumed": false, "replayed": 0 });
    let reset = json!({ "type": "reset", "reason": "no_log", "cursor": null });
    let error = json!({ "type": "error", "code": "unknown_type", "message": "" });
    let envelope = json!({ "event_type": "message", "payload": event });
    let changed = |frame: &Value, pointer: &str, value: Value| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut frame = frame.clone();
        frame.pointer_mut(parent).unwrap()[name] = value;
        frame
    };
    for right in [&event, &hello, &reset, &error, &envelope] {
        assert_valid_frame(&right.to_string());
    }
    assert_valid_frame(&changed(&event, "/type", json!("reaction")).to_string());
    // A database's own trigger may send more fields.
    assert_valid_frame(&changed(&event, "/mark", json!(1)).to_string());
    for wrong in [
        changed(&event, "/type", json!("truncated")),
        changed(&event, "/user_id", json!("alice")),
        changed(&event, "/chat_id", json!(1)),
        changed(&event, "/id", json!("3")),
        changed(&event, "/id", json!(9_007_199_254_740_992_u64)),
        changed(&event, "/cursor", json!(null)),
        changed(&event, "/cursor", json!("a b")),
        changed(&hello, "/heartbeat_ms", json!(0)),
        changed(&hello, "/more", json!(1)),
        changed(&reset, "/reason", json!("weather")),
        changed(&error, "/code", json!("signature_stale")),
        changed(&envelope, "/event_type", json!("session")),
        changed(&envelope, "/payload/cursor", json!("1-1.3:3:")),
        changed(&envelope, "/id", json!(3)),
        json!({ "type": "message", "user_id": USER }),
        json!({ "type": "goaway" }),
        json!({ "type": "cursor" }),
        // What only clients send.
        json!({ "type": "ping" }),
        json!([]),
    ] {
        assert!(!frame_problems(&wrong.to_string()).is_empty(), "{wrong}");
    }
    assert!(!frame_problems("pong").is_empty());
}

#[test]
fn the_examples_are_as_their_schemas() {
    let messages = asyncapi()["components"]["messages"].as_object().unwrap();
    for (name, message) in messages {
        let validator = compile(asyncapi(), &message["payload"]);
        for example in message["examples"].as_array().unwrap() {
            let problems = problems(&validator, &example["payload"]);
            assert!(problems.is_empty(), "{name}: {problems:?}");
        }
    }
}

#[test]
fn wrong_answers_are_refused() {
    let response = |status, headers: &[(&str, &str)], body: &Value| Response {
        status,
        headers: headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: body.to_string(),
    };
    let error = |code: &str| json!({ "error": { "code": code, "message": "" } });
    let wait =
        |code: &str| json!({ "error": { "code": code, "message": "", "retry_after_ms": 900 } });
    let devices = format!("/users/{USER}/devices");
    let no_store = ("cache-control", "no-store");
    let row = json!({ "id": USER });
    for (is_right, path, response) in [
        (true, &*devices, response(200, &[no_store], &json!([]))),
        (false, &devices, response(200, &[], &json!([]))),
        (false, &devices, response(200, &[no_store], &json!([row]))),
        (false, &devices, response(418, &[], &error("teapot"))),
        (true, "/other", response(404, &[], &error("not_found"))),
        (false, "/other", response(200, &[], &json!("alive"))),
        (false, "/healthz", response(200, &[], &json!({}))),
        (
            true,
            "/ws?since=",
            response(429, &[("retry-after", "1")], &wait("user_limit")),
        ),
        (
            false,
            "/ws?since=",
            response(429, &[("retry-after", "1")], &error("user_limit")),
        ),
        (
            false,
            "/ws",
            response(429, &[("retry-after", "soon")], &wait("user_limit")),
        ),
        (false, "/ws", response(429, &[], &wait("user_limit"))),
        (
            false,
            "/ws",
            response(429, &[("retry-after", "1")], &wait("other")),
        ),
    ] {
        let problems = answer_problems(path, &response);
        assert_eq!(problems.is_empty(), is_right, "{problems:?}: {response:?}");
    }
}

/// What the schemas below this node let a `code` be.
fn codes<'a>(node: &'a Value, found: &mut BTreeSet<&'a str>) {
    if let Some(code) = node.get("code") {
        let listed = code["enum"].as_array().into_iter().flatten();
        found.extend(listed.chain(code.get("const")).filter_map(Value::as_str));
    }
    match node {
        Value::Object(members) => members.values().for_each(|member| codes(member, found)),
        Value::Array(items) => items.iter().for_each(|item| codes(item, found)),
        _ => {}
    }
}

#[test]
fn the_documents_list_every_code_and_no_other() {
    // In `ApiError::code`, each code stands at the end of a line of its own.
    let errors = include_str!("../../src/http/error.rs");
    let of_routes = errors.lines().filter_map(|line| {
        let (_, code) = line.split_once(" => \"")?;
        let code = code.strip_suffix("\",")?;
        let is_code = code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        (is_code && !CONSOLE_CODES.iter().any(|own| code.starts_with(own))).then_some(code)
    });
    let mut wanted: BTreeSet<&str> = of_routes.collect();
    assert!(wanted.len() > 10, "{wanted:?}");
    wanted.extend(AuthError::all().map(AuthError::code));
    wanted.extend(Limit::all().map(Limit::code));
    wanted.extend(ReadinessReason::all().map(Label::as_str));
    let mut documented = BTreeSet::new();
    codes(openapi(), &mut documented);
    assert_eq!(documented, wanted);

    // Over the WebSocket only a token is refused: for its own faults, or for another subject.
    let mut documented = BTreeSet::new();
    codes(&asyncapi()["components"]["schemas"], &mut documented);
    let of_token = AuthError::all().filter(|error| {
        error.code().starts_with("token_")
            || matches!(
                error,
                AuthError::CredentialsMissing
                    | AuthError::OtherUser
                    | AuthError::OtherDevice
                    | AuthError::Unavailable
            )
    });
    let mut wanted: BTreeSet<&str> = of_token.map(AuthError::code).collect();
    wanted.insert("unknown_type");
    assert_eq!(documented, wanted);
}

#[test]
fn the_documents_have_the_code_s_enums() {
    let schemas = &asyncapi()["components"]["schemas"];
    let reasons: Vec<_> = ResetReason::all().map(Label::as_str).collect();
    let kinds = Kind::PRESET;
    assert_eq!(
        schemas["reset"]["properties"]["reason"]["enum"],
        json!(reasons)
    );
    assert_eq!(schemas["knownKind"]["enum"], json!(kinds));
    // docs/protocol.md has every close code; here only those are named with which a proof is refused.
    let proofs = &asyncapi()["components"]["securitySchemes"];
    let told = proofs["subprotocol"]["description"].as_str().unwrap();
    for error in AuthError::all() {
        let code = error.close_code().code().to_string();
        assert!(told.contains(&code), "{told} lacks {code}");
    }
}

#[test]
fn the_routes_are_those_that_the_service_names() {
    let (_, message) = include_str!("../../src/http/error.rs")
        .split_once("\"the routes are ")
        .unwrap();
    let (routes, _) = message.split_once('"').unwrap();
    // As the format string and the source's line breaks have it.
    let routes = routes.replace("{{", "{").replace("}}", "}");
    let routes = routes.replace('\\', " ").replace(" and ", ", ");
    let routes = routes.split(',').map(str::trim);
    let named: BTreeSet<&str> = routes.filter(|path| !path.starts_with(CONSOLE)).collect();
    let paths = openapi()["paths"].as_object().unwrap();
    assert_eq!(
        paths.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        named
    );
}
