//! The answer of `/readyz`.

use serde_json::{Value, json};
use warp::http::StatusCode;
use warp::reply::Response;

use super::error::ApiError;
use super::reply::{advise, with_type};
use crate::delivery::Finding;
use crate::protocol::{ErrorBody, Label, RETRY_AFTER, Readiness, ReadinessReason};

/// The answer to these findings.
pub(super) fn answer(findings: &[Finding]) -> Response {
    let mut response = with_type(body(findings).to_string(), "application/json");
    if !readiness(findings).takes_clients() {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    if is_draining(findings)
        && let Some(advice) = ApiError::Draining.advice()
    {
        advise(response.headers_mut(), advice);
    }
    response
}

fn is_draining(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.reason == ReadinessReason::Draining)
}

/// The worst state of the findings' reasons.
fn readiness(findings: &[Finding]) -> Readiness {
    let of_findings = findings.iter().map(|finding| finding.reason.readiness());
    of_findings.max().unwrap_or(Readiness::Ready)
}

/// `{"status","reasons"}`. A body that sends clients away also has `error`, as every refusal has: the first reason
/// that sends them away.
fn body(findings: &[Finding]) -> Value {
    let reasons: Vec<_> = findings.iter().map(reason).collect();
    let mut body = json!({ "status": readiness(findings).as_str(), "reasons": reasons });
    let first = findings
        .iter()
        .find(|finding| !finding.reason.readiness().takes_clients());
    if let Some(first) = first {
        let wait = is_draining(findings).then_some(RETRY_AFTER);
        body["error"] = json!(ErrorBody::new(first.reason.as_str(), &message(first), wait));
    }
    body
}

fn reason(finding: &Finding) -> Value {
    let reason = finding.reason;
    let mut value = json!({
        "code": reason.as_str(),
        "message": reason.meaning(),
        "remedy": reason.remedy(),
    });
    if let Some(detail) = &finding.detail {
        value["detail"] = json!(**detail);
    }
    value
}

fn message(finding: &Finding) -> String {
    let meaning = finding.reason.meaning();
    match &finding.detail {
        Some(detail) => format!("{meaning} Seen: {detail}"),
        None => meaning.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ReadinessReason::{
        BarrierFailed, CatchingUp, Draining, ListenerDisconnected, NotificationQueueFilling,
    };

    fn findings(reasons: &[ReadinessReason]) -> Vec<Finding> {
        let findings = reasons.iter().map(|reason| Finding {
            reason: *reason,
            detail: None,
        });
        findings.collect()
    }

    #[test]
    fn what_only_has_to_be_mended_sends_no_client_away() {
        let filling = NotificationQueueFilling;
        for (reasons, status, state, code) in [
            (&[][..], 200, "ready", None),
            (&[CatchingUp], 200, "catching_up", None),
            (&[filling], 200, "degraded", None),
            (&[CatchingUp, filling], 200, "degraded", None),
            (
                &[BarrierFailed, filling],
                503,
                "unavailable",
                Some("barrier_failed"),
            ),
            (
                &[Draining, ListenerDisconnected],
                503,
                "unavailable",
                Some("draining"),
            ),
        ] {
            let findings = findings(reasons);
            assert_eq!(answer(&findings).status(), status, "{reasons:?}");
            let body = body(&findings);
            assert_eq!(body["status"], state);
            assert_eq!(body["error"]["code"].as_str(), code);
            let given = body["reasons"].as_array().unwrap().iter();
            let given: Vec<_> = given
                .map(|reason| reason["code"].as_str().unwrap())
                .collect();
            let wanted: Vec<_> = reasons.iter().map(|reason| reason.as_str()).collect();
            assert_eq!(given, wanted);
        }
    }

    #[test]
    fn only_a_server_that_ends_says_when_to_come_back() {
        let header = |reasons: &[ReadinessReason]| {
            let answer = answer(&findings(reasons));
            answer.headers().get("retry-after").cloned()
        };
        assert_eq!(header(&[Draining, BarrierFailed]).unwrap(), "1");
        let wait = |reasons: &[ReadinessReason]| {
            body(&findings(reasons))["error"]["retry_after_ms"].take()
        };
        assert_eq!(wait(&[Draining, BarrierFailed]), 1_000);
        assert!(wait(&[BarrierFailed]).is_null());
        assert_eq!(header(&[BarrierFailed]), None);
    }

    #[test]
    fn a_reason_comes_with_what_was_seen_and_what_to_do() {
        let finding = Finding {
            reason: BarrierFailed,
            detail: Some("no such function (42883)".into()),
        };
        let body = body(&[finding]);
        let reason = &body["reasons"][0];
        assert_eq!(reason["detail"], "no such function (42883)");
        assert_eq!(reason["remedy"], BarrierFailed.remedy());
        let message = body["error"]["message"].as_str().unwrap();
        assert!(
            message.ends_with("Seen: no such function (42883)"),
            "{message}"
        );
    }
}
