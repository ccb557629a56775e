//! The requests of the load benchmark, of the size and shape that an apiserver and a scheduler send.

use serde_json::{Value, json};

/// One kind of request.
pub(crate) struct Request {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) path: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) connections: usize,
    /// Calls in a measurement, so that it lasts a few seconds.
    pub(crate) peer_calls: usize,
    pub(crate) warden_calls: usize,
}

/// Returns all kinds of requests.
pub(crate) fn requests() -> Vec<Request> {
    vec![
        Request {
            name: "mutate",
            what: "mutate, a daemon pod that needs 6 tolerations",
            path: "/mutate",
            body: mutate(),
            connections: 16,
            peer_calls: 5_000,
            warden_calls: 60_000,
        },
        Request {
            name: "validate",
            what: "validate, a DaemonSet",
            path: "/validate",
            body: validate(),
            connections: 16,
            peer_calls: 20_000,
            warden_calls: 80_000,
        },
        Request {
            name: "bind",
            what: "bind, a Binding",
            path: "/bind",
            body: bind(),
            connections: 16,
            peer_calls: 20_000,
            warden_calls: 80_000,
        },
        Request {
            name: "names",
            what: "filter, 5,000 names",
            path: "/scheduler/filter",
            body: names(5_000),
            connections: 1,
            peer_calls: 400,
            warden_calls: 5_000,
        },
        Request {
            name: "nodes",
            what: "filter, 1,000 full Nodes",
            path: "/scheduler/filter",
            body: nodes(1_000),
            connections: 1,
            peer_calls: 10,
            warden_calls: 150,
        },
    ]
}

fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("JSON")
}

fn review(group: &str, version: &str, kind: &str, object: &Value) -> Vec<u8> {
    bytes(&json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": group, "version": version, "kind": kind},
            "resource": {"group": group, "version": version, "resource": format!("{}s", kind.to_lowercase())},
            "requestKind": {"group": group, "version": version, "kind": kind},
            "namespace": "logging", "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:daemon-set-controller", "uid": "7c5a", "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"]},
            "object": object, "oldObject": null, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    }))
}

/// Returns a review of about 4.6 KB.
fn mutate() -> Vec<u8> {
    let managed = json!({"f:metadata": {"f:generateName": {}, "f:labels": {".": {}, "f:controller-revision-hash": {}, "f:name": {}, "f:pod-template-generation": {}}, "f:ownerReferences": {".": {}, "k:{\"uid\":\"0d4b\"}": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"fluentd\"}": {".": {}, "f:env": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {".": {}, "f:limits": {}, "f:requests": {}}, "f:volumeMounts": {}}}, "f:dnsPolicy": {}, "f:enableServiceLinks": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {}, "f:terminationGracePeriodSeconds": {}, "f:volumes": {}}});
    let environment: Vec<Value> =
        (0..16).map(|index| json!({"name": format!("FLUENT_OPTION_{index}"), "value": format!("a value of some length {index}")})).collect();
    review(
        "",
        "v1",
        "Pod",
        &json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "generateName": "fluentd-elasticsearch-", "namespace": "logging",
                "labels": {"controller-revision-hash": "5d4c7b9f6d", "name": "fluentd-elasticsearch", "pod-template-generation": "3"},
                "annotations": {"checksum/config": "8b2f6c1f4b7d4c9f9d8a7e6f5c4b3a29181716151413121110"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "fluentd-elasticsearch", "uid": "0d4b7a6e-6393-11e8-b7cc-42010a800002", "controller": true, "blockOwnerDeletion": true}],
                "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1", "time": "2026-11-21T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": managed}],
            },
            "spec": {
                "nodeName": "node-0017.zone-a.example.com",
                "volumes": [{"name": "varlog", "hostPath": {"path": "/var/log", "type": ""}}, {"name": "kube-api-access-x7k2p", "projected": {"sources": [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}, {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}, {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}}], "defaultMode": 420}}],
                "containers": [{"name": "fluentd", "image": "quay.example/fluentd_elasticsearch/fluentd:v5.0.1", "env": environment, "resources": {"limits": {"memory": "200Mi"}, "requests": {"cpu": "100m", "memory": "200Mi"}}, "volumeMounts": [{"name": "varlog", "mountPath": "/var/log"}, {"name": "kube-api-access-x7k2p", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}], "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "serviceAccountName": "fluentd", "serviceAccount": "fluentd", "securityContext": {}, "schedulerName": "default-scheduler",
                "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}],
                "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
            },
            "status": {},
        }),
    )
}

