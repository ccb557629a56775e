//! The Secret: read with the apiserver's time, written with optimistic locking.

use std::time::SystemTime;

use axum::http::{Request, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::issue::{SecretData, unix_time};

/// Which Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::str::FromStr for SecretName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |name: &&str| crate::scheduling::names::dns_1123_subdomain_faults(name).is_empty();
        let parts = text.split_once('/').filter(|(namespace, name)| good(namespace) && good(name));
        let (namespace, name) = parts.ok_or("must be NAMESPACE/NAME")?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

/// Why the apiserver could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request did not get through, or the answer is none.
    #[error("failed to {0}")]
    Call(String, #[source] Box<kube::Error>),
    /// The apiserver refuses.
    #[error("failed to {doing}: {code} {message}")]
    Refused {
        /// Such as `read Secret a/b`.
        doing: String,
        /// The status code.
        code: u16,
        /// What the apiserver says.
        message: String,
    },
}

/// The apiserver's answer.
pub(crate) struct Answer {
    /// The object, or `None` if there is none of the name, or if somebody else was first.
    pub(crate) object: Option<Value>,
    /// The apiserver's clock, in Unix time: the one that certificates are verified by. Ours if it does not say.
    pub(crate) now: i64,
}

/// What a Secret held when it was read.
pub(crate) struct SecretRevision {
    /// `None` if there is no Secret.
    pub(crate) version: Option<String>,
    pub(crate) data: SecretData,
    pub(crate) now: i64,
}

pub(crate) async fn read(client: &Client, secret: &SecretName) -> Result<SecretRevision, ApiError> {
    let SecretName { namespace, name } = secret;
    let request = Request::get(format!("/api/v1/namespaces/{namespace}/secrets/{name}"));
    let answer = call(client, format!("read Secret {namespace}/{name}"), request, None).await?;
    let Some(object) = answer.object else {
        return Ok(SecretRevision { version: None, data: SecretData::new(), now: answer.now });
    };
    let data = object["data"].as_object().into_iter().flatten().filter_map(|(key, value)| {
        // The apiserver lets nothing but base64 in.
        Some((key.clone(), STANDARD.decode(value.as_str()?).ok()?))
    });
    let version = object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    Ok(SecretRevision { version: Some(version), data: data.collect(), now: answer.now })
}

/// Writes `after` over what was found. `false` if somebody else has written since: read again, theirs counts.
pub(crate) async fn write(
    client: &Client,
    secret: &SecretName,
    found: &SecretRevision,
    after: &SecretData,
) -> Result<bool, ApiError> {
    let SecretName { namespace, name } = secret;
    let path = format!("/api/v1/namespaces/{namespace}/secrets");
    let mut data: serde_json::Map<_, _> =
        after.iter().map(|(key, bytes)| (key.clone(), json!(STANDARD.encode(bytes)))).collect();
    let Some(version) = &found.version else {
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": name, "namespace": namespace },
            "data": data,
        });
        let request = Request::post(format!("{path}?fieldManager={MANAGER}"));
        let doing = format!("create Secret {namespace}/{name}");
        return Ok(call(client, doing, request, Some(("application/json", object))).await?.object.is_some());
    };
    // A merge patch: fields that we do not know stay as they are. Null removes a key.
    data.extend(
        found.data.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null)),
    );
    let patch = json!({ "metadata": { "resourceVersion": version }, "data": data });
    let request = Request::patch(format!("{path}/{name}?fieldManager={MANAGER}"));
    let doing = format!("write Secret {namespace}/{name}");
    let answer = call(client, doing, request, Some(("application/merge-patch+json", patch))).await?;
    Ok(answer.object.is_some())
}

/// Who owns the fields that we write, for server-side apply.
pub(crate) const MANAGER: &str = "daemonset-warden";

/// One call. 404 and 409 are answers: nothing is there, somebody else was first.
pub(crate) async fn call(
    client: &Client,
    doing: String,
    request: axum::http::request::Builder,
    body: Option<(&str, Value)>,
) -> Result<Answer, ApiError> {
    let response = send(client, &doing, request, body).await?;
    let status = response.status();
    let now = response.headers().get(header::DATE).and_then(|date| date.to_str().ok()).and_then(http_date);
    let now = now.unwrap_or_else(our_clock);
    let bytes = response.into_body().collect_bytes().await.map_err(|error| failed(&doing, error))?;
    let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    match status {
        status if status.is_success() => Ok(Answer { object: Some(object), now }),
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(Answer { object: None, now }),
        status => Err(ApiError::Refused {
            doing,
            code: status.as_u16(),
            message: object["message"].as_str().unwrap_or("without a reason").to_owned(),
        }),
    }
}

/// A call whose answer goes on and on.
pub(crate) async fn stream(
    client: &Client,
    doing: String,
    request: axum::http::request::Builder,
) -> Result<Body, ApiError> {
    let response = send(client, &doing, request, None).await?;
    if response.status().is_success() {
        return Ok(response.into_body());
    }
    let code = response.status().as_u16();
    Err(ApiError::Refused { doing, code, message: "no watch of it".to_owned() })
}

async fn send(
    client: &Client,
    doing: &str,
    request: axum::http::request::Builder,
    body: Option<(&str, Value)>,
) -> Result<Response<Body>, ApiError> {
    let request = match body {
        None => request.body(Body::empty()),
        Some((kind, body)) => {
            request.header(header::CONTENT_TYPE, kind).body(Body::from(body.to_string().into_bytes()))
        }
    };
    let request = request.map_err(|error| failed(doing, kube::Error::HttpError(error)))?;
    client.send(request).await.map_err(|error| failed(doing, error))
}

fn failed(doing: &str, error: kube::Error) -> ApiError {
    ApiError::Call(doing.to_owned(), Box::new(error))
}

/// Our own clock, in Unix time.
pub(crate) fn our_clock() -> i64 {
    unix_time(SystemTime::now())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the only form that Go writes.
fn http_date(text: &str) -> Option<i64> {
    let mut parts = text.strip_suffix(" GMT")?.split(", ").nth(1)?.split([' ', ':']);
    let mut number = || parts.next()?.parse::<u16>().ok();
    let day = number()?;
    let month = parts.next()?;
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = u8::try_from(months.iter().position(|name| *name == month)? + 1).ok()?;
    let mut number = || parts.next()?.parse::<u16>().ok();
    let (year, hour, minute, second) = (number()?, number()?, number()?, number()?);
    let small = |number: u16| u8::try_from(number).ok();
    let month = time::Month::try_from(month).ok()?;
    let date = time::Date::from_calendar_date(i32::from(year), month, small(day)?).ok()?;
    let time = time::Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
    Some(time::PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_apiservers_clock() {
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for bad in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 36 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(http_date(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_date_is_too_strange(
            nearly in "[A-Z][a-z]{2}, [0-9]{1,5} (Jan|Feb|Dec|xxx) [0-9]{1,6} [0-9]{1,3}:[0-9]{1,3}:[0-9]{1,3} GMT",
            any in ".*",
        ) {
            http_date(&nearly);
            http_date(&any);
        }
    }

    #[test]
    fn a_secret_is_named_with_its_namespace() {
        let name = |text: &str| text.parse::<SecretName>();
        assert_eq!(name("a/b").unwrap(), SecretName { namespace: "a".into(), name: "b".into() });
        for bad in ["a", "/b", "a/", "a/b/c", "A/b", "../b"] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
