use std::time::{Duration, Instant};

use super::*;

fn requests_of(spec: &str) -> Resources {
    template_requests(&serde_json::from_str(spec).unwrap())
}

#[test]
fn negative_amounts_make_no_room() {
    let container =
        |cpu: &str| format!(r#"{{"resources":{{"requests":{{"cpu":"{cpu}","x.io/a":"{cpu}"}}}}}}"#);
    let spec = |resources: &str| {
        format!(
            r#"{{"containers":[{},{}],"overhead":{{"memory":"-1Gi"}}{resources}}}"#,
            container("2"),
            container("-5")
        )
    };
    let requests = requests_of(&spec(""));
    assert_eq!((requests.milli_cpu, requests.memory, requests.scalar("x.io/a")), (2_000, 0, 2));
    assert_eq!(requests_of(&spec(r#","resources":{"requests":{"cpu":"-1"}}"#)).milli_cpu, 0);
}

#[test]
fn init_containers_run_one_by_one_beside_earlier_sidecars() {
    let container = |sidecar: bool, requests: &str| {
        let policy = if sidecar { r#""restartPolicy":"Always","# } else { "" };
        format!(r#"{{{policy}"resources":{{"requests":{requests}}}}}"#)
    };
    let init = [
        container(false, r#"{"cpu":"500m","memory":"10"}"#),
        container(true, r#"{"cpu":"100m"}"#),
        container(false, r#"{"cpu":"700m","x.io/a":"1"}"#),
        container(true, r#"{"cpu":"50m","memory":"4"}"#),
    ];
    let spec = format!(
        r#"{{"containers":[{}],"initContainers":[{}]}}"#,
        container(false, r#"{"cpu":"200m","memory":"1"}"#),
        init.join(",")
    );
    let requests = requests_of(&spec);
    assert_eq!((requests.milli_cpu, requests.memory, requests.scalar("x.io/a")), (800, 10, 1));
}

/// They took the square of their number: minutes.
#[test]
fn thousands_of_sidecars_and_statuses_are_added_in_time() {
    let numbered = |item: &dyn Fn(usize) -> String| (0..20_000).map(item).collect::<Vec<_>>().join(",");
    let sidecars = numbered(&|number| {
        format!(
            r#"{{"name":"{number}","restartPolicy":"Always","resources":{{"requests":{{"x.io/{number}":1}}}}}}"#
        )
    });
    let statuses = numbered(&|number| {
        format!(r#"{{"name":"{number}","resources":{{"requests":{{"x.io/{number}":2}}}}}}"#)
    });
    let pod = format!(
        r#"{{"spec":{{"initContainers":[{sidecars}]}},"status":{{"initContainerStatuses":[{statuses}]}}}}"#
    );
    let pod: Pod = serde_json::from_str(&pod).unwrap();
    let begin = Instant::now();
    let mut requests = pod_requests(&pod);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!((requests.scalars.len(), requests.scalar("x.io/19999")), (20_000, 2));
    requests.limit_scalars();
    assert_eq!(requests.scalars.len(), MAX_SCALARS);
}