/// Returns a review of about 2 KB.
fn validate() -> Vec<u8> {
    review(
        "apps",
        "v1",
        "DaemonSet",
        &json!({
            "kind": "DaemonSet", "apiVersion": "apps/v1",
            "metadata": {"name": "fluentd-elasticsearch", "namespace": "logging", "uid": "0d4b7a6e-6393-11e8-b7cc-42010a800002", "generation": 1, "creationTimestamp": "2026-11-21T00:00:00Z", "labels": {"k8s-app": "fluentd-logging"}, "annotations": {"deprecated.daemonset.template.generation": "1"}},
            "spec": {
                "selector": {"matchLabels": {"name": "fluentd-elasticsearch"}},
                "template": {
                    "metadata": {"labels": {"name": "fluentd-elasticsearch"}},
                    "spec": {
                        "volumes": [{"name": "varlog", "hostPath": {"path": "/var/log", "type": ""}}],
                        "containers": [{"name": "fluentd", "image": "quay.example/fluentd_elasticsearch/fluentd:v5.0.1", "resources": {"limits": {"memory": "200Mi"}, "requests": {"cpu": "100m", "memory": "200Mi"}}, "volumeMounts": [{"name": "varlog", "mountPath": "/var/log"}], "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"}],
                        "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "securityContext": {}, "schedulerName": "default-scheduler", "priorityClassName": "platform",
                        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}],
                    },
                },
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}, "revisionHistoryLimit": 10,
            },
            "status": {"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0},
        }),
    )
}

/// Returns a review of about 1.5 KB, as the apiserver sends it for a binding of kube-scheduler.
fn bind() -> Vec<u8> {
    let kind = json!({"group": "", "version": "v1", "kind": "Binding"});
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    bytes(&json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": kind, "resource": resource, "subResource": "binding",
            "requestKind": kind, "requestResource": resource, "requestSubResource": "binding",
            "name": "checkout-7d9c6b5f4-x2x7q", "namespace": "shop", "operation": "CREATE",
            "userInfo": {"username": "system:kube-scheduler", "uid": "3d0c7a36-6393-11e8-b7cc-42010a800002", "groups": ["system:authenticated"], "extra": {"authentication.kubernetes.io/credential-id": ["X509SHA256=9b74c9897bac770ffc029102a200c5de0f2c5a2f1a3b4c5d6e7f8091a2b3c4d5"]}},
            "object": {
                "kind": "Binding", "apiVersion": "v1",
                "metadata": {"name": "checkout-7d9c6b5f4-x2x7q", "namespace": "shop", "uid": "9f0e6a1c-6393-11e8-b7cc-42010a800002", "creationTimestamp": null,
                    "labels": {"topology.kubernetes.io/zone": "eu-central-1a", "topology.kubernetes.io/region": "eu-central-1"},
                    "managedFields": [{"manager": "kube-scheduler", "operation": "Update", "apiVersion": "v1", "time": "2026-11-21T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:target": {"f:kind": {}, "f:name": {}}}, "subresource": "binding"}]},
                "target": {"kind": "Node", "name": "node-00017.nodes.cluster-1.region-1.example"},
            },
            "oldObject": null, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "kube-scheduler"},
        },
    }))
}

fn ordinary_pod() -> Value {
    json!({
        "metadata": {"name": "web-7d9c6b5f4-x2x7q", "generateName": "web-7d9c6b5f4-", "namespace": "shop", "uid": "9f0e6a1c-6393-11e8-b7cc-42010a800002", "labels": {"app": "web", "pod-template-hash": "7d9c6b5f4"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d9c6b5f4", "uid": "11", "controller": true, "blockOwnerDeletion": true}]},
        "spec": {"containers": [{"name": "web", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}], "schedulerName": "default-scheduler", "priority": 0},
        "status": {"phase": "Pending"},
    })
}

/// Returns the arguments of a filter call with node names of about 46 bytes.
fn names(count: usize) -> Vec<u8> {
    let names: Vec<String> =
        (0..count).map(|index| format!("node-{index:05}.nodes.cluster-1.region-1.example")).collect();
    bytes(&json!({"Pod": ordinary_pod(), "Nodes": null, "NodeNames": names}))
}

/// Returns the arguments of a filter call with Nodes of about 9 KB, most of it the list of images.
fn nodes(count: usize) -> Vec<u8> {
    let images: Vec<Value> = (0..40)
        .map(|index| json!({"names": [format!("registry.example/team/image-{index}@sha256:{index:064x}"), format!("registry.example/team/image-{index}:v1.{index}.0")], "sizeBytes": 100_000_000 + index}))
        .collect();
    let items: Vec<Value> = (0..count)
        .map(|index| json!({
            "metadata": {"name": format!("node-{index:05}"), "uid": format!("{index:036}"), "resourceVersion": "1", "labels": {"kubernetes.io/hostname": format!("node-{index:05}"), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "topology.kubernetes.io/zone": "a"}, "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
            "spec": {"podCIDR": "10.0.0.0/24", "providerID": format!("cloud://{index}")},
            "status": {"capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"}, "allocatable": {"cpu": "7800m", "memory": "30Gi", "pods": "110"}, "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-21T00:00:00Z", "lastTransitionTime": "2026-11-20T00:00:00Z", "reason": "KubeletReady", "message": "kubelet is posting ready status"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "nodeInfo": {"kubeletVersion": "v1.36.3", "osImage": "Debian"}, "images": images},
        }))
        .collect();
    bytes(&json!({"Pod": ordinary_pod(), "Nodes": {"metadata": {}, "items": items}, "NodeNames": null}))
}
